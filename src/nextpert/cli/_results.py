"""The results of a step: a table, a verdict in words, the numbers of the summary."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import get
from nextpert._adata.effects import CLEAR_SIGN
from nextpert._report.tables import above_0
from nextpert.cli._options import STEPS
from nextpert.core._shown import percent
from nextpert.tl._design_interventions.tables import candidates_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


# What is shown of a table; distances are squared, in units of log-normalised expression.
_SHOWN = {
    "design": (
        "rank", "perturbation", "true_distance", "predicted_distance", "predicted_low",
        "predicted_high", "shift", "acquisition", "relative_distance", "probability_best",
        "n_cells_seen",
    ),
    "distances": (
        "perturbation", "n_cells", "distance", "low", "high", "difference", "difference_low",
        "difference_high",
    ),
}  # fmt: skip
_WIDTH = 100  # of a table in text


def table_of(command: str, adata: AnnData) -> pd.DataFrame:
    """Return the table of a step's results."""
    _, key, part = STEPS[command]
    if command == "effects":
        return get.effects_df(adata)
    if part in adata.uns[key]:
        return pd.DataFrame(adata.uns[key][part])
    parents, children = adata.varp[key].nonzero()  # of a graph that was given
    return pd.DataFrame({"parent": adata.var_names[parents], "child": adata.var_names[children]})


def verdict_of(command: str, adata: AnnData, logged: list[str]) -> str:
    """Return the results in words, by default what the function logged."""
    uns = adata.uns
    if command == "preprocess":
        stored = uns["preprocessing"]
        kept = np.asarray(stored["perturbations"]["kept"], bool)
        return (
            f"{adata.n_obs} cells ({int(stored['n_control_cells'])} of them controls), "
            f"{adata.n_vars} genes and {kept.sum()} of {len(kept)} perturbations are kept."
        )
    if command == "effects":
        is_clear = np.asarray(uns["perturbation_effects"]["lfsr"]) < CLEAR_SIGN
        return (
            f"{is_clear.sum()} of {is_clear.size} effects are significant (local false sign rate "
            f"below {CLEAR_SIGN}); {is_clear.any(axis=1).sum()} of {len(is_clear)} perturbations "
            f"have such an effect. {' '.join(logged)}"
        )
    if command == "distances":
        table, params = (uns["target_distances"][part] for part in ("table", "params"))
        first = above_0(table).iloc[0]
        is_perturbed = table["perturbation"].astype(str) != str(params["control"])
        n_nearer = (table.loc[is_perturbed, "difference_high"] < 0).sum()
        return (
            f"Nearest to {uns['target_distances']['target']}: {first['perturbation']}, at "
            f"{first['distance']:.3g} ({first['low']:.3g} to {first['high']:.3g}). {n_nearer} of "
            f"{is_perturbed.sum()} perturbations are nearer than control cells, at "
            f"{100 * params['confidence']:g}% confidence."
        )
    return "\n".join(logged)


def summary_of(command: str, adata: AnnData) -> dict[str, Any]:
    """Return the numbers of the summary, such as JSON takes."""
    out: dict[str, Any] = {"n_cells": adata.n_obs, "n_genes": adata.n_vars}
    stored = adata.uns[STEPS["design" if command == "demo" else command].key]
    if command == "plan":
        out |= stored["summary"]
    if command in ("design", "demo"):
        first = candidates_of(stored["ranking"]).iloc[0]
        out |= {str(name): value for name, value in first.items()}
    if command in ("diagnose", "learn"):
        name = "level" if command == "diagnose" else "n_edges"
        out[name] = stored[name]
    if "advice" in stored:
        out["advice"] = stored["advice"]["kind"]
    # As JSON holds them: numpy's numbers as plain ones, NaN as null.
    plain: dict[str, Any] = json.loads(pd.Series(out, dtype=object).to_json(double_precision=15))
    return plain


def rows_in_text(
    command: str, adata: AnnData, n: int, truth: NDArray[np.float64] | None = None
) -> str:
    """Return the first rows of the table of results as text, of a ranking also the control's.

    ``truth`` holds the true distances of the candidates, shape ``(n_candidates,)``. Columns without
    a value and those in the middle that do not fit are left out.
    """
    if not n:
        return ""
    table = table_of(command, adata)
    shown, n_rest = table.head(n), len(table) - n
    if command == "design":
        candidates = candidates_of(table)
        if truth is not None:
            candidates = candidates.assign(true_distance=truth).drop(columns="relative_distance")
        n_rest = len(candidates) - n
        shown = pd.concat([candidates.head(n), table.tail(1)])[list(candidates)]
    if command == "plan" and not table["cost"].any():
        shown = shown.drop(columns="cost")
    is_empty = shown.isin([np.nan, None, ""]).all()
    columns = _SHOWN.get(command, map(str, shown))
    names = [name for name in columns if name in shown and not is_empty[name]]
    shown = above_0(shown[names])
    formats = {x: percent for x in names if x.startswith("probability")}
    while True:
        text = shown.to_string(
            index=False, max_colwidth=40, float_format="{:.3g}".format, na_rep="",
            formatters={x: formats[x] for x in formats if x in shown},
        )  # fmt: skip
        if shown.shape[1] < 3 or max(map(len, text.splitlines())) <= _WIDTH:
            break
        shown = shown.drop(columns=shown.columns[shown.shape[1] // 2])
    rest = {"rows": n_rest, "columns": len(names) - shown.shape[1]}
    more = " and ".join(f"{n} more {what}" for what, n in rest.items() if n > 0)
    return f"{text}\n{more}: --table FILE.csv writes all\n" if more else f"{text}\n"
