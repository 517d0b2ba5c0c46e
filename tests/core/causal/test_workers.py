"""Tasks in worker processes: every one is done once, whatever happens to a worker."""

import os
import signal

import pytest

from nextpert.core._tasks import run_tasks


@pytest.mark.processes
def test_tasks_come_from_an_iterator_as_workers_get_free():
    parent = os.getpid()
    taken = []

    def tasks():
        for k in range(2000):
            taken.append(k)
            yield (k,)

    def task(k):
        if k == 5 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return k

    run = run_tasks(task, tasks(), n_jobs=2)
    next(run)
    assert len(taken) < 2000  # not all at once: a task may be large
    with pytest.warns(UserWarning, match="finished tasks are kept"):
        rest = list(run)
    assert taken == list(range(2000))
    assert len(rest) == 1999
    assert all(i == k for i, k in rest)


@pytest.mark.slow
def test_an_error_of_a_task_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(run_tasks(divmod, [(1, 1), (1, 0)], n_jobs=2))
