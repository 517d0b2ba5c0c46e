"""Compiled combination of the means of guides whose departures are heavy-tailed (equation 7)."""

from __future__ import annotations

from math import exp, log, sqrt

from nextpert.core._compile import lean

N_POINTS = 240  # maximum number of points of the quadrature
_STEP = 0.5  # distance of points, in standard errors of the mean if no guide deviates
_BEYOND = 4.0  # standard errors of a guide by which points exceed the outermost guides


@lean
def combine(offset, noise, sizes, weights, room, centre, spread):
    """Fill the mean and the variance of the effect that guides share, gene by gene.

    Guide e has the mean ``offset[e]`` and the sampling variance ``noise[e]``, and departs from the
    shared effect by a normal mixture with variances ``sizes`` and frequencies ``weights``. Under a
    flat prior, the density of the shared effect is the product of the guides' densities. Its
    moments are sums over an even grid.

    Parameters
    ----------
    offset, noise
        Shape ``(n_guides, n_genes)``.
    sizes, weights
        Shape ``(n_sizes,)``, the smallest size first.
    room
        Work array, shape ``(N_POINTS,)``.
    centre, spread
        Filled, shape ``(n_genes,)``.
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
        for k in range(count):
            room[k] = 0.0
        for e in range(n_guides):
            for k in range(count):
                square = (offset[e, i] - low - k * step) ** 2
                density = 1e-300
                for m in range(len(sizes)):
                    total = noise[e, i] + sizes[m]
                    density += weights[m] * exp(-0.5 * square / total) / sqrt(total)
                room[k] += log(density)
        highest = -1e300
        for k in range(count):
            highest = max(highest, room[k])
        whole, first, second = 0.0, 0.0, 0.0
        for k in range(count):
            chance, point = exp(room[k] - highest), low + k * step
            whole += chance
            first += chance * point
            second += chance * point * point
        first /= whole
        centre[i] = first
        # Not below the variance if no guide deviates: a grid is too coarse for a narrow density.
        spread[i] = max(second / whole - first * first, 1.0 / precision)
