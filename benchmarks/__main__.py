"""Benchmarks against peers, in one table.

Peers and nextpert are run by turns in one process with one thread (rows that say so: two
workers), and the medians shown, with the ratio of the medians and the least and largest ratio of
single runs. Memory is the peak of one run in a fresh process, over that process with everything
imported (in brackets: in all). Peers: ``pip install causaldag causal-learn``; without them their
rows say so.

    python -m benchmarks                                  # all of it, about an hour
    python -m benchmarks --quick                          # tiny sizes, a trial
    python -m benchmarks --only civ-30 gsp-36
    python -m benchmarks --only growth --plot benchmarks/scaling.png
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from benchmarks._growth import SERIES
from benchmarks._measure import Measured
from benchmarks._row import Row
from benchmarks._rows import ROWS
from benchmarks._table import as_markdown, duration, line, series_line, write_csv
from benchmarks._worker import run_apart


def measure(row: Row, *, quick: bool, scratch: str) -> Measured:
    """Time one row and take its peaks, each in a process of its own."""
    start = time.perf_counter()
    options = {"quick": quick, "scratch": scratch}
    if row.file:
        run_apart(row, "prepare", **options)
    found = run_apart(row, "time", **options)
    sides = (["ours"] + ["peer"] * bool(found["peer"])) if row.memory else []
    for side in sides:
        found[f"memory_{side}"] = run_apart(row, f"memory-{side}", **options)
    measured = Measured(**found)
    shown = [duration(median(measured.ours)), *(f"{row.peer} {duration(t)}" for t in measured.peer)]
    took = time.perf_counter() - start
    print(f"{row.name}: {', '.join(shown)} (took {took:.0f} s)", file=sys.stderr, flush=True)
    return measured


def about() -> str:
    """Say where and with what the table was made."""
    parts = [f"Python {platform.python_version()}", f"{os.cpu_count()} cores"]
    for name in ("nextpert", "numpy", "scipy", "numba", "anndata", "causaldag", "causal-learn"):
        try:
            parts.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            parts.append(f"{name} absent")
    return f"{platform.system()} {platform.machine()}, {', '.join(parts)}; one thread"


def main(arguments: list[str] | None = None) -> int:
    """Run the rows asked for, print the table, and return 1 if any failed."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    names = [*(row.name for row in ROWS), *(series.name for series in SERIES)]
    parser.add_argument(
        "--only", nargs="+", metavar="NAME",
        help=f"rows of these names, or whose names begin so: {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one run: a trial")
    parser.add_argument("--csv", metavar="FILE", help="also write every run to this file")
    parser.add_argument("--plot", metavar="FILE", help="also draw the growth rows to this file")
    parser.add_argument("--scratch", metavar="DIR", help="folder for files of up to 2 GB")
    args = parser.parse_args(arguments)

    wanted: set[str] = set()
    for start in args.only or [""]:
        found = [start] if start in names else [n for n in names if n.startswith(start)]
        if not found:
            parser.error(f"no row begins with {start}")
        wanted.update(found)
    lines, runs, curves, failed = [], [], [], []
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        options = {"quick": args.quick, "scratch": scratch}
        for row in ROWS:
            if row.name not in wanted:
                continue
            try:
                runs.append((row, measure(row, **options)))
                lines.append(line(*runs[-1]))
            except RuntimeError as error:
                failed.append(str(error))
        for series in SERIES:
            if series.name not in wanted:
                continue
            points = series.points[:2] if args.quick else series.points
            try:
                points_found = [(size, row, measure(row, **options)) for size, row in points]
            except RuntimeError as error:
                failed.append(str(error))
                continue
            runs += [(row, measured) for _, row, measured in points_found]
            curves.append((series, [(size, measured) for size, _, measured in points_found]))
            lines.append(series_line(*curves[-1]))
    print(about())
    if args.quick:
        print("A trial: tiny sizes and single runs, whatever the titles say.")
    print(as_markdown(lines))
    for message in failed:
        print(f"failed: {message}")
    if args.csv:
        write_csv(args.csv, runs)
    if args.plot:
        from benchmarks._plot import draw

        draw(curves, args.plot)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
