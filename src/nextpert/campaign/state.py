"""What a campaign knows besides its cells: its target, its history, and how they are stored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata import list_names, strings
from nextpert._adata.target import Target
from nextpert.campaign.options import from_stored, to_stored
from nextpert.core._codec import coded, unpack
from nextpert.core._shown import card, lines, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad


def lined_up(target: Any, cells: ad.AnnData, n_start: int) -> Any:
    """Return a target whose means are in the units that cells of all batches share.

    Means were given in the units of the cells that the campaign started from, the first ``n_start``
    labelled ones. What batches add is taken off such that on average over all cells it is nothing,
    so with every new batch these units move by what that of the start adds.
    """
    fitted = cells.uns["dag_blr"]
    symbols = _adata.symbols_of(fitted)
    genes, columns = _adata.resolve_panel(cells, fitted["genes"], gene_symbols=symbols)
    roles = _adata.read_roles(cells)
    batches = _adata.read_batches(cells, columns, roles)
    if batches is None:
        return target
    labels = _adata.read_perturbations(cells, roles)
    # Rows of a table stand for several cells each.
    cells_of = np.ones(cells.n_obs) if labels.cells is None else labels.cells
    start = np.flatnonzero(labels.codes >= 0)
    start = start[np.cumsum(cells_of[start]) <= n_start]
    added = dict(zip(genes, batches.of_cells(start).mean(axis=0), strict=True))
    if not isinstance(target, Target):
        return _moved(target, added)
    names = ("state", "away_from", "at_least", "at_most")  # a signature is of changes
    return replace(target, **{name: _moved(getattr(target, name), added) for name in names})


def _moved(state: Any, added: Mapping[str, float]) -> Any:
    if isinstance(state, list):
        return [_moved(each, added) for each in state]
    if isinstance(state, np.ndarray) and len(state) == len(added):  # of the panel, in its order
        return state - np.array(list(added.values()))
    if not isinstance(state, (Mapping, pd.Series)):
        return state
    return {str(gene): mean - added.get(str(gene), 0.0) for gene, mean in state.items()}


KEY = "campaign"
NUMBERS = ("probability_best", "predicted_distance", "predicted_low", "predicted_high")
_TEXT = ("action", "perturbation", "why", "when", "versions", "seed", "options")
_COLUMNS = ("round", "action", "perturbation", "n_cells", *NUMBERS, *_TEXT[2:])
# Columns of the summary that fit on a line of a terminal.
_PRINTED = ("n_observed", "n_cells", "best", "predicted_distance", "probability_best", "advice")


@cache
def _versions() -> str:
    """Return the versions of what results depend on, looked up once in a process."""
    return ", ".join(f"{name} {version(name)}" for name in ("nextpert", "numpy", "anndata"))


def add_rows(
    history: pd.DataFrame | None,
    this_round: int,
    action: str,
    perturbations: Sequence[str],
    *,
    options: Mapping[str, Any] | None = None,
    **columns: Any,
) -> pd.DataFrame:
    """Return the history with one more row for every perturbation."""
    added = {
        "round": this_round,
        "action": action,
        "perturbation": list(perturbations),
        "n_cells": 0,
        **dict.fromkeys(NUMBERS, np.nan),
        "why": "",
        "when": now(),
        "versions": _versions(),
        "seed": "",
        "options": json.dumps(dict(options or {})),
        **columns,
    }
    rows = _typed(pd.DataFrame(added, index=range(len(perturbations)), columns=list(_COLUMNS)))
    return rows if history is None else pd.concat([history, rows], ignore_index=True)


def _typed(history: pd.DataFrame) -> pd.DataFrame:
    numbers = {"round": np.int64, "n_cells": np.int64, **dict.fromkeys(NUMBERS, np.float64)}
    out = history.reset_index(drop=True).astype(numbers)
    return out.assign(**{name: strings(out[name]) for name in _TEXT})[list(_COLUMNS)]


def now() -> str:
    """Return the time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def summary_table(state: State, cells: ad.AnnData) -> pd.DataFrame:
    """Return one row per round; 0 is what the campaign started from."""
    rows, control = [], str(cells.uns["screen"]["control"])
    for this_round in range(state.round + 1):
        at = state.history[state.history["round"] == this_round]
        names = at.groupby("action")["perturbation"].unique()
        observed = at[at["action"].isin(["started", "observed"])]
        so_far = state.standings[state.standings["round"] <= this_round].iloc[-1]
        rows.append(
            {
                "round": this_round,
                "proposed": ", ".join(names.get("proposed", ())),
                "n_observed": len(set(observed["perturbation"]) - {control}),
                "n_cells": int(observed["n_cells"].sum()),
                "failed": ", ".join(names.get("failed", ())),
                **so_far.drop(["round", "n_cells"]),
            }
        )
    return pd.DataFrame(rows).set_index("round")


def as_text(state: State, cells: ad.AnnData) -> str:
    """Return a summary of a campaign and its rounds, to print."""
    table = summary_table(state, cells)[list(_PRINTED)]
    rounds = table.to_string(
        float_format="{:.2g}".format, na_rep="-", formatters={"probability_best": percent}
    )
    return lines(*_card(state, cells), f"\n{rounds}")


def as_html(state: State, cells: ad.AnnData) -> str:
    """Return the same for a notebook, with all columns."""
    table = summary_table(state, cells)
    shown = table.to_html(float_format="{:.2g}".format, na_rep="", border=0)
    return card(*_card(state, cells), shown)


def _card(state: State, cells: ad.AnnData) -> tuple[str, dict[str, str]]:
    last = state.standings.iloc[-1]
    best = f"{last['best']} (no relative distance, because the control's is not above 0)"
    if np.isfinite(distance := last["predicted_distance"]):
        best = f"{last['best']}, predicted at {distance:.2f} of the control's distance"
    good_enough = "not known"
    if np.isfinite(last["good_enough"]):
        good_enough = (
            f"With probability {percent(last['good_enough'])}, none is closer by more than a tenth "
            f"of the control's distance"
        )
    facts = {
        "Best so far": best,
        "Good enough": good_enough,
        "Advice": str(last["advice"]) or "none yet",
        "Plates": f"{state.round} proposed, {last['n_cells']} cells so far",
        "Pending": list_names(state.pending),
        "Failed": list_names(state.failed),
    }
    return f"Campaign towards {cells.uns['design']['params']['target']}", facts


def _text_index(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis(table.index.astype(str))


def _read_standings(table: pd.DataFrame) -> pd.DataFrame:
    out = table.reset_index(drop=True)
    return out.assign(**{name: strings(out[name]) for name in ("best", "advice")})


@dataclass(frozen=True)
class State:
    """Everything but the cells; a step of a campaign makes a new one.

    Parameters
    ----------
    target, options
        The target state, and the options of learning, fitting and planning.
    history
        As of :mod:`nextpert.campaign.state`.
    standings
        One row a fit: ``round``, then what ``standing`` returns.
    pending
        Perturbations under way, with their cells.
    failed
        Perturbations that failed, and why.
    """

    target: Any = coded(partial(to_stored, what="target"), from_stored)
    options: dict[str, dict[str, Any]] = coded(partial(to_stored, what="options"), from_stored)
    history: pd.DataFrame = coded(_text_index, _typed)
    standings: pd.DataFrame = coded(_text_index, _read_standings)
    pending: dict[str, int] = coded(partial(to_stored, what="pending"), from_stored)
    failed: dict[str, str] = coded(partial(to_stored, what="failed"), from_stored)

    @property
    def round(self) -> int:
        """Number of plates proposed so far."""
        proposed = self.history.loc[self.history["action"] == "proposed", "round"]
        return int(proposed.max()) if len(proposed) else 0

    @property
    def n_start(self) -> int:
        """Number of labelled cells that the campaign started from."""
        return int(self.history.loc[self.history["action"] == "started", "n_cells"].sum())


def read_state(adata: ad.AnnData) -> State:
    """Return the state in ``adata.uns["campaign"]``."""
    stored = _adata.read_stored(adata, KEY, "npt.Campaign")
    return unpack(State, stored, f"adata.uns[{KEY!r}]", "run npt.Campaign again")


def add_standing(
    standings: pd.DataFrame | None, this_round: int, row: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the table with one more row."""
    rows = pd.DataFrame([{"round": this_round, **row}])
    return _read_standings(rows if standings is None else pd.concat([standings, rows]))
