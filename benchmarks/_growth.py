"""How time and memory grow with genes, cells and candidates: the same work at several sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from benchmarks._row import Row


@dataclass(frozen=True)
class Series:
    """One curve of ours and one of the peer; ``points`` are pairs of size and row."""

    name: str
    title: str
    unit: str
    points: tuple[tuple[int, Row], ...]
    peer: str
    labels: tuple[str, str]  # of the two curves, ours and the peer's, in the plot


def _series(
    row: Row, unit: str, axis: str, sizes: list[int], peer_up_to: int, labels: tuple[str, str]
) -> Series:
    """Vary the argument ``axis`` of a row; the peer is run up to a size."""
    points = []
    for k, size in enumerate(sizes):
        changes: dict[str, Any] = {
            "name": f"{row.name}-{size}",
            "full": row.full | {axis: size},
            "quick": row.quick | {axis: row.quick[axis] * (1 + k)},
        }
        if size > peer_up_to:
            changes |= {"peer": "", "peer_repeats": 0}
        points.append((size, replace(row, **changes)))
    return Series(row.name, row.title, unit, tuple(points), row.peer, labels)


def _row(name: str, title: str, make: str, full: dict, quick: dict, peer: str, **more: Any) -> Row:
    return Row(name, title, make, full, quick, peer, repeats=3, peer_repeats=3, **more)


_DOUBLING = [25 * 2**k for k in range(7)]

SERIES: tuple[Series, ...] = (
    _series(
        _row(
            "growth-step", "CIV step, 3 parents each", "_design:civ_step",
            {"n_parents": 3, "n_states": 3}, {"n_genes": 6, "n_parents": 2, "n_states": 1},
            "dense, SLSQP",
        ),
        "genes", "n_genes", _DOUBLING, 100, ("CIV step", "dense, SLSQP"),
    ),
    _series(
        _row(
            "growth-pool", "pool of 1,000, 3 parents each", "_design:pool",
            {"n_parents": 3, "n_candidates": 1000, "n_peer": 100},
            {"n_genes": 6, "n_parents": 2, "n_candidates": 10, "n_peer": 5}, "dense loop",
        ),
        "genes", "n_genes", _DOUBLING, 200, ("pool of 1,000", "dense loop"),
    ),
    _series(
        _row(
            "growth-boss", "BOSS, degree 6, 5,000 cells", "_graphs:search_boss",
            {"degree": 6.0, "n_cells": 5000, "peer": "boss"},
            {"n_genes": 4, "degree": 2.0, "n_cells": 200, "peer": "boss"}, "causal-learn BOSS",
            needs="causal-learn", module="causallearn",
        ),
        "genes", "n_genes", _DOUBLING[:5], 50, ("BOSS", "causal-learn BOSS"),
    ),
    _series(
        _row(
            "growth-memory", "moments of 36 genes, in memory", "_moments:from_memory",
            {"n_genes": 36}, {"n_cells": 50, "n_genes": 4}, "X.T @ X",
        ),
        "cells", "n_cells", [10**k for k in range(3, 7)], 10**6, ("in memory", "X.T @ X"),
    ),
    _series(
        _row(
            "growth-file", "moments of 36 genes, sparse h5ad of 2,000", "_moments:from_file",
            {"n_genes": 2000, "n_panel": 36, "density": 0.05},
            {"n_cells": 150, "n_genes": 20, "n_panel": 4, "density": 0.3},
            "one read of the file", file=True,
        ),
        "cells", "n_cells", [10**4, 10**5, 10**6], 10**6, ("sparse h5ad", "one read of it"),
    ),
    _series(
        _row(
            "growth-candidates", "pool, 200 genes, 3 parents each", "_design:pool",
            {"n_genes": 200, "n_parents": 3, "n_peer": 100},
            {"n_genes": 6, "n_parents": 2, "n_candidates": 10, "n_peer": 5}, "dense loop",
        ),
        "candidates", "n_candidates", [10**k for k in range(1, 6)], 100, ("pool", "dense loop"),
    ),
)  # fmt: skip
