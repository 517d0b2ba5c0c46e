"""The verdict on every part, from the quantities: a level, what to do, and the numbers.

Each part lists its cases in order, with level and what to do; the first that holds is the verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import list_names, strings
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.study import quantities as q
from nextpert.study.controls import BY_GUIDES, OF_TABLE
from nextpert.study.scores import MIN_CELLS_SCORED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nextpert._adata.undeclared_batches import Undeclared, UndeclaredBatches
    from nextpert._adata.undeclared_guides import Nested
    from nextpert.study.controls import NegativeControls
    from nextpert.study.held_out import Halves
    from nextpert.study.quantities import Quantity


TRUST, CARE, NOT = "trust", "care", "do not trust"
_STRONG = "do not rely on them for strong perturbations"
_WEAKER = (
    ". This is weaker evidence, because fewer than two control guides have enough cells to "
    "estimate the variance between guides."
)
_CONDITIONS = (
    " If these batches are conditions, such as cell lines, give condition_key to pp.setup_screen, "
    "and use the effects per condition: tl.perturbation_effects(condition=...)."
)
_TOO_SMALL = (
    " The z-scores of three quarters of the perturbations have a width above "
    "{perturbations_width:.2f}; without effects the width would be 1. Most perturbations change "
    "most genes, or standard errors are too small."
)
_WITHIN_BATCH = (
    " Standard errors within a batch do not include the variation between clones and batches, and "
    "no perturbation has rows in two batches that would show it."
)
_HIDE_BATCHES = (
    " Control cells do not show the differences between the levels of adata.obs[{!r}], which is "
    "not declared."
)
_SMALL = "effects on the cells left out are no larger than their sampling error"
_Rows = dict[str, "Quantity"]
_Cases = list[tuple[object, str, str]]  # whether it holds, level, what to do


class Part(NamedTuple):
    """The verdict on one part."""

    name: str
    level: str
    verdict: str


def _part(name: str, cases: _Cases, words: str, title: str = "") -> Part:
    """Return the verdict of the first case that holds."""
    level, start = next((level, start) for holds, level, start in cases if holds)
    if start:
        words = f"{start}. {words[:1].upper()}{words[1:]}"
    return Part(name, level, f"{title or name.capitalize()}: {words}".rstrip())


def judge(
    rows: list[Quantity],
    weights: Mapping[str, float],
    nulls: NegativeControls,
    halves: Halves,
    undeclared: Undeclared,
    guides: pd.DataFrame | None,
    not_judged: Mapping[str, str],
    confounded: Sequence[str] = (),
) -> tuple[str, str, pd.DataFrame]:
    """Return the level of all parts together, the verdict in words, and a table of the parts.

    ``weights`` are those of the predictors; ``nulls`` are the negative controls; ``undeclared`` are
    columns that look like guides or batches but are not declared; ``guides`` compares those of each
    perturbation, if they are declared; ``not_judged`` says why guides or batches could not be left
    out; ``confounded`` are perturbations whose batches have no controls.
    """
    by: dict[str, _Rows] = {}
    for row in rows:
        by.setdefault(row.part, {})[row.name] = row
    n_judged, n = len(halves.scored) - 1, halves.n_groups - 1
    parts = [
        _cells(by[q.CELLS], by[q.NEGATIVE]["standard_error_factor"], undeclared),
        _negative(by[q.NEGATIVE], nulls, halves, undeclared.batches),
        _positive(by[q.POSITIVE]),
        _shrinkage(by[q.SHRINKAGE], undeclared.batches),
        _unseen(by[q.UNSEEN], weights, n_judged),
        _graph(by[q.GRAPH_PART]),
    ]
    # All parts depend on the standard errors: on their size, and on the variation they include.
    width = by[q.NEGATIVE].get("perturbations_width")
    is_small = width is not None and width.passed is False
    hides_batches = undeclared.batches is not None or len(confounded) > 0
    if is_small or not halves.has_replicates or hides_batches:
        parts = [part._replace(level=CARE) if part.level == TRUST else part for part in parts]
    if undeclared.guides is None and (q.GUIDES in by or guides is not None):
        parts += _guides(by.get(q.GUIDES), guides)
    if q.BATCHES in by:
        parts.append(_left_out(q.BATCHES, by[q.BATCHES], by_condition=halves.by_condition))
    judged = [part.level for part in parts]
    for name, why in not_judged.items():
        words = f"could not be judged, because {why}."
        parts = _with(parts, _part(name, [(True, CARE, "")], words))
    # First, because they affect all other parts.
    if confounded:
        parts = _with(parts, _confounded(confounded, n), first=True)
    if undeclared.batches is not None:
        parts = _with(parts, _undeclared_batches(undeclared.batches), first=True)
    if undeclared.guides is not None:
        parts = _with(parts, _undeclared(undeclared.guides), first=True)
        judged.append(parts[0].level)
    # All other parts depend on cells, negative controls and shrinkage.
    levels = {part.name: part.level for part in parts}
    no = "Do not trust the model here"
    without_controls = f"{no}: most perturbations have no controls in their batch"
    at_random = ", and choose new perturbations at random" * (levels[q.UNSEEN] == NOT)
    cases: _Cases = [
        (levels[q.CELLS] == NOT, NOT, f"{no}: choose perturbations at random"),
        (levels[q.NEGATIVE] == NOT, NOT, f"{no}: its significant effects may be false"),
        (levels[q.SHRINKAGE] == NOT, NOT, f"{no}: do not rely on its effects{at_random}"),
        (2 * len(confounded) >= n, NOT, without_controls),
        (set(judged) == {TRUST}, TRUST, "Trust the model here"),
        (True, CARE, "Trust the model with care"),
    ]
    level, start = next((level, start) for holds, level, start in cases if holds)
    if n_judged < n:
        start += f" (fits to parts of the cells are judged by {n_judged:,} of {n:,} perturbations, "
        start += "drawn at random)"
    table = pd.DataFrame(parts, columns=["part", "level", "verdict"]).apply(strings)
    return level, "\n".join([f"{start}.", *(part.verdict for part in parts)]), table


def _with(parts: list[Part], added: Part, *, first: bool = False) -> list[Part]:
    """Return parts with another one, which is merged with the part of the same name, if any."""
    for part in parts:
        if part.name == added.name:
            one, other = (added, part) if first else (part, added)
            sentence = other.verdict.split(": ", 1)[1]
            level = max(part.level, added.level, key=[TRUST, CARE, NOT].index)
            added = Part(part.name, level, f"{one.verdict} {sentence[:1].upper()}{sentence[1:]}")
    unmerged = [part for part in parts if part.name != added.name]
    return [added, *unmerged] if first else [*unmerged, added]


def _cells(of: _Rows, factor: Quantity, undeclared: Undeclared) -> Part:
    differ, distinct = of["n_significant"], of["n_distinct"]
    words = (
        f"{differ:.0f} of {differ.n} perturbations differ from the controls, {distinct:.0f} from "
        f"the other perturbations"
    )
    if factor.value > 1:
        where = "negative controls" if undeclared.batches is None else "batches"
        words += f" (standard errors multiplied by {factor:.2f}, see {where})"
    cases: _Cases = [
        (not differ.value, NOT, "no effect can be detected"),
        (not distinct.value, NOT, "they cannot be distinguished"),
        (differ.passed and distinct.passed, TRUST, ""),
        (True, CARE, ""),
    ]
    words += "."
    for column, names in undeclared.covariates:
        words += (
            f" Cells of {list_names(names)} differ from the controls in adata.obs[{column!r}], "
            f"which looks computed from expression."
        )
    return _part(q.CELLS, cases, words)


def _negative(
    of: _Rows, nulls: NegativeControls, halves: Halves, batches: UndeclaredBatches | None
) -> Part:
    """Return the verdict on control cells that were taken as perturbations.

    A table of effects has no control cells, but shows whether its standard errors look too small.
    Control cells do not show differences between undeclared ``batches``: their guides or halves
    are divided among these more evenly than perturbations may be.
    """
    if nulls.kind == OF_TABLE:
        is_small = not of["perturbations_width"].passed
        start = "could not be judged, because a table has no control cells. Its standard errors "
        start += "are assumed to be right"
        words = f"{_TOO_SMALL * is_small}{_WITHIN_BATCH * (not halves.has_replicates)}"
        cases: _Cases = [(is_small, NOT, f"{start}, but look too small"), (True, CARE, start)]
        return _part(q.NEGATIVE, cases, words.format_map(of).lstrip())
    n = len(nulls.table)
    if not n:
        words = f"could not be judged, because the controls have fewer than {2 * MIN_CELLS_SCORED} "
        words += "cells."
        return _part(q.NEGATIVE, [(True, CARE, "")], words)
    of_guides = nulls.kind == BY_GUIDES
    what_nulls = f"{n} control guide{'s' * (n != 1)}" if of_guides else "half of the control cells"
    share, low, high, rate = (
        f"{of[name]:.2%}" if of[name].value < 0.1 else f"{of[name]:.0%}"
        for name in (
            "false_share",
            "false_share_lower",
            "false_share_upper",
            "false_discovery_rate",
        )
    )
    worst = nulls.table.iloc[int(nulls.table["n_false"].to_numpy().argmax())]
    by = f", {worst['n_false']} of them by {worst['name']}" if n > 1 < worst["n_false"] else ""
    words = (
        f"Of {of['n_false'].n} effects of {what_nulls}, taken as perturbations, "
        f"{of['n_false']:.0f} {'is' if of['n_false'].value == 1 else 'are'} significant (lfsr < "
        f"{SIGNIFICANCE:g}), {share} ({low} to {high}){by}. The width of their "
        f"null is {of['null_width']}"
    )
    width = of["null_width"]
    if not width.passed:
        words += f": standard errors are too small, by a factor of {width:.2f}"
    elif of["false_discovery_rate"].value > 0:
        words += f". At most about {rate} of the screen's significant effects are false"
    words += "." if of_guides else _WEAKER
    if batches is not None:
        words += _HIDE_BATCHES.format(batches.column)
    are_few_false = (
        of[f"false_{name}_lower"].passed is not False for name in ("share", "discovery_rate")
    )
    cases = [
        (
            not all(are_few_false)
            or width.value - q.N_STANDARD_ERRORS * width.error > q.MAX_NULL_WIDTH
            or (batches is not None and batches.width > q.MAX_NULL_WIDTH),
            NOT,
            "do not rely on significant effects",
        ),
        (
            not width.passed or not of["coverage_90"].passed or batches is not None,
            CARE,
            "read significant effects with care",
        ),
        (True, TRUST, "calibrated"),
    ]
    return _part(q.NEGATIVE, cases, words)


def _positive(of: _Rows) -> Part:
    """Return the verdict on the change of target genes."""
    expected, opposite = of["n_found"], of["n_opposite"]
    none_found = not expected.value and expected.n >= q.MIN_PERTURBATIONS
    cases: _Cases = [
        (not expected.n, CARE, "could not be judged, because no target gene is on the panel"),
        (opposite.value >= max(expected.value, 1) or none_found, NOT, "check labels and guides"),
        (expected.passed and not opposite.value, TRUST, ""),
        (True, CARE, ""),
    ]
    words = (
        f"the target gene changes in the expected direction in {expected:.0f} of {expected.n} "
        f"perturbations (lfsr < {SIGNIFICANCE:g}), and in the opposite direction in {opposite:.0f}."
    )
    return _part(q.POSITIVE, cases, words if expected.n else "")


def _shrinkage(of: _Rows, batches: UndeclaredBatches | None) -> Part:
    means, nothing, split = of["error_to_raw_means"], of["error_to_no_effect"], of["n_by_guides"]
    by_guide = f" (by guide for {split:.0f} of {split.n} perturbations)" if split.value else ""
    worse = ", and raw means are less accurate" * (means.value < 1)
    covers, intervals = _intervals(of)
    cases: _Cases = [
        (of["coverage_90_large"].is_hopeless, NOT, _STRONG),
        (of["coverage_90"].is_hopeless, NOT, "do not use the shrunken effects"),
        (np.isnan(nothing.value), NOT, f"do not use them, because {_SMALL}{worse}"),
        (
            not nothing.value < 1,
            NOT,
            f"do not use them, because assuming no effect is as accurate{worse}",
        ),
        (means.value > q.MAX_WORSE_RATIO, CARE, "use raw means, not the shrunken effects"),
        (not means.passed or batches is not None, CARE, "use the shrunken effects with care"),
        (nothing.passed and covers, TRUST, "use the shrunken effects"),
        (True, CARE, "use the shrunken effects"),
    ]
    words = (
        f"Learned from half of the screen{by_guide}, shrunken effects have on the other half "
        f"{_errors((means, 'raw means'), (nothing, 'no effect'))}.{intervals}"
    )
    if batches is not None:
        words += (
            f" Both halves contain the differences between the levels of "
            f"adata.obs[{batches.column!r}], so effects look more accurate than they are."
        )
    return _part(q.SHRINKAGE, cases, words, "Effects")


def _unseen(of: _Rows, weights: Mapping[str, float], n_judged: int) -> Part:
    nothing, mean = of["error_to_no_effect"], of["error_to_mean"]
    # No gain: a ratio of about 1 or more, or below 1 by less than its standard error.
    no_gain = [
        not row.value <= q.MAX_GAIN_RATIO or row.value + row.error >= 1 for row in (nothing, mean)
    ]
    covers, intervals = _intervals(of)
    none = "none can be predicted, because each has a target that is not on the panel"
    cases: _Cases = [
        (not nothing.n, NOT, none),
        (np.isnan(nothing.value), NOT, f"do not rank them, because {_SMALL}"),
        (no_gain[0], NOT, "do not rank them, because assuming no effect is as accurate"),
        (no_gain[1], NOT, "do not rank them, because the mean perturbation is as accurate"),
        (of["coverage_90_large"].is_hopeless, NOT, _STRONG),
        (nothing.passed and mean.passed and covers, TRUST, "they can be ranked"),
        (True, CARE, "rank them with care"),
    ]
    # The error relative to the mean perturbation is stated if it decides.
    stated = [(nothing, "no effect"), (mean, "the mean perturbation")]
    stated = stated if no_gain[1] and not no_gain[0] else stated[:1]
    used = [f"{name} {weight:.2f}" for name, weight in weights.items() if weight >= 0.005]
    words = (
        f"All predictors together have {_errors(*stated)} (weights: {', '.join(used) or 'none'}). "
    )
    if nothing.n < n_judged:
        words += f"{nothing.n} of {n_judged} were judged: the others have a target that is not on "
        words += "the panel. "
    words = f"{words.rstrip()}{intervals}" if nothing.n else ""
    return _part(q.UNSEEN, cases, words)


def _graph(of: _Rows) -> Part:
    alone, share = of["error_alone"], of["error_to_no_graph"]
    adds = of["weight"].passed and share.value < 1
    unsure = adds and not share.value + share.error < 1  # a gain below its standard error
    cases: _Cases = [
        (not adds, NOT, "it adds nothing here; do not rank unseen perturbations by it"),
        (share.passed and q.BELOW_ONE.holds(alone), TRUST, "it helps"),
        (unsure, CARE, "it is not certain that it helps"),
        (True, CARE, "it helps a little"),
    ]
    ratio = f"{share}" if unsure else f"{share:.2f}"
    words = (
        f"Its weight is {of['weight']:.2f}. Alone it has {_errors((alone, 'no effect'))}; all "
        f"predictors have one of {ratio} relative to those without it."
    )
    return _part(q.GRAPH_PART, cases, words)


def _left_out(name: str, of: _Rows, *, by_condition: bool = False) -> Part:
    """Return the verdict on guides or batches that were left out.

    An average over conditions need not predict another condition.
    """
    nothing, one = of["error_to_no_effect"], {q.GUIDES: "guide", q.BATCHES: "batch"}[name]
    disagree = not nothing.value < 1 or of["coverage_90"].is_hopeless
    covers, intervals = _intervals(of)
    worst = CARE if by_condition else NOT
    cases: _Cases = [
        (np.isnan(nothing.value), CARE, f"could not be judged, because {_SMALL}"),
        (disagree, worst, "they disagree"),
        (of["coverage_90_large"].is_hopeless, worst, _STRONG),
        (nothing.passed and covers, TRUST, ""),
        (True, CARE, ""),
    ]
    words = (
        f"effects learned without one {one} predict its effects with "
        f"{_errors((nothing, 'no effect'))}.{intervals}"
    )
    if name == q.BATCHES and (disagree or not covers):
        words += _CONDITIONS
    return _part(name, cases, words)


def _guides(left_out: _Rows | None, guides: pd.DataFrame | None) -> list[Part]:
    """Return the verdict on guides that were left out, and on those with a weaker effect."""
    parts = [] if left_out is None else [_left_out(q.GUIDES, left_out)]
    if guides is None or not guides["weak"].any():
        return parts
    weak = guides[guides["weak"]]
    share = weak["change"] / weak["change_of_others"]
    weak_guides = [
        f"{guide} ({x:.0%})" if x >= 0 else f"{guide} (opposite direction)"
        for guide, x in zip(weak["guide"], share, strict=True)
    ]
    words = (
        f"Of {len(guides)} guides that can be compared on their target gene, "
        f"{list_names(weak_guides)} change{'s' * (len(weak_guides) == 1)} it by less than half as "
        f"much as the other guides of the perturbation. Drop the cells of guides that do not work, "
        f"and fit again; a guide for knockouts may work without a change in expression."
    )
    if not parts:
        return [_part(q.GUIDES, [(True, CARE, "")], words)]
    level = CARE if parts[0].level == TRUST else parts[0].level
    return [parts[0]._replace(level=level, verdict=f"{parts[0].verdict} {words}")]


def _undeclared(nested: Nested) -> Part:
    level = {True: NOT, False: TRUST, None: CARE}[nested.scatters]
    end = f"If its levels are guides, declare it with {nested.call}."
    if nested.scatters:
        end = f"Intervals and tests of this fit ignore it: declare it with {nested.call}, and fit "
        end += "again."
    words = (
        f"adata.obs[{nested.column!r}] is not declared, but its {nested.n_levels} levels nest in "
        f"the perturbation labels, as guides do: {nested.scatter_in_words()}. {end}"
    )
    return _part(q.GUIDES, [(True, level, "")], words)


def _undeclared_batches(batches: UndeclaredBatches) -> Part:
    level = NOT if batches.width > q.MAX_NULL_WIDTH else CARE
    words = (
        f"adata.obs[{batches.column!r}] is not declared, but {batches.in_words()}. Effects, "
        f"intervals and tests of this fit ignore it: declare it with {batches.call}, and fit "
        f"again; if it was computed from expression, remove the column."
    )
    return _part(q.BATCHES, [(True, level, "")], words)


def _confounded(names: Sequence[str], n: int) -> Part:
    """Return the verdict on perturbations whose batches have no control cells."""
    words = (
        f"{len(names)} of {n} perturbations are in batches without control cells "
        f"({list_names(list(names))}). What the perturbations of such a batch share cannot be "
        f"separated from the batch: do not rely on their effects and distances, only on "
        f"differences between the perturbations of a batch. Add controls from these batches."
    )
    return _part(q.BATCHES, [(True, NOT if 2 * len(names) >= n else CARE, "")], words)


def _errors(*rows: tuple[Quantity, str]) -> str:
    """Return squared errors relative to those of baselines, by name, as text.

    The error of a baseline that is not above its sampling error is no denominator.
    """
    ratios = [f"of {row} relative to {name}" for row, name in rows if not np.isnan(row.value)]
    none = [name for row, name in rows if np.isnan(row.value)]
    words = f"a squared error {' and '.join(ratios)}" if ratios else "a squared error"
    if none:
        words += f" that cannot be compared with {' and '.join(none)} (no error beyond sampling)"
    return words


def _intervals(of: _Rows) -> tuple[bool, str]:
    """Return whether intervals pass their rules (of large effects too, if any), and a sentence."""
    overall, large = of["coverage_90"], of["coverage_90_large"]
    words = f" 90% intervals cover {overall:.0%} of all effects"
    if large.passed is not None:  # enough of them
        but = "and" if large.value >= q.MIN_COVERAGE else "but only"
        words += f" {but} {large:.0%} of the large ones"
    return bool(overall.passed) and large.passed is not False, f"{words}."
