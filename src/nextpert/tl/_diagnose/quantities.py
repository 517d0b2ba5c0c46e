"""The quantities of a diagnosis: part by part, with the rule that each is held to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.scores import mean_with_error, ratio_with_error
from nextpert.tl._diagnose.judged import (
    ALONE,
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
from nextpert.tl._fit_dag_blr.cells import FEWEST_GUIDES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert._adata.nested import Nested
    from nextpert.tl._diagnose.unseen import Unseen
    from nextpert.tl._fit_dag_blr.cells import FitCells

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


class Rule(NamedTuple):
    """What a quantity is held to; a count, unlike an estimate, needs no standard error."""

    words: str
    holds: Callable[[Quantity], bool]
    is_count: bool = False


@dataclass(frozen=True)
class Quantity:
    """One row of the summary."""

    part: str
    name: str
    value: float
    error: float
    n: int
    meaning: str
    rule: Rule | None = None

    @property
    def is_judged(self) -> bool:
        """Whether it has a standard error. Without one there is no evidence to trust it by."""
        return bool(np.isfinite(self.value) and np.isfinite(self.error))

    @property
    def passed(self) -> bool | None:
        """Whether it passes its rule; ``None`` where none applies."""
        rule = self.rule
        if rule is None:
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
        return self.rule is not None and not self.value >= HOPELESS_COVERAGE


def _at_most(limit: float) -> Rule:
    return Rule(f"at most {limit:g}", lambda q: q.value <= limit)


def _at_least(limit: float, *, is_count: bool = False) -> Rule:
    return Rule(f"at least {limit:g}", lambda q: q.value >= limit, is_count)


_BELOW_ONE = Rule("below 1 by 2 standard errors", lambda q: q.is_below_one)
_MUCH_BELOW_ONE = Rule(
    f"at most {LARGEST_RATIO:g}, and below 1 by 2 standard errors",
    lambda q: q.is_below_one and q.value <= LARGEST_RATIO,
)
_COVERS = _at_least(LEAST_COVERAGE)
_NO_ERROR = float("nan")  # of a count, or a number of the fit


def cells_rows(table: pd.DataFrame, guides: str | None) -> list[Quantity]:
    """Return what cells alone say; ``guides`` is the column of guides, if one is known."""
    also = "" if guides is None else f", with the variance between levels of adata.obs[{guides!r}]"
    n, enough = len(table), _at_least(FEWEST, is_count=True)
    own = table["own_z"].abs().dropna()
    return [
        Quantity(
            CELLS, "n_clear", int(table["is_clear"].sum()), _NO_ERROR, n,
            "perturbations whose cells differ from the controls (false discovery rate "
            f"{CLEAR:g}{also}); n is all of them", enough,
        ),
        Quantity(
            CELLS, "n_distinct", int(table["is_distinct"].sum()), _NO_ERROR, n,
            "those of them that also differ from the mean of the others", enough,
        ),
        Quantity(
            CELLS, "n_own", int((own >= 3).sum()), _NO_ERROR, len(own),
            "perturbations whose own genes change by 3 standard errors or more; n is those with "
            "own genes on the panel",
        ),
        Quantity(
            CELLS, "reliability", *mean_with_error(table["reliability"]), n,
            "correlation over genes of a perturbation's effect in one half and in the other, "
            "stepped up to all cells",
        ),
    ]  # fmt: skip


def halves_rows(
    found: pd.DataFrame,
    distinct: NDArray[np.bool_],
    by_guides: NDArray[np.bool_],
    guides: str | None,
) -> list[Quantity]:
    """Return what shrinkage adds to the cells' means.

    Parameters
    ----------
    found
        Scores on halves, one row a perturbation.
    distinct, by_guides
        Which perturbations differ from one another, and which are split by guide, shape
        ``(n_perturbations,)``.
    guides
        Column of guides; ``None`` where none is known.
    """
    how = "none, as no column of guides is known"
    if guides is not None:
        how = (
            f"(adata.obs[{guides!r}]), half of the guides against the other half; the others have "
            "one guide with enough cells, and are split by cells"
        )
    colon = ":" if guides is None else ""
    n_by_guides = int(by_guides.sum())
    half = "half of the guides or cells (see n_by_guides)" if n_by_guides else "half of the cells"
    error = (
        f"squared error of effects learned from {half} on the other half, sampling error "
        "subtracted, as a share of that of "
    )
    first = (
        "how often a distinct perturbation's own state, as seen in one half, ranks first among "
        "all perturbations by the other half, by "
    )
    return [
        Quantity(
            SHRINKAGE, "n_by_guides", n_by_guides, _NO_ERROR, len(by_guides),
            f"perturbations split into halves by guide{colon} {how}",
        ),
        _ratio(
            SHRINKAGE, "error_to_cells", found[SHRUNKEN], found[MEANS],
            f"{error}the cells' means", _at_most(NOT_WORSE),
        ),
        _ratio(
            SHRINKAGE, "error_to_nothing", found[SHRUNKEN], found[NOTHING],
            f"{error}'no effect'", _BELOW_ONE,
        ),
        _ratio(
            SHRINKAGE, "error_alone_to_cells", found[ALONE], found[MEANS],
            "the same as error_to_cells, shrunken to nothing: without graph and experts",
        ),
        *_coverage(SHRINKAGE, found, "means of the other half"),
        *(
            _mean(SHRINKAGE, name, found[column][distinct], f"{first}{by}")
            for name, column, by in (
                ("own_state_first", FIRST[SHRUNKEN], "shrunken effects"),
                ("own_state_first_by_cells", FIRST[MEANS], "the cells' means"),
            )
        ),
    ]  # fmt: skip


def unseen_rows(found: pd.DataFrame) -> list[Quantity]:
    """Return how well perturbations without cells are predicted."""
    return [
        _ratio(
            UNSEEN, "error_to_nothing", found[WHOLE], found[NOTHING],
            "squared error of effects on other genes that are predicted of perturbations without "
            "their fold of the screen, as a share of that of 'no effect'", _MUCH_BELOW_ONE,
        ),
        _gain(
            UNSEEN, "error_to_mean", found, MEAN_ALONE,
            "the same as a share of that of the mean perturbation, believed as far as the screen "
            "says, which tells no perturbations apart", _BELOW_ONE,
        ),
        _mean(
            UNSEEN, "r", found[r_of(WHOLE)],
            "correlation of what is predicted and observed effects on other genes",
        ),
        *_coverage(
            UNSEEN, found, "effects on other genes", "the half of the cells that is not scored on"
        ),
    ]  # fmt: skip


def graph_rows(found: Unseen, on_halves: pd.DataFrame, measured: float) -> list[Quantity]:
    """Return what the graph adds; ``measured`` is what it counts for in measured effects."""
    table, name = found.table, Graph.name
    spread = found.left_out[:, list(found.weights).index(name)]
    return [
        Quantity(
            GRAPH_PART, "weight", found.weights[name], float(spread.std()), table[WHOLE].count(),
            "how far what follows on the graph is believed of perturbations without cells; the "
            "error is the spread over the folds left out", _at_least(LEAST_WEIGHT),
        ),
        _ratio(
            GRAPH_PART, "error_alone", table[alone(name)], table[NOTHING],
            "squared error of what follows on the graph, by the weight that it gets alone, as a "
            "share of that of 'no effect', which is what an empty graph says",
        ),
        _mean(
            GRAPH_PART, "r", table[r_of(name)],
            "correlation of what follows on the graph and observed effects on other genes",
        ),
        _gain(
            GRAPH_PART, "error_to_no_graph", table, WITHOUT_GRAPH,
            "squared error of all predictors together as a share of that of all but the graph",
            _at_most(LARGEST_SHARE),
        ),
        Quantity(
            GRAPH_PART, "weight_measured", measured, _NO_ERROR, len(table),
            "what the graph counts for in measured effects, 0 to 1, by the estimated error",
        ),
        _ratio(
            GRAPH_PART, "error_half_added", on_halves[SHRUNKEN] - on_halves[NO_GRAPH],
            on_halves[MEANS],
            "what the graph adds to the squared error of shrunken effects learned from one half, "
            "as a share of that of the cells' means; below 0 it helps", _at_most(LARGEST_HARM),
        ),
    ]  # fmt: skip


def left_out_rows(part: str, found: pd.DataFrame, what: str) -> list[Quantity]:
    """Return how well effects learned without a guide or batch are those in it."""
    meaning = (
        f"squared error of effects learned without a {what} on its means, sampling error "
        "subtracted, as a share of that of "
    )
    return [
        _ratio(
            part, "error_to_nothing", found[SHRUNKEN], found[NOTHING], f"{meaning}'no effect'",
            _BELOW_ONE,
        ),
        _ratio(
            part, "error_to_cells", found[SHRUNKEN], found[MEANS], f"{meaning}the cells' means"
        ),
        *_coverage(part, found, f"means of the {what} left out"),
    ]  # fmt: skip


def spread_row(cells: FitCells) -> Quantity:
    """Return how far guides scatter beyond sampling."""
    whose = "that target nothing" if cells.n_guides >= FEWEST_GUIDES else "of a perturbation"
    return Quantity(
        GUIDES, "spread", float(np.sqrt(cells.guide_variance)), _NO_ERROR, cells.n_guides,
        f"standard deviation between guides {whose}, over that of a cell's noise; n is the "
        "number of the controls' guides",
    )  # fmt: skip


def undeclared_row(found: Nested) -> Quantity:
    """Return how far the levels of a column scatter that looks like guides without a role."""
    return Quantity(
        GUIDES, "undeclared_variance", found.variance, _NO_ERROR, found.n_levels,
        f"variance between the levels of adata.obs[{found.column!r}], which nest in the "
        "perturbation labels without being declared, over that of a cell's noise (median gene); "
        f"{found.scatter_in_words()}; n is the number of levels",
        Rule("no more than sampling (5% level)", lambda _: found.scatters is False, is_count=True),
    )  # fmt: skip


def expert_table(found: Unseen) -> pd.DataFrame:
    """Return one row an expert, the stack of them last."""
    table, names = found.table, list(found.weights)
    ratios = [ratio_with_error(table[c], table[NOTHING]) for c in (*map(alone, names), WHOLE)]
    r = [mean_with_error(table[r_of(name)]) for name in (*names, WHOLE)]
    out = pd.DataFrame(
        np.hstack([ratios, r]),
        index=pd.Index(np.arange(len(r))),
        columns=["error_to_nothing", "error_to_nothing_se", "r", "r_se"],
    )
    out.insert(0, "expert", strings([*names, WHOLE]))
    out.insert(1, "weight", np.array([*found.weights.values(), np.nan]))
    return out


def summary_table(quantities: list[Quantity]) -> pd.DataFrame:
    """Return the summary as a table; ``passed`` is ``"yes"``, ``"no"`` or empty."""
    word = {True: "yes", False: "no", None: ""}
    rules = ("" if q.rule is None else q.rule.words for q in quantities)
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


def _ratio(
    part: str, name: str, over: pd.Series, under: pd.Series, meaning: str, rule: Rule | None = None
) -> Quantity:
    """Return a ratio of sums over perturbations and its standard error, left out one by one."""
    return Quantity(part, name, *ratio_with_error(over, under), over.count(), meaning, rule)


def _gain(
    part: str, name: str, table: pd.DataFrame, under: str, meaning: str, rule: Rule
) -> Quantity:
    """Return the ratio of the error of all predictors to that of some: both may be about 0.

    ``under`` is the column of the latter; of nothing to nothing the ratio is 1.
    """
    little = 0.01 * max(float(table[NOTHING].sum()), 0.0)
    both = table[[WHOLE, under]].dropna()
    n = len(both)
    if little == 0:
        return Quantity(part, name, 1.0, _NO_ERROR, n, meaning, rule)
    over_sum, under_sum = (max(float(both[each].sum()), 0.0) + little for each in both)
    # By how much the totals differ, over the one below.
    error = float(np.sqrt(n) * (both[WHOLE] - both[under]).std(ddof=1)) / under_sum
    return Quantity(part, name, over_sum / under_sum, error, n, meaning, rule)


def _mean(part: str, name: str, values: pd.Series, meaning: str) -> Quantity:
    return Quantity(part, name, *mean_with_error(values), values.count(), meaning)


def _coverage(
    part: str, found: pd.DataFrame, what: str, by: str = "the cells that they are learned from"
) -> list[Quantity]:
    """Return what intervals cover of all effects, and of large ones, chosen ``by`` cells."""
    value, error = mean_with_error(found[COVERAGE])
    n_large = int(found[LARGE].sum())
    return [
        Quantity(
            part, "coverage_90", value, error, found[COVERAGE].count(),
            f"share of {what} inside their 90% intervals", _COVERS,
        ),
        Quantity(
            part, "coverage_90_clear", *ratio_with_error(found[COVERED], found[LARGE]), n_large,
            f"the same of large effects alone: 3 standard errors or more in {by}; n is their "
            f"number, and no rule applies to fewer than {FEWEST_LARGE}",
            _COVERS if n_large >= FEWEST_LARGE else None,
        ),
    ]  # fmt: skip
