"""Effects of known shifts: dense algebra, draws, and a chain whose weights are known."""

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.model import effects as module
from nextpert.core.model.effects import exact_effects

EDGES = [(0, 1), (1, 2), (0, 2)]
SHIFTS = np.array([[1.2, 0.0, 0.4, 0.0], [0.0, -0.7, 0.0, 0.0]])


def fitted(edges, n=25):
    """A posterior that hardly knows the weights, on four nodes of which the last is alone."""
    rng = np.random.default_rng(0)
    b = np.zeros((4, 4))
    b[1, 0], b[2, 1], b[2, 0] = 0.8, -0.6, 0.3
    x = 1.0 + rng.normal(size=(n, 4)) @ np.linalg.inv(np.eye(4) - b).T
    return DagBlr(Dag.from_edges(4, edges)).update(Moments.from_array(x))


def drawn(blr, n):
    """Effects of ``SHIFTS`` under draws of the weights, by dense inverses."""
    out = np.empty((n, *SHIFTS.shape))
    for k, flat in enumerate(blr.sample(n, 7)[0]):
        b = np.zeros((4, 4))
        for i in range(4):
            b[i, blr.dag.parents(i)] = flat[blr.vptr[i] + 1 : blr.vptr[i + 1]]
        out[k] = SHIFTS @ np.linalg.inv(np.eye(4) - b).T
    return out


def test_effects_are_those_of_draws_of_the_weights():
    graphs = [fitted(EDGES), fitted([(0, 1)])]
    found = exact_effects(graphs, SHIFTS, level=0.8, n_samples=20_000)
    totals = [np.linalg.inv(np.eye(4) - blr.mean().toarray()) for blr in graphs]
    np.testing.assert_allclose(found.mean, SHIFTS @ np.mean(totals, axis=0).T, rtol=1e-12)
    draws = np.concatenate([drawn(blr, 10_000) for blr in graphs])
    np.testing.assert_allclose(found.sd, draws.std(axis=0), rtol=0.05, atol=1e-9)
    low, high = np.quantile(draws, [0.1, 0.9], axis=0)
    np.testing.assert_allclose(found.lower, low, atol=0.03)
    np.testing.assert_allclose(found.upper, high, atol=0.03)
    wrong = np.minimum((draws <= 0).mean(axis=0), (draws >= 0).mean(axis=0))
    unmoved = np.ptp(draws, axis=0) < 1e-9
    np.testing.assert_allclose(found.lfsr[~unmoved], wrong[~unmoved], atol=0.01)
    assert 0.01 < wrong[0, 2] < 0.5
    np.testing.assert_array_equal(found.direct, SHIFTS)
    assert not found.data_weight.any()


def test_what_is_known_has_no_spread_and_what_is_nothing_no_sign():
    found = exact_effects([fitted(EDGES)], SHIFTS)
    known = np.array([[True, False, False, True], [True, True, False, True]])
    np.testing.assert_allclose(found.sd[known], 0.0, atol=1e-12)
    np.testing.assert_allclose(found.lower[known], found.mean[known], atol=1e-12)
    wanted = np.where(known, np.where(SHIFTS == 0, 1.0, 0.0), found.lfsr)
    np.testing.assert_array_equal(found.lfsr, wanted)


@pytest.mark.parametrize("room", [1, 10**9])
def test_blocks_of_perturbations_change_nothing(room, monkeypatch):
    wanted = exact_effects([fitted(EDGES)], SHIFTS)
    monkeypatch.setattr(module, "_ROOM", room)
    found = exact_effects([fitted(EDGES)], SHIFTS)
    for name, table in vars(wanted).items():
        np.testing.assert_array_equal(getattr(found, name), table, err_msg=name)
    assert exact_effects([fitted(EDGES)], np.zeros((0, 4))).mean.shape == (0, 4)
