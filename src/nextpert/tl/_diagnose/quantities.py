"""The quantities of a diagnosis: one table, part by part, with what each means and its rule."""

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
from nextpert.tl._diagnose.unseen import ALONE, MEAN_ALONE, R_OF, WHOLE, WITHOUT_GRAPH

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert._adata.nested import Nested
    from nextpert.core.fit.cells import FitCells
    from nextpert.tl._diagnose.controls import Nulls
    from nextpert.tl._diagnose.halves import Halves
    from nextpert.tl._diagnose.unseen import Unseen

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
        if rule is None or self.n < rule.fewest:
            return None
        return bool(rule.holds(self)) and (rule.is_count or self.is_judged)

    @property
    def is_below_one(self) -> bool:
        """Whether a ratio lies below 1 by 2 standard errors."""
        return self.is_judged and self.value + SURE * self.error < 1 - 1e-9  # not by rounding

    @property
    def is_hopeless(self) -> bool:
        """Whether fewer than half of the intervals cover, where a rule applies."""
        return self.passed is not None and not self.value >= HOPELESS_COVERAGE


_BELOW_ONE = Rule("below 1 by 2 standard errors", lambda q: q.is_below_one)
_MUCH_BELOW_ONE = Rule(
    f"at most {LARGEST_RATIO:g}, and below 1 by 2 standard errors",
    lambda q: q.is_below_one and q.value <= LARGEST_RATIO,
)
_ENOUGH = Rule(f"at least {FEWEST:g}", lambda q: q.value >= FEWEST, is_count=True)
_NO_ERROR = float("nan")  # of a count, or a number of the fit
_LARGE_OF = (
    "the same for large effects only: 3 standard errors or more in {}; n is their number, and no "
    f"rule applies to fewer than {FEWEST_LARGE}"
)
_Numbers = tuple[float, float, int]  # a value, its standard error, of how many


def quantities(
    table: pd.DataFrame,
    on_halves: pd.DataFrame,
    unseen: Unseen,
    left_out: Mapping[str, pd.DataFrame | None],
    halves: Halves,
    cells: FitCells,
    nulls: Nulls,
    called: float,
    undeclared: Nested | None,
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
    undeclared
        A column that looks like guides but is not declared.
    """
    rows: list[Quantity] = []

    def add(part: str, name: str, numbers: _Numbers, words: str, rule: Rule | None = None) -> None:
        rows.append(Quantity(part, name, *numbers, words, rule))

    def cover(part: str, scores: pd.DataFrame, what: str, learned_from: str) -> None:
        """Add the coverage of intervals, of all effects and of large ones."""
        least, of_large = (_at_least(LEAST_COVERAGE, fewest=n) for n in (0, FEWEST_LARGE))
        words = f"fraction of {what} that their 90% intervals cover"
        add(part, "coverage_90", _mean(scores[COVERAGE]), words, least)
        large = *ratio_with_error(scores[COVERED], scores[LARGE]), int(scores[LARGE].sum())
        add(part, "coverage_90_large", large, _LARGE_OF.format(learned_from), of_large)

    guides = halves.guide_column
    by_guides = halves.by_guides[1:][(table["split_by"] != "").to_numpy()]
    column, own_cells = f"adata.obs[{guides!r}]", "the cells that they are learned from"
    also = f", with the variance between levels of {column}" if guides else ""
    add(
        CELLS,
        "n_significant",
        _count(table["is_significant"]),
        "perturbations whose cells differ "
        f"from the controls (false discovery rate {CLEAR:g}{also}); n is all of them",
        _ENOUGH,
    )
    add(CELLS, "n_distinct", _count(table["is_distinct"]),
        "those of them that also differ from the mean of the others", _ENOUGH)  # fmt: skip
    add(
        CELLS,
        "reliability",
        _mean(table["reliability"]),
        "correlation over genes of a "
        "perturbation's effects in the two halves, extrapolated to all cells (Spearman-Brown)",
    )
    rows += _negative(nulls, called, len(table))
    rows += _positive(table)

    split = (
        f" ({column}), half of the guides against the other half; the others have one guide with "
        "enough cells, and are split by cells"
    )
    half = "half of the guides or cells (see n_by_guides)" if by_guides.any() else (
        "half of the cells"
    )  # fmt: skip
    error = (
        f"squared error of effects learned from {half} on the other half, sampling error "
        f"subtracted, relative to that of "
    )
    first = (
        "how often a distinct perturbation ranks first towards its own state, measured in one "
        "half, among all perturbations estimated from the other half, by "
    )
    by_means = _ratio(on_halves[SHRUNKEN], on_halves[MEANS])
    by_nothing = _ratio(on_halves[SHRUNKEN], on_halves[NOTHING])
    distinct = on_halves[table["is_distinct"].to_numpy(bool)]
    add(SHRINKAGE, "n_by_guides", _count(by_guides), "perturbations split into halves by guide"
        + (split if guides else ": none, as no column of guides is known"))  # fmt: skip
    add(SHRINKAGE, "error_to_raw_means", by_means, f"{error}the cells' means", _at_most(NOT_WORSE))
    add(SHRINKAGE, "error_to_no_effect", by_nothing, f"{error}'no effect'", _BELOW_ONE)
    cover(SHRINKAGE, on_halves, "means of the other half", own_cells)
    for name, by in ((SHRUNKEN, "shrunken effects"), (MEANS, "the cells' means")):
        end = "" if name == SHRUNKEN else "_by_raw_means"
        add(SHRINKAGE, f"own_state_first{end}", _mean(distinct[FIRST[name]]), f"{first}{by}")

    said = unseen.table
    by_nothing = _ratio(said[WHOLE], said[NOTHING])
    add(
        UNSEEN,
        "error_to_no_effect",
        by_nothing,
        "squared error of effects on other genes, "
        "predicted without the fold of the perturbation, relative to that of 'no effect'",
        _MUCH_BELOW_ONE,
    )
    add(
        UNSEEN,
        "error_to_mean",
        _gain(said, MEAN_ALONE),
        "the same relative to that of the "
        "weighted mean perturbation, which distinguishes no perturbations",
        _BELOW_ONE,
    )
    cover(UNSEEN, said, "effects on other genes", "the half of the cells that is not scored on")
    kinds = table["ceiling"][table["ceiling"] != ""]
    seen = table[table["ceiling"].isin([BY_MEAN, BY_OTHERS, ROOM])]
    meaning = {
        "by_mean": "perturbations that the mean perturbation predicts with a correlation of at "
        f"least {NEAR_CEILING:g} of what is possible; n is those that are predicted",
        "by_others": "others that all predictors together predict so well",
        "room": "perturbations that a better predictor could predict better",
        "not_measurable": "perturbations that do not differ from the controls, or whose effects a "
        f"perfect predictor would predict with a correlation below {LEAST_CEILING:g}",
    }
    for name, kind in CEILINGS.items():
        add(CEILING, f"n_{name}", _count(kinds == kind), meaning[name])
    add(CEILING, "ceiling_r", _mean(seen["ceiling_r"]), "correlation of a perfect predictor with "
        "the observed effects on other genes (root of their reliability), mean over the "
        "perturbations that are measurable")  # fmt: skip
    add(CEILING, "r", _mean(seen["r_all"]),
        "correlation of predicted and observed effects of the same perturbations")  # fmt: skip

    weight = unseen.left_out[:, list(unseen.weights).index(Graph.name)].std()
    known = unseen.weights[Graph.name], float(weight), int(said[WHOLE].count())
    add(
        GRAPH_PART,
        "weight",
        known,
        "weight of the graph in predictions of perturbations without "
        "cells; the error is the standard deviation over the folds left out",
        _at_least(LEAST_WEIGHT),
    )
    alone = _ratio(said[f"{Graph.name}{ALONE}"], said[NOTHING])
    add(GRAPH_PART, "error_alone", alone, "squared error of predictions by the graph alone, with "
        "the weight that it gets alone, relative to that of 'no effect', which is the prediction "
        "of an empty graph")  # fmt: skip
    add(
        GRAPH_PART,
        "error_to_no_graph",
        _gain(said, WITHOUT_GRAPH),
        "squared error of all predictors together relative to that of all but the graph",
        _at_most(LARGEST_SHARE),
    )
    added = _ratio(on_halves[SHRUNKEN] - on_halves[NO_GRAPH], on_halves[MEANS])
    add(GRAPH_PART, "error_half_added", added, "increase of the squared error of shrunken effects "
        "learned from one half by the graph, relative to that of the cells' means; below 0 it "
        "helps", _at_most(LARGEST_HARM))  # fmt: skip

    for part, scores in left_out.items():
        if scores is None:
            continue
        one = {GUIDES: "guide", BATCHES: "batch"}[part]
        if part == GUIDES:
            spread = float(np.sqrt(cells.guide_variance)), _NO_ERROR, cells.n_guides
            add(part, "spread", spread, "standard deviation between guides of one label, relative "
                "to a cell's noise; n is the number of the controls' guides")  # fmt: skip
        error = (
            f"squared error of effects learned without a {one} on its means, sampling error "
            f"subtracted, relative to that of "
        )
        by_nothing = _ratio(scores[SHRUNKEN], scores[NOTHING])
        add(part, "error_to_no_effect", by_nothing, f"{error}'no effect'", _BELOW_ONE)
        by_means = _ratio(scores[SHRUNKEN], scores[MEANS])
        add(part, "error_to_raw_means", by_means, f"{error}the cells' means")
        cover(part, scores, f"means of the {one} left out", own_cells)
    if undeclared is not None:
        words = (
            f"variance between the levels of adata.obs[{undeclared.column!r}], which nest in the "
            f"perturbation labels without being declared, relative to a cell's noise (median "
            f"gene); {undeclared.scatter_in_words()}; n is the number of levels"
        )
        alike = Rule(
            "no more than sampling (5% level)", lambda _: undeclared.scatters is False, True
        )
        number = undeclared.variance, _NO_ERROR, undeclared.n_levels
        row = Quantity(GUIDES, "undeclared_variance", *number, words, alike)
        rows.insert(sum(each.part != BATCHES for each in rows), row)
    return rows


def _negative(nulls: Nulls, called: float, n_perturbations: int) -> list[Quantity]:
    """Return the quantities of the negative controls; NaN where there are none."""
    table, n = nulls.table, nulls.z.size
    false, width = int(table["n_false"].sum()), nulls.width
    low = high = share = error = covered = covered_error = _NO_ERROR
    few = narrow = None
    if n:
        exact = binomtest(false, n).proportion_ci(method="exact")  # Clopper-Pearson
        low, high, share = float(exact.low), float(exact.high), false / n
        covered = float(table["coverage"].mean())
        error, covered_error = (float(np.sqrt(p * (1 - p) / n)) for p in (share, covered))
        few = Rule(f"no more than {FALSE_SHARE:g}", lambda q: not q.value > FALSE_SHARE, True)
        narrow = Rule("not above 1 by 2 standard errors", lambda _: not width.is_above(1.0))
    rate, least = (min(each / called, 1.0) if called > 0 else _NO_ERROR for each in (share, low))
    what = {
        BY_GUIDES: "control guides",
        BY_BATCHES: "the controls of batches",
        BY_CELLS: "half of the control cells",
        OF_TABLE: "none, because a table has no control cells",
        NOT_JUDGED: "none, because there are too few cells",
    }[nulls.kind]
    size, factor = len(table), nulls.width_of_tests.factor
    rows: list[tuple[str, float, float, int, str, Rule | None]] = [
        ("n_controls", size, _NO_ERROR, int(table["n_cells"].sum()),
         f"groups of control cells that took the place of perturbations ({what}), by folds, the "
         "other controls staying controls; n is their number of cells", None),
        ("n_false", false, _NO_ERROR, n, f"their effects of significant direction (lfsr < "
         f"{CLEAR_SIGN:g}): false discoveries; n is the number of their effects", None),
        ("false_share", share, error, n, "share of their effects that are false discoveries", None),
        ("false_share_lower", low, _NO_ERROR, n,
         "lower end of its 95% interval (Clopper-Pearson)", few),
        ("false_share_upper", high, _NO_ERROR, n,
         "upper end of its 95% interval (Clopper-Pearson)", None),
        ("false_discovery_rate", rate, _NO_ERROR, n, "share of false discoveries among the "
         "significant effects of the perturbations, at most: false_share over the share of their "
         "effects that is significant", None),
        ("false_discovery_rate_lower", least, _NO_ERROR, n,
         "the same with the lower end of the interval", few),
        ("coverage_90", covered, covered_error, n, "fraction of 90% intervals of their effects "
         "that cover 0", _at_least(LEAST_NULL_COVERAGE, fewest=1)),
        ("null_width", width.value, width.error, size, "width of the null: standard deviation of "
         "their differences of means over standard errors, from the median (1 if standard errors "
         "are right)", narrow),
        ("standard_error_factor", factor, _NO_ERROR, size, "factor by which the tests of cells "
         "and of target genes multiply standard errors: the width of the null, where it is "
         "significantly above 1", None),
    ]  # fmt: skip
    if nulls.kind == OF_TABLE:
        small = Rule(
            f"no more than {LARGEST_OF_TABLE:g}", lambda q: q.value <= LARGEST_OF_TABLE, True
        )
        words = (
            "width of the z-scores (1 if standard errors are right and there is no effect) that "
            "the quarter of perturbations that change the least do not exceed"
        )
        wide = nulls.of_perturbations
        rows.append(("perturbations_width", wide, _NO_ERROR, n_perturbations, words, small))
    return [Quantity(NEGATIVE, *row) for row in rows]


def _positive(table: pd.DataFrame) -> list[Quantity]:
    """Return how many target genes change as they should."""
    known = table[table["target_gene_found"] != ""]
    found = known["target_gene_found"]
    by_cells = known["target_gene_z"].abs() >= SURE
    by_cells &= np.sign(known["target_gene_change"]) == known["target_gene_expected"]
    most = Rule("half of them or more", lambda q: 2 * q.value >= q.n, is_count=True, fewest=1)
    counts: list[tuple[str, ArrayLike, str, Rule | None]] = [
        ("n_found", found == FOUND, "perturbations whose (weakest) target gene changes in the "
         f"expected direction (lfsr < {CLEAR_SIGN:g}); n is those with target genes on the panel",
         most),
        ("n_opposite", found == OPPOSITE, "those with a significant change in the opposite "
         "direction", None),
        ("n_found_by_cells", by_cells, "those that change in the expected direction by 2 standard "
         "errors or more by their cells alone", None),
    ]  # fmt: skip
    return [Quantity(POSITIVE, name, *_count(x), words, rule) for name, x, words, rule in counts]


def predictor_table(found: Unseen) -> pd.DataFrame:
    """Return one row per predictor, all together last."""
    table, names = found.table, list(found.weights)
    ratios = [
        ratio_with_error(table[c], table[NOTHING]) for c in (*(f"{x}{ALONE}" for x in names), WHOLE)
    ]
    r = [mean_with_error(table[f"{R_OF}{name}"]) for name in (*names, WHOLE)]
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


def _at_most(limit: float) -> Rule:
    return Rule(f"at most {limit:g}", lambda q: q.value <= limit)


def _at_least(limit: float, fewest: int = 0) -> Rule:
    return Rule(f"at least {limit:g}", lambda q: q.value >= limit, fewest=fewest)


def _count(which: ArrayLike) -> _Numbers:
    return int(np.sum(which)), _NO_ERROR, np.size(which)


def _mean(values: pd.Series) -> _Numbers:
    return *mean_with_error(values), int(values.count())


def _ratio(over: pd.Series, under: pd.Series) -> _Numbers:
    """Return a ratio of sums over perturbations and its standard error, left out one by one."""
    return *ratio_with_error(over, under), int(over.count())


def _gain(table: pd.DataFrame, under: str) -> _Numbers:
    """Return the ratio of the error of all predictors to that of some: both may be about 0.

    ``under`` is the column of the latter; the ratio of 0 to 0 is 1.
    """
    little = 0.01 * max(float(table[NOTHING].sum()), 0.0)
    both = table[[WHOLE, under]].dropna()
    n = len(both)
    if little == 0:
        return 1.0, _NO_ERROR, n
    over_sum, under_sum = (max(float(both[each].sum()), 0.0) + little for each in both)
    # The standard error of the difference of the totals, relative to the denominator.
    error = float(np.sqrt(n) * (both[WHOLE] - both[under]).std(ddof=1)) / under_sum
    return over_sum / under_sum, error, n
