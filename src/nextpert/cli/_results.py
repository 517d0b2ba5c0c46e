"""What a step found: a table, a verdict in words, the numbers of the summary, and the ranking."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.effects import CLEAR_SIGN
from nextpert.cli._options import STEPS
from nextpert.tl._design_interventions.tables import candidates_of, nothing_of
from nextpert.tl._perturbation_effects.programs import programs_in_words

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


_UNITS = "(distance: squared, in units of log-normalised expression)"


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
        shared = f" {programs_in_words(stored)}" if "programs" in stored else ""
        return (
            f"{int(clear.sum())} of {lfsr.size} effects are significant (local false sign rate "
            f"below {CLEAR_SIGN}); {int(clear.any(axis=1).sum())} of {len(lfsr)} perturbations "
            f"have such an effect.{shared}"
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
    # As JSON holds them: numpy's numbers as plain ones, NaN as null.
    plain: dict[str, Any] = json.loads(pd.Series(out, dtype=object).to_json(double_precision=15))
    return plain


def rows_in_text(command: str, adata: AnnData, n: int) -> str:
    """Return the first rows of the table of results as text."""
    if command == "design":
        return ranking_in_text(adata, n)
    table = table_of(command, adata)
    text = table.head(n).to_string(index=False, max_colwidth=40, float_format="{:.3g}".format)
    more = f"{len(table) - n} more rows: --table FILE.csv writes all\n" if len(table) > n else ""
    return f"{text}\n{more}"


def ranking_in_text(adata: AnnData, n: int, truth: NDArray[np.float64] | None = None) -> str:
    """Return the first rows of the ranking, and the control's, as text.

    An acquisition that looks ahead is shown as the share of the remaining uncertainty that it would
    resolve; the probability of being the nearest has its column anyway. ``truth`` holds the true
    distances of the candidates, shape ``(n_candidates,)``.
    """
    design = adata.uns["design"]
    candidates, control = candidates_of(design["ranking"]), nothing_of(design["ranking"])
    shown = candidates.head(n)
    name, removed = design["params"]["acquisition"], shown["variance_reduction"]
    columns: dict[str, Any] = {
        "rank": shown["rank"],
        "perturbation": shown["perturbation"],
        "targets": shown["target_genes"],
        "shift": shown["shift"],
    }
    if not removed.isna().all():
        columns["uncertainty resolved"] = [f"{100 * x:.3g}%" for x in removed]
    elif name != "probability":
        columns[name] = [f"{x:.3g}" for x in shown["acquisition"]]
    columns["predicted distance"] = [_distance(row) for _, row in shown.iterrows()]
    if truth is not None:
        columns["true distance"] = [f"{x:.3g}" for x in truth[: len(shown)]]
    columns["relative to control"] = [_share(row) for _, row in shown.iterrows()]
    columns["P(nearest)"] = [f"{100 * x:.0f}%" for x in shown["probability_best"]]
    columns["cells seen"] = shown["n_cells_seen"]
    table = pd.DataFrame(columns).astype(str)
    table.loc[len(table)] = dict.fromkeys(table, "") | {
        "perturbation": "(control)",
        "predicted distance": _distance(control),
        "relative to control": _share(control),
    }
    rest = len(candidates) - len(shown)
    more = f"{rest} more rows: --table FILE.csv writes all\n" if rest else ""
    return f"\n{table.to_string(index=False)}\n{_UNITS}\n{more}"


def _distance(row: pd.Series) -> str:
    low, high = row["predicted_low"], row["predicted_high"]
    return f"{row['predicted_distance']:.3g} ({low:.2g} to {high:.2g})"


def _share(row: pd.Series) -> str:
    share = float(row["relative_distance"])
    return "-" if math.isnan(share) else f"{100 * share:.0f}%"
