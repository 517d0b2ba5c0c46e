"""Simulated worlds with known states, and campaigns in plates in them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Protocol

import numpy as np

from benchmarks.replays import as_pool, full_shift, known
from nextpert.core import LinearScm, ScreenMoments, random_scm
from nextpert.tl._replay_design.modelled import model_like

if TYPE_CHECKING:
    from benchmarks._cells import Cells
    from nextpert.core import Dag

WELLS, N_CELLS, WARMUP, ROUNDS = 8, 10, 100, 8
GENES, DEGREE, EFFICACY = 30, 4.0, (0.2, 1.0)


@dataclass(frozen=True)
class World:
    """Candidates, what they truly do, and a state to reach.

    Parameters
    ----------
    scm
        The model.
    full, shift
        Shifts as full perturbations, and as they are, shape ``(n_candidates, n_genes)``.
    available
        Cells there are of each candidate.
    target
        Mean to reach as it is given, shape ``(n_genes,)``.
    distance, nothing
        True squared distances of the candidates' states to the true target, and of the control.
    seed
        Of the cells, which are the same for all strategies.
    n_guides, guide_variance
        Guides of every perturbation and of the controls, whose cells take turns, and the variance
        of their own shifts over that of the noise.
    """

    scm: LinearScm
    full: np.ndarray
    shift: np.ndarray
    available: np.ndarray
    target: np.ndarray
    distance: np.ndarray
    nothing: float
    seed: tuple[int, ...]
    n_guides: int = 1
    guide_variance: float = 0.0
    _drawn: dict[int, np.ndarray] = field(default_factory=dict)

    def cells(self, j: int) -> np.ndarray:
        """Return all cells of a candidate, in the order they come up; -1 for the controls."""
        if j not in self._drawn:
            rng = np.random.default_rng([*self.seed, j + 1])
            n = WARMUP if j < 0 else int(self.available[j])
            own = np.zeros(self.scm.n_nodes) if j < 0 else self.shift[j]
            spread = np.sqrt(self.guide_variance * self.scm.noise_var)
            x = np.empty((n, self.scm.n_nodes))
            for g in range(self.n_guides):
                shift = own + spread * rng.standard_normal(len(own))
                x[g :: self.n_guides] = self.scm.sample(len(x[g :: self.n_guides]), shift, rng=rng)
            self._drawn[j] = x
        return self._drawn[j]


class Chooser(Protocol):
    """What a strategy does with the moments of all cells so far, one environment a guide."""

    def see(self, screen: ScreenMoments) -> None:
        """Take up the cells; the guides of the controls come first."""

    def plate(self, ready: np.ndarray, size: int, n_cells: int) -> np.ndarray:
        """Return the candidates of the next plate, of those that have cells left."""

    def recommend(self) -> int:
        """Return the candidate expected nearest."""


def campaign(world: World, chooser: Chooser, may: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what is recommended after 0, 1, ... plates, and the cells seen by then."""
    n_guides, n_groups = world.n_guides, (len(may) + 1) * world.n_guides
    control = world.cells(-1)
    screen = ScreenMoments.from_array(control, np.arange(len(control)) % n_guides, n_groups)
    drawn, best, seen = np.zeros(len(may), np.int64), np.empty(ROUNDS + 1, np.int64), [0]
    for t in range(ROUNDS + 1):
        chooser.see(screen)
        best[t] = may[chooser.recommend()]
        ready = np.flatnonzero(drawn < world.available[may])
        if t == ROUNDS or not len(ready):
            best[t:] = best[t]
            break
        rows, codes = [], []
        for j in chooser.plate(ready, min(WELLS, len(ready)), N_CELLS):
            rows.append(world.cells(int(may[j]))[drawn[j] : drawn[j] + N_CELLS])
            position = drawn[j] + np.arange(len(rows[-1]))
            codes.append((j + 1) * n_guides + position % n_guides)
            drawn[j] += len(rows[-1])
        plate = (np.concatenate(rows), np.concatenate(codes))
        screen = screen + ScreenMoments.from_array(*plate, n_groups)
        seen.append(int(drawn.sum()))
    return best, np.array(seen + seen[-1:] * (ROUNDS + 1 - len(seen)))


def apart(scm: LinearScm, shifts: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, float]:
    """Return squared distances of the states of shifts, and of the control, to a state."""
    means = np.array([scm.mean(shift) for shift in shifts])
    return ((means - state) ** 2).sum(axis=1), float(((scm.mean() - state) ** 2).sum())


def copied(
    cells: Cells, dag: Dag, targets: list[int], repeat: int, **guides: float
) -> list[tuple[int, World]]:
    """Return a copy of a screen, once for every target, with the target's number.

    As in a replay the target is estimated from half of its cells, and the others are in the pool.
    """
    groups = {name: cells.x[cells.code == j] for j, name in enumerate(cells.names)}
    full = full_shift(cells)
    rng = np.random.default_rng([repeat, 1])
    told = known(cells, as_pool(cells), dag)
    scm, shift = model_like(groups, told.spec, told.graphs, rng)
    out = []
    for t in targets:
        available = np.array([len(x) for x in groups.values()][1:])
        half = int(available[t]) // 2
        available[t] -= half
        told = scm.sample(half, shift[t], rng=rng).mean(axis=0)
        distance, nothing = apart(scm, shift, scm.mean(shift[t]))
        world = World(scm, full, shift, available, told, distance, nothing, (repeat, 2), **guides)
        out.append((t, world))
    return out


def drawn(goal: str, repeat: int, **guides: float) -> World:
    """Return a random model of 30 genes whose knockouts differ in efficacy; all pairs come last.

    The target, told exactly, is the state of a ``pair`` of knockouts, or that of an ideal shift of
    norm 4 on the 10 most downstream genes (``downstream``).
    """
    rng = np.random.default_rng([repeat, 3])
    unit = random_scm(GENES, "erdos_renyi", expected_degree=DEGREE, rng=rng)
    mean = rng.uniform(3, 5, GENES)  # the standard deviation is 1
    scm = LinearScm(unit.weights, unit.noise_var, mean - unit.weights @ mean)
    efficacy = rng.uniform(*EFFICACY, GENES)
    pairs = np.array(list(combinations(range(GENES), 2)))
    members = np.zeros((GENES + len(pairs), GENES))
    members[:GENES, :GENES] = np.eye(GENES)
    members[np.repeat(np.arange(GENES, len(members)), 2), pairs.ravel()] = 1.0
    if goal == "pair":
        wanted = -(members * efficacy * mean)[GENES + rng.integers(len(pairs))]
    else:
        wanted = np.zeros(GENES)
        entries = rng.uniform(0.25, 1, 10) * rng.choice([-1, 1], 10)
        wanted[scm.dag.order[-10:]] = 4 * entries / np.linalg.norm(entries)
    state, shift = scm.mean(wanted), -members * efficacy * mean
    available = np.full(len(members), ROUNDS * N_CELLS)
    distance, nothing = apart(scm, shift, state)
    world = World(scm, -members * mean, shift, available, state, distance, nothing, (repeat, 4))
    return replace(world, **guides)
