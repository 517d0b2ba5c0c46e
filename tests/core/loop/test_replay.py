"""Campaigns over real cells, against the same written out with dense matrices."""

import numpy as np
import pytest

from nextpert.core import DagBlr, Moments, random_scm
from nextpert.core.loop.replay import CellPool, replay

P, N = 5, 23


@pytest.fixture(scope="module")
def scm():
    return random_scm(P, rng=3)


@pytest.fixture(scope="module")
def pool(scm):
    rng = np.random.default_rng(0)
    shifts = rng.normal(size=(4, P))
    cells = [scm.sample(N + j, shift, rng=rng) for j, shift in enumerate(shifts)]
    return CellPool(scm.sample(80, rng=rng), cells, shifts)


def warm_up(pool, scm, deal):
    blr = DagBlr(scm.dag, prior_scale=1.0)
    return blr.update(Moments.from_array(pool.control[deal.warmup]))


class Dense:
    """Weights of every node by ridge regression on all cells seen so far, with an intercept."""

    def __init__(self, dag):
        self.dag, self.x, self.a = dag, [], []

    def see(self, cells, shift):
        self.x += list(cells)
        self.a += [shift] * len(cells)

    def fit(self):
        x, a = np.array(self.x), np.array(self.a)
        b, c = np.zeros((P, P)), np.zeros(P)
        for i in range(P):
            parents = self.dag.parents(i)
            design = np.column_stack([np.ones(len(x)), x[:, parents]])
            prior = np.diag([1e-6, *np.ones(len(parents))])
            found = np.linalg.solve(design.T @ design + prior, design.T @ (x[:, i] - a[:, i]))
            c[i], b[i, parents] = found[0], found[1:]
        return b, c


def brute_greedy(pool, scm, deal, target, candidates, n_rounds, n_cells):
    model, left = Dense(scm.dag), {j: list(deal.orders[j]) for j in candidates}
    model.see(pool.control[deal.warmup], np.zeros(P))
    chosen, recommended = [], []
    for t in range(n_rounds + 1):
        b, c = model.fit()
        reached = [np.linalg.solve(np.eye(P) - b, c + pool.shifts[j]) for j in candidates]
        recommended.append(candidates[np.argmin([((m - target) ** 2).sum() for m in reached])])
        ideal = target - b @ target - c
        ready = [j for j in candidates if left[j]]
        if t == n_rounds:
            break
        if not ready:
            chosen.append(-1)
            continue
        best = min(ready, key=lambda j: ((pool.shifts[j] - ideal) ** 2).sum())
        rows, left[best] = left[best][:n_cells], left[best][n_cells:]
        model.see(pool.cells[rows], pool.shifts[best])
        chosen.append(best)
    return chosen, recommended


@pytest.mark.parametrize("candidates", [[0, 1, 2, 3], [3, 1], [2]])
@pytest.mark.parametrize("seed", range(3))
def test_greedy_against_dense_matrices(pool, scm, candidates, seed):
    deal = pool.deal(9, rng=seed)
    target = pool.means[2] + 0.3 * np.random.default_rng(seed).normal(size=P)
    found = replay(
        pool, warm_up(pool, scm, deal), target, "greedy",
        deal=deal, candidates=candidates, n_rounds=12, n_cells=10,
    )  # fmt: skip
    chosen, recommended = brute_greedy(pool, scm, deal, target, candidates, 12, 10)
    assert found.chosen.tolist() == chosen
    assert found.recommended.tolist() == recommended
    truth = [((pool.cells[deal.orders[j]].mean(axis=0) - target) ** 2).sum() for j in recommended]
    np.testing.assert_allclose(found.distance, truth, rtol=1e-12)


def test_cells_are_drawn_without_replacement_until_none_is_left(pool, scm, monkeypatch):
    deal = pool.deal(10, rng=1)
    seen = []
    update = DagBlr.update

    def spy(self, moments, shift=None, **options):
        seen.append((tuple(shift), moments))
        return update(self, moments, shift, **options)

    warm = warm_up(pool, scm, deal)
    monkeypatch.setattr(DagBlr, "update", spy)
    result = replay(pool, warm, pool.means[0], "random", deal=deal, n_rounds=14, n_cells=10, rng=0)
    # 23 to 26 cells each: batches of 10, 10 and what is left; then nothing is proposed.
    assert sorted(result.chosen.tolist()) == [-1, -1, *[j for j in range(4) for _ in range(3)]]
    assert result.chosen[-2:].tolist() == [-1, -1]
    for j, shift in enumerate(pool.shifts):
        mine = [m for s, m in seen if s == tuple(shift)]
        assert [m.n for m in mine] == [10, 10, 3 + j]
        np.testing.assert_allclose(sum(m.total for m in mine) / (N + j), pool.means[j])
    assert sum(m.n for _, m in seen) == pool.n_cells.sum()


def test_the_posterior_given_is_left_alone(pool, scm):
    deal = pool.deal(10, rng=1)
    warm = warm_up(pool, scm, deal)
    before = warm.mean().toarray().copy()
    first = replay(pool, warm, pool.means[0], "civ", deal=deal)
    assert warm.n_cells == 10
    assert np.array_equal(warm.mean().toarray(), before)
    again = replay(pool, warm, pool.means[0], "civ", deal=deal)
    assert np.array_equal(first.chosen, again.chosen)


def test_no_model_recommends_the_nearest_mean_seen_or_assumed(pool, scm):
    deal = pool.deal(10, rng=2)
    control = pool.control[deal.warmup]
    by_assumption = 0
    for target in (pool.means[1], control.mean(axis=0) + pool.shifts[1]):
        found = replay(
            pool, warm_up(pool, scm, deal), target, "no_model",
            deal=deal, candidates=[0, 1, 3], n_rounds=6, n_cells=8, rng=4,
        )  # fmt: skip
        assert sorted(found.chosen[:3].tolist()) == [0, 1, 3]  # each once, before any twice
        assert sorted(found.chosen[3:].tolist()) == [0, 1, 3]
        for t in range(7):
            score = {}
            for j in [0, 1, 3]:
                x = pool.cells[deal.orders[j][: 8 * np.sum(found.chosen[:t] == j)]]
                x = x if len(x) else control + pool.shifts[j]  # not tried yet
                score[j] = ((x.mean(axis=0) - target) ** 2).sum()
                score[j] -= x.var(axis=0, ddof=1).sum() / len(x)
            assert found.recommended[t] == min(score, key=score.get)
            by_assumption += found.recommended[t] not in found.chosen[:t]
    assert by_assumption


def test_a_deal_holds_every_cell_once(pool):
    deal = pool.deal(80, rng=0)
    assert sorted(deal.warmup.tolist()) == list(range(80))
    assert sorted(np.concatenate(deal.orders).tolist()) == list(range(len(pool.cells)))
    assert not np.array_equal(deal.orders[0], pool.deal(80, rng=1).orders[0])


@pytest.mark.parametrize("criterion", ["civ", "maxv", "no_model"])
def test_bad_candidates(pool, scm, criterion):
    deal = pool.deal(10, rng=1)
    warm = warm_up(pool, scm, deal)
    for candidates, words in {(): "at least one", (1, 1): "each once", (7,): "has 4"}.items():
        with pytest.raises(ValueError, match=words):
            replay(pool, warm, pool.means[0], criterion, deal=deal, candidates=candidates)


def test_bad_cells():
    x = np.ones((4, 2))
    with pytest.raises(ValueError, match="81"):
        CellPool(np.ones((80, 2)), [x], np.ones((1, 2))).deal(81)
    with pytest.raises(ValueError, match="at least one row"):
        CellPool(x, [np.ones((0, 2))], np.ones((1, 2)))
    with pytest.raises(ValueError, match="as many shifts"):
        CellPool(x, [x, x], np.ones((1, 2)))
    with pytest.raises(ValueError, match="as many shifts"):
        CellPool(x, [np.ones((4, 3))], np.ones((1, 2)))
    with pytest.raises(ValueError, match=r"perturbation 0.*NaN"):
        CellPool(x, [x * np.nan], np.ones((1, 2)))
