"""The tables of a replay, and what they say in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from nextpert._adata import strings
from nextpert.core.loop.replay import NO_MODEL
from nextpert.tl._replay_design.run import EMPTY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.tl._replay_design.setup import Goal

    Vector = NDArray[np.float64]

LEVEL = 0.05
BASELINE = "random"
VERDICTS = {-1: "better than random", 0: "no difference seen", 1: "worse than random"}


def targets_table(
    goals: Sequence[Goal],
    readings: Sequence[bool],
    pools: Sequence[Sequence[Any]],
    names: Sequence[str],
) -> pd.DataFrame:
    """Return one row a target and reading: the best candidate, and what trying nothing gives."""
    rows = []
    for goal, own in zip(goals, pools, strict=True):
        for held_out, may in zip(readings, own, strict=True):
            best = may[int(np.argmin(goal.apart[may]))]
            rows.append(
                {
                    "target": goal.name,
                    "held_out": held_out,
                    "n_candidates": len(may),
                    "best": names[best],
                    "best_distance": goal.apart[best],
                    "control_distance": goal.control,
                    "control_sampling": goal.control_sampling,
                    "pool_distance": goal.apart[may].mean(),
                }
            )
    return _frame(rows)


def candidates_table(goals: Sequence[Goal], names: Sequence[str]) -> pd.DataFrame:
    """Return one row a target and candidate: its true distance, and sampling's part of it."""
    rows = [
        {
            "target": goal.name,
            "perturbation": name,
            "is_own": j in goal.own,
            "distance": goal.apart[j],
            "sampling": goal.sampling[j],
        }
        for goal in goals
        for j, name in enumerate(names)
    ]
    return _frame(rows)


def rounds_table(
    distance: Vector, targets: pd.DataFrame, criteria: Sequence[str], n_cells: int
) -> pd.DataFrame:
    """Return one row a target, reading, criterion and round.

    ``distance`` has shape ``(n_targets * n_readings, n_criteria, n_repeats, n_rounds + 1)``.
    """
    n_repeats = distance.shape[2]
    mean, sem = distance.mean(axis=2), distance.std(axis=2, ddof=1) / np.sqrt(n_repeats)
    control = targets["control_distance"].to_numpy()[:, None, None]
    best = targets["best_distance"].to_numpy()[:, None, None, None]
    is_best = (distance <= best * (1 + 1e-12)).mean(axis=2)
    heads = targets[["target", "held_out"]]
    shape = mean.shape
    which, criterion, number = (x.ravel() for x in np.indices(shape))
    return pd.DataFrame(
        {
            "target": heads["target"].to_numpy()[which],
            "held_out": heads["held_out"].to_numpy()[which],
            "criterion": strings(np.asarray(criteria)[criterion]),
            "round": number,
            "n_cells": number * n_cells,
            "mean": mean.ravel(),
            "sem": sem.ravel(),
            "relative_mean": (mean / control).ravel(),
            "relative_sem": (sem / control).ravel(),
            "share_best": is_best.ravel(),
        },
        index=pd.Index(np.arange(mean.size)),
    )


def comparison_table(
    distance: Vector, targets: pd.DataFrame, criteria: Sequence[str]
) -> pd.DataFrame:
    """Return one row a target, reading and criterion: the paired difference to random.

    The difference is averaged over the rounds from the first on; below 0 is nearer than random.
    P-values of the paired t test are adjusted over the targets of one criterion and reading by
    Holm's method.
    """
    baseline = list(criteria).index(BASELINE)
    rows = []
    for c, criterion in enumerate(criteria):
        if c == baseline:
            continue
        for i, (ours, random) in enumerate(zip(distance[:, c], distance[:, baseline], strict=True)):
            control = float(targets["control_distance"].iloc[i])
            gap = _gap(ours, random, control)
            over, last = _paired(gap[:, 1:].mean(axis=1)), _paired(gap[:, -1])
            rows.append(
                {
                    "target": targets["target"].iloc[i],
                    "held_out": bool(targets["held_out"].iloc[i]),
                    "criterion": criterion,
                    "difference": over[0],
                    "difference_sem": over[1],
                    "relative_difference": over[0] / control,
                    "relative_difference_sem": over[1] / control,
                    "last_difference": last[0],
                    "last_difference_sem": last[1],
                    "p_value": over[2],
                }
            )
    table = _frame(rows)
    if table.empty:
        return table
    by_family = table.groupby(["held_out", "criterion"], sort=False)["p_value"]
    adjusted = by_family.transform(lambda p: holm(p.to_numpy()))
    table["p_adjusted"] = adjusted.to_numpy(dtype=np.float64)
    table["verdict"] = _verdicts(table["difference"], table["p_adjusted"])
    return table


def _verdicts(difference: pd.Series, p_adjusted: pd.Series) -> Any:
    sign = np.where(p_adjusted < LEVEL, np.sign(difference), 0)
    return strings(VERDICTS[int(s)] for s in sign)


def overall_table(
    table: pd.DataFrame,
    comparison: pd.DataFrame,
    distance: Vector,
    targets: pd.DataFrame,
    criteria: Sequence[str],
) -> pd.DataFrame:
    """Return one row a reading and criterion: over all targets, each counted once.

    P-values are adjusted over the criteria of a reading by Holm's method.
    """
    final, first = (table[table["round"] == t] for t in (table["round"].max(), 0))
    rows = []
    for held_out in dict.fromkeys(table["held_out"]):
        here = targets["held_out"].to_numpy() == held_out
        control = targets["control_distance"].to_numpy()[here, None, None]
        # Mean over the rounds from the first on, shape (n_targets, n_criteria, n_repeats).
        relative = distance[here][..., 1:].mean(axis=3) / control
        for c, criterion in enumerate(criteria):
            last, start = (
                part[(part["held_out"] == held_out) & (part["criterion"] == criterion)]
                for part in (final, first)
            )
            row = {"held_out": held_out, "criterion": criterion, "n_targets": len(last)}
            row["relative_first"] = start["relative_mean"].mean()
            row["relative_last"], row["relative_last_sem"] = _over(
                last["relative_mean"], last["relative_sem"]
            )
            row["share_best_last"] = last["share_best"].mean()
            for names, baseline in ((_TO_RANDOM, BASELINE), (_TO_EMPTY, EMPTY)):
                against = relative[:, list(criteria).index(baseline)]
                row |= dict(zip(names, _over_targets(_gap(relative[:, c], against)), strict=True))
                if criterion == BASELINE == baseline:
                    row["p_value"] = np.nan  # no comparison
            if criterion in (EMPTY, NO_MODEL):  # they have no graph
                row |= dict.fromkeys(_TO_EMPTY, np.nan)
            rows.append(row | _counts(comparison, held_out, criterion))
    frame = _frame(rows)
    for (_, _, p_value), to in ((_TO_RANDOM, "p_adjusted"), (_TO_EMPTY, "p_to_empty_adjusted")):
        by_reading = frame.groupby("held_out", sort=False)[p_value]
        frame[to] = by_reading.transform(lambda p: holm(p.to_numpy())).to_numpy(dtype=np.float64)
    frame["verdict"] = _verdicts(frame["relative_difference"], frame["p_adjusted"])
    return frame


_TO_RANDOM = ("relative_difference", "relative_difference_sem", "p_value")
_TO_EMPTY = ("difference_to_empty", "difference_to_empty_sem", "p_to_empty")


def _over_targets(gap: Vector) -> tuple[float, float, float]:
    """Return mean, standard error and p-value over targets; of a single one, over repeats."""
    found = gap[0] if len(gap) == 1 else gap.mean(axis=1)
    return _paired(found)


def _counts(comparison: pd.DataFrame, held_out: bool, criterion: str) -> dict[str, int]:
    if comparison.empty:
        return {"n_better": 0, "n_worse": 0}
    is_one = (comparison["held_out"] == held_out) & (comparison["criterion"] == criterion)
    found = comparison.loc[is_one, "verdict"]
    return {
        "n_better": int((found == VERDICTS[-1]).sum()),
        "n_worse": int((found == VERDICTS[1]).sum()),
    }


def _over(values: pd.Series, alone: pd.Series) -> tuple[float, float]:
    """Return mean and standard error over targets; a single target has that of its repeats."""
    found = values.to_numpy(dtype=np.float64)
    if len(found) == 1:
        return float(found[0]), float(alone.iloc[0])
    return float(found.mean()), float(found.std(ddof=1)) / np.sqrt(len(found))


def holm(p_values: Vector) -> Vector:
    """Return p-values adjusted by Holm's step-down method, in the order given; NaN are none."""
    out = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    out[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return out


def _gap(ours: Vector, others: Vector, scale: float = 1.0) -> Vector:
    """Return the difference; one of rounding alone, beside the scale, is none."""
    gap = ours - others
    return np.where(np.abs(gap) < 1e-12 * scale, 0.0, gap)


def _paired(gap: Vector) -> tuple[float, float, float]:
    """Return mean, standard error and two-sided p-value of differences, one a repeat."""
    mean, n = float(gap.mean()), len(gap)
    sem = float(gap.std(ddof=1)) / np.sqrt(n)
    # Equal campaigns end up equal but for rounding.
    if sem <= 1e-12 * max(abs(mean), float(np.abs(gap).max(initial=0.0))):
        return mean, sem, float(mean == 0)
    return mean, sem, float(2 * student.sf(abs(mean) / sem, n - 1))


def _frame(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a table that files give back unchanged."""
    names = list(rows[0]) if rows else []
    columns = {}
    for name in names:
        values = [row[name] for row in rows]
        columns[name] = strings(values) if isinstance(values[0], str) else np.array(values)
    return pd.DataFrame(columns, index=pd.Index(np.arange(len(rows))))
