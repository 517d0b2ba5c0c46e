"""Candidates and their expected effects by a fit: with or without cells, single or combined."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core.causal.weights import downstream
from nextpert.core.design.distances import states_of
from nextpert.core.design.joint_draws import States, states_by_effects
from nextpert.core.design.stopping import is_apart
from nextpert.core.fit.interventions import Interventions, in_full
from nextpert.core.fit.naming import numbered, places
from nextpert.core.model.interactions import learn_interactions, size_of_effects
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictor_weights import WithoutCells
from nextpert.core.model.predictors.base import names_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.design.goal import Goal
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.model.interactions import Interactions

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class CandidateSet:
    """Interventions to choose from, with their expected effects.

    ``fit_rows`` is the row of each candidate in the fit, -1 if it has no cells; ``without_cells``
    are the expected effects of candidates without cells, in their order, or ``None`` for exact
    shifts, which act on the graph.
    """

    interventions: Interventions
    fit_rows: NDArray[np.int64]
    without_cells: WithoutCells | None = None
    # Derived from the fields above.
    names: list[str] = field(init=False)  # labels
    measured: NDArray[np.bool_] = field(init=False)  # which have cells; none for exact shifts
    is_exact: bool = field(init=False)  # shifts are exact, and act on the graph

    def __post_init__(self) -> None:
        vars(self).update(
            names=self.interventions.names,
            measured=self.fit_rows >= 0,
            is_exact=self.without_cells is None,
        )

    @classmethod
    def exact(cls, interventions: Interventions) -> CandidateSet:
        """Return candidates whose shifts are exact."""
        return cls(interventions, np.full(len(interventions.names), -1))

    def rows(self, index: Sequence[int] | NDArray[np.int64]) -> CandidateSet:
        """Return some of the candidates, in the given order."""
        selected = np.asarray(index, np.int64)
        prior, is_new = self.without_cells, self.fit_rows < 0
        if prior is not None:
            number = (np.cumsum(is_new) - 1)[selected][is_new[selected]]
            prior = WithoutCells(*(values[number] for values in prior))
        interventions = self.interventions.rows(selected.tolist())
        return CandidateSet(interventions, self.fit_rows[selected], prior)

    def states(self, fit: FittedPosterior, target_rows: Sequence[int] = ()) -> States:
        """Return the joint posterior of the candidates' states.

        It comes from the hierarchical model, or from the graph if shifts are exact. If target
        states are perturbations of the fit (``target_rows``, -1 for the others), every draw
        contains their departures from :meth:`FittedPosterior.expected_state`.
        """
        if self.is_exact:
            return states_of(fit.posteriors, self.interventions.shifts)
        # A target that is also a candidate has one draw, not two.
        more_rows = [
            row for row in dict.fromkeys(target_rows) if row >= 0 and row not in self.fit_rows
        ]
        all_rows = np.append(self.fit_rows, np.array(more_rows, np.int64))
        at = [int(np.flatnonzero(all_rows == row)[0]) if row >= 0 else -1 for row in target_rows]
        none = np.zeros(len(fit.genes))
        points = np.array([fit.expected_state(row) if row >= 0 else none for row in target_rows])
        model, draws, rows = fit.draws_with(len(self.fit_rows), all_rows, self.without_cells)
        return states_by_effects(draws, model.control, rows, at, points, len(more_rows))


def differs_from_control(fit: FittedPosterior, cells: Goal, target_rows: Sequence[int]) -> bool:
    """Return whether a target differs from the controls of a fit (``is_apart``).

    ``cells`` is the goal with the means of the target's cells, and ``target_rows`` has the
    perturbation of the fit that each of its states is, -1 for none.
    """
    model = fit.hierarchical
    goal = copy(cells)
    if model is None:
        loadings = fit.posterior.solve(np.eye(len(fit.genes))) * np.sqrt(fit.posterior.noise_var)
        covariance = loadings @ loadings.T
        error = covariance.diagonal() / fit.n_control_cells
    else:
        own_variance, factors = model.within_cells()
        covariance = np.diag(own_variance) + factors @ factors.T
        # At least the variance of the draws, which includes guides and batches of the controls.
        error = covariance.diagonal() / fit.n_control_cells
        error = np.maximum(error, model.control.var(axis=0))
    goal.variances = cells.variances.copy()
    for k, row in enumerate(target_rows):
        if row >= 0 and fit.means is not None:  # includes the variance between guides
            of_mean = covariance.diagonal() * fit.means.ratio[row] / fit.means.n[row]
            goal.variances[k] = np.maximum(goal.variances[k], of_mean)
    counted = covariance.diagonal() / np.maximum(error, np.finfo(np.float64).tiny)
    return is_apart(goal, counted, covariance)


def as_expected(interventions: Interventions, fit: FittedPosterior) -> CandidateSet:
    """Return candidates, as fitted if they have cells, and otherwise as predicted."""
    # A row of the fit is used only if it has cells.
    fit_rows = fit.rows_of(interventions.names)
    fit_rows = np.where(np.append(fit.is_measured, False)[fit_rows], fit_rows, -1)
    new = np.flatnonzero(fit_rows < 0)
    shifts = interventions.shifts[new]
    variance = np.full(shifts.shape, np.nan)
    if fit.efficacy is not None:
        # A shift without cells is the full shift times the mean efficacy; its SD is proportional.
        mean, sd = fit.efficacy.mean, fit.efficacy.sd
        spread = sd / max(abs(mean), 1e-12) * np.abs(shifts)
        variance = np.where(spread > 0, spread**2, np.nan)
    # With too few perturbations for weights, the graph is the only predictor.
    if fit.expectation is None:
        effect = shifts + downstream(fit.posteriors, shifts)
        prior = WithoutCells(effect, variance, np.ones((len(new), 2)))
    else:
        targets = places([interventions.targets[i] for i in new], fit.genes)
        prior = fit.expectation.without_cells(
            [interventions.names[i] for i in new], targets, shifts, variance, fit.posteriors
        )
    return CandidateSet(interventions, fit_rows, prior)


def as_fitted(names: list[str], targets: list[list[str]], fit: FittedPosterior) -> Interventions:
    """Return the fitted shifts; a candidate outside the fit has its full shift times the efficacy.

    ``targets`` are the genes of the panel that each candidate targets; they may be empty.
    """
    rows = fit.rows_of(names)
    kind = str(fit.params["shift"])
    unseen = [name for name, row in zip(names, rows, strict=True) if row < 0]
    if unseen and kind == "table":
        warn(
            f"The table of shifts has no row for the candidates {list_names(unseen)}, which are "
            f"modelled as knockouts (minus the control mean of every target): add their rows to "
            f"the table if they have other shifts."
        )
    kind = "knockout" if kind == "table" else kind
    full = in_full(names, targets, kind, fit.genes, fit.control_mean)
    sources = fit.environments["shift_source"].astype(str).tolist()
    for i, row in enumerate(rows.tolist()):
        shift = fit.shifts[row] if row >= 0 else full.shifts[i]
        # Pages of zeros that are never written take no memory.
        if targets[i] or shift.any():
            efficacy = 1.0 if row >= 0 or fit.efficacy is None else fit.efficacy.mean
            full.shifts[i] = efficacy * shift
        full.sources[i] = sources[row] if row >= 0 else full.sources[i]
    return full


def fitted_candidates(interventions: Interventions, fit: FittedPosterior) -> CandidateSet:
    """Return candidates, with or without cells, with their prior from the fit.

    Combinations without cells are predicted from their members, and perturbations that have cells
    only in combinations are predicted from these combinations.
    """
    if fit.is_exact:
        return CandidateSet.exact(interventions)
    pool = as_expected(interventions, fit)
    # Mean and variance from the interaction model replace those of the predictors.
    rows, members = _without_cells(interventions.names, fit)
    prior = pool.without_cells
    if not rows or prior is None:
        return pool
    interactions, numbers = _interactions(members, fit)
    number = (np.cumsum(~pool.measured) - 1)[rows]
    prior.effect[number], prior.own_variance[number] = interactions.predict(numbers)
    return pool


def shared_with_controls(names: Sequence[str], fit: FittedPosterior) -> tuple[list[int], Array]:
    """Return the combinations without cells, and how their expected effects follow the controls.

    A member's effect is a difference from the controls' mean, to the extent of the weight of its
    cells; for a member without cells only the mean perturbation is such a difference.

    Returns
    -------
    rows
        Positions in ``names`` of combinations without cells.
    shared
        Share of the sampling error of the controls' mean in the expected effect of each
        combination, shape ``(len(rows), n_genes)``.
    """
    rows, members = _without_cells(names, fit)
    # A member's effect contains the controls' error times the weight of its cells.
    row = _alone_in(fit)
    data_weight = fit.data_weight()
    strength = 1.0
    expected = np.zeros(len(fit.genes))
    if fit.expectation is not None:
        averages = names_of(lambda kind: kind.is_average)
        expected += sum(fit.expectation.weights.get(name, 0.0) for name in averages)
        if fit.expectation.interactions is not None:
            strength = fit.expectation.interactions.strength
    # The strength times the sum of the members' shares.
    shared = np.zeros((len(rows), len(fit.genes)))
    for share, combination in zip(shared, members, strict=True):
        share += np.sum(
            [data_weight[row[m]] if m in row else expected for m in combination], axis=0
        )
        share *= strength if len(combination) > 1 else 1.0
    return rows, shared


def _alone_in(fit: FittedPosterior) -> dict[str, int]:
    """Return the row of every member that was perturbed alone."""
    return {members[0]: j for j, members in enumerate(fit.members) if len(members) == 1}


def _without_cells(
    names: Sequence[str], fit: FittedPosterior
) -> tuple[list[int], list[tuple[str, ...]]]:
    """Return the positions of combinations without cells, and their members.

    Single perturbations that have cells only in combinations are included.
    """
    new = ~np.append(fit.is_measured, False)[fit.rows_of(names)]
    all_members = [fit.naming.members(name) for name in names]
    rows = [
        i
        for i, members in enumerate(all_members)
        if new[i] and (len(members) > 1 or members in fit.in_company)
    ]
    return rows, [all_members[i] for i in rows]


def _interactions(
    combinations: Sequence[tuple[str, ...]], fit: FittedPosterior
) -> tuple[Interactions, list[tuple[int, ...]]]:
    """Return the interactions of the fit, and the member numbers of some combinations."""
    expectation = fit.expectation
    record = None if expectation is None else expectation.interactions
    unit = np.sqrt(fit.posterior.noise_var)
    if expectation is not None:
        unit = Perturbations(expectation.measured.moments, 0, [], []).unit
    squares = np.zeros((0, len(fit.genes)))
    joint = []
    if record is not None:
        joint = [
            j for j, members in enumerate(fit.members) if len(members) > 1 and fit.is_measured[j]
        ]
    labels, numbers = numbered([*(fit.members[j] for j in joint), *combinations])
    # Effects of members alone: fitted for members with cells, predicted for all others.
    single = _alone_in(fit)
    alone, variance = np.full((2, len(labels), len(fit.genes)), np.nan)
    cells = [k for k, label in enumerate(labels) if label in single]
    without = [
        k
        for k, label in enumerate(labels)
        if label not in single
        and (
            label in fit.genes
            or fit.is_described(label)
            or (fit.takes_any_label and (label,) not in fit.in_company)
        )
    ]
    if single:
        # From all singles, so that the effect of a pair does not depend on the other candidates.
        single_rows = np.array(sorted(single.values()))
        mean, spread = _alone(fit, single_rows)
        rows = np.searchsorted(single_rows, np.array([single[labels[k]] for k in cells], np.int64))
        alone[cells], variance[cells] = mean[rows], spread[rows]
        squares = mean**2 + spread
    if without:
        names = [labels[k] for k in without]
        inside = [[name] if name in fit.genes else [] for name in names]
        unseen = as_expected(as_fitted(names, inside, fit), fit)
        alone[without], variance[without] = _alone(fit, unseen.fit_rows, unseen.without_cells)
    # Observed effects of the measured combinations, and the learned additivity.
    effects, noise = np.zeros((2, len(joint), len(fit.genes)))
    if expectation is not None and joint:
        measured = Perturbations(
            expectation.measured.moments, 0, 1 + np.array(joint), [()] * len(joint)
        )
        effects, noise = measured.observed, measured.variance
    interactions = learn_interactions(
        alone,
        variance,
        numbers[: len(joint)],
        effects,
        noise,
        scale=size_of_effects(squares, unit),
        learned=record,
    )
    return interactions, numbers[len(joint) :]


def _alone(
    fit: FittedPosterior, fit_rows: NDArray[np.int64], prior: WithoutCells | None = None
) -> tuple[Array, Array]:
    """Return posterior mean and variance of effects, ``(n_perturbations, n_genes)``."""
    draws = fit.effects(fit_rows, prior)
    return draws.posterior_mean(), draws.sd() ** 2
