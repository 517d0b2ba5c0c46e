"""The quantities of a diagnosis, declared as rows: part, name, how it is computed, rule, meaning.

Scores are tables with one row per perturbation, one table for each part, NaN where a perturbation
is not judged; verdict, plots and report are read from the quantities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert._adata.effects import CLEAR_SIGN
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.scores import mean_with_error, ratio_with_error
from nextpert.tl._diagnose.judged import COVERAGE, COVERED, FIRST, LARGE, MEANS, NOTHING, SHRUNKEN
from nextpert.tl._diagnose.unseen import ALONE, MEAN_ALONE, WHOLE, WITHOUT_GRAPH

if TYPE_CHECKING:
    from nextpert._adata.nested import Nested
    from nextpert.tl._diagnose.unseen import Unseen

CELLS, SHRINKAGE, UNSEEN, GRAPH_PART = "cells", "shrinkage", "unseen perturbations", "graph"
GUIDES, BATCHES = "guides", "batches"
NEGATIVE, POSITIVE, CEILING = "negative controls", "positive controls", "ceiling"
FOUND, OPPOSITE, NOT_FOUND = "yes", "opposite direction", "no"  # a target gene's own change
# What a better predictor could gain.
BY_MEAN, BY_OTHERS = "predicted by the mean perturbation", "predicted by other predictors"
ROOM, NOT_MEASURABLE = "room for improvement", "not measurable"
SURE = 2.0  # standard errors
CLEAR = 0.05  # false discovery rate
FEWEST = 3  # perturbations that can be distinguished
# Thresholds of size, because with many perturbations a negligible gain is significant too: those
# of "trust", and those of "do not trust".
LARGEST_RATIO = 0.8  # of squared errors
LEAST_COVERAGE, HOPELESS_COVERAGE = 0.7, 0.5  # of 90% intervals
NOT_WORSE = 1.1  # of squared errors
LARGEST_SHARE = 0.95  # the same, of what is a gain
LEAST_WEIGHT = 0.05  # of the graph
LARGEST_HARM = 0.1  # of the graph to measured effects, over the error of the cells' means
FEWEST_LARGE = 5  # effects, to judge the coverage of large ones
FALSE_SHARE = 2 * CLEAR_SIGN  # of the negative controls: twice what a threshold of 0.05 states
LARGEST_WIDTH = 1.2  # of the null: 90% intervals then cover 83%
LARGEST_OF_TABLE = 1.5  # of a quarter of a table's perturbations; 0.8 to 1.3 on four real screens
LEAST_NULL_COVERAGE = 0.85  # of 0 by 90% intervals
# Correlation that a perfect predictor would have with the observed effects; below, the halves of
# its cells have a reliability under a quarter, as effects that are mostly sampling error have.
LEAST_CEILING = 0.5
NEAR_CEILING = 0.8  # of the ceiling: explains 64% of what can be explained, or more

NO_ERROR = float("nan")  # of a count, or a number of the fit
Numbers = tuple[float, float, int]  # a value, its standard error, of how many


class Rule(NamedTuple):
    """The rule for a quantity of ``fewest`` or more; a count needs no standard error."""

    words: str
    holds: Callable[[Quantity], bool]
    is_count: bool = False
    fewest: int = 0


@dataclass(frozen=True)
class Quantity:
    """One row of the summary: a value, its standard error, and of how many it is."""

    part: str
    name: str
    value: float
    error: float
    n: int
    meaning: str
    rule: Rule | None = None

    @property
    def is_judged(self) -> bool:
        """Whether it has a standard error; without one no rule is passed."""
        return bool(np.isfinite(self.value) and np.isfinite(self.error))

    @property
    def passed(self) -> bool | None:
        """Whether it passes its rule; ``None`` where none applies."""
        rule = self.rule
        if rule is None or self.n < rule.fewest or (rule.is_count and np.isnan(self.value)):
            return None
        return bool(rule.holds(self)) and (rule.is_count or self.is_judged)

    @property
    def is_hopeless(self) -> bool:
        """Whether fewer than half of the intervals cover, where a rule applies."""
        return self.passed is not None and not self.value >= HOPELESS_COVERAGE

    def __format__(self, spec: str) -> str:
        """Return the value, by default a ratio with its standard error."""
        if spec:
            return format(self.value, spec)
        if not np.isfinite(self.value):
            return "unknown size"
        error = f"± {self.error:.2f}" if np.isfinite(self.error) else "(no standard error)"
        return f"{round(self.value, 2) + 0.0:.2f} {error}"  # no -0.00


def _at_most(limit: float, *, is_count: bool = False) -> Rule:
    words = "no more than" if is_count else "at most"
    return Rule(f"{words} {limit:g}", lambda q: q.value <= limit, is_count)


def _at_least(limit: float, *, is_count: bool = False, fewest: int = 0) -> Rule:
    return Rule(f"at least {limit:g}", lambda q: q.value >= limit, is_count, fewest)


def _is_below_one(q: Quantity) -> bool:
    return q.value + SURE * q.error < 1 - 1e-9  # not by rounding


BELOW_ONE = Rule("below 1 by 2 standard errors", _is_below_one)
_MUCH_BELOW_ONE = Rule(
    f"at most {LARGEST_RATIO:g}, and below 1 by 2 standard errors",
    lambda q: _is_below_one(q) and q.value <= LARGEST_RATIO,
)
_NOT_ABOVE_ONE = Rule("not above 1 by 2 standard errors", lambda q: q.value - SURE * q.error <= 1)
_HALF = Rule("half of them or more", lambda q: 2 * q.value >= q.n, is_count=True, fewest=1)
_ENOUGH = _at_least(FEWEST, is_count=True)
_FEW_FALSE = _at_most(FALSE_SHARE, is_count=True)


class Row(NamedTuple):
    """How a quantity is computed from the scores of its part, its rule, and what it means.

    ``how`` is ``"count"`` or ``"mean"`` of a column, ``"ratio"`` of the totals of two,
    ``"coverage"``, the same with the total of the second as ``n``, or ``"gain"`` (see
    :func:`measure`); empty for numbers that are not computed from perturbations.
    """

    part: str
    name: str
    how: tuple[str, ...]
    rule: Rule | None
    meaning: str


def _held_out(part: str, of: str, cells: str) -> list[Row]:
    """Return the coverage of intervals, of all effects and of large ones."""
    return [
        Row(part, "coverage_90", ("mean", COVERAGE), _at_least(LEAST_COVERAGE),
            f"fraction of {of} that their 90% intervals cover"),
        Row(part, "coverage_90_large", ("coverage", COVERED, LARGE),
            _at_least(LEAST_COVERAGE, fewest=FEWEST_LARGE),
            f"the same for large effects only: 3 standard errors or more in {cells}; n is their "
            f"number, and no rule applies to fewer than {FEWEST_LARGE}"),
    ]  # fmt: skip


_HALF_ERROR = (
    "squared error of effects learned from half of the guides or cells (see n_by_guides) on the "
    "other half, sampling error subtracted, relative to that of"
)
_OWN_STATE = (
    "how often a distinct perturbation ranks first towards its own state, measured in one half, "
    "among all perturbations estimated from the other half, by"
)
_LEARNED_FROM = "the cells that they are learned from"
ROWS = [
    Row(CELLS, "n_significant", ("count", "is_significant"), _ENOUGH,
        f"perturbations whose cells differ from the controls (false discovery rate {CLEAR:g}, the "
        "variance between levels of a column of guides included); n is all of them"),
    Row(CELLS, "n_distinct", ("count", "is_distinct"), _ENOUGH,
        "those of them that also differ from the mean of the others"),
    Row(CELLS, "reliability", ("mean", "reliability"), None,
        "correlation over genes of a perturbation's effects in the two halves, extrapolated to all "
        "cells (Spearman-Brown)"),
    Row(NEGATIVE, "n_controls", (), None,
        "groups of control cells that took the place of perturbations, by folds, the other "
        "controls staying controls; n is their number of cells"),
    Row(NEGATIVE, "n_false", (), None,
        f"their effects of significant direction (lfsr < {CLEAR_SIGN:g}): false discoveries; n is "
        "the number of their effects"),
    Row(NEGATIVE, "false_share", (), None, "share of their effects that are false discoveries"),
    Row(NEGATIVE, "false_share_lower", (), _FEW_FALSE,
        "lower end of its 95% interval (Clopper-Pearson)"),
    Row(NEGATIVE, "false_share_upper", (), None,
        "upper end of its 95% interval (Clopper-Pearson)"),
    Row(NEGATIVE, "false_discovery_rate", (), None,
        "share of false discoveries among the significant effects of the perturbations, at most: "
        "false_share over the share of their effects that is significant"),
    Row(NEGATIVE, "false_discovery_rate_lower", (), _FEW_FALSE,
        "the same with the lower end of the interval"),
    Row(NEGATIVE, "coverage_90", (), _at_least(LEAST_NULL_COVERAGE, fewest=1),
        "fraction of 90% intervals of their effects that cover 0"),
    Row(NEGATIVE, "null_width", (), _NOT_ABOVE_ONE._replace(fewest=1),
        "width of the null: standard deviation of their differences of means over standard errors, "
        "from the median (1 if standard errors are right)"),
    Row(NEGATIVE, "standard_error_factor", (), None,
        "factor by which the tests of cells and of target genes multiply standard errors: the "
        "width of the null, where it is significantly above 1"),
    Row(NEGATIVE, "perturbations_width", (), _at_most(LARGEST_OF_TABLE, is_count=True),
        "width of the z-scores (1 if standard errors are right and there is no effect) that the "
        "quarter of perturbations that change the least do not exceed"),
    Row(POSITIVE, "n_found", ("count", FOUND), _HALF,
        "perturbations whose (weakest) target gene changes in the expected direction (lfsr < "
        f"{CLEAR_SIGN:g}); n is those with target genes on the panel"),
    Row(POSITIVE, "n_opposite", ("count", OPPOSITE), None,
        "those with a significant change in the opposite direction"),
    Row(POSITIVE, "n_found_by_cells", ("count", "by_cells"), None,
        "those that change in the expected direction by 2 standard errors or more by their cells "
        "alone"),
    Row(SHRINKAGE, "n_by_guides", ("count", "by_guides"), None,
        "perturbations split into halves by guide; the others have one guide with enough cells, or "
        "no column of guides is known, and are split by cells"),
    Row(SHRINKAGE, "error_to_raw_means", ("ratio", SHRUNKEN, MEANS), _at_most(NOT_WORSE),
        f"{_HALF_ERROR} the cells' means"),
    Row(SHRINKAGE, "error_to_no_effect", ("ratio", SHRUNKEN, NOTHING), BELOW_ONE,
        f"{_HALF_ERROR} 'no effect'"),
    *_held_out(SHRINKAGE, "means of the other half", _LEARNED_FROM),
    Row(SHRINKAGE, "own_state_first", ("mean", FIRST[SHRUNKEN]), None,
        f"{_OWN_STATE} shrunken effects"),
    Row(SHRINKAGE, "own_state_first_by_raw_means", ("mean", FIRST[MEANS]), None,
        f"{_OWN_STATE} the cells' means"),
    Row(UNSEEN, "error_to_no_effect", ("ratio", WHOLE, NOTHING), _MUCH_BELOW_ONE,
        "squared error of effects on other genes, predicted without the fold of the perturbation, "
        "relative to that of 'no effect'"),
    Row(UNSEEN, "error_to_mean", ("gain", MEAN_ALONE), BELOW_ONE,
        "the same relative to that of the weighted mean perturbation, which distinguishes no "
        "perturbations"),
    *_held_out(UNSEEN, "effects on other genes", "the half of the cells that is not scored on"),
    Row(CEILING, "n_by_mean", ("count", BY_MEAN), None,
        "perturbations that the mean perturbation predicts with a correlation of at least "
        f"{NEAR_CEILING:g} of what is possible; n is those that are predicted"),
    Row(CEILING, "n_by_others", ("count", BY_OTHERS), None,
        "others that all predictors together predict so well"),
    Row(CEILING, "n_room", ("count", ROOM), None,
        "perturbations that a better predictor could predict better"),
    Row(CEILING, "n_not_measurable", ("count", NOT_MEASURABLE), None,
        "perturbations that do not differ from the controls, or whose effects a perfect predictor "
        f"would predict with a correlation below {LEAST_CEILING:g}"),
    Row(CEILING, "ceiling_r", ("mean", "ceiling_r"), None,
        "correlation of a perfect predictor with the observed effects on other genes (root of "
        "their reliability), mean over the perturbations that are measurable"),
    Row(CEILING, "r", ("mean", "r_all"), None,
        "correlation of predicted and observed effects of the same perturbations"),
    Row(GRAPH_PART, "weight", (), _at_least(LEAST_WEIGHT),
        "weight of the graph in predictions of perturbations without cells; the error is the "
        "standard deviation over the folds left out"),
    Row(GRAPH_PART, "error_alone", ("ratio", f"{Graph.name}{ALONE}", NOTHING), None,
        "squared error of predictions by the graph alone, with the weight that it gets alone, "
        "relative to that of 'no effect', which is the prediction of an empty graph"),
    Row(GRAPH_PART, "error_to_no_graph", ("gain", WITHOUT_GRAPH), _at_most(LARGEST_SHARE),
        "squared error of all predictors together relative to that of all but the graph"),
    Row(GRAPH_PART, "error_half_added", ("ratio", "added", MEANS), _at_most(LARGEST_HARM),
        "increase of the squared error of shrunken effects learned from one half by the graph, "
        "relative to that of the cells' means; below 0 it helps"),
]  # fmt: skip
for _part, _one in ((GUIDES, "guide"), (BATCHES, "batch")):
    _ERROR = (
        f"squared error of effects learned without a {_one} on its means, sampling error "
        f"subtracted, relative to that of"
    )
    ROWS += [
        Row(_part, "error_to_no_effect", ("ratio", SHRUNKEN, NOTHING), BELOW_ONE,
            f"{_ERROR} 'no effect'"),
        Row(_part, "error_to_raw_means", ("ratio", SHRUNKEN, MEANS), None,
            f"{_ERROR} the cells' means"),
        *_held_out(_part, f"means of the {_one} left out", _LEARNED_FROM),
    ]  # fmt: skip


def quantities(
    scores: Mapping[str, pd.DataFrame],
    known: Mapping[tuple[str, str], Numbers],
    undeclared: Nested | None,
) -> list[Quantity]:
    """Return the quantities of all parts that were judged.

    Parameters
    ----------
    scores
        Scores by part, one row per perturbation.
    known
        Numbers that are not computed from these, by part and name.
    undeclared
        A column that looks like guides but is not declared.
    """
    rows = []
    for part, name, how, rule, meaning in ROWS:
        if how and part in scores:
            rows.append(Quantity(part, name, *measure(scores[part], *how), meaning, rule))
        elif (part, name) in known:
            rows.append(Quantity(part, name, *known[part, name], meaning, rule))
    if undeclared is not None:
        meaning = (
            f"variance between the levels of adata.obs[{undeclared.column!r}], which nest in the "
            f"perturbation labels without being declared, relative to a cell's noise (median "
            f"gene); {undeclared.scatter_in_words()}; n is the number of levels"
        )
        rule = Rule(
            "no more than sampling (5% level)", lambda _: undeclared.scatters is False, True
        )
        number = undeclared.variance, NO_ERROR, undeclared.n_levels
        rows.append(Quantity(GUIDES, "undeclared_variance", *number, meaning, rule))
    return rows


def measure(scores: pd.DataFrame, kind: str, column: str, under: str = "") -> Numbers:
    """Return a value of the scores of a part, its standard error and its ``n`` (:class:`Row`).

    A gain is the ratio of the error of all predictors to that of some. Both may be about 0, so a
    hundredth of the error of "no effect" is added to both. Its standard error is that of the
    difference of the totals, relative to the denominator. Where nothing is to be predicted it is 1.
    """
    of = scores[column]
    if kind == "count":
        return float(of.sum()), NO_ERROR, int(of.count())
    if kind == "mean":
        return *mean_with_error(of), int(of.count())
    if kind == "ratio":
        return *ratio_with_error(of, scores[under]), int(of.count())
    if kind == "coverage":
        return *ratio_with_error(of, scores[under]), int(scores[under].sum())
    little = 0.01 * max(float(scores[NOTHING].sum()), 0.0)
    both = scores[[WHOLE, column]].dropna()
    n = len(both)
    if little == 0:
        return 1.0, NO_ERROR, n
    over_sum, under_sum = (max(float(both[each].sum()), 0.0) + little for each in both)
    error = float(np.sqrt(n) * (both[WHOLE] - both[column]).std(ddof=1)) / under_sum
    return over_sum / under_sum, error, n


def predictor_table(unseen: Unseen) -> pd.DataFrame:
    """Return one row per predictor, all together last."""
    table, names = unseen.table, list(unseen.weights)
    ratios = [
        ratio_with_error(table[c], table[NOTHING]) for c in (*(f"{x}{ALONE}" for x in names), WHOLE)
    ]
    error, se = np.transpose(ratios)
    return pd.DataFrame(
        {
            "predictor": strings([*names, WHOLE]),
            "weight": np.array([*unseen.weights.values(), np.nan]),
            "error_to_no_effect": error,
            "error_to_no_effect_se": se,
        },
        index=pd.Index(np.arange(len(error))),
    )


def summary_table(quantities: list[Quantity]) -> pd.DataFrame:
    """Return the summary as a table; ``passed`` is ``"yes"``, ``"no"`` or empty."""
    word = {True: "yes", False: "no", None: ""}
    rules = (q.rule.words if q.rule and q.passed is not None else "" for q in quantities)
    return pd.DataFrame(
        {
            "part": strings(q.part for q in quantities),
            "quantity": strings(q.name for q in quantities),
            "value": np.array([q.value for q in quantities], dtype=np.float64),
            "standard_error": np.array([q.error for q in quantities], dtype=np.float64),
            "n": np.array([q.n for q in quantities], dtype=np.int64),
            "rule": strings(rules),
            "passed": strings(word[q.passed] for q in quantities),
            "meaning": strings(q.meaning for q in quantities),
        },
        index=pd.Index(np.arange(len(quantities))),
    )
