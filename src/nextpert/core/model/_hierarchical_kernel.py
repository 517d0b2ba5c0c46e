"""Compiled steps of the hierarchical model of effects: a sweep of Gibbs sampling, and summaries.

They implement equations 13 to 19 of the mathematics, in units of the standard deviation of
each gene between cells.
"""

from __future__ import annotations

from math import erfc, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import exp, fast, inner, lean
from nextpert.core.causal._kernels import dot
from nextpert.core.model._density_kernel import (
    N_SCALES,
    N_VARIANCES,
    add_logs,
    add_steep,
    draw_tail,
    fill_densities,
    fill_steep,
    is_doubled,
    is_steep,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_STEPS = 40  # maximum number of Newton steps; 4 to 6 are usual
_CLOSE = 1e-4  # numerical error of quantiles, in SD: a tenth of their sampling error


class Means(NamedTuple):
    """Means of the cells of J perturbations on p genes, and their noise; q factors, b batches."""

    x: Array  # (J, p), means minus prior means
    error: Array  # (J, p), sampling variance of each mean divided by that of a cell
    doubled: Array  # (J,), probability that this variance is doubled
    prior_mean_variance: (
        Array  # (J, p), variance of prior means divided by that of a cell; (0, 0) if there is none
    )
    psi: Array  # (p,), own variance of each gene between cells
    design: Array  # (1 + q, p), the program, and the factors of the rest of the variance
    own_variance: Array  # (J, p), known variances of own parts, else nan; (0, 0) if all are unknown
    along: Array  # (J, q), prior precision of the noise along every factor
    columns: Array  # (J, b), errors of batch effects in the means
    spread: Array  # (J,), variance of prior means along every factor


class Grid(NamedTuple):
    """Prior variances of own parts and of scores, and their weights."""

    variance: Array  # entry m + t is for scale m and tail t
    short_variance: NDArray[np.float32]  # (N_DENSITIES,), the same in single precision
    log_scale: Array  # logarithm of the weight of each scale
    tail: Array  # weight of each tail
    short_tail: NDArray[np.float32]  # the same in single precision
    score: Array  # (n_sizes,), prior variances of scores
    log_score: Array  # (1 + q, n_sizes), logarithm of the weight of each


class State(NamedTuple):
    """The drawn parameters of every perturbation."""

    place: NDArray[np.int8]  # (J, p), entry of Grid.variance; N_VARIANCES if it is known
    doubled: NDArray[np.int8]  # (J, p), 1 if the sampling variance of the mean is doubled
    size: NDArray[np.int8]  # (J, 1 + q), entry of Grid.score for the scores of the effect
    scores: Array  # (J, 1 + 2 q), on the program, along factors, and of the noise along factors
    scale: NDArray[np.int64]  # (J,)


class Drawn(NamedTuple):
    """K draws of all parameters except own parts, for some perturbations."""

    control: Array  # (K, p)
    program: Array  # (K, p)
    batches: Array  # (K, b, p)
    factors: Array  # (q, p)
    scores: Array  # (K, J), on the program
    along: Array  # (K, J, q), scores along the factors
    noise: Array  # (K, J, q), scores of the cells' noise along the factors
    response: Array  # (K, J), response of cells relative to the average, minus 1


class Rows(NamedTuple):
    """Perturbations for which means of effects are computed."""

    change: NDArray[np.float32]  # (J, p), means of the cells minus prior means
    origin: Array  # (J, p), prior means
    measured: Array  # (J,), 1 with cells, 0 for predicted perturbations
    columns: Array  # (J, b), errors of batch effects in the means
    precision: NDArray[np.float32]  # (J, p), of the cells
    own_share: Array  # (J, p), shares of own parts with known variance
    place: NDArray[np.int8]  # (J, p, K), entry of every own part's variance, and of its noise's


class Mixtures(NamedTuple):
    """Mixtures of normals, one per row, with equally probable components.

    The variance of a component is one over the sum of the precisions of the cells and the prior.
    """

    centre: NDArray[np.float32]  # (n_mixtures, K), means of the components
    place: NDArray[np.int8]  # (n_mixtures, K), entry of their prior variance, and of the noise's
    precision: NDArray[np.float32]  # (n_mixtures,), of the cells
    origin: Array  # (n_mixtures,), added to all means


class Block(NamedTuple):
    """A block of perturbations: its random numbers, its sums, and work arrays."""

    normal: Array  # (n_block, 1 + 2 q), random numbers
    uniform: Array  # (n_block, p + 2 + q), for tails, the scale, and sizes of scores
    sums: Array  # (5, p), over perturbations of w, w f, w f^2, w y, w f y of equation 16
    held: Array  # (2, n_block, p), w and w y of every perturbation
    drawn: Array  # (n_tails,), number of draws of every tail
    system: Array
    covariance: Array
    vectors: Array  # six numbers per gene
    density: NDArray[np.float32]  # (p, N_DENSITIES)
    steep: Array  # (N_VARIANCES,), densities of one gene in double precision
    exponent: NDArray[np.int64]  # (N_SCALES,)
    chance: Array


@inner
def _draw_from_logs(chance, uniform):
    """Draw an entry with probabilities proportional to ``exp`` of the given logarithms."""
    # The maximum is subtracted, so that no value overflows.
    highest, total = -np.inf, 0.0
    for m in range(len(chance)):
        highest = max(highest, chance[m])
    for m in range(len(chance)):
        chance[m] = np.exp(chance[m] - highest)
        total += chance[m]
    # Inverse transform: the first entry at which the sum of probabilities exceeds u.
    remaining, m = uniform * total, 0
    while m < len(chance) - 1 and remaining > chance[m]:
        remaining -= chance[m]
        m += 1
    return m


@fast
def _score_system(means, j, weight, departure, variance, work, system, right):
    """Fill the precision of the scores of a perturbation, and its right-hand side (equation 14).

    ``weight`` is the precision of the means without program and factors, ``departure`` the means
    minus those of controls (both ``(n_genes,)``, as ``work``), and ``variance`` the prior variances
    of scores.
    """
    design = means.design
    n_rows = len(design)
    q = n_rows - 1
    # X' diag(V + T)^-1 X and X' diag(V + T)^-1 (x - mu_0), X = [lambda, Gamma].
    for s in range(n_rows):
        for i in range(len(weight)):
            work[i] = weight[i] * design[s, i]
        right[s] = dot(work, departure)
        for t in range(s + 1):
            system[s, t] = dot(work, design[t])
    # The cells' noise and the effect lie along the same factors.
    for s in range(1, n_rows):
        right[q + s] = right[s]
        for t in range(n_rows):
            system[q + s, t] = system[max(s, t), min(s, t)]
        for t in range(1, s + 1):
            system[q + s, q + t] = system[s, t]
    # Prior precisions: that of the scores, and along factors n_j of the noise.
    for s in range(n_rows):
        system[s, s] += 1.0 / variance[s]
    for s in range(n_rows, q + n_rows):
        system[s, s] += means.along[j, s - n_rows]


@inner
def _factorise(system):
    """Write the Cholesky factor of a positive definite matrix over its lower triangle."""
    for s in range(len(system)):
        for t in range(s + 1):
            value = system[s, t]
            for m in range(t):
                value -= system[s, m] * system[t, m]
            system[s, t] = sqrt(value) if s == t else value / system[t, t]


@inner
def _solve(factor, right):
    """Solve a factorised system, in place of its right-hand side."""
    size = len(right)
    for s in range(size):
        value = right[s]
        for m in range(s):
            value -= factor[s, m] * right[m]
        right[s] = value / factor[s, s]
    for s in range(size - 1, -1, -1):
        value = right[s]
        for m in range(s + 1, size):
            value -= factor[m, s] * right[m]
        right[s] = value / factor[s, s]


@inner
def _invert(factor, inverse):
    """Fill the inverse of a factorised matrix."""
    size = len(factor)
    for c in range(size):
        for s in range(size):
            inverse[c, s] = 0.0
        for s in range(c, size):
            value = 1.0 if s == c else 0.0
            for m in range(c, s):
                value -= factor[s, m] * inverse[c, m]
            inverse[c, s] = value / factor[s, s]
        for s in range(size - 1, -1, -1):
            value = inverse[c, s]
            for m in range(s + 1, size):
                value -= factor[m, s] * inverse[c, m]
            inverse[c, s] = value / factor[s, s]


@inner
def _draw_sizes(mean, cov, grid, size, spread, uniform, chance):
    """Draw the prior variance of every score in turn, with all scores integrated out (18).

    ``mean`` and ``cov`` of the scores are updated for the drawn variances; ``spread`` is added to
    the prior variances along factors.
    """
    count = len(mean)
    for s in range(len(size)):
        group_variance = spread if s > 0 else 0.0
        before = 1.0 / (grid.score[size[s]] + group_variance)
        # Information on the score except its own prior: a precision, and precision times mean.
        precision = max(1.0 / cov[s, s] - before, 0.0)
        right = mean[s] / cov[s, s]
        for e in range(len(chance)):
            # pi (1 + T Lambda)^-1/2 exp(T zeta^2 / (2 (1 + T Lambda)))
            prior = grid.score[e] + group_variance
            excess = 1.0 + prior * precision
            chance[e] = grid.log_score[s, e] + 0.5 * (
                right * right * prior / excess - np.log(excess)
            )
        size[s] = _draw_from_logs(chance, uniform[s])
        change = 1.0 / (grid.score[size[s]] + group_variance) - before
        # A prior precision that changes by c: cov - c cov_s cov_s' / (1 + c cov_ss).
        step = change / (1.0 + change * cov[s, s])
        shift, middle = step * mean[s], cov[s, s]
        for t in range(count):
            if t != s:
                mean[t] -= shift * cov[t, s]
                for m in range(count):
                    if m != s:
                        cov[t, m] -= step * cov[t, s] * cov[s, m]
        # Row s itself: mean and covariance are multiplied by 1 / (1 + c cov_ss).
        mean[s] -= shift * middle
        shrink = 1.0 - step * middle
        for t in range(count):
            if t != s:
                cov[t, s] *= shrink
                cov[s, t] = cov[t, s]
        cov[s, s] = middle * shrink


@inner
def _draw_normal(mean, cov, normal):
    """Draw from the normal with a mean and a covariance, overwriting the mean."""
    _factorise(cov)
    # mean + L z; L overwrites cov.
    for s in range(len(mean) - 1, -1, -1):
        for t in range(s + 1):
            mean[s] += cov[s, t] * normal[t]


@fast
def _fill_noise(means, j, doubled, noise):
    """Fill the variances of a perturbation's means, the cells' part multiplied by 1 + doubled."""
    for i in range(len(noise)):
        noise[i] = means.psi[i] * means.error[j, i] * (1.0 + doubled[i])
    if len(means.prior_mean_variance) > 0:
        for i in range(len(noise)):
            noise[i] += means.psi[i] * means.prior_mean_variance[j, i]


@fast
def _add_sums(noise, prior, departure, level, f, sums, weight, value):
    """Add to the sums of the regression of genes (equation 16), and store their terms."""
    # w = 1 / (V + T); y = x - E - Gamma (g + h) still contains the mean of the controls.
    for i in range(len(noise)):
        precise = 1.0 / (noise[i] + prior[i])
        y = departure[i] + level[i]
        sums[0, i] += precise
        sums[1, i] += precise * f
        sums[2, i] += precise * f * f
        sums[3, i] += precise * y
        sums[4, i] += precise * f * y
        weight[i] = precise
    for i in range(len(noise)):
        value[i] = weight[i] * (departure[i] + level[i])


@lean
def visit(means, first, last, grid, control, batches, state, block):
    """Draw the scores of some perturbations, their sizes, and scale and tails of own parts.

    Parameters
    ----------
    means, grid, state, block
        The cells' means, the grid, the state, which is updated, and the arrays of the block.
    first, last
        The perturbations from ``first`` to ``last - 1``.
    control, batches
        Means of controls, shape ``(n_genes,)``, and coefficients of the batch columns,
        ``(n_columns, n_genes)``.
    """
    n_rows, n_genes = means.design.shape
    q = n_rows - 1
    departure, noise, work = block.vectors[0], block.vectors[1], block.vectors[2]
    prior, level, wide = block.vectors[3], block.vectors[4], block.vectors[5]
    density, steep, chance = block.density, block.steep, block.chance[0, :N_SCALES]
    sizes, variance = block.chance[1, : len(grid.score)], block.chance[2, :n_rows]
    for j in range(first, last):
        b = j - first
        entry, score, doubled = state.place[j], state.scores[j], state.doubled[j]
        # x_j - mu_0 - sum_b Z_jb o_b, its noise V_j, and 1 / (V_j + T_j).
        for i in range(n_genes):
            level[i] = control[i]
        for c in range(len(batches)):
            for i in range(n_genes):
                level[i] += means.columns[j, c] * batches[c, i]
        _fill_noise(means, j, doubled, noise)
        for i in range(n_genes):
            departure[i] = means.x[j, i] - level[i]
            is_known = entry[i] == N_VARIANCES
            prior[i] = 1.0 / (
                noise[i] + (means.own_variance[j, i] if is_known else grid.variance[entry[i]])
            )
        # Scores by (14): first prior variances, with scores integrated out (18), then the scores.
        for s in range(n_rows):
            spread = means.spread[j] if s > 0 else 0.0
            variance[s] = grid.score[state.size[j, s]] + spread
        _score_system(means, j, prior, departure, variance, work, block.system, score)
        _factorise(block.system)
        _solve(block.system, score)
        _invert(block.system, block.covariance)
        _draw_sizes(
            score,
            block.covariance,
            grid,
            state.size[j],
            means.spread[j],
            block.uniform[b, n_genes + 1 :],
            sizes,
        )
        _draw_normal(score, block.covariance, block.normal[b])
        # The scale by (15), summed over tails, from the residuals of the means after the scores.
        # r = x - mu_0 - Z o - Gamma (g + h) - lambda f.
        for s in range(1, n_rows):
            along = score[s] + score[q + s]
            for i in range(n_genes):
                departure[i] -= means.design[s, i] * along
        # The noise has the tails of t: its variance is integrated out here, and drawn after the
        # tail.
        chance_wide = means.doubled[j]
        if chance_wide > 0.0:
            for i in range(n_genes):
                doubled[i] = 1
            _fill_noise(means, j, doubled, wide)
            for i in range(n_genes):
                doubled[i] = 0
            _fill_noise(means, j, doubled, noise)
        # log P(m) + sum_i log sum_t pi_t N(r_i; 0, V_i + 2^(m + t)).
        for s in range(N_SCALES):
            chance[s] = grid.log_scale[s]
        for i in range(n_genes):
            work[i] = departure[i] - means.design[0, i] * score[0]
            if chance_wide == 0.0:
                wide[i] = noise[i]
            # A known variance does not depend on the scale.
            if entry[i] == N_VARIANCES:
                density[i] = np.float32(1.0)
            elif is_steep(work[i], noise[i]):
                density[i] = np.float32(1.0)
                fill_steep(work[i], noise[i], wide[i], chance_wide, grid.variance, steep)
                add_steep(steep, grid.tail, chance)
            else:
                fill_densities(
                    work[i], noise[i], wide[i], chance_wide, grid.short_variance, density[i]
                )
        add_logs(density, grid.short_tail, chance, block.chance[1], block.exponent)
        m = _draw_from_logs(chance, block.uniform[b, n_genes])
        state.scale[j] = m
        # Each tail given the scale; own parts with a known variance have no tail.
        for i in range(n_genes):
            if entry[i] == N_VARIANCES:
                prior[i] = means.own_variance[j, i]
                continue
            if is_steep(work[i], noise[i]):
                fill_steep(work[i], noise[i], wide[i], chance_wide, grid.variance, steep)
                t, remainder = draw_tail(steep[m:], grid.tail, block.uniform[b, i])
            else:
                t, remainder = draw_tail(density[i, m:], grid.tail, block.uniform[b, i])
            block.drawn[t] += 1.0
            entry[i] = m + t
            prior[i] = grid.variance[m + t]
            if chance_wide > 0.0 and is_doubled(
                work[i], noise[i] + prior[i], wide[i] + prior[i], chance_wide, remainder
            ):
                doubled[i], noise[i] = 1, wide[i]
        _add_sums(
            noise, prior, departure, level, score[0], block.sums, block.held[0, b], block.held[1, b]
        )


@fast
def _below(value, centre, inverse):
    """Return the probability that a mixture of normals is below a value, and its density there.

    ``inverse`` is one over the standard deviation of every component. The distribution function
    is 7.1.26 of Abramowitz and Stegun, whose error is at most 8e-8.
    """
    # F(x) = mean Phi((x - m_k) / s_k), f(x) = mean phi(.) / s_k.
    total, density = 0.0, 0.0
    for k in range(len(centre)):
        z = (value - centre[k]) * inverse[k]
        size = abs(z) * 0.7071067811865476
        bell = exp(-size * size)
        t = 1.0 / (1.0 + 0.3275911 * size)
        tail = t * (
            0.254829592
            + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
        )
        tail *= 0.5 * bell
        total += 1.0 - tail if z > 0 else tail
        density += bell * inverse[k]
    return total / len(centre), density * 0.3989422804014327 / len(centre)


@lean
def fill_centres(drawn, rows, inverse, out, room):
    """Fill the conditional means of effects in every draw, minus prior means.

    A mean is the sum of the shared parts and the expected own part, which is a share of the
    departure of the cells' mean from the shared parts; the whole effect is multiplied by the
    response of the cells (equations 14, 15 and 23). ``inverse`` are prior precisions, ``out`` has
    the shape of ``rows.place``, and ``room`` is a work array, ``(2, n_genes)``.
    """
    n_genes, n_draws = rows.place.shape[1:]
    total, noise = room[0], room[1]
    for j in range(len(rows.change)):
        for k in range(n_draws):
            score, response = drawn.scores[k, j], drawn.response[k, j]
            # lambda f_j + Gamma g_j is part of the effect, mu_0 + Z_j o + Gamma h_j of the means.
            for i in range(n_genes):
                total[i] = drawn.program[k, i] * score
                noise[i] = rows.measured[j] * drawn.control[k, i]
            for b in range(rows.columns.shape[1]):
                for i in range(n_genes):
                    noise[i] += rows.columns[j, b] * drawn.batches[k, b, i]
            for s in range(len(drawn.factors)):
                of_effect, of_cells = drawn.along[k, j, s], drawn.noise[k, j, s]
                for i in range(n_genes):
                    total[i] += drawn.factors[s, i] * of_effect
                    noise[i] += drawn.factors[s, i] * of_cells
            # u is the share T / (T + V) of the rest; the effect is multiplied by 1 + response.
            for i in range(n_genes):
                entry, cells = np.int64(rows.place[j, i, k]), np.float64(rows.precision[j, i])
                if entry > N_VARIANCES:
                    entry, cells = entry - (N_VARIANCES + 1), 0.5 * cells
                share = cells / (cells + inverse[entry])
                if entry == N_VARIANCES:
                    share = rows.own_share[j, i]
                centre = total[i] + share * (rows.change[j, i] - noise[i] - total[i])
                out[j, i, k] = centre + (rows.origin[j, i] + centre) * response


@lean
def summarise(mixtures, variance, level, start, out, quantile, room):
    """Fill summaries of mixtures of normals.

    Parameters
    ----------
    mixtures, variance
        The mixtures, and prior variances, shape ``(n_variances,)``.
    level, start
        Probabilities of quantiles, and these quantiles of the standard normal, ``(n_levels,)``.
    out
        Filled with mean, standard deviation and probability of being above 0, shape
        ``(3, n_mixtures)``. A component whose mean is less than the cells' standard error counts
        as half above 0.
    quantile
        Filled with quantiles, shape ``(n_levels, n_mixtures)``.
    room
        Work array for the means of components and their inverse SD, ``(2, n_components)``.
    """
    centre, entries, precision, origin = mixtures
    n_components = centre.shape[1]
    middle, inverse = room[0], room[1]
    for row in range(len(centre)):
        # The mean, the mean variance of components, and the probability of being above 0.
        first, second, above = 0.0, 0.0, 0.0
        for k in range(n_components):
            value = origin[row] + centre[row, k]
            # Given draw k: N(origin + centre, 1 / (cells + prior)).
            component, cells = np.int64(entries[row, k]), np.float64(precision[row])
            if component > N_VARIANCES:
                component, cells = component - (N_VARIANCES + 1), 0.5 * cells
            conditional_variance = 1.0 / (cells + 1.0 / variance[component])
            middle[k], inverse[k] = value, 1.0 / sqrt(conditional_variance)
            first += value
            second += conditional_variance
            # A mean below the cells' standard error counts half for either sign.
            if value * value * cells < 1.0 and cells > 0.0:
                above += 0.5
            else:
                above += 0.5 * erfc(-value * inverse[k] * 0.7071067811865476)
        # Variance of a mixture: the mean of variances, and the variance of means.
        mean, within = first / n_components, second / n_components
        between = 0.0
        for k in range(n_components):
            between += (middle[k] - mean) ** 2
        sd = sqrt(within + between / n_components)
        out[0, row], out[1, row], out[2, row] = mean, sd, above / n_components
        for level_index in range(len(level)):
            # Chebyshev: no quantile is farther than sqrt((1 - p) / p) standard deviations.
            reach = sd / sqrt(min(level[level_index], 1.0 - level[level_index]))
            low, high = mean - reach, mean + reach
            value = mean + start[level_index] * sd
            # Newton's method on the distribution function, bracketed.
            for _ in range(_STEPS):
                below, density = _below(value, middle, inverse)
                if below < level[level_index]:
                    low = value
                else:
                    high = value
                new = value - (below - level[level_index]) / max(density, 1e-300)
                # If the step leaves the bracket, halve the bracket.
                if not low < new < high:
                    new = 0.5 * (low + high)
                step = abs(new - value)
                value = new
                if step < _CLOSE * sd:
                    break
            quantile[level_index, row] = value
