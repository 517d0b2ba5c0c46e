"""Tasks spread over workers; what a process that is killed leaves undone is done here."""

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
    """Yield ``(i, function(*task))`` of the i-th task as they are finished, in any order.

    Tasks are taken from an iterator as workers get free, and let go once they are done;
    ``prefer`` is joblib's. If a worker is killed (for its memory, say), what is finished is kept
    and the rest is run here, one task after the other, with a warning.
    """
    numbered = enumerate(tasks)
    waiting: dict[int, tuple[Any, ...]] = {}  # given to workers, and not finished

    def given() -> Iterator[Any]:
        for i, task in numbered:
            waiting[i] = task
            yield delayed(_numbered)(function, i, task)

    workers = Parallel(n_jobs=n_jobs, prefer=prefer, return_as="generator_unordered")
    n_done = 0
    try:
        for i, result in workers(given()):
            del waiting[i]
            n_done += 1
            yield i, result
    except BrokenExecutor as error:
        message = (
            f"A worker was killed ({type(error).__name__}), perhaps for want of memory: the "
            f"{n_done} finished tasks are kept, the others run in this process. A smaller n_jobs "
            f"needs less memory."
        )
        warn(message)
    for i, task in chain(sorted(waiting.items()), numbered):
        yield i, function(*task)


def _numbered(function: Callable[..., Any], number: int, task: tuple[Any, ...]) -> tuple[int, Any]:
    return number, function(*task)
