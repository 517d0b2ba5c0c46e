"""The benchmark of effects from few cells: its estimates, and that its intervals are tested."""

import numpy as np
import pytest
from scipy import integrate, stats

from benchmarks import _shrinkage as shrinkage
from benchmarks import few_cells as few
from benchmarks._cells import Cells

pytestmark = pytest.mark.benchmarks


def simulated():
    """Cells of 8 perturbations; of 30 genes few move."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(9), [800, *[160] * 8])
    effect = rng.normal(size=(9, 30)) * (rng.random((9, 30)) < 1 / 6) * (np.arange(9) > 0)[:, None]
    x = 2.0 + effect[code] + rng.normal(size=(len(code), 30))
    return Cells(x, code, [f"p{j}" for j in range(9)], [-1] * 9, False)


def test_shrinkage_beats_means_and_its_intervals_hold():
    cells = simulated()
    errors, holds = few.few(cells, 20, 0)
    for name in ("t test", "ash as published", few.OURS):
        assert errors[name] < 0.6 * errors[few.RAW]
        assert errors[name] < 0.6 * errors[few.NOTHING]
    assert 0.85 < holds["all effects"] < 0.97
    assert np.isnan(holds["target genes"])
    # The means are scored on other cells: as wrong as their own variance, controls' included.
    assert 0.8 < errors[few.RAW] / (30 * (1 / 20 + 1 / 400)) < 1.2


def test_states_rank_towards_themselves():
    from benchmarks import own_state

    found = own_state.split(simulated(), [1, 2, 3, 4], 20, 0)
    assert {own_state.MEANS, *own_state.SHOWN, "centre, learned graph"} <= set(found)
    for way in own_state.SHOWN:
        assert all(values.argmin() == j - 1 for j, values in found[way].items())


def test_choices_are_judged_by_the_other_half_on_genes_that_nobody_targets():
    from benchmarks import own_state

    cells = simulated()
    few_of_them = cells.code < 4
    cells = cells._replace(
        x=cells.x[few_of_them], code=cells.code[few_of_them], names=cells.names[:4]
    )
    x = cells.x.copy()
    x[:, 29] -= 3.0 * (cells.code == 2)  # p2 differs in its own gene most
    x[:, :29] += (x[cells.code == 1].mean(axis=0) - 2.0)[:29] * (cells.code == 2)[:, None]
    cells = cells._replace(x=x, own=[-1, -1, 29, -1])
    found, genes = own_state.choose(cells, 0)
    assert genes.tolist() == [*range(29)]
    for way in (own_state.MEANS, *own_state.CHOICES):
        for j, (name, relative) in found[way].items():
            k = cells.names.index(name)
            assert k not in (0, j)
            error = 3 / 80 * 29  # of a mean of 80 cells, several times
            away = [((x[cells.code == c].mean(0) - x[cells.code == j].mean(0))[:29] ** 2).sum()
                    for c in (k, 0)]  # fmt: skip
            assert abs(relative * away[1] - away[0]) < error
    section, mean = own_state.choices("made up", cells, 1)
    assert section.startswith("## made up: ")
    assert set(mean) == {own_state.MEANS, *own_state.CHOICES, own_state.FAR}
    assert "| made up | " in own_state.compared({"made up": mean})


def test_distances_of_means_that_are_alike_are_zero_on_average():
    from benchmarks import own_state

    cells = simulated()
    x = np.random.default_rng(1).normal(size=cells.x.shape)
    found = own_state.apart(cells._replace(x=x), np.ones(len(x), bool), np.arange(30))
    apart = found[np.triu_indices(9, 1)]
    assert abs(apart.mean()) < 3 * apart.std() / 6  # what sampling adds is 0.3


def test_effects_that_are_significant_stay():
    effect = np.array([5.0, 2.5, 0.1, -4.0, 1.0])
    p = 2 * stats.norm.sf(np.abs(effect))
    kept = stats.false_discovery_control(p) <= 0.05
    assert kept.tolist() == [True, True, False, True, False]
    np.testing.assert_array_equal(shrinkage.significant(effect, np.ones(5)), effect * kept)
    assert not shrinkage.significant(effect / 10, np.ones(5)).any()


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
