"""The verdict on every part of a model, in words and as a table of perturbations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert._adata.effects import CLEAR_SIGN
from nextpert.core.fit.interventions import shift_environments
from nextpert.core.model.scores import pooled_sizes
from nextpert.core.screen.guides import UNKNOWN
from nextpert.tl._diagnose import quantities as q
from nextpert.tl._diagnose.controls import BY_BATCHES, BY_CELLS, BY_GUIDES, OF_TABLE
from nextpert.tl._diagnose.judged import (
    COVERAGE,
    COVERED,
    LARGE,
    LEFT,
    MEANS,
    NO_GRAPH,
    NOTHING,
    SHRUNKEN,
    measured,
)
from nextpert.tl._diagnose.quantities import CLEAR
from nextpert.tl._diagnose.unseen import MEAN_ALONE, R_OF, WHOLE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextpert._adata.nested import Nested
    from nextpert.core.fit.cells import FitCells
    from nextpert.core.model.effects import Effects
    from nextpert.tl._diagnose.controls import Nulls
    from nextpert.tl._diagnose.model import Refit
    from nextpert.tl._diagnose.quantities import Quantity
    from nextpert.tl._diagnose.unseen import Unseen


def perturbation_table(
    refit: Refit,
    cells: FitCells,
    halves: pd.DataFrame,
    unseen: Unseen,
    split_by: list[str],
    left_out: Mapping[str, pd.DataFrame | None],
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
    halves, left_out
        Scores on halves, and with a guide or batch left out (by name, where these were judged).
    unseen
        Predictions without cells, and their scores.
    split_by
        How each perturbation is split into halves.
    effects
        Effects as users get them, tables of shape ``(n_perturbations, n_genes)``.
    factor
        Factor by which the null says that standard errors are to be multiplied.
    """
    from_controls, from_others = pooled_sizes(cells.pooled, factor=factor)
    clear = from_controls.q_value < CLEAR
    r, others, told = halves["r"].clip(0.0), halves["r_others"].clip(0.0), unseen.table
    table = pd.DataFrame(
        {
            "perturbation": strings(refit.names),
            "target_genes": strings(", ".join(genes) for genes in refit.spec.plan.targets),
            "n_cells": cells.n_cells,
            "squared_distance": from_controls.estimate,
            "q_value": from_controls.q_value,
            "is_significant": clear,
            "q_value_from_others": from_others.q_value,
            "is_distinct": clear & (from_others.q_value < CLEAR),
            **own_changes(refit, cells, effects, factor),
            "split_by": strings(np.where(refit.is_sampled, split_by, "")),
            "reliability": 2 * r / (1 + r),
            "error_half": halves[SHRUNKEN],
            **{f"error_half_{name}": halves[name] for name in (MEANS, NO_GRAPH, NOTHING)},
            **_coverages("half", halves),
            "error_unseen": told[WHOLE],
            "error_unseen_no_effect": told[NOTHING],
            "r_all": told[f"{R_OF}{WHOLE}"],
            **{f"r_{name.replace(' ', '_')}": told[f"{R_OF}{name}"] for name in unseen.weights},
            **_coverages("unseen", told),
            "error_unseen_mean": told[MEAN_ALONE],
        },
        index=pd.Index(np.arange(len(refit.names))),
    )
    if "r_mean_perturbation" not in table:  # of a fit without predictors
        table["r_mean_perturbation"] = np.nan
    best = np.fmax(table["r_all"], table["r_mean_perturbation"])
    # Halves of few cells say little of it; what a predictor reached is possible too.
    table["ceiling_r"] = np.fmax(np.sqrt(2 * others / (1 + others)), best)
    # What a better predictor could gain: nothing is predicted if a target is not on the panel.
    near = q.NEAR_CEILING * table["ceiling_r"]
    measurable = table["is_significant"] & (table["ceiling_r"] >= q.LEAST_CEILING)
    by_mean = table["r_mean_perturbation"] >= near
    kinds = [table["error_unseen"].isna(), ~measurable, by_mean, table["r_all"] >= near]
    words = ["", q.NOT_MEASURABLE, q.BY_MEAN, q.BY_OTHERS]
    table["ceiling"] = strings(np.select(kinds, words, default=q.ROOM))
    for name, scores in left_out.items():
        if scores is not None:
            errors = {f"error_{name}": scores[SHRUNKEN], f"error_{name}_no_effect": scores[NOTHING]}
            table = table.assign(**errors, **_coverages(name, scores))
    return table


def _coverages(name: str, scores: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the columns of coverage; that of large effects is NaN where there are none."""
    large = scores[COVERED] / scores[LARGE].where(scores[LARGE] > 0)
    return {f"coverage_{name}": scores[COVERAGE], f"coverage_{name}_large": large}


def own_changes(refit: Refit, cells: FitCells, effects: Effects, factor: float) -> dict[str, Any]:
    """Return the columns of each perturbation's weakest target gene: the positive controls.

    ``""`` and NaN for a perturbation without any. By its cells alone: change and z-score, the
    standard error multiplied by ``factor``. As users get it (``effects``): interval and local false
    sign rate, and whether it is found (:data:`~nextpert.tl._diagnose.quantities.FOUND`).
    """
    pooled = cells.pooled
    change, error = pooled.to_controls()
    z = change / (factor * np.sqrt(np.maximum(pooled.covariance.diagonal() * error, 1e-300)))
    own = measured(refit, cells).own() & (cells.n_cells > 0)[:, None]
    own &= pooled.variance_ratio[1:] < UNKNOWN
    weakest = np.where(own, np.abs(z), np.inf).argmin(axis=1)
    known, rows = own.any(axis=1), np.arange(len(own))
    plan, genes = refit.spec.plan, refit.spec.genes
    expected = np.sign(shift_environments(plan, genes, cells.control).shifts)
    if isinstance(plan.shift, str) and plan.shift == "knockout":
        expected = np.where(own, -1.0, expected)  # also where control means are not known, or 0
    status = np.where(np.sign(effects.mean) * expected < 0, q.OPPOSITE, q.FOUND)
    status = np.where(effects.lfsr < CLEAR_SIGN, status, q.NOT_FOUND)[rows, weakest]
    return {
        "weakest_target": strings(np.where(known, np.array(genes)[weakest], "")),
        "target_gene_change": np.where(known, change[rows, weakest], np.nan),
        "target_gene_z": np.where(known, z[rows, weakest], np.nan),
        **{
            f"target_gene_{name}": np.where(known, getattr(effects, name)[rows, weakest], np.nan)
            for name in ("mean", "lower", "upper", "lfsr")
        },
        "target_gene_expected": np.where(known, expected[rows, weakest], np.nan),
        "target_gene_found": strings(np.where(known, status, "")),
    }


TRUST, CARE, NOT = "trust", "care", "do not trust"
_Rows = dict[str, "Quantity"]
_FATAL = (q.CELLS, q.SHRINKAGE, q.NEGATIVE)
_NOT_JUDGED = "could not be judged (no standard error)"


@dataclass(frozen=True)
class Part:
    """The verdict on one part."""

    name: str
    level: str
    words: str


def judge(
    rows: list[Quantity],
    predictors: pd.DataFrame,
    nulls: Nulls,
    undeclared: Nested | None,
    n_judged: int,
    *,
    by_condition: bool,
) -> list[Part]:
    """Return the verdict on every part that was judged.

    ``nulls`` are the negative controls; ``undeclared`` is a column that looks like guides but is
    not declared; ``n_judged`` is the number of perturbations that fits to parts of the cells are
    judged by; ``by_condition`` says whether conditions are declared.
    """
    by: dict[str, _Rows] = {}
    for row in rows:
        by.setdefault(row.part, {})[row.name] = row
    parts = [
        _cells(by[q.CELLS], by[q.NEGATIVE]["standard_error_factor"].value),
        _of_table(nulls) if nulls.kind == OF_TABLE else _negative(by[q.NEGATIVE], nulls),
        _positive(by[q.POSITIVE]),
        _shrinkage(by[q.SHRINKAGE]),
        _unseen(by[q.UNSEEN], predictors, n_judged, by[q.CEILING]),
        _graph(by[q.GRAPH_PART]),
    ]
    # All rests on standard errors: on their size, and on what they hold.
    if nulls.of_perturbations > q.LARGEST_OF_TABLE or not nulls.has_replicates:
        parts = [replace(part, level=CARE) if part.level == TRUST else part for part in parts]
    if undeclared is not None:  # first, as it bears on all others
        parts.insert(0, _undeclared(undeclared))
    elif q.GUIDES in by:
        parts.append(_left_out(q.GUIDES, by[q.GUIDES]))
    if q.BATCHES in by:
        parts.append(_left_out(q.BATCHES, by[q.BATCHES], by_condition=by_condition))
    return parts


def overall(parts: list[Part], n_judged: int, n: int) -> tuple[str, str]:
    """Return the level of all parts together, and the verdict in words.

    ``n_judged`` of ``n`` perturbations are judged by fits to parts of the cells.

    ``"do not trust"`` if cells, negative controls or shrinkage have that level, because all other
    parts rest on them; ``"trust"`` if every part has that level; else ``"care"``.
    """
    fatal = [part.name for part in parts if part.level == NOT and part.name in _FATAL]
    if not fatal:
        level = TRUST if all(part.level == TRUST for part in parts) else CARE
        start = {TRUST: "Trust the model here", CARE: "Trust the model with care"}[level]
    else:
        level, start = NOT, "Do not trust the model here: "
        start += (
            "choose perturbations at random" if q.CELLS in fatal
            else "its significant effects may be false" if q.NEGATIVE in fatal
            else "do not use its effects, and choose new perturbations at random"
        )  # fmt: skip
    if n_judged < n:
        start += f" (fits to parts of the cells are judged by {n_judged:,} of {n:,} perturbations, "
        start += "drawn at random)"
    return level, "\n".join([f"{start}.", *(part.words for part in parts)])


def part_table(parts: list[Part]) -> pd.DataFrame:
    """Return one row per part: level and verdict."""
    return pd.DataFrame(
        {
            "part": strings(part.name for part in parts),
            "level": strings(part.level for part in parts),
            "verdict": strings(part.words for part in parts),
        },
        index=pd.Index(np.arange(len(parts))),
    )


def _cells(rows: _Rows, factor: float) -> Part:
    clear, distinct = rows["n_significant"], rows["n_distinct"]
    words = (
        f"Cells: {clear.value:.0f} of {clear.n} perturbations differ from the controls, "
        f"{distinct.value:.0f} from the other perturbations"
    )
    if factor > 1:
        words += f" (standard errors multiplied by {factor:.2f}, see negative controls)"
    if not clear.value:
        return Part(q.CELLS, NOT, f"{words}: no effect can be detected.")
    if not distinct.value:
        return Part(q.CELLS, NOT, f"{words}: they cannot be distinguished.")
    return Part(q.CELLS, TRUST if clear.passed and distinct.passed else CARE, f"{words}.")


def _of_table(nulls: Nulls) -> Part:
    """Return what a table of effects, which has no control cells, shows of its standard errors."""
    level = CARE
    words = "a table has no control cells: its standard errors are taken as they are"
    if nulls.of_perturbations > q.LARGEST_OF_TABLE:
        level = NOT
        words += (
            f", but look too small. The quarter of perturbations that change the least have "
            f"z-scores of a width of {nulls.of_perturbations:.2f} or more, where 1 is expected "
            f"without effects. Either most perturbations change most genes, or standard errors are "
            f"too small: all that follows is then too optimistic. Check how they were computed"
        )
    if not nulls.has_replicates:
        words += (
            ". Standard errors within a batch do not include the variation between clones and "
            "batches, and no perturbation has rows in two batches that would show it: real alleles "
            "of a knockout in another batch can differ by more"
        )
    return Part(q.NEGATIVE, level, f"Negative controls: could not be judged, as {words}.")


def _negative(rows: _Rows, nulls: Nulls) -> Part:
    """Return the verdict on control cells that took the place of perturbations."""
    share, width, n = rows["false_share"], nulls.width, len(nulls.table)
    if not n:
        words = f"could not be judged, as the controls have fewer than {2 * LEFT} cells"
        return Part(q.NEGATIVE, CARE, f"Negative controls: {words}.")
    what = {
        BY_GUIDES: f"{n} control guides" if n > 1 else "one of two control guides",
        BY_BATCHES: f"the controls of {n} batches" if n > 1 else "the controls of one batch",
        BY_CELLS: "half of the control cells",
    }[nulls.kind]
    if nulls.in_batches:  # as perturbations are
        what += " in one batch each" if nulls.kind == BY_GUIDES else f" in each of {n} batches"
    false, low, high = (
        _percent(rows[f"false_share{end}"].value) for end in ("", "_lower", "_upper")
    )
    worst = nulls.table.iloc[int(nulls.table["n_false"].to_numpy().argmax())]
    by = f", {worst['n_false']} of them by {worst['name']}" if n > 1 < worst["n_false"] else ""
    words = (
        f"Of {share.n} effects of {what}, taken as perturbations, {rows['n_false'].value:.0f} are "
        f"significant (lfsr < {CLEAR_SIGN:g}), {false} ({low} to {high}){by}. The width of their "
        f"null is {width.value:.2f} ± {width.error:.2f}"
    )
    rate, least = rows["false_discovery_rate"].value, rows["false_discovery_rate_lower"].value
    too_many = max(rows["false_share_lower"].value, np.nan_to_num(least)) > q.FALSE_SHARE
    level, judgement = TRUST, "calibrated"
    if too_many or width.is_above(q.LARGEST_WIDTH):
        level, judgement = NOT, "do not rely on significant effects"
    elif width.is_above(1.0) or not rows["coverage_90"].passed:
        level, judgement = CARE, "read significant effects with care"
    if width.factor > 1:
        words += f": errors are larger than stated, by a factor of {width.factor:.2f}"
    elif rate > 0:
        words += f". At most about {_percent(rate)} of the screen's significant effects are false "
        words += "by this"
    if nulls.kind != BY_GUIDES:
        words += ". This is the weaker proof: the controls have no two guides with enough cells, "
        words += "so that no variance between guides is seen"
    return Part(q.NEGATIVE, level, f"Negative controls: {judgement}. {words}.")


def _positive(rows: _Rows) -> Part:
    """Return the verdict on the change of target genes."""
    found, opposite, by_cells = (
        rows[name] for name in ("n_found", "n_opposite", "n_found_by_cells")
    )
    if not found.n:
        words = "could not be judged, as no target gene is on the panel."
        return Part(q.POSITIVE, CARE, f"Positive controls: {words}")
    words = (
        f"the target gene changes in the expected direction in {found.value:.0f} of {found.n} "
        f"perturbations (lfsr < {CLEAR_SIGN:g}; {by_cells.value:.0f} by their cells alone), and "
        f"in the opposite one in {opposite.value:.0f}."
    )
    level = TRUST if found.passed and not opposite.value else CARE
    if opposite.value >= max(found.value, 1) or (not found.value and found.n >= q.FEWEST):
        level = NOT
        words += " Check labels and guides."
    return Part(q.POSITIVE, level, f"Positive controls: {words}")


def ceiling_in_words(n: Mapping[str, float]) -> str:
    """Return the classes of the ceiling from the numbers of perturbations in each (``CEILINGS``).

    The sentence begins with the first of these numbers.
    """
    return (
        f"predicted by the mean perturbation, {n['by_others']:.0f} by other predictors, "
        f"{n['room']:.0f} leave{'s' if n['room'] == 1 else ''} room for improvement, and the "
        f"effects of {n['not_measurable']:.0f} are too small to be measured"
    )


def _shrinkage(rows: _Rows) -> Part:
    cells, nothing, level = rows["error_to_raw_means"], rows["error_to_no_effect"], CARE
    hopeless = rows["coverage_90_large"].is_hopeless
    if hopeless:
        level, start = NOT, _strong(rows)
    elif rows["coverage_90"].is_hopeless:
        level, start = NOT, "do not use the shrunken effects."
    elif not nothing.value < 1:
        level, start = NOT, "do not use them, they are estimated no better than by no effect"
        start += ", and by the cells' means worse." if cells.value < 1 else "."
    elif not cells.is_judged:
        start = f"use the cells' means; whether shrunken effects are better {_NOT_JUDGED}."
    elif not cells.passed:
        start = "use the cells' means, not the shrunken effects."
    elif not nothing.is_judged:
        start = f"whether shrunken effects are better than no effect {_NOT_JUDGED}."
    else:
        level = TRUST if nothing.passed and _cover(rows) else CARE
        start = "use the shrunken effects."
    split, half = rows["n_by_guides"], "half of the cells"
    if split.value:
        half = "half of the guides"
        if n_by_cells := split.n - int(split.value):
            half += f" (half of the cells for {n_by_cells} of {split.n} perturbations)"
    words = (
        f"Learned from {half}, shrunken effects have on the other half a squared error of "
        f"{_number(cells)} relative to the cells' means and of {_number(nothing)} relative to no "
        f"effect."
    )
    if not hopeless:  # else it comes first
        words += f" {_intervals(rows)}."
    first, plain = (rows[f"own_state_first{by}"] for by in ("", "_by_raw_means"))
    if first.n:
        words += (
            f" A distinct perturbation ranks first towards its own state in "
            f"{100 * first.value:.0f}% of cases ({100 * plain.value:.0f}% by the cells' means)."
        )
    return Part(q.SHRINKAGE, level, f"Effects: {start} {words}")


def _unseen(rows: _Rows, predictors: pd.DataFrame, n_perturbations: int, ceiling: _Rows) -> Part:
    """Return the verdict on predictions, with what a better predictor could gain.

    ``n_perturbations`` is the number of those that are judged.
    """
    error, mean = rows["error_to_no_effect"], rows["error_to_mean"]
    if not error.n:
        words = "none can be predicted, as each has a target that is not on the panel."
        return Part(q.UNSEEN, NOT, f"Unseen perturbations: {words}")
    single = predictors.iloc[:-1]
    best = single.sort_values("error_to_no_effect", kind="stable").iloc[0]
    pairs = zip(single["predictor"], single["weight"], strict=True)
    used = [f"{name} {weight:.2f}" for name, weight in pairs if weight >= 0.005]  # else 0.00
    words = "There is no effect to predict."
    if np.isfinite(error.value):
        words = (
            f"All predictors together have a squared error of {_number(error)} relative to no "
            f"effect (best alone: {best['predictor']}, {_two_digits(best['error_to_no_effect'])}; "
            f"weights: {', '.join(used) or 'none'})."
        )
    if error.n < n_perturbations:
        words += (
            f" {error.n} of {n_perturbations} were judged: the others have a target that is not "
            f"on the panel."
        )
    counts = {name: ceiling[f"n_{name}"].value for name in q.CEILINGS}
    words += f" Of {ceiling['n_by_mean'].n} perturbations {counts['by_mean']:.0f} are "
    words += ceiling_in_words(counts)
    most, r = ceiling["ceiling_r"].value, ceiling["r"].value
    if np.isfinite(most) and np.isfinite(r):
        words += f" (of the others: correlation {r:.2f}, at most {most:.2f} possible)"
    words += "."
    # No gain: a ratio of about 1 or more, or below it by less than its standard error.
    no_gain = [
        f"do not rank them, they are not {what}"
        for row, what in ((error, "predicted better than by no effect"),
                          (mean, "distinguished better than by the mean perturbation"))
        if not row.value <= q.LARGEST_SHARE or row.value + row.error >= 1
    ]  # fmt: skip
    if rows["coverage_90_large"].is_hopeless:
        also = [f"{each.capitalize()}." for each in no_gain[:1]]
        level, words = NOT, " ".join([_strong(rows), *also, words])
    elif no_gain:
        level, words = NOT, f"{no_gain[0]}. {words} {_intervals(rows)}."
    else:
        level = TRUST if error.passed and mean.passed and _cover(rows) else CARE
        hope = "they can be ranked" if level == TRUST else "rank them with care"
        if not (error.is_judged and mean.is_judged):
            hope += f"; how well they are predicted {_NOT_JUDGED}"
        words = f"{hope}. {words} {_intervals(rows)}."
    return Part(q.UNSEEN, level, f"Unseen perturbations: {words}")


def _graph(rows: _Rows) -> Part:
    weight, alone = rows["weight"], rows["error_alone"]
    share, halves = rows["error_to_no_graph"], rows["error_half_added"]
    words = (
        f"Its weight is {weight.value:.2f}. Alone it has a squared error of {_number(alone)} "
        f"relative to no effect; all predictors have one of {share.value:.2f} relative to those "
        "without it."
    )
    if not halves.is_judged:
        words += f" Whether it does harm to measured effects {_NOT_JUDGED}."
    elif not halves.passed:
        words += f" It adds {halves.value:.2f} of the squared error of the cells' means to that of "
        words += "measured effects: fit an empty graph."
    level = TRUST if share.passed and alone.is_below_one and halves.passed else CARE
    start = "it helps" if level == TRUST else "it helps a little"
    if not weight.passed or not share.value < 1:
        level, start = NOT, "it adds nothing here, do not rank unseen perturbations by it"
    elif not share.is_judged:
        start = f"whether it helps {_NOT_JUDGED}"
    return Part(q.GRAPH_PART, level, f"Graph: {start}. {words}")


def _left_out(name: str, rows: _Rows, *, by_condition: bool = False) -> Part:
    """Return the verdict on guides or batches that were left out.

    If effects differ in batches, with what to do if perturbations act differently in them.
    """
    error = rows["error_to_no_effect"]
    what, one = {q.GUIDES: ("Guides", "guide"), q.BATCHES: ("Batches", "batch")}[name]
    disagree = not error.value < 1 or rows["coverage_90"].is_hopeless
    level = NOT if disagree else TRUST if error.passed and _cover(rows) else CARE
    words = (
        f"effects learned without a {one} have a squared error on it of {_number(error)} relative "
        f"to no effect."
    )
    if rows["coverage_90_large"].is_hopeless:
        level, words = NOT, f"{_strong(rows)} {words[:1].upper()}{words[1:]}"
    else:
        words += f" {_intervals(rows)}."
        if not disagree and not error.is_judged:
            words += f" Whether that is better than no effect {_NOT_JUDGED}."
    words = f"{what}: {'they disagree; ' if disagree else ''}{words}"
    if name == q.BATCHES and (level == NOT or (level == CARE and not _cover(rows))):
        if by_condition:  # an average does not predict another condition, and need not
            level = CARE
            words += " Use those of each condition: tl.perturbation_effects(condition=...)."
        else:
            words += (
                " If these batches are conditions, such as cell lines, give condition_key to "
                "pp.setup_screen, and fit again: effects are then estimated in each."
            )
    return Part(name, level, words)


def _undeclared(found: Nested) -> Part:
    level = {True: NOT, False: TRUST, None: CARE}[found.scatters]
    end = f"If its levels are guides, declare it with {found.call}."
    if found.scatters:
        end = f"Intervals and tests of this fit ignore it: declare it with {found.call}, and fit "
        end += "again."
    words = (
        f"adata.obs[{found.column!r}] is not declared, but its {found.n_levels} levels nest in the "
        f"perturbation labels, as guides do: {found.scatter_in_words()}. {end}"
    )
    return Part(q.GUIDES, level, f"Guides: {words}")


def _percent(share: float) -> str:
    """Return a share in percent, with two digits below 10%."""
    return f"{100 * share:.2f}%" if share < 0.1 else f"{100 * share:.0f}%"


def _cover(rows: _Rows) -> bool:
    """Whether intervals pass their rules; those of large effects only if there are enough."""
    return bool(rows["coverage_90"].passed) and rows["coverage_90_large"].passed is not False


def _strong(rows: _Rows) -> str:
    """Return the warning of large effects that intervals do not cover."""
    return f"{_intervals(rows)}: do not rely on them for strong perturbations."


def _intervals(rows: _Rows) -> str:
    covered, clear = rows["coverage_90"], rows["coverage_90_large"]
    if not np.isfinite(covered.value):
        return f"The coverage of 90% intervals {_NOT_JUDGED}"
    words = f"90% intervals cover {100 * covered.value:.0f}% of all effects"
    if clear.passed is None:  # too few
        return words
    but = "but only" if clear.value < q.LEAST_COVERAGE else "and"
    return f"{words} {but} {100 * clear.value:.0f}% of the large ones"


def _number(row: Quantity) -> str:
    """Return a ratio of errors with its standard error; it may be below 0 by chance."""
    if not np.isfinite(row.value):
        return "unknown size"
    by_chance = "below 0 by chance" if round(row.value, 2) < 0 else ""
    if not np.isfinite(row.error):
        notes = ", ".join(filter(None, [by_chance, "no standard error"]))
        return f"{_two_digits(row.value)} ({notes})"
    end = f" ({by_chance})" if by_chance else ""
    return f"{_two_digits(row.value)} ± {row.error:.2f}{end}"


def _two_digits(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:.2f}"  # no -0.00
