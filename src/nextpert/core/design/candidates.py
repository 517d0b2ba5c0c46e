"""Candidates whose shifts are uncertain, as an acquisition is asked to rank them."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core._checks import as_rng
from nextpert.core._shown import Shown
from nextpert.core.design.distances import RankedDistance, ranked_distance, states_of
from nextpert.core.design.goal import as_goal
from nextpert.core.design.joint_draws import States
from nextpert.core.design.remaining_variance import CellNoise, NoiseTerms, RemainingVariance
from nextpert.core.model.dag_blr import DagBlr
from nextpert.core.model.shift_posterior import pair_shifts, weights_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.goal import Goal
    from nextpert.core.model.shift_posterior import ShiftPosterior

    Vector = NDArray[np.float64]


class Ranked(NamedTuple):
    """An acquisition of every candidate.

    Parameters
    ----------
    values
        The acquisition, lower is better, shape ``(n_perturbations,)``.
    variance_reduction
        Fraction of the uncertainty that cells of each are expected to resolve, same shape;
        ``None`` for an acquisition without look-ahead.
    """

    values: Vector
    variance_reduction: Vector | None = None


class Candidates(Shown):
    """Candidates, with or without cells, and the target.

    Parameters
    ----------
    posterior
        The posterior over the weights; or one on each of several graphs, which count by the
        weight of their shifts.
    shifts
        The candidates; for several graphs the same for all, or one for each; or a function that
        returns these, called when they are first read. Give ``states`` and ``measured`` then.
    target
        The target state, shape ``(n_nodes,)``, units of the data; or a goal of any kind, which
        acquisitions on draws use exactly, ``"greedy"`` by the distance of the expected state, and
        acquisitions of exact shifts by the nearest state that reaches it.
    n_cells
        Number of cells planned of the next candidate.
    noise_aware
        Whether to include the information in the scatter of these cells (see
        :class:`LookaheadAcquisition`).
    target_variance
        Sampling variance of a target state, for acquisitions on draws.
    n_samples
        Number of draws, at least 2.
    states
        The joint posterior of the states that candidates reach, for distances and acquisitions on
        draws, if it is not that of posterior and shifts.
    measured
        Which candidates have cells, shape ``(n_perturbations,)``; by default as the shifts say.
    graphs
        The posteriors with equal weights for acquisitions on the weights alone; by default those
        given.
    main
        The posterior for acquisitions that use one graph; the first by default.
    exact
        Whether the shifts of all candidates are exact, as in the paper; by default as they say.
    noise
        Covariance within cells; by default that of ``main``.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If posteriors, shifts and target do not fit together.
    """

    def __init__(
        self,
        posterior: DagBlr | Sequence[DagBlr],
        shifts: ShiftPosterior | Sequence[ShiftPosterior] | Callable[[], Sequence[ShiftPosterior]],
        target: ArrayLike | Goal,
        *,
        n_cells: float = 1,
        noise_aware: bool = False,
        target_variance: ArrayLike | None = None,
        n_samples: int = 1000,
        states: States | None = None,
        measured: ArrayLike | None = None,
        graphs: Sequence[DagBlr] | None = None,
        main: DagBlr | None = None,
        exact: bool | None = None,
        noise: CellNoise | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self._given, self._measured = (posterior, shifts), measured
        if not callable(shifts):
            posterior = self.posteriors
        first = posterior if isinstance(posterior, DagBlr) else posterior[0]
        self.goal = as_goal(target, first.n_nodes, target_variance)
        self.n_cells, self.noise_aware = n_cells, bool(noise_aware)
        self.n_samples, self.rng = n_samples, as_rng(rng)
        self.states = states_of(self.posteriors, self.shifts) if states is None else states
        self.graphs = list(graphs) if graphs else self.posteriors
        self.main = self.graphs[0] if main is None else main
        self._exact, self._noise = exact, noise

    def _facts(self) -> dict[str, Any]:
        return {"n_candidates": self.size, "n_cells": self.n_cells, "goal": self.goal}

    @cached_property
    def pairs(self) -> list[tuple[DagBlr, ShiftPosterior]]:
        """The posterior on every graph with its shifts."""
        posterior, shifts = self._given
        return pair_shifts(posterior, shifts() if callable(shifts) else shifts)

    @property
    def posteriors(self) -> list[DagBlr]:
        """The posterior on every graph."""
        return [blr for blr, _ in self.pairs]

    @property
    def shifts(self) -> list[ShiftPosterior]:
        """The shifts of the candidates on every graph."""
        return [known for _, known in self.pairs]

    @property
    def size(self) -> int:
        """Number of candidates."""
        return len(self.states.mean) - 1

    @property
    def measured(self) -> NDArray[np.bool_]:
        """Which candidates have cells, shape ``(n_perturbations,)``."""
        given = self._measured
        return np.asarray(self.shifts[0].n) > 0 if given is None else np.asarray(given, bool)

    @property
    def target_mean(self) -> Vector:
        """The target state, or of all that reach the goal the nearest to the control."""
        return self.goal.quadratic(self.goal.origin).point

    @cached_property
    def expected_shifts(self) -> Vector:
        """The expected shifts, mean over graphs, shape ``(n_perturbations, n_nodes)``."""
        each = [known.expected(blr) for blr, known in self.pairs]
        return np.asarray(np.average(each, axis=0, weights=weights_of(self.pairs)))

    @property
    def exact(self) -> bool:
        """Whether all shifts are exact: acquisitions of the paper then have closed forms."""
        if self._exact is not None:
            return self._exact
        return not any(x.any() for known in self.shifts for x in (known.share, known.spare))

    @cached_property
    def noise(self) -> NoiseTerms:
        """How variable the distance is that cells of each candidate measure."""
        within = self._noise
        if within is None:
            loadings = self.main.solve(np.eye(self.main.n_nodes)) * np.sqrt(self.main.noise_var)
            within = CellNoise(np.zeros(len(loadings)), loadings)
        return within.terms(self.goal, self.states.mean[:-1])

    @cached_property
    def remaining(self) -> RemainingVariance:
        """The variance of the distances of candidates that may be nearer than the control."""
        found = self.distances
        return RemainingVariance(found.draws[:, :-1], found.nearer[:-1], found.centre[:-1])

    @cached_property
    def distances(self) -> RankedDistance:
        """Their distances to the target by ``n_samples`` draws, computed on first use."""
        return self.draw(self.n_samples)

    def draw(self, n_samples: int) -> RankedDistance:
        """Return their distances to the target by other draws."""
        return ranked_distance(
            (), (), self.goal, states=self.states, n_samples=n_samples, rng=self.rng
        )
