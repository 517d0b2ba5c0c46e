"""All campaigns of a replay, in parallel over targets and repeats."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

from nextpert.core.loop._workers import run_tasks
from nextpert.core.loop.plates import replay_plates

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.loop.cell_pool import CellPool, PoolGoal
    from nextpert.tl._replay_design.modelled import Told

    Index = NDArray[np.int64]


COUNTS = ("n_warmup", "n_rounds", "n_perturbations", "n_cells", "n_repeats")


@dataclass(frozen=True)
class Options:
    """How every campaign of a replay is run."""

    criteria: tuple[str, ...]
    n_warmup: int
    n_rounds: int
    n_perturbations: int
    n_cells: int
    n_repeats: int


@dataclass(frozen=True)
class Task:
    """One target: its number in the pool, or a goal, and the candidates of each reading."""

    target: int | PoolGoal
    candidates: list[Index]


@dataclass(frozen=True)
class Runs:
    """What all campaigns did.

    Parameters
    ----------
    recommended
        Number of the recommended candidate, shape ``(n_targets, n_readings, n_criteria,
        n_repeats, n_rounds + 1)``.
    chosen
        Numbers of the candidates on every plate, -1 for none, shape ``(n_targets, n_readings,
        n_criteria, n_repeats, n_rounds, n_perturbations)``.
    """

    recommended: Index
    chosen: Index


def run_all(
    pool: CellPool,
    told: Told,
    tasks: list[Task],
    options: Options,
    rng: np.random.Generator,
    *,
    n_jobs: int | None,
) -> Runs:
    """Run every criterion on every target, reading and repeat.

    A target and repeat has one stream of random numbers, fixed before the first campaign
    starts: its criteria and readings share the half of the target's cells that are held back, the
    warm-up cells, the order in which the cells of every perturbation come up, and the seed of the
    criterion.
    """
    streams = [stream.spawn(options.n_repeats) for stream in rng.spawn(len(tasks))]
    jobs = [
        (pool, told, task, options, stream)
        for task, own in zip(tasks, streams, strict=True)
        for stream in own
    ]
    results = run_tasks(_one, jobs, n_jobs=n_jobs)
    # A bar where there is a terminal to see it.
    done = dict(tqdm(results, "Replayed campaigns", len(jobs), leave=False, disable=None))
    stacked = [np.stack(part) for part in zip(*(done[i] for i in range(len(jobs))), strict=True)]
    by_target = [x.reshape(len(tasks), options.n_repeats, *x.shape[1:]) for x in stacked]
    return Runs(*(np.ascontiguousarray(np.moveaxis(x, 1, 3)) for x in by_target))


def _one(
    pool: CellPool, told: Told, task: Task, options: Options, stream: np.random.Generator
) -> tuple[Index, Index]:
    """Run all readings and criteria of one target and repeat."""
    order, search = stream.spawn(2)
    seed: Any = search.bit_generator.seed_seq
    shape = (len(task.candidates), len(options.criteria), options.n_rounds)
    recommended = np.empty((*shape[:2], options.n_rounds + 1), np.int64)
    chosen = np.empty((*shape, options.n_perturbations), np.int64)
    # Small matrices: threads would only wait for each other, and could change the last bits.
    with threadpool_limits(1):
        deal = pool.deal(task.target, options.n_warmup, order)
        for r, candidates in enumerate(task.candidates):
            for c, criterion in enumerate(options.criteria):
                # The same for every criterion; a copy, as a sequence counts what it has spawned.
                own = np.random.SeedSequence(seed.entropy, spawn_key=seed.spawn_key)
                build = partial(
                    told.strategy, criterion, deal.target, rng=np.random.default_rng(own)
                )
                result = replay_plates(
                    pool, deal, build, candidates=candidates, n_rounds=options.n_rounds,
                    n_perturbations=options.n_perturbations, n_cells=options.n_cells,
                )  # fmt: skip
                recommended[r, c], chosen[r, c] = result.recommended, result.chosen
    return recommended, chosen
