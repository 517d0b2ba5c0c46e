"""The benchmark of plans of cells: its simulations agree with what is planned."""

import numpy as np
import pytest

from nextpert.core.design.power import EffectPrecision, Layout
from nextpert.core.design.stopping import AT_TARGET, CONFIRM

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


def test_compared_power_is_the_mean_over_effects():
    from benchmarks import power

    of_one = [(4, 2.0, 3.0), (1, 0.5, 1.0), (3, 1.5, 2.0)]
    n, perturbations, planned, found, gap, up, down = power.compared(
        np.array([of_one] * 3), np.random.default_rng(0)
    )
    assert (n, perturbations, planned) == ("12", "3", "50")
    assert (found, gap) == ("75 (75 to 75)", "-25 (-25 to -25)")
    assert (up, down) == ("50 / 100", "50 / 67")
    gaps = {"a, 10 cells": np.array([-9, 1, 2.0]), "a, 25 cells": np.array([1, -3, 4.0])}
    gaps["b, 50 cells"] = np.array([2, 2, -5.0])
    assert power.misses(gaps).split(": ")[1] == (
        "all, -9 (a, 10 cells); all, 2 (b, 50 cells); increases, 1 (a, 10 cells); increases, -3 "
        "(a, 25 cells); decreases, 2 (a, 10 cells); decreases, -5 (b, 50 cells)."
    )


def test_advice_on_noise_is_that_of_plan_cells():
    from benchmarks import power

    lines = power.noise_table(1).splitlines()
    head, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line
    )
    found = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows[1:]}
    assert found["shuffled, towards a label"][AT_TARGET] == "1"
    assert found["effects, towards a state"][CONFIRM] == "1"
