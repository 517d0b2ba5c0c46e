"""Candidates as a fit expects them: with cells or without, or with exact shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core.causal.weights import downstream
from nextpert.core.design.candidates import Candidates
from nextpert.core.design.distances import states_of
from nextpert.core.design.joint_draws import NOT_JOINED, Joined, States
from nextpert.core.design.remaining_variance import CellNoise
from nextpert.core.fit.interventions import Interventions, in_full
from nextpert.core.fit.naming import places
from nextpert.core.model.unseen_scale import WithoutCells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.design.goal import Goal
    from nextpert.core.fit.fitted import FittedPosterior


@dataclass(frozen=True)
class CandidateSet:
    """Interventions to choose from, with what is expected of each.

    Parameters
    ----------
    interventions
        Their names, targets and expected shifts.
    place
        Row of each in the fit, -1 of those without cells, shape ``(n_candidates,)``.
    without_cells
        What is expected of those without cells, in their order; ``None`` if shifts are exact, which
        act on the graph.
    """

    interventions: Interventions
    place: NDArray[np.int64]
    without_cells: WithoutCells | None = None

    @classmethod
    def exact(cls, interventions: Interventions) -> CandidateSet:
        """Return candidates whose shifts are exact."""
        return cls(interventions, np.full(len(interventions.names), -1))

    @property
    def is_exact(self) -> bool:
        """Whether shifts are exact, and act on the graph."""
        return self.without_cells is None

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which have cells that tell of their effects, shape ``(n_candidates,)``."""
        return self.place >= 0

    def rows(self, index: Sequence[int] | NDArray[np.int64]) -> CandidateSet:
        """Return some of the candidates, in the order given."""
        some, prior = np.asarray(index, np.int64), self.without_cells
        number = (np.cumsum(~self.measured) - 1)[some]
        return CandidateSet(
            self.interventions.rows(some.tolist()), self.place[some],
            None if prior is None else prior.rows(number[~self.measured[some]]),
        )  # fmt: skip

    def states(self, fit: FittedPosterior, targets: Joined = NOT_JOINED) -> States:
        """Return the joint posterior of their states, with ``targets`` of :class:`Wanted`.

        That of the hierarchical model; on the graph if shifts are exact.
        """
        if self.is_exact:
            return states_of(fit.posteriors, self.interventions.shifts)
        return fit.states(self.place, self.without_cells, targets)


def as_asked(
    fit: FittedPosterior,
    pool: CandidateSet,
    goal: Goal,
    targets: Joined = NOT_JOINED,
    n_guides: int = 1,
    **options: Any,
) -> Candidates:
    """Return candidates to rank, by a fit; ``targets`` are of :class:`Wanted`."""
    model, shared = fit.hierarchical, (fit.guide_variance or 0.0) / n_guides
    return Candidates(
        fit.posteriors, pool.interventions.shifts if pool.is_exact else None, goal,
        states=pool.states(fit, targets), measured=pool.measured, main=fit.posterior,
        noise=None if model is None else CellNoise(*model.within_cells(), shared), **options,
    )  # fmt: skip


def as_expected(interventions: Interventions, fit: FittedPosterior) -> CandidateSet:
    """Return candidates: as fitted if they have cells, else as the predictors expect them."""
    place = fit.rows_of(interventions.names)
    place = np.where(np.append(fit.seen, False)[place], place, -1)
    new = np.flatnonzero(place < 0)
    own = interventions.shifts[new]
    variance = np.full(own.shape, np.nan)
    if fit.efficacy is not None:
        # Shifts without cells are full times the mean efficacy: its spread is in proportion.
        mean, sd = fit.efficacy.mean, fit.efficacy.sd
        spread = sd / max(abs(mean), 1e-12) * np.abs(own)
        variance = np.where(spread > 0, spread**2, np.nan)
    if fit.expectation is None:  # too few perturbations to learn from: the graph alone speaks
        effect = own + downstream(fit.posteriors, own)
        prior = WithoutCells(effect, variance, np.ones((len(new), 2)))
    else:
        targets = places([interventions.targets[i] for i in new], fit.genes)
        prior = fit.expectation.without_cells(
            [interventions.names[i] for i in new], targets, own, variance, fit.posteriors
        )
    return CandidateSet(interventions, place, prior)


def as_fitted(names: list[str], targets: list[list[str]], fit: FittedPosterior) -> Interventions:
    """Return shifts as the fit has them, of candidates without cells in full times its efficacy.

    ``targets`` are the genes of the panel that each targets; none where none is measured.
    """
    rows, kind = fit.rows_of(names), str(fit.params["shift"])
    unseen = [name for name, row in zip(names, rows, strict=True) if row < 0]
    if unseen and kind == "table":
        warn(
            f"The table of shifts has no row for the candidates {list_names(unseen)}: "
            f"they are modelled as knockouts (minus the control mean of every target)."
        )
    kind = "knockout" if kind == "table" else kind
    full = in_full(names, targets, kind, fit.genes, fit.control_mean)
    sources = fit.environments["shift_source"].astype(str).tolist()
    for i, row in enumerate(rows.tolist()):
        shift = fit.shifts[row] if row >= 0 else full.shifts[i]
        if targets[i] or shift.any():  # pages of zeros that nobody writes take no memory
            efficacy = 1.0 if row >= 0 or fit.efficacy is None else fit.efficacy.mean
            full.shifts[i] = efficacy * shift
        full.sources[i] = sources[row] if row >= 0 else full.sources[i]
    return full
