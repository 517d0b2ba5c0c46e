"""What a step found: a table, a verdict in words, the numbers of the summary, and the ranking."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.effects import CLEAR_SIGN
from nextpert.cli._options import STEPS
from nextpert.tl._design_interventions.tables import candidates_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


# What is shown of a ranking; distances are squared, in units of log-normalised expression.
_RANKING = (
    "rank", "perturbation", "shift", "acquisition", "predicted_distance", "predicted_low",
    "predicted_high", "true_distance", "relative_distance", "probability_best", "n_cells_seen",
)  # fmt: skip


def table_of(command: str, adata: AnnData) -> pd.DataFrame:
    """Return the table of a step's results."""
    _, key, part = STEPS[command]
    stored = adata.uns[key]
    if command == "effects":
        return _effects(stored)
    if part in stored:
        return pd.DataFrame(stored[part])
    parents, children = adata.varp[key].nonzero()  # of a graph that was given
    return pd.DataFrame({"parent": adata.var_names[parents], "child": adata.var_names[children]})


def _effects(stored: Any) -> pd.DataFrame:
    """Return one row per perturbation and gene: significant ones first, the largest at the top."""
    columns = ("mean", "sd", "lower", "upper", "lfsr", "direct", "data_weight", "raw_mean")
    names, genes = (np.asarray(stored[x]).astype(str) for x in ("perturbations", "genes"))
    out = pd.DataFrame(
        {"perturbation": np.repeat(names, len(genes)), "gene": np.tile(genes, len(names))}
        | {name: np.asarray(stored[name], float).ravel() for name in columns if name in stored}
    )
    order = np.lexsort((-out["mean"].abs().to_numpy(), ~(out["lfsr"].to_numpy() < CLEAR_SIGN)))
    return out.iloc[order].reset_index(drop=True)


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
        first = table.iloc[0]
        perturbed = table[table["perturbation"].astype(str) != str(params["control"])]
        return (
            f"Nearest to {stored['target']}: {first['perturbation']}, at {first['distance']:.3g} "
            f"({first['low']:.3g} to {first['high']:.3g}). "
            f"{int((perturbed['difference_high'] < 0).sum())} of {len(perturbed)} perturbations "
            f"are nearer than control cells, at {100 * params['confidence']:g}% "
            "confidence."
        )
    return " ".join(said)


def in_lines(adata: AnnData, verdict: str) -> str:
    """Return a verdict with every part of the diagnosis on a line of its own."""
    for words in adata.uns["diagnosis"]["parts"]["verdict"]:
        verdict = verdict.replace(f" {words}", f"\n- {words}")
    return verdict


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
    shown, rest = table.head(n), len(table) - n
    if command == "design":
        candidates = candidates_of(table)
        if truth is not None:
            candidates = candidates.assign(true_distance=truth)
        rest = len(candidates) - n
        columns = [name for name in _RANKING if name in candidates]
        shown = pd.concat([candidates.head(n), table.tail(1)])[columns]
    text = shown.to_string(index=False, max_colwidth=40, float_format="{:.3g}".format, na_rep="")
    more = f"{rest} more rows: --table FILE.csv writes all\n" if rest > 0 else ""
    return f"{text}\n{more}"
