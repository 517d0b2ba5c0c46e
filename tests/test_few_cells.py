"""The benchmark of effects from few cells: its estimates, and that its intervals are tested."""

import numpy as np
import pytest
from scipy import integrate, stats

from benchmarks import _shrinkage as shrinkage
from benchmarks import few_cells as few

pytestmark = pytest.mark.benchmarks


def simulated(guide_sd=0.0):
    """Cells of 8 perturbations, 4 guides each, 8 of controls; of 30 genes few move."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(9), [800, *[160] * 8])
    guide = np.where(code, 4 + code * 4 + np.arange(len(code)) % 4, np.arange(len(code)) % 8)
    effect = rng.normal(size=(9, 30)) * (rng.random((9, 30)) < 1 / 6) * (np.arange(9) > 0)[:, None]
    mean = effect[code] + guide_sd * rng.normal(size=(40, 30))[guide]
    x = 2.0 + mean + rng.normal(size=(len(code), 30))
    names, guides = [f"p{j}" for j in range(9)], [f"g{g}" for g in range(40)]
    return few.Cells(x, code, names, guide, guides, [-1] * 9, False)


def test_shrinkage_beats_means_and_its_intervals_hold():
    errors, holds, used = few.few(simulated(), 20, 0)
    assert len(used.names) == 9
    for name in (few.SHRUNKEN, few.HIERARCHICAL):
        assert errors[name] < 0.6 * errors["means of the cells"]
        assert errors[name] < 0.6 * errors["no effect"]
        assert 0.85 < holds[name].mean() < 0.95
    # The means are scored on other cells: as wrong as their variance, and not as that of both.
    assert 0.8 < errors["means of the cells"] / (30 / 20) < 1.2


def test_states_of_both_models_rank_towards_a_state():
    from benchmarks import own_state

    cells = simulated()
    found = own_state.split(cells, [1, 2, 3, 4], 20, 0)
    for way in (f"centre, {own_state.MODEL}", f"nearest, {own_state.MODEL}", "centre, no graph"):
        assert all(values.argmin() == j - 1 for j, values in found[way].items())
    # The two models are others: neither is scored under the name of both.
    ours, theirs = found[f"centre, {own_state.MODEL}"][1], found["centre, no graph"][1]
    assert np.abs(ours - theirs).max() > 0.01
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9


def test_perturbations_with_too_few_cells_are_left_out():
    cells = simulated()
    kept = (cells.code != 3) | (np.cumsum(cells.code == 3) <= 35)
    parts = {name: getattr(cells, name)[kept] for name in ("x", "code", "guide")}
    assert "p3" not in few.few(cells._replace(**parts), 20, 0)[2].names


def test_guides_that_differ_need_their_spread():
    found = few.left_out_guides(simulated(guide_sd=0.3), 0)
    added, spread = found["spread between guides added"]
    without, nothing = found["not"]
    assert 0.05 < spread < 0.15
    assert nothing == 0.0
    assert without.mean() < 0.8 < 0.85 < added.mean() < 0.95


def test_ash_is_the_posterior_mean_of_its_mixture():
    rng = np.random.default_rng(1)
    truth = np.where(np.arange(400) < 80, rng.normal(size=400) * 2.0, 0.0)
    se = np.full(400, 0.5)
    found = shrinkage.ash(truth + se * rng.normal(size=400), se)
    assert ((found - truth) ** 2).sum() < 0.5 * 400 * 0.25
    noise = 0.5 * rng.normal(size=400)
    assert (shrinkage.ash(noise, se) ** 2).sum() < 0.1 * (noise**2).sum()
    # One effect that was seen among many alike: by quadrature over the prior that made them.
    many = 1.5 * rng.normal(size=3000)
    seen = many + 0.5 * rng.normal(size=3000)
    found = shrinkage.ash(seen, np.full(3000, 0.5))

    def weighted(power):
        def value(t):
            return t**power * stats.norm.pdf(t, 0, 1.5) * stats.norm.pdf(seen[0], t, 0.5)

        return integrate.quad(value, -10, 10)[0]

    assert abs(found[0] - weighted(1) / weighted(0)) < 0.15


def test_james_stein_draws_noise_to_nothing():
    rng = np.random.default_rng(2)
    effect = rng.normal(size=(50, 60))
    found = shrinkage.james_stein(effect, np.ones_like(effect))
    assert (found**2).sum(axis=1).mean() < 6
    strong = shrinkage.james_stein(effect + 10.0, np.ones_like(effect))
    np.testing.assert_allclose(strong, effect + 10.0, rtol=0.02)
