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
        """Design and response of each node over environments ``(x, shift)``."""
        result = []
        for i in range(self.p):
            rows = [self.design(x, i) for x, _ in environments]
            answers = [x[:, i] - shift[i] for x, shift in environments]
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
        (simulate(parents, rng, n, intercept=intercept), np.zeros(p)),
        (simulate(parents, rng, max(n // 3, 1), shift, intercept=intercept), shift),
    ]
    settings = {"intercept": intercept, "noise_var": noise, **kwargs}
    plain = Dense(parents, **{"scale": 0.7, **settings}).fit(environments)
    renamed = {"prior_" + k: settings.pop(k) for k in ("scale", "shape", "rate") if k in settings}
    blr = DagBlr(Dag.from_parents(parents), **{"prior_scale": 0.7, **renamed, **settings})
    for x, a in environments:
        blr = blr.update(Moments.from_array(x), a)
    return plain, blr


class Uncertain:
    """States of five perturbations and the controls, jointly normal; the first three have cells."""

    def __init__(self, seed=0):
        from nextpert.core import Dag, DagBlr
        from nextpert.core.design.joint_draws import Draw, States

        rng = np.random.default_rng(seed)
        self.mean = rng.normal(size=(6, 4))
        self.root = rng.normal(size=(24, 24)) / 10
        self.measured = np.array([True, True, True, False, False])
        self.blr = DagBlr(Dag.from_edges(4, []), noise_var=1.0)
        self.states = States(self.mean, lambda n, rng: map(Draw, self.draw(n, rng)))

    def draw(self, count, rng):
        """Draw states, that of the controls last, shape ``(count, 6, 4)``."""
        noise = rng.standard_normal((count, 24)) @ self.root.T
        return self.mean + noise.reshape(count, 6, 4)

    def candidates(self, target, **options):
        """Return what an acquisition is asked to rank."""
        from nextpert.core import Candidates

        given = {"states": self.states, "measured": self.measured, "rng": 1, **options}
        return Candidates(self.blr, None, target, **given)


@pytest.fixture
def uncertain() -> type[Uncertain]:
    """Return the model of uncertain states, made by its seed."""
    return Uncertain
