"""Where results lie: small csv files, one json of settings a figure."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

RESULTS = Path(__file__).parent / "results"


def write_csv(table: pd.DataFrame, folder: Path, name: str) -> None:
    """Write a table with five significant digits: small, and the same on every machine."""
    table.to_csv(folder / f"{name}.csv", index=False, float_format="%.5g", lineterminator="\n")


def read_csv(folder: Path, name: str) -> Any:
    """Return a table as it was written."""
    path = folder / f"{name}.csv"
    if not path.is_file():
        key = name.split("-")[0]
        message = f"{path} is not there: run python -m benchmarks.paper {key} first."
        raise SystemExit(message)
    return pd.read_csv(path)


def write_facts(folder: Path, key: str, facts: dict[str, Any]) -> None:
    """Write what a table was made with: command, sizes, time, versions."""
    packages = {name: version(name) for name in ("nextpert", "numpy", "numba")}
    whole = {**facts, "python": platform.python_version(), **packages}
    (folder / f"{key}.json").write_text(json.dumps(whole, indent=1) + "\n")


def read_facts(folder: Path, key: str) -> dict[str, Any] | None:
    """Return what a figure was made with, or nothing where it has not been made."""
    path = folder / f"{key}.json"
    return json.loads(path.read_text()) if path.is_file() else None
