"""What a step found: a table, a verdict in words, the numbers of the summary, and the ranking."""

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
    stored = adata.uns[key]
    if command == "effects":
        return get.effects_df(adata)
    if part in stored:
        return pd.DataFrame(stored[part])
    parents, children = adata.varp[key].nonzero()  # of a graph that was given
    return pd.DataFrame({"parent": adata.var_names[parents], "child": adata.var_names[children]})


def verdict_of(command: str, adata: AnnData, said: list[str]) -> str:
    """Return the results in words; ``said`` is what the function logged."""
    uns = adata.uns
    if command == "preprocess":
        kept = uns["preprocessing"]["perturbations"]["kept"]
        return (
            f"{adata.n_obs} cells ({int(uns['preprocessing']['n_control_cells'])} of them "
            f"controls), {adata.n_vars} genes and {int(np.asarray(kept, bool).sum())} of "
            f"{len(kept)} perturbations are kept."
        )
    if command == "effects":
        stored = uns["perturbation_effects"]
        lfsr = np.asarray(stored["lfsr"])
        clear = lfsr < CLEAR_SIGN
        return (
            f"{int(clear.sum())} of {lfsr.size} effects are significant (local false sign rate "
            f"below {CLEAR_SIGN}); {int(clear.any(axis=1).sum())} of {len(lfsr)} perturbations "
            f"have such an effect. {' '.join(said)}"
        )
    if command == "distances":
        stored = uns["target_distances"]
        table, params = stored["table"], stored["params"]
        first = above_0(table).iloc[0]
        perturbed = table[table["perturbation"].astype(str) != str(params["control"])]
        return (
            f"Nearest to {stored['target']}: {first['perturbation']}, at {first['distance']:.3g} "
            f"({first['low']:.3g} to {first['high']:.3g}). "
            f"{int((perturbed['difference_high'] < 0).sum())} of {len(perturbed)} perturbations "
            f"are nearer than control cells, at {100 * params['confidence']:g}% "
            "confidence."
        )
    return "\n".join(said)


def summary_of(command: str, adata: AnnData) -> dict[str, Any]:
    """Return the numbers of the summary, such as JSON takes."""
    out: dict[str, Any] = {"n_cells": adata.n_obs, "n_genes": adata.n_vars}
    if command == "plan":
        out |= adata.uns["plan"]["summary"]
    elif command == "diagnose":
        out["level"] = adata.uns["diagnosis"]["level"]
    elif command == "learn":
        out["n_edges"] = adata.uns["dag"]["n_edges"]
    elif command in ("design", "demo"):
        first = candidates_of(adata.uns["design"]["ranking"]).iloc[0]
        out |= {str(name): value for name, value in first.items()}
    key = {"cells": "plan_cells", "demo": "design"}.get(command, command)
    if "advice" in adata.uns.get(key, {}):
        out["advice"] = adata.uns[key]["advice"]["kind"]
    # As JSON holds them: numpy's numbers as plain ones, NaN as null.
    plain: dict[str, Any] = json.loads(pd.Series(out, dtype=object).to_json(double_precision=15))
    return plain


def rows_in_text(
    command: str, adata: AnnData, n: int, truth: NDArray[np.float64] | None = None
) -> str:
    """Return the first rows of the table of results as text, of a ranking also the control's.

    ``truth`` holds the true distances of the candidates, shape ``(n_candidates,)``.
    """
    table = table_of(command, adata)
    if command == "plan" and not table["cost"].any():
        table = table.drop(columns="cost")
    shown, rest = table.head(n), len(table) - n
    if command == "design":
        candidates = candidates_of(table)
        if truth is not None:
            candidates = candidates.assign(true_distance=truth).drop(columns="relative_distance")
        rest = len(candidates) - n
        shown = pd.concat([candidates.head(n), table.tail(1)])[list(candidates)]
    shown = shown[[name for name in _SHOWN.get(command, shown) if name in shown]]
    text, hidden = _in_text(shown)
    more = [f"{n} more {what}" for n, what in ((rest, "rows"), (hidden, "columns")) if n > 0]
    return f"{text}\n{' and '.join(more)}: --table FILE.csv writes all\n" if more else f"{text}\n"


def _in_text(table: pd.DataFrame) -> tuple[str, int]:
    """Return rows as text, and how many columns do not fit: those in the middle are left out.

    Columns without a value are left out as well, probabilities are in percent, and no distance is
    below 0.
    """
    shown = above_0(table)
    shown = shown.loc[:, [(column.notna() & (column != "")).any() for _, column in shown.items()]]
    formats = {str(x): percent for x in shown if str(x).startswith("probability")}
    n_all = shown.shape[1]
    while True:
        text = shown.to_string(
            index=False, max_colwidth=40, float_format="{:.3g}".format, na_rep="",
            formatters=formats,
        )  # fmt: skip
        if shown.shape[1] < 3 or max(map(len, text.splitlines())) <= _WIDTH:
            return text, n_all - shown.shape[1]
        shown = shown.drop(columns=shown.columns[shown.shape[1] // 2])
