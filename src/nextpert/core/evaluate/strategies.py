"""Campaigns in plates over the real cells of a screen; without a model, by the cells' means."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from nextpert.core.causal.acquisitions.thompson import DRAWS, thompson_plate
from nextpert.core.screen.screen import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.goal import Goal
    from nextpert.core.evaluate.cell_pool import CellPool, Deal, PoolEnvironments

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

NO_MODEL = ("round_robin_means", "thompson_means")


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
        ``"round_robin_means"``: one perturbation after the other. ``"thompson_means"``: each the
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
        self.in_turn, self.target, self.rng = name == "round_robin_means", target, rng
        self.environments = environments
        place = np.full(int(environments.group.max()) + 1, -1)
        place[np.append(0, candidates + 1)] = np.arange(len(candidates) + 1)
        self.group, self.n_groups = place[environments.group], len(candidates) + 1

    def see(self, screen: ScreenMoments) -> None:
        """Pool environments of the same perturbation, batches taken off."""
        has = (screen.n > 0) & (self.group >= 0)
        seen = ScreenMoments(screen.n[has], screen.mean[has], screen.squares[has], screen.scatter)
        fixed, condition = self.environments.fixed[has], self.environments.condition[has]
        clean = seen.without_fixed(fixed, condition)
        self.screen = clean.pool(self.group[has], self.n_groups)
        freedom = np.maximum(self.screen.n - 1, 0).sum()
        self.noise = self.screen.squares.sum(axis=0) / freedom

    def plate(self, ready: Index, size: int, n_cells: int) -> Index:
        """Return those with the fewest cells, or the nearest under draws."""
        if self.in_turn:
            counts = self.screen.n[1:][ready]
            return ready[np.argsort(counts, kind="stable")[:size]]
        mean, variance = self._posterior()
        drawn = self.rng.standard_normal((DRAWS, *mean.shape))
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


class PlatesResult(NamedTuple):
    """What one campaign in plates did, round by round.

    Parameters
    ----------
    chosen
        Perturbations on the plate of each round, shape ``(n_rounds, n_perturbations)``; -1 where
        too few have cells left.
    recommended
        Perturbation recommended after 0, 1, ... plates, shape ``(n_rounds + 1,)``.
    """

    chosen: Index
    recommended: Index


def replay_plates(
    pool: CellPool,
    deal: Deal,
    build: Callable[[Index], Strategy],
    *,
    candidates: ArrayLike | None = None,
    n_rounds: int = 10,
    n_perturbations: int = 4,
    n_cells: int = 10,
) -> PlatesResult:
    """Run a campaign: fill a plate, see its cells, recommend, and so on.

    The k-th cell drawn of a perturbation is fixed by ``deal``, so that strategies given the same
    deal see the same cells.

    Parameters
    ----------
    pool
        The cells.
    deal
        Order of the cells, from :meth:`CellPool.deal`.
    build
        Returns a strategy for candidates, given by their numbers in the pool.
    candidates
        Perturbations that may be proposed and recommended; all by default.
    n_rounds
        Number of plates.
    n_perturbations, n_cells
        Different perturbations on a plate, and cells of each. A perturbation gives the cells it
        has left; with none left it is proposed no more.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.evaluate.cell_pool import CellPool
    >>> from nextpert.core.evaluate.strategies import replay_plates
    >>> from nextpert.core.evaluate.strategies import Means
    >>> rng = np.random.default_rng(0)
    >>> cells = [rng.normal(mean, size=(80, 9)) for mean in (0.0, 1.0, -1.0, 2.0)]
    >>> pool = CellPool(rng.normal(size=(200, 9)), cells)
    >>> deal = pool.deal(1, 100, rng=0)
    >>> def build(candidates):
    ...     return Means("round_robin_means", deal.target, pool.environments, candidates, rng)
    >>> result = replay_plates(pool, deal, build, n_rounds=3, n_perturbations=2)
    >>> result.chosen.shape, int(result.recommended[-1])
    ((3, 2), 1)
    """
    # In the order of the deal, so that the first of those that are alike is a random one.
    may = deal.first if candidates is None else deal.first[np.isin(deal.first, candidates)]
    run, its = build(may), pool.environments
    n = len(its.group)
    screen = ScreenMoments.from_array(pool.control[deal.warmup], its.control[deal.warmup], n)
    drawn, available = np.zeros(len(may), np.int64), np.array([len(deal.orders[j]) for j in may])
    chosen = np.full((n_rounds, n_perturbations), -1)
    recommended = np.empty(n_rounds + 1, dtype=np.int64)
    for t in range(n_rounds + 1):
        run.see(screen)
        recommended[t] = may[run.recommend()]
        ready = np.flatnonzero(drawn < available)
        if t == n_rounds or not len(ready):
            recommended[t:] = recommended[t]
            break
        plate = run.plate(ready, min(n_perturbations, len(ready)), n_cells)
        rows = [deal.orders[may[j]][drawn[j] : drawn[j] + n_cells] for j in plate]
        new = np.concatenate(rows)
        screen = screen + ScreenMoments.from_array(pool.cells[new], its.cells[new], n)
        drawn[plate] += [len(each) for each in rows]
        chosen[t, : len(plate)] = may[plate]
    return PlatesResult(chosen, recommended)
