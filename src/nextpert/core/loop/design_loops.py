"""Many loops at once, on the cores or the cluster at hand."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from nextpert.core._checks import as_rng
from nextpert.core.loop._workers import run_tasks
from nextpert.core.loop.design_loop import DesignLoopResult, design_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import numpy as np


def design_loops(
    tasks: Iterable[Mapping[str, Any]],
    *,
    rng: int | np.random.Generator | None = None,
    n_jobs: int | None = 1,
    progress: bool | Callable[[int, int], object] | None = None,
) -> list[DesignLoopResult]:
    """Run many independent loops, in parallel, as in the replays of Zhang et al. 2023.

    Every loop has a stream of random numbers of its own, fixed before the first one starts,
    so results are the same to the bit for any number of workers (doi:10.1038/s42256-023-00719-0).

    Parameters
    ----------
    tasks
        Arguments of :func:`design_loop` by name, one mapping a loop. A task with an ``rng`` that
        is a seed runs as :func:`design_loop` with that seed; a generator is asked for a child, so
        that tasks may share one. The others get children of ``rng`` by their position.
    rng
        Seed or generator for the tasks without one.
    n_jobs
        Number of processes; ``None`` leaves it to joblib's context (with its dask backend,
        loops are spread over a cluster). If one is killed, the loops that are finished
        are kept and the rest is run by the calling one, with a warning.
    progress
        ``True`` shows a progress bar; a function is called with the number of loops done and
        of all, after each.

    Returns
    -------
    list of DesignLoopResult
        In the order of ``tasks``.

    Raises
    ------
    ValueError
        If a task lacks an argument or has one too many, or :func:`design_loop` raises.

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
    arguments = signature(design_loop).parameters
    needed = {name for name, argument in arguments.items() if argument.default is argument.empty}
    given = [dict(task) for task in tasks]
    children = as_rng(rng).spawn(len(given))
    for i, (task, child) in enumerate(zip(given, children, strict=True)):
        unknown, lacking = set(task) - set(arguments), needed - set(task)
        if unknown or lacking:
            what = "lacks" if lacking else "has the unknown argument"
            names = ", ".join(sorted(lacking or unknown))
            message = f"Task {i} {what} {names}: tasks hold the arguments of design_loop by name."
            raise ValueError(message)
        own = task.get("rng")
        # Spawned here, in the order of the tasks: workers hold copies of a shared generator.
        task["rng"] = child if own is None else own.spawn(1)[0] if hasattr(own, "spawn") else own
    results: dict[int, DesignLoopResult] = {}
    with tqdm(total=len(given), desc="Design loops", disable=progress is not True) as bar:
        for i, result in run_tasks(_run, [(task,) for task in given], n_jobs=n_jobs):
            results[i] = result
            bar.update()
            if callable(progress):
                progress(len(results), len(given))
    return [results[i] for i in range(len(given))]


def _run(task: Mapping[str, Any]) -> DesignLoopResult:
    return design_loop(**task)
