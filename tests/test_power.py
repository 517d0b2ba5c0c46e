"""The benchmark of plans of cells: its simulations agree with what is planned."""

import numpy as np
import pytest

from nextpert.core.design.power import EffectPrecision, Layout

pytestmark = pytest.mark.benchmarks


def test_simulated_power_is_that_planned(monkeypatch):
    from benchmarks import power

    monkeypatch.setattr(power, "DRAWS", 20000)
    rng = np.random.default_rng(0)
    for n, guides, tau2 in ((10, 1, 0.0), (24, 4, 0.1)):
        found = power.simulated_share(rng, n, 500, guides, tau2, 0.6)
        layout, of_control = (Layout(g, guide_variance=tau2) for g in (guides, 4 * guides))
        one = np.ones(1)
        plan = EffectPrecision(one, one * of_control.spread(500), 500, layout)
        planned = plan.power([n], 0.6)[0, 0]
        assert abs(found - planned) < 4 * np.sqrt(0.25 / 20000) + 0.005


def test_drawn_cells_of_guides_find_what_is_planned_from_controls():
    from benchmarks import power

    rng, effect = np.random.default_rng(1), np.array([0.0, 0.3, 0.6, 1.0])
    control = rng.normal(size=(4000, 4))
    pools = [rng.normal(size=(4000, 4)) + effect for _ in range(4)]
    plan = EffectPrecision(np.ones(4), np.ones(4) / 4000, 4000, Layout(4))
    found = power.share_found(control, pools, 20, plan.layout, 2000, rng)
    np.testing.assert_allclose(found, plan.power([20], effect)[0], atol=0.05)
