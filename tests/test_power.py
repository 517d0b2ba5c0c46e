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
    found = np.zeros((3, 2, len(TOLERANCES), 6))
    found[..., 4] = 1.0  # the expected gap never small
    found[0, :, :, 0], found[0, :, :, 5] = 0.97, 0.5
    found[1, 1, :, 0], found[1, 0, :, 5] = 0.92, 0.5
    rows = rule_rows(found)
    assert rows["probability 0.9"] == ["1 of 2 (50%), 1.5 plates"] * 3
    assert rows["probability 0.95"] == ["1 of 1 (100%), 1.0 plates"] * 3
    assert rows["expected gap"] == ["0 of 0 (0%), - plates"] * 3


@pytest.mark.parametrize("world", ["as modelled", "programs"])
def test_a_campaign_asks_after_every_plate(monkeypatch, world):
    from benchmarks import _stopping

    monkeypatch.setattr(_stopping, "N_PLATES", 2)
    monkeypatch.setattr(_stopping, "DRAWS", 50)
    check(_stopping.simulated(world, 0, held_out=True))


def test_a_campaign_draws_the_cells_of_a_screen(monkeypatch):
    from benchmarks import _stopping

    from nextpert.core.loop.cell_pool import CellPool

    monkeypatch.setattr(_stopping, "N_PLATES", 3)
    monkeypatch.setattr(_stopping, "DRAWS", 50)
    rng = np.random.default_rng(0)
    cells = [rng.normal(mean, size=(24, 4)) for mean in np.linspace(0.5, 3, 5)]
    pool = CellPool(rng.normal(size=(60, 4)), cells, np.zeros((5, 4)))
    for held_out in (False, True):
        check(_stopping.drawn(pool, 1, 0, held_out=held_out))  # cells run out, of the target first


def check(found):
    assert found.shape[1:] == (3, 6)
    assert np.isfinite(found).all()
    assert (found[..., 5] >= 0).all()
    assert ((found[..., :4] >= 0) & (found[..., :4] <= 1)).all()
    assert (found[..., 0] <= found[..., 1]).all()  # never-tried ones only add to what may be left
