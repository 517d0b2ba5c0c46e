"""Moments of many resamples of the cells in one pass, and how often their graphs hold an arc."""

from __future__ import annotations

from math import exp, factorial
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from joblib import Parallel, delayed, parallel_config

from nextpert.core.cells.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.graph.dag import Dag

    Search = Callable[[Moments, np.random.Generator], Dag]

# Cells whose products are summed together: fixed, so that sums do not depend on the blocks given.
_CHUNK = 1024
# A node that keeps less of its squares than this is constant up to rounding.
_ROUNDING = 1e-12
# P(weight <= k) of a Poisson weight of mean 1; what lies beyond is below 1e-20.
_POISSON = np.cumsum([exp(-1.0) / factorial(k) for k in range(20)])
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31 = (np.uint64(s) for s in (11, 27, 30, 31))


def poisson_weights(seeds: NDArray[np.uint64], cells: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return how often each resample takes each cell, shape ``(n_seeds, n_cells)``.

    Poisson of mean 1. The weight of cell ``k`` comes from number ``k`` of the splitmix64 stream
    of the resample's seed, so that it depends on neither the order nor the blocks of the cells.
    """
    steps = (cells.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    z = seeds[:, None] + steps
    z = (z ^ (z >> _S30)) * _MIX1
    z = (z ^ (z >> _S27)) * _MIX2
    z ^= z >> _S31
    uniform = (z >> _S11) * 2.0**-53
    return np.searchsorted(_POISSON, uniform, side="right").astype(np.uint8)


class Resamples:
    """Weighted moments of all resamples, grown block by block; ``8 n_resamples p^2`` bytes.

    Parameters
    ----------
    n_nodes
        Number of nodes, ``p``.
    seeds
        One seed a resample, shape ``(n_resamples,)``.
    """

    def __init__(self, n_nodes: int, seeds: NDArray[np.uint64]) -> None:
        self._seeds = seeds
        self._n = np.zeros(len(seeds), np.int64)
        self._total = np.zeros((len(seeds), n_nodes))
        self._square = np.zeros((len(seeds), n_nodes, n_nodes))
        self._origin: NDArray[np.float64] | None = None
        self._cells = np.empty(_CHUNK, np.int64)
        self._values = np.empty((_CHUNK, n_nodes))
        self._filled = 0

    def add(self, cells: NDArray[np.int64], block: NDArray[np.floating] | sp.sparray) -> None:
        """Add a block: the numbers of its cells and their finite values, dense or sparse."""
        start = 0
        while start < len(cells):
            stop = min(len(cells), start + _CHUNK - self._filled)
            here = slice(self._filled, self._filled + stop - start)
            values = block[start:stop]
            self._cells[here] = cells[start:stop]
            self._values[here] = values.toarray() if isinstance(values, sp.sparray) else values
            self._filled = here.stop
            start = stop
            if self._filled == _CHUNK:
                self._sum_up()

    def _sum_up(self) -> None:
        values = self._values[: self._filled]
        if self._origin is None:  # near the mean, so that differences of sums keep their digits
            self._origin = values.mean(axis=0)
        values -= self._origin
        weights = poisson_weights(self._seeds, self._cells[: self._filled])
        self._n += weights.sum(axis=1, dtype=np.int64)
        self._total += weights @ values
        for weight, square in zip(weights, self._square, strict=True):
            taken = np.flatnonzero(weight)
            scaled = values[taken] * np.sqrt(weight[taken], dtype=np.float64)[:, None]
            square += scaled.T @ scaled
        self._filled = 0

    def finish(self) -> list[Moments]:
        """Return the moments of every resample; nothing can be added after it."""
        if self._filled:
            self._sum_up()
        origin = np.zeros(self._total.shape[1]) if self._origin is None else self._origin
        return [self._moments(k, origin) for k in range(len(self._seeds))]

    def _moments(self, k: int, origin: NDArray[np.float64]) -> Moments:
        n, total, scatter = int(self._n[k]), self._total[k], self._square[k]
        if n == 0:
            return Moments.zeros(len(total))
        squares = np.diag(scatter).copy()
        scatter -= np.outer(total, total) / n
        constant = np.diag(scatter) <= _ROUNDING * squares
        scatter[constant] = scatter[:, constant] = 0.0
        return Moments(n, origin + total / n, scatter)


def arc_frequencies(
    moments: Sequence[Moments],
    search: Search,
    rng: np.random.Generator,
    *,
    n_jobs: int | None,
    progress: Callable[[int, int], None] | None,
) -> sp.csr_array:
    """Return the share of the resamples whose graph holds an arc, row = parent."""
    streams = rng.spawn(len(moments))  # one a resample, whichever worker takes it
    workers = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    p = moments[0].n_nodes
    counts = np.zeros((p, p), np.int64)
    tasks = (delayed(_arcs)(search, *pair) for pair in zip(moments, streams, strict=True))
    for done, (parents, children) in enumerate(workers(tasks), 1):
        counts[parents, children] += 1
        if progress is not None:
            progress(done, len(moments))
    return sp.csr_array(counts / len(moments))


def _arcs(
    search: Search, moments: Moments, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    with parallel_config("sequential"):  # no workers of workers
        matrix = search(moments, rng).to_matrix().tocoo()
    return matrix.coords
