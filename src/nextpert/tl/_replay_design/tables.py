"""The tables of a replay, and their summary in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import t as student

from nextpert._adata import list_names, strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.tl._replay_design.modelled import Replayed

    Vector = NDArray[np.float64]

LEVEL = 0.05
BASELINE = "round_robin_means"
VERDICTS = {-1: "nearer", 0: "no difference seen", 1: "further"}
_HEADS = {
    "nearer": "nearer than", "no difference seen": "not significantly different from",
    "further": "further than",
}  # fmt: skip


def in_words(overall: pd.DataFrame, targets: pd.DataFrame, n_rounds: int) -> str:
    """Return how many plates each strategy needs, and which comes nearer, for each reading."""
    parts = []
    for held_out, rows in overall.groupby("held_out", sort=False):
        some = targets[targets["held_out"] == held_out]
        rows, n = rows.set_index("strategy"), len(some)
        needed = ", ".join(
            f"{name} {row['plates']:.1f} (good at the end in {row['share_good_last']:.0%})"
            for name, row in rows.sort_values("plates").iterrows()
        )
        others, words = rows.drop(index=BASELINE).sort_values("relative_difference"), []
        for verdict, head in _HEADS.items():
            each = [
                f"{name} {row['relative_difference']:+.3f} ± {row['relative_difference_sem']:.3f}"
                for name, row in others[others["verdict"] == verdict].iterrows()
            ]
            if each:
                words.append(f"{head} {BASELINE}: {list_names(each, limit=len(each))}")
        share = some[["best_distance", "pool_distance"]].div(some["control_distance"], axis=0)
        best, blind = share.mean()
        ends = ", ".join(f"{name} {last:.2f}" for name, last in rows["relative_last"].items())
        parts.append(
            f"Target {'held out' if held_out else 'in the pool'} ({n} target{'s' * (n > 1)}): "
            f"plates until the recommendation is as good as the best and stays so ({n_rounds + 1} "
            f"stands for never): {needed}. Distance over all plates relative to the control's, ± "
            f"one standard error, p-values by Holm: {'; '.join(words) or 'nothing to compare'}. "
            f"Distance of the recommendation after plate {n_rounds}: {ends}; of the best candidate "
            f"{best:.2f}, of the control 1, of a random candidate {blind:.2f}."
        )
    return " ".join(parts)


def targets_table(
    goals: Sequence[Replayed], readings: Sequence[bool], names: Sequence[str]
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Return one row per target and reading, and which perturbations are as good as the best.

    The latter of shape ``(n_targets * n_readings, n_perturbations)``.
    """
    rows, good = [], []
    for goal in goals:
        truth = goal.truth
        for held_out, may in zip(readings, goal.candidates, strict=True):
            best = may[int(np.argmin(truth.distance[may]))]
            good.append(np.zeros(len(names), bool))
            good[-1][may] = truth.as_good(may)
            rows.append(
                {
                    "target": goal.name,
                    "held_out": held_out,
                    "n_candidates": len(may),
                    "best": names[best],
                    "best_distance": truth.distance[best],
                    "control_distance": truth.control,
                    "pool_distance": truth.distance[may].mean(),
                }
            )
    table = pd.DataFrame(rows, index=pd.Index(np.arange(len(rows))))
    return table.assign(**{name: strings(table[name]) for name in ("target", "best")}), np.array(
        good
    )


def rounds_table(
    distance: Vector,
    is_good: NDArray[np.bool_],
    targets: pd.DataFrame,
    strategies: Sequence[str],
    n_cells: int,
) -> pd.DataFrame:
    """Return one row per target, reading, strategy and round.

    ``distance`` and ``is_good`` have shape ``(n_targets * n_readings, n_strategies, n_repeats,
    n_rounds + 1)``; ``n_cells`` are those of a plate.
    """
    mean, sem = distance.mean(axis=2), distance.std(axis=2, ddof=1) / np.sqrt(distance.shape[2])
    which, strategy, number = (x.ravel() for x in np.indices(mean.shape))
    return pd.DataFrame(
        {
            "target": targets["target"].to_numpy()[which],
            "held_out": targets["held_out"].to_numpy()[which],
            "strategy": strings(np.asarray(strategies)[strategy]),
            "round": number,
            "n_cells": number * n_cells,
            "mean": mean.ravel(),
            "sem": sem.ravel(),
            "share_good": is_good.mean(axis=2).ravel(),
        },
        index=pd.Index(np.arange(mean.size)),
    )


def plates_until_good(is_good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the plates after which recommendations stay good; one more than all if never."""
    stays = np.logical_and.accumulate(is_good[..., ::-1], axis=-1)
    return np.asarray(is_good.shape[-1] - stays.sum(axis=-1), np.int64)


def overall_table(
    distance: Vector, is_good: NDArray[np.bool_], targets: pd.DataFrame, strategies: Sequence[str]
) -> pd.DataFrame:
    """Return one row per reading and strategy: the mean over all targets, each counted once.

    Standard errors and paired t tests are over repeats; p-values are adjusted over the strategies
    of a reading, distance and plates together, by Holm's method.
    ``distance`` and ``is_good`` have shape ``(n_targets * n_readings, n_strategies, n_repeats,
    n_rounds + 1)``.
    """
    baseline, readings = list(strategies).index(BASELINE), targets["held_out"].unique()
    control = targets["control_distance"].to_numpy()[:, None, None, None]
    # (n_targets, n_readings, n_strategies, n_repeats, n_rounds + 1)
    shape = (-1, len(readings), *distance.shape[1:])
    relative, good = (distance / control).reshape(shape).mean(axis=0), is_good.reshape(shape)
    plates = plates_until_good(good).mean(axis=0)
    nearer, nearer_sem, p_value = _paired(
        (relative - relative[:, [baseline]])[..., 1:].mean(axis=-1)
    )
    sooner, sooner_sem, p_plates = _paired(plates - plates[:, [baseline]])
    p_value[:, baseline] = p_plates[:, baseline] = np.nan  # no comparison
    adjusted = np.array([holm(p.ravel()) for p in np.stack([p_value, p_plates], axis=-1)])
    p_adjusted, p_plates_adjusted = adjusted.reshape(-1, 2).T
    sign = np.where(p_adjusted < LEVEL, np.sign(nearer).ravel(), 0)
    reading, strategy = (x.ravel() for x in np.indices(nearer.shape))
    columns = {
        "plates": plates.mean(axis=-1),
        "plates_sem": _paired(plates)[1],
        "share_good_last": good[..., -1].mean(axis=(0, 3)),
        "relative_last": relative[..., -1].mean(axis=-1),
        "relative_difference": nearer,
        "relative_difference_sem": nearer_sem,
        "plates_difference": sooner,
        "plates_difference_sem": sooner_sem,
        "p_adjusted": p_adjusted,
        "p_plates_adjusted": p_plates_adjusted,
    }
    return pd.DataFrame(
        {
            "held_out": readings[reading],
            "strategy": strings(np.asarray(strategies)[strategy]),
            **{name: values.ravel() for name, values in columns.items()},
            "verdict": strings(VERDICTS[int(s)] for s in sign),
        },
        index=pd.Index(np.arange(len(reading))),
    )


def holm(p_values: Vector) -> Vector:
    """Return p-values adjusted by Holm's step-down method, in the order given; NaN are none."""
    out = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    out[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return out


def _paired(gap: Vector) -> tuple[Vector, Vector, Vector]:
    """Return mean, standard error and two-sided p-value of differences, over the last axis."""
    mean, n = gap.mean(axis=-1), gap.shape[-1]
    sem = gap.std(axis=-1, ddof=1) / np.sqrt(n)
    # Equal campaigns end up equal but for rounding.
    equal = sem <= 1e-12 * np.maximum(np.abs(mean), np.abs(gap).max(axis=-1, initial=0.0))
    p_value = 2 * student.sf(np.abs(mean) / np.where(equal, 1.0, sem), n - 1)
    return mean, sem, np.where(equal, (mean == 0).astype(np.float64), p_value)
