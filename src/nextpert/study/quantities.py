"""The scores of a diagnosis, one table per part, and its quantities, declared as rows.

Verdict, plots and report are read from these quantities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert.core.design.stopping import differing
from nextpert.core.fit.interventions import shift_environments
from nextpert.core.model.scores import (
    SIGNIFICANCE,
    mean_with_error,
    pooled_sizes,
    ratio_with_error,
)
from nextpert.core.screen.guides import UNKNOWN
from nextpert.study.record import spec_of
from nextpert.study.scores import (
    BATCHES,
    COVERAGE,
    COVERED,
    GRAPH_ALONE,
    GUIDES,
    LARGE,
    MEAN_ALONE,
    MEANS,
    NOTHING,
    SHRUNKEN,
    WHOLE,
    WITHOUT_GRAPH,
    R,
    measured,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nextpert.core.fit.cells import FitCells
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.model.effects import Effects


CELLS, SHRINKAGE, UNSEEN, GRAPH_PART = "cells", "shrinkage", "unseen perturbations", "graph"
NEGATIVE, POSITIVE = "negative controls", "positive controls"
FOUND, OPPOSITE, NOT_FOUND = "yes", "opposite direction", "no"  # change of a target gene
N_STANDARD_ERRORS = 2.0  # standard errors
MIN_PERTURBATIONS = 3  # perturbations that can be distinguished
# Thresholds of size, because with many perturbations a negligible gain is also significant: for
# "trust", and for "do not trust".
MAX_ERROR_RATIO = 0.8  # of squared errors
MIN_COVERAGE, HOPELESS_COVERAGE = 0.7, 0.5  # of 90% intervals
MAX_WORSE_RATIO = 1.1  # of squared errors
MAX_GAIN_RATIO = 0.95  # of squared errors, to count as a gain
MIN_GRAPH_WEIGHT = 0.05  # of the graph
MIN_LARGE_EFFECTS = 5  # effects, to judge the coverage of large ones
MAX_FALSE_SHARE = (
    2 * SIGNIFICANCE
)  # of the negative controls: twice what a threshold of 0.05 states
MAX_NULL_WIDTH = 1.2  # of the null: 90% intervals then cover 83%
MAX_TABLE_WIDTH = 1.5  # width, of a quarter of a table's perturbations; real screens: 0.8 to 1.3
MIN_NULL_COVERAGE = 0.85  # of 0 by 90% intervals

NO_ERROR = float("nan")  # of a count, or a number of the fit
Numbers = tuple[float, float, int]  # a value, its standard error, and the number scored


class Rule(NamedTuple):
    """The rule for a quantity, if ``n`` is at least ``min_n``; counts need no standard error."""

    words: str
    holds: Callable[[Quantity], bool]
    is_count: bool = False
    min_n: int = 0


class Quantity(NamedTuple):
    """One row of the summary: rule, value, standard error, and the number scored."""

    part: str
    name: str
    rule: Rule | None
    value: float
    error: float
    n: int

    @property
    def passed(self) -> bool | None:
        """Whether the rule holds and a standard error is known; ``None`` if no rule applies."""
        rule = self.rule
        if rule is None or self.n < rule.min_n or (rule.is_count and np.isnan(self.value)):
            return None
        return bool(rule.holds(self)) and (rule.is_count or bool(np.isfinite(self.error)))

    @property
    def is_hopeless(self) -> bool:
        """Whether fewer than half of the intervals cover the effects, if a rule applies."""
        return self.passed is not None and not self.value >= HOPELESS_COVERAGE

    def __format__(self, spec: str) -> str:
        """Return the value as text, by default with its standard error, and not below 0."""
        if spec:
            return format(self.value, spec)
        error = f"± {self.error:.2f}" if np.isfinite(self.error) else "(no standard error)"
        # An unbiased estimate of a squared error may be below 0.
        return f"{max(self.value, 0.0):.2f} {error}"


def _at_most(limit: float, *, is_count: bool = False) -> Rule:
    words = "no more than" if is_count else "at most"  # of ratios, which need a standard error
    return Rule(f"{words} {limit:g}", lambda q: q.value <= limit, is_count)


def _at_least(limit: float, *, is_count: bool = False, min_n: int = 0) -> Rule:
    return Rule(f"at least {limit:g}", lambda q: q.value >= limit, is_count, min_n)


BELOW_ONE = Rule(  # 1e-9: not by rounding alone
    "below 1 by 2 standard errors", lambda q: q.value + N_STANDARD_ERRORS * q.error < 1 - 1e-9
)
_MUCH_BELOW_ONE = Rule(
    f"at most {MAX_ERROR_RATIO:g}, and below 1 by 2 standard errors",
    lambda q: BELOW_ONE.holds(q) and q.value <= MAX_ERROR_RATIO,
)
_NOT_ABOVE_ONE = Rule(
    "not above 1 by 2 standard errors",
    lambda q: q.value - N_STANDARD_ERRORS * q.error <= 1,
    min_n=1,
)
_HALF = Rule("half of them or more", lambda q: 2 * q.value >= q.n, is_count=True, min_n=1)
_ENOUGH = _at_least(MIN_PERTURBATIONS, is_count=True)
_FALSE_LIMITED = _at_most(MAX_FALSE_SHARE, is_count=True)


_LARGE_COVERED = _at_least(MIN_COVERAGE, min_n=MIN_LARGE_EFFECTS)
_Rows = dict[str, tuple[Any, ...]]
_COVERAGE: _Rows = {
    "coverage_90": (_at_least(MIN_COVERAGE), "mean", COVERAGE),
    "coverage_90_large": (_LARGE_COVERED, "coverage", COVERED, LARGE),
}
_ON_OTHER_CELLS: _Rows = {
    "error_to_raw_means": (None, "ratio", SHRUNKEN, MEANS),
    "error_to_no_effect": (BELOW_ONE, "ratio", SHRUNKEN, NOTHING),
    **_COVERAGE,
}
# The quantities of each part with their rules, and how they are computed from its scores: the
# ``"count"`` of true values or of a word in a column, the ``"mean"`` of a column, the ``"ratio"``
# of the totals of two columns, ``"coverage"`` (the same ratio, with the total of the second column
# as ``n``), or ``"gain"`` (see measure). Quantities without these come from elsewhere.
ROWS: dict[str, _Rows] = {
    CELLS: {
        "n_significant": (_ENOUGH, "count", "is_significant"),
        "n_distinct": (_ENOUGH, "count", "is_distinct"),
    },
    NEGATIVE: {
        "n_false": (None,),
        "false_share": (None,),
        "false_share_lower": (_FALSE_LIMITED,),
        "false_share_upper": (None,),
        "false_discovery_rate": (None,),
        "false_discovery_rate_lower": (_FALSE_LIMITED,),
        "coverage_90": (_at_least(MIN_NULL_COVERAGE, min_n=1),),
        "null_width": (_NOT_ABOVE_ONE,),
        "standard_error_factor": (None,),
        "perturbations_width": (_at_most(MAX_TABLE_WIDTH, is_count=True),),
    },
    POSITIVE: {
        "n_found": (_HALF, "count", "target_gene_found", FOUND),
        "n_opposite": (None, "count", "target_gene_found", OPPOSITE),
    },
    SHRINKAGE: {
        "n_by_guides": (None, "count", "split_by", "guides"),
        **_ON_OTHER_CELLS,
        "error_to_raw_means": (_at_most(MAX_WORSE_RATIO), "ratio", SHRUNKEN, MEANS),
    },
    UNSEEN: {
        "error_to_no_effect": (_MUCH_BELOW_ONE, "ratio", WHOLE, NOTHING),
        "error_to_mean": (BELOW_ONE, "gain", MEAN_ALONE),
        **_COVERAGE,
    },
    GRAPH_PART: {
        "weight": (_at_least(MIN_GRAPH_WEIGHT, is_count=True),),
        "error_alone": (None, "ratio", GRAPH_ALONE, NOTHING),
        "error_to_no_graph": (_at_most(MAX_GAIN_RATIO), "gain", WITHOUT_GRAPH),
    },
    GUIDES: _ON_OTHER_CELLS,
    BATCHES: _ON_OTHER_CELLS,
}


def part_scores(
    fit: FittedPosterior, cells: FitCells, effects: Effects, factor: float
) -> dict[str, pd.DataFrame]:
    """Return the scores of all cells by part, one row per perturbation, with labels as index.

    ``effects`` are those that users get, and ``factor`` multiplies standard errors (by the null).
    """
    from_controls, from_others = pooled_sizes(cells.pooled, factor=factor)
    columns = {
        "n_cells": cells.n_cells,
        "squared_distance": from_controls.estimate,
        "q_value": from_controls.q_value,
        "q_value_from_others": from_others.q_value,
        "is_significant": from_controls.q_value < SIGNIFICANCE,
        "is_distinct": differing(from_controls.q_value, from_others.q_value),
    }
    positive = _target_genes(fit, cells, effects, factor)
    return {CELLS: pd.DataFrame(columns, fit.names), POSITIVE: positive}


def _target_genes(
    fit: FittedPosterior, cells: FitCells, effects: Effects, factor: float
) -> pd.DataFrame:
    """Return the positive control: the effect on each perturbation's weakest target gene.

    The weakest target gene has the smallest change, in standard errors, in the cells.
    """
    spec, pooled = spec_of(fit), cells.pooled
    change, error = pooled.to_controls()
    z = change / (factor * np.sqrt(np.maximum(pooled.covariance.diagonal() * error, 1e-300)))
    is_target = (
        measured(spec, cells).own()
        & (cells.n_cells > 0)[:, None]
        & (pooled.variance_ratio[1:] < UNKNOWN)
    )
    weakest = np.arange(len(is_target)), np.where(is_target, np.abs(z), np.inf).argmin(axis=1)
    expected = np.sign(shift_environments(spec.plan, fit.genes, cells.control).shifts)
    if fit.params["shift"] == "knockout":
        expected = np.where(is_target, -1.0, expected)  # also if control means are unknown or 0
    status = np.where(np.sign(effects.mean) * expected < 0, OPPOSITE, FOUND)
    status = np.where(effects.lfsr < SIGNIFICANCE, status, NOT_FOUND)
    has_target = is_target.any(axis=1)
    return pd.DataFrame(
        {
            **{
                f"target_gene_{name}": np.where(has_target, getattr(effects, name)[weakest], np.nan)
                for name in ("mean", "lower", "upper")
            },
            "target_gene_found": np.where(has_target, status[weakest], ""),
        },
        index=fit.names,
    )


def perturbation_table(scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the stored scores of each perturbation; NaN or empty if it was not judged."""
    names = scores[CELLS].index
    halves = {
        "split_by": "split_by",
        SHRUNKEN: "error_half",
        MEANS: "error_half_raw_means",
        NOTHING: "error_half_no_effect",
    }
    parts = [
        scores[CELLS].drop(columns=["is_significant", "is_distinct"]),
        scores[POSITIVE],
        scores[SHRINKAGE][[*halves]].rename(columns=halves),
        scores[UNSEEN][[R]],
    ]
    table = pd.concat([part.reindex(names) for part in parts], axis=1)
    table.insert(0, "perturbation", names)
    texts = ["perturbation", "target_gene_found", "split_by"]
    table[texts] = table[texts].fillna("").apply(strings)
    return table.set_index(np.arange(len(table)))


def quantities(
    scores: Mapping[str, pd.DataFrame], numbers: Mapping[str, Mapping[str, Numbers]]
) -> list[Quantity]:
    """Return the quantities of all parts that were judged, from scores or known ``numbers``."""
    rows = []
    for part, of_part in ROWS.items():
        for name, (rule, *how) in of_part.items():
            if how and part in scores:
                rows.append(Quantity(part, name, rule, *measure(scores[part], *how)))
            elif name in numbers.get(part, ()):
                rows.append(Quantity(part, name, rule, *numbers[part][name]))
    return rows


def measure(scores: pd.DataFrame, kind: str, column: str, under: str = "") -> Numbers:
    """Return a value of the scores of a part, its standard error and its ``n`` (:data:`ROWS`).

    A gain is the ratio of the error of all predictors to that of some. Both errors may be about 0,
    so a hundredth of the error of "no effect" is added to both. The standard error is that of the
    difference of the totals, divided by the denominator. If "no effect" has no error, it is 1.
    """
    of = scores[column]
    if kind == "count":
        return float((of == (under or True)).sum()), NO_ERROR, int((of != "").sum())
    if kind == "mean":
        return *mean_with_error(of), int(of.count())
    if kind == "ratio":
        return *ratio_with_error(of, scores[under]), int(of.count())
    if kind == "coverage":
        return *ratio_with_error(of, scores[under]), int(scores[under].sum())
    little = 0.01 * max(float(scores[NOTHING].sum()), 0.0)
    errors = scores[[WHOLE, column]].dropna()
    n = len(errors)
    if little == 0:
        return 1.0, NO_ERROR, n
    over_sum, under_sum = (max(float(errors[name].sum()), 0.0) + little for name in errors)
    error = float(np.sqrt(n) * (errors[WHOLE] - errors[column]).std(ddof=1)) / under_sum
    return over_sum / under_sum, error, n


def summary_table(quantities: list[Quantity]) -> pd.DataFrame:
    """Return the summary as a table; ``passed`` is ``"yes"``, ``"no"`` or empty."""
    word = {True: "yes", False: "no", None: ""}
    rows = [
        (
            q.part,
            q.name,
            q.value,
            q.error,
            q.n,
            q.rule.words if q.rule and q.passed is not None else "",
            word[q.passed],
        )
        for q in quantities
    ]
    names = ["part", "quantity", "value", "standard_error", "n", "rule", "passed"]
    table = pd.DataFrame(rows, columns=names)
    texts = ["part", "quantity", "rule", "passed"]
    table[texts] = table[texts].apply(strings)
    return table.astype({"value": np.float64, "standard_error": np.float64})
