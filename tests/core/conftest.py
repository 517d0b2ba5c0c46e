"""A plain dense model, from cells and with numpy alone: what the compiled core is held against."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

# Parents of each node; node numbers are not in topological order on purpose.
GRAPHS: dict[str, list[list[int]]] = {
    "complete": [[2, 4], [0, 2, 3, 4], [4], [0, 2, 4], []],
    "sparse": [[3], [0, 5], [], [], [1, 2], [3]],
    "in_star": [[], [], [0, 1, 3, 4], [], []],
    "out_star": [[2], [2], [], [2]],
    "empty": [[], [], []],
    "single": [[]],
}

options = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.too_slow]}
# The same few examples at every run, not made smaller; HYPOTHESIS_PROFILE=thorough goes on.
quick = {"max_examples": 5, "derandomize": True, "phases": [Phase.explicit, Phase.generate]}
settings.register_profile("suite", **quick, **options)
settings.register_profile("thorough", max_examples=300, **options)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


class Dense:
    """Normal-inverse-gamma posterior of every node, and one step ahead, by dense inverses."""

    def __init__(self, parents, *, intercept, scale=1.0, noise_var=None, shape=2.0, rate=None):
        self.parents = [sorted(k) for k in parents]
        self.p = len(parents)
        self.intercept = intercept
        self.known = None if noise_var is None else np.broadcast_to(noise_var, self.p)
        scale = np.broadcast_to(scale, self.p)
        self.prior = [
            np.diag([1e-6] * intercept + [1 / scale[i]] * len(k))
            for i, k in enumerate(self.parents)
        ]
        self.shape0, self.rate0 = shape, rate
        self.fit([])

    def design(self, x, i):
        """Design columns of node ``i`` for cells ``x``."""
        ones = [np.ones(len(x))] * self.intercept
        return np.array([*ones, *(x[:, k] for k in self.parents[i])]).reshape(-1, len(x)).T

    def regressions(self, environments):
        """Design and response of each node over environments ``(x, shift, do)``."""
        result = []
        for i in range(self.p):
            used = [(x, shift) for x, shift, do in environments if i not in do]
            rows = [self.design(x, i) for x, _ in used]
            answers = [x[:, i] - shift[i] for x, shift in used]
            width = self.intercept + len(self.parents[i])
            result.append(
                (np.vstack([np.empty((0, width)), *rows]), np.concatenate([np.empty(0), *answers]))
            )
        return result

    def fit(self, environments):
        """Update the prior by cells, never by moments."""
        self.cov, self.mean, self.shape, self.rate = [], [], np.empty(self.p), np.empty(self.p)
        for i, (x, y) in enumerate(self.regressions(environments)):
            cov = np.linalg.inv(self.prior[i] + x.T @ x)
            mean = cov @ (x.T @ y)
            self.cov.append(cov)
            self.mean.append(mean)
            self.shape[i] = self.shape0 + len(y) / 2
            rest = ((y - x @ mean) ** 2).sum() + mean @ self.prior[i] @ mean
            prior = self.rate0
            if prior is None:
                about = y.mean() if self.intercept and len(y) else 0.0
                prior = 1e-3 * np.mean((y - about) ** 2) if len(y) else 1e-3
            self.rate[i] = prior + rest / 2
        return self

    @property
    def weights(self):
        """B, row = child."""
        b = np.zeros((self.p, self.p))
        for i, k in enumerate(self.parents):
            b[i, k] = self.mean[i][self.intercept :]
        return b

    @property
    def offset(self):
        """Intercepts."""
        return np.array([m[0] if self.intercept else 0.0 for m in self.mean])

    def reached(self, shift):
        """Mean reached by a shift at the posterior mean."""
        return np.linalg.inv(np.eye(self.p) - self.weights) @ (self.offset + shift)

    def ideal(self, target):
        """Estimated ideal shift."""
        return (np.eye(self.p) - self.weights) @ target - self.offset

    def ahead(self, shift, n):
        """Covariances and shapes after ``n`` copies of the mean reached by ``shift``."""
        x = self.reached(np.asarray(shift, dtype=float))[None]
        later = object.__new__(Dense)
        later.__dict__.update(self.__dict__)
        later.cov = []
        for i, cov in enumerate(self.cov):
            row = self.design(x, i)
            later.cov.append(np.linalg.inv(np.linalg.inv(cov) + n * row.T @ row))
        later.shape = self.shape + n / 2
        return later

    def w(self, target):
        """q' M q of every node."""
        rows = [self.design(target[None], i)[0] for i in range(self.p)]
        return np.array([q @ cov @ q for q, cov in zip(rows, self.cov, strict=True)])

    def noise_moments(self):
        """Mean and variance of the noise variances."""
        if self.known is not None:
            return self.known, np.zeros(self.p)
        mean = self.rate / (self.shape - 1)
        return mean, mean**2 / (self.shape - 2)

    def gap_variance(self, shift, target, n):
        """Variance of the optimality gap, by the law of total variance over the noise variance."""
        mean, variance = self.noise_moments()
        s = 1 / n + self.w(target)
        off = (np.asarray(shift) - self.ideal(target)) ** 2
        within = 2 * s**2 * (mean**2 + variance) + 4 * s * mean * off
        return (within + s**2 * variance).sum(axis=-1)

    def draw(self, n, rng):
        """Draw ``n`` weight matrices, intercepts and noise variances from the posterior."""
        if self.known is None:
            noise = 1 / rng.gamma(self.shape, 1 / self.rate, size=(n, self.p))
        else:
            noise = np.tile(self.known, (n, 1))
        b, c = np.zeros((n, self.p, self.p)), np.zeros((n, self.p))
        for i, k in enumerate(self.parents):
            d = len(self.mean[i])
            z = rng.multivariate_normal(np.zeros(d), self.cov[i], size=n) if d else np.zeros((n, 0))
            theta = self.mean[i] + np.sqrt(noise[:, i : i + 1]) * z
            b[:, i, k] = theta[:, self.intercept :]
            if self.intercept:
                c[:, i] = theta[:, 0]
        return b, c, noise


def simulate(parents, rng, n, shift=None, intercept=False):
    """Draw cells of a random linear model over ``parents`` by a dense inverse."""
    p = len(parents)
    weights = np.zeros((p, p))
    model = np.random.default_rng(p)
    for i, k in enumerate(parents):
        weights[i, k] = model.choice([-1, 1], len(k)) * model.uniform(0.3, 1, len(k))
    sd = model.uniform(0.4, 1.2, p)
    offset = model.normal(size=p) if intercept else np.zeros(p)
    shift = np.zeros(p) if shift is None else shift
    noise = rng.normal(size=(n, p)) * sd + offset + shift
    return noise @ np.linalg.inv(np.eye(p) - weights).T


@pytest.fixture(params=list(GRAPHS))
def parents(request) -> list[list[int]]:
    """Parents of each node of one graph after the other."""
    return GRAPHS[request.param]


@pytest.fixture(params=[True, False], ids=["intercept", "plain"])
def intercept(request) -> bool:
    """With an intercept or without."""
    return request.param


@pytest.fixture(params=[True, False], ids=["known", "unknown"])
def known(request) -> bool:
    """Noise variances known or not."""
    return request.param


@pytest.fixture
def dense() -> type[Dense]:
    """Return the dense model."""
    return Dense


@pytest.fixture
def cells():
    """Return the function that draws cells of a random model over a graph."""
    return simulate


@pytest.fixture
def graphs() -> dict[str, list[list[int]]]:
    """Return all graphs by name."""
    return GRAPHS


@pytest.fixture
def fitted(parents, intercept, known):
    """Return the same posterior twice: dense, from cells, and of the package, from moments."""
    return fit_both(parents, intercept, known)


@pytest.fixture
def fit_twice():
    """Return the function behind ``fitted``."""
    return fit_both


def fit_both(parents, intercept, known, n=40, seed=1, **kwargs):
    """Fit control and shifted cells densely and with the package."""
    from nextpert.core import Dag, DagBlr, Moments

    rng = np.random.default_rng(seed)
    p = len(parents)
    shift = rng.normal(size=p)
    noise = np.random.default_rng(7).uniform(0.3, 1.5, p) if known else None
    environments = [
        (simulate(parents, rng, n, intercept=intercept), np.zeros(p), ()),
        (simulate(parents, rng, max(n // 3, 1), shift, intercept=intercept), shift, ()),
    ]
    settings = {"intercept": intercept, "noise_var": noise, **kwargs}
    plain = Dense(parents, **{"scale": 0.7, **settings}).fit(environments)
    renamed = {"prior_" + k: settings.pop(k) for k in ("scale", "shape", "rate") if k in settings}
    blr = DagBlr(Dag.from_parents(parents), **{"prior_scale": 0.7, **renamed, **settings})
    for x, a, _ in environments:
        blr = blr.update(Moments.from_array(x), a)
    return plain, blr


class Uncertain:
    """Random shifts: weights and shifts of a node in one dense regression over all cells.

    Joint posterior of weights and shifts of every node, and the same as the package has it.

    ``cells`` are those of the controls, then of each of ``n_perturbations`` (maybe none).
    ``prior``, ``tau2`` and ``effect`` are (n_perturbations, p); all is told of cells less their
    effect. Columns of node i: 1, parents, indicators.
    """

    def __init__(self, parents, cells, prior, tau2, effect, *, scale=0.7, shape=2.0, rate=0.4):
        self.parents, self.p = [sorted(k) for k in parents], len(parents)
        self.prior, self.tau2, self.effect = prior, tau2, effect
        self.n = np.array([len(x) for x in cells[1:]])
        which = np.repeat(np.arange(len(cells)) - 1, [len(x) for x in cells])
        x, marks = np.vstack(cells), np.eye(len(self.n))
        x = x - np.vstack([effect, np.zeros((1, self.p))])[which]
        self.cov, self.mean, self.shape, self.rate = [], [], shape + len(x) / 2, np.empty(self.p)
        self.prior_cov = []
        for i in range(self.p):
            columns = np.hstack([np.ones((len(x), 1)), x[:, self.parents[i]], marks[which]])
            columns[which < 0, -len(marks) :] = 0
            y = x[:, i] - np.where(which >= 0, self.prior[which, i], 0)
            spread = np.diag([1e6, *[scale] * len(self.parents[i]), *self.tau2[:, i]])
            # by the cells' covariance, so that tau = 0 needs no limit
            every = columns @ spread @ columns.T + np.eye(len(x))
            gain = np.linalg.solve(every, columns @ spread).T
            self.prior_cov.append(spread)
            self.cov.append(spread - gain @ columns @ spread)
            self.mean.append(gain @ y)
            self.rate[i] = rate + y @ np.linalg.solve(every, y) / 2
        self.blr = self._blr(len(x), scale, shape, rate)
        self.known = self._known(cells)

    def _known(self, cells):
        from nextpert.core.model.shift_posterior import ShiftPosterior

        mean = np.array([x.mean(axis=0) if len(x) else np.zeros(self.p) for x in cells[1:]])
        n = self.n[:, None]
        spare = self.tau2 / (1 + n * self.tau2)
        prior = self.prior + self.effect - (self.blr.mean() @ self.effect.T).T
        effect = self.effect if self.effect.any() else None
        return ShiftPosterior(self.n.astype(float), mean, prior, n * spare, spare, effect)

    def _blr(self, n_cells, scale, shape, rate):
        """Return the package's posterior with the weights of this one."""
        from nextpert.core import Dag, DagBlr

        dag = Dag.from_parents(self.parents)
        blr = DagBlr(dag, prior_scale=scale, prior_shape=shape, prior_rate=rate)
        for i in range(self.p):
            d = 1 + len(self.parents[i])
            precision = np.linalg.inv(self.cov[i][:d, :d])
            answer = precision @ self.mean[i][:d]
            prior = np.linalg.inv(self.prior_cov[i][:d, :d])
            blr.xtx[blr.mptr[i] : blr.mptr[i + 1]] = (precision - prior).ravel()
            blr.xty[blr.vptr[i] : blr.vptr[i + 1]] = answer
            blr.yty[i] = 2 * (self.rate[i] - rate) + self.mean[i][:d] @ answer
            blr.cells[i] = n_cells
        return blr

    def row(self, x, i, j):
        """Row of the regression of node i for a cell at ``x`` under perturbation j."""
        x = x - self.effect[j]
        return np.concatenate([[1.0], x[self.parents[i]], np.eye(len(self.n))[j]])

    def draw(self, count, rng):
        """Draw noise variances (count, p) and means reached (count, n_perturbations, p)."""
        noise = 1 / rng.gamma(self.shape, 1 / self.rate, size=(count, self.p))
        b, source = np.zeros((count, self.p, self.p)), np.zeros((count, len(self.n), self.p))
        for i, k in enumerate(self.parents):
            z = rng.multivariate_normal(np.zeros(len(self.mean[i])), self.cov[i], size=count)
            found = self.mean[i] + np.sqrt(noise[:, i : i + 1]) * z
            b[:, i, k] = found[:, 1 : 1 + len(k)]
            source[:, :, i] = found[:, :1] + self.prior[:, i] + found[:, 1 + len(k) :]
        reached = np.linalg.solve((np.eye(self.p) - b)[:, None], source[..., None])[..., 0]
        return noise, reached + self.effect


def random_shifts(seed=0, *, exact=False, effects=False, parents=([], [0], [0, 1], [2])):
    """Four nodes and five perturbations: many cells, few, one of them exact, and two without.

    With ``effects`` part of the expectation is told as effects on means.
    """
    rng = np.random.default_rng(seed)
    p = len(parents)
    b = np.zeros((p, p))
    for i, k in enumerate(parents):
        b[i, k] = rng.uniform(0.4, 1.0, len(k)) * rng.choice([-1, 1], len(k))
    prior = rng.normal(size=(5, p)) * (rng.random((5, p)) < 0.6)
    tau2 = rng.uniform(0.1, 0.8, size=(5, p))
    tau2[:, 1] = 0.0
    tau2[2] = 0.0
    if exact:
        tau2[:] = 0.0
    cells, counts = [], [60, 25, 4, 10, 0, 0]
    for n, j in zip(counts, range(-1, 5), strict=True):
        shift = prior[j] + np.sqrt(tau2[j]) * rng.normal(size=p) if j >= 0 else np.zeros(p)
        cells.append((rng.normal(size=(n, p)) + 0.5 + shift) @ np.linalg.inv(np.eye(p) - b).T)
    effect = rng.normal(size=(5, p)) * effects
    return Uncertain(parents, cells, prior, tau2, effect)


@pytest.fixture
def uncertain():
    """Return the function that fits a model with random shifts, densely and as the package."""
    return random_shifts
