"""Batches inside the hierarchical model: dense algebra, draws, and screens of nested batches."""

from dataclasses import replace

import numpy as np
import pytest

from nextpert.core.model.effect_draws import SCALES, TAILS, VARIANCE
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.sampler import NO_PRIOR, SCORES, Chain, Sampler, batch_columns
from tests.core.model.test_hierarchical import screen

PLACE, SIZE = 16, 11  # of own parts and scores whose variances are fixed


def in_batches(n=6, p=12, seed=0, sd=0.3):
    """Means of a screen, and two columns of what batches leave in them."""
    cells, rng = screen(n, p, seed)[1], np.random.default_rng(seed)
    fixed = rng.normal(size=(n + 1, 2))
    return replace(cells, fixed=fixed, fixed_sd=np.array([sd, sd / 2]))


def test_columns_and_what_is_left_have_the_covariance_of_the_errors():
    rng = np.random.default_rng(0)
    cells = replace(
        screen(20, 12)[1], fixed=rng.normal(size=(21, 5)),
        fixed_sd=np.array([1.0, 0.3, 0.1, 0.01, 0.001]),
    )  # fmt: skip
    shared, left = batch_columns(cells)
    assert shared.shape == (20, 3)
    errors = (cells.fixed - cells.fixed[:1])[1:] * cells.fixed_sd
    both = shared @ shared.T
    np.testing.assert_allclose(both + np.diag(left), errors @ errors.T, atol=1e-3)
    np.testing.assert_allclose(both.diagonal() + left, cells.fixed_error()[1:])
    assert batch_columns(screen()[1])[0].shape == (6, 0)
    # Errors that are small beside those of the perturbations' own cells are none that they share.
    assert batch_columns(replace(cells, fixed_sd=np.full(5, 0.01)))[0].shape == (20, 0)


@pytest.mark.slow
def test_effects_are_those_of_the_joint_normal_where_variances_are_fixed():
    """Means and variances of controls, batches and effects, without a program."""
    cells = in_batches()
    sampler = Sampler(cells, NO_PRIOR, np.random.default_rng(1))
    assert sampler.means.columns.shape == (6, 2)
    place = SCALES.size // 2
    sampler.scale_weights = np.where(np.arange(SCALES.size) == place, 1.0, 1e-300)
    sampler.tail_weights = np.where(np.arange(TAILS.size) == PLACE - place, 1.0, 1e-300)
    sampler.score_weights = np.tile(np.where(np.arange(SCORES.size) == SIZE, 1.0, 1e-300), (2, 1))
    sampler.state.place[:], sampler.state.size[:] = PLACE, SIZE

    def workers(task, blocks):
        return map(task, blocks)

    means, gamma = sampler.means, sampler.means.design[1:].T
    noise, drawn, within = means.psi * means.error, [], 0.0
    own = VARIANCE[PLACE]
    for number in range(6_000):
        if number:
            sampler.program_variance = 1e-20
            sampler._draw_program(sampler.sums)
            sampler._move_common()
        sampler.visit_all(number, workers)
        level = sampler.control + means.columns @ sampler.batches
        along, of_cells = sampler.state.scores[:, 1:2], sampler.state.scores[:, 2:]
        left = means.x - level - (along + of_cells) @ gamma.T
        effect = along @ gamma.T + own / (own + noise) * left
        drawn.append(np.vstack([sampler.control, sampler.batches, effect]))
        within = own * noise / (own + noise)
    assert (sampler.state.place == PLACE).all()
    drawn = np.array(drawn[500:])
    # The joint normal: first c (of large variance) and batches, then effects, then means.
    (n, p), b = means.x.shape, means.columns.shape[1]
    of_cell = gamma @ gamma.T + np.diag(means.psi)
    of_effect = 2.0 ** SCORES[SIZE] * gamma @ gamma.T + own * np.eye(p)
    prior = np.kron(np.diag(np.append(0.0, np.ones(b))), of_cell)
    prior[:p, :p] = 1e4 * np.eye(p)
    size = (1 + b + n) * p
    cov = np.zeros((size, size))
    cov[: (1 + b) * p, : (1 + b) * p] = prior
    cov[(1 + b) * p :, (1 + b) * p :] = np.kron(np.eye(n), of_effect)
    columns = np.column_stack([np.ones(n), means.columns])
    design = np.hstack([np.kron(columns, np.eye(p)), np.eye(n * p)])
    design = np.vstack([np.eye(p, size), design])
    counted = cells.n / cells.variance_ratio[:, 0]
    seen = design @ cov @ design.T + np.kron(np.diag(1 / counted), of_cell)
    gain = np.linalg.solve(seen, design @ cov).T
    mean = gain @ np.append(sampler.control_x, means.x)
    sd = np.sqrt((cov - gain @ design @ cov).diagonal()).reshape(-1, p)
    found = drawn.var(axis=0)
    found[1 + b :] += within
    z = (drawn.mean(axis=0) - mean.reshape(-1, p)) / sd
    assert np.abs(z).max() < 0.085
    np.testing.assert_allclose(np.sqrt(found) / sd, 1.0, atol=0.085)


def test_means_of_draws_follow_from_the_cells_and_batches():
    cells = in_batches()
    fit = fit_hierarchical(cells, rng=0, chain=Chain(20, 7, 1))
    draws, told = fit.effects, fit.effects.cells
    assert told.batches.shape == (7, 2, 12)
    found, noise = draws.centres(np.arange(6)), 1 / draws.precision
    for k in range(7):
        level = fit.control[k] / draws.unit + told.columns @ told.batches[k]
        shared = np.outer(fit.scores[k], fit.program[k]) + fit.along[k] @ fit.factors.T
        left = cells.mean[1:] / draws.unit - level - shared - told.noise[k] @ fit.factors.T
        prior = VARIANCE[draws.place[:, :, k]]
        mean = shared + left * prior / (prior + noise)
        np.testing.assert_allclose(found[:, :, k], mean, rtol=1e-4, atol=1e-5)
    some = [4, 1, 4]
    np.testing.assert_array_equal(draws.rows(some).centres(np.arange(3)), found[some])
    few = draws.some_draws([5, 2])
    np.testing.assert_array_equal(few.centres(np.arange(6)), found[..., [5, 2]])
    both = draws.joined(fit.predict(np.ones((3, 12)), rng=0))
    np.testing.assert_array_equal(both.centres(np.arange(6)), found)
