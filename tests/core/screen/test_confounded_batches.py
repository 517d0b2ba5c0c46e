"""Batches whose effects cannot be separated from those of perturbations."""

import numpy as np
import pytest

from nextpert.core import ScreenMoments
from nextpert.core.fit.cells import pool_cells
from nextpert.core.screen.guides import confounded_variance, pool_guides


def screen(sd, *, n_batches=4, n_each=5, p=200, n=60, seed=0, controls=(0,)):
    """Environments of controls in some batches and of perturbations in one batch each."""
    rng = np.random.default_rng(seed)
    group = np.append(np.zeros(len(controls), int), 1 + np.arange(n_batches * n_each))
    batch = np.append(controls, np.arange(n_batches * n_each) % n_batches)
    shift = sd * rng.normal(size=(n_batches, p))
    effect = rng.normal(size=(1 + n_batches * n_each, p)) * (rng.random((1, p)) < 0.05)
    effect[0] = 0.0
    cells = np.repeat(np.arange(len(group)), n)
    x = rng.normal(size=(len(cells), p)) + (effect[group] + shift[batch])[cells]
    fixed = (batch[:, None] == np.arange(1, n_batches)).astype(float)
    return ScreenMoments.from_array(x, cells, len(group)), group, fixed


def test_directions_that_are_constant_within_groups_are_not_estimated():
    moments, group, fixed = screen(0.3)
    columns, sd = moments.fixed_columns(fixed, group)
    assert columns.shape == (21, 3)
    assert np.isinf(sd).all()
    # Controls in two batches: one of three directions is estimated.
    moments, group, fixed = screen(0.3, controls=(0, 2))
    columns, sd = moments.fixed_columns(fixed, group)
    assert np.isfinite(sd).tolist() == [True, False, False]
    # The columns span the batches, and only the first varies within groups.
    assert np.linalg.matrix_rank(np.hstack([columns, fixed - fixed.mean(axis=0)])) == 3
    np.testing.assert_allclose(columns[0, 1:], columns[1, 1:], atol=1e-12)
    assert abs(columns[0, 0] - columns[1, 0]) > 0.1


@pytest.mark.parametrize("sd", [0.0, 0.3, 1.0])
def test_the_variance_is_that_of_shifts_that_the_perturbations_of_a_batch_share(sd):
    found = []
    for seed in range(4):
        moments, group, fixed = screen(sd, seed=seed)
        cells = pool_guides(moments, group, 21)
        columns = np.vstack([np.zeros(3), fixed[1:]])
        found.append(confounded_variance(cells, columns))
    # Differences of two batches; the assumed 0.03 has a quarter of the weight.
    assert np.mean(found) == pytest.approx(0.75 * 2 * sd**2 + 0.0075, rel=0.35, abs=0.01)


def test_effects_of_a_batch_without_controls_have_its_error_in_common():
    moments, group, fixed = screen(0.3)
    clean, sd = moments.without_batches(fixed, group)
    cells = pool_cells(clean, group, 21, fixed_sd=sd).pooled
    error = cells.fixed_errors
    assert error.shape == (21, 3)
    common = error @ error.T
    batch = np.append(0, np.arange(20) % 4)
    same = (batch[:, None] == batch) & (batch > 0) & (batch[:, None] > 0)
    assert (common[same] > 0.3).all()  # ten times 0.09, less what is assumed
    np.testing.assert_allclose(error[batch == 0], 0.0, atol=1e-12)
    # The error counts in tests and in differences from the controls.
    assert (cells.to_controls()[1][batch[1:] > 0] > 0.3).all()
    assert (cells.to_controls()[1][batch[1:] == 0] < 0.1).all()
