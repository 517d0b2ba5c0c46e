"""How plates are chosen in a replay, and which perturbation is recommended after each."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nextpert.core.acquisition.candidates import Candidates
from nextpert.core.acquisition.registry import acquisitions, find_acquisition
from nextpert.core.acquisition.thompson import thompson_plate
from nextpert.core.cells.pool_guides import PooledGuides, pool_guides
from nextpert.core.cells.screen_moments import ScreenMoments
from nextpert.core.effects.efficacy import screen_efficacy, speaks_of_knockouts
from nextpert.core.effects.random_shifts import fit_random_shifts
from nextpert.core.effects.shift_prior import UNSEEN_WEIGHTS, ShiftPrior
from nextpert.core.plan.best_plate import best_plate
from nextpert.core.posterior.dag_blr import DagBlr
from nextpert.core.predict.first_order import first_order_distances
from nextpert.core.predict.goal import as_goal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.graph.dag import Dag
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

# Beside every acquisition with shifts learned: shifts taken as exact, as in Zhang et al. 2023; no
# model.
EXACT = ("exact_greedy", "exact_civ")
NO_MODEL = ("means_in_turn", "means_thompson")

_DRAWS = 40
_DISTANCES = 100  # draws of the distances that acquisitions rank by
# Share of the variance of a state that counts against a recommendation. With 1 it is the expected
# squared distance, which finds a target's own perturbation less often; with 0 that of the expected
# state, which now and then takes a strong perturbation of few cells for a weak one. Chosen on
# Papalexi's screen.
_DOUBT = 0.5


class Strategy(Protocol):
    """Cells in, plates and recommendations out; candidates by their number in the campaign."""

    def see(self, screen: ScreenMoments) -> None:
        """Take up the moments of controls (first) and candidates, all cells seen so far."""

    def plate(self, ready: Index, size: int) -> Index:
        """Return up to ``size`` different ones of the candidates that have cells left."""

    def recommend(self) -> int:
        """Return the candidate expected nearest to the target."""


def strategies() -> tuple[str, ...]:
    """Return the names of all strategies.

    Examples
    --------
    >>> from nextpert.core.loop.strategies import strategies
    >>> "best" in strategies(), "thompson" in strategies()
    (True, True)
    """
    return ("best", *acquisitions(), *EXACT, *NO_MODEL)


def build_strategy(
    name: str,
    target: Array | Goal,
    full_shift: Array,
    dag: Dag,
    n_cells: int,
    rng: np.random.Generator,
) -> Strategy:
    """Return a strategy by its name, one of :func:`strategies`.

    Parameters
    ----------
    name
        ``"best"`` (see :func:`~nextpert.core.plan.best_plate.best_plate`) and every acquisition,
        such as ``"thompson"``, ``"ei"`` (expected improvement), ``"civ"`` and ``"random"``, choose
        by random shifts that are learned from the cells (DAG-BLR); ``"exact_greedy"`` and
        ``"exact_civ"`` by
        shifts taken as the full ones; ``"means_in_turn"`` and ``"means_thompson"`` by the cells'
        means alone.
    target
        The wanted mean, shape ``(n_nodes,)``; or a goal of any kind.
    full_shift
        Change of own genes by a full knockout or activation, ``(n_candidates, n_nodes)``.
    dag
        Graph of the model.
    n_cells
        Cells of a perturbation on a plate.
    rng
        Generator of the draws.

    Raises
    ------
    ValueError
        For an unknown name.
    """
    if name not in strategies():
        message = f"Unknown criterion {name!r}: choose from {', '.join(strategies())}."
        raise ValueError(message)
    goal = as_goal(target, dag.n_nodes)
    if name in NO_MODEL:
        return _Means(name, goal, rng)
    return _Modelled(name, goal, full_shift, dag, n_cells, rng)


class _Modelled:
    """DAG-BLR: fitted anew to all cells after each plate."""

    posterior: DagBlr
    prior: ShiftPrior
    known: ShiftPosterior

    def __init__(
        self,
        name: str,
        target: Goal,
        full_shift: Array,
        dag: Dag,
        n_cells: int,
        rng: np.random.Generator,
    ) -> None:
        self.exact, self.criterion = name in EXACT, name.removeprefix("exact_")
        self.target, self.full_shift, self.dag = target, full_shift, dag
        self.n_cells, self.rng = n_cells, rng

    def see(self, screen: ScreenMoments) -> None:
        every = np.arange(screen.n_environments)
        self.take(pool_guides(screen, every, len(every)))

    def take(self, pooled: PooledGuides) -> None:
        """Take up controls (first) and candidates whose guides are pooled already."""
        if self.exact:
            pooled = replace(pooled, variance_ratio=np.ones_like(pooled.variance_ratio))
        shift, own = self._expected(pooled)
        seen = np.flatnonzero(pooled.n_cells[1:])
        fixed = self.exact or not len(seen)
        found = fit_random_shifts(
            DagBlr(self.dag), _rows(pooled, np.append(0, seen + 1)), shift[seen],
            own=own[seen], fixed=fixed,
        )  # fmt: skip
        weights = np.tile(found.common, (len(shift), 1))
        if not fixed:
            weights[seen] = found.prior.weights
        elif not self.exact:
            weights[:] = UNSEEN_WEIGHTS
        nothing = np.zeros_like(shift)
        self.posterior = found.posterior
        self.prior = ShiftPrior(
            pooled.n[1:], pooled.mean[1:], pooled.variance_ratio[1:], shift, nothing, own, weights
        )
        self.known = self.prior.given(self.posterior)

    def _expected(self, cells: PooledGuides) -> tuple[Array, Array]:
        """Return expected shifts, and their variance where it is not the mixture."""
        unknown = np.full_like(self.full_shift, np.nan)
        rows, genes = np.nonzero(self.full_shift)
        if self.exact or not len(rows):
            return self.full_shift, unknown
        full = self.full_shift[rows, genes]
        direction = 1 if full.sum() > 0 else -1
        size, speaks = direction * full, np.ones(len(rows), np.bool_)
        if direction == -1:
            freedom = int(cells.n_cells.sum()) - int((cells.n_cells > 0).sum())
            noise = cells.scatter.diagonal()[genes] / max(freedom, 1)
            speaks = speaks_of_knockouts(
                np.abs(full), np.sqrt(noise * cells.variance_ratio[0, genes])
            )
        found = screen_efficacy(cells, rows, genes, size, speaks, direction=direction)
        shift = np.zeros_like(self.full_shift)
        shift[rows, genes], sd = found.expected_change(size)
        unknown[rows[speaks], genes[speaks]] = sd[speaks] ** 2
        return shift, unknown

    def plate(self, ready: Index, size: int) -> Index:
        if self.criterion == "best":
            expected, draws = self._distances()
            return ready[best_plate(expected[ready], draws[:, ready], size)]
        asked = Candidates(
            self.posterior, self.known, self.target, n_cells=self.n_cells, n_samples=_DISTANCES,
            rng=self.rng,
        )  # fmt: skip
        return find_acquisition(self.criterion).plate(asked, ready, size)

    def _centre(self) -> Array:
        """Return the squared distances of the expected states."""
        nothing = self.posterior.predict_mean(np.zeros(self.posterior.n_nodes))
        return self.target.distance(self.known.states(self.posterior), nothing)

    def _distances(self) -> tuple[Array, Array]:
        return first_order_distances(
            self.posterior, self.known, self.target, n_samples=_DRAWS, rng=self.rng
        )

    def recommend(self) -> int:
        noise = self.known.spare * self.posterior.noise_var
        spread = np.array([self.target.excess(variance) for variance in noise])
        return int((self._centre() + _DOUBT * spread).argmin())


class _Means:
    """The cells' means, each gene and perturbation by itself."""

    screen: ScreenMoments
    noise: Array  # variance of a cell, within perturbations

    def __init__(self, name: str, target: Goal, rng: np.random.Generator) -> None:
        self.in_turn, self.target, self.rng = name == "means_in_turn", target, rng

    def see(self, screen: ScreenMoments) -> None:
        self.screen = screen
        freedom = np.maximum(screen.n - 1, 0).sum()
        self.noise = screen.squares.sum(axis=0) / freedom

    def plate(self, ready: Index, size: int) -> Index:
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
        n = self.screen.n[1:]
        apart = self.target.distance(self.screen.mean[1:], self.screen.mean[0])
        unbiased = apart - self.target.excess(self.noise) / np.maximum(n, 1)
        return int(np.where(n > 0, unbiased, np.inf).argmin())


def _rows(cells: PooledGuides, index: Index) -> PooledGuides:
    return replace(
        cells, n_cells=cells.n_cells[index], n=cells.n[index], mean=cells.mean[index],
        variance_ratio=cells.variance_ratio[index],
    )  # fmt: skip
