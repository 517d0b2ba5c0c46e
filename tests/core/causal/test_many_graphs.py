"""Acquisitions over several graphs: variance within and between, by dense formulas and by draws."""

import numpy as np
import pytest

from nextpert.core import (
    Candidates,
    Dag,
    DagBlr,
    Moments,
    find_acquisition,
)

GRAPHS = ([[], [0], [0, 1], [2]], [[1], [], [1], [0, 2]], [[3], [2], [], [2]])


@pytest.fixture
def three(dense):
    """The same cells fitted on three graphs, dense and by the core, and a pool of candidates."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(200, 4)) @ np.triu(rng.normal(size=(4, 4))) + rng.normal(size=4)
    plain = [dense(g, intercept=True).fit([(x, np.zeros(4))]) for g in GRAPHS]
    cells = Moments.from_array(x)
    blrs = [DagBlr(Dag.from_parents(g), prior_scale=1.0).update(cells) for g in GRAPHS]
    pool, target = rng.normal(size=(7, 4)) - 0.5, rng.normal(size=4)
    return plain, blrs, pool, target


def over(acquisition, blrs, target, pool, **options):
    """The acquisition over graphs that count alike, of candidates with exact shifts."""
    asked = Candidates(blrs, pool, target, **options)
    return find_acquisition(acquisition).of_candidates(asked)


def expected_gap(plain, shifts, target, n):
    """``E g`` of every candidate: dense, by the variance of every term and its mean."""
    e, _ = plain.noise_moments()
    return (e * (1 / n + plain.w(target))).sum() + ((shifts - plain.ideal(target)) ** 2).sum(axis=1)


def test_within_and_between_graphs_by_dense_formulas(three):
    plain, blrs, pool, target = three
    n, weights = 50, np.full(len(pool), 1 / len(pool))
    found = over("civ", blrs, target, pool, n_cells=n).values
    for shift, value in zip(pool, found, strict=True):
        later = [k.ahead(shift, n) for k in plain]
        within = np.mean([k.gap_variance(pool, target, n) for k in later], axis=0)
        between = np.var([expected_gap(k, pool, target, n) for k in later], axis=0)
        assert value == pytest.approx(weights @ (within + between), rel=1e-8)
        assert weights @ between > 0.1 * value  # so that it cannot be left out unseen


@pytest.mark.parametrize("noise_aware", [False, True])
def test_cv_over_graphs_is_the_largest_total_variance(three, noise_aware):
    plain, blrs, pool, target = three
    found, removed = over("cv", blrs, target, pool, n_cells=5, noise_aware=noise_aware)
    ideal = [k.ideal(target) for k in plain]
    if not noise_aware:
        for shift, value in zip(pool, found, strict=True):
            later = [k.ahead(shift, 5) for k in plain]
            within = np.mean([k.noise_moments()[0] * k.w(target) for k in later], axis=0)
            assert value == pytest.approx((within + np.var(ideal, axis=0)).max(), rel=1e-8)
    assert ((removed >= 0) & (removed <= 1)).all()


def test_graphs_of_other_nodes_are_refused(three):
    _, blrs, pool, target = three
    with pytest.raises(ValueError, match="the same nodes"):
        over("civ", [*blrs, DagBlr(Dag.from_edges(2, []))], target, pool)
