"""The quantities of a diagnosis: part by part, with the rule that each is held to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.scores import mean_with_error, ratio_with_error
from nextpert.tl._diagnose.judged import ALONE, MEANS, NO_GRAPH, NOTHING, SHRUNKEN
from nextpert.tl._fit_dag_blr.cells import FEWEST_GUIDES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert._adata.nested import Nested
    from nextpert.tl._diagnose.judged import OnHalves, Scored
    from nextpert.tl._diagnose.unseen import Unseen

    Array = NDArray[np.float64]

CELLS, SHRINKAGE, UNSEEN, GRAPH_PART = "cells", "shrinkage", "unseen perturbations", "graph"
GUIDES, BATCHES = "guides", "batches"
FEWEST = 3  # perturbations that can be told apart
SURE = 2.0  # standard errors
CLEAR = 0.05  # false discovery rate
# Sizes, since with many perturbations a gain of no use is significant too: what it takes to be
# trusted, and what is hopeless.
LARGEST_RATIO = 0.8  # of squared errors
LEAST_COVERAGE, HOPELESS_COVERAGE = 0.7, 0.5  # of intervals that should hold 0.9
NOT_WORSE = 1.1  # of squared errors
LARGEST_SHARE = 0.95  # the same, of what is a gain
LEAST_WEIGHT = 0.05  # of the graph
LARGEST_HARM = 0.1  # of the graph to measured effects, over the error of the cells' means
FEWEST_LARGE = 5  # effects, to judge the coverage of large ones


@dataclass(frozen=True)
class Quantity:
    """One row of the summary; ``passed`` is ``None`` where no rule applies."""

    part: str
    name: str
    value: float
    error: float
    n: int
    meaning: str
    rule: str = ""
    passed: bool | None = None

    @property
    def is_judged(self) -> bool:
        """Whether it has a standard error. Without one there is no evidence to trust it by."""
        return bool(np.isfinite(self.value) and np.isfinite(self.error))

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


def cells_rows(table: pd.DataFrame, guides: str | None) -> list[Quantity]:
    """Return what cells alone say; ``guides`` is the column of guides, if one is known."""
    nan, out = float("nan"), []
    also = "" if guides is None else f", with the variance between levels of adata.obs[{guides!r}]"
    for name, column, rule, meaning in (
        ("n_clear", "is_clear", f"at least {FEWEST}", "perturbations whose cells differ from the "
         f"controls (false discovery rate {CLEAR:g}{also}); n is all of them"),
        ("n_distinct", "is_distinct", f"at least {FEWEST}", "those of them that also differ from "
         "the mean of the others"),
    ):  # fmt: skip
        n = int(table[column].sum())
        passed = n >= FEWEST
        out.append(Quantity(CELLS, name, n, nan, len(table), meaning, rule, passed))
    own = table["own_z"].to_numpy(float)
    known = np.isfinite(own)
    meaning = "perturbations whose own genes change by 3 standard errors or more; n is those with "
    meaning += "own genes on the panel"
    n_own = int((np.abs(own[known]) >= 3).sum())
    out.append(Quantity(CELLS, "n_own", n_own, nan, int(known.sum()), meaning))
    meaning = "correlation over genes of a perturbation's effect in one half and in the other, "
    meaning += "stepped up to all cells"
    value, error = mean_with_error(table["reliability"])
    return [*out, Quantity(CELLS, "reliability", value, error, len(table), meaning)]


def halves_rows(found: OnHalves, distinct: NDArray[np.bool_], split: Quantity) -> list[Quantity]:
    """Return what shrinkage adds to the cells' means; ``split`` says how the halves were made."""
    errors = found.scored.errors
    half = "half of the guides or cells (see n_by_guides)" if split.value else "half of the cells"
    meaning = f"squared error of effects learned from {half} on the other half, sampling error "
    meaning += "subtracted, as a share of that of "
    out = [
        split,
        _ratio(SHRINKAGE, "error_to_cells", errors[SHRUNKEN], errors[MEANS],
               f"{meaning}the cells' means", f"at most {NOT_WORSE:g}", "worse"),
        _ratio(SHRINKAGE, "error_to_nothing", errors[SHRUNKEN], errors[NOTHING],
               f"{meaning}'no effect'", "below 1 by 2 standard errors", "below"),
        _ratio(SHRINKAGE, "error_alone_to_cells", errors[ALONE], errors[MEANS],
               "the same as error_to_cells, shrunken to nothing: without graph and experts"),
        *_coverage(SHRINKAGE, found.scored.coverage, found.scored.large, "means of the other half",
                   "the cells that they are learned from"),
    ]  # fmt: skip
    meaning = "how often a distinct perturbation's own state, as seen in one half, ranks first "
    meaning += "among all perturbations by the other half, by "
    for name, key, by in (
        ("own_state_first", SHRUNKEN, "shrunken effects"),
        ("own_state_first_by_cells", MEANS, "the cells' means"),
    ):
        values = found.first[key][distinct]
        value, error = mean_with_error(values)
        n = int(np.isfinite(values).sum())
        out.append(Quantity(SHRINKAGE, name, value, error, n, f"{meaning}{by}"))
    return out


def split_row(by_guides: NDArray[np.bool_], column: str | None) -> Quantity:
    """Return how many perturbations are split by guide, and by which column."""
    if column is None:
        meaning = "perturbations split into halves by guide: none, as no column of guides is known"
    else:
        meaning = f"perturbations split into halves by guide (adata.obs[{column!r}]), half of the "
        meaning += "guides against the other half; the others have one guide with enough cells, "
        meaning += "and are split by cells"
    n, nan = int(by_guides[1:].sum()), float("nan")
    return Quantity(SHRINKAGE, "n_by_guides", n, nan, len(by_guides) - 1, meaning)


def unseen_rows(found: Unseen) -> list[Quantity]:
    """Return how well perturbations without cells are predicted."""
    nothing = found.nothing
    meaning = "squared error of effects on other genes that are predicted of perturbations without "
    meaning += "their fold of the screen, as a share of that of 'no effect'"
    rule = f"at most {LARGEST_RATIO:g}, and below 1 by 2 standard errors"
    out = [_ratio(UNSEEN, "error_to_nothing", found.whole, nothing, meaning, rule, "small")]
    meaning = "the same as a share of that of the mean perturbation, believed as far as the screen "
    meaning += "says, which tells no perturbations apart"
    out.append(
        _gain(UNSEEN, "error_to_mean", found.whole, found.mean_alone, nothing, meaning,
              "below 1 by 2 standard errors", "below")
    )  # fmt: skip
    out.append(_mean_r(UNSEEN, found.r[0], "what is predicted"))
    what, by = "effects on other genes", "the half of the cells that is not scored on"
    return [*out, *_coverage(UNSEEN, found.coverage, found.large, what, by)]


def graph_rows(found: Unseen, on_halves: OnHalves, measured: float) -> list[Quantity]:
    """Return what the graph adds; ``measured`` is what it counts for in measured effects."""
    k = list(found.weights).index(Graph.name)
    weight, spread = found.weights[Graph.name], found.left_out[:, k]
    n = int(np.isfinite(found.whole).sum())
    meaning = "how far what follows on the graph is believed of perturbations without cells; the "
    meaning += "error is the spread over the folds left out"
    rule = f"at least {LEAST_WEIGHT:g}"
    passed = weight >= LEAST_WEIGHT
    out = [Quantity(GRAPH_PART, "weight", weight, float(spread.std()), n, meaning, rule, passed)]
    meaning = "squared error of what follows on the graph, by the weight that it gets alone, as a "
    meaning += "share of that of 'no effect', which is what an empty graph says"
    out.append(_ratio(GRAPH_PART, "error_alone", found.alone[k], found.nothing, meaning))
    out.append(_mean_r(GRAPH_PART, found.r[1 + k], "what follows on the graph"))
    meaning = "squared error of all predictors together as a share of that of all but the graph"
    out.append(
        _gain(GRAPH_PART, "error_to_no_graph", found.whole, found.without_graph, found.nothing,
              meaning, f"at most {LARGEST_SHARE:g}", "share")
    )  # fmt: skip
    meaning = "what the graph counts for in measured effects, 0 to 1, by the estimated error"
    out.append(
        Quantity(GRAPH_PART, "weight_measured", measured, float("nan"), len(found.whole), meaning)
    )
    meaning = "what the graph adds to the squared error of shrunken effects learned from one half, "
    meaning += "as a share of that of the cells' means; below 0 it helps"
    errors = on_halves.scored.errors
    value, error = ratio_with_error(errors[SHRUNKEN] - errors[NO_GRAPH], errors[MEANS])
    n, rule = int(np.isfinite(errors[MEANS]).sum()), f"at most {LARGEST_HARM:g}"
    added = Quantity(GRAPH_PART, "error_half_added", value, error, n, meaning, rule)
    return [*out, _held_to(added, "harm")]


def left_out_rows(part: str, found: Scored, what: str) -> list[Quantity]:
    """Return how well effects learned without a guide or batch are those in it."""
    errors = found.errors
    meaning = f"squared error of effects learned without a {what} on its means, sampling error "
    meaning += "subtracted, as a share of that of "
    return [
        _ratio(part, "error_to_nothing", errors[SHRUNKEN], errors[NOTHING],
               f"{meaning}'no effect'", "below 1 by 2 standard errors", "below"),
        _ratio(part, "error_to_cells", errors[SHRUNKEN], errors[MEANS],
               f"{meaning}the cells' means"),
        *_coverage(part, found.coverage, found.large, f"means of the {what} left out",
                   "the cells that they are learned from"),
    ]  # fmt: skip


def spread_row(variance: float, n_guides: int) -> Quantity:
    """Return how far guides scatter beyond sampling."""
    whose = "that target nothing" if n_guides >= FEWEST_GUIDES else "of a perturbation"
    meaning = f"standard deviation between guides {whose}, over that of a cell's noise; n is the "
    meaning += "number of the controls' guides"
    return Quantity(GUIDES, "spread", float(np.sqrt(variance)), float("nan"), n_guides, meaning)


def undeclared_row(found: Nested) -> Quantity:
    """Return how far the levels of a column scatter that looks like guides without a role."""
    meaning = f"variance between the levels of adata.obs[{found.column!r}], which nest in the "
    meaning += "perturbation labels without being declared, over that of a cell's noise (median "
    meaning += f"gene); {found.scatter_in_words()}; n is the number of levels"
    passed = found.scatters is False
    return Quantity(
        GUIDES, "undeclared_variance", found.variance, float("nan"), found.n_levels, meaning,
        "no more than sampling (5% level)", passed,
    )  # fmt: skip


def expert_table(found: Unseen) -> pd.DataFrame:
    """Return one row an expert, the stack of them last."""
    ratios = [ratio_with_error(each, found.nothing) for each in (*found.alone, found.whole)]
    r = [mean_with_error(each) for each in (*found.r[1:], found.r[0])]
    return pd.DataFrame(
        {
            "expert": strings([*found.weights, "all together"]),
            "weight": np.array([*found.weights.values(), np.nan]),
            "error_to_nothing": np.array([value for value, _ in ratios]),
            "error_to_nothing_se": np.array([error for _, error in ratios]),
            "r": np.array([value for value, _ in r]),
            "r_se": np.array([error for _, error in r]),
        },
        index=pd.Index(np.arange(len(ratios))),
    )


def summary_table(quantities: list[Quantity]) -> pd.DataFrame:
    """Return the summary as a table; ``passed`` is ``"yes"``, ``"no"`` or empty."""
    word = {True: "yes", False: "no", None: ""}
    return pd.DataFrame(
        {
            "part": strings(q.part for q in quantities),
            "quantity": strings(q.name for q in quantities),
            "value": np.array([q.value for q in quantities], dtype=np.float64),
            "standard_error": np.array([q.error for q in quantities], dtype=np.float64),
            "n": np.array([q.n for q in quantities], dtype=np.int64),
            "rule": strings(q.rule for q in quantities),
            "passed": strings(word[q.passed] for q in quantities),
            "meaning": strings(q.meaning for q in quantities),
        },
        index=pd.Index(np.arange(len(quantities))),
    )


def _ratio(
    part: str, name: str, over: Array, under: Array, meaning: str, rule: str = "", kind: str = ""
) -> Quantity:
    """Return a ratio of sums over perturbations and its standard error, left out one by one."""
    value, error = ratio_with_error(over, under)
    n = int(np.isfinite(over).sum())
    return _held_to(Quantity(part, name, value, error, n, meaning, rule), kind)


def _gain(
    part: str,
    name: str,
    over: Array,
    under: Array,
    scale: Array,
    meaning: str,
    rule: str,
    kind: str,
) -> Quantity:
    """Return the ratio of two errors that may both be about 0; of nothing to nothing it is 1."""
    known = np.isfinite(over) & np.isfinite(under)
    little = 0.01 * max(float(np.nansum(scale)), 0.0)
    if little == 0:
        return Quantity(part, name, 1.0, float("nan"), int(known.sum()), meaning, rule, False)
    value = (max(over[known].sum(), 0.0) + little) / (max(under[known].sum(), 0.0) + little)
    # By how much the totals differ, over the one below.
    n, difference = int(known.sum()), (over - under)[known]
    error = float(np.sqrt(n) * difference.std(ddof=1)) if n > 1 else float("nan")
    error /= max(under[known].sum(), 0.0) + little
    return _held_to(Quantity(part, name, float(value), float(error), n, meaning, rule), kind)


def _held_to(found: Quantity, kind: str) -> Quantity:
    """Return a quantity held to a rule, which none passes without a standard error."""
    value = found.value
    passed = {
        "": None,
        "worse": value <= NOT_WORSE,
        "share": value <= LARGEST_SHARE,
        "below": found.is_below_one,
        "small": found.is_below_one and value <= LARGEST_RATIO,
        "harm": value <= LARGEST_HARM,
        "covers": value >= LEAST_COVERAGE,
    }[kind]
    return replace(found, passed=None if passed is None else bool(passed) and found.is_judged)


def _mean_r(part: str, r: Array, what: str) -> Quantity:
    value, error = mean_with_error(r)
    meaning = f"correlation of {what} and observed effects on other genes"
    return Quantity(part, "r", value, error, int(np.isfinite(r).sum()), meaning)


def _coverage(part: str, covered: Array, large: Array, what: str, by: str) -> list[Quantity]:
    """Return what intervals cover of all effects, and of large ones, chosen ``by`` cells."""
    value, error = mean_with_error(covered)
    meaning = f"share of {what} inside their 90% intervals"
    n, rule = int(np.isfinite(covered).sum()), f"at least {LEAST_COVERAGE:g}"
    whole = _held_to(Quantity(part, "coverage_90", value, error, n, meaning, rule), "covers")
    value, error = ratio_with_error(*large)
    meaning = f"the same of large effects alone: 3 standard errors or more in {by}; n is their "
    meaning += f"number, and no rule applies to fewer than {FEWEST_LARGE}"
    n = int(large[1].sum())
    enough = n >= FEWEST_LARGE
    found = Quantity(part, "coverage_90_clear", value, error, n, meaning, rule if enough else "")
    return [whole, _held_to(found, "covers" if enough else "")]
