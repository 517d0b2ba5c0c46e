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
from nextpert.campaign.model import Standing
from nextpert.campaign.options import from_stored, to_stored
from nextpert.core._codec import coded, unpack
from nextpert.core._shown import card, lines, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad


def lined_up(target: Any, cells: ad.AnnData, n_start: int) -> Any:
    """Return a target whose means are in the units that cells of all batches share.

    Means were given in the units of the cells that the campaign started from. What batches add is
    taken off such that on average over all cells it is nothing, so with every new batch these
    units move by what that of the start is said to add.

    Parameters
    ----------
    target
        As given.
    cells
        All cells, fitted; those of the start come first.
    n_start
        Number of labelled cells of the start.
    """
    fitted = cells.uns["dag_blr"]
    symbols = _adata.symbols_of(fitted)
    genes, columns = _adata.resolve_panel(cells, fitted["genes"], gene_symbols=symbols)
    roles = _adata.read_roles(cells)
    batches = _adata.read_batches(cells, columns, roles)
    if batches is None:
        return target
    labels = _adata.read_perturbations(cells, roles)
    start = np.flatnonzero(labels.codes >= 0)
    if labels.cells is None:
        start = start[:n_start]
    else:  # rows of a table stand for several each
        start = start[np.cumsum(labels.cells[start]) <= n_start]
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


@cache
def versions() -> str:
    """Return the versions of what results depend on."""
    return ", ".join(f"{name} {version(name)}" for name in ("nextpert", "numpy", "anndata"))


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    kinds = {**dict.fromkeys(WHOLE, np.int64), **dict.fromkeys(NUMBERS, np.float64)}
    out = table.astype(kinds)
    for name in TEXT:
        out[name] = strings(out[name])
    return out[list(COLUMNS)]


SHARES = (
    "measured_distance",
    "predicted_distance",
    "probability_best",
    "expected_gain",
    "good_enough",
)
# Columns of the summary that fit on a line of a terminal.
_PRINTED = ("n_observed", "n_cells", "best", "predicted_distance", "probability_best", "advice")


def summary_table(state: State, control: str) -> pd.DataFrame:
    """Return one row per round; 0 is what the campaign started from."""
    rows = []
    for this_round in range(state.round + 1):
        at = state.history[state.history["round"] == this_round]
        so_far = state.standings[state.standings["round"] <= this_round].iloc[-1]
        observed = at[at["action"].isin(["started", "observed"])]
        rows.append(
            {
                "round": this_round,
                "proposed": ", ".join(names_of(state.history, this_round, "proposed")),
                "n_observed": len(set(observed["perturbation"]) - {control}),
                "n_cells": int(observed["n_cells"].sum()),
                "failed": ", ".join(names_of(state.history, this_round, "failed")),
                "best": str(so_far["best"]),
                **{name: float(so_far[name]) for name in SHARES},
                "advice": str(so_far["advice"]),
            }
        )
    return pd.DataFrame(rows).set_index("round")


def _best(last: pd.Series) -> str:
    if not np.isfinite(last["predicted_distance"]):
        return f"{last['best']} (no relative distance, because the control's is not above 0)"
    return (
        f"{last['best']}, predicted at {last['predicted_distance']:.2f} of the control's distance"
    )


def _enough(last: pd.Series) -> str:
    if not np.isfinite(last["good_enough"]):
        return ""
    return (
        f"With probability {percent(last['good_enough'])}, none is closer by more than a tenth "
        f"of the control's distance"
    )


def as_text(state: State, control: str, target: str) -> str:
    """Return a summary of a campaign and its rounds, to print."""
    table = summary_table(state, control)[list(_PRINTED)]
    rounds = table.to_string(
        float_format="{:.2g}".format, na_rep="-", formatters={"probability_best": percent}
    )
    return lines(*_card(state, target), f"\n{rounds}")


def as_html(state: State, control: str, target: str) -> str:
    """Return the same for a notebook, with all columns."""
    table = summary_table(state, control)
    shown = table.to_html(float_format="{:.2g}".format, na_rep="", border=0)
    return card(*_card(state, target), shown)


def _card(state: State, target: str) -> tuple[str, dict[str, str]]:
    last = state.standings.iloc[-1]
    facts = {
        "Best so far": _best(last),
        "Good enough": _enough(last) or "not known",
        "Advice": str(last["advice"]) or "none yet",
        "Plates": f"{state.round} proposed, {last['n_cells']} cells so far",
        "Pending": list_names(state.pending),
        "Failed": list_names(state.failed),
    }
    return f"Campaign towards {target}", facts


KEY = "campaign"


def _text_index(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis(table.index.astype(str))


def _by_name(column: str, kind: type) -> Any:
    """Declare numbers or texts by perturbation, stored as a table."""

    def store(value: Mapping[str, Any]) -> pd.DataFrame:
        held = _adata.strings(value.values()) if kind is str else np.array([*value.values()], int)
        return _text_index(pd.DataFrame({"perturbation": _adata.strings(value), column: held}))

    def read(table: pd.DataFrame) -> dict[str, Any]:
        return dict(zip(map(str, table["perturbation"]), map(kind, table[column]), strict=True))

    return coded(store, read)


def _with_advice(standings: pd.DataFrame) -> pd.DataFrame:
    """Return the table with what campaigns saved by earlier versions lack: not known."""
    table = standings.reset_index(drop=True).reindex(columns=["round", *Standing._fields])
    table["advice"] = _adata.strings(table["advice"].fillna(""))
    return table


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
        One row a fit: ``round``, then the fields of :class:`Standing`.
    pending
        Perturbations under way, with their cells.
    failed
        Perturbations that failed, and why.
    """

    target: Any = coded(partial(to_stored, what="target"), from_stored)
    options: dict[str, dict[str, Any]] = coded(partial(to_stored, what="options"), from_stored)
    history: pd.DataFrame = coded(_text_index, read_history)
    standings: pd.DataFrame = coded(_text_index, _with_advice)
    pending: dict[str, int] = _by_name("n_cells", int)
    failed: dict[str, str] = _by_name("reason", str)

    @property
    def round(self) -> int:
        """Number of plates proposed so far."""
        return int((self.history["action"] == "proposed").any()) and int(
            self.history["round"].max()
        )

    @property
    def n_start(self) -> int:
        """Number of labelled cells that the campaign started from."""
        return int(self.history.loc[self.history["action"] == "started", "n_cells"].sum())


def read_state(adata: ad.AnnData) -> State:
    """Return the state in ``adata.uns["campaign"]``."""
    stored = _adata.read_stored(adata, KEY, "npt.Campaign")
    return unpack(State, stored, f"adata.uns[{KEY!r}]", "run npt.Campaign again")


def add_standing(standings: pd.DataFrame | None, this_round: int, found: Standing) -> pd.DataFrame:
    """Return the table with one more row."""
    row = pd.DataFrame([{"round": this_round, **found._asdict()}])
    out = row if standings is None else pd.concat([standings, row], ignore_index=True)
    for name in ("best", "advice"):
        out[name] = _adata.strings(out[name])
    return out
