import numpy as np
import pytest

from nextpert.core.design.cell_numbers import Layout


def test_spread_of_means_of_cells_in_guides_and_replicates():
    layout = Layout(3, 2, guide_variance=0.2, replicate_variance=0.1)
    rng, n_draws = np.random.default_rng(0), 20000
    guides = rng.normal(0, np.sqrt(0.2), (n_draws, 3, 1))
    replicates = rng.normal(0, np.sqrt(0.1), (n_draws, 1, 2))
    cells = rng.normal(size=(n_draws, 3, 2)) / np.sqrt(2)  # two cells of each
    means = (guides + replicates + cells).mean(axis=(1, 2))
    error = layout.spread(12) * np.sqrt(2 / n_draws)
    assert abs(means.var() - layout.spread(12)) < 4 * error


@pytest.mark.parametrize("n_guides", [1, 2, 5])
def test_cells_for_is_the_least_number(n_guides):
    layout = Layout(n_guides, 3, guide_variance=0.05, replicate_variance=0.01)
    wanted = np.array([0.5, 0.1, 0.0301])
    cells = layout.cells_for(wanted)
    for w, n in zip(wanted, cells, strict=True):
        if np.isfinite(n):
            assert layout.spread(n) <= w * (1 + 1e-9)
            assert n == n_guides or layout.spread(n - 1) > w  # a cell a guide
        else:
            assert layout.spread(1e12) >= w
    assert Layout().cells_for(0.01) == 100


def test_guides_for_is_the_least_number():
    layout = Layout(1, 2, guide_variance=0.06, replicate_variance=0.02)
    assert layout.guides_for([0.02, 0.04, 0.01, 0.2]).tolist() == [7, 3, np.inf, 1]
    for n_guides, enough in ((6, False), (7, True)):
        more = Layout(n_guides, 2, guide_variance=0.06, replicate_variance=0.02)
        assert (more.floor < 0.02) == enough
