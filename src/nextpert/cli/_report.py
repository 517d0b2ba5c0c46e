"""The ranking in words and as a table of text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from nextpert.cli._simulated import true_distances

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from numpy.typing import NDArray


def describe_ranking(adata: AnnData, hidden: str | None = None) -> list[str]:
    """Return what to try next and what is expected of it, line by line.

    ``hidden`` names the unseen knockout behind the target of a simulated screen.
    """
    from nextpert.tl._design_interventions.tables import candidates_of, farther_in_words

    stored = adata.uns["design"]
    ranking, params = candidates_of(stored["ranking"]), stored["params"]
    best = ranking.iloc[0]
    nearest = ranking.iloc[int(ranking["state_distance"].to_numpy(dtype=float).argmin())]
    graph = adata.uns["dag"]
    n_cells = int(stored["trace"]["n_cells"].iloc[-1])
    goal = f"the mean under a knockout of {hidden} (never seen)" if hidden else params["target"]
    farther = farther_in_words(ranking, "the target")
    lines = [
        *([farther] if farther else []),
        f"Graph: {len(graph['genes'])} genes, {int(graph['n_edges'])} arcs. Target: {goal}.",
        f"Try next: {best['perturbation']} ({n_cells} cells), {_why(ranking, params)}.",
        f"Predicted closest to the target: {nearest['perturbation']}, distance "
        f"{_distance(nearest)}{_of_the_control(nearest)}.",
    ]
    return lines + ([_against_the_truth(ranking, true_distances(adata))] if hidden else [])


def show_ranking(adata: AnnData, n: int, *, truth: bool = False, file: str) -> str:
    """Return the head of the ranking as text; ``file`` is where the rest is."""
    from nextpert.tl._design_interventions.tables import candidates_of, nothing_of

    stored = adata.uns["design"]
    ranking = candidates_of(stored["ranking"])
    lines = [
        format_ranking(
            ranking.head(n),
            stored["params"]["acquisition"],
            true_distances(adata) if truth else None,
            nothing_of(stored["ranking"]),
        )
    ]
    if len(ranking) > n:
        lines += [f"... and {len(ranking) - n} more in {file}"]
    return "\n".join([*lines, "(distance: squared, in units of log-normalised expression)"])


def _why(ranking: pd.DataFrame, params: Any) -> str:
    """Say what speaks for the first of the ranking."""
    from nextpert.tl._design_interventions.tables import is_flat

    name = str(params["acquisition"])
    if name == "greedy":
        return "whose shift is nearest to the estimated optimum (greedy)"
    if name == "random":
        return "drawn at random"
    share = 100 * ranking["uncertainty_removed"].to_numpy(dtype=float)
    if all(math.isnan(x) for x in share):  # it does not look ahead
        best = 100 * float(ranking["probability_best"].iloc[0])
        by = "" if name == "probability" else f" ({name})"
        return f"the nearest with a probability of {best:.0f} %{by}"
    removes = f"expected to remove {share[0]:.2g} % of the uncertainty left ({name})"
    if is_flat(share / 100):
        return f"predicted closest: {removes}, but no candidate differs by 1 %"
    return removes


def _against_the_truth(ranking: pd.DataFrame, truth: NDArray[np.float64]) -> str:
    """Say how the predicted distances compare with the true ones, known of simulated cells."""
    from scipy.stats import spearmanr

    predicted = ranking["predicted_distance"]
    sd = ranking["predicted_distance_sd"]
    closest = int(truth.argmin())
    said = (
        f"In truth closest (the screen is simulated): {ranking['perturbation'].iloc[closest]}, "
        f"distance {truth[closest]:.3g}."
    )
    if len(truth) > 2:
        order = float(spearmanr(predicted, truth).statistic)
        within = int(((predicted - truth).abs() <= 2 * sd).sum())
        said += (
            f" Of {len(truth)} candidates, predicted and true distances have a rank correlation of "
            f"{order:.2f}, and {within} of the true ones lie within two standard deviations."
        )
    return said


def format_ranking(
    ranking: pd.DataFrame,
    criterion: str,
    truth: NDArray[np.float64] | None = None,
    nothing: pd.Series | None = None,
) -> str:
    """Return the ranking as a table of text.

    A criterion that looks ahead is shown as the share of the uncertainty left it would remove;
    that of being the nearest has its column anyway.
    ``truth``, where it is known, holds the true distances, and is shown beside the predicted ones;
    ``nothing``, the row of doing nothing, is the last.
    """
    true = [] if truth is None else [[f"{value:.3g}"] for value in truth]
    shown = criterion != "probability"
    rows = [
        [
            str(row["rank"]),
            str(row["perturbation"]),
            str(row["target_genes"]),
            str(row["shift"]),
            *([_criterion(row)] if shown else []),
            _distance(row),
            *(true[i] if true else []),
            _share(row),
            f"{100 * row['probability_best']:.0f} %",
            str(row["n_cells_seen"]),
        ]
        for i, (_, row) in enumerate(ranking.iterrows())
    ]
    if nothing is not None:
        cells = [_distance(nothing), *([""] if true else []), _share(nothing), "", ""]
        rows += [["", "(nothing)", "", "", *([""] if shown else []), *cells]]
    header = [
        "rank", "perturbation", "targets", "shift",
        *([_heading(ranking, criterion)] if shown else []),
        "predicted distance", *(["true distance"] if true else []),
        "of doing nothing", "best", "cells seen",
    ]  # fmt: skip
    table = [header, *rows]
    widths = [max(len(row[j]) for row in table) for j in range(len(header))]
    left = {1, 2}  # names to the left, numbers to the right
    return "\n".join(
        "  ".join(
            cell.ljust(width) if j in left else cell.rjust(width)
            for j, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    )


def _criterion(row: pd.Series) -> str:
    removed = float(row["uncertainty_removed"])
    return f"{row['acquisition']:.3g}" if math.isnan(removed) else f"{100 * removed:.3g} %"


def _heading(ranking: pd.DataFrame, criterion: str) -> str:
    return criterion if ranking["uncertainty_removed"].isna().all() else "uncertainty removed"


def _distance(row: pd.Series) -> str:
    return f"{row['predicted_distance']:.3g} ± {row['predicted_distance_sd']:.1g}"


def _share(row: pd.Series) -> str:
    share = float(row["relative_distance"])
    return "-" if math.isnan(share) else f"{100 * share:.0f}%"


def _of_the_control(row: pd.Series) -> str:
    """Return the share of the control's distance; nothing where that is 0."""
    return (
        "" if math.isnan(float(row["relative_distance"])) else f", {_share(row)} of the control's"
    )
