"""Tasks in worker processes: every one is done once, whatever happens to a worker."""

import os
import signal
import warnings

import pytest

from nextpert.core.causal.design_loop import run_tasks


@pytest.mark.slow
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_every_task_is_done_once(n_jobs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = list(run_tasks(pow, [(k, 2) for k in range(7)], n_jobs=n_jobs))
    assert sorted(found) == [(k, k**2) for k in range(7)]


def test_what_a_killed_worker_leaves_is_done_here():
    parent = os.getpid()

    def task(k):
        if k == 3 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return k, os.getpid() == parent

    with pytest.warns(UserWarning, match=r"A worker was killed.*n_jobs needs less memory"):
        found = dict(run_tasks(task, [(k,) for k in range(6)], n_jobs=2))
    assert sorted(found) == list(range(6))
    assert all(found[k][0] == k for k in found)
    assert found[3] == (3, True)


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
