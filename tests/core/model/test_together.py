"""How far sizes of shifts go together, against quadrature and screens drawn by the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from nextpert.core import Dag, DagBlr
from nextpert.core.model.random_shifts import learn_together
from nextpert.core.model.shift_prior import TAU2, ShiftPrior

WEIGHTS = np.zeros(len(TAU2))
WEIGHTS[[0, 9, 14]] = 0.6, 0.3, 0.1


def screen(together, shape, *, n=40.0, seed=0):
    """Means of cells, the normals that pick the sizes correlated within a perturbation."""
    rng = np.random.default_rng(seed)
    pick = np.sqrt(together) * rng.normal(size=(shape[0], 1))
    pick = norm.cdf(pick + np.sqrt(1 - together) * rng.normal(size=shape))
    tau2 = TAU2[np.searchsorted(np.cumsum(WEIGHTS), pick).clip(max=len(TAU2) - 1)]
    mean, zero = np.sqrt(tau2 + 1 / n) * rng.normal(size=shape), np.zeros(shape)
    weights = np.tile(WEIGHTS, (shape[0], 1))
    prior = ShiftPrior(
        np.full(shape[0], n), mean, zero + 1, zero, zero, np.full(shape, np.nan), weights
    )
    return prior, DagBlr(Dag.from_edges(shape[1], []), noise_var=1.0, intercept=False)


@pytest.mark.parametrize(("together", "off"), [(0.0, 0.05), (0.3, 0.1), (0.7, 0.25), (1.0, 0.1)])
def test_it_is_found_on_screens_drawn_by_it(together, off):
    found = [learn_together(*screen(together, (150, 40), seed=seed)) for seed in range(4)]
    assert np.mean(found) == pytest.approx(together, abs=off)  # for small ones it is exact


def test_independent_shifts_are_told_from_a_common_scale_by_few_perturbations():
    found = np.array([
        [learn_together(*screen(s, (20, 40), seed=seed)) for seed in range(5)] for s in (0.0, 1.0)
    ])  # fmt: skip
    assert found[0].max() < 0.15
    assert found[1].min() > 0.6


def test_expectation_against_quadrature_of_the_normals():
    prior, blr = screen(0.5, (4, 6), n=7.0)
    prior.own[0, 2] = 0.3  # an own gene: says nothing
    prior.weights[1] = np.roll(WEIGHTS, 3)
    weights = prior.weights.mean(axis=0)
    z = np.linspace(-8, 8, 400_001)
    tau2 = TAU2[np.searchsorted(np.cumsum(weights), norm.cdf(z)).clip(max=len(TAU2) - 1)]
    score = np.zeros((4, 6))
    for j, i in np.ndindex(4, 6):
        chance = norm.pdf(z) * norm.pdf(prior.mean[j, i], scale=np.sqrt(tau2 + 1 / 7.0))
        score[j, i] = (z * chance).sum() / chance.sum()
    inside = np.isnan(prior.own)
    v = np.array([np.mean(score[inside[:, i], i] ** 2) for i in range(6)])
    s, log = np.linspace(0, 1, 101), np.zeros(101)
    for j in range(4):
        genes = np.flatnonzero(inside[j])
        pairs = sum(v[i] * v[k] for i in genes for k in genes if i != k)
        sd = np.sqrt(v[genes].sum() + s * pairs)
        log += norm.logpdf(score[j, genes].sum(), scale=sd)
    wanted = (s * np.exp(log)).sum() / np.exp(log).sum()
    assert learn_together(prior, blr) == pytest.approx(wanted, abs=1e-4)


def test_perturbations_without_cells_say_nothing():
    prior, blr = screen(0.5, (12, 10))
    longer = prior.joined(replace(prior.rows([0, 1]), n=np.zeros(2)))
    assert learn_together(longer, blr) == learn_together(prior, blr)


def test_a_half_where_nothing_tells():
    prior, blr = screen(0.0, (5, 4))
    combined = replace(prior, own=np.full((5, 4), 0.2))  # no shift is the mixture's
    exact = replace(prior, weights=np.eye(len(TAU2))[[0] * 5])
    for told in (combined, exact, prior.rows([])):
        assert learn_together(told, blr) == pytest.approx(0.5)


@pytest.mark.parametrize("together", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("cells", [0.0, 30.0])
def test_each_gene_keeps_its_own_mixture(together, cells):
    prior, blr = screen(0.0, (2, 3))
    prior = replace(prior, n=np.full(2, cells), mean=np.full((2, 3), [0.1, 0.5, 1.0]))
    draw = prior.given(blr).components
    assert draw is not None
    drawn = draw(np.random.default_rng(0), together)
    spares = np.array([next(drawn)[1] for _ in range(8000)])
    for i in range(3):
        chance = WEIGHTS * norm.pdf(prior.mean[0, i], scale=np.sqrt(TAU2 + 1 / max(cells, 1e-9)))
        chance /= chance.sum()
        values = TAU2 / (1 + cells * TAU2)
        for k in (0, 9, 14):
            seen = np.isclose(spares[:, :, i], values[k], rtol=1e-9, atol=1e-12).mean(axis=0)
            np.testing.assert_allclose(seen, chance[k], atol=0.025)
    # Within a perturbation they go together as far as was said, between two they do not.
    if not cells:
        pairs = np.corrcoef(spares.reshape(len(spares), -1).T)
        assert abs(pairs[0, 3]) < 0.06
        low, high = {0.0: (-0.06, 0.06), 0.5: (0.1, 0.6), 1.0: (0.999, 1.001)}[together]
        assert low < pairs[0, 1] < high
