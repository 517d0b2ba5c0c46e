"""Parts of a goal, checked: weights, states, bounds, sampling variances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_numbers, as_vector, require_finite

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


def sampling_root(variance: ArrayLike | None, p: int) -> tuple[Array, Array]:
    """Return a matrix whose square is the covariance, and its diagonal."""
    if variance is None:
        return np.zeros((p, p)), np.zeros(p)
    given = as_numbers(variance, "target_variance")
    if given.shape not in ((p,), (p, p)):
        message = f"target_variance must be ({p},) or ({p}, {p}), but its shape is {given.shape}."
        raise ValueError(message)
    require_finite(given, "target_variance")
    values, vectors = (given, np.eye(p)) if given.ndim == 1 else np.linalg.eigh(given)
    if values.min(initial=0.0) < -1e-9 * max(values.max(initial=0.0), 0.0):
        message = "target_variance must not be negative: give variances, or a covariance."
        raise ValueError(message)
    diagonal = given if given.ndim == 1 else given.diagonal()
    return vectors * np.sqrt(np.maximum(values, 0.0)), np.maximum(diagonal, 0.0)


def positive(value: ArrayLike | None, n: int, name: str) -> Array:
    """Return numbers of at least 0, one by default, not all of them 0."""
    found = np.ones(n) if value is None else as_vector(value, n, name)
    if (found < 0).any() or (n and not found.any()):
        message = f"{name} must be numbers of at least 0, and not all of them 0."
        raise ValueError(message)
    return found


def rows(value: ArrayLike | None, p: int, name: str) -> Array:
    """Return states, one a row; none by default."""
    if value is None:
        return np.empty((0, p))
    found = as_numbers(value, name)
    if found.ndim != 2 or found.shape[1] != p:
        message = f"{name} must be one row a state, each of {p} nodes, but is {found.shape}."
        raise ValueError(message)
    require_finite(found, name)
    return found


def bounds(value: ArrayLike | None, p: int, name: str, free: float) -> Array:
    """Return bounds, ``free`` where there is none."""
    found = np.full(p, free) if value is None else as_vector(value, p, name, finite=False)
    if np.isnan(found).any() or (found == -free).any():
        message = f"{name} holds NaN or a bound that no state keeps: use {free} for none."
        raise ValueError(message)
    return found
