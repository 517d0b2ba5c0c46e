"""Pages of results: options of a command, tables in Markdown, and how they were measured."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[1]


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
        parser.add_argument("--data", type=Path, default=os.environ.get("NEXTPERT_DATA", "."))
    return parser


def measured(name: str) -> str:
    """Return how a page was measured: its command, day, commit, and seconds so far."""
    command = " ".join([f"python -m benchmarks.{name}", *sys.argv[1:]]).split(" --save")[0]
    git = ["git", "rev-parse", "--short=8", "HEAD"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    day, seconds = time.strftime("%Y-%m-%d"), time.process_time()
    where = f"commit {commit.strip() or 'unknown'}, {seconds:.0f} s of CPU time"
    return f"From `{command}` on {day}, {where}."


def save(name: str, parts: Iterable[str], file: str | None) -> None:
    """Write the parts of a page below how it was measured, if a file is named."""
    parts = list(parts)  # which may be printed as they come
    if file:
        text = "\n\n".join(part.strip("\n") for part in [measured(name), *parts])
        Path(file).write_text(text + "\n", encoding="utf-8")


def show(part: str) -> str:
    """Print a part of a page at once, and return it."""
    print(part + "\n", flush=True)
    return part


def table(head: Iterable[str], rows: Mapping[str, Iterable[Any]] | Iterable[Iterable[Any]]) -> str:
    """Return a table in Markdown; of a mapping, the names are the first column."""
    head = list(head)
    named = getattr(rows, "items", None)
    every = [[name, *cells] for name, cells in named()] if named else rows
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in every)])


def with_error(values: Any, digits: int = 2, unit: str = "") -> str:
    """Return the mean of the finite values and its standard error."""
    x = np.asarray(values, float)
    x = x[np.isfinite(x)]
    if not len(x):
        return "-"
    error = f" ± {x.std(ddof=1) / np.sqrt(len(x)):.{digits}f}" if len(x) > 1 else ""
    return f"{x.mean():.{digits}f}{error}{unit}"


def ratio(above: Any, below: Any, digits: int = 2) -> str:
    """Return the ratio of two means over the same runs, and its standard error."""
    a, b = np.asarray(above, float), np.asarray(below, float)
    value = a.mean() / b.mean()
    if len(a) < 2:
        return f"{value:.{digits}f}"
    spread = (a - value * b).std(ddof=1) / (np.sqrt(len(a)) * abs(b.mean()))
    return f"{value:.{digits}f} ± {spread:.{digits}f}"


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings and log messages of nextpert below errors; also as a decorator."""
    logger = logging.getLogger("nextpert")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
