"""How plates are chosen in a campaign, and what is recommended; without a model by cells' means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from nextpert.core.acquisition.thompson import thompson_plate
from nextpert.core.cells.screen_moments import ScreenMoments

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.loop.cell_pool import PoolEnvironments
    from nextpert.core.predict.goal import Goal

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

NO_MODEL = ("means_in_turn", "means_thompson")

_DRAWS = 40  # from which a plate takes one for each of its perturbations, with replacement


class Strategy(Protocol):
    """Cells in, plates and recommendations out; candidates by their place among those given."""

    def see(self, screen: ScreenMoments) -> None:
        """Take up the moments of all environments of the pool, those of cells seen so far."""

    def plate(self, ready: Index, size: int, n_cells: int) -> Index:
        """Return ``size`` of the candidates with cells left, to measure ``n_cells`` of each."""

    def recommend(self) -> int:
        """Return the candidate expected nearest to the target."""


class Means:
    """The cells' means, each gene and perturbation by itself.

    Parameters
    ----------
    name
        ``"means_in_turn"``: one perturbation after the other. ``"means_thompson"``: each the
        nearest under a draw of means.
    target
        What is wanted.
    environments
        Perturbations, guides and batches of the pool; batches are taken off by least squares from
        the cells seen so far, guides do not count.
    candidates
        Their numbers in the pool, shape ``(n_candidates,)``.
    rng
        Generator of the draws.
    """

    screen: ScreenMoments  # of the controls (first) and the candidates
    noise: Array  # variance of a cell, within perturbations

    def __init__(
        self,
        name: str,
        target: Goal,
        environments: PoolEnvironments,
        candidates: Index,
        rng: np.random.Generator,
    ) -> None:
        self.in_turn, self.target, self.rng = name == "means_in_turn", target, rng
        self.environments = environments
        place = np.full(int(environments.group.max()) + 1, -1)
        place[np.append(0, candidates + 1)] = np.arange(len(candidates) + 1)
        self.group, self.n_groups = place[environments.group], len(candidates) + 1

    def see(self, screen: ScreenMoments) -> None:
        """Pool environments of the same perturbation, batches taken off."""
        has = (screen.n > 0) & (self.group >= 0)
        seen = ScreenMoments(screen.n[has], screen.mean[has], screen.squares[has], screen.scatter)
        told = self.environments
        clean = seen.without_fixed(told.fixed[has], told.condition[has])
        self.screen = clean.pool(self.group[has], self.n_groups)
        freedom = np.maximum(self.screen.n - 1, 0).sum()
        self.noise = self.screen.squares.sum(axis=0) / freedom

    def plate(self, ready: Index, size: int, n_cells: int) -> Index:
        """Return those with the fewest cells, or the nearest under draws."""
        if self.in_turn:
            counts = self.screen.n[1:][ready]
            return ready[np.argsort(counts, kind="stable")[:size]]
        mean, variance = self._posterior()
        drawn = self.rng.standard_normal((_DRAWS, *mean.shape))
        states = mean + np.sqrt(variance) * drawn
        flat = self.target.distance(states.reshape(-1, mean.shape[1]), self.screen.mean[0])
        draws = flat.reshape(states.shape[:2])
        return ready[thompson_plate(draws[:, ready], size, self.rng)]

    def _posterior(self) -> tuple[Array, Array]:
        """Return mean and variance of states: normal about the controls, spread pooled."""
        n, control = self.screen.n[1:], self.screen.mean[0]
        seen = n > 0
        tau2 = 1.0
        if seen.any():
            varies = self.noise > 0
            square = (self.screen.mean[1:][seen] - control)[:, varies] ** 2 / self.noise[varies]
            extra = square.mean(axis=1) - 1 / n[seen] - 1 / self.screen.n[0]
            tau2 = max(float(extra.mean()), 1e-3)
        share = (n * tau2 / (1 + n * tau2))[:, None]
        mean = control + share * (self.screen.mean[1:] - control)
        return mean, (1 - share) * tau2 * self.noise

    def recommend(self) -> int:
        """Return the nearest mean of cells, less what sampling adds."""
        n = self.screen.n[1:]
        apart = self.target.distance(self.screen.mean[1:], self.screen.mean[0])
        unbiased = apart - self.target.excess(self.noise) / np.maximum(n, 1)
        return int(np.where(n > 0, unbiased, np.inf).argmin())
