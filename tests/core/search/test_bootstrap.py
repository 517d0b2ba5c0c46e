"""Bootstraps of a search: weights, moments and frequencies against a plain loop over cells."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse as sp
from joblib import parallel_config

from nextpert.core import LinearScm, Moments, bootstrap_dag, boss, gsp
from nextpert.core.search._resamples import Resamples, poisson_weights

_ALL = 2**64 - 1


def plain_weight(seed, cell):
    """Number ``cell`` of the splitmix64 stream, through the inverse of the Poisson distribution."""
    z = (seed + (cell + 1) * 0x9E3779B97F4A7C15) & _ALL
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _ALL
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _ALL
    uniform = ((z ^ (z >> 31)) >> 11) / 2**53
    weight, below = 0, math.exp(-1)
    while uniform >= below:
        weight += 1
        below += math.exp(-1) / math.factorial(weight)
    return weight


def plain_weights(rng, n_bootstraps, n_cells):
    seeds = np.random.default_rng(rng).integers(0, 2**64, n_bootstraps, dtype=np.uint64)
    return np.array([[plain_weight(int(s), k) for k in range(n_cells)] for s in seeds])


def find(moments, rng):
    return boss(moments, rng=rng).dag


@pytest.fixture(scope="module")
def scm():
    """Six nodes: a collider, a chain, and a node without neighbours; means far from zero."""
    weights = np.zeros((6, 6))
    weights[2, 0] = weights[2, 1] = 0.9
    weights[3, 2] = -0.8
    weights[4, 3] = 0.8
    return LinearScm(weights, np.ones(6), np.array([0.0, 1.0, 20.0, -5.0, 0.5, 3.0]))


def resampled(x, seeds, blocks):
    resamples = Resamples(x.shape[1], seeds)
    for start, stop in zip(blocks, [*blocks[1:], x.shape[0]], strict=True):
        resamples.add(np.arange(start, stop), x[start:stop])
    return resamples.finish()


def test_weights_are_poisson_and_independent():
    seeds = np.random.default_rng(0).integers(0, 2**64, 20, dtype=np.uint64)
    weights = poisson_weights(seeds, np.arange(20_000))
    share = np.bincount(weights.ravel(), minlength=8)[:8] / weights.size
    wanted = [math.exp(-1) / math.factorial(k) for k in range(8)]
    np.testing.assert_allclose(share, wanted, atol=4 * 0.5 / math.sqrt(weights.size))
    across = np.corrcoef(weights)  # resamples
    along = np.corrcoef(weights[:, :-1].ravel(), weights[:, 1:].ravel())  # cells in a row
    limit = 5 / math.sqrt(20_000)
    assert np.abs(across - np.eye(20)).max() < limit
    assert abs(along[0, 1]) < limit


def test_moments_equal_those_of_repeated_cells(scm):
    x = scm.sample(2500, rng=1)
    weights = plain_weights(3, 4, len(x))
    seeds = np.random.default_rng(3).integers(0, 2**64, 4, dtype=np.uint64)
    for weight, moments in zip(weights, resampled(x, seeds, [0]), strict=True):
        wanted = Moments.from_array(np.repeat(x, weight, axis=0))
        assert moments.n == wanted.n
        np.testing.assert_allclose(moments.mean, wanted.mean, rtol=1e-12)
        np.testing.assert_allclose(moments.scatter, wanted.scatter, rtol=1e-10, atol=1e-8)
        assert np.array_equal(moments.scatter, moments.scatter.T)


@pytest.mark.parametrize("kind", [np.asarray, sp.csr_array])
def test_moments_are_the_same_to_the_bit_for_any_blocks(scm, kind):
    x = scm.sample(3000, rng=1)
    seeds = np.arange(3, dtype=np.uint64)
    whole = resampled(x, seeds, [0])
    for blocks in ([0, 1, 7, 1500], range(0, 3000, 64), [0, 1024, 2048], [0, 2999]):
        for one, two in zip(whole, resampled(kind(x), seeds, list(blocks)), strict=True):
            assert one.n == two.n
            assert np.array_equal(one.mean, two.mean)
            assert np.array_equal(one.scatter, two.scatter)


def test_a_node_that_a_resample_loses_is_constant():
    x = np.random.default_rng(0).normal(size=(3000, 3))
    x[:, 1] = 0
    x[3, 1] = 0.7  # among the first cells, so that sums are not taken from zero
    x[:, 2] = 7
    x[1700, 2] = 4.1
    seeds = np.arange(40, dtype=np.uint64)
    weights = poisson_weights(seeds, np.arange(3000))
    lost = weights[:, [3, 1700]] == 0
    assert 0 < lost[:, 0].sum() < 40
    assert 0 < lost[:, 1].sum() < 40
    for gone, moments in zip(lost, resampled(x, seeds, [0]), strict=True):
        assert moments.constant_nodes().tolist() == (1 + np.flatnonzero(gone)).tolist()


def test_frequencies_equal_a_plain_loop(scm):
    x = scm.sample(150, rng=5)  # few, so that resamples differ
    found = bootstrap_dag(x, find, n_bootstraps=12, rng=7)
    generator = np.random.default_rng(7)
    weights = plain_weights(7, 12, len(x))
    generator.integers(0, 2**64, 12, dtype=np.uint64)
    wanted = np.zeros((6, 6))
    for weight, stream in zip(weights, generator.spawn(12), strict=True):
        dag = find(Moments.from_array(np.repeat(x, weight, axis=0)), stream)
        for parent, child in dag.edges():
            wanted[parent, child] += 1
    assert ((wanted > 0) & (wanted < 12)).any()
    assert found.format == "csr"
    assert np.array_equal(found.toarray(), wanted / 12)


def test_same_for_any_number_of_workers_and_kind_of_cells(scm):
    x = scm.sample(300, rng=5)
    x[np.abs(x) < 0.5] = 0
    first = bootstrap_dag(x, find, n_bootstraps=10, rng=7).toarray()
    for cells, n_jobs in ((x, 2), (sp.csr_array(x), 1), (sp.csc_matrix(x), 2), (x.tolist(), 1)):
        again = bootstrap_dag(cells, find, n_bootstraps=10, rng=7, n_jobs=n_jobs).toarray()
        assert np.array_equal(first, again)
    with parallel_config("threading", n_jobs=2):
        again = bootstrap_dag(x, find, n_bootstraps=10, rng=7, n_jobs=None).toarray()
    assert np.array_equal(first, again)
    other = bootstrap_dag(x, find, n_bootstraps=10, rng=8).toarray()
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    "search", [find, lambda moments, rng: gsp(moments, n_runs=10, rng=rng).dag], ids=["boss", "gsp"]
)
def test_true_arcs_are_frequent_and_absent_ones_rare(scm, search):
    found = bootstrap_dag(scm.sample(2000, rng=2), search, n_bootstraps=40, rng=0).toarray()
    for parent, child in ((0, 2), (1, 2), (2, 3), (3, 4)):  # all of them compelled
        assert found[parent, child] >= 0.95
    true = np.zeros((6, 6), dtype=bool)
    for parent, child in scm.dag.edges():
        true[parent, child] = true[child, parent] = True
    adjacent = (found + found.T)[~true]
    assert adjacent.max() <= 0.35
    assert adjacent.mean() <= 0.1


def test_progress_and_bad_input(scm):
    x = scm.sample(50, rng=0)
    seen = []
    bootstrap_dag(x, find, n_bootstraps=3, rng=0, progress=lambda *count: seen.append(count))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    for n_bootstraps in (0, 2.5, -1):
        with pytest.raises(ValueError, match="n_bootstraps"):
            bootstrap_dag(x, find, n_bootstraps=n_bootstraps)
    x[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"Columns \[2\]"):
        bootstrap_dag(x, find)
    with pytest.raises(ValueError, match="matrix"):
        bootstrap_dag(x[0], find)
