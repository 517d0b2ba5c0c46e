"""What a step found: a table, a verdict in words, the numbers of the summary, and the ranking."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.effects import CLEAR_SIGN
from nextpert.cli._options import STEPS
from nextpert.tl._design_interventions.tables import (
    candidates_of,
    is_flat,
    nothing_of,
)
from nextpert.tl._perturbation_effects.programs import programs_in_words

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from numpy.typing import NDArray


_UNITS = "(distance: squared, in units of log-normalised expression)"


def table_of(command: str, adata: AnnData) -> pd.DataFrame:
    """Return the table of a step's results."""
    key, part = STEPS[command].table
    stored = adata.uns[key]
    if command == "effects":
        return _effects(stored)
    if part not in stored:  # a graph that was given has no table of its edges
        parents, children = adata.varp[key].nonzero()
        edges = {"parent": adata.var_names[parents], "child": adata.var_names[children]}
        return pd.DataFrame(edges)
    return pd.DataFrame(stored[part])


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
        first, params = stored["table"].iloc[0], stored["params"]
        table = stored["table"]
        perturbed = table[table["perturbation"].astype(str) != str(params["control"])]
        return (
            f"Nearest to {stored['target']}: {first['perturbation']}, at {first['distance']:.3g} "
            f"({first['low']:.3g} to {first['high']:.3g}). "
            f"{int((perturbed['difference_high'] < 0).sum())} of {len(perturbed)} perturbations "
            f"are nearer than control cells, at {100 * params['confidence']:g}% "
            "confidence."
        )
    return "\n".join(describe_ranking(adata)) if command == "design" else " ".join(said)


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
        out |= {"advice": adata.uns["plan"]["advice"]["kind"]}
    elif command == "diagnose":
        out["level"] = adata.uns["diagnosis"]["level"]
    elif command == "learn":
        out["n_edges"] = adata.uns["dag"]["n_edges"]
    elif command in ("design", "demo"):
        first = candidates_of(adata.uns["design"]["ranking"]).iloc[0]
        out |= {str(name): value for name, value in first.items()}
    return {name: _plain(value) for name, value in out.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.bool_ | np.integer):
        return value.item()
    return value if isinstance(value, str | int | bool) else str(value)


def describe_ranking(adata: AnnData, goal: str | None = None) -> list[str]:
    """Return what to try next and what is expected of it; ``goal`` is the target in words."""
    stored, graph = adata.uns["design"], adata.uns["dag"]
    ranking, params = candidates_of(stored["ranking"]), stored["params"]
    best = ranking.iloc[0]
    nearest = ranking.iloc[int(ranking["state_distance"].to_numpy(dtype=float).argmin())]
    share = _share(nearest).replace("-", "") and f", {_share(nearest)} of the control's distance"
    return [
        str(stored["advice"]["words"]),
        f"Graph: {len(graph['genes'])} genes, {int(graph['n_edges'])} edges. "
        f"Target: {goal or params['target']}.",
        f"First of the ranking: {best['perturbation']}, {_why(ranking, params)}.",
        f"Predicted closest to the target: {nearest['perturbation']}, distance "
        f"{_distance(nearest)}{share}.",
    ]


def _why(ranking: pd.DataFrame, params: Any) -> str:
    """Return the reason for the first of the ranking."""
    name = str(params["acquisition"])
    if name == "greedy":
        return "whose shift is nearest to the estimated optimum (greedy)"
    if name == "random":
        return "drawn at random"
    share = 100 * ranking["variance_reduction"].to_numpy(dtype=float)
    if all(math.isnan(x) for x in share):  # it does not look ahead
        best = 100 * float(ranking["probability_best"].iloc[0])
        by = "" if name == "probability" else f" ({name})"
        return f"the nearest with a probability of {best:.0f}%{by}"
    removes = f"expected to resolve {share[0]:.2g}% of the remaining uncertainty ({name})"
    if is_flat(share / 100):
        return f"predicted closest: {removes}, but no candidate differs by 1%"
    return removes


def show_table(
    command: str,
    adata: AnnData,
    n: int,
    file: Path | None,
    truth: NDArray[np.float64] | None = None,
) -> str:
    """Return the first rows of the table of results as text; ``file`` has all, if it was written.

    ``truth`` holds the true distances of a ranking, to stand beside the predicted ones.
    """
    table = table_of(command, adata)
    text = table.head(n).to_string(index=False, max_colwidth=40, float_format="{:.3g}".format)
    if command == "design":
        control, table = nothing_of(table), candidates_of(table)
        name = adata.uns["design"]["params"]["acquisition"]
        text = f"\n{format_ranking(table.head(n), name, truth, control)}\n{_UNITS}"
    rest = f" in {file}" if file else ": --table FILE.csv writes all"
    more = f"{len(table) - n} more rows{rest}\n" if len(table) > n else ""
    return f"{text}\n{more}"


def format_ranking(
    ranking: pd.DataFrame,
    acquisition: str,
    truth: NDArray[np.float64] | None = None,
    control: pd.Series | None = None,
) -> str:
    """Return the ranking as a table of text.

    An acquisition that looks ahead is shown as the share of the remaining uncertainty that it would
    resolve; the probability of being the nearest has its column anyway. ``truth`` holds the true
    distances, shape ``(n_rows,)`` or longer; ``control``, the row of the controls, is the last.
    """
    looks_ahead = not ranking["variance_reduction"].isna().all()
    columns: dict[str, list[str]] = {
        "rank": [str(x) for x in ranking["rank"]],
        "perturbation": [str(x) for x in ranking["perturbation"]],
        "targets": [str(x) for x in ranking["target_genes"]],
        "shift": [str(x) for x in ranking["shift"]],
    }
    if acquisition != "probability":
        columns["uncertainty resolved" if looks_ahead else acquisition] = [
            f"{value:.3g}" if math.isnan(removed) else f"{100 * removed:.3g}%"
            for value, removed in zip(
                ranking["acquisition"], ranking["variance_reduction"], strict=True
            )
        ]
    rows = [row for _, row in ranking.iterrows()]
    columns["predicted distance"] = [_distance(row) for row in rows]
    if truth is not None:
        columns["true distance"] = [f"{value:.3g}" for value in truth[: len(rows)]]
    columns["relative to control"] = [_share(row) for row in rows]
    columns["P(nearest)"] = [f"{100 * row['probability_best']:.0f}%" for row in rows]
    columns["cells seen"] = [str(row["n_cells_seen"]) for row in rows]
    if control is not None:
        last = {
            "perturbation": "(control)",
            "predicted distance": _distance(control),
            "relative to control": _share(control),
        }
        for name, column in columns.items():
            column.append(last.get(name, ""))
    widths = {name: max(map(len, [name, *column])) for name, column in columns.items()}
    table = [list(columns), *map(list, zip(*columns.values(), strict=True))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if name in ("perturbation", "targets") else cell.rjust(width)
            for cell, (name, width) in zip(row, widths.items(), strict=True)
        ).rstrip()
        for row in table
    )


def _distance(row: pd.Series) -> str:
    low, high = row["predicted_low"], row["predicted_high"]
    return f"{row['predicted_distance']:.3g} ({low:.2g} to {high:.2g})"


def _share(row: pd.Series) -> str:
    share = float(row["relative_distance"])
    return "-" if math.isnan(share) else f"{100 * share:.0f}%"
