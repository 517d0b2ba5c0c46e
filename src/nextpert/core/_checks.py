"""Checks shared by the array core: every message names the thing and the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray


def as_vector(value: ArrayLike, n: int, name: str, *, finite: bool = True) -> NDArray[np.float64]:
    """Return ``value`` as a float vector of length ``n``, or raise an error that names it."""
    vector = np.array(value, dtype=np.float64)
    if vector.shape != (n,):
        message = f"{name} has shape {vector.shape}, but one value for each of {n} nodes is needed."
        raise ValueError(message)
    if finite:
        require_finite(vector, name)
    return vector


def require_finite(value: NDArray[np.float64], name: str) -> None:
    """Raise if ``value`` holds NaN or infinity; the first few offending positions are named."""
    bad = ~np.isfinite(value)
    if bad.any():
        where = np.argwhere(bad)[:5].squeeze(-1) if value.ndim == 1 else np.argwhere(bad)[:5]
        message = f"{name} holds NaN or infinite values, first at {where.tolist()}: remove them."
        raise ValueError(message)


def as_nodes(value: Iterable[int], n: int, name: str) -> list[int]:
    """Return ``value`` as a list of node numbers below ``n``, or raise an error that names it."""
    nodes = [int(i) for i in value]
    outside = [i for i in nodes if not 0 <= i < n]
    if outside:
        message = f"{name} holds nodes {outside[:10]}, but the graph's nodes are 0..{n - 1}."
        raise ValueError(message)
    return nodes


def as_rng(rng: int | np.random.Generator | None) -> np.random.Generator:
    """Return a generator; an integer seeds a new one, ``None`` draws fresh entropy."""
    return np.random.default_rng(rng)


def require_positive(value: float, name: str) -> float:
    """Return ``value`` if it is finite and above zero, or raise an error that names it."""
    if not np.isfinite(value) or value <= 0:
        message = f"{name} must be a finite number above 0, but is {value!r}."
        raise ValueError(message)
    return float(value)


def require_count(value: Any, name: str, *, least: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``least``, or raise."""
    if isinstance(value, bool) or int(value) != value or value < least:
        message = f"{name} must be a whole number of at least {least}, but is {value!r}."
        raise ValueError(message)
    return int(value)
