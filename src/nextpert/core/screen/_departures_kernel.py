"""Compiled combination of the means of guides whose departures are heavy-tailed (equation 7)."""

from __future__ import annotations

from math import log, sqrt

from nextpert.core._compile import exp, fast, lean

N_POINTS = 240  # maximum number of points of the quadrature
_STEP = 0.75  # distance of points, in standard errors of the mean if no guide deviates
_BEYOND = 3.5  # standard errors of a guide by which points exceed the outermost guides
_TOGETHER = 8  # number of densities that are multiplied before taking the logarithm
_MIN_DENSITY = 1e-30  # least density of a guide at a point, so that eight of them are above 1e-300


@fast
def _add_density(x, noise, sizes, weights, low, step, density):
    """Multiply the density at every point by that of a guide: a mixture of normals about it."""
    for k in range(density.shape[1]):
        density[1, k] = _MIN_DENSITY
    for m in range(len(sizes)):
        half = -0.5 / (noise + sizes[m])
        height = weights[m] / sqrt(noise + sizes[m])
        for k in range(density.shape[1]):
            difference = x - low - k * step
            density[1, k] += height * exp(half * difference * difference)
    for k in range(density.shape[1]):
        density[0, k] *= density[1, k]


@lean
def combine(offset, noise, sizes, weights, room, centre, spread, evidence):
    """Fill the moments of the effect that guides share, and their evidence, gene by gene.

    Guide e has the mean ``offset[e]`` and the sampling variance ``noise[e]``, and departs from the
    shared effect by a normal mixture with variances ``sizes`` and frequencies ``weights``. Under a
    flat prior, the density of the shared effect is the product of the guides' densities. Its
    moments, and its integral, are sums over an even grid.

    Parameters
    ----------
    offset, noise
        Shape ``(n_guides, n_genes)``.
    sizes, weights
        Shape ``(n_sizes,)``, the smallest size first.
    room
        Work array, shape ``(3, N_POINTS)``.
    centre, spread, evidence
        Filled with the mean, the variance, and the logarithm of the integral of the product, in
        which every normal lacks its factor ``1 / sqrt(2 pi)``, shape ``(n_genes,)``.
    """
    n_guides, n_genes = offset.shape
    for i in range(n_genes):
        precision, low, high = 0.0, 1e300, -1e300
        for e in range(n_guides):
            total = noise[e, i] + sizes[0]
            precision += 1.0 / total
            low = min(low, offset[e, i] - _BEYOND * sqrt(total))
            high = max(high, offset[e, i] + _BEYOND * sqrt(total))
        count = min(int((high - low) * sqrt(precision) / _STEP) + 2, N_POINTS)
        step = (high - low) / (count - 1)
        # log prod_e sum_m pi_m N(x_e; theta, V_e + T_m) at every point.
        logs, density = room[0, :count], room[1:, :count]
        for k in range(count):
            logs[k] = 0.0
            density[0, k] = 1.0
        for e in range(n_guides):
            _add_density(offset[e, i], noise[e, i], sizes, weights, low, step, density)
            if e % _TOGETHER == _TOGETHER - 1 or e == n_guides - 1:
                for k in range(count):
                    logs[k] += log(density[0, k])
                    density[0, k] = 1.0
        highest = -1e300
        for k in range(count):
            highest = max(highest, logs[k])
        total_mass, first, second = 0.0, 0.0, 0.0
        for k in range(count):
            chance, point = exp(logs[k] - highest), low + k * step
            total_mass += chance
            first += chance * point
            second += chance * point * point
        first /= total_mass
        centre[i] = first
        evidence[i] = highest + log(total_mass * step)
        # Not below the variance if no guide deviates: a grid is too coarse for a narrow density.
        spread[i] = max(second / total_mass - first * first, 1.0 / precision)
