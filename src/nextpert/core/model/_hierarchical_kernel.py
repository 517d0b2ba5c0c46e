"""Compiled steps of the hierarchical model of effects: a sweep of Gibbs sampling, and summaries.

Equations 13 to 19 of the mathematics page. All is in units of the standard deviation of each gene
within cells.
"""

from __future__ import annotations

from math import erfc, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._compile import fast, inner, lean
from nextpert.core.causal._kernels import dot

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Numbers of scales and of tails: constants, so that loops over them stay in registers.
N_SCALES, N_TAILS = 17, 14
N_VARIANCES = N_SCALES + N_TAILS - 1
_TOGETHER = 8  # densities, each above 1e-38, multiplied before their logarithm is taken
_STEPS = 40  # of Newton's method at most; 4 to 6 are usual
_CLOSE = 1e-4  # of a standard deviation: a quantile's numerical error, a tenth of that of sampling


class Means(NamedTuple):
    """Means of the cells of perturbations, and their noise.

    Parameters
    ----------
    x
        Means less the expected effects of the perturbations, shape ``(n_perturbations, n_genes)``.
    error
        Sampling variance of each over that of a cell, same shape.
    psi
        Variance of a cell that is a gene's own, shape ``(n_genes,)``.
    design
        The program, and the factors of the rest of the variance, shape
        ``(1 + n_factors, n_genes)``.
    own_variance
        Prior variance of own parts that is known beforehand, nan where the grid speaks, shape
        ``(n_perturbations, n_genes)``; ``(0, 0)`` if none is.
    along
        Prior precision of the noise along every factor, shape ``(n_perturbations,)``.
    columns
        What every batch leaves in them, shape ``(n_perturbations, n_columns)``.
    spread
        Variance along every factor of the expected effects, shape ``(n_perturbations,)``.
    """

    x: NDArray[np.float64]
    error: NDArray[np.float64]
    psi: NDArray[np.float64]
    design: NDArray[np.float64]
    own_variance: NDArray[np.float64]
    along: NDArray[np.float64]
    columns: NDArray[np.float64]
    spread: NDArray[np.float64]


class Grid(NamedTuple):
    """Prior variances of own parts and of scores, and their weights.

    Parameters
    ----------
    variance
        The variance of scale ``m`` with tail ``t`` is entry ``m + t``; shape
        ``(n_scales + n_tails - 1,)``.
    log_scale
        Logarithm of the weight of each scale, shape ``(n_scales,)``.
    tail
        Weight of each tail, shape ``(n_tails,)``.
    score
        Prior variances of scores, shape ``(n_sizes,)``.
    log_score
        Logarithm of the weight of each, for the program and for every factor, shape
        ``(1 + n_factors, n_sizes)``.
    """

    variance: NDArray[np.float64]
    log_scale: NDArray[np.float64]
    tail: NDArray[np.float64]
    score: NDArray[np.float64]
    log_score: NDArray[np.float64]


class State(NamedTuple):
    """What is drawn of every perturbation.

    Parameters
    ----------
    place
        Entry of ``Grid.variance`` of every own part, and ``N_VARIANCES`` where its variance is
        known, shape ``(n_perturbations, n_genes)``.
    size
        Entry of ``Grid.score`` of scores on the program and along the factors, shape
        ``(n_perturbations, 1 + n_factors)``.
    scores
        Scores on the program, along the factors, and those of the noise along the factors, shape
        ``(n_perturbations, 1 + 2 n_factors)``.
    scale
        Which scale a perturbation has, shape ``(n_perturbations,)``.
    """

    place: NDArray[np.int8]
    size: NDArray[np.int8]
    scores: NDArray[np.float64]
    scale: NDArray[np.int64]


class Drawn(NamedTuple):
    """Draws of all but own parts, of which some perturbations are asked for.

    Parameters
    ----------
    control, program
        Means of the controls, and the program, shape ``(n_draws, n_genes)``.
    batches
        Coefficients of the columns of batches, shape ``(n_draws, n_columns, n_genes)``.
    factors
        Factors of coexpression, shape ``(n_factors, n_genes)``.
    scores
        Scores on the program, shape ``(n_draws, n_perturbations)``.
    along, noise
        Scores along the factors, and those of the cells' noise along them, shape
        ``(n_draws, n_perturbations, n_factors)``.
    response
        By how much more than on average cells respond, shape ``(n_draws, n_perturbations)``.
    """

    control: NDArray[np.float64]
    program: NDArray[np.float64]
    batches: NDArray[np.float64]
    factors: NDArray[np.float64]
    scores: NDArray[np.float64]
    along: NDArray[np.float64]
    noise: NDArray[np.float64]
    response: NDArray[np.float64]


class Room(NamedTuple):
    """Arrays that a block works in: ``vectors`` holds a few numbers a gene."""

    system: NDArray[np.float64]
    covariance: NDArray[np.float64]
    vectors: NDArray[np.float64]
    density: NDArray[np.float64]
    chance: NDArray[np.float64]


@fast
def _exp(x):
    """Return ``exp(x)`` of ``x <= 0`` as ``exp(x / 1024)^1024``, which compiles to vectors."""
    y = max(x, -700.0) / 1024.0
    z = 1.0 + y * (1.0 + y / 2 * (1.0 + y / 3 * (1.0 + y / 4 * (1.0 + y / 5 * (1.0 + y / 6)))))
    for _ in range(10):
        z *= z
    return z


@inner
def _draw_from_logs(chance, uniform):
    """Return an entry by chances whose logarithms are given."""
    highest, total = -np.inf, 0.0
    for m in range(len(chance)):
        highest = max(highest, chance[m])
    for m in range(len(chance)):
        chance[m] = np.exp(chance[m] - highest)
        total += chance[m]
    left, m = uniform * total, 0
    while m < len(chance) - 1 and left > chance[m]:
        left -= chance[m]
        m += 1
    return m


@fast
def _score_system(design, weight, departure, variance, size, spread, along, work, system, right):
    """Fill the precision of the scores of a perturbation, and its right-hand side (equation 14).

    ``weight`` is the precision of what is neither program nor factors, and ``away`` the means less
    those of controls, ``(n_genes,)``, as ``work``. Scores have the prior variances
    ``variance[size]``, along factors ``spread`` more; the noise has the precision ``along`` there.
    """
    n_rows = len(design)
    q = n_rows - 1
    for s in range(n_rows):
        for i in range(len(weight)):
            work[i] = weight[i] * design[s, i]
        right[s] = dot(work, departure)
        for t in range(s + 1):
            system[s, t] = dot(work, design[t])
    # The cells' noise lies along the same factors as what the perturbation does.
    for s in range(1, n_rows):
        right[q + s] = right[s]
        for t in range(n_rows):
            system[q + s, t] = system[max(s, t), min(s, t)]
        for t in range(1, s + 1):
            system[q + s, q + t] = system[s, t]
    for s in range(n_rows):
        system[s, s] += 1.0 / (variance[size[s]] + (spread if s > 0 else 0.0))
    for s in range(n_rows, q + n_rows):
        system[s, s] += along


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
    """Draw the prior variance of every score in turn, all scores integrated out (equation 18).

    ``mean`` and ``cov`` of scores, given these, follow; along factors they have ``spread`` more.
    """
    count = len(mean)
    for s in range(len(size)):
        more = spread if s > 0 else 0.0
        before = 1.0 / (grid.score[size[s]] + more)
        # What is known of the score by all but its own prior: a precision, and that times a mean.
        others = max(1.0 / cov[s, s] - before, 0.0)
        right = mean[s] / cov[s, s]
        for e in range(len(chance)):
            prior = grid.score[e] + more
            excess = 1.0 + prior * others
            chance[e] = grid.log_score[s, e] + 0.5 * (
                right * right * prior / excess - np.log(excess)
            )
        size[s] = _draw_from_logs(chance, uniform[s])
        change = 1.0 / (grid.score[size[s]] + more) - before
        step = change / (1.0 + change * cov[s, s])
        shift, middle = step * mean[s], cov[s, s]
        for t in range(count):
            if t != s:
                mean[t] -= shift * cov[t, s]
                for m in range(count):
                    if m != s:
                        cov[t, m] -= step * cov[t, s] * cov[s, m]
        mean[s] -= shift * middle
        shrink = 1.0 - step * middle
        for t in range(count):
            if t != s:
                cov[t, s] *= shrink
                cov[s, t] = cov[t, s]
        cov[s, s] = middle * shrink


@inner
def _draw_normal(mean, cov, normal):
    """Draw from the normal of a mean and a covariance, in place of the mean."""
    _factorise(cov)
    for s in range(len(mean) - 1, -1, -1):
        for t in range(s + 1):
            mean[s] += cov[s, t] * normal[t]


@fast
def _fill_densities(left, noise, variance, density):
    """Fill the density of what is left of a gene at each variance, over that at the largest."""
    least = 1.0 / (noise + variance[N_VARIANCES - 1])
    half = 0.5 * left * left
    for e in range(N_VARIANCES):
        inverse = 1.0 / (noise + variance[e])
        density[e] = _exp(half * (least - inverse)) * sqrt(inverse)


@fast
def _add_logs(density, tail, chance, product):
    """Add the logarithm of every scale's likelihood, tails summed over (equation 15)."""
    n_genes = len(density)
    for m in range(N_SCALES):
        product[m] = 1.0
    for i in range(n_genes):
        for m in range(N_SCALES):
            total = 0.0
            for t in range(N_TAILS):
                total += tail[t] * density[i, m + t]
            product[m] *= total
        if i % _TOGETHER == _TOGETHER - 1 or i == n_genes - 1:
            for m in range(N_SCALES):
                chance[m] += np.log(product[m])
                product[m] = 1.0


@fast
def _draw_tail(density, tail, uniform):
    """Return a tail by its weight times a density, given that of every tail."""
    whole = 0.0
    for t in range(N_TAILS):
        whole += tail[t] * density[t]
    left, t = uniform * whole, 0
    while t < N_TAILS - 1:
        left -= tail[t] * density[t]
        if left <= 0:
            break
        t += 1
    return t


@fast
def _add_sums(noise, prior, departure, level, f, sums, weight, value):
    """Add to the sums of the regression of genes (equation 16), and keep what they are of."""
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
def visit(
    means, first, last, grid, control, batches, normal, uniform, state, sums, held, count, room
):
    """Draw the scores of some perturbations, their sizes, and scale and tails of own parts.

    Parameters
    ----------
    means, grid, state
        The cells' means, the grid, and the state, which is written.
    first, last
        The perturbations: from the first to before the last.
    control, batches
        Means of controls, shape ``(n_genes,)``, and coefficients of the columns of batches,
        ``(n_columns, n_genes)``.
    normal, uniform
        Random numbers, ``(n_block, 2 n_factors + 1)`` and
        ``(n_block, n_genes + 2 + n_factors)``: for tails, the scale, and sizes of scores.
    sums
        Added to: per gene the sums over perturbations of ``w, w f, w f^2, w y, w f y`` with ``w``
        the precision of what is left and ``y`` the mean less factors (equation 16); shape
        ``(5, n_genes)``.
    held
        Filled with ``w`` and ``w y`` of every perturbation, shape ``(2, n_block, n_genes)``.
    count
        Added to: how often every tail was drawn, ``(n_tails,)``.
    room
        Room to work in.
    """
    n_rows, n_genes = means.design.shape
    q = n_rows - 1
    departure, noise, work, prior = (
        room.vectors[0],
        room.vectors[1],
        room.vectors[2],
        room.vectors[3],
    )
    level = room.vectors[4]
    density, chance = room.density, room.chance[0, :N_SCALES]
    sizes = room.chance[1, : len(grid.score)]
    for j in range(first, last):
        b = j - first
        place, score = state.place[j], state.scores[j]
        for i in range(n_genes):
            level[i] = control[i]
        for c in range(len(batches)):
            for i in range(n_genes):
                level[i] += means.columns[j, c] * batches[c, i]
        for i in range(n_genes):
            departure[i] = means.x[j, i] - level[i]
            noise[i] = means.psi[i] * means.error[j, i]
            is_known = place[i] == N_VARIANCES
            prior[i] = 1.0 / (
                noise[i] + (means.own_variance[j, i] if is_known else grid.variance[place[i]])
            )
        _score_system(
            means.design, prior, departure, grid.score, state.size[j], means.spread[j],
            means.along[j], work, room.system, score,
        )  # fmt: skip
        _factorise(room.system)
        _solve(room.system, score)
        _invert(room.system, room.covariance)
        _draw_sizes(
            score, room.covariance, grid, state.size[j], means.spread[j],
            uniform[b, n_genes + 1 :], sizes,
        )  # fmt: skip
        _draw_normal(score, room.covariance, normal[b])
        for s in range(1, n_rows):
            along = score[s] + score[q + s]
            for i in range(n_genes):
                departure[i] -= means.design[s, i] * along
        for i in range(n_genes):
            work[i] = departure[i] - means.design[0, i] * score[0]
            if place[i] == N_VARIANCES:  # the same whatever the scale
                density[i] = 1.0
            else:
                _fill_densities(work[i], noise[i], grid.variance, density[i])
        for s in range(N_SCALES):
            chance[s] = grid.log_scale[s]
        _add_logs(density, grid.tail, chance, room.chance[1])
        m = _draw_from_logs(chance, uniform[b, n_genes])
        state.scale[j] = m
        for i in range(n_genes):
            if place[i] == N_VARIANCES:
                prior[i] = means.own_variance[j, i]
                continue
            t = _draw_tail(density[i, m : m + N_TAILS], grid.tail, uniform[b, i])
            count[t] += 1.0
            place[i] = m + t
            prior[i] = grid.variance[m + t]
        _add_sums(noise, prior, departure, level, score[0], sums, held[0, b], held[1, b])


@fast
def _below(value, centre, inverse):
    """Return the probability that a mixture of normals is below a value, and its density there.

    ``inverse`` is one over the standard deviation of every component. The distribution function
    is 7.1.26 of Abramowitz and Stegun, whose error is at most 8e-8.
    """
    total, density = 0.0, 0.0
    for k in range(len(centre)):
        z = (value - centre[k]) * inverse[k]
        size = abs(z) * 0.7071067811865476
        bell = _exp(-size * size)
        t = 1.0 / (1.0 + 0.3275911 * size)
        tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (
            -1.453152027 + t * 1.061405429))))  # fmt: skip
        tail *= 0.5 * bell
        total += 1.0 - tail if z > 0 else tail
        density += bell * inverse[k]
    return total / len(centre), density * 0.3989422804014327 / len(centre)


@lean
def fill_centres(
    drawn, change, measured, columns, origin, precision, own_share, place, inverse, out, room
):
    """Fill means of effects given the rest of a draw, less what was expected.

    What is shared, and of what the cells' mean departs from it the share that an own part is
    expected to have, all of it as far as cells respond (equations 14, 15 and 23).

    Parameters
    ----------
    drawn
        Draws of the rest.
    change
        Means of the cells less what was expected, shape ``(n_perturbations, n_genes)``.
    measured
        1 of perturbations with cells, 0 of those that are predicted, ``(n_perturbations,)``.
    columns
        What batches leave in their means, shape ``(n_perturbations, n_columns)``.
    origin, precision, own_share
        What was expected, the precision of the cells, and the share of an own part whose variance
        is known beforehand, shape ``(n_perturbations, n_genes)``.
    place
        Entry of ``inverse``, the prior precisions, of every own part; shape ``(n_perturbations,
        n_genes, n_draws)``.
    out
        Filled, same shape.
    room
        Room for two numbers a gene, ``(2, n_genes)``.
    """
    n_draws, n_genes = place.shape[2], change.shape[1]
    total, noise = room[0], room[1]
    for j in range(len(change)):
        for k in range(n_draws):
            score, response = drawn.scores[k, j], drawn.response[k, j]
            for i in range(n_genes):
                total[i] = drawn.program[k, i] * score
                noise[i] = measured[j] * drawn.control[k, i]
            for b in range(columns.shape[1]):
                for i in range(n_genes):
                    noise[i] += columns[j, b] * drawn.batches[k, b, i]
            for s in range(len(drawn.factors)):
                of_effect, of_cells = drawn.along[k, j, s], drawn.noise[k, j, s]
                for i in range(n_genes):
                    total[i] += drawn.factors[s, i] * of_effect
                    noise[i] += drawn.factors[s, i] * of_cells
            for i in range(n_genes):
                entry, cells = place[j, i, k], np.float64(precision[j, i])
                share = cells / (cells + inverse[entry])
                if entry == N_VARIANCES:
                    share = own_share[j, i]
                centre = total[i] + share * (change[j, i] - noise[i] - total[i])
                out[j, i, k] = centre + (origin[j, i] + centre) * response


@lean
def summarise(centre, place, variance, precision, origin, level, start, out, quantile, room):
    """Fill summaries of mixtures of normals, one a row, whose components are all alike likely.

    Parameters
    ----------
    centre, place
        Means of the components, and entry of ``variance`` of their prior variance, shape
        ``(n_mixtures, n_components)``. A component's variance is one over the sum of the precision
        of the cells and that of the prior.
    variance
        Prior variances, shape ``(n_variances,)``.
    precision, origin
        Precision of the cells, and what is added to all means, shape ``(n_mixtures,)``.
    level, start
        Probabilities of quantiles, and these quantiles of the standard normal, ``(n_levels,)``.
    out
        Filled with mean, standard deviation and probability of being above 0, shape
        ``(3, n_mixtures)``. A component whose mean is less than the cells' standard error counts
        as half above 0.
    quantile
        Filled with quantiles, shape ``(n_levels, n_mixtures)``.
    room
        Room for a component's mean and one over its standard deviation, ``(2, n_components)``.
    """
    n_components = centre.shape[1]
    middle, inverse = room[0], room[1]
    for row in range(len(centre)):
        first, second, above = 0.0, 0.0, 0.0
        for k in range(n_components):
            value = origin[row] + centre[row, k]
            own = 1.0 / (precision[row] + 1.0 / variance[place[row, k]])
            middle[k], inverse[k] = value, 1.0 / sqrt(own)
            first += value
            second += own
            if value * value * precision[row] < 1.0 and precision[row] > 0.0:
                above += 0.5  # less than the cells' standard error: of no sign
            else:
                above += 0.5 * erfc(-value * inverse[k] * 0.7071067811865476)
        mean, within = first / n_components, second / n_components
        between = 0.0
        for k in range(n_components):
            between += (middle[k] - mean) ** 2
        sd = sqrt(within + between / n_components)
        out[0, row], out[1, row], out[2, row] = mean, sd, above / n_components
        for which in range(len(level)):
            # Chebyshev: no quantile is farther than sqrt((1 - p) / p) standard deviations.
            reach = sd / sqrt(min(level[which], 1.0 - level[which]))
            low, high = mean - reach, mean + reach
            value = mean + start[which] * sd
            for _ in range(_STEPS):
                below, density = _below(value, middle, inverse)
                if below < level[which]:
                    low = value
                else:
                    high = value
                new = value - (below - level[which]) / max(density, 1e-300)
                if not low < new < high:  # a step too far: halve the bracket
                    new = 0.5 * (low + high)
                step = abs(new - value)
                value = new
                if step < _CLOSE * sd:
                    break
            quantile[which, row] = value
