"""How far environments of a block scatter, and whether that is more than sampling."""

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core.screen.guides import spread_p_value, spread_within


def screen(variance, rng, *, n_cells=20, n_nodes=30, counts=False, share=1.0):
    """Twelve blocks of three environments, nodes correlated within cells."""
    environment = np.repeat(np.arange(36), n_cells)
    loadings = rng.normal(size=(n_nodes, 3))
    x = rng.normal(size=(len(environment), n_nodes))
    x += rng.normal(size=(len(environment), 3)) @ loadings.T
    sd = np.sqrt(1 + (loadings**2).sum(axis=1)) * (np.arange(n_nodes) < share * n_nodes)
    x += (np.sqrt(variance) * sd * rng.normal(size=(36, n_nodes)))[environment]
    if counts:
        x = np.log1p(rng.poisson(np.exp(0.3 * x)))
    x += 5 * rng.normal(size=(12, n_nodes))[environment // 3]  # blocks differ as they may
    return ScreenMoments.from_array(x, environment, 36)


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("n_cells", [5, 40])
def test_p_values_are_uniform_without_spread(n_cells, counts):
    rng = np.random.default_rng(0)
    p = [
        spread_p_value(screen(0.0, rng, n_cells=n_cells, counts=counts), np.arange(36) // 3)
        for _ in range(300)
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.1)


def test_spread_is_seen_also_in_few_nodes():
    rng = np.random.default_rng(0)
    blocks = np.arange(36) // 3
    assert spread_p_value(screen(0.05, rng), blocks) < 0.001
    few = screen(0.5, rng, share=0.2)
    assert spread_p_value(few, blocks) < 0.001
    assert spread_within(few, blocks) < 0.02  # the median node does not see it


def test_too_few_environments_give_no_p_value():
    rng = np.random.default_rng(0)
    found = screen(0.1, rng)
    for blocks in (np.arange(36), np.full(36, -1), np.where(np.arange(36) < 2, 0, -1)):
        assert np.isnan(spread_p_value(found, blocks))
        assert spread_within(found, blocks) == 0
    same = ScreenMoments(found.n, found.mean, 0 * found.squares, 0 * found.scatter)
    assert np.isnan(spread_p_value(same, np.arange(36) // 3))
