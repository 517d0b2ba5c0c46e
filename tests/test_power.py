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


def test_advice_on_noise_is_that_of_plan_cells():
    from benchmarks import power

    lines = power.noise_table(1).splitlines()
    head, *rows = (
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "|" in line
    )
    found = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows[1:]}
    assert found["shuffled, towards a label"][AT_TARGET] == "1"
    assert found["effects, towards a state"][CONFIRM] == "1"
