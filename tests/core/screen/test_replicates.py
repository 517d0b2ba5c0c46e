"""The variance of effects between replicates, which are batches that hold several perturbations."""

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core.fit.cells import pool_cells

P, N = 60, 20


def pooled(variance, n_replicates, *, guides=1, seed=0, nested=False, n_perturbations=N):
    """Cells of perturbations, each in all replicates, pooled as for a fit."""
    rng = np.random.default_rng(seed)
    shape = np.indices((1 + n_perturbations, n_replicates, guides)).reshape(3, -1)
    group, replicate, guide = shape
    if nested:
        replicate = group % n_replicates
    apart = np.sqrt(variance) * rng.normal(size=(1 + n_perturbations, n_replicates, P))
    apart[0] = 0.0
    shift = rng.normal(size=(n_replicates, P))
    cells = np.repeat(np.arange(len(group)), 60 // (n_replicates * guides))
    x = rng.normal(size=(len(cells), P)) + (apart[group, replicate] + shift[replicate])[cells]
    fixed = (replicate[:, None] == np.arange(1, n_replicates)).astype(float)
    clean, sd = ScreenMoments.from_array(x, cells, len(group)).without_batches(fixed, group)
    return pool_cells(
        clean, group, 1 + n_perturbations, guide=None if guides == 1 else guide, fixed_sd=sd
    )


@pytest.mark.parametrize("guides", [1, 2])
@pytest.mark.parametrize(("n_replicates", "variance"), [(2, 0.1), (3, 0.1), (3, 0.03)])
def test_it_is_learned_and_enters_every_error(n_replicates, variance, guides):
    found = pooled(variance, n_replicates, guides=guides)
    assert found.replicate_variance == pytest.approx(variance, rel=0.35)
    error = found.pooled.to_controls()[1]
    least = 1 / 60 + variance / n_replicates
    assert error.mean() == pytest.approx(least + 1 / 60, rel=0.35)
    assert (found.spread is None) == (guides == 1)
    # The replicates of controls define what batches do.
    assert 1 / found.pooled.counted[0].mean() < 0.03


def test_replicates_that_agree_cost_little():
    found = pooled(0.0, 3)
    assert found.replicate_variance < 0.004
    assert found.pooled.to_controls()[1].mean() < 1.15 * 2 / 60


def test_batches_with_perturbations_of_their_own_are_no_replicates():
    assert pooled(0.1, 4, nested=True).replicate_variance == 0.0


@pytest.mark.parametrize("n_perturbations", [2, 3])
def test_one_degree_of_freedom_is_too_few(n_perturbations):
    """Two batches: a difference for each perturbation, less that between the batches."""
    found = pooled(0.1, 2, n_perturbations=n_perturbations)
    assert (found.replicate_variance > 0) == (n_perturbations > 2)
