"""Closed loops: propose a shift, observe its cells and update, one loop or many in parallel."""

from __future__ import annotations

import time
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from tqdm import tqdm

from nextpert.core._checks import as_rng, as_vector, require_count
from nextpert.core._tasks import run_tasks
from nextpert.core.causal.domains import Sphere
from nextpert.core.causal.registry import build_acquisition, find_acquisition
from nextpert.core.screen.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.causal.domains import Domain

    Vector = NDArray[np.float64]


class Source(Protocol):
    """The source of cells: a :class:`LinearScm`, or another object with the same two methods."""

    def sample(
        self, n_cells: int, shift: ArrayLike, *, rng: np.random.Generator, **do: Any
    ) -> NDArray[np.float64]:
        """Return cells under a shift, ``(n_cells, n_nodes)``; ``do`` only if a pool has any."""

    def mean(self, shift: ArrayLike) -> Vector:
        """Return the true mean under a shift, ``(n_nodes,)``; for scoring only."""


@dataclass(frozen=True)
class DesignLoopResult:
    """Result of a simulated loop, round by round.

    Parameters
    ----------
    shifts
        Shift tested in each round, shape ``(n_rounds, n_nodes)``.
    values
        Acquisition at that shift, shape ``(n_rounds,)``.
    distance
        Relative squared distance ``|mu_t - mu*|^2 / |mu* - mu_0|^2`` after 0, 1, ... rounds, where
        ``mu_t`` is the mean that the recommended shift reaches and ``mu_0`` the control mean;
        shape ``(n_rounds + 1,)``.
    posterior
        The posterior after the last round.
    recommended
        Shift recommended after 0, 1, ... rounds, shape ``(n_rounds + 1, n_nodes)``.
    seconds
        Wall time in seconds to propose the shift of each round, shape ``(n_rounds,)``; the only
        part that differs from run to run.
    """

    shifts: NDArray[np.float64]
    values: Vector
    distance: Vector
    posterior: DagBlr
    recommended: NDArray[np.float64]
    seconds: Vector


def design_loop(
    source: Source,
    posterior: DagBlr,
    target_mean: ArrayLike,
    acquisition: str = "civ",
    *,
    domain: Domain | None = None,
    n_rounds: int = 50,
    n_cells: int = 1,
    n_random: int = 0,
    rng: int | np.random.Generator | None = None,
) -> DesignLoopResult:
    """Run a simulated loop of several rounds: propose a shift, observe its cells, and update.

    In each round, the acquisition function is minimised by local searches that start from the
    previous shift and from the current estimate of the ideal shift, as in Zhang et al. 2023, and
    from ``n_random`` random points. The noise of the cells and the random starts come from separate
    random streams, so that loops with different acquisitions and the same seed see the same noise.
    Expected improvement is relative to the smallest squared distance so far between the target and
    the mean of the cells of a round. The scored shift is the current estimate of the ideal shift.

    Parameters
    ----------
    source
        The source of the cells, which also gives the true means for scoring.
    posterior
        The posterior before the first round.
    target_mean
        The target mean, shape ``(n_nodes,)``, units of the data.
    acquisition
        Name of the acquisition (see :func:`build_acquisition`).
    domain
        The set of possible shifts; the unit sphere by default.
    n_rounds, n_cells
        Number of rounds, and of cells per round.
    n_random
        Number of random starts in each round.
    rng
        Seed or generator.

    Returns
    -------
    DesignLoopResult

    Raises
    ------
    ValueError
        If the acquisition is unknown, or the target has the wrong length.

    Examples
    --------
    >>> from nextpert.core import DagBlr, design_loop, random_scm
    >>> scm = random_scm(5, rng=0)
    >>> blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False)
    >>> result = design_loop(scm, blr, scm.mean([0, 0, 0, 0.6, 0.8]), n_rounds=20, rng=0)
    >>> bool(result.distance[-1] < result.distance[0])
    True
    """
    rounds, cells = (
        require_count(n_rounds, "n_rounds", minimum=0),
        require_count(n_cells, "n_cells"),
    )
    # An unknown name raises before cells are drawn.
    find_acquisition(acquisition, on_domain=True)
    p = posterior.n_nodes
    target = as_vector(target_mean, p, "target_mean")
    where = Sphere(1.0) if domain is None else domain
    # Loops with different acquisitions and the same seed see the same noise.
    noise, search = as_rng(rng).spawn(2)
    # Distances relative to that of the control, as in the paper.
    scale = float(((target - source.mean(np.zeros(p))) ** 2).sum()) or 1.0
    shifts, recommended = np.empty((rounds, p)), np.empty((rounds + 1, p))
    values, seconds, distance = np.empty(rounds), np.empty(rounds), np.empty(rounds + 1)

    def score(t: int) -> None:
        recommended[t] = posterior.ideal_shift(target)
        distance[t] = ((source.mean(recommended[t]) - target) ** 2).sum() / scale

    score(0)
    nearest = np.inf
    for t in range(rounds):
        start = time.perf_counter()
        built = build_acquisition(
            acquisition, posterior, target, domain=where, n_cells=cells, best=nearest, rng=search
        )
        best = where.minimise(
            built, starts=list(shifts[max(t - 1, 0) : t]), n_random=n_random, rng=search
        )
        shifts[t], values[t] = best.shift, best.value
        seconds[t] = time.perf_counter() - start
        # Observe, and update by Lemma 1.
        intervened = [] if best.do is None else np.flatnonzero(best.do).tolist()
        do = {"do": {i: float(best.shift[i]) for i in intervened}} if intervened else {}
        observed = Moments.from_array(source.sample(cells, shifts[t], rng=noise, **do))
        nearest = min(nearest, float(((observed.mean - target) ** 2).sum()))
        posterior = posterior.update(observed, shifts[t], do=intervened, inplace=t > 0)
        score(t + 1)
    return DesignLoopResult(shifts, values, distance, posterior, recommended, seconds)


def design_loops(
    tasks: Iterable[Mapping[str, Any]],
    *,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    progress: bool = False,
) -> list[DesignLoopResult]:
    """Run many independent loops in parallel, as in the replays of Zhang et al. 2023.

    Every loop has its own stream of random numbers, fixed before the first loop starts, so that
    results are identical for any number of workers. The paper is doi:10.1038/s42256-023-00719-0.

    Parameters
    ----------
    tasks
        Arguments of :func:`design_loop` by name, one mapping per loop. A task whose ``rng`` is a
        seed runs as :func:`design_loop` with that seed. If it is a generator, the task gets a child
        of it, so that several tasks can use the same generator. Task ``i`` without ``rng`` gets
        child ``i`` of the argument ``rng``.
    rng
        Seed or generator for the tasks without one.
    n_jobs
        Number of processes; ``None`` uses that of joblib's context (with its dask backend, loops
        run on a cluster). If a process is killed, finished loops are kept and the calling process
        runs the others, with a warning.
    progress
        Whether to show a progress bar.

    Returns
    -------
    list of DesignLoopResult
        In the order of ``tasks``.

    Raises
    ------
    ValueError
        If a task lacks an argument or has an unknown one, or :func:`design_loop` raises.

    Examples
    --------
    >>> from nextpert.core import DagBlr, design_loops, random_scm
    >>> scm = random_scm(4, rng=0)
    >>> blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False)
    >>> task = {"source": scm, "posterior": blr, "target_mean": scm.mean([0, 0, 0.6, 0.8])}
    >>> results = design_loops([task | {"rng": seed, "n_rounds": 5} for seed in range(3)])
    >>> [result.shifts.shape for result in results]
    [(5, 4), (5, 4), (5, 4)]
    """
    arguments = [dict(task) for task in tasks]
    children = as_rng(rng).spawn(len(arguments))
    for i, (task, child) in enumerate(zip(arguments, children, strict=True)):
        try:
            signature(design_loop).bind(**task)
        except TypeError as error:
            message = f"Task {i}: {error}. Give the arguments of design_loop by name."
            raise ValueError(message) from None
        task_rng = task.get("rng")
        # Spawned here, in the order of the tasks: workers have copies of a shared generator.
        task["rng"] = (
            child
            if task_rng is None
            else task_rng.spawn(1)[0]
            if hasattr(task_rng, "spawn")
            else task_rng
        )
    results: dict[int, DesignLoopResult] = {}
    with tqdm(total=len(arguments), desc="Design loops", disable=not progress) as bar:
        for i, result in run_tasks(_run, [(task,) for task in arguments], n_jobs=n_jobs):
            results[i] = result
            bar.update()
    return [results[i] for i in range(len(arguments))]


def _run(task: Mapping[str, Any]) -> DesignLoopResult:
    return design_loop(**task)
