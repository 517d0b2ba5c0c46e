"""Power by draws of cells: against the closed form where it holds, and tests done where not."""

import numpy as np
import pytest
from scipy.stats import ttest_ind_from_stats

from nextpert.core.plan.drawn_power import drawn_power
from nextpert.core.plan.layout import Layout
from nextpert.core.plan.power import EffectPrecision


@pytest.mark.parametrize("tau2", [0.0, 0.05])
def test_normal_cells_have_the_power_of_the_closed_form(tau2):
    layouts = (Layout(2, guide_variance=tau2), Layout(4, guide_variance=tau2))
    plan = EffectPrecision([1.0, 2.0], [1.0, 1.5], 300, *layouts)
    cells = 3.0 * np.random.default_rng(0).normal(size=(20000, 2)) + 5.0  # own scale, own mean
    found = drawn_power(plan, cells, [6, 12, 40], 0.7, 0.9, n_draws=8000, rng=1)
    np.testing.assert_allclose(found, plan.power([6, 12, 40], 0.7, 0.9), atol=0.025)


@pytest.mark.parametrize("n", [8, 25])
def test_rarely_seen_genes_against_tests_done(n):
    rng, effect, n_tests = np.random.default_rng(n), 0.3, 4000
    control = rng.poisson([0.03, 0.15, 1.0], size=(4000, 3)) ** 0.5
    mean, sd = control.mean(axis=0), control.std(axis=0, ddof=1)
    own = control[rng.integers(len(control), size=(n, n_tests))]
    own[:, ::2] += effect
    own[:, 1::2] -= effect
    p = ttest_ind_from_stats(
        own.mean(axis=0), own.std(axis=0, ddof=1), n, mean, sd, len(control), equal_var=False
    ).pvalue
    wanted = (p < 0.05).mean(axis=0)
    plan = EffectPrecision(sd**2, sd**2, len(control))
    found = drawn_power(plan, control, [4, n], effect, n_draws=4000, rng=rng)[1]
    np.testing.assert_allclose(found, wanted, atol=0.045)
    if n == 8:  # else the draws would be of no use
        assert np.abs(plan.power([n], effect)[0] - wanted).max() > 0.06


def test_genes_that_no_cell_shows_and_blocks_of_draws(monkeypatch):
    from nextpert.core.plan import drawn_power as module

    rng = np.random.default_rng(0)
    cells = np.column_stack([np.zeros(50), rng.normal(size=50)])
    plan = EffectPrecision([0.0, 1.0], [0.0, 1.0], 100)
    found = drawn_power(plan, cells, [3, 30], 0.5, rng=0)
    assert np.isfinite(found).all()
    assert found[:, 0].tolist() == [1.0, 1.0]
    monkeypatch.setattr(module, "_VALUES", 1)
    again = drawn_power(plan, cells, [3, 30], 0.5, rng=0)
    np.testing.assert_allclose(found, again, atol=0.08)
