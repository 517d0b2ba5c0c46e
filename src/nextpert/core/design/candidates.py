"""Candidates with exact or uncertain shifts, the input of an acquisition."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng
from nextpert.core.causal.dag_blr import DagBlr
from nextpert.core.causal.weights import known_shifts
from nextpert.core.design.distances import (
    RankedDistance,
    ranked_distance,
    states_of,
)
from nextpert.core.design.goal import as_goal
from nextpert.core.design.joint_draws import States
from nextpert.core.design.remaining_variance import CellNoise, NoiseTerms, RemainingVariance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.goal import Goal

    Vector = NDArray[np.float64]


class Candidates:
    """Candidates, with or without cells, and the target.

    Parameters
    ----------
    posterior
        The posterior over the weights; or posteriors on several graphs, with equal weights.
    shifts
        Exact shifts of the candidates, shape ``(n_candidates, n_nodes)``, units of the data, as in
        Zhang et al. 2023; ``None`` if they are uncertain, in which case ``states`` is required.
    target
        The target state, shape ``(n_nodes,)``, units of the data; or a goal of any kind.
        Acquisitions on draws use the goal exactly, ``"greedy"`` uses the distance of the expected
        state, and acquisitions of exact shifts use the nearest state that reaches the goal.
    n_cells
        Number of cells planned for the next candidate.
    noise_aware
        Whether to include the information in the scatter of these cells (see
        :class:`LookaheadAcquisition`).
    n_samples
        Number of draws, at least 2.
    states
        The joint posterior of the candidates' states, for distances and acquisitions on draws; by
        default the posterior for exact shifts.
    measured
        Which candidates have cells, shape ``(n_candidates,)``; none by default.
    main
        The posterior for acquisitions that use one graph; the first by default.
    noise
        Covariance within cells; by default that of ``main``.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If posteriors, shifts and target do not match.
    """

    def __init__(
        self,
        posterior: DagBlr | Sequence[DagBlr],
        shifts: ArrayLike | None,
        target: ArrayLike | Goal,
        *,
        n_cells: float = 1,
        noise_aware: bool = False,
        n_samples: int = 1000,
        states: States | None = None,
        measured: ArrayLike | None = None,
        main: DagBlr | None = None,
        noise: CellNoise | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        self.graphs = [posterior] if isinstance(posterior, DagBlr) else list(posterior)
        self._shifts = None if shifts is None else known_shifts(self.graphs, shifts)
        if states is None:
            if self._shifts is None:
                message = "Give states, the joint posterior of the states, or exact shifts."
                raise ValueError(message)
            states = states_of(self.graphs, self._shifts)
        self.states = states
        self.size = len(states.mean) - 1
        self.goal = as_goal(target, self.graphs[0].n_nodes)
        self.n_cells = n_cells
        self.noise_aware = bool(noise_aware)
        self.n_samples = n_samples
        self.rng = as_rng(rng)
        none = np.zeros(self.size, bool)
        self.measured = none if measured is None else np.asarray(measured, bool)
        self.main = self.graphs[0] if main is None else main
        self._noise = noise

    @property
    def exact(self) -> bool:
        """Whether shifts are exact: acquisitions of the paper then have closed forms."""
        return self._shifts is not None

    @property
    def shifts(self) -> Vector:
        """Exact shifts, shape ``(n_candidates, n_nodes)``."""
        assert self._shifts is not None
        return self._shifts

    @property
    def target_mean(self) -> Vector:
        """The target state; for other goals, the state nearest to the control that reaches it."""
        return self.goal.quadratic(self.goal.origin).point

    @cached_property
    def noise(self) -> NoiseTerms:
        """Sampling variance of the distance measured with cells of each candidate."""
        within = self._noise
        if within is None:
            loadings = self.main.solve(np.eye(self.main.n_nodes)) * np.sqrt(self.main.noise_var)
            within = CellNoise(np.zeros(len(loadings)), loadings)
        return within.terms(self.goal.rows(slice(0, self.size)), self.states.mean[:-1])

    @cached_property
    def remaining(self) -> RemainingVariance:
        """Remaining variance of distances, weighted by the probability of beating the control."""
        distances = self.distances
        return RemainingVariance(
            distances.draws[:, :-1], distances.nearer[:-1], distances.centre[:-1]
        )

    @cached_property
    def distances(self) -> RankedDistance:
        """Distances to the target from ``n_samples`` draws, computed on first use."""
        return ranked_distance(self.states, self.goal, n_samples=self.n_samples, rng=self.rng)

    def admit(self, is_admitted: NDArray[np.bool_]) -> None:
        """Restrict the probability of being nearest to some candidates; all others have 0."""
        self.__dict__["distances"] = self.distances.among(is_admitted)

    def draw(self, n_samples: int) -> RankedDistance:
        """Return distances to the target from new draws."""
        return ranked_distance(self.states, self.goal, n_samples=n_samples, rng=self.rng)
