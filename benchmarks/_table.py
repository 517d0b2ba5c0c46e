"""The table of speed and memory, row by row."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks._measure import Measured
    from benchmarks._row import Row

HEADER = (
    "work", "peer", "peer's time", "nextpert", "times faster (min to max)",
    "peer's MB", "MB", "no worse", "remarks",
)  # fmt: skip


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for limit, unit in ((1e-3, 1e6), (1.0, 1e3)):
        if abs(seconds) < limit:
            return f"{seconds * unit:.3g} {'µs' if unit == 1e6 else 'ms'}"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"


def ratios(measured: Measured) -> list[float]:
    """Return the ratio of peer to ours of every run; runs of a peer with fewer runs are reused."""
    peers = measured.peer
    return [peers[k % len(peers)] / s for k, s in enumerate(measured.ours)] if peers else []


def faster(measured: Measured) -> float | None:
    """Return the ratio of the medians, peer to ours."""
    return median(measured.peer) / median(measured.ours) if measured.peer else None


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 20 else f"{factor:.2g}"


def _megabytes(memory: dict[str, float] | None, *, total: bool = False) -> str:
    if memory is None:
        return "-"
    shown = f"+{memory['extra']:,.0f}"
    return f"{shown} ({memory['total']:,.0f})" if total else shown


def line(row: Row, measured: Measured) -> list[str]:
    """Return the cells of one row."""
    peer, theirs, times = row.peer or "-", "-", "-"
    if row.absent:
        peer, theirs = f"{row.peer}: peer absent", f"pip install {row.needs}"
    elif measured.peer:
        theirs = duration(median(measured.peer))
        spread = ratios(measured)
        times = f"{_times(faster(measured) or math.nan)} "
        times += f"({_times(min(spread))} to {_times(max(spread))})"
    return [
        row.title, peer, theirs, duration(median(measured.ours)), times,
        _megabytes(measured.memory_peer), _megabytes(measured.memory_ours, total=True),
        "yes" if measured.ok else "no", measured.remark or "-",
    ]  # fmt: skip
