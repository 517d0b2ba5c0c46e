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
not notice changes in the functions that a function calls. It also holds code for one processor.
A wheel for a platform therefore brings compiled forms for all usual processors (``write_kernels``,
called by ``build_kernels.py`` of the source). They are loaded if versions, system and features of
the processor fit; anything else is compiled, and cached on disk.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import pickle
import platform
import sys
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llvmlite
import numba
import numpy as np
from llvmlite import binding
from numba import njit
from numba.core.caching import FunctionCache, IndexDataCacheFile, NullCache
from numba.core.compiler import CompileResult
from numba.core.dispatcher import Dispatcher
from numba.core.serialize import dumps

from nextpert._warn import warn

if TYPE_CHECKING:
    from collections.abc import Callable

# In wheels for a platform only, beside the code: whoever can change the one can change the other.
FOLDER = Path(__file__).with_name("kernels")

# Functions with the digests of their sources, taken when they are defined.
_kept: list[tuple[Any, str]] = []
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

    def __init__(self, function: Callable[..., Any], stamp: str) -> None:
        super().__init__(function)
        self._cache_file = _File(self._cache_path, self._impl.filename_base, stamp)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save the compiled form for a signature if the disk is writable."""
        try:
            super().save_overload(sig, data)
        except OSError as error:  # the disk is full, or has become read-only
            self.disable()
            _warn(error)


class WheelCache(NullCache):
    """Compiled forms of a function that came with the wheel; others go to the cache on disk.

    ``forms`` has the name and the digest of a file for every tuple of types of arguments.
    """

    def __init__(
        self, function: Callable[..., Any], stamp: str, forms: dict[str, list[str]]
    ) -> None:
        self._function, self._stamp, self._forms = function, stamp, forms

    @cached_property
    def _on_disk(self) -> Any:
        return _cache_on_disk(self._function, self._stamp)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled form for a signature, or ``None``."""
        target_context.refresh()
        if str(sig) in self._forms:
            name, digest = self._forms[str(sig)]
            try:
                content = (FOLDER / name).read_bytes()
            except OSError:
                content = b""
            if hashlib.sha256(content).hexdigest() == digest:
                # numba's format, read from the installed package as its code is.
                return CompileResult._rebuild(target_context, *pickle.loads(content))
        return self._on_disk.load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Save the compiled form for a signature on disk."""
        self._on_disk.save_overload(sig, data)


def keep(dispatcher: Any) -> Any:
    """Attach a cache to a compiled function, or warn that there is none; return the function."""
    function = dispatcher.py_func
    try:
        stamp = _stamp(function)
    except OSError as error:  # without a file, as in an interactive session
        _warn(error)
        return dispatcher
    source, forms = _kernels_of_wheel().get(_name(function), ("", {}))
    fits = source == stamp
    dispatcher._cache = (
        WheelCache(function, stamp, forms) if fits else _cache_on_disk(function, stamp)
    )
    _kept.append((dispatcher, stamp))
    return dispatcher


def _cache_on_disk(function: Callable[..., Any], stamp: str) -> Any:
    """Return numba's cache of a function; an empty one, with a warning, if there is no folder."""
    try:
        return KernelCache(function, stamp)
    except (RuntimeError, OSError) as error:  # numba: no locator available
        _warn(error)
        return NullCache()


def _name(function: Callable[..., Any]) -> str:
    return f"{function.__module__}.{function.__name__}"


def _conditions() -> dict[str, str]:
    """Return what compiled code depends on beside its source and the processor's features."""
    return {
        "numba": numba.__version__,
        "llvmlite": llvmlite.__version__,
        "python": str(sys.implementation.cache_tag),
        "system": f"{sys.platform} {platform.machine()}",
    }


def has_features(features: str) -> bool:
    """Return whether this processor has features, in LLVM's notation ``+one,+other``."""
    required = [feature[1:] for feature in features.split(",") if feature]
    try:
        present = binding.get_host_cpu_features() if required else {}
    except RuntimeError:  # LLVM: unknown on this system
        return False
    return all(present.get(feature, False) for feature in required)


@cache
def _kernels_of_wheel() -> dict[str, Any]:
    """Return the digest of the source and the forms of every kernel, if they fit this session."""
    try:
        index = json.loads((FOLDER / "index.json").read_bytes())
    except (OSError, ValueError):  # the usual case: not a wheel for a platform
        return {}
    config: Any = numba.config
    # Who tells numba how to compile gets that.
    is_told = config.CPU_NAME is not None or config.CPU_FEATURES is not None
    is_told = is_told or bool(config.BOUNDSCHECK) or bool(config.DEBUGINFO_DEFAULT)
    fits = index["conditions"] == _conditions() and has_features(index["features"])
    return index["kernels"] if fits and not is_told else {}


def write_kernels(folder: Path, features: str) -> None:
    """Write all forms that this session has compiled, with an index, for the folder of a wheel.

    Raises
    ------
    RuntimeError
        If a function has no compiled form.
    """
    missed = [_name(kernel.py_func) for kernel, _ in _kept if not kernel.overloads]
    if missed:
        message = f"Not compiled: {', '.join(missed)}. Run them in run_kernels (build_kernels.py)."
        raise RuntimeError(message)
    kernels: dict[str, Any] = {}
    for kernel, stamp in _kept:
        name, forms = _name(kernel.py_func), {}
        for number, (sig, form) in enumerate(kernel.overloads.items()):
            parts = list(form._reduce())
            parts[6] = ""  # annotated source, with paths of this machine
            content = dumps(tuple(parts))
            (folder / f"{name}.{number}.nbc").write_bytes(content)
            forms[str(sig)] = [f"{name}.{number}.nbc", hashlib.sha256(content).hexdigest()]
        kernels[name] = [stamp, forms]
    index = {"conditions": _conditions(), "features": features, "kernels": kernels}
    (folder / "index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")


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


@fast
def short_exp(x):
    """Return ``exp(x)`` in single precision for ``x <= 0``; its relative error is below 3e-7.

    It is 2^k exp(r) for ``x = k log 2 + r``, where k is written to the exponent of the result.
    """
    x = max(x, np.float32(-87.0))
    k = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
    # log 2 is a number with few digits, whose products with k are exact, and a rest.
    r = (x - k * np.float32(0.693359375)) + k * np.float32(2.12194440e-4)
    z = np.float32(1 / 24) + r * (np.float32(1 / 120) + r * np.float32(1 / 720))
    z = np.float32(0.5) + r * (np.float32(1 / 6) + r * z)
    z = np.float32(1.0) + r * (np.float32(1.0) + r * z)
    return z * np.int32((np.int32(k) + np.int32(127)) << np.int32(23)).view(np.float32)
