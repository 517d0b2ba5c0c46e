"""The tables of a replay, and what they say in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from nextpert._adata import list_names, strings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.evaluate.cell_pool import CellPool
    from nextpert.tl._replay_design.modelled import Task
    from nextpert.tl._replay_design.setup import Goal

    Vector = NDArray[np.float64]


def in_words(overall: pd.DataFrame, targets: pd.DataFrame, n_rounds: int) -> str:
    """Say of each reading how many plates each criterion needs, and who comes nearer."""
    return " ".join(
        _reading_in_words(
            overall[overall["held_out"] == held_out].set_index("criterion"),
            targets[targets["held_out"] == held_out],
            n_rounds,
        )
        for held_out in dict.fromkeys(overall["held_out"])
    )


def specs_in_words(specs: Mapping[str, str]) -> str:
    """Say how much the model of each criterion holds; nothing where none has a model."""
    by_spec: dict[str, list[str]] = {}
    for name, spec in specs.items():
        if spec:
            by_spec.setdefault(spec, []).append(name)
    said = [f"{spec} ({list_names(names, limit=len(names))})" for spec, names in by_spec.items()]
    return f" Spec of the models: {', '.join(said)}." if said else ""


def _reading_in_words(rows: pd.DataFrame, targets: pd.DataFrame, n_rounds: int) -> str:
    n = len(targets)
    where = "held out" if bool(targets["held_out"].iloc[0]) else "in the pool"
    needed = ", ".join(
        f"{name} {row['plates']:.1f} (good at the end in {row['share_good_last']:.0%})"
        for name, row in rows.sort_values("plates").iterrows()
    )
    others = rows.drop(index=BASELINE).sort_values("relative_difference")
    said = []
    for sign, head in ((-1, "nearer than"), (0, "not told apart from"), (1, "further than")):
        part = others[others["verdict"] == VERDICTS[sign]]
        if len(part):
            said.append(f"{head} {BASELINE}: {_shown(part)}")
    control = targets["control_distance"]
    ends = ", ".join(f"{name} {row['relative_last']:.2f}" for name, row in rows.iterrows())
    best = (targets["best_distance"] / control).mean()
    blind = (targets["pool_distance"] / control).mean()
    return (
        f"Target {where} ({n} target{'s' * (n > 1)}): plates until the recommendation is as good "
        f"as the best and stays so, {n_rounds + 1} standing for never: {needed}. "
        f"Distance over all plates, in shares of the control cells', ± one standard error, "
        f"p-values by Holm: {'; '.join(said) or 'nothing to compare'}. After plate {n_rounds} the "
        f"recommendation stands at {ends}; the best candidate at {best:.2f}, doing nothing at 1, "
        f"one picked blindly at {blind:.2f}."
    )


def _shown(part: pd.DataFrame) -> str:
    said = [
        f"{name} {row['relative_difference']:+.3f} ± {row['relative_difference_sem']:.3f}"
        for name, row in part.iterrows()
    ]
    return list_names(said, limit=len(said))


LEVEL = 0.05
BASELINE = "means_in_turn"
VERDICTS = {-1: "nearer", 0: "no difference seen", 1: "further"}


def targets_table(
    goals: Sequence[Goal],
    readings: Sequence[bool],
    tasks: Sequence[Task],
    pool: CellPool,
    names: Sequence[str],
) -> tuple[pd.DataFrame, NDArray[np.bool_]]:
    """Return one row a target and reading, and which perturbations are as good as the best.

    The latter of shape ``(n_targets, n_readings, n_perturbations)``.
    """
    rows, good = [], np.zeros((len(goals), len(readings), len(names)), bool)
    for i, (goal, task) in enumerate(zip(goals, tasks, strict=True)):
        for r, (held_out, may) in enumerate(zip(readings, task.candidates, strict=True)):
            truth = goal.truth
            best = may[int(np.argmin(truth.distance[may]))]
            good[i, r, may] = goal.as_good(pool, may)
            rows.append(
                {
                    "target": goal.name,
                    "held_out": held_out,
                    "n_candidates": len(may),
                    "best": names[best],
                    "n_good": int(good[i, r].sum()),
                    "best_distance": truth.distance[best],
                    "control_distance": truth.control,
                    "control_sd": truth.control_sd,
                    "pool_distance": truth.distance[may].mean(),
                }
            )
    return _frame(rows), good


def candidates_table(goals: Sequence[Goal], names: Sequence[str]) -> pd.DataFrame:
    """Return one row a target and candidate: its true distance, and how well it is known."""
    rows = [
        {
            "target": goal.name,
            "perturbation": name,
            "is_own": j in goal.own,
            "distance": goal.truth.distance[j],
            "sd": goal.truth.sd[j],
        }
        for goal in goals
        for j, name in enumerate(names)
    ]
    return _frame(rows)


def rounds_table(
    distance: Vector,
    is_good: NDArray[np.bool_],
    targets: pd.DataFrame,
    criteria: Sequence[str],
    n_cells: int,
) -> pd.DataFrame:
    """Return one row a target, reading, criterion and round.

    ``distance`` and ``is_good`` have shape ``(n_targets * n_readings, n_criteria, n_repeats,
    n_rounds + 1)``; ``n_cells`` are those of a plate.
    """
    n_repeats = distance.shape[2]
    mean, sem = distance.mean(axis=2), distance.std(axis=2, ddof=1) / np.sqrt(n_repeats)
    control = targets["control_distance"].to_numpy()[:, None, None]
    heads = targets[["target", "held_out"]]
    which, criterion, number = (x.ravel() for x in np.indices(mean.shape))
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
            "share_good": is_good.mean(axis=2).ravel(),
        },
        index=pd.Index(np.arange(mean.size)),
    )


def plates_until_good(is_good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the plates after which recommendations stay good; one more than all where never."""
    stays = np.logical_and.accumulate(is_good[..., ::-1], axis=-1)
    return np.asarray(is_good.shape[-1] - stays.sum(axis=-1), np.int64)


def comparison_table(
    distance: Vector, targets: pd.DataFrame, criteria: Sequence[str]
) -> pd.DataFrame:
    """Return one row a target, reading and criterion: the paired difference to the baseline.

    The difference is averaged over the rounds from the first on; below 0 is nearer. P-values of
    the paired t test are adjusted over the targets of one criterion and reading by Holm's method.
    """
    baseline = list(criteria).index(BASELINE)
    rows = []
    for c, criterion in enumerate(criteria):
        if c == baseline:
            continue
        for i, (ours, others) in enumerate(zip(distance[:, c], distance[:, baseline], strict=True)):
            control = float(targets["control_distance"].iloc[i])
            gap = ours - others
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
    distance: Vector,
    is_good: NDArray[np.bool_],
    targets: pd.DataFrame,
    comparison: pd.DataFrame,
    criteria: Sequence[str],
) -> pd.DataFrame:
    """Return one row a reading and criterion: the mean over all targets, each counted once.

    Standard errors and paired t tests are over repeats; p-values are adjusted over the criteria of
    a reading, distance and plates together, by Holm's method.
    """
    rows = []
    baseline = list(criteria).index(BASELINE)
    for held_out in dict.fromkeys(targets["held_out"]):
        here = targets["held_out"].to_numpy() == held_out
        control = targets["control_distance"].to_numpy()[here, None, None, None]
        relative = (distance[here] / control).mean(axis=0)  # (n_criteria, n_repeats, n_rounds + 1)
        good = is_good[here]
        plates = plates_until_good(good).mean(axis=0)
        for c, criterion in enumerate(criteria):
            gap = _paired((relative[c] - relative[baseline])[:, 1:].mean(axis=1))
            sooner = _paired(plates[c] - plates[baseline])
            row = {"held_out": held_out, "criterion": criterion, "n_targets": int(here.sum())}
            row |= {
                "plates": plates[c].mean(),
                "plates_sem": _paired(plates[c])[1],
                "share_good_last": good[:, c, :, -1].mean(),
                "relative_first": relative[c, :, 0].mean(),
                "relative_last": relative[c, :, -1].mean(),
                "relative_last_sem": _paired(relative[c, :, -1])[1],
            }
            names = ("relative_difference", "relative_difference_sem", "p_value")
            row |= dict(zip(names, gap, strict=True))
            names = ("plates_difference", "plates_difference_sem", "p_plates")
            row |= dict(zip(names, sooner, strict=True))
            if c == baseline:  # no comparison
                row |= {"p_value": np.nan, "p_plates": np.nan}
            rows.append(row | _counts(comparison, held_out, criterion))
    frame = _frame(rows)
    for _, part in frame.groupby("held_out", sort=False):
        both = holm(part[["p_value", "p_plates"]].to_numpy().ravel()).reshape(-1, 2)
        frame.loc[part.index, "p_adjusted"] = both[:, 0]
        frame.loc[part.index, "p_plates_adjusted"] = both[:, 1]
    frame["verdict"] = _verdicts(frame["relative_difference"], frame["p_adjusted"])
    return frame


def _counts(comparison: pd.DataFrame, held_out: bool, criterion: str) -> dict[str, int]:
    if comparison.empty:
        return {"n_nearer": 0, "n_further": 0}
    is_one = (comparison["held_out"] == held_out) & (comparison["criterion"] == criterion)
    found = comparison.loc[is_one, "verdict"]
    return {
        "n_nearer": int((found == VERDICTS[-1]).sum()),
        "n_further": int((found == VERDICTS[1]).sum()),
    }


def holm(p_values: Vector) -> Vector:
    """Return p-values adjusted by Holm's step-down method, in the order given; NaN are none."""
    out = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    out[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
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
