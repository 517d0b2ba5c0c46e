"""Compiled code on disk, where it can be kept: what cannot runs uncached.

numba's own cache raises where no directory can be written, as in read-only containers, and leaves
out what a function calls.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import TYPE_CHECKING, Any

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
            f"Compiled code cannot be kept on disk ({error}), so every session compiles it "
            "again: set the environment variable NUMBA_CACHE_DIR to a directory that can be "
            "written."
        )
        warn(message)
