"""The benchmark of plans of cells: its simulations agree with what is planned, its rules count."""

from pathlib import Path

import numpy as np
import pytest

from nextpert.core.plan.layout import Layout
from nextpert.core.plan.power import EffectPrecision

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))


def test_simulated_power_is_that_planned(monkeypatch):
    from benchmarks import power

    monkeypatch.setattr(power, "DRAWS", 20000)
    rng = np.random.default_rng(0)
    for n, guides, tau2 in ((10, 1, 0.0), (24, 4, 0.1)):
        found = power.simulated_share(rng, n, 500, guides, tau2, 0.6)
        layouts = (Layout(guides, guide_variance=tau2), Layout(4 * guides, guide_variance=tau2))
        planned = EffectPrecision([1.0], [1.0], 500, *layouts).power([n], 0.6)[0, 0]
        assert abs(found - planned) < 4 * np.sqrt(0.25 / 20000) + 0.005


def test_rules_count_those_that_stop_too_early():
    from benchmarks._stopping import TOLERANCES, rule_rows

    # Three campaigns of two plates: stops at the first too early, at the second rightly, never.
    found = np.zeros((3, 2, len(TOLERANCES), 4))
    found[..., 2] = 1.0  # the expected gap never small
    found[0, :, :, 0], found[0, :, :, 3] = 0.97, 0.5
    found[1, 1, :, 0], found[1, 0, :, 3] = 0.92, 0.5
    rows = rule_rows(found)
    assert rows["probability 0.9"] == ["1 of 2 (50%), 1.5 plates"] * 3
    assert rows["probability 0.95"] == ["1 of 1 (100%), 1.0 plates"] * 3
    assert rows["expected gap"] == ["0 of 0 (0%), - plates"] * 3


def test_a_campaign_asks_after_every_plate(monkeypatch):
    from benchmarks import _stopping

    monkeypatch.setattr(_stopping, "N_PLATES", 2)
    monkeypatch.setattr(_stopping, "DRAWS", 50)
    found = _stopping.campaign(0, held_out=True)
    assert found.shape == (2, 3, 4)
    assert np.isfinite(found).all()
    assert (found[..., 3] >= 0).all()
    assert ((found[..., :2] >= 0) & (found[..., :2] <= 1)).all()
