"""The table of a diagnosis with one row a perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert.core.effects.scores import pooled_sizes
from nextpert.tl._diagnose.judged import ALONE, MEANS, NO_GRAPH, NOTHING, SHRUNKEN
from nextpert.tl._diagnose.quantities import CLEAR

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.tl._diagnose.judged import OnHalves, Scored
    from nextpert.tl._diagnose.model import Refit
    from nextpert.tl._diagnose.unseen import Unseen
    from nextpert.tl._fit_dag_blr.cells import FitCells

    Array = NDArray[np.float64]


def perturbation_table(
    refit: Refit, cells: FitCells, halves: OnHalves, unseen: Unseen, by_guides: NDArray[np.bool_]
) -> pd.DataFrame:
    """Return one row a perturbation: what its cells show, and how well that was predicted.

    ``by_guides`` says which are split into halves by guide.
    """
    from_controls, from_others = pooled_sizes(cells.pooled)
    clear = from_controls.q_value < CLEAR
    weakest, change, z = own_changes(refit, cells)
    r = np.maximum(halves.r, 0.0)
    errors = {
        "error_half": halves.scored.errors[SHRUNKEN],
        "error_half_cells": halves.scored.errors[MEANS],
        "error_half_no_graph": halves.scored.errors[NO_GRAPH],
        "error_half_alone": halves.scored.errors[ALONE],
        "error_half_nothing": halves.scored.errors[NOTHING],
    }
    named = dict(zip(("all", *unseen.weights), unseen.r, strict=True))
    return pd.DataFrame(
        {
            "perturbation": strings(refit.names),
            "target_genes": strings(", ".join(genes) for genes in refit.spec.plan.targets),
            "n_cells": cells.n_cells,
            "squared_distance": from_controls.estimate,
            "q_value": from_controls.q_value,
            "is_clear": clear,
            "q_value_from_others": from_others.q_value,
            "is_distinct": clear & (from_others.q_value < CLEAR),
            "weakest_target": strings(weakest),
            "own_change": change,
            "own_z": z,
            "split_by": strings("guides" if guides else "cells" for guides in by_guides),
            "reliability": 2 * r / (1 + r),
            **errors,
            "coverage_half": halves.scored.coverage,
            "coverage_half_clear": halves.scored.coverage_large,
            "error_unseen": unseen.whole,
            "error_unseen_nothing": unseen.nothing,
            **{f"r_{name.replace(' ', '_')}": each for name, each in named.items()},
            "coverage_unseen": unseen.coverage,
            "coverage_unseen_clear": unseen.coverage_large,
        },
        index=pd.Index(np.arange(len(refit.names))),
    )


def with_left_out(table: pd.DataFrame, name: str, found: Scored) -> None:
    """Add what was found with a guide or batch left out."""
    table[f"error_{name}"] = found.errors[SHRUNKEN]
    table[f"error_{name}_nothing"] = found.errors[NOTHING]
    table[f"coverage_{name}"] = found.coverage
    table[f"coverage_{name}_clear"] = found.coverage_large


def own_changes(refit: Refit, cells: FitCells) -> tuple[list[str], Array, Array]:
    """Return of each perturbation its weakest own gene, that one's change, and its z-score.

    ``""`` and NaN for a perturbation without any.
    """
    place = {gene: i for i, gene in enumerate(refit.spec.genes)}
    pooled = cells.pooled
    noise = pooled.scatter.diagonal() / max(int(pooled.n_cells.sum()) - len(pooled.n), 1)
    batches, names = pooled.fixed_error(), []
    found = np.full((2, len(refit.names)), np.nan)
    for j, genes in enumerate(refit.spec.plan.targets):
        index = [place[gene] for gene in genes]
        if not index or not pooled.n_cells[1 + j]:
            names.append("")
            continue
        change = pooled.mean[1 + j, index] - pooled.mean[0, index]
        spread = 1 / pooled.counted[1 + j, index] + 1 / pooled.counted[0, index] + batches[1 + j]
        error = noise[index] * spread
        z = change / np.sqrt(np.maximum(error, 1e-300))
        k = int(np.argmin(np.abs(z)))
        names.append(genes[k])
        found[:, j] = change[k], z[k]
    return names, found[0], found[1]
