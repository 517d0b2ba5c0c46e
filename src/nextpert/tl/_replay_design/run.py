"""All campaigns of a replay, in parallel over targets and repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.loop._workers import run_tasks
from nextpert.core.loop.replay import replay

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.loop.replay import CellPool

    Index = NDArray[np.int64]


# A baseline: the same model and shifts on a graph without arcs, whose cells come from random.
EMPTY = "empty_graph"


@dataclass(frozen=True)
class Options:
    """How every campaign of a replay is run."""

    criteria: tuple[str, ...]
    n_warmup: int
    n_rounds: int
    n_cells: int
    n_repeats: int


@dataclass(frozen=True)
class Task:
    """One target: its mean, and the candidates of each reading."""

    target_mean: NDArray[np.float64]
    candidates: list[Index]


@dataclass(frozen=True)
class Runs:
    """What all campaigns did.

    Parameters
    ----------
    distance
        Squared distance of the recommended perturbation's mean to the target, shape
        ``(n_targets, n_readings, n_criteria, n_repeats, n_rounds + 1)``.
    recommended
        Number of the recommended candidate, of the same shape.
    chosen
        Number of the candidate whose cells were drawn, -1 for none; one round less.
    """

    distance: NDArray[np.float64]
    recommended: NDArray[np.int64]
    chosen: NDArray[np.int64]


def run_all(
    pool: CellPool,
    dag: Dag,
    tasks: list[Task],
    options: Options,
    rng: np.random.Generator,
    *,
    n_jobs: int | None,
) -> Runs:
    """Run every criterion on every target, reading and repeat.

    A target and repeat has one stream of random numbers, fixed before the first campaign
    starts: its criteria and readings share the warm-up cells, the order in which the cells of
    every perturbation come up, and the seed of the criterion.
    """
    streams = [stream.spawn(options.n_repeats) for stream in rng.spawn(len(tasks))]
    jobs = [
        (pool, dag, task, options, stream)
        for task, own in zip(tasks, streams, strict=True)
        for stream in own
    ]
    results = run_tasks(_one, jobs, n_jobs=n_jobs)
    done = dict(tqdm(results, "Replayed campaigns", len(jobs), leave=False, delay=5))
    stacked = [np.stack(part) for part in zip(*(done[i] for i in range(len(jobs))), strict=True)]
    by_target = [x.reshape(len(tasks), options.n_repeats, *x.shape[1:]) for x in stacked]
    return Runs(*(np.ascontiguousarray(np.moveaxis(x, 1, 3)) for x in by_target))


def _one(
    pool: CellPool, dag: Dag, task: Task, options: Options, stream: np.random.Generator
) -> tuple[NDArray[np.float64], Index, Index]:
    """Run all readings and criteria of one target and repeat."""
    order, search = stream.spawn(2)
    seed: Any = search.bit_generator.seed_seq  # the same for every criterion
    shape = (len(task.candidates), len(options.criteria), options.n_rounds)
    distance = np.empty((*shape[:2], options.n_rounds + 1))
    recommended, chosen = np.empty(distance.shape, np.int64), np.empty(shape, np.int64)
    # Small matrices: threads would only wait for each other, and could change the last bits.
    with threadpool_limits(1):
        deal = pool.deal(options.n_warmup, order)
        cells = Moments.from_array(pool.control[deal.warmup])
        warm, empty = (
            DagBlr(graph).update(cells) for graph in (dag, Dag.from_edges(dag.n_nodes, []))
        )
        for r, candidates in enumerate(task.candidates):
            for c, criterion in enumerate(options.criteria):
                is_empty = criterion == EMPTY
                result = replay(
                    pool, empty if is_empty else warm, task.target_mean,
                    "random" if is_empty else criterion,
                    deal=deal, candidates=candidates, n_rounds=options.n_rounds,
                    n_cells=options.n_cells, rng=np.random.default_rng(seed),
                )  # fmt: skip
                distance[r, c] = result.distance
                recommended[r, c], chosen[r, c] = result.recommended, result.chosen
    return distance, recommended, chosen
