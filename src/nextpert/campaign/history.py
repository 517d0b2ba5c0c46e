"""What was proposed, observed, failed and why: one table that only ever grows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import strings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEXT = ("action", "perturbation", "why", "when", "versions", "seed", "options")
WHOLE = ("round", "n_cells")
NUMBERS = ("probability_best", "predicted_distance", "predicted_low", "predicted_high")
COLUMNS = ("round", "action", "perturbation", "n_cells", *NUMBERS, *TEXT[2:])


def empty() -> pd.DataFrame:
    """Return a history in which nothing has happened."""
    return _typed(pd.DataFrame({name: [] for name in COLUMNS}))


def add_rows(
    history: pd.DataFrame,
    this_round: int,
    action: str,
    perturbations: Sequence[str],
    *,
    n_cells: Any = 0,
    why: Any = "",
    seed: str = "",
    options: Mapping[str, Any] | None = None,
    **numbers: Any,
) -> pd.DataFrame:
    """Return the history with one more row for every perturbation."""
    n = len(perturbations)
    added = {
        "round": this_round,
        "action": action,
        "perturbation": list(perturbations),
        "n_cells": n_cells,
        "why": why,
        "when": now(),
        "versions": versions(),
        "seed": seed,
        "options": json.dumps(dict(options or {})),
        **dict.fromkeys(NUMBERS, np.nan),
        **numbers,
    }
    rows = pd.DataFrame(added, index=range(n), columns=list(COLUMNS))
    # Column by column: pandas passes over the types of columns without a value.
    both = {name: np.concatenate([history[name], rows[name]]) for name in COLUMNS}
    return _typed(pd.DataFrame(both))


def read_history(stored: pd.DataFrame) -> pd.DataFrame:
    """Return a history from a file."""
    return _typed(stored.reset_index(drop=True))


def names_of(history: pd.DataFrame, this_round: int, action: str) -> list[str]:
    """Return the perturbations of an action in a round, each once."""
    rows = history[(history["round"] == this_round) & (history["action"] == action)]
    return list(dict.fromkeys(rows["perturbation"]))


def now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def versions() -> str:
    """Return the versions of what results depend on."""
    return ", ".join(f"{name} {version(name)}" for name in ("nextpert", "numpy", "anndata"))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    kinds = {**dict.fromkeys(WHOLE, np.int64), **dict.fromkeys(NUMBERS, np.float64)}
    out = table.astype(kinds)
    for name in TEXT:
        out[name] = strings(out[name])
    return out[list(COLUMNS)]
