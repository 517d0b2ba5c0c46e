"""The benchmark of stated power: its simulated world, and what it counts."""

import numpy as np
import pytest

pytestmark = [pytest.mark.benchmarks, pytest.mark.brief_chain]


def test_found_effects_are_counted_by_rule_and_size():
    from benchmarks import power

    adata, effects = power.world(0, 30, 0.2)
    assert np.isclose((effects != 0).mean(), 0.2, atol=0.04)
    for rule in power.RULES:
        found = power.detected(adata, rule)
        assert found.shape == effects.shape
        large = np.isclose(np.abs(effects), 1.5)
        assert found[large].mean() > 0.9
        assert found[effects == 0].mean() < 0.05
    share = power.found_share(30, 0.2, 2)
    assert (share["lfsr"][0, 1:] >= share["lfsr"][0, :-1]).all()


def test_stated_power_is_read_at_the_planned_guides():
    from benchmarks import power

    adata, _ = power.world(0, 20, 0.2)
    learned = power.stated(adata, "lfsr")
    assert learned.shape == (len(power.CELLS), len(power.SIZES))
    assert (np.diff(learned, axis=0) > -0.02).all()
    given = power.stated(power.controls_of(adata), "lfsr", share=0.2, sd=0.9)
    np.testing.assert_allclose(learned, given, atol=0.15)
