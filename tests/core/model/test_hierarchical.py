"""The hierarchical model of effects against dense algebra, enumeration, and its own prior."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from nextpert.core.model import sampler as sampler_module
from nextpert.core.model._hierarchical_kernel import N_VARIANCES
from nextpert.core.model.effect_draws import (
    HIGHEST,
    LOWEST,
    SCALES,
    TAILS,
    VARIANCE,
    EffectDraws,
)
from nextpert.core.model.hierarchical import controls_alone, fit_hierarchical
from nextpert.core.model.sampler import SCORES, Chain, Prior, Sampler
from nextpert.core.model.within_cells import factors
from nextpert.core.screen.departures import Coexpression
from nextpert.core.screen.guides import MeanErrors, PooledGuides


def pooled(mean, cells, control, control_cells, within):
    """Sums of controls and perturbations; cells that count, one number each."""
    counted = np.append(control_cells, np.broadcast_to(cells, len(mean)))
    n_cells = np.full(len(counted), 1000)
    scatter = within * (n_cells.sum() - len(n_cells))
    ratio = np.ones((len(counted), mean.shape[1]))
    return PooledGuides(n_cells, counted, np.vstack([control, mean]), scatter, ratio)


def screen(n=6, p=12, seed=0, cells=25.0):
    """Means of a screen with a program, a factor and sparse own parts, and the truth."""
    rng = np.random.default_rng(seed)
    loading = 0.5 * rng.normal(size=(p, 1))
    within = loading @ loading.T + np.diag(rng.uniform(0.5, 1.0, p))
    own = rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.1)
    effect = np.outer(rng.normal(size=n), 0.4 * rng.normal(size=p)) + own
    half = np.linalg.cholesky(within)
    control = half @ rng.normal(size=p) / np.sqrt(400.0)
    mean = effect + rng.normal(size=(n, p)) @ half.T / np.sqrt(cells)
    return effect, pooled(mean, cells, control, 400.0, within)


def visited(sampler, normal, uniform):
    """Visit all perturbations with given random numbers; return what was drawn."""
    return sampler.visit(0, last=len(sampler.means.x), random=(normal, uniform))


TOLD = ([0, 2], [3, 7])  # perturbations and genes whose own variance is known


@pytest.fixture(params=[0, 2, -1, -2], ids=["one batch", "three batches", "guides", "few cells"])
def sampler(request):
    rng = np.random.default_rng(3)
    cells, n_columns = screen()[1], max(request.param, 0)
    cells = replace(cells, fixed=rng.normal(size=(7, n_columns)), fixed_sd=np.full(n_columns, 0.2))
    if request.param == -2:  # variances with few degrees of freedom
        cells = replace(cells, freedom=np.array([400.0, *np.arange(2.0, 8.0)]))
    if request.param == -1:  # errors that differ between two factors, and between genes
        within = Coexpression(
            0.4 * rng.normal(size=(12, 2)), rng.uniform(0.3, 0.9, 12), rng.uniform(0.5, 2.0, 12)
        )
        own, along = rng.uniform(0.01, 0.1, (7, 12)), rng.uniform(0.01, 0.1, (7, 2))
        cells = replace(cells, errors=MeanErrors(own, along, within, 0.0 * own))
    own = np.full((6, 12), np.nan)
    own[TOLD] = 0.3, 2.0
    doubt = np.zeros((6, 12))  # of what is expected of two perturbations
    doubt[[1, 4]] = rng.uniform(0.05, 0.5, size=(2, 12))
    made = Sampler(cells, Prior(None, doubt, own), np.random.default_rng(0))
    assert (made.means.spread > 0).tolist() == [False, True, False, False, True, False]
    made.batches = rng.normal(size=made.batches.shape)
    assert made.batches.shape == (n_columns, 12)
    assert (made.means.doubled > 0).all() == (request.param == -2)
    made.state.doubled[:, ::3] = made.means.doubled[:, None] > 0
    made.state.doubled[TOLD] = 0
    free = made.state.place < N_VARIANCES
    made.state.place[free] = rng.integers(N_VARIANCES, size=free.sum())
    made.scale_weights = rng.dirichlet(np.ones(len(SCALES)))
    made.tail_weights = rng.dirichlet(np.ones(len(TAILS)))
    made.score_weights = rng.dirichlet(np.ones(len(SCORES)), 2)
    made.state.size[:] = rng.integers(8, len(SCORES), size=made.state.size.shape)
    return made


def level(sampler):
    """Means of controls in the batches of each perturbation."""
    return sampler.control + sampler.means.columns @ sampler.batches


def uniforms(sampler, value):
    """As many uniform numbers as a visit takes."""
    n, p = sampler.means.x.shape
    return np.full((n, p + 1 + sampler.state.size.shape[1]), value)


def score_variance(sampler, j, size):
    """Prior variances of scores: along factors, what is expected is uncertain too."""
    return 2.0 ** SCORES[size] + np.append(0.0, np.full(len(size) - 1, sampler.means.spread[j]))


def noise_of(sampler, doubled):
    """Variances of noise, that of cells doubled where told, with those of what is expected."""
    means = sampler.means
    return means.psi * (means.error * (1.0 + doubled) + means.prior_mean_variance)


def before_of(sampler):
    """Prior variances of own parts as they are."""
    told = sampler.state.place == N_VARIANCES
    return np.where(told, sampler.means.own_variance, VARIANCE[sampler.state.place])


def regression(sampler, j, before, doubled, size):
    """Mean and covariance of the scores of perturbation j by dense algebra (equation 14)."""
    program, gamma = sampler.means.design[0], sampler.means.design[1:].T
    design = np.hstack([program[:, None], gamma, gamma])
    noise = noise_of(sampler, doubled)[j] + before[j]
    prior = 1 / score_variance(sampler, j, size)
    prior = np.append(prior, sampler.means.along[j])
    cov = np.linalg.inv(design.T @ (design / noise[:, None]) + np.diag(prior))
    return cov @ design.T @ ((sampler.means.x[j] - level(sampler)[j]) / noise), cov


def test_arrays_of_compiled_loops_are_in_memory_order(sampler):
    for array in (*sampler.means, *sampler.state):
        assert array.flags.c_contiguous


def test_what_is_known_of_own_parts_is_kept(sampler):
    before = sampler.state.place.copy()
    assert (before[TOLD] == N_VARIANCES).all()
    assert (before == N_VARIANCES).sum() == 2
    np.testing.assert_allclose(
        sampler.means.own_variance[TOLD] * sampler.unit[TOLD[1]] ** 2, [0.3, 2.0]
    )
    n, size = sampler.state.scores.shape
    visited(sampler, np.zeros((n, size)), uniforms(sampler, 0.7))
    assert ((sampler.state.place == N_VARIANCES) == (before == N_VARIANCES)).all()


def test_scores_have_the_mean_and_covariance_of_dense_algebra(sampler):
    n = len(sampler.means.x)
    before, size = before_of(sampler), sampler.state.scores.shape[1]
    start, doubled = sampler.state.size.copy(), sampler.state.doubled.copy()
    drawn = []
    for normal in (np.zeros((n, size)), *(np.tile(row, (n, 1)) for row in np.eye(size))):
        place = sampler.state.place.copy()
        sampler.state.size[:], sampler.state.doubled[:] = start, doubled
        visited(sampler, normal, uniforms(sampler, 0.5))
        drawn.append(sampler.state.scores.copy())
        sampler.state.place[:] = place
    for j in range(n):
        mean, cov = regression(sampler, j, before, doubled, sampler.state.size[j])
        np.testing.assert_allclose(drawn[0][j], mean, rtol=1e-8, atol=1e-12)
        root = np.array([each[j] - drawn[0][j] for each in drawn[1:]])
        np.testing.assert_allclose(root.T @ root, cov, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("uniform", [0.02, 0.5, 0.98])
def test_sizes_of_scores_are_those_of_enumeration(sampler, uniform):
    """With the density of the means, all scores integrated out (equation 18)."""
    before, start = before_of(sampler), sampler.state.size.copy()
    n, doubled = len(start), sampler.state.doubled.copy()
    visited(sampler, np.zeros(sampler.state.scores.shape), uniforms(sampler, uniform))
    factor = sampler.means.design[1:]
    for j in range(n):
        size = start[j].copy()
        noise = noise_of(sampler, doubled)[j] + before[j]
        noise = np.diag(noise) + (factor.T / sampler.means.along[j]) @ factor
        for s in range(len(size)):
            log = []
            for e in range(len(SCORES)):
                size[s] = e
                prior = score_variance(sampler, j, size)
                cov = noise + (sampler.means.design.T * prior) @ sampler.means.design
                weight = sampler.score_weights[min(s, 1), e]
                log.append(
                    np.log(weight)
                    + multivariate_normal(cov=cov).logpdf(sampler.means.x[j] - level(sampler)[j])
                )
            below = np.exp(np.array(log) - max(log)).cumsum()
            size[s] = (below < uniform * below[-1]).sum()
        np.testing.assert_array_equal(sampler.state.size[j], size)
    assert (sampler.state.size != start).any()


def test_what_all_share_moves_by_its_density(sampler):
    """Of scores, controls' cells and batches; states of perturbations stay (equation 19)."""
    n, size = sampler.state.scores.shape
    q, rng, gamma = (size - 1) // 2, np.random.default_rng(0), sampler.means.design[1:].T
    visited(sampler, np.zeros((n, size)), uniforms(sampler, 0.5))
    sampler.means.design[0] = rng.normal(size=12)
    start = np.vstack([sampler.control, sampler.batches])
    # Scores of their noise.
    at = np.vstack([np.full(q, 0.3), rng.normal(size=(len(sampler.batches), q))])
    sampler.control_scores, sampler.batch_scores = at[0], at[1:]
    seen, noise = np.zeros_like(start), np.tile(sampler.means.psi, (len(start), 1))
    seen[0], noise[0] = sampler.control_x, sampler.control_noise
    along = np.vstack([sampler.control_precision, np.ones((len(sampler.batches), q))])
    columns = np.column_stack([np.ones(n), sampler.means.columns])
    scores, variance = sampler.state.scores, 2.0 ** SCORES[sampler.state.size]

    def log_density(move):
        move = move.reshape(len(start), 1 + q)
        level, common = start + move @ sampler.means.design, at - move[:, 1:]
        found = norm.logpdf(seen, level + common @ gamma.T, np.sqrt(noise)).sum()
        found += norm.logpdf(common, 0.0, along**-0.5).sum()
        less = columns @ move
        found += norm.logpdf(scores[:, 0] - less[:, 0], 0.0, np.sqrt(variance[:, 0])).sum()
        for k in range(q):  # of scores and noise together
            of_noise = sampler.means.spread + 1.0 / sampler.means.along[:, k]
            both = np.sqrt(variance[:, 1 + k] + of_noise)
            total = scores[:, 1 + k] + scores[:, 1 + q + k]
            found += norm.logpdf(total - less[:, 1 + k], 0.0, both).sum()
        return found

    # A quadratic: its second differences are exact.
    each = np.eye(start.shape[0] * (1 + q))
    zero, up = log_density(0 * each[0]), np.array([log_density(e) for e in each])
    precision = np.array([
        [zero + up[i] - log_density(e + f) + up[k] - 2 * zero for k, f in enumerate(each)]
        for i, e in enumerate(each)
    ])  # fmt: skip
    cov = np.linalg.inv(precision)
    wanted = cov @ (up - zero + precision.diagonal() / 2)
    moved = []
    for _ in range(4000):
        sampler.control, sampler.batches = start[0].copy(), start[1:].copy()
        sampler._move_common()
        step = np.vstack([sampler.control, sampler.batches]) - start
        moved.append(np.linalg.lstsq(sampler.means.design.T, step.T)[0].T.ravel())
    z = (np.mean(moved, axis=0) - wanted) / np.sqrt(cov.diagonal() / 4000)
    assert np.abs(z).max() < 4
    sd = np.sqrt(cov.diagonal())
    np.testing.assert_allclose(np.cov(np.array(moved).T) / np.outer(sd, sd),
                               cov / np.outer(sd, sd), atol=0.1)  # fmt: skip


@pytest.mark.parametrize("uniform", [0.001, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("size", [0.0, 2.0, 60.0], ids=lambda size: f"effects of {size:g} SD")
def test_scales_and_tails_are_those_of_enumeration(sampler, uniform, size):
    # Densities of effects of 2 SD are in single or double precision, of 60 SD in double precision.
    sampler.means.x[::2, ::3] += size
    n, n_scores = sampler.state.scores.shape
    q = len(sampler.means.design) - 1
    sums, count = visited(sampler, np.zeros((n, n_scores)), uniforms(sampler, uniform))
    state, (program, *gamma) = sampler.state, sampler.means.design
    f, both = state.scores[:, 0], state.scores[:, 1 : q + 1] + state.scores[:, q + 1 :]
    away = sampler.means.x - level(sampler) - both @ np.array(gamma)
    rest = away - np.outer(f, program)
    noise, chance = noise_of(sampler, 0), sampler.means.doubled[:, None]
    wide = noise_of(sampler, np.ones_like(noise) * (chance > 0))
    both = (np.clip(SCALES[:, None] + TAILS, LOWEST, HIGHEST) - LOWEST).astype(int)
    variance = 2.0 ** np.arange(LOWEST, HIGHEST + 1)
    usual, other = (
        norm.pdf(rest[:, :, None, None], scale=np.sqrt(each[:, :, None, None] + variance[both]))
        for each in (noise, wide)
    )  # perturbation, gene, scale, tail
    doubled = chance[:, :, None, None]
    density = (1.0 - doubled) * usual + doubled * other
    density[TOLD] = 1.0  # says nothing of the scale
    summed = (density * sampler.tail_weights).sum(axis=3)
    with np.errstate(divide="ignore"):
        log = np.log(sampler.scale_weights) + np.log(summed).sum(axis=1)
    below = np.exp(log - log.max(axis=1, keepdims=True)).cumsum(axis=1)
    scale = (below < uniform * below[:, -1:]).sum(axis=1)
    np.testing.assert_array_equal(state.scale, scale)
    rows = np.arange(n)
    tails = (density[rows, :, scale] * sampler.tail_weights).cumsum(axis=2)
    tail = (tails < uniform * tails[:, :, -1:]).sum(axis=2)
    free = np.ones(tail.shape, bool)
    free[TOLD] = False
    prior = np.where(free, variance[both[scale[:, None], tail]], sampler.means.own_variance)
    np.testing.assert_array_equal(VARIANCE[state.place[free]], prior[free])
    np.testing.assert_array_equal(count, np.bincount(tail[free], minlength=len(TAILS)))
    # The rest of the uniform number, within its tail, says whether the noise is doubled.
    place = np.concatenate([np.zeros((*tail.shape, 1)), tails], axis=2)
    low, high = (np.take_along_axis(place, tail[:, :, None] + k, 2)[:, :, 0] for k in (0, 1))
    within = (uniform * tails[:, :, -1] - low) / (high - low)
    usual, other = (
        weight * norm.pdf(rest, scale=np.sqrt(prior + each))
        for weight, each in ((1.0 - chance, noise), (chance, wide))
    )
    with np.errstate(invalid="ignore"):  # both 0 far away
        is_doubled = free & (within < other / (usual + other))
    np.testing.assert_array_equal(state.doubled[free], is_doubled[free])
    w = 1 / (prior + np.where(is_doubled, wide, noise))
    y, f, z = away + level(sampler), f[:, None], sampler.means.columns.T[:, :, None]
    wanted = [w, w * f, w * f**2, w * y, w * f * y]
    wanted += [w * each * other for other in (1, f, y) for each in z]
    wanted += [w * z[b] * z[c] for b in range(len(z)) for c in range(b + 1)]
    np.testing.assert_allclose(sums, np.sum(wanted, axis=1), rtol=1e-9, atol=1e-12)


def test_the_program_is_the_regression_of_every_gene(sampler):
    """Its mean and variance over many draws are those of the dense regression (equation 16)."""
    (n, size), p = sampler.state.scores.shape, sampler.means.x.shape[1]
    q = len(sampler.means.design) - 1
    sums, _ = visited(sampler, np.zeros((n, size)), uniforms(sampler, 0.5))
    none = np.zeros((q, q))  # no chance along the factors
    sampler.control_cov = sampler.control_root = sampler.batch_cov = sampler.batch_root = none
    state, means, variance = sampler.state, sampler.means, sampler.program_variance
    w = 1 / (before_of(sampler) + noise_of(sampler, state.doubled))
    y = means.x - (state.scores[:, 1 : q + 1] + state.scores[:, q + 1 :]) @ means.design[1:]
    z = np.column_stack([np.ones(n), means.columns, state.scores[:, 0]])
    drawn, precision = [], []
    for _ in range(4000):
        sampler.program_variance = variance
        sampler._draw_program(sums)
        drawn.append(np.vstack([sampler.control, sampler.batches, means.design[0]]))
        precision.append((0.001 + (means.design[0] ** 2).sum() / 2) / sampler.program_variance)
    mean = np.mean(drawn, axis=0)
    # The variance of the program is inverse gamma of shape 1 + p / 2 (equation 17).
    assert np.abs(np.mean(precision) - (1 + p / 2)) < 4.5 * np.sqrt((1 + p / 2) / 4000)
    for i in range(p):
        prior = np.array([1 / means.psi[i]] * z.shape[1])
        prior[0], prior[-1] = 1 / sampler.control_noise[i], 1 / variance
        cov = np.linalg.inv((z.T * w[:, i]) @ z + np.diag(prior))
        right = z.T @ (w[:, i] * y[:, i])
        right[0] += sampler.control_x[i] / sampler.control_noise[i]
        sd = np.sqrt(cov.diagonal())
        assert np.abs((mean[:, i] - cov @ right) / sd).max() < 4.5 / 4000**0.5
        found = np.cov(np.array(drawn)[:, :, i].T)
        np.testing.assert_allclose(found / np.outer(sd, sd), cov / np.outer(sd, sd), atol=0.1)


def test_factors_of_a_matrix_that_has_them():
    rng = np.random.default_rng(0)
    gamma = rng.uniform(0.3, 0.6, size=(30, 2)) * np.sign(rng.normal(size=(30, 2)))
    matrix = gamma @ gamma.T
    np.fill_diagonal(matrix, 1.0)
    found, psi = factors(matrix, 2)
    np.testing.assert_allclose(found @ found.T, gamma @ gamma.T, atol=1e-4)
    np.testing.assert_allclose(psi, 1 - (gamma**2).sum(axis=1), atol=1e-4)


def test_summaries_are_those_of_the_mixture():
    rng = np.random.default_rng(0)
    shape = (3, 4, 9)
    place = rng.integers(N_VARIANCES, size=shape).astype(np.int8)
    precision = rng.uniform(0.5, 30.0, shape[:2]).astype(np.float32)
    precision[0] = 0.0  # no cells: the spread is that of the prior
    place[1, 2] = N_VARIANCES  # known beforehand, and part of the precision
    unit, expected = rng.uniform(1, 3, 4), rng.normal(size=shape[:2])
    draws = EffectDraws(unit, expected, precision, place, rng.normal(size=shape).astype("f4"))
    found = draws.summary(0.8)
    centre = expected[..., None] + unit[:, None] * draws.centre
    spread = unit[:, None] / np.sqrt(precision[..., None] + 1 / VARIANCE[place])
    np.testing.assert_allclose(found.mean, centre.mean(axis=2), rtol=1e-12)
    wanted = np.sqrt((spread**2).mean(axis=2) + centre.var(axis=2))
    np.testing.assert_allclose(found.sd, wanted, rtol=1e-9)
    # Without cells every draw has a sign; else those of at least a standard error of the cells.
    error = np.divide(unit, np.sqrt(precision), where=precision > 0, out=np.zeros(shape[:2]))
    clear = np.abs(centre) >= error[..., None]
    assert clear[0].all()
    assert 0.1 < clear[1:].mean() < 0.9
    above = np.where(clear, norm.sf(0.0, centre, spread), 0.5).mean(axis=2)
    np.testing.assert_allclose(found.lfsr, 2 * np.minimum(above, 1 - above), rtol=1e-9)
    for level, end in ((0.1, found.lower), (0.9, found.upper)):
        # As far off as a ten thousandth of a standard deviation, where the density is highest.
        below = norm.cdf(end[..., None], centre, spread).mean(axis=2)
        steep = norm.pdf(end[..., None], centre, spread).mean(axis=2) * found.sd
        assert (np.abs(below - level) < 2e-4 * steep + 2e-7).all()


def test_means_of_draws_follow_from_the_cells():
    """By dense algebra, of cells that respond differently and variances that are known."""
    _, cells = screen()
    cells = replace(cells, variance_ratio=cells.variance_ratio * 1.5, freedom=cells.n - 1.0)
    expected, own = np.random.default_rng(1).normal(size=(2, 6, 12))
    own = np.where(np.arange(12) == 3, 0.1 + own**2, np.nan)
    fit = fit_hierarchical(cells, Prior(expected, own_variance=own), rng=0, chain=Chain(20, 7, 1))
    draws, told, factors = fit.effects, fit.effects.cells, fit.factors
    assert (told.response != 0).any()
    x = (cells.mean[1:] - expected) / draws.unit
    psi = 1 - (factors**2).sum(axis=1)
    noise = psi / cells.counted[1:]
    found = draws.centres(np.arange(6))
    assert found.shape == (6, 12, 7)
    for k in range(7):
        prior = np.where(np.isnan(own), VARIANCE[draws.place[:, :, k]], own / draws.unit**2)
        shared = np.outer(fit.scores[k], fit.program[k]) + fit.along[k] @ factors.T
        left = x - fit.control[k] / draws.unit - shared - told.noise[k] @ factors.T
        mean = shared + left * prior / (prior + noise)
        mean += (expected / draws.unit + mean) * told.response[k][:, None]
        np.testing.assert_allclose(found[:, :, k], mean, rtol=1e-5, atol=1e-6)
    some = [4, 1, 4]
    np.testing.assert_array_equal(draws.rows(some).centres(np.arange(3)), found[some])
    np.testing.assert_array_equal(
        draws.some_draws([5, 2]).centres(np.arange(6)), found[..., [5, 2]]
    )
    np.testing.assert_array_equal(draws.centres(np.array([2]), [6])[..., 0], found[[2], :, 6])
    predicted = fit.predict(np.ones((3, 12)), own_variance=own[:3], rng=0)
    both = draws.joined(predicted)
    np.testing.assert_array_equal(both.centres(np.arange(6)), found)
    every = [predicted.posterior_mean(), predicted.given(2)[0]]
    np.testing.assert_array_equal(both.posterior_mean([6, 7, 8]), every[0])
    np.testing.assert_array_equal(both.given(2, [6, 7, 8])[0], every[1])
    np.testing.assert_array_equal(every[1][:, 3], 1.0)  # its mean is known exactly
    explicit = replace(draws, centre=found, cells=None)
    for one, other in zip(draws.summary(), explicit.summary(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(
        explicit.joined(predicted).posterior_mean(), both.posterior_mean(), rtol=1e-6
    )


def test_draws_have_the_moments_of_the_summary():
    _, cells = screen()
    fit = fit_hierarchical(cells, rng=0, chain=Chain(20, 20, 1))
    drawn = np.array(list(fit.effects.draws(4000, rng=1)))
    found = fit.effects.summary()
    assert drawn.shape == (4000, 6, 12)
    z = (drawn.mean(axis=0) - found.mean) / found.sd * np.sqrt(4000)
    assert np.abs(z).max() < 4.5
    np.testing.assert_allclose(drawn.std(axis=0), found.sd, rtol=0.15)
    np.testing.assert_allclose((drawn <= found.upper).mean(axis=0), 0.95, atol=0.015)
    assert [len(list(fit.effects.draws(n, rng=0))) for n in (1, 7, 20, 21)] == [1, 7, 20, 21]
    assert fit.effects.taken(4) == [(0, 1), (5, 1), (10, 1), (15, 1)]
    assert [n for _, n in fit.effects.taken(50)] == [3, 2] * 10


def test_the_same_bits_for_any_number_of_threads():
    _, cells = screen(n=70)
    one, two, every = (
        fit_hierarchical(cells, rng=5, chain=Chain(3, 4, 1), n_jobs=k) for k in (1, 2, -1)
    )
    for other in (two, every):
        np.testing.assert_array_equal(one.effects.place, other.effects.place)
        np.testing.assert_array_equal(one.program, other.program)
    for each in zip(one.effects.summary(), two.effects.summary(n_jobs=2), strict=True):
        np.testing.assert_array_equal(*each)
    other = fit_hierarchical(cells, rng=6, chain=Chain(3, 4, 1))
    assert (one.effects.posterior_mean() != other.effects.posterior_mean()).any()


@pytest.mark.full_chain
def test_many_effects_are_kept_in_fewer_draws():
    assert Chain.of_size(2_500) == Chain.of_size(400_000) == Chain()
    lengths = [Chain.of_size(size) for size in (10**6, 10**7, 2 * 10**7, 10**8)]
    assert [each.keep for each in lengths] == [80, 40, 25, 10]
    assert [each.burn for each in lengths] == [50, 40, 25, 15]
    _, cells = screen()
    seen = []
    fit = fit_hierarchical(
        cells, chain=Chain(3, 4, 5), rng=0, progress=lambda *done: seen.append(done)
    )
    assert fit.effects.n_draws == 4
    assert seen == [(k, 23) for k in range(1, 24)]


@pytest.mark.full_chain
def test_chains_of_more_effects_have_no_more_sweeps_or_draws():
    chains = [Chain.of_size(int(size)) for size in np.geomspace(1e3, 1e9, 500)]
    sweeps = np.array([chain.burn + chain.keep * chain.thinning for chain in chains])
    assert (np.diff(sweeps) <= 0).all()
    assert (np.diff([chain.keep for chain in chains]) <= 0).all()
    assert sweeps[0] == 250
    assert Chain.of_size(402_000) == Chain(50, 100, 2, 10)  # 250 sweeps as for 400,000
    every = [chain.unthinned() for chain in chains]
    assert [chain.burn + chain.keep for chain in every] == sweeps.tolist()
    assert {chain.thinning for chain in every} == {1}


def test_draws_of_large_tables_are_those_of_small_ones(monkeypatch):
    fit = fit_hierarchical(screen()[1], rng=0, chain=Chain(3, 20, 1))
    small = list(fit.effects.draws(30, rng=0))
    monkeypatch.setattr("nextpert.core.model.effect_draws._HELD", 0)
    for one, two in zip(small, fit.effects.draws(30, rng=0), strict=True):
        np.testing.assert_array_equal(one, two)


def test_of_more_effects_fewer_draws_are_taken_evenly():
    fit = fit_hierarchical(screen()[1], rng=0, chain=Chain(3, 20, 1))
    fewer = fit.thinned(10**8)
    assert fewer.effects.n_draws == 10
    np.testing.assert_array_equal(fewer.program, fit.program[::2])
    every = fit.effects.centres(np.arange(6))
    np.testing.assert_array_equal(fewer.effects.centres(np.arange(6)), every[..., ::2])
    assert fit.thinned(72) is fit


@pytest.mark.parametrize("size", [9.0, 13.0, 20.0, 60.0, 300.0])
def test_a_single_large_effect_is_kept(size):
    _, cells = screen(n=20, p=40)
    mean, sd = cells.mean.copy(), np.sqrt(cells.scatter[7, 7] / (cells.n_cells.sum() - 21))
    mean[3, 7] = mean[0, 7] + size * sd
    found = fit_hierarchical(replace(cells, mean=mean), rng=0).effects.summary()
    assert all(np.isfinite(each).all() for each in found)
    np.testing.assert_allclose(found.mean[2, 7] / sd, size, atol=0.3)
    assert found.lfsr[2, 7] == 0.0


def test_what_is_expected_is_added():
    _, cells = screen()
    expected = np.random.default_rng(0).normal(size=(6, 12))
    moved = replace(cells, mean=cells.mean + np.vstack([np.zeros(12), expected]))
    chain = Chain(5, 5, 1)
    plain = fit_hierarchical(cells, rng=1, chain=chain).effects.summary()
    told = fit_hierarchical(moved, Prior(expected), rng=1, chain=chain).effects.summary()
    np.testing.assert_allclose(told.mean, plain.mean + expected, atol=1e-6)
    np.testing.assert_allclose(told.upper, plain.upper + expected, atol=1e-6)
    fit = fit_hierarchical(moved, Prior(expected), rng=1, chain=chain)
    away = (moved.mean[1:] - fit.control[:, None]) / fit.effects.unit
    np.testing.assert_allclose(fit.squares, (away**2).sum(axis=(1, 2)))


def test_variance_of_guides_and_what_no_perturbations_share_of_batches_is_noise():
    """Cells that count for fewer, and slight errors of batches, are those of fewer cells."""
    _, cells = screen(cells=25.0)
    fewer = replace(cells, n=screen(cells=1 / (1 / 25 + 0.002))[1].n)
    batches = replace(cells, fixed=np.append(0.0, np.full(6, 1.0))[:, None],
                      fixed_sd=np.array([np.sqrt(0.002)]))  # fmt: skip
    one, two = (
        fit_hierarchical(each, rng=1, chain=Chain(5, 5, 1)).effects.summary()
        for each in (fewer, batches)
    )
    np.testing.assert_allclose(one.mean, two.mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(one.sd, two.sd, rtol=1e-6)


def test_perturbations_without_cells_are_drawn_from_what_the_screen_has_shown():
    effect, cells = screen(n=120, seed=4)
    half = replace(
        cells, n_cells=cells.n_cells[:61], n=cells.n[:61], mean=cells.mean[:61],
        scatter=cells.covariance * (61_000 - 61), variance_ratio=cells.variance_ratio[:61],
        fixed=cells.fixed[:61], freedom=cells.freedom[:61],
    )  # fmt: skip
    fit = fit_hierarchical(half, rng=0)
    shift = np.linspace(-1, 1, 12)
    unseen = fit.predict(np.tile(shift, (60, 1)), rng=0)
    drawn = np.array(list(unseen.draws(rng=0))) - shift
    np.testing.assert_allclose(np.median(drawn, axis=(0, 1)), 0.0, atol=0.02)
    # They scatter about what is expected as the screen's effects do, gene by gene: quantiles, as
    # tails are heavy.
    for level, within in ((0.5, 1.6), (0.8, 1.3)):
        ratio = np.quantile(np.abs(drawn), level) / np.quantile(np.abs(effect), level)
        assert 1 / within < ratio < within
    sizes = [np.quantile(np.abs(x).reshape(-1, 12), 0.5, axis=0) for x in (drawn, effect)]
    assert np.corrcoef(np.log(sizes))[0, 1] > 0.7
    found = fit.predict(np.zeros((60, 12)), rng=1).summary()
    assert 0.84 < ((found.lower <= effect[60:]) & (effect[60:] <= found.upper)).mean() < 0.96
    own = np.where(np.arange(12) == 2, 9.0, np.nan) * np.ones((60, 1))
    told = fit.predict(np.zeros((60, 12)), own_variance=own, rng=1).summary()
    np.testing.assert_allclose(told.sd[:, 2], 3.0, rtol=0.05)
    np.testing.assert_array_equal(np.delete(told.sd, 2, axis=1), np.delete(found.sd, 2, axis=1))


def test_of_controls_alone_departures_are_those_of_the_prior():
    _, cells = screen()
    alone = cells.rows([0])
    sd, p = np.sqrt(alone.covariance.diagonal()), 12
    fit = controls_alone(alone, rng=0)
    np.testing.assert_allclose(fit.control.mean(axis=0), cells.mean[0], atol=5 * (sd / 30).max())
    expected, own = np.linspace(-1, 1, p)[None] * np.ones((400, 1)), np.full((400, p), np.nan)
    own[:, 3] = 4.0
    unseen = fit.predict(expected, own_variance=own, rng=1)
    np.testing.assert_allclose(unseen.posterior_mean(), expected, atol=1e-6)
    # Even in the logarithm of the variance up to an eighth of that of cells, half for each
    # doubling beyond, as the mathematics has it.
    variance = 2.0 ** np.arange(-13.0, 6.0)
    weight = np.where(variance <= 0.125, 1.0, 0.125 / variance)
    wanted = weight @ variance / weight.sum()
    found = (unseen.sd() / sd) ** 2
    np.testing.assert_allclose(np.delete(found, 3, axis=1).mean(), wanted, rtol=0.1)
    np.testing.assert_allclose(unseen.sd()[:, 3], 2.0)
    larger = fit.predict(expected, scale=np.full((400, 2), 4.0), rng=1).sd() / sd
    np.testing.assert_allclose((larger**2).mean(), 4.0 * wanted, rtol=0.2)


def test_cells_that_do_not_vary_are_refused():
    cells = screen()[1]
    with pytest.raises(ValueError, match="No node varies within perturbations"):
        fit_hierarchical(replace(cells, scatter=0 * cells.scatter))


def test_a_gene_in_which_no_cell_varies_has_no_effect():
    _, cells = screen()
    flat = np.arange(12) == 3
    scatter = np.where(flat | flat[:, None], 0.0, cells.scatter)
    mean = np.where(flat, 0.0, cells.mean)
    found = fit_hierarchical(replace(cells, mean=mean, scatter=scatter), rng=0).effects.summary()
    assert all(np.isfinite(table).all() for table in found)
    assert np.abs(found.mean[:, 3]).max() < 0.1
    assert found.lfsr[:, 3].min() > 0.5
    assert (found.lower[:, 3] < 0).all()
    assert (found.upper[:, 3] > 0).all()
    plain = fit_hierarchical(cells, rng=0).effects.summary()
    away = (found.mean - plain.mean)[:, ~flat] / plain.sd[:, ~flat]
    assert np.abs(away).mean() < 0.3


def drawn_from_the_prior(seed, n=8, p=10):
    """Draw a screen from the model itself, all weights and variances from their priors too."""
    rng = np.random.default_rng(seed)

    def variances(grid, shape, alpha):
        weights = rng.dirichlet(np.full(len(grid), alpha))
        return rng.choice(grid, size=shape, p=weights)

    def even(grid):
        return 5.0 / len(grid)

    gamma = rng.uniform(0.4, 0.7, size=p)  # one factor, as many as there are for 10 genes
    within = np.diag(1.0 - gamma**2) + np.outer(gamma, gamma)
    f, g = (rng.normal(size=n) * 2.0 ** (variances(SCORES, n, even(SCORES)) / 2) for _ in range(2))
    program = rng.normal(size=p) * np.sqrt(0.001 / rng.gamma(1.0))
    scale = variances(SCALES, (n, 1), even(SCALES))
    tail = variances(TAILS, (n, p), 0.5)
    variance = 2.0 ** np.clip(scale + tail, LOWEST, HIGHEST)
    own_variance = np.full((n, p), np.nan)
    own_variance[range(n), range(n)] = rng.uniform(0.1, 2.0, n)
    own = rng.normal(size=(n, p)) * np.sqrt(
        np.where(np.isnan(own_variance), variance, own_variance)
    )
    effect = np.outer(f, program) + np.outer(g, gamma) + own
    mean = effect + rng.normal(size=(n, p)) @ np.linalg.cholesky(within).T / 5
    return effect, own_variance, pooled(mean, 25.0, np.zeros(p), 1e8, within)


@pytest.mark.slow
def test_ranks_of_effects_drawn_from_the_prior_are_uniform():
    """Simulation-based calibration (Talts et al. 2018): the sampler draws from its posterior."""
    means = []
    for seed in range(30):
        effect, own, given = drawn_from_the_prior(seed)
        fit = fit_hierarchical(given, Prior(own_variance=own), rng=seed, chain=Chain(100, 100, 2))
        draws = np.array(list(fit.effects.draws(rng=seed)))
        below = [(draws < effect).mean(axis=0), (np.abs(draws) < np.abs(effect)).mean(axis=0)]
        means.append([x.mean() for x in below] + [x[~np.isnan(own)].mean() for x in below])
    # Within a screen ranks go together, so that screens are what is independent.
    z = (np.mean(means, axis=0) - 0.5) / (np.std(means, axis=0) / np.sqrt(len(means)))
    assert np.abs(z).max() < 3.5


@pytest.mark.slow
def test_a_short_chain_that_starts_at_likely_tails_has_settled():
    rng, (n, p) = np.random.default_rng(0), (150, 80)
    effect = np.zeros((n, p))
    effect[::10] = rng.normal(size=(n // 10, p)) * (rng.random((n // 10, p)) < 0.1)
    mean = effect + 0.1 * rng.normal(size=(n, p))
    cells = pooled(mean, 100.0, np.zeros(p), 1e4, np.eye(p))
    error = {}
    for name, chain in {
        "long": Chain(100, 150, 2), "short": Chain(20, 20, 1), "warm": Chain(20, 20, 1, 10)
    }.items():  # fmt: skip
        found = fit_hierarchical(cells, chain=chain, rng=0)
        error[name] = ((found.effects.posterior_mean() - effect) ** 2).mean()
    assert error["warm"] < 1.15 * error["long"]
    assert error["short"] > 1.2 * error["long"]


def test_tails_of_the_warm_up_have_the_densities_of_enumeration(sampler, monkeypatch):
    seen = []
    monkeypatch.setattr(sampler_module, "best_weights", lambda chance, *_: seen.append(chance))
    sampler.rng = np.random.default_rng(7)
    sampler.likely_tails(np.ones(len(TAILS)))
    rng, (n, p) = np.random.default_rng(7), sampler.means.x.shape
    row, gene = (rng.integers(size, size=sampler_module._TAIL_PAIRS) for size in (n, p))
    drawn = sampler.state.place[row, gene] < N_VARIANCES
    row, gene = row[drawn], gene[drawn]
    q = len(sampler.means.design) - 1
    scores, (program, *gamma) = sampler.state.scores, sampler.means.design
    along = (scores[:, 1 : q + 1] + scores[:, q + 1 :]) @ np.array(gamma).reshape(q, p)
    rest = sampler.means.x - level(sampler) - along - np.outer(scores[:, 0], program)
    noise = noise_of(sampler, sampler.means.doubled[:, None])[row, gene]
    at = np.clip(sampler.state.scale[row, None] + SCALES[0] + TAILS, LOWEST, HIGHEST)
    density = norm.pdf(rest[row, gene, None], scale=np.sqrt(noise[:, None] + 2.0**at))
    ratio = seen[0] / density
    np.testing.assert_allclose(ratio / ratio.max(axis=1, keepdims=True), 1, rtol=1e-6)
