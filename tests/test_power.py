"""The benchmark of plans of cells: its simulations agree with what is planned, its rules count."""

import numpy as np
import pytest

from nextpert.core.design.cell_numbers import Layout
from nextpert.core.design.power import EffectPrecision

pytestmark = pytest.mark.benchmarks


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
    from benchmarks._stopping import GAP, GOOD, GOOD_BEFORE, STOPS, TOLERANCES, rule_rows

    # Three campaigns of two plates: stops at the first too early, at the second rightly, never.
    found = np.zeros((3, 2, len(TOLERANCES), 6))
    found[..., 1] = 1.0  # the gain never small
    found[0, :, :, [GOOD, STOPS, GAP]] = np.array([0.97, 1.0, 0.5])[:, None, None]
    found[1, 1, :, [GOOD, STOPS]] = np.array([0.92, 1.0])[:, None]
    found[1, 0, :, GAP] = 0.5
    found[0, 1, :, GOOD_BEFORE] = 0.9
    rows = rule_rows(found)
    early = "1 (33.3 ± 33.3%) of 2; 2; "
    assert rows["the rule"] == [f"{early}0.7 ± 0.3, 1"] * 3  # 1, 2, 3 plates, before 2, 3, 3
    assert rows["the rule before"][0].startswith("1 (33.3 ± 33.3%) of 1; 3; 0.0 ± 0.0, 0")
    assert rows["probability 0.9 alone"] == rows["the rule"]
    assert rows["probability 0.95 alone"][0].startswith("1 (33.3 ± 33.3%) of 1; 3; ")
    name = "expected gain below a tenth of the tolerance alone"
    assert rows[name][0].startswith("0 (0.0 ± 0.0%) of 0; 3; ")


def test_what_is_said_stands_beside_what_comes_of_it():
    from benchmarks._stopping import GAIN, TOLERANCES, TRUE, said_rows

    found = np.zeros((2, 10, len(TOLERANCES), 6))
    found[..., GAIN] = 0.02
    found[:, 0, :, TRUE] = 0.5
    found[:, 1:, :, TRUE] = 0.4
    rows = said_rows(found)
    assert rows["1"] == ["0.00 ± 0.00"] * 2 + ["1.00 ± 0.00", "0.020 ± 0.000", "0.100 ± 0.000"]
    assert rows["9"][-1] == "0.000 ± 0.000"


def test_advice_on_noise_is_that_of_plan_cells():
    from benchmarks._stopping import advised, noise_screen
    from nextpert.core.design.stopping import AT_TARGET, CONFIRM

    adata, targets = noise_screen(0, "shuffled")
    assert advised(adata, targets["a label"]) == (AT_TARGET, True)
    adata, targets = noise_screen(0, "effects")
    assert advised(adata, targets["a state"])[0] == CONFIRM


@pytest.mark.parametrize("world", ["as modelled", "programs"])
def test_a_campaign_asks_after_every_plate(monkeypatch, world):
    from benchmarks import _stopping

    monkeypatch.setattr(_stopping, "N_PLATES", 2)
    monkeypatch.setattr(_stopping, "DRAWS", 50)
    check(_stopping.simulated(world, 0, held_out=True))


def test_a_campaign_draws_the_cells_of_a_screen(monkeypatch):
    from benchmarks import _stopping
    from nextpert.core.evaluate.cell_pool import CellPool

    monkeypatch.setattr(_stopping, "N_PLATES", 3)
    monkeypatch.setattr(_stopping, "DRAWS", 50)
    rng = np.random.default_rng(0)
    cells = [rng.normal(mean, size=(24, 4)) for mean in np.linspace(0.5, 3, 5)]
    pool = CellPool(rng.normal(size=(60, 4)), cells)
    for held_out in (False, True):
        check(_stopping.drawn(pool, 1, 0, held_out=held_out))  # cells run out, of the target first


def check(found):
    assert found.shape[1:] == (3, 6)
    assert np.isfinite(found).all()
    assert (found[..., 1] >= 0).all()
    assert (found[..., 4:] >= 0).all()
    for chance in (0, 2, 3):
        assert ((found[..., chance] >= 0) & (found[..., chance] <= 1)).all()
