"""Side information: residuals in closed form against refits, and what permuted tables gain."""

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.base import SideInformation, Sources, build_predictors
from nextpert.core.model.predictors.features import (
    Features,
    OtherScreen,
    Solved,
    _beyond_chance,
    _Screen,
)


def refitted(covariance, effects, missing, j):
    """Kriging of row ``j`` from the others: mean, and mean plus departure, gene by gene."""
    mean, whole = np.zeros((2, effects.shape[1]))
    for g in range(effects.shape[1]):
        rest = np.flatnonzero(~missing[:, g] & (np.arange(len(effects)) != j))
        inverse = np.linalg.inv(covariance[np.ix_(rest, rest)])
        y = effects[rest, g]
        mean[g] = inverse.sum(axis=0) @ y / inverse.sum()
        whole[g] = mean[g] + covariance[j, rest] @ inverse @ (y - mean[g])
    return mean, whole


@pytest.mark.parametrize("rank", [3, 20])
def test_residuals_in_closed_form_are_those_of_refits(rank):
    rng = np.random.default_rng(rank)
    n, p = 12, 7
    z, noise, y = rng.normal(size=(n, rank)), rng.uniform(0.2, 2.0, n), rng.normal(size=(n, p))
    missing = np.zeros((n, p), bool)
    missing[2, 1] = missing[5, 1] = missing[0, 3] = True  # two of one gene, one of another
    solved = Solved.of(z, noise, y, missing)
    residuals, means = solved.residuals(), solved.means()
    covariance = z @ z.T + np.diag(noise)
    for j in range(n):
        mean, whole = refitted(covariance, y, missing, j)
        here = ~missing[j]
        np.testing.assert_allclose((y[j] - whole)[here], residuals[j][here], atol=1e-10)
        np.testing.assert_allclose(mean[here], means[j][here], atol=1e-10)
    inverse = np.linalg.inv(covariance)
    free = ~missing.any(axis=0)
    np.testing.assert_allclose(
        solved.mean[free], inverse.sum(axis=0) @ y[:, free] / inverse.sum(), atol=1e-10
    )


def modules(seed, n=40, p=30, n_modules=5, n_cells=40, targets=None):
    """A screen of which each perturbation does what its module does, and something of its own."""
    rng = np.random.default_rng(seed)
    module = rng.integers(n_modules, size=n)
    effects = 0.2 * rng.normal(size=p) + 0.5 * rng.normal(size=(n_modules, p))[module]
    effects += 0.2 * rng.normal(size=(n, p))
    label = np.repeat(np.arange(n + 1), [1000, *[n_cells] * n])
    x = rng.normal(size=(len(label), p)) + np.vstack([np.zeros(p), effects])[label]
    names = [f"P{j}" for j in range(n)]
    targets = [[] for _ in names] if targets is None else targets
    screen = Perturbations(
        ScreenMoments.from_array(x, label, n + 1), 0, np.arange(1, n + 1), targets, names=names
    )
    return screen, effects, np.eye(n_modules)[module]


def test_left_out_perturbations_are_predicted_as_candidates_are():
    screen, _, rows = modules(0, n=12, targets=[[0], [0], [3], *[[] for _ in range(9)]])
    asked = Features(SideInformation(list(screen.names), rows))
    found = asked.held_out(screen).effects
    data = _Screen.of(screen, np.ones(12, bool))
    share = data.best_rho(rows)[0]
    z = np.sqrt(share) * rows
    covariance = z @ z.T + np.diag(1 - share + data.noise / data.size)
    missing = screen.own()
    for j in range(12):
        mean, whole = refitted(covariance, data.effects, missing, j)
        expected = np.where(missing[j], 0.0, (whole - mean) * screen.sd)
        np.testing.assert_allclose(found[j], expected, atol=1e-10)
    # A candidate that is like one of them, of which nothing was seen.
    new = Perturbations(screen.moments, 0, [-1], [[2]], names=["new"])
    known = SideInformation([*screen.names, "new"], np.vstack([rows, rows[:1]]))
    predicted = Features(known).predict(screen, new).effects[0]
    for g in range(len(predicted)):
        rest = np.flatnonzero(~missing[:, g])
        inverse = np.linalg.inv(covariance[np.ix_(rest, rest)])
        y = data.effects[rest, g]
        mean = inverse.sum(axis=0) @ y / inverse.sum()
        wanted = 0.0 if g == 2 else share * rows[0] @ rows[rest].T @ inverse @ (y - mean)
        np.testing.assert_allclose(predicted[g], wanted * screen.sd[g], atol=1e-10)


def test_the_size_of_effects_is_their_variance_beyond_sampling_gene_by_gene():
    screen, _, _ = modules(0, n=12, targets=[[0], [0], [3], *[[] for _ in range(9)]])
    total = freedom = 0.0
    for g in range(screen.observed.shape[1]):
        rows = np.flatnonzero(~screen.own()[:, g])
        seen = screen.observed[rows, g] / screen.sd[g]
        noise = screen.own_variance()[rows, g] / screen.sd[g] ** 2
        total += ((seen - seen.mean()) ** 2).sum() - noise.sum() * (len(rows) - 1) / len(rows)
        freedom += len(rows) - 1
    assert _Screen.of(screen, np.ones(12, bool)).size == pytest.approx(total / freedom)


def test_a_weight_is_bounded_by_the_third_largest_of_99_permuted_gains():
    def most(own, permuted):
        orders, gains = [], iter([own, *permuted])

        def gain(order):
            orders.append(order.tolist())
            return next(gains)

        return _beyond_chance(gain, 8), orders

    by_chance = np.random.default_rng(0).permutation(np.arange(1.0, 100))
    for own, expected in ((97, 0), (98, 1 / 97), (97 * 1.5, 0.5), (500, 1)):
        found, orders = most(own, by_chance)
        assert found == pytest.approx(expected)
    assert len(orders) == 100  # of 99 permuted tables
    assert orders[0] == list(range(8))
    assert all(sorted(order) == orders[0] for order in orders)
    assert most(98, [1000, 1000, *range(97)])[0] == pytest.approx(2 / 96)
    found, orders = most(5, [9, 1, 7, 2, 6, *range(1, 95)])
    assert not found
    assert len(orders) == 6  # three gained more: the rest is not needed
    assert not most(0, -by_chance)[0]
    assert most(1, -by_chance)[0] == 1


def test_another_screen_counts_as_far_as_it_tells_perturbations_from_one_another():
    most = []
    for seed in range(10):
        screen, truth, rows = modules(seed, n=20)
        rng = np.random.default_rng(seed)
        order, noise = rng.permutation(20), 0.05 * rng.normal(size=truth.shape)
        for there in (truth, truth[order], np.tile(truth.mean(axis=0), (20, 1))):
            known = SideInformation(list(screen.names), rows, there + noise)
            most.append(OtherScreen(known).held_out(screen).most)
    right, permuted, alike = np.reshape(most, (10, 3)).T
    assert right.min() > 0.5
    assert max(permuted.mean(), alike.mean()) < 0.15


def test_few_perturbations_and_those_without_features_are_left_alone():
    screen, _, rows = modules(0, n=4)
    known = SideInformation(list(screen.names), rows)
    assert not Features(known).held_out(screen).effects.any()
    assert not Features(known).predict(screen, screen).effects.any()
    screen, _, rows = modules(0)
    rows[::3] = 0.0
    found = Features(SideInformation(list(screen.names), rows)).held_out(screen).effects
    assert not found[::3].any()
    assert found[1::3].any(axis=1).all()


def test_effects_in_another_screen_are_found_by_label():
    screen, _, _ = modules(0, n=5, p=6, targets=[[0], [], [0, 2], [1], []])
    known = np.arange(1, 31.0).reshape(5, 6)
    asked = OtherScreen(SideInformation([*screen.names[:4], "new"], np.eye(5), known))
    found = asked.held_out(screen).effects
    assert found[3].tolist() == [19, 0, 21, 22, 23, 24]
    assert found[4].tolist() == known.mean(axis=0).tolist()  # of no label there
    assert found[2].tolist() == [0, 14, 0, 16, 17, 18]
    some = asked.predict(screen, screen.some([0, 2]))
    assert some.effects.tolist() == [[0, *known[0, 1:]], found[2].tolist()]
    alone = Sources(features=SideInformation(["A"], np.eye(1)))
    for sources in (Sources(), alone):
        assert not any(isinstance(each, OtherScreen) for each in build_predictors(sources))
    assert any(isinstance(each, Features) for each in build_predictors(alone))


def test_only_what_was_observed_and_known_precisely_is_measured_elsewhere():
    rows, effects = np.eye(2, dtype=np.float32), np.ones((2, 3))
    assert SideInformation(["A", "B"], rows).measured(["A"]) is None
    assert SideInformation(["A", "B"], rows, effects).measured(["A"]) is None
    known = SideInformation(["A", "B"], rows, effects, 2 * effects, 5 * effects)
    found, precision = known.measured(["B", "C"])
    np.testing.assert_array_equal(found, [[2, 2, 2], [0, 0, 0]])
    np.testing.assert_array_equal(precision, [[5, 5, 5], [0, 0, 0]])
