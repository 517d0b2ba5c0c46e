"""Loops: common noise, the best state seen, recommendations; many, on any number of workers."""

import sys

import numpy as np
import pytest

from nextpert.core import (
    DagBlr,
    Moments,
    Sphere,
    acquisitions,
    design_loop,
    design_loops,
    random_scm,
    random_target,
)


class Recorder:
    """A model that keeps the noise of the cells it gives away."""

    def __init__(self, scm):
        self.scm, self.noise, self.cells = scm, [], []

    def sample(self, n_cells, shift, *, rng):
        self.cells.append(self.scm.sample(n_cells, shift, rng=rng))
        self.noise.append(self.cells[-1] - self.scm.mean(shift))
        return self.cells[-1]

    def mean(self, shift):
        return self.scm.mean(shift)


@pytest.fixture(scope="module")
def model():
    scm = random_scm(6, rng=0)
    shift, target = random_target(scm, 3, where="downstream", rng=1)
    blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=1.0)
    return scm, blr, shift, target


def test_acquisitions_share_noise(model):
    scm, blr, _, target = model
    found, noise = {}, {}
    for acquisition in acquisitions(on_domain=True):
        source = Recorder(scm)
        found[acquisition] = design_loop(
            source, blr, target, acquisition, n_rounds=7, n_cells=2, rng=3
        )
        noise[acquisition] = np.array(source.noise)
    one = found["random"]
    assert np.isfinite(one.values).all()
    np.testing.assert_allclose(np.linalg.norm(one.shifts, axis=1), 1)
    assert len(np.unique(one.shifts, axis=0)) == 7
    for acquisition, other in found.items():
        # Means differ, and cost the last digits.
        np.testing.assert_allclose(noise[acquisition], noise["random"], atol=1e-12)
        if acquisition != "random":
            assert np.abs(other.shifts - one.shifts).max() > 0.01


def test_a_loop_by_hand(model):
    # A loop by hand, with the two streams that loops have always had.
    scm, blr, _, target = model
    noise, search = np.random.default_rng(9).spawn(2)
    found = design_loop(scm, blr, target, "random", n_rounds=5, rng=9)
    for t in range(5):
        shift = Sphere().sample(1, 6, search)[0]
        search.random()
        np.testing.assert_array_equal(found.shifts[t], shift)
        blr = blr.update(Moments.from_array(scm.sample(1, shift, rng=noise)), shift)
    np.testing.assert_allclose(blr.mean().data, found.posterior.mean().data)


def test_expected_improvement_keeps_the_best_state_seen(model, monkeypatch):
    scm, blr, _, target = model
    module = sys.modules["nextpert.core.causal.design_loop"]
    real, given = module.build_acquisition, []

    def build(*args, **kwargs):
        given.append(kwargs["best"])
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "build_acquisition", build)
    source = Recorder(scm)
    design_loop(source, blr, target, "ei", n_rounds=12, n_cells=3, rng=0)
    seen = [((x.mean(axis=0) - target) ** 2).sum() for x in source.cells]
    wanted = [min([np.inf, *seen[:t]]) for t in range(12)]
    np.testing.assert_allclose(given, wanted)
    assert len(set(given)) > 1


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
    assert design_loops([]) == []
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


def test_wrong_arguments_are_named(task):
    with pytest.raises(ValueError, match=r"Task 1: .*unexpected keyword argument 'n_round'"):
        design_loops([task, task | {"n_round": 3}])
    del (lacking := dict(task))["source"]
    with pytest.raises(ValueError, match=r"Task 0: missing .* 'source'"):
        design_loops([lacking])
