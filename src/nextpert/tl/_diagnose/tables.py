"""The tables of a diagnosis: perturbations, and the coverage of intervals by level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert.tl._diagnose import held_out as scores
from nextpert.tl._diagnose.verdict import mean_and_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata.shifts import Interventions
    from nextpert.tl._diagnose.held_out import HeldOut

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def perturbation_table(
    held_out: HeldOut, used: Interventions, genes: Sequence[str], n_cells: Sequence[int]
) -> pd.DataFrame:
    """Return one row a perturbation: its strength, and how well it was predicted."""
    weakest, change, z = scores.own_strength(held_out)
    scored = pd.DataFrame([_scores(held_out, k) for k in range(len(n_cells))])
    table = pd.DataFrame(
        {
            "perturbation": strings(used.names),
            "target_genes": strings(", ".join(targets) for targets in used.targets),
            "n_cells": np.array(n_cells, dtype=np.int64),
            "weakest_target": strings(genes[i] if i >= 0 else "" for i in weakest),
            "own_change": change,
            "own_z": z,
            "is_strong": np.abs(z) >= scores.CLEAR,
        },
        index=pd.Index(np.arange(len(n_cells))),
    )
    for name in scored.columns:
        table[name] = scored[name].to_numpy()
    for name, predicted in (("", held_out.predicted), ("_empty", held_out.empty)):
        table[f"distance_rank{name}"] = scores.distance_ranks(predicted, held_out.observed)
    return table


def _scores(held_out: HeldOut, k: int) -> dict[str, Any]:
    others = ~held_out.is_target[k]
    observed, error = held_out.observed[k, others], held_out.error[k, others]
    effect, predicted = held_out.effect[k, others], held_out.predicted[k, others]
    mean_change = held_out.mean_change[k, others]
    by_coexpression = held_out.coexpression[k, others]
    right, n_changed = scores.sign_accuracy(effect, observed, error)
    on_nothing, on_nothing_se = scores.gain(np.zeros_like(observed), predicted, observed)
    on_mean, on_mean_se = scores.gain(mean_change, predicted, observed)
    inside = np.abs(held_out.rank[k, others] - 0.5)

    def mean(values: NDArray[np.float64] | NDArray[np.bool_]) -> float:
        return float(values.mean()) if len(values) else float("nan")

    return {
        "r": scores.correlation(effect, observed),
        "r_with_target": scores.correlation(held_out.effect[k], held_out.observed[k]),
        "r_coexpression": scores.correlation(by_coexpression, observed),
        "sign_accuracy": right,
        "n_changed": n_changed,
        "error": mean((predicted - observed) ** 2),
        "error_nothing": mean(observed**2),
        "error_mean": mean((mean_change - observed) ** 2),
        "error_empty": mean((held_out.empty[k, others] - observed) ** 2),
        "error_coexpression": mean((by_coexpression - observed) ** 2),
        "error_noise": mean(error**2),
        "gain_on_nothing": on_nothing,
        "gain_on_nothing_se": on_nothing_se,
        "gain_on_mean": on_mean,
        "gain_on_mean_se": on_mean_se,
        "coverage_50": mean(inside <= 0.25),
        "coverage_90": mean(inside <= 0.45),
    }


def calibration_table(held_out: HeldOut, judged: NDArray[np.bool_]) -> pd.DataFrame:
    """Return, by level, the share of held-out means of the judged inside their intervals."""
    rank = np.where(held_out.is_target, np.nan, held_out.rank)[judged]
    known = np.isfinite(rank)
    rows = []
    for level in LEVELS:
        inside = (np.abs(rank - 0.5) <= level / 2).sum(axis=1)
        n = known.sum(axis=1)
        share = np.divide(inside, n, out=np.full(len(n), np.nan), where=n > 0)
        rows.append(mean_and_error(share)[:2])
    coverage, error = np.array(rows).T
    return pd.DataFrame(
        {"level": np.array(LEVELS), "coverage": coverage, "standard_error": error},
        index=pd.Index(np.arange(len(LEVELS))),
    )
