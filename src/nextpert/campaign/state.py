"""The state of a campaign besides its cells: target, options and history, and their storage."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from importlib.metadata import version
from numbers import Real
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from nextpert import _adata, tl
from nextpert._adata import list_names, strings
from nextpert._adata.arguments import check_arguments, where_now
from nextpert._adata.roles import fitted_roles
from nextpert.core._codec import coded, unpack
from nextpert.core._text import lines, percent
from nextpert.study.target import STATES, Target, parts_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def lined_up(target: Any, cells: ad.AnnData, n_start: int) -> Any:
    """Return a target with its means shifted to the cells after batch correction.

    Means were given for the cells from which the campaign started, the first ``n_start`` labelled
    cells. Batch effects are subtracted such that their mean over all cells is 0, so with every new
    batch the starting cells shift by their own batch effect.
    """
    fitted = cells.uns["dag_blr"]
    symbols = _adata.symbols_of(fitted)
    genes, columns = _adata.resolve_panel(cells, fitted["genes"], gene_symbols=symbols)
    roles = _adata.read_roles(cells)
    batches = _adata.read_batches(cells, columns, roles)
    if batches is None:
        return target
    labels = _adata.read_perturbations(cells, roles)
    # Each row of a table stands for several cells.
    cells_of = np.ones(cells.n_obs) if labels.cells is None else labels.cells
    start = np.flatnonzero(labels.codes >= 0)
    start = start[np.cumsum(cells_of[start]) <= n_start]
    added = dict(zip(genes, batches.of_cells(start).mean(axis=0), strict=True))
    if not isinstance(target, Target):
        return _moved(target, added)
    names = (*STATES, "at_least", "at_most")  # a signature consists of changes
    return replace(target, **{name: _moved(getattr(target, name), added) for name in names})


def _moved(state: Any, added: Mapping[str, float]) -> Any:
    if isinstance(state, list):
        return [_moved(part, added) for part in state]
    if isinstance(state, np.ndarray) and len(state) == len(added):  # of the panel, in its order
        return state - np.array(list(added.values()))
    if not isinstance(state, (Mapping, pd.Series)):
        return state
    return {str(gene): mean - added.get(str(gene), 0.0) for gene, mean in state.items()}


# Options that the campaign sets itself, or `pp.setup_screen` declares.
_ROLES = {"perturbation_key", "control", "guide_key", "layer"}
_OWN = {"adata", "target", "key_added", "copy", "dag_key", "posterior_key"}
_OF_A_PLATE = {"n_perturbations", "n_cells", "strategy", "pending", "rng"}
LEARN = {"method": "boss", "environments": "all"}


def checked_options(
    learn: Mapping[str, Any] | None, fit: Mapping[str, Any] | None, plan: Mapping[str, Any] | None
) -> dict[str, dict[str, Any]]:
    """Return the options of learning, fitting and planning, in the form that files keep."""
    out = {"learn": dict(learn or {}), "fit": dict(fit or {}), "plan": dict(plan or {})}
    if "method" not in out["learn"]:
        out["learn"] = LEARN | out["learn"]
    calls: dict[str, Callable[..., Any]]
    calls = {"learn": tl.learn_dag, "fit": tl.fit_dag_blr, "plan": tl.plan_screen}
    for name, function in calls.items():
        option_names = set(inspect.signature(function).parameters) - _ROLES - _OWN
        option_names -= _OF_A_PLATE if name == "plan" else set()
        unknown = sorted(set(out[name]) - option_names)
        if unknown:
            hint = where_now(function, unknown[0]) or _adata.closest(unknown, option_names)
            accepted = _adata.list_names(sorted(option_names), 30)
            message = f"{name} has no option {_adata.list_names(unknown)}: use {accepted}.{hint}"
            raise ValueError(message)
        check_arguments(function, out[name])
    if isinstance(out["plan"].get("candidates"), (Mapping, pd.DataFrame)):
        message = "plan: candidates must be names; give shifts as fit={'shift': ...}."
        raise ValueError(message)
    if out["fit"].get("features") is not None:  # of a file, its content now
        out["fit"]["features"] = _adata.load_features(out["fit"]["features"])
    stored_options: dict[str, dict[str, Any]] = kept_value(out, "options")
    return stored_options


def kept_value(value: Any, label: str) -> Any:
    """Return a value in the form that files keep; raise if it cannot be saved."""
    return from_stored(to_stored(value, label))


def to_stored(value: Any, label: str) -> dict[str, Any]:
    """Return a nested value as JSON, and the tables in it separately.

    Examples
    --------
    >>> from nextpert.campaign.state import from_stored, to_stored
    >>> from_stored(to_stored({"target": ("batch", "a"), "include": {"MYC"}}, "options"))
    {'target': ('batch', 'a'), 'include': ['MYC']}
    """
    tables: dict[str, Any] = {}
    return {"json": json.dumps(_encode(value, label, tables)), "tables": tables}


def from_stored(stored: Mapping[str, Any]) -> Any:
    """Return the value given to :func:`to_stored`, with sets as lists."""
    tables = stored.get("tables", {})

    def decode(coded: dict[str, Any]) -> Any:
        for kind, content in coded.items():
            if kind in _TABLES:
                return _TABLES[kind][2](tables[content])
            if kind in _MADE:
                return _MADE[kind](content)
        return coded

    return json.loads(str(stored["json"]), object_hook=decode)


def _encode(value: Any, label: str, tables: dict[str, Any]) -> Any:
    if value is None or isinstance(value, (str, np.generic, Real)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, pd.Series):
        value = value.to_dict()
    for kind, (sort, pack, _) in _TABLES.items():
        if isinstance(value, sort):
            tables[str(len(tables))] = pack(value)
            return {kind: str(len(tables) - 1)}
    if isinstance(value, Target):
        return {"!target": _encode(parts_of(value), label, tables)}
    if isinstance(value, Mapping):
        if bad_names := [name for name in value if not isinstance(name, str)]:
            message = (
                f"All keys of {label} must be strings, but {bad_names[0]!r} is not: rename it."
            )
            raise TypeError(message)
        return {name: _encode(part, f"{label}[{name!r}]", tables) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        parts = [_encode(part, label, tables) for part in _adata.in_order(value)]
        return {"!tuple": parts} if isinstance(value, tuple) else parts
    message = (
        f"{label} is of type {type(value).__name__}, which cannot be saved in a file: give text, "
        f"numbers, lists, mappings, arrays, DataFrames or AnnData objects."
    )
    raise TypeError(message)


def _text_names(table: pd.DataFrame) -> pd.DataFrame:
    return _text_index(table).set_axis(table.columns.astype(str), axis=1)


# Kinds of values that JSON lacks. Tables are kept beside the JSON: how they are stored and read.
_MADE: dict[str, Callable[[Any], Any]] = {
    "!tuple": tuple,
    "!target": lambda parts: Target(**parts),
}
_TABLES: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "!table": (pd.DataFrame, _text_names, _text_names),
    "!array": (np.ndarray, np.array, np.array),
    "!anndata": (ad.AnnData, lambda a: a.to_memory() if a.isbacked else a.copy(), ad.AnnData.copy),
}


def _text_index(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis(table.index.astype(str))


KEY = "campaign"
NUMBERS = ("probability_best", "predicted_distance", "predicted_low", "predicted_high")
_TEXT = ("action", "perturbation", "why", "when", "versions", "seed", "options")
_COLUMNS = ("round", "action", "perturbation", "n_cells", *NUMBERS, *_TEXT[2:])
# Columns of the summary that fit on a line of a terminal.
_PRINTED = ("n_observed", "n_cells", "best", "relative_distance", "probability_best", "advice")


@cache
def _versions() -> str:
    """Return the versions of packages that affect results, looked up once per process."""
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
    """Return the history with one further row per perturbation."""
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
    """Return one row per round; round 0 is the start of the campaign."""
    rows = []
    control = str(cells.uns["screen"]["control"])
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


def changes(cells: ad.AnnData) -> str:
    """Return what has changed in the cells of a campaign since its fit, or an empty string."""
    changed = _adata.changes_of_fit(cells, _adata.read_stored(cells, "dag_blr", "npt.Campaign"))
    return f"The campaign does not belong to its cells: {changed}" if changed else ""


def require_cells(cells: ad.AnnData, path: str) -> None:
    """Raise if a file lacks results of a campaign, or columns, genes or values of its fit."""
    remedy = "use a file that Campaign.save wrote, and leave its content unchanged."
    parts = {"uns": ("screen", "dag", "dag_blr", "design", KEY), "varp": ("dag", "dag_blr_mean")}
    if absent := [
        f"{slot}[{key!r}]"
        for slot, keys in parts.items()
        for key in keys
        if key not in getattr(cells, slot)
    ]:
        message = f"The campaign {path!r} lacks {list_names(absent)}: {remedy}"
        raise ValueError(message)
    if cells.X is None and not len(cells.layers):
        message = f"The campaign {path!r} has no values of its cells: {remedy}"
        raise ValueError(message)
    stored = _adata.read_stored(cells, "dag_blr", "npt.Campaign")
    if missing := _adata.missing_roles(cells, stored["params"]):
        message = f"In the campaign {path!r}, {missing}: {remedy}"
        raise ValueError(message)
    try:
        roles = fitted_roles(cells, stored["params"])
        _adata.read_labels(cells, roles.perturbation_key)
    except ValueError as error:
        message = f"The cells of the campaign {path!r} lack columns of its fit ({error}): {remedy}"
        raise ValueError(message) from error


def as_text(state: State, cells: ad.AnnData) -> str:
    """Return the rounds of a campaign, and perturbations in progress or failed, to print."""
    rounds = summary_table(state, cells)[list(_PRINTED)].to_string(
        float_format="{:.2g}".format, na_rep="-", formatters={"probability_best": percent}
    )
    facts = {"Warning": changes(cells)} if changes(cells) else {}
    facts |= {"Pending": list_names(state.pending), "Failed": list_names(state.failed)}
    target = cells.uns["design"]["params"]["target"]
    return lines(f"Campaign towards {target}", facts, f"\n{rounds}")


def _read_standings(table: pd.DataFrame) -> pd.DataFrame:
    out = table.reset_index(drop=True)
    return out.assign(**{name: strings(out[name]) for name in ("best", "advice")})


@dataclass(frozen=True)
class State:
    """Everything but the cells; each step of a campaign makes a new state.

    ``options`` are those of learning, fitting and planning; ``history`` is that of
    :class:`Campaign`; ``standings`` has one row per fit.
    """

    target: Any = coded(partial(to_stored, label="target"), from_stored)
    options: dict[str, dict[str, Any]] = coded(partial(to_stored, label="options"), from_stored)
    history: pd.DataFrame = coded(_text_index, _typed)
    standings: pd.DataFrame = coded(_text_index, _read_standings)
    pending: dict[str, int] = coded(partial(to_stored, label="pending"), from_stored)
    failed: dict[str, str] = coded(partial(to_stored, label="failed"), from_stored)

    @property
    def round(self) -> int:
        """Number of rounds proposed so far."""
        proposed = self.history.loc[self.history["action"] == "proposed", "round"]
        return int(proposed.max()) if len(proposed) else 0

    @property
    def n_start(self) -> int:
        """Number of labelled cells from which the campaign started."""
        return int(self.history.loc[self.history["action"] == "started", "n_cells"].sum())


def read_state(adata: ad.AnnData) -> State:
    """Return the state in ``adata.uns["campaign"]``."""
    stored = _adata.read_stored(adata, KEY, "npt.Campaign")
    return unpack(State, stored, f"adata.uns[{KEY!r}]", "run npt.Campaign again")


def add_standing(
    standings: pd.DataFrame | None, this_round: int, row: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the table with one further row."""
    rows = pd.DataFrame([{"round": this_round, **row}])
    return _read_standings(rows if standings is None else pd.concat([standings, rows]))
