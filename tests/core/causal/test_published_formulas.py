"""The formulas of Zhang et al. 2023, in loops over dense arrays, on ten random models."""

import numpy as np
import pytest

from nextpert.core import (
    CausalVariance,
    Civ,
    CivOw,
    DagBlr,
    ExpectedImprovementInt,
    Greedy,
    MaxVariance,
    Moments,
    MutualInformationInt,
    Sphere,
    UpperConfidenceInt,
    random_scm,
    random_target,
)

N_DRAWS, N_CELLS = 5, 3
FAMILIES = ["complete", "erdos_renyi", "path", "complete", "erdos_renyi"]


class Published:
    """Known noise variances, no intercept, and the prior ``B_i ~ N(0, sigma_i^2 I)``."""

    def __init__(self, parents, noise_var, target):
        self.parents, self.noise_var, self.target = parents, noise_var, target
        self.p = len(parents)
        self.m = [np.zeros(len(k)) for k in parents]
        self.cov = [np.eye(len(k)) for k in parents]

    def uncertain(self):
        """Nodes whose ideal shift is not known: a parent has a target mean other than 0."""
        return [i for i, own in enumerate(self.parents) if self.target[own].any()]

    def update(self, cells, shift):
        """Lemma 1, one cell after the other."""
        for x in cells:
            for i, own in enumerate(self.parents):
                before = np.linalg.inv(self.cov[i])
                self.cov[i] = np.linalg.inv(before + np.outer(x[own], x[own]))
                known = before @ self.m[i] + x[own] * (x[i] - shift[i])
                self.m[i] = self.cov[i] @ known

    def weights(self):
        """E(B | D), row = child."""
        b = np.zeros((self.p, self.p))
        for i, own in enumerate(self.parents):
            b[i, own] = self.m[i]
        return b

    def ideal(self):
        """The estimate of a*."""
        return self.target - self.weights() @ self.target

    def variances(self, cov):
        """v_i of equation 12, the posterior variance of a*_i."""
        return np.array([
            self.noise_var[i] * self.target[own] @ cov[i] @ self.target[own]
            for i, own in enumerate(self.parents)
        ])  # fmt: skip

    def after(self, x, n):
        """Covariances after ``n`` copies of one cell."""
        rows = [x[own] for own in self.parents]
        return [
            np.linalg.inv(np.linalg.inv(cov) + n * np.outer(row, row))
            for cov, row in zip(self.cov, rows, strict=True)
        ]

    def ahead(self, shift):
        """Covariances after the hypothetical cells at ``(I - E B)^-1 a``."""
        return self.after(np.linalg.inv(np.eye(self.p) - self.weights()) @ shift, N_CELLS)

    def integrated(self, shift, squares):
        """Equation 13, given the averages of ``(a_i - b_i)^2`` over the measure."""
        total = 0.0
        for i, v in enumerate(self.variances(self.ahead(shift))):
            total += v**2 + 2 * v * (self.noise_var[i] / N_CELLS + squares[i])
        return total

    def constant(self, squares):
        """What of the variance of the gap the noise of the cells alone makes, over 2."""
        s = self.noise_var / N_CELLS
        return (s**2 + 2 * s * squares).sum()


@pytest.fixture(scope="module", params=range(10))
def model(request):
    """The published formulas, the package's posterior, both after the same cells, and shifts."""
    seed = request.param
    scm = random_scm(4 + seed % 4, FAMILIES[seed % 5], rng=seed)
    _, target = random_target(scm, 2, rng=seed)
    rng = np.random.default_rng([seed, 1])
    plain = Published([scm.dag.parents(i) for i in range(scm.dag.n_nodes)], scm.noise_var, target)
    blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=1.0)
    for _ in range(3):
        shift = rng.normal(size=plain.p)
        cells = scm.sample(2, shift, rng=rng)
        plain.update(cells, shift)
        blr = blr.update(Moments.from_array(cells), shift)
    return plain, blr, rng.normal(size=(2, plain.p))


def draws(plain, blr, rng):
    """The package's draws of weights, as dense matrices."""
    flat, _ = blr.sample(N_DRAWS, rng)
    b = np.zeros((N_DRAWS, plain.p, plain.p))
    for i, own in enumerate(plain.parents):
        b[:, i, own] = flat[:, blr.vptr[i] : blr.vptr[i + 1]]
    return b


def agree(acquisition, shifts, wanted):
    np.testing.assert_allclose(acquisition.values(shifts), wanted, rtol=1e-9, atol=1e-12)
    single = [acquisition.value(shift) for shift in shifts]
    np.testing.assert_allclose(single, wanted, rtol=1e-9, atol=1e-12)


def test_posterior_and_estimate(model):
    plain, blr, _ = model
    np.testing.assert_allclose(blr.mean().toarray(), plain.weights(), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(blr.ideal_shift(plain.target), plain.ideal(), rtol=1e-9, atol=1e-12)


def test_civ_is_twice_the_published_value_and_a_constant(model):
    plain, blr, shifts = model
    squares = plain.ideal() ** 2 + 1 / plain.p
    values = np.array([plain.integrated(a, squares) for a in shifts])
    wanted = 2 * (values + plain.constant(squares))
    agree(Civ(blr, plain.target, n_cells=N_CELLS), shifts, wanted)


def test_output_weights_by_quadrature(model):
    """Equation 8: the coordinate along the estimate is uniform between -1 and 1."""
    plain, blr, shifts = model
    b = plain.ideal()
    unit = b / np.linalg.norm(b)
    squares = np.zeros(plain.p)
    for t, weight in zip(*np.polynomial.legendre.leggauss(8), strict=True):
        across = (1 - t**2) * (1 - unit**2) / (plain.p - 1)
        squares += weight / 2 * ((t * unit - b) ** 2 + across)
    values = np.array([plain.integrated(a, squares) for a in shifts])
    wanted = 2 * (values + plain.constant(squares))
    agree(CivOw(blr, plain.target, n_cells=N_CELLS), shifts, wanted)


def test_greedy_maxv_and_cv(model):
    plain, blr, shifts = model
    later = [plain.ahead(a) for a in shifts]
    agree(Greedy(blr, plain.target), shifts, [((a - plain.ideal()) ** 2).sum() for a in shifts])
    spectral = [
        max(s * np.linalg.norm(c, 2) for s, c in zip(plain.noise_var, cov, strict=True) if c.size)
        for cov in later
    ]
    agree(MaxVariance(blr, plain.target, n_cells=N_CELLS), shifts, spectral)
    largest = [np.linalg.norm(np.diag(plain.variances(cov)), 2) for cov in later]
    agree(CausalVariance(blr, plain.target, n_cells=N_CELLS), shifts, largest)


def test_ei_and_ucb(model):
    plain, blr, shifts = model
    loss = np.empty((len(shifts), N_DRAWS))
    for k, b in enumerate(draws(plain, blr, np.random.default_rng(2))):
        for j, shift in enumerate(shifts):
            reached = np.linalg.inv(np.eye(plain.p) - b) @ shift
            loss[j, k] = ((reached - plain.target) ** 2).sum()
    best = float(np.median(loss))
    improved = best - np.maximum(best - loss, 0).mean(axis=1)
    found = ExpectedImprovementInt(blr, plain.target, best=best, n_samples=N_DRAWS, rng=2)
    agree(found, shifts, improved)
    v, b = plain.variances(plain.cov), plain.ideal()
    optimistic = []
    for a in shifts:
        off = (a - b) ** 2
        spread = np.sqrt((2 * v**2 + 4 * v * off).sum())
        optimistic.append((off + v).sum() - 1.5 * spread)
    agree(UpperConfidenceInt(blr, plain.target, beta=1.5), shifts, optimistic)


def joint_information(plain, x):
    """I(a*; response of the cells at ``x``) by determinants of one joint normal distribution."""
    inner = plain.uncertain()
    width = [len(plain.parents[i]) for i in inner]
    start = np.concatenate([[0], np.cumsum(width)])
    prior, to_ideal = np.zeros((start[-1], start[-1])), np.zeros((len(inner), start[-1]))
    to_cells, noise = np.zeros((len(inner), start[-1])), np.zeros(len(inner))
    for k, i in enumerate(inner):
        at, own = slice(start[k], start[k + 1]), plain.parents[i]
        prior[at, at] = plain.noise_var[i] * plain.cov[i]
        to_ideal[k, at], to_cells[k, at] = -plain.target[own], x[own]
        noise[k] = plain.noise_var[i] / N_CELLS
    rows = np.vstack([to_ideal, to_cells])
    joint = rows @ prior @ rows.T
    joint[len(inner) :, len(inner) :] += np.diag(noise)
    n = len(inner)
    parts = joint[:n, :n], joint[n:, n:], joint
    of_ideal, of_cells, of_both = (np.linalg.slogdet(part)[1] for part in parts)
    return (of_ideal + of_cells - of_both) / 2


def test_mutual_information_is_that_of_a_joint_normal(model):
    """Between the ideal shift and the next cells, averaged over draws of their expression."""
    plain, blr, shifts = model
    rng = np.random.default_rng(3)
    b = draws(plain, blr, rng)
    noise = rng.standard_normal((N_DRAWS, plain.p)) * np.sqrt(plain.noise_var / N_CELLS)
    wanted = np.zeros(len(shifts))
    for j, shift in enumerate(shifts):
        for k in range(N_DRAWS):
            x = np.linalg.inv(np.eye(plain.p) - b[k]) @ (shift + noise[k])
            wanted[j] -= joint_information(plain, x) / N_DRAWS
    found = MutualInformationInt(blr, plain.target, n_cells=N_CELLS, n_samples=N_DRAWS, rng=3)
    np.testing.assert_allclose(found.values(shifts), wanted, rtol=1e-7, atol=1e-10)


def test_civ_bounds_the_information_from_below(model):
    """A small CIV makes the next cells informative about the ideal shift.

    With ``v_i'`` the variances of a* after the cells, the information is ``sum log(v_i / v_i') /
    2``; the means of arithmetic and geometric kind, and ``h >= 2 sum v_i'^2``, give the bound.
    """
    plain, blr, shifts = model
    inner = plain.uncertain()
    now, n = plain.variances(plain.cov)[inner], len(inner)
    excess = Civ(blr, plain.target, n_cells=N_CELLS).excess(shifts)
    for shift, h in zip(shifts, excess, strict=True):
        x = np.linalg.inv(np.eye(plain.p) - plain.weights()) @ shift
        later = plain.variances(plain.after(x, N_CELLS))[inner]
        information = joint_information(plain, x)
        assert information == pytest.approx(np.log(now / later).sum() / 2, rel=1e-8)
        assert information >= np.log(now).sum() / 2 - n / 4 * np.log(h / (2 * n)) - 1e-9


def test_h_and_its_gradient_fall_as_theorem_2_says():
    """In a campaign by CIV: h as 1/t, its gradient as 1/t^2, and the estimate becomes a*."""
    scm = random_scm(5, rng=[0, 0])
    true, target = random_target(scm, 3, where="downstream", rng=[0, 1])
    parents = [scm.dag.parents(i) for i in range(5)]
    plain = Published(parents, scm.noise_var, target)
    blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=1.0)
    rng, tried, h, slope, off = np.random.default_rng(2), [], [], [], []
    for t in range(1, 201):
        best = Sphere().minimise(Civ(blr, target), starts=tried[-1:], n_random=0)
        tried.append(best.shift)
        cell = scm.sample(1, best.shift, rng=rng)
        blr = blr.update(Moments.from_array(cell), best.shift)
        plain.update(cell, best.shift)
        if t in (20, 200):
            squares, civ = plain.ideal() ** 2 + 1 / plain.p, Civ(blr, target, n_cells=N_CELLS)
            h.append(plain.integrated(true, squares))
            assert civ.excess(true[None])[0] == pytest.approx(2 * h[-1], rel=1e-7)
            ends = [
                plain.integrated(true + d, squares) - plain.integrated(true - d, squares)
                for d in 1e-4 * np.eye(plain.p)
            ]
            gradient = np.array(ends) / 2e-4
            np.testing.assert_allclose(civ.value_and_grad(true)[1], 2 * gradient, rtol=1e-4)
            slope.append(np.linalg.norm(gradient))
            off.append(np.linalg.norm(blr.ideal_shift(target) - true))
    falls = np.log10([h[0] / h[1], slope[0] / slope[1]])
    assert abs(falls[0] - 1) < 0.3
    assert abs(falls[1] - 2) < 0.6
    assert off[1] < 0.5 * off[0]
