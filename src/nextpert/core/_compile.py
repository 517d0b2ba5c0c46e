"""How the core's loops are compiled.

``entry`` is for functions called from Python: cached on disk together with all that they call.
``lean`` is an entry that makes no arrays, as its caller hands it room to work in: numba then counts
no references, which is a fifth of the time that long ones take to compile. ``inner`` ones need
neither a cache of their own nor a way in from Python; they return numbers, no arrays, so that both
kinds of entry may call them. ``spliced`` is for long ones with a single caller: spliced into it
before types are inferred, since what they call would otherwise be optimised once more at every
level of calls. ``fast`` lets sums be reordered; NaN and infinity keep their meaning. Plain loops
throughout, for array expressions cost seconds to compile and run no faster.

A number that starts as ``0`` and is handed on is ``np.int64(0)`` in compiled code: numba compiles
what takes it once for the literal and once for the type otherwise. So it does for every layout of
an array, which is why callers pass contiguous ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numba import njit

from nextpert.core._cache import keep

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARED: dict[str, Any] = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}
_INNER: dict[str, Any] = {**_SHARED, "no_cpython_wrapper": True}
_LEAN: dict[str, Any] = {**_SHARED, "_nrt": False}
inner = njit(**_INNER)
spliced = njit(**_INNER, inline="always")
fast = njit(**_INNER, fastmath={"reassoc", "contract"})


def entry(function: Callable[..., Any]) -> Any:
    """Compile a function that is called from Python, on first use, and keep it on disk."""
    return keep(njit(**_SHARED)(function))


def lean(function: Callable[..., Any]) -> Any:
    """Compile as ``entry`` does a function that makes no arrays, without counts of references."""
    return keep(njit(**_LEAN)(function))
