"""Compilation of the core's loops, with a cache on disk where possible.

``entry`` is for functions that Python calls; they are cached on disk together with all functions
that they call. ``lean`` is an entry that creates no arrays, because its caller passes workspace:
numba then counts no references, which is a fifth of the time to compile long functions. ``inner``
functions are called by compiled code only and need no cache; they return numbers instead of
arrays, so that both kinds of entry can call them. ``spliced`` is for long functions with a single
caller: they are inlined before types are inferred, because the functions that they call would
otherwise be optimised again at every level of calls. ``fast`` allows sums to be reordered; NaN and
infinity keep their meaning. All functions use plain loops, because array expressions take seconds
to compile and do not run faster.

In compiled code, a number that starts as ``0`` and is passed on is ``np.int64(0)``: otherwise numba
compiles the function that receives it for both the literal and the type. It also compiles a
function for every layout of an array, so that callers pass contiguous arrays.

numba's own cache raises an error if no directory is writable, as in read-only containers, and does
not notice changes in the functions that a function calls.
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
    """Index and data files of numba; files of another version are treated as absent."""

    def _load_index(self) -> dict[Any, str]:
        try:
            return super()._load_index()
        except (ImportError, AttributeError):  # refers to a module of another version of nextpert
            return {}


class KernelCache(FunctionCache):
    """Compiled forms of a function on disk, valid until a file changes that it is compiled from."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _File(self._cache_path, self._impl.filename_base, _stamp(function))

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save the compiled form for a signature if the disk is writable."""
        try:
            super().save_overload(sig, data)
        except OSError as error:  # the disk is full, or has become read-only
            self.disable()
            _warn(error)


def keep(dispatcher: Any) -> Any:
    """Attach the cache to a compiled function, or warn that there is none; return the function."""
    try:
        dispatcher._cache = KernelCache(dispatcher.py_func)
    except (RuntimeError, OSError) as error:  # numba: no locator available
        _warn(error)
    return dispatcher


def _stamp(function: Callable[..., Any]) -> str:
    """Return a digest of the file of a function and of those that it takes compiled functions from.

    Whole files, because a function may call one that is defined below it, which does not exist yet.
    """
    digest = hashlib.sha256()
    modules = set()
    waiting = [function]
    while waiting:
        one = waiting.pop()
        if one.__module__ in modules:
            continue
        modules.add(one.__module__)
        digest.update("".join(inspect.findsource(one)[0]).encode())
        # Functions that are called, and numbers that are compiled as constants.
        for name, value in one.__globals__.items():
            if isinstance(value, Dispatcher):
                waiting.append(value.py_func)
            elif isinstance(value, int | float):
                digest.update(f"{name}={value!r}".encode())
    return digest.hexdigest()


def _warn(error: Exception) -> None:
    """Warn once that compiled code cannot be cached."""
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
    """Compile a function that Python calls, on first use, and cache it on disk."""
    return keep(njit(**_SHARED)(function))


def lean(function: Callable[..., Any]) -> Any:
    """Do as ``entry`` for a function that creates no arrays, without reference counts."""
    return keep(njit(**_LEAN)(function))


@fast
def exp(x):
    """Return ``exp(x)`` for ``x <= 0`` as ``exp(x / 1024)^1024``, which can be vectorised."""
    y = max(x, -700.0) / 1024.0
    z = 1.0 + y * (1.0 + y / 2 * (1.0 + y / 3 * (1.0 + y / 4 * (1.0 + y / 5 * (1.0 + y / 6)))))
    for _ in range(10):
        z *= z
    return z
