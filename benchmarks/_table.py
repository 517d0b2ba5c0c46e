"""Tables of benchmarks: options of their commands, as Markdown, and every single run as CSV."""

from __future__ import annotations

import argparse
import csv
import math
import os
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks._growth import Series
    from benchmarks._measure import Measured
    from benchmarks._row import Row

HEADER = (
    "work", "peer", "peer's time", "nextpert", "times faster (min to max)",
    "peer's MB", "MB", "to reach", "reached", "remarks",
)  # fmt: skip


def options(name: str, text: str | None, *, data: bool = False) -> argparse.ArgumentParser:
    """Return the parser of a command that prints a table, which ``--save`` also writes.

    With ``data``, ``--data`` names the folder of the real screens.
    """
    parser = argparse.ArgumentParser(
        f"python -m benchmarks.{name}", description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--save", metavar="FILE", help="also write the tables to this file")
    if data:
        parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    return parser


def save(lines: Iterable[str], file: str | None) -> None:
    """Write lines to a file, if one is named."""
    if file:
        Path(file).write_text("\n".join(lines) + "\n", encoding="utf-8")


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it."""
    for limit, unit in ((1e-3, 1e6), (1.0, 1e3)):
        if abs(seconds) < limit:
            return f"{seconds * unit:.3g} {'µs' if unit == 1e6 else 'ms'}"
    return f"{seconds:.3g} s" if seconds < 100 else f"{seconds:,.0f} s"


def ratios(measured: Measured) -> list[float]:
    """Return peer over ours of every run; a peer run less often counts again in turn."""
    peers = measured.peer
    return [peers[k % len(peers)] / s for k, s in enumerate(measured.ours)] if peers else []


def faster(measured: Measured) -> float | None:
    """Return the ratio of the medians, peer over ours."""
    return median(measured.peer) / median(measured.ours) if measured.peer else None


def _times(factor: float) -> str:
    return f"{factor:,.0f}" if factor >= 20 else f"{factor:.2g}"


def reached(row: Row, measured: Measured) -> str:
    """Return ``yes`` or ``no``, or a dash where nothing is asked or the peer is absent."""
    goal, factor, total = row.goal, faster(measured), measured.memory_ours
    verdicts = []
    if goal.faster is not None:
        verdicts.append(None if factor is None else factor >= goal.faster)
    if goal.seconds is not None:
        verdicts.append(median(measured.ours) < goal.seconds)
    if goal.megabytes is not None:
        verdicts.append(None if total is None else total["total"] < goal.megabytes)
    if goal.also and not row.absent:
        verdicts.append(measured.ok)
    if not measured.ok or False in verdicts:
        return "no"
    return "-" if not verdicts or None in verdicts else "yes"


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
        str(row.goal) or "-", reached(row, measured), measured.remark or "-",
    ]  # fmt: skip


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of log time over log size, between the middle size and the largest."""
    middle = (len(sizes) - 1) // 2
    if len(sizes) < 2:
        return math.nan
    return math.log(seconds[-1] / seconds[middle]) / math.log(sizes[-1] / sizes[middle])


def series_line(series: Series, measured: list[tuple[int, Measured]]) -> list[str]:
    """Return the cells of one row of growth: first and last time, and the power of the size."""
    absent = series.points[0][1].absent
    curves = {
        "ours": [(size, median(m.ours)) for size, m in measured],
        "peer": [(size, median(m.peer)) for size, m in measured if m.peer],
    }
    shown, powers = {}, []
    for side, curve in curves.items():
        shown[side] = "-"
        if curve:
            shown[side] = f"{duration(curve[0][1])} → {duration(curve[-1][1])}"
            if len(curve) > 1:
                powers.append(f"{side} ~ size^{exponent(*map(list, zip(*curve, strict=True))):.1f}")
    if curves["peer"] and curves["peer"][-1][0] < measured[-1][0]:
        shown["peer"] += f" (to {curves['peer'][-1][0]:,})"
    both = [faster(m) for _, m in measured if m.peer]
    times = f"{_times(both[0])} → {_times(both[-1])}" if both else "-"  # type: ignore[arg-type]
    memory = [m.memory_ours for _, m in measured if m.memory_ours]
    theirs = [m.memory_peer for _, m in measured if m.memory_peer]
    return [
        f"{series.title}: {measured[0][0]:,} → {measured[-1][0]:,} {series.unit}",
        f"{series.peer}: peer absent" if absent else series.peer,
        shown["peer"], shown["ours"], times,
        _megabytes(theirs[-1]) if theirs else "-",
        _megabytes(memory[-1], total=True) if memory else "-",
        "-", "yes" if all(m.ok for _, m in measured) else "no", ", ".join(powers) or "-",
    ]  # fmt: skip


def as_markdown(lines: Iterable[list[str]]) -> str:
    """Return an aligned Markdown table."""
    rows = [list(HEADER), *lines]
    widths = [max(len(row[j]) for row in rows) for j in range(len(HEADER))]
    text = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in rows
    ]
    text.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(text)


def write_csv(path: str, runs: Iterable[tuple[Row, Measured]]) -> None:
    """Write every run: row, side, number of the run, seconds; peaks once a row and side."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["row", "side", "run", "seconds", "extra_mb", "total_mb", "remark"])
        for row, measured in runs:
            sides = (
                ("nextpert", measured.ours, measured.memory_ours),
                (row.peer, measured.peer, measured.memory_peer),
            )
            for side, seconds, memory in sides:
                for k, value in enumerate(seconds):
                    peak = (memory or {}) if k == 0 else {}
                    known = [f"{peak[n]:.1f}" if n in peak else "" for n in ("extra", "total")]
                    remark = measured.remark if k == 0 and side == "nextpert" else ""
                    out.writerow([row.name, side, k, f"{value:.6g}", *known, remark])
