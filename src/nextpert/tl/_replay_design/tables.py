"""The tables of a replay, and what they say in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from nextpert._adata import list_names, strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.tl._replay_design.setup import Goal

    Vector = NDArray[np.float64]

LEVEL = 0.05
BASELINE = "random"


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
        gaps = distance[:, c] - distance[:, baseline]
        for i, gap in enumerate(gaps):
            over, last = _paired(gap[:, 1:].mean(axis=1)), _paired(gap[:, -1])
            control = float(targets["control_distance"].iloc[i])
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
    sign = np.where(table["p_adjusted"] < LEVEL, np.sign(table["difference"]), 0)
    words = {-1: "better than random", 0: "no difference seen", 1: "worse than random"}
    table["verdict"] = strings(words[int(s)] for s in sign)
    return table


def overall_table(
    table: pd.DataFrame, comparison: pd.DataFrame, criteria: Sequence[str]
) -> pd.DataFrame:
    """Return one row a reading and criterion: over all targets, each counted once."""
    final, first = (table[table["round"] == t] for t in (table["round"].max(), 0))
    rows = []
    for held_out in dict.fromkeys(table["held_out"]):
        for criterion in criteria:
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
            row |= _against(comparison, held_out, criterion)
            rows.append(row)
    return _frame(rows)


def _against(comparison: pd.DataFrame, held_out: bool, criterion: str) -> dict[str, Any]:
    nothing = {"relative_difference": 0.0, "relative_difference_sem": 0.0}
    if criterion == BASELINE:
        return nothing | {"n_better": 0, "n_worse": 0}
    is_one = (comparison["held_out"] == held_out) & (comparison["criterion"] == criterion)
    gaps = comparison[is_one]
    mean, sem = _over(gaps["relative_difference"], gaps["relative_difference_sem"])
    return {
        "relative_difference": mean,
        "relative_difference_sem": sem,
        "n_better": int((gaps["verdict"] == "better than random").sum()),
        "n_worse": int((gaps["verdict"] == "worse than random").sum()),
    }


def _over(values: pd.Series, alone: pd.Series) -> tuple[float, float]:
    """Return mean and standard error over targets; a single target has that of its repeats."""
    found = values.to_numpy(dtype=np.float64)
    if len(found) == 1:
        return float(found[0]), float(alone.iloc[0])
    return float(found.mean()), float(found.std(ddof=1)) / np.sqrt(len(found))


def in_words(overall: pd.DataFrame, targets: pd.DataFrame, n_rounds: int) -> str:
    """Return two sentences a reading: who beats random, and what a recommendation is worth."""
    return " ".join(
        _reading_in_words(
            overall[overall["held_out"] == held_out].set_index("criterion"),
            targets[targets["held_out"] == held_out],
            n_rounds,
        )
        for held_out in dict.fromkeys(overall["held_out"])
    )


def _reading_in_words(rows: pd.DataFrame, targets: pd.DataFrame, n_rounds: int) -> str:
    n = len(targets)
    where = "held out" if bool(targets["held_out"].iloc[0]) else "in the pool"
    others = rows.drop(index=BASELINE).sort_values("relative_difference")
    gap, sem = others["relative_difference"], others["relative_difference_sem"]
    better, worse = others[gap < -2 * sem], others[gap > 2 * sem]
    same = others.drop(index=[*better.index, *worse.index])
    if not len(others):
        said = ["nothing to compare random with"]
    elif len(better):
        said = [f"nearer than random over all targets: {_shown(better, n)}"]
    else:
        said = ["no criterion is nearer than random over all targets by two standard errors"]
    if len(same):
        said.append(f"not told apart from it: {_shown(same, n)}")
    if len(worse):
        said.append(f"further: {_shown(worse, n)}")
    control = targets["control_distance"]
    start = rows["relative_first"].to_dict()[BASELINE]
    last = zip(rows.index.astype(str), rows["relative_last"], strict=True)
    ends = ", ".join(f"{name} {value:.2f}" for name, value in last)
    best = (targets["best_distance"] / control).mean()
    blind = (targets["pool_distance"] / control).mean()
    nearer = int((targets["best_distance"] < control).sum())
    faint = int((control < 2 * targets["control_sampling"]).sum())
    doubt = (
        f" For {faint} of {n}, the target lies no further from the control cells than twice what "
        f"the sampling of cells puts between equal states."
    )
    return (
        f"Target {where} ({n} target{'s' * (n > 1)}): {'; '.join(said)} (mean over rounds, in "
        f"shares of the control cells' distance, ± one standard error). "
        f"After round {n_rounds} the recommendation stands at {ends}, random after the warm-up "
        f"alone at {start:.2f}; the best candidate at {best:.2f} "
        f"(nearer than doing nothing, 1, for {nearer} of {n}), one picked blindly at {blind:.2f}."
    ) + (doubt if faint else "")


def _shown(part: pd.DataFrame, n_targets: int) -> str:
    said = []
    for name, row in part.iterrows():
        text = f"{name} {row['relative_difference']:+.3f} ± {row['relative_difference_sem']:.3f}"
        counts = [("nearer", row["n_better"]), ("further", row["n_worse"])]
        by_target = " and ".join(f"{word} on {int(k)}" for word, k in counts if k)
        said.append(f"{text} ({by_target} of {n_targets})" if by_target else text)
    return list_names(said, limit=len(said))


def holm(p_values: Vector) -> Vector:
    """Return p-values adjusted by Holm's step-down method, in the order given."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    out = np.empty(len(p_values))
    out[order] = adjusted
    return out


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
