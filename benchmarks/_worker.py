"""Measurements in processes of their own, all with one thread.

The command runs this module once for every process it needs,
``python -m benchmarks._worker '{"row": ..., "mode": ...}'``, and reads the last line printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks._row import Row

_ROOT = Path(__file__).resolve().parents[1]
_LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM", "NUMEXPR")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in _LIBRARIES}


def run_apart(row: Row, mode: str, *, quick: bool, scratch: str) -> dict[str, Any]:
    """Run one measurement in a process of its own.

    Raises
    ------
    RuntimeError
        If it fails; the message is the last line it wrote.
    """
    job = json.dumps({"row": row.name, "mode": mode, "quick": quick, "scratch": scratch})
    command = [sys.executable, "-m", "benchmarks._worker", job]
    env = {**os.environ, **ONE_THREAD}  # read when the libraries are imported
    done = subprocess.run(command, capture_output=True, text=True, cwd=_ROOT, env=env, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        message = f"{row.name} ({mode}): {lines[-1]}"
        raise RuntimeError(message)
    return json.loads(done.stdout.strip().splitlines()[-1])


def find_row(name: str) -> Row:
    """Return the row, or point of a series, of a name."""
    from benchmarks._growth import SERIES
    from benchmarks._rows import ROWS

    points = (row for series in SERIES for _, row in series.points)
    return next(row for row in (*ROWS, *points) if row.name == name)


def main() -> None:
    """Do the job named on the command line, and print its result as one line of JSON."""
    from benchmarks._measure import memory_of, time_row

    job = json.loads(sys.argv[1])
    row, mode = find_row(job["row"]), job["mode"]
    options = {"quick": job["quick"], "scratch": job["scratch"]}
    with contextlib.redirect_stdout(sys.stderr):  # peers print their progress
        if mode == "prepare":
            row.prepare(**options)
            result: dict[str, Any] = {}
        elif mode == "time":
            result = vars(time_row(row, **options))
        else:
            result = memory_of(row, side=mode.removeprefix("memory-"), **options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
