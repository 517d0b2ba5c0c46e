"""Targets on the panel: the goal, and the genes that count for each candidate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata import (
    closest,
    list_names,
    panel_index,
    strings,
)
from nextpert._warn import warn
from nextpert.core.design.goal import Goal
from nextpert.core.design.joint_draws import control_by_node
from nextpert.core.fit.naming import places
from nextpert.study.target import (
    NAMED,
    cell_variance,
    named_genes,
    numbers_in_words,
    target_in_words,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.screen.moments import Moments
    from nextpert.study.target import (
        Target,
    )

    Vector = NDArray[np.float64]


logger = logging.getLogger(__name__)


_MIN_SIGNATURE_GENES = 3  # genes of a signature of which some are outside the panel
MIN_REMAINING_DISTANCE = (
    0.5  # minimum share of the control's distance outside a candidate's target genes
)


@dataclass(frozen=True)
class PanelTarget:
    """A target on the panel: its name, and the distance to it.

    Parameters
    ----------
    name, distance
        The name of the target, and the kind of distance.
    goal, cells
        The goal, in which target states that are perturbations of the fit are posterior means; and
        the goal with the means of the target's cells and their sampling error.
    label
        The perturbation whose cells' mean is the target state, if it is a perturbation.
    rows_in_fit
        The perturbation of the hierarchical model that each target state is, drawn jointly with the
        candidates; -1 for states that are none.
    target_genes
        Genes that these perturbations target, which count for no candidate; ``None`` if all count.
    left_out, not_ranked
        Genes left out of ``goal`` for each candidate and, last, the control; and candidates that
        are therefore not ranked, and why.
    all_genes_goal, control
        The goal on all genes, if some are left out, and the contribution of each gene to the
        control's distance, ``(n_genes,)``.
    """

    name: str
    goal: Goal
    cells: Goal
    distance: str = "squared"
    label: str | None = None
    rows_in_fit: tuple[int, ...] = ()
    target_genes: tuple[str, ...] | None = None
    left_out: Sequence[Sequence[str]] = ()
    not_ranked: Mapping[str, str] = field(default_factory=dict)
    all_genes_goal: Goal | None = None
    control: Vector | None = None

    @property
    def mean(self) -> Vector:
        """The target mean; of several goal states that nearest to the control, ``(n_genes,)``."""
        goal = self.goal if self.all_genes_goal is None else self.all_genes_goal
        return goal.quadratic(goal.origin).point

    def left_out_of(self, rows: Iterable[int]) -> NDArray[np.object_]:
        """Return the genes left out for some candidates and the control (-1), joined."""
        return strings(", ".join(self.left_out[i]) if self.left_out else "" for i in rows)

    def rows(self, candidates: NDArray[np.int64]) -> PanelTarget:
        """Return the target for some candidates, in the order given, and for the control."""
        if not self.left_out:
            return self
        index = [*candidates.tolist(), -1]
        return replace(
            self,
            goal=self.goal.rows(index),
            left_out=[self.left_out[i] for i in index],
        )

    @property
    def genes_in_words(self) -> str:
        """The genes that are left out, in words; empty if none is."""
        if not any(self.left_out):
            return ""
        first = self.left_out[-1]
        names = [list_names(first)] if first else []
        if any(len(genes) > len(first) for genes in self.left_out):
            names.append("the target genes of each candidate")
        return f"without {' and '.join(names)}"


class TargetState(NamedTuple):
    """A state that cells should reach or avoid: its mean, and the sampling error of the mean."""

    name: str
    mean: Vector
    variance: Vector | None
    label: str | None = None  # of the perturbation whose cells these are
    n_cells: int = 0  # 0: given as numbers


class Group(NamedTuple):
    """Cells whose mean is a state (code 0; others -1), its name, and its perturbation if any."""

    codes: NDArray[np.int64]
    name: str
    label: str | None = None


def weights_of(target: Target, genes: Sequence[str]) -> Vector:
    """Return the weight of every gene in a target, shape ``(n_genes,)``."""
    if target.weights is None:
        named = named_genes(target)
        return np.ones(len(genes)) if named is None else np.isin(genes, named).astype(np.float64)
    is_list = not isinstance(target.weights, (Mapping, pd.Series))
    weights = dict.fromkeys(target.weights, 1.0) if is_list else target.weights
    return _by_gene(weights, genes, "weights", 0.0)


def panel_target(
    requested: Target,
    fit: FittedPosterior,
    states: Sequence[TargetState],
    avoided: Sequence[TargetState],
    control: Moments | None,
) -> PanelTarget:
    """Return a target as a goal on the genes of the panel, from its states.

    ``control`` are moments of the control cells, for distances in units of noise.

    Raises
    ------
    ValueError
        If a gene is outside the panel, parts contradict each other, or control cells reach the
        target already.
    """
    weights = weights_of(requested, fit.genes)
    scale = np.ones(len(fit.genes))
    if control is not None:
        scale = 1 / cell_variance(control, fit.genes, weights)
    low = _by_gene(requested.at_least, fit.genes, "at_least", -np.inf, weights)
    high = _by_gene(requested.at_most, fit.genes, "at_most", np.inf, weights)
    signature = None
    if requested.signature is not None:
        signature = _by_gene(requested.signature, fit.genes, "signature", 0.0, weights)
        signature = signature / np.sqrt(scale)
    crossed = [fit.genes[i] for i in np.flatnonzero(low > high)]
    if crossed:
        message = (
            f"at_least is above at_most for {list_names(crossed)}: lower at_least or raise at_most."
        )
        raise ValueError(message)
    make = partial(
        Goal,
        fit.control_mean,
        signature=signature,
        low=low,
        high=high,
        away_from=[state.mean for state in avoided] or None,
        away_weight=requested.away_weight,
        weights=weights,
        scale=scale,
        distance=requested.distance,
    )
    means, variances = [state.mean for state in states], [state.variance for state in states]
    of_cells = make(states=means or None, variances=variances)
    name = target_in_words(
        requested, [state.name for state in states], [state.name for state in avoided]
    )
    # Raise if control cells have reached the target already.
    message, origin = "", of_cells.origin
    is_control = [np.array_equal(state, origin) for state in of_cells.states]
    if any(is_control) and (len(is_control) == 1 or of_cells.of_changes):
        message = f"The target {name!r} is the control state itself: give another target."
    elif of_cells.distance(origin[None])[0] == 0:
        message = f"The control cells already reach the target {name!r}: give another target."
    if message:
        raise ValueError(message)
    rows: tuple[int, ...] = ()
    # The target states that are drawn jointly with the candidates.
    if fit.hierarchical is not None:
        rows_found = fit.rows_of(state.label or "" for state in states)
        rows = tuple(int(row) if row >= 0 and fit.is_measured[row] else -1 for row in rows_found)
    for k, row in enumerate(rows):
        # The draws contain its error.
        if row >= 0:
            means[k], variances[k] = fit.expected_state(row), None
    goal = of_cells
    if max(rows, default=-1) >= 0:
        goal = make(states=means, variances=variances)
    label = states[0].label if len(states) == 1 else None
    genes = None
    plain = goal.is_states or (goal.of_changes is not None and requested.state is not None)
    if requested.own_genes == "exclude" and plain and min(rows, default=-1) >= 0:
        genes = tuple(dict.fromkeys(gene for row in rows for gene in fit.targets[row]))
    return PanelTarget(name, goal, of_cells, requested.distance, label, rows, genes)


def without_own_genes(
    pool: CandidateSet,
    target: PanelTarget,
    fit: FittedPosterior,
    required: Collection[str] | None = None,
) -> tuple[CandidateSet, PanelTarget]:
    """Return the candidates that can be ranked, and the target with the genes that count for each.

    Of those ``required`` (by default all), at least one has to be ranked.

    In distances to the state of a perturbation, the genes that it targets do not count, nor do
    those that the candidate targets (equation 28). A candidate is not ranked, with a warning, if
    less than half of the control's distance is left without its target genes.

    Raises
    ------
    ValueError
        If no gene or no candidate is left.
    """
    # The draws of exact candidates do not include the target.
    if pool.is_exact:
        return pool, replace(target, goal=target.cells, rows_in_fit=(), target_genes=None)
    if target.target_genes is None:
        return pool, target
    interventions = pool.interventions
    of_control = pool.rows([]).states(fit, target.rows_in_fit)
    control = control_by_node(of_control, target.goal)
    ranked, bound = bind(
        target, fit.genes, interventions.names, interventions.targets, control, "ranked", required
    )
    return pool.rows(ranked) if bound.not_ranked else pool, bound


def bind(
    target: PanelTarget,
    genes: Sequence[str],
    names: Sequence[str],
    targets: Sequence[Sequence[str]],
    control: Vector,
    purpose: str,
    required: Collection[str] | None = None,
) -> tuple[NDArray[np.int64], PanelTarget]:
    """Return the candidates with enough genes left, and the target without their target genes.

    ``control`` is the contribution of every gene to the control's distance, ``(n_genes,)``, and
    ``purpose`` what is done with candidates, such as "ranked". What is left out is logged.

    Raises
    ------
    ValueError
        If no gene is left, or less than half of the control's distance for all candidates, or for
        all that are ``required``.
    """
    column_of = {gene: i for i, gene in enumerate(genes)}
    common = [column_of[gene] for gene in target.target_genes or () if gene in column_of]
    counted = (target.goal.weights > 0) & ~np.isin(np.arange(len(column_of)), common)
    remedy = f"Give nextpert.Target(state={target.label or '...'!r}, own_genes='include')."
    target_columns = [
        [column_of[g] for g in target_genes if g in column_of and counted[column_of[g]]]
        for target_genes in targets
    ]
    remaining, total = np.ones(len(target_columns)), control[counted].sum()
    if total > 0:
        remaining -= np.array([control[columns].sum() for columns in target_columns]) / total
    admitted = np.flatnonzero(remaining >= MIN_REMAINING_DISTANCE)
    message = ""
    if not counted.any():
        message = f"All genes with a weight are targets of {target.name}: give other weights, or "
        message += "nextpert.Target(own_genes='include')."
    elif len(names) and not any(required is None or names[int(i)] in required for i in admitted):
        message = (
            f"No candidate can be {purpose}: the target genes of each make up more than half of "
        )
        message += f"the control's distance to {target.name}. {remedy}"
    if message:
        raise ValueError(message)
    first = [genes[i] for i in common if target.goal.weights[i] > 0]
    bound = replace(
        target,
        goal=target.goal.leave_out(common, target_columns, control),
        all_genes_goal=target.goal,
        control=control,
        left_out=[[*first, *(genes[i] for i in columns)] for columns in [*target_columns, []]],
    )
    if len(admitted) < len(remaining):
        reasons = {
            names[
                i
            ]: f"without {list_names(targets[i])}, {100 * max(remaining[i], 0.0):.0f}% of the "
            f"control's distance is left"
            for i in map(int, np.flatnonzero(remaining < MIN_REMAINING_DISTANCE))
        }
        bound = replace(bound.rows(admitted), not_ranked=reasons)
        words = (f"{name} ({why})" for name, why in reasons.items())
        logger.warning("Not %s: %s. %s", purpose, list_names(words), remedy)
    if any(bound.left_out):
        logger.info("Distances to %s are measured %s.", bound.name, bound.genes_in_words)
    return admitted, bound


def measured_goal(target: PanelTarget, fit: FittedPosterior) -> Goal:
    """Return the goal for measured cells: without the same genes, by the measured control."""
    cells = target.cells
    if not target.left_out:
        return cells
    variance: Any = 0.0
    if fit.expectation is not None:  # the controls are its first environment
        variance = fit.expectation.measured.moments.mean_variance(0)
    # Equation 36: the unbiased contribution of every gene to the control's distance.
    square = cells.shares @ ((fit.control_mean - cells.states) ** 2 - cells.variances)
    *target_columns, common = places(target.left_out, fit.genes)
    return cells.leave_out(common, target_columns, cells.weights * (square - variance))


def given_state(state: Mapping[str, float] | pd.Series, fit: FittedPosterior) -> TargetState:
    """Return a state that is given as means of genes; all other genes are as in control cells."""
    genes = [str(gene) for gene, _ in state.items()]
    if not genes or len(set(genes)) < len(genes):
        message = "target must name at least one gene, and each gene only once."
        raise ValueError(message)
    columns = panel_index(genes, fit.genes, "target")
    mean = fit.control_mean.copy()
    mean[columns] = [float(value) for _, value in state.items()]
    # The name contains only the genes that change most.
    change = (
        np.abs(mean - fit.control_mean)[columns] if len(genes) > NAMED else np.zeros(len(genes))
    )
    named = {genes[i]: float(mean[columns[i]]) for i in np.argsort(-change, kind="stable")}
    return TargetState(numbers_in_words(named, "="), mean, None)


def on_panel(target: Target, genes: Sequence[str]) -> Target:
    """Return a target without genes of its signature that are outside the panel, with a warning.

    Raises
    ------
    ValueError
        If some are outside, and fewer than three are on the panel.
    """
    if target.signature is None:
        return target
    inside = {gene: x for gene, x in target.signature.items() if str(gene) in {*genes}}
    outside = [str(gene) for gene, _ in target.signature.items() if gene not in inside]
    if not outside:
        return target
    remedy = "to use them, pass the target as panel to pp.perturbation_screen, and fit again"
    share = f"{len(outside)} of {len(outside) + len(inside)} genes of the signature"
    if len(inside) < _MIN_SIGNATURE_GENES:
        message = (
            f"{share} are outside the panel ({list_names(outside)}), so that fewer than "
            f"{_MIN_SIGNATURE_GENES} remain: {remedy}.{closest(outside, genes)}"
        )
        raise ValueError(message)
    warn(f"{share} are outside the panel and are left out: {list_names(outside)}; {remedy}.")
    return replace(target, signature=inside)


def _by_gene(
    numbers: Any, genes: Sequence[str], name: str, default: float, weights: Vector | None = None
) -> Vector:
    """Return numbers by gene, ``(n_genes,)``; ``name`` is the part of the target that has them.

    Raise if a number is given for a gene whose weight is 0.
    """
    values = np.full(len(genes), default)
    if numbers is not None:
        columns = panel_index(
            [str(gene) for gene, _ in numbers.items()], genes, f"{name} of target"
        )
        values[columns] = [float(value) for _, value in numbers.items()]
    counts = np.ones(len(genes)) if weights is None else weights
    lost = [genes[int(i)] for i in np.flatnonzero((values != default) & (counts == 0))]
    if lost:
        message = (
            f"{name} names {list_names(lost)}, which have no weight: add them to weights, or "
            f"leave them out."
        )
        raise ValueError(message)
    return values
