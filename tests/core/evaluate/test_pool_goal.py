"""Goals on the cells of a pool: halves that say what is wanted, and the truth by all cells."""

import numpy as np
import pytest

from nextpert.core.design.goal import Goal
from nextpert.core.evaluate import CellPool, PoolGoal, goal_truth

P, J, N = 5, 4, 60


@pytest.fixture(scope="module")
def pool():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(J, P))
    cells = [mean + rng.normal(size=(N, P)) @ np.diag([1, 1, 2, 1, 0.5]) for mean in means]
    return CellPool(rng.normal(size=(300, P)), cells)


def test_of_one_state_it_is_the_truth_of_the_pool(pool):
    mean = pool.moments(2).mean
    found = goal_truth(pool, PoolGoal(Goal(np.zeros(P), states=[mean]), (2,)))
    exact = pool.truth(2)
    np.testing.assert_allclose(found.distance, exact.distance, atol=1e-12)
    assert found.control == pytest.approx(exact.control)
    np.testing.assert_allclose(found.sd, exact.sd, rtol=0.25, atol=1e-12)
    may = np.arange(J)
    assert found.as_good(may).tolist() == exact.as_good(may).tolist()


def test_several_states_and_bounds_by_hand(pool):
    mean = [pool.moments(j).mean for j in range(J)]
    noise = [np.diag(pool.moments(j).scatter) / (N - 1) / N for j in range(J)]
    other, spread = np.full(P, 0.5), np.full(P, 0.01)
    w, high = np.array([1.0, 2, 0, 1, 1]), np.array([np.inf, 0.2, np.inf, np.inf, np.inf])
    goal = Goal(
        np.zeros(P), states=[mean[1], other], shares=[0.75, 0.25], variances=[None, spread],
        high=high, weights=w,
    )  # fmt: skip
    found = goal_truth(pool, PoolGoal(goal, (1, -1)))
    for j in range(J):
        one = 0.75 * (w * ((mean[j] - mean[1]) ** 2 - noise[j] - noise[1])).sum() * (j != 1)
        two = 0.25 * (w * ((mean[j] - other) ** 2 - noise[j] - spread)).sum()
        over = 2 * max(mean[j][1] - 0.2, 0) ** 2
        assert found.distance[j] == pytest.approx(one + two + over)


def test_spread_of_a_signature_by_its_formula(pool):
    v = np.array([0.0, 0, 9, 0, 0])  # far: what lacks is linear in the mean
    found = goal_truth(pool, PoolGoal(Goal(np.zeros(P), signature=v)))
    for j in range(J):
        cells = pool.moments(j)
        sd = np.sqrt(cells.scatter[2, 2] / (N - 1) / N)
        lacks = 9 - cells.mean[2]
        assert found.distance[j] == pytest.approx(lacks**2)
        assert found.sd[j] == pytest.approx(2 * lacks * sd, rel=0.15)


def test_halves_of_all_states_are_held_back(pool):
    rows = [pool.moments(j).mean for j in (0, 3)]
    wanted = PoolGoal(
        Goal(np.zeros(P), states=[rows[0]], away_from=[rows[1]], margins=[0.4]), (0,), (3,)
    )
    assert (wanted.own, wanted.used) == ([0], [0, 3])
    deal = pool.deal(wanted, 50, rng=1)
    for j, row in ((0, deal.target.states[0]), (3, deal.target.away_from[0])):
        every = np.arange(pool.start[j], pool.start[j + 1])
        held = np.setdiff1d(every, deal.orders[j])
        assert len(held) == N // 2
        np.testing.assert_allclose(row, pool.cells[held].mean(axis=0))
    assert [len(deal.orders[j]) for j in (1, 2)] == [N, N]
    assert deal.target.margins.tolist() == [0.4]
