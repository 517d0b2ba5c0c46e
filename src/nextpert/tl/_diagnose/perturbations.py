"""The table of perturbations, and the scores of every part, one row per perturbation each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert._adata.effects import CLEAR_SIGN
from nextpert._adata.environments import shift_environments
from nextpert.core.model.scores import pooled_sizes
from nextpert.core.screen.guides import UNKNOWN
from nextpert.tl._diagnose import quantities as q
from nextpert.tl._diagnose.judged import FIRST, MEANS, NO_GRAPH, NOTHING, SHRUNKEN, measured
from nextpert.tl._diagnose.unseen import R_OF, WHOLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextpert.core.model.effects import Effects
    from nextpert.tl._diagnose.model import Refit
    from nextpert.tl._diagnose.unseen import Unseen
    from nextpert.tl._fit_dag_blr.cells import FitCells


def perturbation_table(
    refit: Refit,
    cells: FitCells,
    on_halves: pd.DataFrame,
    unseen: Unseen,
    split_by: list[str],
    effects: Effects,
    factor: float,
) -> pd.DataFrame:
    """Return one row per perturbation: what its cells show, and how well it was predicted.

    Parameters
    ----------
    refit
        The fit that is judged.
    cells
        Its cells.
    on_halves, unseen
        Scores on halves, and predictions without cells with their scores.
    split_by
        How each perturbation is split into halves.
    effects
        Effects as users get them, tables of shape ``(n_perturbations, n_genes)``.
    factor
        Factor by which the null says that standard errors are to be multiplied.
    """
    plan, genes, pooled = refit.spec.plan, np.array(refit.spec.genes), cells.pooled
    from_controls, from_others = pooled_sizes(pooled, factor=factor)
    differs = from_controls.q_value < q.CLEAR
    # The positive control: each perturbation's weakest target gene, by its cells and as users get
    # it; "" and NaN for a perturbation without any.
    change, error = pooled.to_controls()
    z = change / (factor * np.sqrt(np.maximum(pooled.covariance.diagonal() * error, 1e-300)))
    own = measured(refit, cells).own() & (cells.n_cells > 0)[:, None]
    own &= pooled.variance_ratio[1:] < UNKNOWN
    has_target = own.any(axis=1)
    weakest = np.arange(len(own)), np.where(own, np.abs(z), np.inf).argmin(axis=1)
    expected = np.sign(shift_environments(plan, list(genes), cells.control).shifts)
    if isinstance(plan.shift, str) and plan.shift == "knockout":
        expected = np.where(own, -1.0, expected)  # also where control means are not known, or 0
    status = np.where(np.sign(effects.mean) * expected < 0, q.OPPOSITE, q.FOUND)
    status = np.where(effects.lfsr < CLEAR_SIGN, status, q.NOT_FOUND)
    own_numbers = {
        "change": change, "z": z, "mean": effects.mean, "lower": effects.lower,
        "upper": effects.upper, "expected": expected,
    }  # fmt: skip
    predicted = unseen.table
    r = {f"r_{name.replace(' ', '_')}": predicted[f"{R_OF}{name}"] for name in unseen.weights}
    r_mean = r.setdefault("r_mean_perturbation", pd.Series(np.nan, predicted.index))
    r_all, half, others = (
        predicted[f"{R_OF}{WHOLE}"], on_halves["r"].clip(0.0), on_halves["r_others"].clip(0.0)
    )  # fmt: skip
    # Halves of few cells say little of the ceiling; what a predictor reached is possible too.
    ceiling = np.fmax(np.sqrt(2 * others / (1 + others)), np.fmax(r_all, r_mean))
    # What a better predictor could gain: nothing is predicted if a target is not on the panel.
    is_measurable, near = differs & (ceiling >= q.LEAST_CEILING), q.NEAR_CEILING * ceiling
    is_missing = predicted[WHOLE].isna()
    kinds: list[Any] = [is_missing, ~is_measurable, r_mean >= near, r_all >= near]
    words = ["", q.NOT_MEASURABLE, q.BY_MEAN, q.BY_OTHERS]
    return pd.DataFrame(
        {
            "perturbation": strings(refit.names),
            "target_genes": strings(", ".join(targets) for targets in plan.targets),
            "n_cells": cells.n_cells,
            "squared_distance": from_controls.estimate,
            "q_value": from_controls.q_value,
            "is_significant": differs,
            "q_value_from_others": from_others.q_value,
            "is_distinct": differs & (from_others.q_value < q.CLEAR),
            "weakest_target": strings(np.where(has_target, genes[weakest[1]], "")),
            **{
                f"target_gene_{name}": np.where(has_target, each[weakest], np.nan)
                for name, each in own_numbers.items()
            },
            "target_gene_found": strings(np.where(has_target, status[weakest], "")),
            "split_by": strings(np.where(refit.is_sampled, split_by, "")),
            "reliability": 2 * half / (1 + half),
            "error_half": on_halves[SHRUNKEN],
            "error_half_raw_means": on_halves[MEANS],
            "error_half_no_effect": on_halves[NOTHING],
            "error_unseen": predicted[WHOLE],
            "error_unseen_no_effect": predicted[NOTHING],
            "r_all": r_all,
            **r,
            "ceiling_r": ceiling,
            "ceiling": strings(np.select(kinds, words, default=q.ROOM)),
        },
        index=pd.Index(np.arange(len(refit.names))),
    )


def scores_by_part(
    table: pd.DataFrame,
    on_halves: pd.DataFrame,
    unseen: Unseen,
    left_out: Mapping[str, pd.DataFrame | None],
) -> dict[str, pd.DataFrame]:
    """Return the scores that the quantities are computed from, by part.

    From the table of perturbations, and the scores on halves, without cells, and with a guide or
    batch left out (by name, where these were judged).
    """
    own = table[table["target_gene_found"] != ""]
    is_expected = np.sign(own["target_gene_change"]) == own["target_gene_expected"]
    positive = {kind: own["target_gene_found"] == kind for kind in (q.FOUND, q.OPPOSITE)}
    predicted = table[table["ceiling"] != ""]
    is_measurable = predicted["ceiling"] != q.NOT_MEASURABLE
    ceiling = {
        kind: predicted["ceiling"] == kind
        for kind in (q.BY_MEAN, q.BY_OTHERS, q.ROOM, q.NOT_MEASURABLE)
    }
    by_guides = (table["split_by"] == "guides").where(table["split_by"] != "")
    is_distinct = table["is_distinct"].astype(bool)
    own_state = {name: on_halves[name].where(is_distinct) for name in FIRST.values()}
    added = on_halves[SHRUNKEN] - on_halves[NO_GRAPH]
    return {
        q.CELLS: table,
        q.POSITIVE: pd.DataFrame(
            {**positive, "by_cells": (own["target_gene_z"].abs() >= q.SURE) & is_expected}
        ),
        q.SHRINKAGE: on_halves.assign(by_guides=by_guides, **own_state),
        q.UNSEEN: unseen.table,
        q.CEILING: predicted[["ceiling_r", "r_all"]].where(is_measurable).assign(**ceiling),
        q.GRAPH_PART: unseen.table.assign(**{"added": added, MEANS: on_halves[MEANS]}),
        **{part: scores for part, scores in left_out.items() if scores is not None},
    }
