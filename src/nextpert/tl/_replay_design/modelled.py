"""Campaigns of a replay as users run them: fit after every plate, ask for the next, in parallel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nextpert import core
from nextpert._adata.progress import progress, without_bars
from nextpert.core import ScreenMoments
from nextpert.core.causal.design_loop import run_tasks
from nextpert.core.design.joint_draws import Joined
from nextpert.core.evaluate.strategies import NO_MODEL, Means, replay_plates
from nextpert.core.fit.candidates import as_asked, as_fitted
from nextpert.core.fit.cells import pool_cells
from nextpert.core.fit.combinations import fitted_candidates
from nextpert.core.fit.interventions import shift_environments
from nextpert.core.fit.learn import Graphs, Model
from nextpert.tl._design_interventions.target import given_by_numbers
from nextpert.tl._fit_dag_blr import record_of
from nextpert.tl._plan_screen.pool import Constraints
from nextpert.tl._plan_screen.wells import STRATEGIES, Choice, Wells

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.design.goal import Goal
    from nextpert.core.evaluate.cell_pool import CellPool, PoolEnvironments, PoolGoal, Truth
    from nextpert.core.evaluate.strategies import Strategy
    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.fit.learn import Spec

    Index = NDArray[np.int64]
    Array = NDArray[np.float64]

EXACT = "exact_"  # in front of a strategy whose model takes shifts as exact
N_SAMPLES = 100  # draws of distances, for a plate and for a recommendation


def strategies() -> tuple[str, ...]:
    """Return all ways to fill a plate; a prefix says that shifts are exact.

    Acquisitions that need exact shifts are there with the prefix only.

    Examples
    --------
    >>> from nextpert.tl._replay_design.modelled import strategies
    >>> {"exploit", "exact_civ", "round_robin_means"} <= set(strategies())
    True
    """
    learned, exact = ((*STRATEGIES, *core.acquisitions(exact=only)) for only in (False, True))
    return (*learned, *(f"{EXACT}{name}" for name in exact), *NO_MODEL)


def shift_sd_of(strategy: str) -> str:
    """Return ``"learned"`` or ``"0"`` as in ``tl.fit_dag_blr``, empty without a model."""
    return "" if strategy in NO_MODEL else "0" if strategy.startswith(EXACT) else "learned"


@dataclass(frozen=True)
class Setting:
    """What a user knows before the first cell, the same for all campaigns."""

    spec: Spec  # all perturbations of the pool, in its order, and how they are modelled
    graphs: Graphs
    environments: PoolEnvironments  # which cells share perturbation, guide and batch
    guided: bool = False  # whether guides are known

    def build(
        self, strategy: str, goal: Goal, candidates: Index, rng: np.random.Generator
    ) -> Strategy:
        """Return the strategy of a name, for candidates given by their numbers in the pool."""
        if strategy in NO_MODEL:
            return Means(strategy, goal, self.environments, candidates, rng)
        return Modelled(self, strategy, goal, candidates, rng)


class Modelled:
    """The calls of a user: a fit to all cells seen, and the next plate of ``tl.plan_screen``.

    ``strategy`` is one of ``tl.plan_screen``, with ``"exact_"`` in front if shifts are exact;
    ``candidates`` are numbers in the pool; every plate has a child of ``rng``.
    """

    fit: FittedPosterior
    candidates: CandidateSet
    joined: Joined

    def __init__(
        self,
        setting: Setting,
        strategy: str,
        goal: Goal,
        candidates: Index,
        rng: np.random.Generator,
    ) -> None:
        self.setting, self.goal, self.may, self.rng = setting, goal, candidates, rng
        self.strategy = strategy.removeprefix(EXACT)
        self.spec = replace(setting.spec, exact=self.strategy != strategy)
        self.asked = self.spec.rows(candidates.tolist())

    def see(self, screen: ScreenMoments) -> None:
        """Fit the model to all cells seen so far, as ``tl.fit_dag_blr`` does."""
        every, has = self.setting.environments, np.flatnonzero(screen.n)
        group = every.group[has]
        # With exact shifts a perturbation without a known shift takes no part.
        taken = [
            j - 1 for j in np.unique(group[group > 0]).tolist()
            if not self.spec.exact or self.spec.plan.targets[j - 1]
        ]  # fmt: skip
        place = np.full(len(self.spec.plan.names) + 1, -1)
        place[[0, *(j + 1 for j in taken)]] = np.arange(len(taken) + 1)
        used = has[place[group] >= 0]
        seen = ScreenMoments(
            screen.n[used], screen.mean[used], screen.squares[used], screen.scatter
        )
        clean, sd = seen.without_batches(every.fixed[used], every.condition[used])
        guided = self.setting.guided and not self.spec.exact
        cells = pool_cells(
            clean, place[every.group[used]], len(taken) + 1,
            guide=every.guide[used] if guided else None, fixed_sd=sd,
        )  # fmt: skip
        model = Model.fit(self.spec.rows(taken), cells, self.setting.graphs)
        naming, shift = self.spec.naming, self.spec.plan.shift
        params = {
            "separator": naming.separator, "control": naming.control,
            "shift": shift if isinstance(shift, str) else "table",
            "shift_sd": 0.0 if self.spec.exact else "learned",
        }  # fmt: skip
        record = record_of(model, params, left_out=pd.DataFrame())
        self.fit = replace(record, columns=np.arange(len(self.spec.genes)))
        plan, states = self.asked.plan, self.goal.states
        if isinstance(plan.shift, str):
            shifts = as_fitted(plan.names, plan.targets, self.fit)
        else:
            shifts = shift_environments(plan, self.spec.genes, cells.control)
        self.candidates = fitted_candidates(shifts, self.fit)
        # What of the target has a part in the draws: its numbers, if it is one state.
        numbers = given_by_numbers(states[0], self.fit) if len(states) == 1 else None
        self.joined = Joined(numbers=numbers)

    def plate(self, ready: Index, size: int, n_cells: int) -> Index:
        """Return the plate of ``tl.plan_screen``, as many cells of each, no controls."""
        limits = Constraints(np.isin(np.arange(len(self.may)), ready))
        wells = Wells(size, n_cells, size * n_cells, n_cells, n_controls=0)
        asked = as_asked(
            self.fit, self.candidates, self.goal, self.joined, n_cells=n_cells,
            n_samples=N_SAMPLES, rng=self.rng.spawn(1)[0],
        )  # fmt: skip
        choice = Choice(asked, limits, wells, np.ones(asked.size, bool))
        return np.array(choice.choose(self.strategy).candidates, np.int64)

    def recommend(self) -> int:
        """Return the smallest ``predicted_distance`` in the table of ``tl.design_interventions``.

        The probability of being the nearest, by which that table is sorted, is right for what to
        try next; as an answer it favours what is least known. On TAP-seq (3 repeats) states
        recommended by it were 0.44 as far as the control's in the pool and 1.75 held out, over
        plates 1 to 10; by the predicted distance 0.21 and 1.20.
        """
        asked = as_asked(
            self.fit, self.candidates, self.goal, self.joined, n_samples=N_SAMPLES,
            rng=self.rng.spawn(1)[0],
        )  # fmt: skip
        return int(asked.distances.mean[:-1].argmin())


@dataclass(frozen=True)
class Options:
    """How every campaign of a replay is run."""

    strategies: tuple[str, ...]
    n_warmup: int
    n_rounds: int
    n_perturbations: int
    n_cells: int
    n_repeats: int


@dataclass(frozen=True)
class Replayed:
    """What is to be reached, and how far all perturbations truly are from it."""

    name: str
    target: int | PoolGoal  # the state of a perturbation, by its number in the pool, or a goal
    truth: Truth
    candidates: list[Index]  # of each reading, by their numbers in the pool


def run_all(
    pool: CellPool,
    setting: Setting,
    goals: list[Replayed],
    options: Options,
    rng: np.random.Generator,
    *,
    n_jobs: int | None,
) -> tuple[Index, Index]:
    """Run every strategy on every target, reading and repeat.

    A target and repeat has one stream of random numbers, fixed before the first campaign
    starts: its strategies and readings share the half of the target's cells that are held back, the
    warm-up cells, the order in which the cells of every perturbation come up, and the seed of the
    strategy.

    Returns
    -------
    recommended
        Number of the recommended candidate, shape ``(n_targets, n_readings, n_strategies,
        n_repeats, n_rounds + 1)``.
    chosen
        Numbers of the candidates on every plate, -1 for none, shape ``(n_targets, n_readings,
        n_strategies, n_repeats, n_rounds, n_perturbations)``.
    """
    jobs = [
        (pool, setting, goal.target, goal.candidates, options, stream)
        for goal, own in zip(goals, rng.spawn(len(goals)), strict=True)
        for stream in own.spawn(options.n_repeats)
    ]
    done = {}
    with progress(len(jobs), "Replayed campaigns") as bar:
        for i, result in run_tasks(_one, jobs, n_jobs=n_jobs):
            done[i] = result
            bar.update()
    stacked = [np.stack(part) for part in zip(*(done[i] for i in range(len(jobs))), strict=True)]
    recommended, chosen = (
        np.ascontiguousarray(
            np.moveaxis(x.reshape(len(goals), options.n_repeats, *x.shape[1:]), 1, 3)
        )
        for x in stacked
    )
    return recommended, chosen


def _one(
    pool: CellPool,
    setting: Setting,
    target: int | PoolGoal,
    readings: list[Index],
    options: Options,
    stream: np.random.Generator,
) -> tuple[Index, Index]:
    """Run all readings and strategies of one target and repeat."""
    order, search = stream.spawn(2)
    seed: Any = search.bit_generator.seed_seq
    shape = (len(readings), len(options.strategies), options.n_rounds)
    recommended = np.empty((*shape[:2], options.n_rounds + 1), np.int64)
    chosen = np.empty((*shape, options.n_perturbations), np.int64)
    # Small matrices: threads would only wait for each other, and could change the last bits.
    with threadpool_limits(1), without_bars():
        deal = pool.deal(target, options.n_warmup, order)
        for r, candidates in enumerate(readings):
            for c, strategy in enumerate(options.strategies):
                # The same for every strategy; a copy, as a sequence counts what it has spawned.
                own = np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key)
                build = partial(
                    setting.build, strategy, deal.target, rng=np.random.default_rng(own)
                )
                chosen[r, c], recommended[r, c] = replay_plates(
                    pool, deal, build, candidates=candidates, n_rounds=options.n_rounds,
                    n_perturbations=options.n_perturbations, n_cells=options.n_cells,
                )  # fmt: skip
    return recommended, chosen
