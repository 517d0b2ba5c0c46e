"""Replayed campaigns in rounds on the cells of a screen: the pool, and model-free strategies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._checks import as_rng
from nextpert.core.causal.acquisitions.thompson import DRAWS, thompson_plate
from nextpert.core.design.goal import Goal
from nextpert.core.screen.mean_distance import distance_difference, mean_distance
from nextpert.core.screen.moments import Moments
from nextpert.core.screen.screen import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]


@dataclass(frozen=True)
class PoolEnvironments:
    """Environments of a pool: cells that share perturbation, guide, batch and condition."""

    group: Index  # perturbation of every environment, 0 for the controls
    condition: Index  # perturbation and condition of every environment
    guide: Index  # guide of every environment; 0 for all if guides are not known
    fixed: Array  # indicators of batches, shape (n_environments, n_fixed)
    control: Index  # environment of every control cell
    cells: Index  # environment of every perturbed cell, in the order of the perturbations

    @classmethod
    def plain(cls, n_control: int, n_cells: Index) -> PoolEnvironments:
        """Return one environment for the controls and one for each perturbation."""
        environments = np.arange(len(n_cells) + 1)
        return cls(
            environments,
            environments,
            np.zeros_like(environments),
            np.zeros((len(environments), 0)),
            np.zeros(n_control, np.int64),
            np.repeat(environments[1:], n_cells),
        )


@dataclass(frozen=True)
class Deal:
    """The cells that a campaign can observe, and their order."""

    warmup: Index  # rows of the control cells for the warm-up
    # Rows of every perturbation in random order; for the target, only the half of its cells that
    # was not used for the target mean.
    orders: list[Index]
    target: Goal  # the mean of half of the target's cells
    first: Index  # all perturbations in random order, to break ties


class Truth(NamedTuple):
    """Distances of perturbations and controls to the mean of one perturbation, from all cells.

    Distances are squared and unbiased, and 0 for the target itself.
    """

    target: int
    moments: list[Moments]  # of every perturbation
    distance: Array  # shape (n_perturbations,)
    sd: Array
    control: float
    control_sd: float

    def as_good(self, candidates: ArrayLike) -> NDArray[np.bool_]:
        """Return which candidates cannot be distinguished from the best with 95% confidence."""
        may = np.asarray(candidates, np.int64)
        best = int(may[np.argmin(self.distance[may])])
        if best == self.target:
            return np.asarray(self.distance[may] <= 1.96 * self.sd[may])
        cells = self.moments
        return np.array(
            [
                j == best or distance_difference(cells[j], cells[best], cells[self.target])[1] <= 0
                for j in may
            ]
        )


class CellPool:
    """Cells of a screen: controls, and every perturbation that can be proposed.

    Parameters
    ----------
    control
        Control cells, shape ``(n_control, n_nodes)``, units of the data.
    perturbed
        Cells of each perturbation, arrays of shape ``(n_cells_j, n_nodes)`` with at least 4 cells.
    environments
        Guides, batches and conditions; by default there are none.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.evaluate import CellPool
    >>> rng = np.random.default_rng(0)
    >>> cells = [rng.normal(mean, size=(20, 2)) for mean in (1.0, 5.0)]
    >>> pool = CellPool(rng.normal(size=(50, 2)), cells)
    >>> pool.n_cells.tolist(), len(pool.deal(0, 30, rng=0).orders[0])
    ([20, 20], 10)
    >>> pool.truth(1).distance.round().tolist()
    [38.0, 0.0]
    """

    def __init__(
        self,
        control: ArrayLike,
        perturbed: Sequence[Array],
        environments: PoolEnvironments | None = None,
    ) -> None:
        self.control = np.asarray(control, np.float64)
        # One array instead of a list, so that workers share its memory.
        self.cells = np.concatenate(perturbed)
        self.n_cells = np.array([len(x) for x in perturbed], dtype=np.int64)
        self.start = np.concatenate([[0], np.cumsum(self.n_cells)])
        if environments is None:
            environments = PoolEnvironments.plain(len(self.control), self.n_cells)
        self.environments = environments

    def deal(
        self, target: int, n_warmup: int, rng: int | np.random.Generator | None = None
    ) -> Deal:
        """Shuffle controls and cells; half of the target's cells only define the target mean."""
        generator = as_rng(rng)
        warmup = generator.choice(len(self.control), n_warmup, replace=False)
        orders = [self.start[j] + generator.permutation(int(n)) for j, n in enumerate(self.n_cells)]
        target_cells, orders[target] = np.split(orders[target], [len(orders[target]) // 2])
        goal = Goal.point(self.cells[target_cells].mean(axis=0))
        return Deal(warmup, orders, goal, generator.permutation(len(self.n_cells)))

    def truth(self, target: int) -> Truth:
        """Return the distances of all perturbations and the controls to the mean of one of them.

        Distances are squared and unbiased (``nextpert.core.screen.mean_distance``).
        """
        perturbed = np.split(self.cells, self.start[1:-1])
        states = [Moments.from_array(cells) for cells in (*perturbed, self.control)]
        distances = [mean_distance(state, states[target]) for state in states]
        distance, sd = np.array([[state.estimate, state.sd] for state in distances]).T
        distance[target] = sd[target] = 0.0
        control = float(distance[-1]), float(sd[-1])
        return Truth(target, states[:-1], distance[:-1], sd[:-1], *control)


class Task(NamedTuple):
    """The task of a strategy in every round."""

    goal: Goal
    environments: PoolEnvironments
    candidates: Index  # their indices in the pool
    n_cells: int  # per perturbation and round
    rng: np.random.Generator


# A function of the task, the moments of the cells seen so far (for all environments of the pool),
# the candidates that have cells left, and the size of a round. It returns the candidate expected to
# be nearest to the goal, and those to measure. Candidates are given by their index in the task; a
# round of size 0 is empty.
Strategy = Callable[[Task, ScreenMoments, "Index", int], "tuple[int, Index]"]


def pooled_moments(task: Task, screen: ScreenMoments) -> ScreenMoments:
    """Return the moments of the control (first) and the candidates, of the cells seen so far.

    The effects of batches are removed by least squares on these cells; guides are ignored.
    """
    environments = task.environments
    row_of = np.full(int(environments.group.max()) + 1, -1)
    row_of[np.append(0, task.candidates + 1)] = np.arange(len(task.candidates) + 1)
    has = (screen.n > 0) & (row_of[environments.group] >= 0)
    measured = ScreenMoments(screen.n[has], screen.mean[has], screen.squares[has], screen.scatter)
    clean = measured.without_fixed(environments.fixed[has], environments.condition[has])
    return clean.pool(row_of[environments.group[has]], len(task.candidates) + 1)


def by_means(
    task: Task, screen: ScreenMoments, ready: Index, size: int, *, in_turn: bool
) -> tuple[int, Index]:
    """Recommend the candidate with the nearest mean; choose rounds in turn or by Thompson sampling.

    Every gene and perturbation is estimated separately.
    """
    pooled, control = pooled_moments(task, screen), 0
    n, mean, origin = pooled.n[1:], pooled.mean[1:], pooled.mean[control]
    noise = pooled.squares.sum(axis=0) / np.maximum(pooled.n - 1, 0).sum()  # variance of a cell
    # The nearest mean, after subtraction of the sampling variance.
    unbiased = task.goal.distance(mean, origin) - task.goal.excess(noise) / np.maximum(n, 1)
    best = int(np.where(n > 0, unbiased, np.inf).argmin())
    if not size or in_turn:
        return best, ready[np.argsort(n[ready], kind="stable")[:size]]
    # Thompson sampling of normal states about the controls, with a variance pooled over genes.
    tau2 = 1.0
    if (n > 0).any():
        varies = noise > 0
        square = (mean[n > 0] - origin)[:, varies] ** 2 / noise[varies]
        tau2 = max(float((square.mean(axis=1) - 1 / n[n > 0] - 1 / pooled.n[control]).mean()), 1e-3)
    weight = (n * tau2 / (1 + n * tau2))[:, None]
    expected, variance = origin + weight * (mean - origin), (1 - weight) * tau2 * noise
    states = expected + np.sqrt(variance) * task.rng.standard_normal((DRAWS, *mean.shape))
    draws = task.goal.distance(states.reshape(-1, mean.shape[1]), origin)
    draws = draws.reshape(states.shape[:2])
    return best, ready[thompson_plate(draws[:, ready], size, task.rng)]


BY_MEANS: dict[str, Strategy] = {
    "round_robin_means": partial(by_means, in_turn=True),
    "thompson_means": partial(by_means, in_turn=False),
}


class PlatesResult(NamedTuple):
    """Result of a campaign in rounds, round by round."""

    chosen: Index  # candidates of each round, (n_rounds, n_perturbations); -1 if no cells are left
    recommended: Index  # recommendation after 0, 1, ... rounds, (n_rounds + 1,)


def replay_plates(
    pool: CellPool,
    deal: Deal,
    strategy: Strategy,
    rng: np.random.Generator,
    *,
    candidates: ArrayLike | None = None,
    n_rounds: int = 10,
    n_perturbations: int = 4,
    n_cells: int = 10,
) -> PlatesResult:
    """Run a campaign: observe cells, recommend, choose a round, and repeat.

    ``deal`` fixes the order in which the cells of a perturbation are drawn, so that strategies with
    the same deal see the same cells. A perturbation is no longer proposed once none of its cells
    remain. ``candidates`` can be proposed and recommended; by default, all perturbations.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.evaluate import BY_MEANS, CellPool, replay_plates
    >>> rng = np.random.default_rng(0)
    >>> cells = [rng.normal(mean, size=(80, 9)) for mean in (0.0, 1.0, -1.0, 2.0)]
    >>> pool = CellPool(rng.normal(size=(200, 9)), cells)
    >>> deal, plates = pool.deal(1, 100, rng=0), {"n_rounds": 3, "n_perturbations": 2}
    >>> result = replay_plates(pool, deal, BY_MEANS["round_robin_means"], rng, **plates)
    >>> result.chosen.shape, int(result.recommended[-1])
    ((3, 2), 1)
    """
    # In the order of the deal, so that ties are broken at random.
    may = deal.first if candidates is None else deal.first[np.isin(deal.first, candidates)]
    environments = pool.environments
    task = Task(deal.target, environments, may, n_cells, rng)
    n = len(environments.group)
    screen = ScreenMoments.from_array(
        pool.control[deal.warmup], environments.control[deal.warmup], n
    )
    drawn = np.zeros(len(may), np.int64)
    available = np.array([len(deal.orders[j]) for j in may])
    chosen = np.full((n_rounds, n_perturbations), -1)
    recommended = np.empty(n_rounds + 1, dtype=np.int64)
    for t in range(n_rounds + 1):
        ready = np.flatnonzero(drawn < available)
        size = min(n_perturbations, len(ready)) if t < n_rounds else 0
        best, plate = strategy(task, screen, ready, size)
        recommended[t:] = may[best]
        if not size:
            break
        rows = [deal.orders[may[j]][drawn[j] : drawn[j] + n_cells] for j in plate]
        new = np.concatenate(rows)
        screen = screen + ScreenMoments.from_array(pool.cells[new], environments.cells[new], n)
        drawn[plate] += [len(rows_of) for rows_of in rows]
        chosen[t, : len(plate)] = may[plate]
    return PlatesResult(chosen, recommended)
