"""Linear algebra with results that do not depend on the number of threads.

BLAS divides large products (about 500 genes or more) among its threads. The division changes the
last digits of sums, which can change the graph that a search finds.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import scipy.linalg  # noqa: F401  # loads its own BLAS, for the controller to find
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


_lock, _held = Lock(), list[Any]()  # the limit, once for every call that needs it


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit BLAS to one thread, as a context manager or a decorator.

    The first to enter sets the limit, which holds for the process, and the last to leave removes
    it: calls in calls cost nothing, and no thread removes the limit of another.
    """
    with _lock:
        _held.append(_held[0] if _held else _controller().limit(limits=1, user_api="blas"))
    try:
        yield
    finally:
        with _lock:
            limit = _held.pop()
            if not _held:
                limit.restore_original_limits()


_ROOM = 500_000  # effects that are computed at a time: 4 MB


def in_blocks(n_perturbations: int, n_genes: int) -> list[slice]:
    """Return slices of the perturbations for blockwise computations, at least one."""
    # Half a million effects per block, but at least one perturbation.
    size = max(_ROOM // max(n_genes, 1), 1)
    starts = range(0, max(n_perturbations, 1), size)
    return list(map(slice, starts, range(size, size * (len(starts) + 1), size)))
