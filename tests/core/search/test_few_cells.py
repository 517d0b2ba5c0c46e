"""Searches with fewer cells than nodes: correlations are shrunk, as by five cells more."""

import numpy as np
import pytest

from nextpert.core import Moments, boss, causaldag_gsp, fisher_z_threshold, gsp
from nextpert.core.search.minimal_imap import checked_correlation, make_tests


def _f1(dag, truth):
    one, two = ({frozenset(edge) for edge in graph.edges()} for graph in (dag, truth))
    return 2 * len(one & two) / (len(one) + len(two))


def test_a_hundred_cells_of_a_hundred_nodes(simulated):
    scm, moments = simulated(100, 2, seed=0, n_cells=100)
    found = boss(moments, n_starts=2, rng=0)
    assert _f1(found.dag, scm.dag) > 0.8
    tested = gsp(moments, n_runs=3, orders=found.order, rng=0).dag
    assert 0.5 < _f1(tested, scm.dag) < _f1(found.dag, scm.dag)
    false = {frozenset(a) for a in tested.edges()} - {frozenset(a) for a in scm.dag.edges()}
    assert len(false) <= 0.15 * tested.n_edges


@pytest.mark.parametrize(("n_cells", "few"), [(9, True), (10, False)])
def test_shrunk_as_by_pseudo_cells_exactly_where_cells_are_few(n_cells, few):
    x = np.random.default_rng(0).normal(size=(n_cells, 8))
    moments = Moments.from_array(x)
    z = (x - x.mean(axis=0)) / x.std(axis=0)
    pooled = z.T @ z + 5 * np.eye(8)
    scale = np.sqrt(np.diag(pooled))
    expected = pooled / np.outer(scale, scale) if few else np.corrcoef(x.T)
    np.testing.assert_allclose(checked_correlation(moments), expected, atol=1e-12)
    given = np.zeros(7) if few else np.arange(7)
    threshold = make_tests(moments, 1e-3, None)[1]
    np.testing.assert_allclose(threshold, fisher_z_threshold(n_cells, given, 1e-3) ** 2)


def test_causaldag_refuses_few_cells():
    moments = Moments.from_array(np.random.default_rng(0).normal(size=(6, 8)))
    with pytest.raises(ValueError, match="causaldag needs at least 10 cells to test 8 nodes"):
        causaldag_gsp(moments)
