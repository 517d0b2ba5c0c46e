"""Distances of the means that exact shifts reach, against dense draws and exact cases."""

from __future__ import annotations

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments, random_scm, ranked_distance
from nextpert.core.design.distances import states_of


def target_distance(posterior, shifts, target, **options):
    """Mean and deviation of the squared distance, shifts known exactly."""
    found = ranked_distance(states_of(posterior, shifts), target, **options)
    return found.mean[:-1], found.sd[:-1]


@pytest.mark.slow
@pytest.mark.parametrize("graph", ["complete", "sparse", "empty"])
def test_mean_and_spread_by_dense_draws(graph, intercept, known, fit_twice, graphs):
    plain, blr = fit_twice(graphs[graph], intercept, known, n=200)
    rng = np.random.default_rng(0)
    p, count = plain.p, 3_000
    shifts, target = rng.normal(size=(3, p)), rng.normal(size=p)
    b, c, _ = plain.draw(count, rng)
    source = shifts[:, None, :] + c  # (3, count, p)
    reached = np.linalg.solve(np.eye(p) - b, source[..., None])[..., 0]
    distance = ((reached - target) ** 2).sum(axis=-1).T
    mean, sd = target_distance(blr, shifts, target, n_samples=count, rng=1)
    error = np.sqrt(2 / count) * distance.std(axis=0)
    np.testing.assert_array_less(np.abs(mean - distance.mean(axis=0)), 5 * error + 1e-9)
    square = (distance - distance.mean(axis=0)) ** 2
    error = np.sqrt(2 / count) * square.std(axis=0)
    np.testing.assert_array_less(np.abs(sd**2 - square.mean(axis=0)), 5 * error + 1e-9)


@pytest.mark.slow
def test_one_weight_in_closed_form():
    # x_1 = B a_0 reached; B ~ N(m, M): the distance to t is (B a_0 - t)^2, a_0 hit exactly.
    blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=2.0)
    blr = blr.update(Moments.from_array([[1.0, 0.6]]))
    var, m = 1 / (1 / 2 + 1), 0.6 / (1 / 2 + 1)
    a, t, count = 1.5, 2.0, 6_000
    mean, sd = target_distance(blr, [[a, 0.0]], [a, t], n_samples=count, rng=0)
    spread, bias = a**2 * var, (a * m - t) ** 2
    wanted_sd = np.sqrt(2 * spread**2 + 4 * spread * bias)
    assert abs(mean[0] - (spread + bias)) < 5 * wanted_sd / np.sqrt(count)
    assert sd[0] == pytest.approx(wanted_sd, rel=0.05)


def test_with_many_cells_the_truth_comes_out():
    scm = random_scm(8, rng=1)
    blr = DagBlr(scm.dag).update(Moments.from_array(scm.sample(200_000, rng=2)))
    rng = np.random.default_rng(3)
    shifts = rng.normal(size=(5, 8))
    target = scm.mean(shifts[2])
    mean, sd = target_distance(blr, shifts, target, rng=4)
    wanted = [((scm.mean(a) - target) ** 2).sum() for a in shifts]
    np.testing.assert_allclose(mean, wanted, atol=0.03 * max(wanted))
    assert mean.argmin() == 2
    assert (sd < 0.05 * max(wanted)).all()


def test_the_same_draws_serve_every_shift():
    scm = random_scm(4, rng=0)
    blr = DagBlr(scm.dag).update(Moments.from_array(scm.sample(30, rng=1)))
    shift, target = np.ones(4), np.zeros(4)
    mean, sd = target_distance(blr, [shift, -shift, shift], target, rng=5)
    assert mean[0] == mean[2]
    assert sd[0] == sd[2]
    alone, _ = target_distance(blr, [shift], target, rng=5)
    assert alone[0] == pytest.approx(mean[0], rel=1e-13)


def test_bad_input_is_refused():
    blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0)
    for shifts, target, message in (
        (np.ones((1, 3)), np.ones(2), "shape"),
        ([[np.nan, 1.0]], np.ones(2), "shifts"),
        (np.ones((1, 2)), np.ones(3), "target_mean"),
    ):
        with pytest.raises(ValueError, match=message):
            target_distance(blr, shifts, target)
    with pytest.raises(ValueError, match="n_samples"):
        target_distance(blr, np.ones((1, 2)), np.ones(2), n_samples=1)


@pytest.mark.slow
def test_several_graphs_add_the_variance_between_them():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)) @ np.array([[1, 0.9, 0.5], [0, 1, 0.8], [0, 0, 1]])
    graphs = [[(0, 1), (1, 2)], [(2, 1), (1, 0)], []]
    blrs = [DagBlr(Dag.from_edges(3, g)).update(Moments.from_array(x)) for g in graphs]
    shifts, target, count = np.eye(3), np.ones(3), 2_500
    each = np.array([target_distance(b, shifts, target, n_samples=count, rng=1) for b in blrs])
    mean, sd = target_distance(blrs, shifts, target, n_samples=3 * count, rng=2)
    between = each[:, 0].var(axis=0)
    variance = (each[:, 1] ** 2).mean(axis=0) + between
    assert (between > 0.2 * variance).any()
    np.testing.assert_allclose(mean, each[:, 0].mean(axis=0), rtol=0.06)
    np.testing.assert_allclose(sd**2, variance, rtol=0.2)
    with pytest.raises(ValueError, match="the same nodes"):
        target_distance([blrs[0], DagBlr(Dag.from_edges(2, []))], shifts, target)
