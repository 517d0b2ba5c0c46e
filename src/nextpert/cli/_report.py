"""What the command prints: progress to standard error, results to standard output."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    import pandas as pd
    from anndata import AnnData


def say(text: str) -> None:
    """Print a line of progress, a warning or an error."""
    sys.stderr.write(f"nextpert: {text}\n")
    sys.stderr.flush()


def print_report(
    adata: AnnData, options: argparse.Namespace, written: list[str], hidden: str | None
) -> None:
    """Print what to try next and the head of the ranking."""
    stored = adata.uns["design"]
    ranking, params = stored["ranking"], stored["params"]
    best = ranking.iloc[0]
    nearest = ranking.loc[ranking["predicted_distance"].idxmin()]
    graph = adata.uns["dag"]
    n_cells = int(stored["trace"]["n_cells"].iloc[-1])
    goal = f"the mean under a knockout of {hidden} (never seen)" if hidden else params["target"]
    lines = [
        f"Graph: {len(graph['genes'])} genes, {int(graph['n_edges'])} arcs. Target: {goal}.",
        f"Try next: {best['perturbation']} ({n_cells} cells), {_why(ranking, params)}.",
        f"Predicted closest to the target: {nearest['perturbation']}, distance "
        f"{_distance(nearest)}, {_share(nearest)} of that of control cells.",
        "",
    ]
    if options.show:
        lines += [format_ranking(ranking.head(options.show), params["acquisition"])]
        if len(ranking) > options.show:
            lines += [f"... and {len(ranking) - options.show} more in ranking.csv"]
        lines += ["(distance: squared, in units of log-normalised expression)", ""]
    lines += [f"Written to {options.out}: {', '.join(written)}"]
    sys.stdout.write("\n".join(lines) + "\n")


def _why(ranking: pd.DataFrame, params: Any) -> str:
    """Say what speaks for the first of the ranking."""
    name = str(params["acquisition"])
    if name == "greedy":
        return "whose shift is nearest to the estimated optimum (greedy)"
    if name == "random":
        return "drawn at random"
    share = 100 * ranking["uncertainty_removed"].to_numpy(dtype=float)
    removes = f"expected to remove {share[0]:.2g} % of the uncertainty left ({name})"
    if len(share) > 1 and share.max() - share.min() < 1:
        return f"{removes}, but no candidate differs by 1 %: go by the predicted distance"
    return removes


def format_ranking(ranking: pd.DataFrame, criterion: str) -> str:
    """Return the ranking as a table of text.

    A criterion that looks ahead is shown as the share of the uncertainty left it would remove.
    """
    rows = [
        [
            str(row["rank"]),
            str(row["perturbation"]),
            str(row["target_genes"]),
            str(row["shift"]),
            _criterion(row),
            _distance(row),
            _share(row),
            str(row["n_cells_seen"]),
        ]
        for _, row in ranking.iterrows()
    ]
    header = [
        "rank", "perturbation", "targets", "shift", _heading(ranking, criterion),
        "predicted distance",
        "of control's", "cells seen",
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
    return f"{100 * row['relative_distance']:.0f} %"
