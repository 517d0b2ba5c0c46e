"""Tasks distributed over workers; this process completes those of a worker that was killed."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any

from joblib import Parallel, delayed

from nextpert._warn import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def run_tasks(
    function: Callable[..., Any],
    tasks: Iterable[tuple[Any, ...]],
    *,
    n_jobs: int | None,
    prefer: str | None = None,
) -> Iterator[tuple[int, Any]]:
    """Yield ``(i, function(*task))`` for the i-th task as tasks finish, in any order.

    Tasks are taken from the iterable as workers become free, and are not kept afterwards;
    ``prefer`` is joblib's argument. If a worker is killed (perhaps because memory ran out),
    finished results are kept, and this process runs the other tasks in sequence, with a warning.
    """
    numbered = enumerate(tasks)
    # Tasks that workers have received but not finished.
    waiting: dict[int, tuple[Any, ...]] = {}

    def given() -> Iterator[Any]:
        for i, task in numbered:
            waiting[i] = task
            yield delayed(_numbered)(function, i, task)

    workers = Parallel(n_jobs=n_jobs, prefer=prefer, return_as="generator_unordered")
    n_done = 0
    try:
        # With one worker, the loop at the end runs all tasks in this process.
        for i, result in () if n_jobs == 1 else workers(given()):
            del waiting[i]
            n_done += 1
            yield i, result
    except BrokenExecutor as error:
        message = (
            f"A worker process was killed ({type(error).__name__}), perhaps because memory ran "
            f"out. Results of the {n_done} finished tasks are kept, and the remaining tasks run in "
            f"this process. Use a smaller n_jobs to reduce memory use."
        )
        warn(message)
    for i, task in chain(sorted(waiting.items()), numbered):
        yield i, function(*task)


def _numbered(function: Callable[..., Any], number: int, task: tuple[Any, ...]) -> tuple[int, Any]:
    return number, function(*task)
