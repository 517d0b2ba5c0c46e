"""Measurements in separate processes, all with one thread.

The command runs this module once for every process it needs,
``python -m benchmarks._worker '{"row": ..., "mode": ...}'``, and reads the last line printed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from benchmarks._page import ROOT

if TYPE_CHECKING:
    from benchmarks._row import Row

_LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMBA", "VECLIB_MAXIMUM", "NUMEXPR")
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in _LIBRARIES}


def run_apart(row: Row, mode: str, *, quick: bool) -> dict[str, Any]:
    """Run one measurement in a separate process."""
    job = json.dumps({"row": row.name, "mode": mode, "quick": quick})
    return last_line_of(f"{row.name} ({mode})", "benchmarks._worker", job)


def last_line_of(what: str, module: str, *arguments: str) -> dict[str, Any]:
    """Run a module in a separate process, and return the JSON of the last line that it printed.

    Raises
    ------
    RuntimeError
        If it fails; the message is ``what`` failed, and the last line it wrote.
    """
    command = [sys.executable, "-m", module, *arguments]
    env = {**os.environ, **ONE_THREAD}  # read when the libraries are imported
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        message = f"{what}: {lines[-1]}"
        raise RuntimeError(message)
    return json.loads(done.stdout.strip().splitlines()[-1])


def find_row(name: str) -> Row:
    """Return the row of a name."""
    from benchmarks._rows import ROWS

    return next(row for row in ROWS if row.name == name)


def main() -> None:
    """Do the job named on the command line, and print its result as one line of JSON."""
    from benchmarks._measure import memory_of, time_row

    job = json.loads(sys.argv[1])
    row, mode = find_row(job["row"]), job["mode"]
    with contextlib.redirect_stdout(sys.stderr):  # peers print their progress
        if mode == "time":
            result: dict[str, Any] = vars(time_row(row, quick=job["quick"]))
        else:
            result = memory_of(row, side=mode.removeprefix("memory-"), quick=job["quick"])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
