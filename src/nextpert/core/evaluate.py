"""Campaigns in plates over the real cells of a screen: the pool, and strategies without a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._checks import as_rng
from nextpert.core.causal.acquisitions.thompson import DRAWS, thompson_plate
from nextpert.core.design.goal import Goal, sampling_root
from nextpert.core.screen.mean_distance import (
    covariance_of_mean,
    distance_difference,
    mean_distance,
)
from nextpert.core.screen.moments import Moments
from nextpert.core.screen.screen import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]


_N_DRAWS = 500  # of all means: a standard deviation is then known to 3%


@dataclass(frozen=True)
class PoolGoal:
    """A goal, and which of its states are means of perturbations of a pool, by all cells."""

    goal: Goal
    # Number of the perturbation that each target state, and each state to stay away from, is the
    # mean of; -1 for none.
    states: tuple[int, ...] = ()
    away: tuple[int, ...] = ()

    @property
    def own(self) -> list[int]:
        """Perturbations whose states are wanted."""
        return sorted({j for j in self.states if j >= 0})

    @property
    def used(self) -> list[int]:
        """Perturbations whose cells say what is wanted or to be stayed away from."""
        return sorted({j for j in (*self.states, *self.away) if j >= 0})

    def with_means(self, means: Mapping[int, Array], errors: Array | None = None) -> Goal:
        """Return the goal with other means of the pool's perturbations, taken as exact.

        ``errors``, of the shape of its states, are added to target states that are no such means.
        """
        old = self.goal
        states = old.states if errors is None else old.states + errors

        def moved(rows: Array, numbers: tuple[int, ...]) -> Array | None:
            new = [
                means.get(j, row) for row, j in zip(rows, numbers or [-1] * len(rows), strict=True)
            ]
            return np.array(new) if new else None

        return Goal(
            old.origin, states=moved(states, self.states),
            shares=old.shares if len(old.states) else None, signature=old.signature,
            low=old.low, high=old.high, away_from=moved(old.away_from, self.away),
            margins=old.margins if len(old.margins) else None, weights=old.weights,
            penalty=old.penalty, distance=old.kind,
        )  # fmt: skip


@dataclass(frozen=True)
class PoolEnvironments:
    """Which cells of a pool share perturbation, guide, batch and condition."""

    group: Index  # perturbation of every environment, 0 for the controls
    condition: Index  # the same, with conditions separate
    guide: Index  # its guide; 0 for all where guides are not known
    fixed: Array  # indicators of batches, shape (n_environments, n_fixed)
    control: Index  # environment of every control cell,
    cells: Index  # and of every cell of the perturbations in their order

    @classmethod
    def plain(cls, n_control: int, n_cells: Index) -> PoolEnvironments:
        """Return one environment for the controls and one for each perturbation."""
        every = np.arange(len(n_cells) + 1)
        return cls(
            every, every, np.zeros_like(every), np.zeros((len(every), 0)),
            np.zeros(n_control, np.int64), np.repeat(every[1:], n_cells),
        )  # fmt: skip


@dataclass(frozen=True)
class Deal:
    """Which cells a campaign may see, and in which order they come up."""

    warmup: Index  # rows of the control cells for the warm-up
    # For every perturbation its rows in random order; of the target's those alone that the target's
    # mean was not taken from.
    orders: list[Index]
    target: Goal  # the mean of half of the target's cells, or a goal with such means
    first: Index  # all perturbations in random order, for those that nothing distinguishes


@dataclass(frozen=True)
class Truth:
    """How far perturbations and controls are from what is wanted, by all of their cells.

    Distances are less what sampling adds to them; 0 for a perturbation whose state is the target.
    """

    distance: Array  # shape (n_perturbations,)
    sd: Array
    control: float
    control_sd: float
    # Of a perturbation and some others: which of these are not distinguished from it, at 95%.
    alike: Callable[[int, Index], NDArray[np.bool_]]

    def as_good(self, candidates: ArrayLike) -> NDArray[np.bool_]:
        """Return which candidates are not distinguished from the best, ``(n_candidates,)``."""
        may = np.asarray(candidates, np.int64)
        return self.alike(int(may[np.argmin(self.distance[may])]), may)


class CellPool:
    """Cells of a real screen: controls, and every perturbation that may be proposed.

    Parameters
    ----------
    control
        Control cells, shape ``(n_control, n_nodes)``, units of the data.
    perturbed
        Cells of each perturbation, arrays of shape ``(n_cells_j, n_nodes)``, at least 4 each.
    environments
        Guides and batches; by default there are none.

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
        # One array rather than a list: workers then share its pages.
        self.cells = np.concatenate(perturbed)
        self.n_cells = np.array([len(x) for x in perturbed], dtype=np.int64)
        self.start = np.concatenate([[0], np.cumsum(self.n_cells)])
        plain = PoolEnvironments.plain(len(self.control), self.n_cells)
        self.environments = plain if environments is None else environments

    @property
    def n_perturbations(self) -> int:
        """Number of perturbations."""
        return len(self.n_cells)

    def moments(self, perturbation: int) -> Moments:
        """Return the moments of all cells of a perturbation."""
        return Moments.from_array(
            self.cells[self.start[perturbation] : self.start[perturbation + 1]]
        )

    def deal(
        self, target: int | PoolGoal, n_warmup: int, rng: int | np.random.Generator | None = None
    ) -> Deal:
        """Shuffle controls and cells; half of the target's say where it lies and are not dealt.

        A goal has as many targets as states that are means of the pool's cells.
        """
        generator = as_rng(rng)
        warmup = generator.choice(len(self.control), n_warmup, replace=False)
        orders = [self.start[j] + generator.permutation(int(n)) for j, n in enumerate(self.n_cells)]
        means = {}
        if not isinstance(target, PoolGoal):
            target = PoolGoal(Goal.point(np.zeros(self.control.shape[1])), (target,))
        for j in target.used:
            half = len(orders[j]) // 2
            means[j] = self.cells[orders[j][:half]].mean(axis=0)
            orders[j] = orders[j][half:]
        first = generator.permutation(self.n_perturbations)
        return Deal(warmup, orders, target.with_means(means), first)

    def truth(self, target: int) -> Truth:
        """Return how far every perturbation and the controls lie from the mean of one of them.

        Squared distances of means, unbiased (:func:`~nextpert.core.screen.mean_distance`).
        """
        every = [*map(self.moments, range(self.n_perturbations)), Moments.from_array(self.control)]
        distances = [mean_distance(each, every[target]) for each in every]
        distance, sd = np.array([[each.estimate, each.sd] for each in distances]).T
        distance[target] = sd[target] = 0.0

        def alike(one: int, others: Index) -> NDArray[np.bool_]:
            if one == target:
                return distance[others] <= 1.96 * sd[others]
            low = [
                -1.0 if j == one
                else distance_difference(every[j], every[one], every[target])[1]
                for j in others
            ]  # fmt: skip
            return np.array(low) <= 0

        return Truth(distance[:-1], sd[:-1], float(distance[-1]), float(sd[-1]), alike)


def goal_truth(pool: CellPool, target: PoolGoal) -> Truth:
    """Return how far all perturbations and the controls are from a goal.

    Spreads come from draws of all means about those of the cells, with a fixed seed.
    """
    rng, control = np.random.default_rng(0), Moments.from_array(pool.control)
    every = [*(pool.moments(j) for j in range(pool.n_perturbations)), control]
    covariances = [covariance_of_mean(each) for each in every]
    goal = target.with_means({j: every[j].mean for j in target.used})
    numbers = [*target.states, *[-1] * (len(goal.states) - len(target.states))]
    variances = [
        own if j < 0 else covariances[j].diagonal()
        for j, own in zip(numbers, target.goal.variances, strict=True)
    ]

    def errors(j: int) -> Array:
        root = sampling_root(covariances[j], control.n_nodes)[0]
        return rng.standard_normal((_N_DRAWS, len(root))) @ root.T

    known = {j: errors(j) for j in target.used}
    moved = []  # the goal, draw by draw
    for k in range(_N_DRAWS):
        off = target.goal.draw_errors(rng)
        means = {j: every[j].mean + error[k] for j, error in known.items()}
        moved.append(target.with_means(means, off))
    distance, draws = np.empty(len(every)), np.empty((_N_DRAWS, len(every)))
    for j, cells in enumerate(every):
        added = sum(
            share * (goal.excess(covariances[j].diagonal()) + goal.excess(variance))
            for share, variance, number in zip(goal.shares, variances, numbers, strict=True)
            if number != j
        )
        distance[j] = goal.distance(cells.mean[None])[0] - added
        off = known[j] if j in known else errors(j)
        draws[:, j] = [
            each.distance((cells.mean + error)[None])[0]
            for each, error in zip(moved, off, strict=True)
        ]

    def alike(one: int, others: Index) -> NDArray[np.bool_]:
        apart = (draws[:, others] - draws[:, [one]]).std(axis=0)
        return np.asarray(distance[others] - distance[one] <= 1.96 * apart, np.bool_)

    sd = draws.std(axis=0)
    return Truth(distance[:-1], sd[:-1], float(distance[-1]), float(sd[-1]), alike)


class Task(NamedTuple):
    """What a strategy is asked in every round."""

    goal: Goal
    environments: PoolEnvironments
    candidates: Index  # their numbers in the pool
    n_cells: int  # of each perturbation on a plate
    rng: np.random.Generator


# Of the moments of the cells seen so far (all environments of the pool), the candidates that have
# cells left, and the size of a plate: the candidate expected nearest to the goal, and the plate.
# Candidates are given by their place in the task; of size 0 a plate is empty.
Strategy = Callable[[Task, ScreenMoments, "Index", int], "tuple[int, Index]"]


def by_means(
    task: Task, screen: ScreenMoments, ready: Index, size: int, *, in_turn: bool
) -> tuple[int, Index]:
    """Recommend the nearest mean of cells; try one perturbation after the other, or by draws.

    Every gene and perturbation is estimated by itself. Batches are taken off by least squares from
    the cells seen so far, and guides do not count.
    """
    its, control = task.environments, 0
    place = np.full(int(its.group.max()) + 1, -1)
    place[np.append(control, task.candidates + 1)] = np.arange(len(task.candidates) + 1)
    has = (screen.n > 0) & (place[its.group] >= 0)
    seen = ScreenMoments(screen.n[has], screen.mean[has], screen.squares[has], screen.scatter)
    clean = seen.without_fixed(its.fixed[has], its.condition[has])
    pooled = clean.pool(place[its.group[has]], len(task.candidates) + 1)
    n, mean, origin = pooled.n[1:], pooled.mean[1:], pooled.mean[control]
    noise = pooled.squares.sum(axis=0) / np.maximum(pooled.n - 1, 0).sum()  # variance of a cell
    # The nearest mean, less what sampling adds.
    unbiased = task.goal.distance(mean, origin) - task.goal.excess(noise) / np.maximum(n, 1)
    best = int(np.where(n > 0, unbiased, np.inf).argmin())
    if not size or in_turn:
        return best, ready[np.argsort(n[ready], kind="stable")[:size]]
    # Thompson sampling of normal states about the controls, their spread pooled over genes.
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
    """What one campaign in plates did, round by round."""

    chosen: Index  # on the plate of each round, (n_rounds, n_perturbations); -1 for no cells left
    recommended: Index  # after 0, 1, ... plates, (n_rounds + 1,)


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
    """Run a campaign: see cells, recommend, fill a plate, and so on.

    The k-th cell drawn of a perturbation is fixed by ``deal``, so that strategies given the same
    deal see the same cells. A perturbation gives its remaining cells, and is no longer proposed
    once none remain. ``candidates`` may be proposed and recommended; all by default.

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
    # In the order of the deal, so that the first of those that are alike is a random one.
    may = deal.first if candidates is None else deal.first[np.isin(deal.first, candidates)]
    its = pool.environments
    task, n = Task(deal.target, its, may, n_cells, rng), len(its.group)
    screen = ScreenMoments.from_array(pool.control[deal.warmup], its.control[deal.warmup], n)
    drawn, available = np.zeros(len(may), np.int64), np.array([len(deal.orders[j]) for j in may])
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
        screen = screen + ScreenMoments.from_array(pool.cells[new], its.cells[new], n)
        drawn[plate] += [len(each) for each in rows]
        chosen[t, : len(plate)] = may[plate]
    return PlatesResult(chosen, recommended)
