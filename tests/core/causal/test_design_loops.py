"""Many loops: the same results for any number of workers, and as one by one."""

import os
import signal

import numpy as np
import pytest

from nextpert.core import DagBlr, design_loop, random_scm
from nextpert.core.causal.design_loop import design_loops


@pytest.fixture(scope="module")
def task():
    scm = random_scm(5, rng=0)
    blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False)
    target = scm.mean([0, 0, 0.3, 0.6, -0.7])
    return {"source": scm, "posterior": blr, "target_mean": target, "n_rounds": 4}


def assert_same(one, two):
    for a, b in zip(one, two, strict=True):
        assert a.shifts.tobytes() == b.shifts.tobytes()
        assert a.distance.tobytes() == b.distance.tobytes()


def test_seeds_give_what_single_loops_give(task):
    seeds = [7, [1, 2], 3]
    found = design_loops([task | {"rng": seed} for seed in seeds])
    assert_same(found, [design_loop(**task, rng=seed) for seed in seeds])


@pytest.mark.parametrize("own", ["none", "shared", "mixed"])
def test_the_number_of_workers_does_not_matter(own, task):
    def run(n_jobs):
        shared = np.random.default_rng(4)
        rngs = {"none": [None] * 5, "shared": [shared] * 5, "mixed": [None, shared, 3, None, 3]}
        tasks = ({**task, "rng": rng, "acquisition": "random"} for rng in rngs[own])
        return design_loops(tasks, rng=8, n_jobs=n_jobs)

    one, two = run(1), run(2)
    assert_same(one, two)
    n_different = len({result.shifts.tobytes() for result in one})
    assert n_different == (4 if own == "mixed" else 5)


def test_results_are_in_the_order_of_the_tasks(task):
    found = design_loops([task | {"n_rounds": n} for n in (3, 1, 2)], rng=0)
    assert [len(result.shifts) for result in found] == [3, 1, 2]
    assert design_loops([]) == []


def test_what_a_killed_worker_leaves_is_done_here(task):
    scm, parent = task["source"], os.getpid()

    class Fragile:
        n_nodes, mean = scm.n_nodes, scm.mean

        def sample(self, *args, **options):
            if os.getpid() != parent:
                os.kill(os.getpid(), signal.SIGKILL)
            return scm.sample(*args, **options)

    tasks = [task | {"source": Fragile() if k == 3 else scm} for k in range(6)]
    with pytest.warns(UserWarning, match=r"A worker was killed.* finished tasks are kept"):
        found = design_loops(tasks, rng=1, n_jobs=2)
    assert_same(found, design_loops([task] * 6, rng=1))


def test_wrong_arguments_are_named(task):
    with pytest.raises(ValueError, match=r"Task 1: .*unexpected keyword argument 'n_round'"):
        design_loops([task, task | {"n_round": 3}])
    del (lacking := dict(task))["source"]
    with pytest.raises(ValueError, match=r"Task 0: missing .* 'source'"):
        design_loops([lacking])
