"""Measure one row in this process: alternated times, or the peak memory of one side."""

from __future__ import annotations

import contextlib
import gc
import math
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._row import Timed

if TYPE_CHECKING:
    from benchmarks._row import Row

_ENOUGH = 0.02  # seconds; shorter work is repeated within one timing


@dataclass(frozen=True)
class Measured:
    """Seconds of every run; megabytes above an idle process and in total; empty if not run."""

    ours: list[float]
    peer: list[float]
    remark: str
    ok: bool
    memory_ours: dict[str, float] | None = None
    memory_peer: dict[str, float] | None = None


def time_row(row: Row, *, quick: bool) -> Measured:
    """Time both sides alternately in this process: peer, ours, peer, ours, ..."""
    with_peer = bool(row.peer) and not row.absent
    _warm_up(row, ["ours", "peer"] if with_peer else ["ours"])
    work = row.work(quick=quick)
    repeats = 1 if quick else row.repeats
    peer_repeats = min(repeats, row.peer_repeats) if with_peer else 0
    if with_peer:
        work.setup_peer()
    inner = 1
    if repeats > 1:
        inner = math.ceil(_ENOUGH / max(_time(work.ours, 0, 1)[0], 1e-5))
    ours, peer, results, peer_results = [], [], [], []
    for k in range(repeats):
        if k < peer_repeats:
            seconds, result = _time(work.peer, k, 1)
            peer.append(seconds)
            peer_results.append(result)
        seconds, result = _time(work.ours, k, inner)
        ours.append(seconds)
        results.append(result)
    remark, ok = work.report(results, peer_results)
    return Measured(ours, peer, remark, ok)


def _warm_up(row: Row, sides: list[str]) -> None:
    """Import and compile all that the work needs, at its smallest size."""
    small = row.work(quick=True)
    if "ours" in sides:
        small.ours(0)
    if "peer" in sides:
        small.setup_peer()
        small.peer(0)


def _time(call: Any, k: int, inner: int) -> tuple[float, Any]:
    gc.collect()
    own = 0.0
    start = time.perf_counter()
    for _ in range(inner):
        result = call(k)
        own += result.seconds if isinstance(result, Timed) else 0.0
    seconds = time.perf_counter() - start
    return (own / inner, result.result) if isinstance(result, Timed) else (seconds / inner, result)


def memory_of(row: Row, *, side: str, quick: bool) -> dict[str, float]:
    """Return the peak of one run, above this process with all imports, and in total (MB)."""
    _warm_up(row, [side])
    gc.collect()
    before = resident()
    work = row.work(quick=quick)
    if side == "peer":
        work.setup_peer()
    gc.collect()
    forget_peak()
    if side == "peer":
        (work.peer_once or (lambda: work.peer(0)))()
    else:
        work.ours(0)
    top = peak()
    return {"extra": max(top - before, 0.0), "total": top}


def _status(field: str) -> float | None:
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    return None


def peak() -> float:
    """Return the peak memory of this process since the last reset (MB)."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return _status("VmHWM:") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def resident() -> float:
    """Return the memory that this process holds (MB)."""
    return _status("VmRSS:") or peak()


def forget_peak() -> None:
    """Reset the peak to the present memory, if the system can; otherwise set-up is included."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
