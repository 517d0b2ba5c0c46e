"""Estimates of effects from means of few cells, as published elsewhere."""

from __future__ import annotations

import numpy as np
from scipy.stats import norm


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
    like = np.exp(logs - logs.max(axis=1, keepdims=True))
    prior = np.r_[null_weight - 1.0, np.zeros(len(sd) - 1)]
    weights = np.full(len(sd), 1.0 / len(sd))
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
    chance /= chance.sum(axis=1, keepdims=True)
    fraction = sd**2 / spread  # by which a component shrinks an effect
    mean = effect * (chance * fraction).sum(axis=1)
    square = (chance * ((effect[:, None] * fraction) ** 2 + fraction * (se**2)[:, None])).sum(
        axis=1
    )
    return mean, np.maximum(square - mean**2, 0.0)


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
