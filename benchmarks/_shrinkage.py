"""Estimates of effects from means of few cells, as published elsewhere: one home for benchmarks."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import norm

from nextpert.core.causal.acquisitions.thompson import DRAWS, thompson_plate
from nextpert.core.evaluate import pooled_moments

if TYPE_CHECKING:
    from nextpert.core import ScreenMoments
    from nextpert.core.evaluate import Task


def james_stein(effect: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return effects shrunk by the positive-part James-Stein estimator, one row per perturbation.

    ``variance`` is that of the effects, same shape.
    """
    q = (effect**2 / variance).sum(axis=1, keepdims=True)
    return np.maximum(0.0, 1.0 - (effect.shape[1] - 2) / q) * effect


def singular_values(effect: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return effects by singular-value shrinkage, and James-Stein on what it leaves.

    Effects in units of their standard errors have singular values that are shrunk for the squared
    error of a matrix of low rank in noise of variance 1 (Gavish and Donoho 2017,
    doi:10.1109/TIT.2017.2653801); the remainder of each row is shrunk by :func:`james_stein`.
    """
    se = np.sqrt(variance)
    left, values, right = np.linalg.svd(effect / se, full_matrices=False)
    size, ratio = max(effect.shape), min(effect.shape) / max(effect.shape)
    y = values / np.sqrt(size)
    above = y > 1.0 + np.sqrt(ratio)
    square = np.maximum((y**2 - ratio - 1.0) ** 2 - 4.0 * ratio, 0.0)
    shrunk = np.where(above, np.sqrt(square) / np.maximum(y, 1e-12), 0.0) * np.sqrt(size)
    low_rank = (left * shrunk) @ right * se
    return low_rank + james_stein(effect - low_rank, variance)


def ash(effect: np.ndarray, se: np.ndarray, *, null_weight: float = 10.0) -> np.ndarray:
    """Return posterior means of adaptive shrinkage of one perturbation, shape ``(n_genes,)``."""
    return ash_posterior(effect, se, null_weight=null_weight)[0]


def ash_posterior(
    effect: np.ndarray, se: np.ndarray, *, null_weight: float = 10.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return posterior means and variances of adaptive shrinkage of one perturbation.

    As Stephens 2017 (doi:10.1093/biostatistics/kxw041) and the R package ashr by default with
    ``mixcompdist = "normal"``: normals about 0 with standard deviations apart by the root of 2, a
    point at 0, weights by EM with a prior of ``null_weight`` on the point.
    """
    largest = 2.0 * np.sqrt(max((effect**2 - se**2).max(), (se.min() / 4.0) ** 2))
    smallest = se.min() / 10.0
    steps = int(np.ceil(2.0 * np.log2(largest / smallest)))
    sd = np.r_[0.0, largest * 2.0 ** (-0.5 * np.arange(max(steps, 0), -1, -1))]
    spread = sd**2 + (se**2)[:, None]
    logs = -0.5 * np.log(spread) - 0.5 * (effect**2)[:, None] / spread
    chance = _memberships(logs, null_weight)
    fraction = sd**2 / spread  # by which a component shrinks an effect
    mean = effect * (chance * fraction).sum(axis=1)
    square = (chance * ((effect[:, None] * fraction) ** 2 + fraction * (se**2)[:, None])).sum(
        axis=1
    )
    return mean, np.maximum(square - mean**2, 0.0)


def _memberships(logs: np.ndarray, null_weight: float) -> np.ndarray:
    """Return the probabilities of the components of each observation, after EM for their weights.

    ``logs`` are log likelihoods, observations x components. The first component is the null, with
    ``null_weight`` observations of its own.
    """
    like = np.exp(logs - logs.max(axis=1, keepdims=True))
    prior = np.zeros(like.shape[1])
    prior[0] = null_weight - 1.0
    weights = np.full(like.shape[1], 1.0 / like.shape[1])
    for _ in range(2000):
        chance = weights * like
        chance /= chance.sum(axis=1, keepdims=True)
        new = chance.sum(axis=0) + prior
        new /= new.sum()
        done = np.abs(new - weights).max() < 1e-7
        weights = new
        if done:
            break
    chance = weights * like
    return chance / chance.sum(axis=1, keepdims=True)


def mash_posterior(
    effect: np.ndarray, sd: np.ndarray, n: np.ndarray, n_control: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return posterior means and variances of multivariate adaptive shrinkage.

    A short form of Urbut et al. 2019 (doi:10.1038/s41588-018-0268-8). Genes are the observations,
    perturbations the conditions: the effects of a gene in units of its ``sd`` between cells have
    a mixture of normals as their prior. Covariances are canonical (one perturbation alone; all of
    them with correlations 0, 0.25, 0.5, 0.75 and 1) and learned from genes with a significant
    effect (the first five principal components, and their sum, refined by extreme deconvolution),
    each at sizes apart by the root of 2; a point at 0 has a prior of 10 genes, as in
    :func:`ash_posterior`. Errors of perturbations are correlated, as they share the controls.

    Parameters
    ----------
    effect
        Differences of means, ``(n_perturbations, n_genes)``.
    sd
        Standard deviations within cells, ``(n_genes,)``.
    n, n_control
        Cells per perturbation, ``(n_perturbations,)``, and of the control.
    """
    x = effect / sd
    noise = np.diag(1.0 / n) + 1.0 / n_control
    n_rows, se = len(x), np.sqrt(noise.diagonal())
    one = np.ones((n_rows, n_rows))
    shapes = [np.diag(unit) for unit in np.eye(n_rows)]
    if n_rows > 1:
        shapes += [np.eye(n_rows) * (1 - r) + one * r for r in (0.0, 0.25, 0.5, 0.75, 1.0)]
        is_strong = np.array(
            [significant(row, np.full_like(row, error)) for row, error in zip(x, se, strict=True)]
        )
        strong = x[:, is_strong.any(axis=0)]
        if strong.shape[1] > 1:
            shapes += deconvolved(strong, noise)
    largest = 2.0 * np.sqrt(max((x**2 - se[:, None] ** 2).max(), (se.min() / 4.0) ** 2))
    n_sizes = int(np.ceil(2.0 * np.log2(largest / (se.min() / 10.0))))
    sizes = largest * 2.0 ** (-0.5 * np.arange(n_sizes + 1))
    priors = [np.zeros_like(noise)]
    for shape in shapes:
        scale = max(shape.diagonal().max(), 1e-12)
        priors += [size**2 * shape / scale for size in sizes]
    logs = np.array([_log_likelihood(x, prior + noise) for prior in priors]).T
    chance = _memberships(logs, null_weight=10.0)
    mean, square = np.zeros((2, *x.shape))
    for k in np.flatnonzero(chance.max(axis=0) > 1e-6):
        gain = np.linalg.solve(priors[k] + noise, priors[k]).T
        m = gain @ x
        v = (priors[k] - gain @ priors[k]).diagonal()[:, None]
        mean += chance[:, k] * m
        square += chance[:, k] * (m**2 + v)
    return mean * sd, np.maximum(square - mean**2, 0.0) * sd**2


def shrunken(
    way: str, effect: np.ndarray, variance: np.ndarray, n: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return estimates and variances by ``"ash"``, ``"mash"`` or ``"singular values"``.

    ``effect`` are differences of means, perturbations x genes; ``variance`` is that of a cell,
    ``n`` are cells, of the control first. Genes that do not vary keep their means. Singular values
    have no posterior: their variances are 0.
    """
    varies, mean, square = variance > 0, effect.copy(), np.zeros_like(effect)
    x, sd = effect[:, varies], np.sqrt(variance[varies])
    se = sd * np.sqrt(1.0 / n[1:, None] + 1.0 / n[0])
    if way == "mash":
        found = mash_posterior(x, sd, n[1:], n[0])
    elif way == "ash":
        rows = [ash_posterior(*row) for row in zip(x, se, strict=True)]
        found = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    else:
        found = singular_values(x, se**2), np.zeros_like(x)
    mean[:, varies], square[:, varies] = found
    return mean, square


def by_shrinkage(
    task: Task, screen: ScreenMoments, ready: np.ndarray, size: int, *, way: str, in_turn: bool
) -> tuple[int, np.ndarray]:
    """Recommend the candidate with the smallest expected distance by :func:`shrunken` effects.

    A strategy of replays, as ``round_robin_means`` and ``thompson_means``: rounds are chosen in
    turn or by Thompson sampling. Candidates without cells have no effect on average, with the mean
    square of the effects of the others (with none, the variance of a cell) as their variance.
    """
    pooled = pooled_moments(task, screen)
    n, origin = pooled.n[1:], pooled.mean[0]
    cell = pooled.squares.sum(axis=0) / np.maximum(pooled.n - 1, 0).sum()
    effect, square = np.zeros_like(pooled.mean[1:]), np.tile(cell, (len(n), 1))
    has = n > 0
    if has.any():
        counts = pooled.n[np.append(True, has)]
        effect[has], square[has] = shrunken(way, pooled.mean[1:][has] - origin, cell, counts)
        square[~has] = (effect[has] ** 2 + square[has]).mean(axis=0)
    expected = task.goal.distance(origin + effect, origin)
    expected = expected + np.array([task.goal.excess(row) for row in square])
    best = int(np.where(has, expected, np.inf).argmin())
    if not size or in_turn:
        return best, ready[np.argsort(n[ready], kind="stable")[:size]]
    states = origin + effect + np.sqrt(square) * task.rng.standard_normal((DRAWS, *effect.shape))
    draws = task.goal.distance(states.reshape(-1, effect.shape[1]), origin)
    draws = draws.reshape(states.shape[:2])
    return best, ready[thompson_plate(draws[:, ready], size, task.rng)]


BY_SHRINKAGE = {
    "thompson_ash": partial(by_shrinkage, way="ash", in_turn=False),
    "thompson_mash": partial(by_shrinkage, way="mash", in_turn=False),
    "round_robin_singular_values": partial(by_shrinkage, way="singular values", in_turn=True),
}


def _log_likelihood(x: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return log densities of columns about 0, up to a constant."""
    factor = cho_factor(covariance, lower=True)
    return -np.log(factor[0].diagonal()).sum() - 0.5 * (x * cho_solve(factor, x)).sum(axis=0)


def deconvolved(x: np.ndarray, noise: np.ndarray, *, n_steps: int = 30) -> list[np.ndarray]:
    """Return covariances of a mixture of normals about 0, seen with errors of covariance ``noise``.

    Columns are the observations. EM (Bovy, Hogg and Roweis 2011, doi:10.1214/10-AOAS439) starts
    from the principal components and their sum.
    """
    left, values, _ = np.linalg.svd(x, full_matrices=False)
    parts = [
        np.outer(column, column) * value**2 / x.shape[1]
        for column, value in zip(left.T[:5], values[:5], strict=True)
    ]
    shapes = [*parts, sum(parts)]
    weights = np.full(len(shapes), 1.0 / len(shapes))
    for _ in range(n_steps):
        logs = np.array([_log_likelihood(x, shape + noise) for shape in shapes])
        chance = weights[:, None] * np.exp(logs - logs.max(axis=0))
        chance /= chance.sum(axis=0)
        weights = chance.mean(axis=1)
        for k, shape in enumerate(shapes):
            gain = np.linalg.solve(shape + noise, shape).T
            m = gain @ x
            total = max(chance[k].sum(), 1e-12)
            shapes[k] = (chance[k] * m) @ m.T / total + shape - gain @ shape
            shapes[k] = (shapes[k] + shapes[k].T) / 2
    return shapes


def significant(effect: np.ndarray, se: np.ndarray, *, level: float = 0.05) -> np.ndarray:
    """Return effects where they are significant by Benjamini and Hochberg, 0 elsewhere.

    One perturbation, shape ``(n_genes,)``, two-sided z tests at this false discovery rate.
    """
    p = 2.0 * norm.sf(np.abs(effect) / se)
    order = np.argsort(p)
    passed = np.flatnonzero(p[order] <= level * np.arange(1, len(p) + 1) / len(p))
    kept = np.zeros(len(p), bool)
    kept[order[: passed[-1] + 1 if len(passed) else 0]] = True
    return np.where(kept, effect, 0.0)
