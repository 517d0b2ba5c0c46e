"""How the core's loops are compiled: cached on disk, without the interpreter's lock.

``helper`` is for functions that only compiled code calls: leaving out their Python wrappers saves
a good part of a first run's compile time. In both, plain loops rather than array expressions:
those cost seconds to compile and no less to run.
"""

from __future__ import annotations

from numba import njit

_OPTIONS = {"cache": True, "nogil": True, "error_model": "numpy"}
_INNER = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}

kernel = njit(**_OPTIONS)
helper = njit(**_INNER)
