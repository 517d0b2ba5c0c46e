"""The verdict on every part of a model, in words, and what to use on this screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert.tl._diagnose import quantities as q

if TYPE_CHECKING:
    from nextpert.tl._diagnose.quantities import Quantity

TRUST, CARE, NOT = "trust", "care", "do not trust"
_Rows = dict[str, "Quantity"]


@dataclass(frozen=True)
class Part:
    """The verdict on one part."""

    name: str
    level: str
    words: str


def judge(rows: list[Quantity], experts: pd.DataFrame) -> list[Part]:
    """Return the verdict on every part that was judged."""
    by: dict[str, _Rows] = {}
    for row in rows:
        by.setdefault(row.part, {})[row.name] = row
    parts = [
        _cells(by[q.CELLS]), _shrinkage(by[q.SHRINKAGE]), _unseen(by[q.UNSEEN], experts),
        _graph(by[q.GRAPH_PART]),
    ]  # fmt: skip
    parts += [_left_out(name, by[name]) for name in (q.GUIDES, q.BATCHES) if name in by]
    return parts


def overall(parts: list[Part]) -> tuple[str, str]:
    """Return the level of all parts together, and the verdict in words.

    ``"do not trust"`` where cells or shrinkage are not to be trusted, for then there is nothing to
    go by; ``"trust"`` where every part is; else ``"care"``.
    """
    fatal = any(part.level == NOT for part in parts if part.name in (q.CELLS, q.SHRINKAGE))
    level = NOT if fatal else TRUST if all(part.level == TRUST for part in parts) else CARE
    start = {
        TRUST: "Trust the model here",
        CARE: "Trust with care, part by part",
        NOT: "Do not trust the model here, choose at random",
    }[level]
    return level, f"{start}. " + " ".join(part.words for part in parts)


def part_table(parts: list[Part]) -> pd.DataFrame:
    """Return one row a part: level and verdict."""
    return pd.DataFrame(
        {
            "part": strings(part.name for part in parts),
            "level": strings(part.level for part in parts),
            "verdict": strings(part.words for part in parts),
        },
        index=pd.Index(np.arange(len(parts))),
    )


def _cells(rows: _Rows) -> Part:
    clear, distinct = rows["n_clear"], rows["n_distinct"]
    words = (
        f"Cells: {clear.value:.0f} of {clear.n} perturbations differ from the controls, "
        f"{distinct.value:.0f} from the other perturbations"
    )
    if not clear.value:
        return Part(q.CELLS, NOT, f"{words}: no effect can be seen.")
    if not distinct.value:
        return Part(q.CELLS, NOT, f"{words}: they cannot be told apart.")
    level = TRUST if clear.passed and distinct.passed else CARE
    return Part(q.CELLS, level, f"{words}.")


def _shrinkage(rows: _Rows) -> Part:
    cells, nothing, alone, covered = (
        rows[name]
        for name in ("error_to_cells", "error_to_nothing", "error_alone_to_cells", "coverage_90")
    )
    words = (
        f"from half of the cells they err by {_number(cells)} of the squared error of the cells' "
        f"means and {_number(nothing)} of that of no effect; {_intervals(covered)}."
    )
    first, plain = (rows[f"own_state_first{by}"] for by in ("", "_by_cells"))
    if first.n:
        found, by_cells = (f"{100 * row.value:.0f} %" for row in (first, plain))
        words = f"{words[:-1]}; a distinct perturbation's own state is found {found} of the time "
        words += f"({by_cells} by the cells' means)."
    if cells.value - alone.value > q.LARGEST_HARM:
        words += " Shrunken to nothing, without graph and experts, they would err by "
        words += f"{_number(alone)} of that of the cells' means."
    if not nothing.value < 1 or not covered.value >= q.HOPELESS_COVERAGE:
        return Part(q.SHRINKAGE, NOT, f"Effects: believe none; {words}")
    if not cells.passed:
        return Part(
            q.SHRINKAGE, CARE, f"Effects: believe the cells' means, not shrunken ones; {words}"
        )
    level = TRUST if nothing.passed and covered.passed else CARE
    return Part(q.SHRINKAGE, level, f"Effects: believe the shrunken cells; {words}")


def _unseen(rows: _Rows, experts: pd.DataFrame) -> Part:
    error, mean, covered = (
        rows[name] for name in ("error_to_nothing", "error_to_mean", "coverage_90")
    )
    single = experts.iloc[:-1]
    best = single.sort_values("error_to_nothing", kind="stable").iloc[0]
    used = [
        f"{name} {weight:.2f}"
        for name, weight in zip(single["expert"], single["weight"], strict=True)
        if weight > 0
    ]
    clear = rows["coverage_90_clear"]
    of_clear = f" of the effects, {100 * clear.value:.0f} % of the clear ones" if clear.n else ""
    alone = f"{max(best['error_to_nothing'], 0.0):.2f}"
    words = (
        f"all experts together err by {_number(error)} of the squared error of no effect (best "
        f"alone: {best['expert']}, {alone}; weights: {', '.join(used) or 'none'}); "
        f"{_intervals(covered)}{of_clear}."
    )
    if not np.isfinite(error.value):
        words = f"there is no effect to predict; {_intervals(covered)}."
    for row, what in ((error, "predicted better than by no effect"),
                      (mean, "told apart better than by the mean perturbation")):  # fmt: skip
        if row.is_no_gain:
            words = f"Unseen perturbations: do not rank them, they are not {what}; {words}"
            return Part(q.UNSEEN, NOT, words)
    level = TRUST if error.passed and mean.passed and covered.passed else CARE
    hope = "they can be ranked" if level == TRUST else "rank them with care"
    return Part(q.UNSEEN, level, f"Unseen perturbations: {hope}; {words}")


def _graph(rows: _Rows) -> Part:
    weight, alone, share, halves = (
        rows[name] for name in ("weight", "error_alone", "error_to_no_graph", "error_half_added")
    )
    said = (
        f"weight {weight.value:.2f}, alone {_number(alone)} of the squared error of no effect, all "
        f"experts {share.value:.2f} of that without it."
    )
    measured = rows["weight_measured"].value
    said += f" In measured effects it counts for {measured:.2f}."
    if not halves.passed:
        said += " Measured effects are worse for it, by "
        said += f"{halves.value:.2f} of the squared error of the cells' means: fit an empty graph."
    if not weight.passed or not share.value < 1:
        words = f"Graph: it adds nothing here, do not rank unseen perturbations by it; {said}"
        return Part(q.GRAPH_PART, NOT, words)
    level = TRUST if share.passed and alone.is_below_one and halves.passed else CARE
    adds = "it helps" if level == TRUST else "it helps a little"
    return Part(q.GRAPH_PART, level, f"Graph: {adds}; {said}")


def _left_out(name: str, rows: _Rows) -> Part:
    error, covered = rows["error_to_nothing"], rows["coverage_90"]
    what, one = {q.GUIDES: ("Guides", "guide"), q.BATCHES: ("Batches", "batch")}[name]
    words = (
        f"effects learned without a {one} err on it by {_number(error)} of the squared error of no "
        f"effect; {_intervals(covered)}."
    )
    if not error.value < 1 or not covered.value >= q.HOPELESS_COVERAGE:
        return Part(name, NOT, f"{what}: they disagree, {words}")
    level = TRUST if error.passed and covered.passed else CARE
    return Part(name, level, f"{what}: {words}")


def _intervals(covered: Quantity) -> str:
    return f"90 % intervals hold {100 * covered.value:.0f} %"


def _number(row: Quantity) -> str:
    if not np.isfinite(row.value):
        return "an unknown part"
    value = f"{max(row.value, 0.0):.2f}"
    return f"{value} ± {row.error:.2f}" if np.isfinite(row.error) else value
