"""Checks shared by the array core; every message names the argument and a remedy.

Wrong types raise a TypeError, wrong values a ValueError.
"""

from __future__ import annotations

import reprlib
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

# Maximum value in units of the data: the variance of a squared distance has its fourth power.
MAX_VALUE = 1e70
# Masked values would otherwise be read as numbers.
MASKED = "{} is a masked array, whose mask would be lost: fill it first (.filled())."


def as_vector(value: ArrayLike, n: int, name: str, *, finite: bool = True) -> NDArray[np.float64]:
    """Return ``value`` as a float vector of length ``n``, or raise an error that names it."""
    vector = as_numbers(value, name)
    if vector.shape != (n,):
        message = f"{name} has shape {vector.shape}, but one value for each of {n} nodes is needed."
        raise ValueError(message)
    if finite:
        require_finite(vector, name)
    return vector


def require_finite(value: NDArray[np.float64], name: str) -> None:
    """Raise an error that lists the first positions if ``value`` contains NaN or infinity."""
    # At most five positions are listed.
    bad = ~np.isfinite(value)
    if bad.any():
        where = np.argwhere(bad)[:5].squeeze(-1) if value.ndim == 1 else np.argwhere(bad)[:5]
        message = (
            f"{name} contains NaN or infinite values, first at {where.tolist()}: remove or replace "
            f"them."
        )
        raise ValueError(message)


def require_small(value: NDArray[Any], name: str) -> None:
    """Raise an error if a value is so large that its fourth power may overflow."""
    if value.size and not np.abs(value).max() <= MAX_VALUE:
        message = (
            f"{name} contains values above {MAX_VALUE:g}, too large for squared distances: rescale "
            f"it to smaller values."
        )
        raise ValueError(message)


def as_nodes(value: Iterable[int], n: int, name: str) -> list[int]:
    """Return ``value`` as a list of node numbers below ``n``, or raise an error that names it."""
    try:
        items = list(value)
        numbers = [_real(node) for node in items]
    except TypeError:
        items, numbers = [], [None]
    if not all(x is not None and x.is_integer() and abs(x) < 2**63 for x in numbers):
        message = f"{name} must be a list of nodes (whole numbers), but is {reprlib.repr(value)}."
        raise TypeError(message)
    nodes = [int(node) for node in items]
    outside = [i for i in nodes if not 0 <= i < n]
    if outside:
        message = f"{name} must contain only numbers in 0..{n - 1}, but has {outside[:10]}."
        raise ValueError(message)
    return nodes


def as_numbers(value: ArrayLike, name: str, *, copy: bool = True) -> NDArray[np.float64]:
    """Return ``value`` as an array of floats, or raise an error that names it."""
    if np.ma.isMaskedArray(value):
        raise ValueError(MASKED.format(name))
    try:
        array = np.asarray(value)
        # Strings would be converted, and complex numbers truncated, without an error.
        if array.dtype.kind in "biufO":
            return array.astype(np.float64, copy=copy)
    except (TypeError, ValueError):
        pass
    message = (
        f"{name} must contain only numbers, in rows of equal length, but is {reprlib.repr(value)}."
    )
    raise TypeError(message)


def require_kind(value: Any, kind: type, name: str) -> None:
    """Raise an error unless ``value`` is an instance of this class of the core."""
    if not isinstance(value, kind):
        message = (
            f"{name} must be of the class nextpert.core.{kind.__name__}, but is of the class "
            f"{type(value).__name__}."
        )
        raise TypeError(message)


def is_pair(value: Any) -> bool:
    """Return whether a value is a pair of scalars."""
    try:
        return np.shape(value) == (2,)
    except ValueError:  # ragged
        return False


def list_names(names: Iterable[str], limit: int = 10) -> str:
    """Return ``"A, B, C"``, or ``"A, B, ... and 7 more"`` for more than ``limit`` names.

    Blank names are shown in quotes.
    """
    shown = [str(name) if str(name).strip() else repr(str(name)) for name in names]
    n_more = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {n_more} more" if n_more > 0 else "")


def named(error: ValueError, names: Any, back: NDArray[np.int64]) -> ValueError:
    """Return an error about columns as an error about genes; other errors are not changed."""
    bad = getattr(error, "columns", None)
    if bad is None:
        return error
    genes = list_names(names[np.isin(back, bad)])
    if hasattr(error, "overflow"):
        message = f"These genes have values too large to be squared: {genes}. Rescale the values."
        return ValueError(message)
    message = (
        f"Genes with NaN or infinite values: {genes}. "
        f"Remove these genes or cells, or replace the values, before the call."
    )
    return ValueError(message)


def as_rng(rng: int | np.random.Generator | None, stream: str = "") -> np.random.Generator:
    """Return a generator; an integer seeds a new one, ``None`` draws fresh entropy.

    With the name of a ``stream``, the generator is independent of others with the same seed, such
    as that of a simulation of the data.
    """
    try:
        if not isinstance(rng, bool | np.bool_):
            if stream and isinstance(rng, Integral) and rng >= 0:
                return np.random.default_rng([*stream.encode(), int(rng)])
            return np.random.default_rng(rng)
        error: type[Exception] = TypeError
    except (TypeError, ValueError) as refused:
        error = type(refused)
    message = (
        f"rng must be a whole number of at least 0, a numpy.random.Generator or None, but is "
        f"{reprlib.repr(rng)}."
    )
    raise error(message)


def require_positive(value: float, name: str) -> float:
    """Return ``value`` if it is a finite number above zero, or raise an error that names it."""
    number = _real(value)
    if number is None or not np.isfinite(number) or number <= 0:
        message = f"{name} must be a finite number above 0, but is {reprlib.repr(value)}."
        raise (TypeError if number is None else ValueError)(message)
    return number


def require_count(value: Any, name: str, *, minimum: int = 1) -> int:
    """Return ``value`` if it is a whole number of at least ``minimum``, or raise."""
    number = _real(value)
    message = f"{name} must be a whole number of at least {minimum}, but is {reprlib.repr(value)}."
    if number is None:
        raise TypeError(message)
    if not number.is_integer() or not minimum <= number < 2**63:  # 64 bits
        raise ValueError(message)
    return int(value)


def _real(value: Any) -> float | None:
    """Return a number as a float; ``None`` for anything else, including truth values."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf")
