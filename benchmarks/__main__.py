"""Speed and memory compared with peers, in one table.

Peers and nextpert run alternately in one process with one thread (two workers where a row says so);
the table has medians, the ratio of the medians, and the smallest and largest ratio of single runs.
Memory is the peak of one run in a fresh process, minus that of the process with everything imported
(in brackets: in total). Peers: ``pip install causaldag causal-learn``; absent ones are named.

    python -m benchmarks                                  # all of it, 15 minutes
    python -m benchmarks --quick                          # tiny sizes, a trial
    python -m benchmarks --only civ-30 gsp-36
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from statistics import median

from benchmarks._measure import Measured
from benchmarks._page import table
from benchmarks._row import Row
from benchmarks._rows import ROWS
from benchmarks._table import HEADER, duration, line
from benchmarks._worker import run_apart


def measure(row: Row, *, quick: bool) -> Measured:
    """Measure time and peak memory of one row, each in a separate process."""
    start = time.perf_counter()
    found = run_apart(row, "time", quick=quick)
    sides = (["ours"] + ["peer"] * bool(found["peer"])) if row.memory else []
    for side in sides:
        found[f"memory_{side}"] = run_apart(row, f"memory-{side}", quick=quick)
    measured = Measured(**found)
    took = f"took {time.perf_counter() - start:.0f} s"
    print(f"{row.name}: {duration(median(measured.ours))} ({took})", file=sys.stderr, flush=True)
    return measured


def about() -> str:
    """Return the system and the versions with which the table was made."""
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
    names = [row.name for row in ROWS]
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", default=[""],
        help=f"rows whose names begin with one of these: {', '.join(names)}",
    )  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one run: a trial")
    args = parser.parse_args(arguments)
    for start in args.only:
        if not any(name.startswith(start) for name in names):
            parser.error(f"no row begins with {start}")
    lines, failed = [], []
    for row in ROWS:
        if not row.name.startswith(tuple(args.only)):
            continue
        try:
            lines.append(line(row, measure(row, quick=args.quick)))
        except RuntimeError as error:
            failed.append(f"failed: {error}")
    print(about())
    if args.quick:
        print("A trial: tiny sizes and single runs, whatever the titles say.")
    print("\n".join([table(HEADER, lines), *failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
