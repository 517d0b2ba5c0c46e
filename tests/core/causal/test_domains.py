"""Pools, boxes and sparse shifts: searches against exhaustive ones, moments against draws."""

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize

from nextpert.core import (
    Box,
    CausalVariance,
    Civ,
    CivOw,
    Dag,
    DagBlr,
    Greedy,
    MaxVariance,
    Moments,
    Pool,
    Random,
    Sparse,
    Sphere,
    TargetMeanVariance,
    random_scm,
)

LOOKAHEAD = [Civ, CausalVariance, MaxVariance, TargetMeanVariance]


def instance(p, seed, n=10, intercept=True, scale=1.0):
    """Draw a posterior and a target mean; ``scale`` is the unit of the data."""
    rng = np.random.default_rng(seed)
    scm = random_scm(p, "complete", rng=rng)
    blr = DagBlr(scm.dag, intercept=intercept, prior_scale=1.0, prior_rate=1e-3 * scale**2)
    blr = blr.update(Moments.from_array(scale * scm.sample(n, rng=rng)))
    return blr, scale * scm.mean(rng.normal(size=p)), rng


# -- pool ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*LOOKAHEAD, CivOw, Greedy])
def test_pool_takes_the_best_candidate_and_the_first_of_equals(kind):
    blr, target, rng = instance(6, 0)
    shifts = rng.normal(size=(200, 6))
    shifts[150] = shifts[20]
    acquisition = kind(blr, target)
    for pool in (shifts, np.vstack([shifts, shifts])):
        found = Pool(pool).minimise(acquisition, rng=0, n_random=3)
        values = [acquisition.value(a) for a in shifts]
        assert found.index == int(np.argmin(values))
        assert found.value == pytest.approx(min(values), rel=1e-12)
        np.testing.assert_array_equal(found.shift, shifts[found.index])


# -- box ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Civ, TargetMeanVariance])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("n", [5, 3000])
def test_box_meets_the_first_order_conditions_in_any_units(kind, scale, n):
    blr, target, rng = instance(7, 5, n=n, scale=scale)
    low = -scale * rng.uniform(0, 2, 7)
    high = scale * rng.uniform(0, 2, 7)
    high[2] = low[2]  # a node that cannot be shifted
    acquisition = kind(blr, target)
    found = Box(low, high).minimise(acquisition, n_random=3, rng=0)
    assert found.shift[2] == pytest.approx(low[2], rel=1e-12)
    value, grad = acquisition.value_and_grad(found.shift)
    excess = value - acquisition.floor
    slope = grad * (high - low)  # by the width of the box
    inside = (found.shift > low) & (found.shift < high)
    assert inside.sum() < 7
    assert np.abs(slope[inside]).max(initial=0) < 1e-4 * excess
    assert (slope[found.shift == low] > -1e-4 * excess).all()
    assert (slope[found.shift == high] < 1e-4 * excess).all()
    others = Box(low, high).sample(20_000, 7, rng)
    assert acquisition.excess(found.shift[None])[0] <= acquisition.excess(others).min()


def one_sided(seed):
    """Draw an acquisition and ask for it in the box of knockdowns: graphs, cells, targets vary."""
    rng = np.random.default_rng(seed)
    p, n_parents = int(rng.choice([6, 10, 14])), int(rng.choice([2, 4, 14]))
    parents = [rng.choice(i, min(i, n_parents), replace=False) if i else [] for i in range(p)]
    scm = random_scm(p, Dag.from_parents(parents), rng=rng)
    blr = DagBlr(scm.dag, intercept=bool(seed % 2), prior_scale=1.0)
    blr = blr.update(Moments.from_array(scm.sample(int(rng.choice([5, 20, 100])), rng=rng)))
    kind = LOOKAHEAD[seed % 4]
    return kind(blr, scm.mean(rng.normal(size=p)), n_cells=int(rng.choice([1, 50])))


def best_of_searches(acquisition, low, high, n, seed):
    """The least excess over ``n`` plain searches from draws in the box."""
    p, floor = acquisition.n_nodes, acquisition.floor
    now = acquisition.current() - floor

    def objective(shift):
        value, grad = acquisition.value_and_grad(shift)
        return (value - floor) / now, grad / now

    return now * min(
        minimize(objective, start, jac=True, method="L-BFGS-B", bounds=[(low, high)] * p).fun
        for start in np.random.default_rng(seed).uniform(low, high, (n, p))
    )


# Of seeds 0 to 119, the first seven are some of those that two random starts missed, by up to 70 %.
@pytest.mark.parametrize("seed", [4, 10, 19, 53, 71, 92, 111, 0])
def test_one_sided_box_against_the_best_of_200_searches(seed):
    acquisition = one_sided(seed)
    found = Box(-1.0, 0.0).minimise(acquisition, rng=seed).value - acquisition.floor
    best = best_of_searches(acquisition, -1.0, 0.0, 200, seed)
    gain = acquisition.current() - acquisition.floor - best
    assert found - best <= 1e-3 * gain


class Kinked:
    """The largest of several departures, above a floor; counts the looks at many shifts."""

    n_nodes, looks = 6, 0

    def __init__(self, floor):
        rng = np.random.default_rng(0)
        self.floor, self.mix, self.about = floor, rng.normal(size=(9, 6)), rng.normal(size=9)

    def values(self, shifts):
        self.looks += len(shifts) > 1
        return self.floor + np.abs(shifts @ self.mix.T - self.about).max(axis=1)

    def value(self, shift):
        return float(self.values(shift[None])[0])

    def value_and_grad(self, shift):
        off = self.mix @ shift - self.about
        k = int(np.abs(off).argmax())
        return self.floor + abs(off[k]), np.sign(off[k]) * self.mix[k]


@pytest.mark.parametrize("floor", [0.0, 1e5])
def test_a_search_goes_on_from_kinks_however_high_the_floor(floor):
    kinked, start = Kinked(floor), np.zeros(6)
    shift, value = Box(-1, 1)._stir(kinked, start, kinked.value(start), np.random.default_rng(0))
    assert value == kinked.value(shift)
    assert kinked.looks > 2


# -- sparse -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Civ, TargetMeanVariance, CausalVariance])
def test_two_sparse_shifts_against_all_supports_and_directions(kind):
    """A greedy search with exchanges: level with the exhaustive one in all these instances."""
    angles = np.linspace(0, 2 * np.pi, 721)
    for seed in range(6):
        p = 4 + seed % 3
        blr, target, _ = instance(p, seed, n=[2, 8][seed % 2], intercept=seed % 3 == 0)
        acquisition = kind(blr, target)
        found = Sparse(2, 1.3).minimise(acquisition, rng=seed)
        assert np.count_nonzero(found.shift) <= 2
        assert np.linalg.norm(found.shift) == pytest.approx(1.3)
        assert found.value == pytest.approx(acquisition.value(found.shift), rel=1e-10)
        least = np.inf
        for pair in combinations(range(p), 2):
            shifts = np.zeros((len(angles), p))
            shifts[:, pair] = 1.3 * np.column_stack([np.cos(angles), np.sin(angles)])
            least = min(least, acquisition.values(shifts).min())
        assert found.value <= least + 1e-6 * (least - acquisition.floor)


@pytest.mark.parametrize("kind", [*LOOKAHEAD, CivOw])
def test_sparse_shifts_of_one_node_and_of_all(kind):
    blr, target, _ = instance(5, 3, n=4)
    acquisition = kind(blr, target)
    one = Sparse(1, 2.0).minimise(acquisition, rng=0)
    singles = 2.0 * np.vstack([np.eye(5), -np.eye(5)])
    assert one.value == pytest.approx(min(acquisition.value(a) for a in singles), rel=1e-12)
    assert one.value == pytest.approx(acquisition.value(one.shift), rel=1e-10)
    last = one.value
    for k in (2, 3, 5, 9):
        more = Sparse(k, 2.0).minimise(acquisition, rng=0)
        assert np.count_nonzero(more.shift) <= k
        assert more.value == pytest.approx(acquisition.value(more.shift), rel=1e-10)
        assert more.value <= last * (1 + 1e-9)
        last = more.value


# -- all ----------------------------------------------------------------------------------------

DOMAINS = {
    "pool": Pool(np.random.default_rng(1).normal(size=(7, 4))),
    "box": Box([-1.0, 0.0, 2.0, -3.0], [1.0, 0.5, 2.0, 3.0]),
    "sphere": Sphere(2.5),
    "sparse": Sparse(2, 1.5),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_moments_are_those_of_draws_and_projections_are_the_nearest_points(name):
    domain, rng = DOMAINS[name], np.random.default_rng(2)
    draws = domain.sample(40_000, 4, rng)
    mean, variance = domain.moments(4)
    for values, wanted in ((draws, mean), ((draws - mean) ** 2, variance)):
        error = values.std(axis=0) / np.sqrt(len(draws))
        assert (np.abs(values.mean(axis=0) - wanted) <= 5 * error + 1e-12).all()
    np.testing.assert_allclose([domain.project(a) for a in draws[:20]], draws[:20], rtol=1e-12)
    for shift in 2 * rng.normal(size=(5, 4)):
        nearest = np.linalg.norm(domain.project(shift) - shift)
        assert nearest <= np.linalg.norm(draws - shift, axis=1).min() + 1e-12


def test_draws_of_pools_boxes_and_few_nodes():
    rng, pool, box = np.random.default_rng(3), DOMAINS["pool"], DOMAINS["box"]
    places = [(pool.shifts == a).all(axis=1).argmax() for a in pool.sample(7000, 4, rng)]
    counts = np.bincount(places, minlength=7)
    assert ((counts - 1000) ** 2 / 1000).sum() < 35  # chi square, 6 degrees of freedom
    drawn = box.sample(100, 4, rng)
    assert ((drawn >= box.low) & (drawn <= box.high)).all()
    np.testing.assert_array_equal(Box(-1, 1).moments(2)[1], [1 / 3, 1 / 3])
    drawn = DOMAINS["sparse"].sample(100, 4, rng)
    assert (np.count_nonzero(drawn, axis=1) == 2).all()
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1.5)
    assert np.count_nonzero(Sparse(9).project(drawn[0] + 1)) == 4
    assert Sparse(9).sample(3, 2, rng).shape == (3, 2)
    np.testing.assert_array_equal(DOMAINS["sphere"].project(np.zeros(4)), [2.5, 0, 0, 0])
    assert np.count_nonzero(Sparse(2).project(np.zeros(4))) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pool(np.empty((0, 3))), "at least one"),
        (lambda: Pool(np.ones(3)), "at least one"),
        (lambda: Pool([[np.nan, 1.0]]), "NaN"),
        (lambda: Pool(np.eye(3)).moments(4), "3 nodes"),
        (lambda: Pool(np.eye(3)).minimise(Random(DagBlr(Dag.from_edges(4, [])), rng=0)), "pool"),
        (lambda: Box(1.0, 0.0), "low <= high"),
        (lambda: Box(-np.inf, 0.0), "finite"),
        (lambda: Box(np.zeros(3), 1.0).moments(4), "4 nodes"),
        *((lambda bad=bad: Sphere(bad), "radius") for bad in (0.0, -1.0, np.nan, np.inf)),
        (lambda: Sparse(0), "k must"),
        (lambda: Sparse(1.5), "k must"),
    ],
)
def test_what_is_no_domain_is_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
