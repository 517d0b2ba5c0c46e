"""Hard interventions: models, posterior and CIV, against dense algebra and draws."""

import numpy as np
import pytest

from nextpert.core import (
    Civ,
    CivOw,
    Dag,
    DagBlr,
    Greedy,
    LinearScm,
    MaxVariance,
    Moments,
    Pool,
    design_loop,
    gap_variance,
    random_scm,
    random_target,
)


def cut(weights, held):
    """Weights with the rows of held nodes set to 0."""
    weights = weights.copy()
    weights[held] = 0.0
    return weights


@pytest.mark.parametrize("do", [{}, {1: 2.0}, {0: -1.0, 3: 0.5}])
def test_model_under_do_by_dense_inverse_and_by_cells(do):
    rng = np.random.default_rng(0)
    weights = np.tril(rng.normal(size=(6, 6)), -1)
    order = rng.permutation(6)
    weights = weights[np.ix_(order, order)]
    noise, offset, shift = rng.uniform(0.3, 2, 6), rng.normal(size=6), rng.normal(size=6)
    scm, held = LinearScm(weights, noise, offset), list(do)
    source, variance = offset + shift, noise.copy()
    source[held], variance[held] = list(do.values()), 0.0
    effects = np.linalg.inv(np.eye(6) - cut(weights, held))
    mean, covariance = effects @ source, effects * variance @ effects.T
    np.testing.assert_allclose(scm.mean(shift, do=do), mean, rtol=1e-12, atol=1e-12)
    x = scm.sample(40_000, shift, do=do, rng=1)
    np.testing.assert_array_equal(x[:, held], np.tile(list(do.values()), (40_000, 1)))
    apart = x - mean
    for moment, wanted in ((apart, 0.0), (apart[:, :, None] * apart[:, None], covariance)):
        error = moment.std(axis=0) / np.sqrt(len(x))
        assert (np.abs(moment.mean(axis=0) - wanted) <= 5 * error + 1e-12).all()


@pytest.mark.parametrize("n_cells", [1, 9])
def test_posterior_of_held_nodes_gets_no_cells(parents, intercept, known, n_cells, dense, cells):
    rng, p = np.random.default_rng(3), len(parents)
    shift, held = rng.normal(size=p), sorted({0, p - 1})
    first = cells(parents, rng, 25, intercept=intercept)
    second = cells(parents, rng, n_cells, shift, intercept=intercept)
    noise = rng.uniform(0.2, 2, p) if known else None
    options = {"intercept": intercept, "noise_var": noise}
    start = DagBlr(Dag.from_parents(parents), prior_scale=0.7, **options)
    start = start.update(Moments.from_array(first))
    before = {name: block.copy() for name, block in start.blocks.items()}
    blr = start.update(Moments.from_array(second), shift, do=held)
    # every node by itself: the dense model sees the second cells only at free nodes
    one = dense(parents, scale=0.7, **options).fit([(first, np.zeros(p))])
    two = dense(parents, scale=0.7, **options).fit([(first, np.zeros(p)), (second, shift)])
    for i in range(p):
        plain = one if i in held else two
        at = slice(blr.vptr[i], blr.vptr[i + 1])
        cov = blr.blocks["cov"][blr.mptr[i] : blr.mptr[i + 1]]
        np.testing.assert_allclose(cov, plain.cov[i].ravel(), rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(blr.blocks["weights"][at], plain.mean[i], rtol=1e-8, atol=1e-10)
        assert blr.rate[i] == pytest.approx(plain.rate[i], rel=1e-8)
        assert blr.shape[i] == plain.shape[i]
        if i in held:
            np.testing.assert_allclose(blr.blocks["weights"][at], before["weights"][at], rtol=1e-12)
    for name, block in start.blocks.items():
        np.testing.assert_array_equal(block, before[name])
    # the shift of a held node has no meaning
    moved = shift + np.isin(np.arange(p), held)
    again = start.update(Moments.from_array(second), moved, do=held)
    np.testing.assert_array_equal(again.blocks["cov"], blr.blocks["cov"])


def candidates(p, rng, n=6):
    """Shifts of which some entries are held values; the last is a plain shift."""
    do = rng.random((n, p)) < 0.4
    do[-1] = False
    return rng.normal(size=(n, p)) * (do | (rng.random((n, p)) < 0.3)), do


@pytest.mark.parametrize("n", [1, 20])
def test_civ_over_hard_interventions_by_dense_algebra(fitted, n):
    plain, blr = fitted
    rng, p = np.random.default_rng(n), plain.p
    target = rng.normal(size=p)
    shifts, do = candidates(p, rng)
    found = Civ(blr, target, domain=Pool(shifts, do), n_cells=n).values(shifts, do)
    for j, (shift, held) in enumerate(zip(shifts, do, strict=True)):
        # the mean of cells under the intervention, by a dense inverse
        effects = np.linalg.inv(np.eye(p) - cut(plain.weights, held))
        x = effects @ np.where(held, shift, shift + plain.offset)
        np.testing.assert_allclose(blr.predict_mean(shift, held), x, rtol=1e-8, atol=1e-10)
        later = plain.ahead(shift, n)
        later.shape = plain.shape + np.where(held, 0, n / 2)
        for i in range(p):
            row = plain.design(x[None], i)
            add = 0 if held[i] else n * row.T @ row
            later.cov[i] = np.linalg.inv(np.linalg.inv(plain.cov[i]) + add)
        mean, variance = later.noise_moments()
        s = 1 / n + later.w(target)
        wanted = 0.0
        for a, fixed in zip(shifts, do, strict=True):
            off = (a - plain.ideal(target)) ** 2
            each = 2 * s**2 * (mean**2 + variance) + 4 * s * mean * off + s**2 * variance
            wanted += each[~fixed].sum() / len(shifts)
        assert found[j] == pytest.approx(wanted, rel=1e-8)
    best = Pool(shifts, do).minimise(Civ(blr, target, domain=Pool(shifts, do), n_cells=n))
    assert best.index == found.argmin()
    np.testing.assert_array_equal(best.do, do[best.index])


def test_variance_of_the_gap_by_draws_of_the_posterior(fit_twice, graphs, known):
    plain, blr = fit_twice(graphs["complete"], True, known)
    rng, p, n = np.random.default_rng(0), 5, 4
    target, shift, held = rng.normal(size=p), rng.normal(size=p), [1, 3]
    b, c, noise = plain.draw(200_000, rng)
    eps = np.sqrt(noise / n) * rng.normal(size=noise.shape)
    # the optimality gap with the rows of held nodes cut: a held node is at its value
    gap = shift + eps + c + np.einsum("kij,j->ki", b, target) - target
    gap[:, held] = shift[held] - target[held]
    values = (gap**2).sum(axis=1)
    found = gap_variance(blr, shift, target, n_cells=n, do=held)
    error = ((values - values.mean()) ** 2).std() / np.sqrt(len(values))
    assert abs(values.var() - found) < 5 * error
    if known:  # otherwise CIV counts the shape of the noise variances after the cells
        shifts, do = np.vstack([shift, -shift]), np.zeros((2, p), bool)
        do[0, held] = True
        other = gap_variance(blr, -shift, target, n_cells=n)
        civ = Civ(blr, target, domain=Pool(shifts, do), n_cells=n)
        assert civ.current() == pytest.approx((found + other) / 2, rel=1e-10)


def test_a_complete_graph_after_hard_cells_is_not_taken_for_one_factor():
    rng, p = np.random.default_rng(2), 5
    dag = random_scm(p, "complete", rng=0).dag
    for held in range(p):
        blr = DagBlr(dag, prior_scale=1.0).update(Moments.from_array(rng.normal(size=(9, p))))
        blr = blr.update(Moments.from_array(rng.normal(size=(30, p)) + 1), do=[held])
        civ = Civ(blr, np.ones(p))
        assert not len(civ.problem.root)
        w = [block.sum() for block in blr.squares(blr.blocks["cov"])]  # q is all ones
        np.testing.assert_allclose(civ.problem.w0, w, rtol=1e-10)


@pytest.mark.parametrize("name", ["civ", "greedy", "random"])
def test_the_design_loop_learns_from_hard_interventions(name):
    scm = random_scm(6, "complete", rng=0)
    _, target = random_target(scm, 2, rng=1)
    values = np.vstack([np.eye(6), -np.eye(6)])
    blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=1.0)
    pool = Pool(values, values != 0)
    found = design_loop(scm, blr, target, name, domain=pool, n_rounds=20, n_cells=5, rng=2)
    held = (found.shifts != 0).sum(axis=0)
    np.testing.assert_array_equal(found.posterior.cells, 5 * (20 - held))
    assert found.distance[-1] < 0.5 * found.distance[0]


def test_greedy_compares_held_nodes_with_the_target(fit_twice, graphs):
    plain, blr = fit_twice(graphs["sparse"], True, True)
    rng = np.random.default_rng(1)
    target = rng.normal(size=6)
    shifts, do = candidates(6, rng)
    wanted = np.where(do, target, plain.ideal(target))
    np.testing.assert_allclose(
        Greedy(blr, target).values(shifts, do), ((shifts - wanted) ** 2).sum(axis=1), rtol=1e-8
    )


def test_what_hard_interventions_refuse():
    scm = random_scm(3, "path", rng=0)
    blr = DagBlr(scm.dag, noise_var=1.0)
    pool, cells = Pool(np.eye(3), np.eye(3) > 0), Moments.from_array(np.ones((2, 3)))
    for make, message in (
        (lambda: scm.mean(do={3: 1.0}), "do must contain"),
        (lambda: scm.sample(2, do={0: np.nan}, rng=0), "do "),
        (lambda: blr.update(cells, do=[-1]), "do must contain"),
        (lambda: Pool(np.eye(3), np.eye(3)), "boolean"),
        (lambda: Pool(np.eye(3), np.ones((1, 3), bool)), "boolean"),
        (lambda: pool.minimise(MaxVariance(blr, np.ones(3))), "'maxv' does not rank hard"),
        (lambda: CivOw(blr, np.ones(3), domain=pool), "use 'civ'"),
        (lambda: pool.minimise(Civ(blr, np.ones(3), domain=pool, noise_aware=True)), "noise_aware"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
