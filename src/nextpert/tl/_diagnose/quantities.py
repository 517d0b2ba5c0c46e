"""The quantities of a diagnosis: part by part, with the rule for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from nextpert._adata import strings
from nextpert._adata.effects import CLEAR_SIGN
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.scores import mean_with_error, ratio_with_error
from nextpert.tl._diagnose.controls import BY_BATCHES, BY_CELLS, BY_GUIDES, NOT_JUDGED, OF_TABLE
from nextpert.tl._diagnose.judged import (
    COVERAGE,
    COVERED,
    FIRST,
    LARGE,
    MEANS,
    NO_GRAPH,
    NOTHING,
    SHRUNKEN,
)
from nextpert.tl._diagnose.unseen import MEAN_ALONE, WHOLE, WITHOUT_GRAPH, alone, r_of

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert._adata.nested import Nested
    from nextpert.tl._diagnose.controls import Nulls
    from nextpert.tl._diagnose.halves import Halves
    from nextpert.tl._diagnose.unseen import Unseen
    from nextpert.tl._fit_dag_blr.cells import FitCells

CELLS, SHRINKAGE, UNSEEN, GRAPH_PART = "cells", "shrinkage", "unseen perturbations", "graph"
GUIDES, BATCHES = "guides", "batches"
NEGATIVE, POSITIVE, CEILING = "negative controls", "positive controls", "ceiling"
FOUND, OPPOSITE, NOT_FOUND = "yes", "opposite direction", "no"  # a target gene's own change
# What a better predictor could gain.
BY_MEAN, BY_OTHERS = "predicted by the mean perturbation", "predicted by other predictors"
ROOM, NOT_MEASURABLE = "room for improvement", "not measurable"
CEILINGS = {"by_mean": BY_MEAN, "by_others": BY_OTHERS, "room": ROOM,
            "not_measurable": NOT_MEASURABLE}  # fmt: skip
FEWEST = 3  # perturbations that can be distinguished
SURE = 2.0  # standard errors
CLEAR = 0.05  # false discovery rate
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


class Rule(NamedTuple):
    """The rule for a quantity of ``fewest`` or more; a count needs no standard error."""

    words: str
    holds: Callable[[Quantity], bool]
    is_count: bool = False
    fewest: int = 0


@dataclass(frozen=True)
class Quantity:
    """One row of the summary."""

    part: str
    name: str
    value: float
    error: float
    n: int
    rule: Rule | None
    meaning: str

    @property
    def is_judged(self) -> bool:
        """Whether it has a standard error; without one no rule is passed."""
        return bool(np.isfinite(self.value) and np.isfinite(self.error))

    @property
    def passed(self) -> bool | None:
        """Whether it passes its rule; ``None`` where none applies."""
        rule = self.rule
        if rule is None or self.n < rule.fewest:
            return None
        return bool(rule.holds(self)) and (rule.is_count or self.is_judged)

    @property
    def is_below_one(self) -> bool:
        """Whether a ratio lies below 1 by 2 standard errors."""
        return self.is_judged and self.value + SURE * self.error < 1

    @property
    def is_no_gain(self) -> bool:
        """Whether a ratio is about 1 or more, or lies below by less than its standard error."""
        return not self.value <= LARGEST_SHARE or self.value + self.error >= 1

    @property
    def is_hopeless(self) -> bool:
        """Whether fewer than half of the intervals cover, where a rule applies."""
        return self.passed is not None and not self.value >= HOPELESS_COVERAGE


def _at_most(limit: float) -> Rule:
    return Rule(f"at most {limit:g}", lambda q: q.value <= limit)


def _at_least(limit: float, *, is_count: bool = False, fewest: int = 0) -> Rule:
    return Rule(f"at least {limit:g}", lambda q: q.value >= limit, is_count, fewest)


_BELOW_ONE = Rule("below 1 by 2 standard errors", lambda q: q.is_below_one)
_MUCH_BELOW_ONE = Rule(
    f"at most {LARGEST_RATIO:g}, and below 1 by 2 standard errors",
    lambda q: q.is_below_one and q.value <= LARGEST_RATIO,
)
_ENOUGH = _at_least(FEWEST, is_count=True)
_OF_HALF = (
    "squared error of effects learned from {half} on the other half, sampling error subtracted, "
    "relative to that of "
)
_OF_LEFT_OUT = (
    "squared error of effects learned without a {one} on its means, sampling error subtracted, "
    "relative to that of "
)
_FIRST = (
    "how often a distinct perturbation ranks first towards its own state, measured in one half, "
    "among all perturbations estimated from the other half, by "
)
_COVERED = "fraction of {} that their 90% intervals cover"
_OF_LARGE = (
    "the same for large effects only: 3 standard errors or more in {}; n is their number, and no "
    f"rule applies to fewer than {FEWEST_LARGE}"
)
_LEARNED_FROM = _OF_LARGE.format("the cells that they are learned from")
_LEFT_OUT = {
    "error_to_no_effect": f"{_OF_LEFT_OUT}'no effect'",
    "error_to_raw_means": f"{_OF_LEFT_OUT}the cells' means",
    "coverage_90": _COVERED.format("means of the {one} left out"),
    "coverage_90_large": _LEARNED_FROM,
}
# What each quantity means.
_MEANINGS: dict[str, dict[str, str]] = {
    CELLS: {
        "n_significant": "perturbations whose cells differ from the controls (false discovery rate "
        f"{CLEAR:g}{{also}}); n is all of them",
        "n_distinct": "those of them that also differ from the mean of the others",
        "n_target_genes_changed": "perturbations whose target genes change by 3 standard errors "
        "or more; n is those with target genes on the panel",
        "reliability": "correlation over genes of a perturbation's effects in the two halves, "
        "extrapolated to all cells (Spearman-Brown)",
    },
    NEGATIVE: {
        "n_controls": "groups of control cells that took the place of perturbations ({nulls}), by "
        "folds, the other controls staying controls; n is their number of cells",
        "n_false": f"their effects of significant direction (lfsr < {CLEAR_SIGN:g}): false "
        "discoveries; n is the number of their effects",
        "false_share": "share of their effects that are false discoveries",
        "false_share_lower": "lower end of its 95% interval (Clopper-Pearson)",
        "false_share_upper": "upper end of its 95% interval (Clopper-Pearson)",
        "false_discovery_rate": "share of false discoveries among the significant effects of the "
        "perturbations, at most: false_share over the share of their effects that is significant",
        "false_discovery_rate_lower": "the same with the lower end of the interval",
        "coverage_90": "fraction of 90% intervals of their effects that cover 0",
        "null_width": "width of the null: standard deviation of their differences of means over "
        "standard errors, from the median (1 if standard errors are right)",
        "standard_error_factor": "factor by which the tests of cells and of target genes multiply "
        "standard errors: the width of the null, where it is significantly above 1",
        "perturbations_width": "width of the z-scores (1 if standard errors are right and there is "
        "no effect) that the quarter of perturbations that change the least do not exceed",
    },
    POSITIVE: {
        "n_found": "perturbations whose (weakest) target gene changes in the expected direction "
        f"(lfsr < {CLEAR_SIGN:g}); n is those with target genes on the panel",
        "n_opposite": "those with a significant change in the opposite direction",
        "n_found_by_cells": "those that change in the expected direction by 2 standard errors or "
        "more by their cells alone",
    },
    SHRINKAGE: {
        "n_by_guides": "perturbations split into halves by guide{how}",
        "error_to_raw_means": f"{_OF_HALF}the cells' means",
        "error_to_no_effect": f"{_OF_HALF}'no effect'",
        "coverage_90": _COVERED.format("means of the other half"),
        "coverage_90_large": _LEARNED_FROM,
        "own_state_first": f"{_FIRST}shrunken effects",
        "own_state_first_by_raw_means": f"{_FIRST}the cells' means",
    },
    UNSEEN: {
        "error_to_no_effect": "squared error of effects on other genes, predicted without the fold "
        "of the perturbation, relative to that of 'no effect'",
        "error_to_mean": "the same relative to that of the weighted mean perturbation, which "
        "distinguishes no perturbations",
        "r": "correlation of predicted and observed effects on other genes",
        "coverage_90": _COVERED.format("effects on other genes"),
        "coverage_90_large": _OF_LARGE.format("the half of the cells that is not scored on"),
    },
    CEILING: {
        "n_by_mean": "perturbations that the mean perturbation predicts with a correlation of at "
        f"least {NEAR_CEILING:g} of what is possible; n is those that are predicted",
        "n_by_others": "others that all predictors together predict so well",
        "n_room": "perturbations that a better predictor could predict better",
        "n_not_measurable": "perturbations that do not differ from the controls, or whose effects "
        f"a perfect predictor would predict with a correlation below {LEAST_CEILING:g}",
        "ceiling_r": "correlation of a perfect predictor with the observed effects on other genes "
        "(root of their reliability), mean over the perturbations that are measurable",
        "r": "correlation of predicted and observed effects of the same perturbations",
        "r_mean_perturbation": "the same of the mean perturbation, where it predicts anything",
    },
    GRAPH_PART: {
        "weight": "weight of the graph in predictions of perturbations without cells; the error is "
        "the standard deviation over the folds left out",
        "error_alone": "squared error of predictions by the graph alone, with the weight that it "
        "gets alone, relative to that of 'no effect', which is the prediction of an empty graph",
        "r": "correlation of predictions by the graph and observed effects on other genes",
        "error_to_no_graph": "squared error of all predictors together relative to that of all "
        "but the graph",
        "error_half_added": "increase of the squared error of shrunken effects learned from one "
        "half by the graph, relative to that of the cells' means; below 0 it helps",
    },
    GUIDES: {
        "spread": "standard deviation between guides of one label, relative to a cell's noise; n "
        "is the number of the controls' guides",
        **_LEFT_OUT,
    },
    BATCHES: _LEFT_OUT,
}


def quantities(
    table: pd.DataFrame,
    on_halves: pd.DataFrame,
    unseen: Unseen,
    left_out: Mapping[str, pd.DataFrame | None],
    halves: Halves,
    cells: FitCells,
    nulls: Nulls,
    called: float,
) -> list[Quantity]:
    """Return the quantities of all parts that were judged.

    Parameters
    ----------
    table
        The table of perturbations.
    on_halves, unseen, left_out
        Scores on halves, of predictions without cells, and with a guide or batch left out.
    halves, cells
        How the cells were split, and all of them as the fit takes them.
    nulls
        The negative controls.
    called
        Share of the effects of the perturbations on other genes that is significant.
    """
    told, own = unseen.table, table["target_gene_z"].abs().dropna()
    distinct = on_halves[table["is_distinct"].to_numpy(bool)]
    by_guides, guides = halves.by_guides[1:], halves.guide_column
    column = f"adata.obs[{guides!r}]"
    added = on_halves[SHRUNKEN] - on_halves[NO_GRAPH]
    weights = unseen.left_out[:, list(unseen.weights).index(Graph.name)]
    numbers: dict[str, dict[str, _Numbers]] = {
        CELLS: {
            "n_significant": _count(table["is_significant"], _ENOUGH),
            "n_distinct": _count(table["is_distinct"], _ENOUGH),
            "n_target_genes_changed": _count(own >= 3),
            "reliability": (*mean_with_error(table["reliability"]), len(table), None),
        },
        NEGATIVE: _negative(nulls, called, len(table)),
        POSITIVE: _positive(table),
        SHRINKAGE: {
            "n_by_guides": _count(by_guides),
            "error_to_raw_means": _ratio(
                on_halves[SHRUNKEN], on_halves[MEANS], _at_most(NOT_WORSE)
            ),
            "error_to_no_effect": _ratio(on_halves[SHRUNKEN], on_halves[NOTHING], _BELOW_ONE),
            **_coverage(on_halves),
            "own_state_first": _mean(distinct[FIRST[SHRUNKEN]]),
            "own_state_first_by_raw_means": _mean(distinct[FIRST[MEANS]]),
        },
        UNSEEN: {
            "error_to_no_effect": _ratio(told[WHOLE], told[NOTHING], _MUCH_BELOW_ONE),
            "error_to_mean": _gain(told, MEAN_ALONE, _BELOW_ONE),
            "r": _mean(told[r_of(WHOLE)]),
            **_coverage(told),
        },
        CEILING: _ceiling(table),
        GRAPH_PART: {
            "weight": (
                unseen.weights[Graph.name], float(weights.std()), told[WHOLE].count(),
                _at_least(LEAST_WEIGHT),
            ),
            "error_alone": _ratio(told[alone(Graph.name)], told[NOTHING]),
            "r": _mean(told[r_of(Graph.name)]),
            "error_to_no_graph": _gain(told, WITHOUT_GRAPH, _at_most(LARGEST_SHARE)),
            "error_half_added": _ratio(added, on_halves[MEANS], _at_most(LARGEST_HARM)),
        },
    }  # fmt: skip
    for part, found in left_out.items():
        if found is None:
            continue
        spread = (float(np.sqrt(cells.guide_variance)), _NO_ERROR, cells.n_guides, None)
        numbers[part] = {
            **({"spread": spread} if part == GUIDES else {}),
            "error_to_no_effect": _ratio(found[SHRUNKEN], found[NOTHING], _BELOW_ONE),
            "error_to_raw_means": _ratio(found[SHRUNKEN], found[MEANS]),
            **_coverage(found),
        }
    split = (
        f" ({column}), half of the guides against the other half; the others have one guide with "
        "enough cells, and are split by cells"
    )
    words = {
        "also": f", with the variance between levels of {column}" if guides else "",
        "how": split if guides else ": none, as no column of guides is known",
        "half": "half of the guides or cells (see n_by_guides)"
        if by_guides.any()
        else "half of the cells",
        "nulls": {
            BY_GUIDES: "control guides",
            BY_BATCHES: "the controls of batches",
            BY_CELLS: "half of the control cells",
            OF_TABLE: "none, because a table has no control cells",
            NOT_JUDGED: "none, because there are too few cells",
        }[nulls.kind],
    }
    one = {GUIDES: "guide", BATCHES: "batch"}
    return [
        Quantity(part, name, *each, _MEANINGS[part][name].format(**words, one=one.get(part)))
        for part, every in numbers.items()
        for name, each in every.items()
    ]


def _negative(nulls: Nulls, called: float, n_perturbations: int) -> dict[str, _Numbers]:
    """Return the quantities of the negative controls; NaN where there are none."""
    table, n = nulls.table, nulls.z.size
    false, width = int(table["n_false"].sum()), nulls.width
    exact = binomtest(false, n).proportion_ci(method="exact") if n else None  # Clopper-Pearson
    low, high = (_NO_ERROR, _NO_ERROR) if exact is None else (float(exact.low), float(exact.high))
    share = false / n if n else _NO_ERROR
    error = float(np.sqrt(share * (1 - share) / n)) if n else _NO_ERROR
    rate, least = (min(each / called, 1.0) if called > 0 else _NO_ERROR for each in (share, low))
    few = Rule(f"no more than {FALSE_SHARE:g}", lambda q: not q.value > FALSE_SHARE, True)
    narrow = Rule("not above 1 by 2 standard errors", lambda _: not width.is_above(1.0))
    covered = float(table["coverage"].mean()) if n else _NO_ERROR
    small = Rule(
        f"no more than {LARGEST_OF_TABLE:g}", lambda q: q.value <= LARGEST_OF_TABLE, is_count=True
    )
    of_table = (nulls.of_perturbations, _NO_ERROR, n_perturbations, small)
    return {
        "n_controls": (len(table), _NO_ERROR, int(table["n_cells"].sum()), None),
        "n_false": (false, _NO_ERROR, n, None),
        "false_share": (share, error, n, None),
        "false_share_lower": (low, _NO_ERROR, n, few if n else None),
        "false_share_upper": (high, _NO_ERROR, n, None),
        "false_discovery_rate": (rate, _NO_ERROR, n, None),
        "false_discovery_rate_lower": (least, _NO_ERROR, n, few if n else None),
        "coverage_90": (
            covered,
            float(np.sqrt(covered * (1 - covered) / n)) if n else _NO_ERROR,
            n,
            _at_least(LEAST_NULL_COVERAGE, fewest=1),
        ),
        "null_width": (width.value, width.error, len(table), narrow if n else None),
        "standard_error_factor": (nulls.width_of_tests.factor, _NO_ERROR, len(table), None),
        **({"perturbations_width": of_table} if nulls.kind == OF_TABLE else {}),
    }


def _positive(table: pd.DataFrame) -> dict[str, _Numbers]:
    """Return how many target genes change as they should."""
    known = table[table["target_gene_found"] != ""]
    found, n = known["target_gene_found"], len(known)
    by_cells = known["target_gene_z"].abs() >= SURE
    by_cells &= np.sign(known["target_gene_change"]) == known["target_gene_expected"]
    most = Rule("half of them or more", lambda q: 2 * q.value >= q.n, is_count=True, fewest=1)
    return {
        "n_found": (int((found == FOUND).sum()), _NO_ERROR, n, most),
        "n_opposite": (int((found == OPPOSITE).sum()), _NO_ERROR, n, None),
        "n_found_by_cells": (int(by_cells.sum()), _NO_ERROR, n, None),
    }


def _ceiling(table: pd.DataFrame) -> dict[str, _Numbers]:
    """Return how many perturbations a better predictor could gain in."""
    kinds = table["ceiling"][table["ceiling"] != ""]
    seen = table[table["ceiling"].isin([BY_MEAN, BY_OTHERS, ROOM])]
    return {
        **{f"n_{name}": _count(kinds == kind) for name, kind in CEILINGS.items()},
        "ceiling_r": _mean(seen["ceiling_r"]),
        "r": _mean(seen["r_all"]),
        "r_mean_perturbation": _mean(seen["r_mean_perturbation"]),
    }


def undeclared_row(found: Nested) -> Quantity:
    """Return the variance between the levels of an undeclared column that looks like guides."""
    return Quantity(
        GUIDES, "undeclared_variance", found.variance, _NO_ERROR, found.n_levels,
        Rule("no more than sampling (5% level)", lambda _: found.scatters is False, is_count=True),
        f"variance between the levels of adata.obs[{found.column!r}], which nest in the "
        "perturbation labels without being declared, relative to a cell's noise (median gene); "
        f"{found.scatter_in_words()}; n is the number of levels",
    )  # fmt: skip


def predictor_table(found: Unseen) -> pd.DataFrame:
    """Return one row per predictor, all together last."""
    table, names = found.table, list(found.weights)
    ratios = [ratio_with_error(table[c], table[NOTHING]) for c in (*map(alone, names), WHOLE)]
    r = [mean_with_error(table[r_of(name)]) for name in (*names, WHOLE)]
    out = pd.DataFrame(
        np.hstack([ratios, r]),
        index=pd.Index(np.arange(len(r))),
        columns=["error_to_no_effect", "error_to_no_effect_se", "r", "r_se"],
    )
    out.insert(0, "predictor", strings([*names, WHOLE]))
    out.insert(1, "weight", np.array([*found.weights.values(), np.nan]))
    return out


# What a table has in place of cells.
_OF_TABLE = {
    "Cells: ": "Effects of the table: ",
    "the cells' means": "the table's effects",
    "by their cells alone": "by the table alone",
    "half of the cells": "half of the table",
    "the cells that they": "the half that they",
    "whose cells differ": "that differ",
    "extrapolated to all cells": "extrapolated to the whole table",
}


def of_table(words: str) -> str:
    """Return what is said of a screen of cells as it is said of a table."""
    for cells, table in _OF_TABLE.items():
        words = words.replace(cells, table)
    return words


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


_Numbers = tuple[float, float, int, Rule | None]  # a value, its standard error, of how many
_NO_ERROR = float("nan")  # of a count, or a number of the fit


def _count(which: ArrayLike, rule: Rule | None = None) -> _Numbers:
    return int(np.sum(which)), _NO_ERROR, np.size(which), rule


def _mean(values: pd.Series, rule: Rule | None = None) -> _Numbers:
    return *mean_with_error(values), values.count(), rule


def _ratio(over: pd.Series, under: pd.Series, rule: Rule | None = None) -> _Numbers:
    """Return a ratio of sums over perturbations and its standard error, left out one by one."""
    return *ratio_with_error(over, under), over.count(), rule


def _gain(table: pd.DataFrame, under: str, rule: Rule) -> _Numbers:
    """Return the ratio of the error of all predictors to that of some: both may be about 0.

    ``under`` is the column of the latter; the ratio of 0 to 0 is 1.
    """
    little = 0.01 * max(float(table[NOTHING].sum()), 0.0)
    both = table[[WHOLE, under]].dropna()
    n = len(both)
    if little == 0:
        return 1.0, _NO_ERROR, n, rule
    over_sum, under_sum = (max(float(both[each].sum()), 0.0) + little for each in both)
    # The standard error of the difference of the totals, relative to the denominator.
    error = float(np.sqrt(n) * (both[WHOLE] - both[under]).std(ddof=1)) / under_sum
    return over_sum / under_sum, error, n, rule


def _coverage(found: pd.DataFrame) -> dict[str, _Numbers]:
    """Return the coverage of intervals, of all effects and of large ones."""
    least, of_large = (_at_least(LEAST_COVERAGE, fewest=n) for n in (0, FEWEST_LARGE))
    large = *ratio_with_error(found[COVERED], found[LARGE]), int(found[LARGE].sum()), of_large
    return {"coverage_90": _mean(found[COVERAGE], least), "coverage_90_large": large}
