"""Minimal I-map and threshold against one regression a test."""

import numpy as np
import pytest
from scipy.stats import norm

from nextpert.core import (
    PriorKnowledge,
    fisher_z_threshold,
    minimal_imap,
)


@pytest.mark.parametrize(("n_nodes", "n_cells"), [(1, 50), (2, 50), (12, 300), (70, 900)])
@pytest.mark.parametrize("alpha", [1e-3, 0.2])
def test_equals_one_test_at_a_time(simulated, brute_imap, n_nodes, n_cells, alpha):
    _, moments = simulated(n_nodes, 4, seed=n_nodes, n_cells=n_cells)
    rng = np.random.default_rng(0)
    for _ in range(2 if n_nodes > 50 else 10):
        order = rng.permutation(n_nodes).tolist()
        assert minimal_imap(moments, order, alpha=alpha) == brute_imap(moments, order, alpha)


def test_prior_edges_are_put_in_and_left_out(simulated, brute_imap):
    _, moments = simulated(8, 3, seed=1)
    plain = set(brute_imap(moments, range(8), 1e-3).edges())
    absent = next((a, b) for a in range(8) for b in range(a + 1, 8) if (a, b) not in plain)
    present = min(plain)
    prior = PriorKnowledge(8, required=[absent], forbidden=[present])
    changed = set(minimal_imap(moments, range(8), prior=prior).edges())
    assert changed == plain - {present} | {absent}


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.3])
def test_threshold_is_where_the_p_value_is_alpha(alpha):
    given = np.array([0, 5, 90])
    z = np.sqrt(200 - given - 3) * np.arctanh(fisher_z_threshold(200, given, alpha))
    assert np.allclose(2 * norm.sf(z), alpha, rtol=1e-9)
