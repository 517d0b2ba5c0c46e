"""Tasks spread over processes; what a process that is killed leaves undone is done here."""

from __future__ import annotations

import warnings
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Any

from joblib import Parallel, delayed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def run_tasks(
    function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], *, n_jobs: int | None
) -> Iterator[tuple[int, Any]]:
    """Yield ``(i, function(*tasks[i]))`` as they are finished, in any order.

    If a worker is killed (for its memory, say), what is finished is kept and the rest is run
    here, one task after the other, with a warning.
    """
    left = set(range(len(tasks)))
    workers = Parallel(n_jobs=n_jobs, return_as="generator_unordered")
    try:
        for i, result in workers(
            delayed(_numbered)(function, i, task) for i, task in enumerate(tasks)
        ):
            left.remove(i)
            yield i, result
    except BrokenExecutor as error:
        message = (
            f"A worker was killed ({type(error).__name__}), perhaps for want of memory: "
            f"{len(tasks) - len(left)} of {len(tasks)} tasks are kept, the other {len(left)} run "
            f"in this process. A smaller n_jobs needs less memory."
        )
        warnings.warn(message, UserWarning, stacklevel=3)
    for i in sorted(left):
        yield i, function(*tasks[i])


def _numbered(function: Callable[..., Any], number: int, task: tuple[Any, ...]) -> tuple[int, Any]:
    return number, function(*task)
