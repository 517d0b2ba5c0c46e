"""How the core's loops are compiled, and kept on disk where they can be.

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

numba's own cache raises where no directory can be written, as in read-only containers, and leaves
out what a function calls.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import TYPE_CHECKING, Any

from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

from nextpert._warn import warn

if TYPE_CHECKING:
    from collections.abc import Callable

_warned: list[bool] = []


class _File(IndexDataCacheFile):
    """numba's index and data files, of which those of another version count as absent."""

    def _load_index(self) -> dict[Any, str]:
        try:
            return super()._load_index()
        except (ImportError, AttributeError):  # names a module of another version of nextpert
            return {}


class KernelCache(FunctionCache):
    """A function's compiled forms on disk, valid while the function and what it calls stay."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _File(self._cache_path, self._impl.filename_base, _stamp(function))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the compiled form of a signature, where the disk lets us."""
        try:
            super().save_overload(sig, data)
        except OSError as error:  # full, or read-only since
            self.disable()
            _warn(error)


def keep(dispatcher: Any) -> Any:
    """Give a compiled function its cache, or warn that there is none; returns the function."""
    try:
        dispatcher._cache = KernelCache(dispatcher.py_func)
    except (RuntimeError, OSError) as error:  # numba: no locator available
        _warn(error)
    return dispatcher


def _stamp(function: Callable[..., Any]) -> str:
    """Digest of the sources a function is compiled from; numba's own leaves out what it calls."""
    digest, seen, waiting = hashlib.sha256(), set(), [function]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        digest.update(inspect.getsource(one).encode())
        # Functions that it calls, and numbers that are compiled in as constants.
        for name in one.__code__.co_names:
            value = one.__globals__.get(name)
            if isinstance(value, Dispatcher):
                waiting.append(value.py_func)
            elif isinstance(value, int | float):
                digest.update(f"{name}={value!r}".encode())
    return digest.hexdigest()


def _warn(error: Exception) -> None:
    """Warn, once, that compiled code cannot be kept."""
    if not _warned:
        _warned.append(True)
        message = (
            f"Compiled code cannot be cached on disk ({error}), so it is compiled again in every "
            "session. Set the environment variable NUMBA_CACHE_DIR to a writable directory."
        )
        warn(message)


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
