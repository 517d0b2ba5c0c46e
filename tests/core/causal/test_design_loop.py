"""One loop: common noise, the best state seen, recommendations."""

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


def test_recommendations_are_scored(model):
    scm, blr, _, target = model
    found = design_loop(scm, blr, target, "greedy", n_rounds=6, rng=1)
    before = ((scm.mean(np.zeros(6)) - target) ** 2).sum()
    wanted = [((scm.mean(a) - target) ** 2).sum() / before for a in found.recommended]
    np.testing.assert_allclose(found.distance, wanted, rtol=1e-12)
    np.testing.assert_array_equal(found.recommended[-1], found.posterior.ideal_shift(target))


def test_names_are_checked_before_cells_are_drawn(model):
    scm, blr, _, target = model
    source = Recorder(scm)
    with pytest.raises(ValueError, match=r"Unknown acquisition 'best': choose one of .*civ"):
        design_loop(source, blr, target, "best", n_rounds=4)
    assert source.cells == []


@pytest.mark.parametrize("acquisition", ["ei", "mi", "ucb", "civ"])
def test_new_acquisitions_learn_and_are_the_same_for_any_number_of_workers(model, acquisition):
    scm, blr, _, target = model
    task = {"source": scm, "posterior": blr, "target_mean": target, "acquisition": acquisition}
    tasks = [task | {"n_rounds": 20}] * 4
    one, two = (design_loops(tasks, rng=5, n_jobs=n) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        for name in ("shifts", "values", "distance", "recommended"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
    assert np.mean([r.distance[-1] for r in one]) < 0.2 * np.mean([r.distance[0] for r in one])
    assert all((r.seconds > 0).all() for r in one)
