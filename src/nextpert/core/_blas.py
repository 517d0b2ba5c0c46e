"""Linear algebra whose bits do not depend on the number of threads.

BLAS splits large products (some 500 genes and more) among its threads, and sums of other parts
have other last digits, which a search may turn into another graph.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import scipy.linalg  # noqa: F401  # brings a BLAS of its own, which must be there to be found
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Let BLAS run on one thread: a context, or a decorator of a function."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


_ROOM = 500_000  # effects that are held at a time beside the tables of a screen: 4 MB


def in_blocks(n_perturbations: int, n_genes: int) -> list[slice]:
    """Return the perturbations of which something is computed at a time; there is at least one."""
    # Perturbations of half a million effects; at least one.
    size = max(_ROOM // max(n_genes, 1), 1)
    starts = range(0, max(n_perturbations, 1), size)
    return list(map(slice, starts, range(size, size * (len(starts) + 1), size)))
