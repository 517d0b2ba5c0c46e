"""One loop: warm-up, common noise, the best state seen, recommendations, rows of a table."""

import sys

import numpy as np
import pandas as pd
import pytest

from nextpert.core import (
    DagBlr,
    DesignLoopResult,
    Moments,
    Pool,
    Sphere,
    acquisitions,
    design_loop,
    design_loop_rows,
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


def test_acquisitions_share_warm_up_and_noise(model):
    scm, blr, _, target = model
    found, noise = {}, {}
    for acquisition in acquisitions(on_domain=True):
        source = Recorder(scm)
        found[acquisition] = design_loop(
            source, blr, target, acquisition, n_rounds=7, n_warmup=4, n_cells=2, rng=3
        )
        noise[acquisition] = np.array(source.noise)
    one = found["random"]
    assert np.isnan(one.values[:4]).all()
    assert np.isfinite(one.values[4:]).all()
    np.testing.assert_allclose(np.linalg.norm(one.shifts, axis=1), 1)
    assert len(np.unique(one.shifts, axis=0)) == 7
    for acquisition, other in found.items():
        np.testing.assert_array_equal(other.shifts[:4], one.shifts[:4])
        np.testing.assert_array_equal(other.distance[:5], one.distance[:5])
        # Means differ, and cost the last digits.
        np.testing.assert_allclose(noise[acquisition], noise["random"], atol=1e-12)
        if acquisition != "random":
            assert np.abs(other.shifts[4:] - one.shifts[4:]).max() > 0.01
    with pytest.raises(ValueError, match="n_warmup is 8, but there are 7 rounds"):
        design_loop(scm, blr, target, n_rounds=7, n_warmup=8)


def test_no_warm_up_is_as_before(model):
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


@pytest.mark.parametrize("n_warmup", [0, 3])
def test_expected_improvement_keeps_the_best_state_seen(model, monkeypatch, n_warmup):
    scm, blr, _, target = model
    module = sys.modules["nextpert.core.causal.design_loop"]
    real, given = module.build_acquisition, []

    def build(*args, **kwargs):
        given.append(kwargs["best"])
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "build_acquisition", build)
    source = Recorder(scm)
    design_loop(source, blr, target, "ei", n_rounds=12, n_warmup=n_warmup, n_cells=3, rng=0)
    seen = [((x.mean(axis=0) - target) ** 2).sum() for x in source.cells]
    wanted = [min([np.inf, *seen[:t]]) for t in range(n_warmup, 12)]
    np.testing.assert_allclose(given, wanted)
    assert len(set(given)) > 1


def test_recommendations_are_scored(model):
    scm, blr, _, target = model
    pool = Pool(np.vstack([np.eye(6), -np.eye(6)]))
    for recommend in ("ideal", "domain"):
        found = design_loop(
            scm, blr, target, "greedy", domain=pool, n_rounds=6, recommend=recommend, rng=1
        )
        before = ((scm.mean(np.zeros(6)) - target) ** 2).sum()
        wanted = [((scm.mean(a) - target) ** 2).sum() / before for a in found.recommended]
        np.testing.assert_allclose(found.distance, wanted, rtol=1e-12)
        ideal = found.posterior.ideal_shift(target)
        if recommend == "domain":
            nearest = ((pool.shifts - ideal) ** 2).sum(axis=1).argmin()
            ideal = pool.shifts[nearest]
        np.testing.assert_array_equal(found.recommended[-1], ideal)
    with pytest.raises(ValueError, match="recommend must be"):
        design_loop(scm, blr, target, recommend="best")


def test_names_are_checked_before_cells_are_drawn(model):
    scm, blr, _, target = model
    source = Recorder(scm)
    with pytest.raises(ValueError, match=r"Unknown acquisition 'best': choose one of .*civ"):
        design_loop(source, blr, target, "best", n_rounds=4, n_warmup=2)
    assert source.cells == []


@pytest.mark.parametrize("acquisition", ["ei", "mi", "ucb", "civ"])
def test_new_acquisitions_learn_and_are_the_same_for_any_number_of_workers(model, acquisition):
    scm, blr, _, target = model
    task = {"source": scm, "posterior": blr, "target_mean": target, "acquisition": acquisition}
    tasks = [task | {"n_rounds": 20, "n_warmup": 2}] * 4
    one, two = (design_loops(tasks, rng=5, n_jobs=n) for n in (1, 2))
    for a, b in zip(one, two, strict=True):
        for name in ("shifts", "values", "distance", "recommended"):
            assert getattr(a, name).tobytes() == getattr(b, name).tobytes()
    assert np.mean([r.distance[-1] for r in one]) < 0.2 * np.mean([r.distance[0] for r in one])
    assert all((r.seconds[2:] > 0).all() and (r.seconds[:2] == 0).all() for r in one)


def test_rows_are_a_tidy_table(tmp_path):
    def result(n, start):
        empty = np.empty((n, 0))
        values, distance = np.arange(n) + start, np.arange(n + 1) * start
        return DesignLoopResult(empty, values, distance, None, empty, np.full(n, 0.5))

    labels = [{"acquisition": "civ", "seed": 4}, {"acquisition": "greedy", "seed": 7}]
    columns = design_loop_rows([result(2, 1.0), result(1, 10.0)], labels)
    table = pd.DataFrame(columns)
    wanted = pd.DataFrame(
        {
            "acquisition": ["civ"] * 3 + ["greedy"] * 2,
            "seed": [4, 4, 4, 7, 7],
            "round": [0, 1, 2, 0, 1],
            "distance": [0.0, 1, 2, 0, 10],
            "value": [np.nan, 1, 2, np.nan, 10],
            "seconds": [np.nan, 0.5, 0.5, np.nan, 0.5],
        }
    )
    pd.testing.assert_frame_equal(table, wanted)
    np.savez(tmp_path / "rows.npz", **columns)
    with np.load(tmp_path / "rows.npz") as stored:  # no pickle
        for name, column in columns.items():
            np.testing.assert_array_equal(stored[name], column)
    empty = design_loop_rows([], [])
    assert list(empty) == ["round", "distance", "value", "seconds"]
    assert all(column.shape == (0,) for column in empty.values())
    with pytest.raises(ValueError, match="1 results, but 2 labels"):
        design_loop_rows([result(1, 1.0)], labels)
    with pytest.raises(ValueError, match="Label 1 has the keys"):
        design_loop_rows([result(1, 1.0)] * 2, [{"a": 1}, {"b": 1}])
    with pytest.raises(ValueError, match="must not be called round"):
        design_loop_rows([result(1, 1.0)], [{"round": 1}])
