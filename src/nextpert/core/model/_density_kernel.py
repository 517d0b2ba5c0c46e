"""Compiled densities of residuals under every scale and tail of own parts (equation 15).

Most densities are computed in single precision, which takes half the time. Their relative error is
1e-6, because no exponent is below -40: genes with larger exponents at any variance are steep, and
have all densities in double precision. Products over genes, and logarithms, are in double
precision.
"""

# mypy: disable-error-code="no-untyped-def,assignment"
# (compiled functions: numba finds the types)
from __future__ import annotations

from math import log, sqrt

import numpy as np

from nextpert.core._compile import exp, fast, short_exp

# Numbers of scales and tails: constants, so that loops over them stay in registers.
N_SCALES, N_TAILS = 17, 14
N_VARIANCES = N_SCALES + N_TAILS - 1
N_DENSITIES = 32  # with places that are not used, so that loops fill whole registers
_STEEP = 40.0  # greatest exponent in single precision: no sum over tails is below 1e-38
_TOGETHER = 8  # number of sums over tails, each above 1e-38, multiplied at a time
# Places of the exponent of a number in double precision, its offset, and the other digits.
_SHIFT, _OFFSET, _MANTISSA = np.int64(52), np.int64(1023), np.int64((1 << 52) - 1)
_LOG_TWO = log(2.0)


@fast
def is_steep(residual, noise):
    """Whether a gene's densities differ too much between variances for single precision."""
    # r^2 / 2 V, V the smallest variance: not smaller than any exponent.
    return residual * residual > 2.0 * _STEEP * noise


@fast
def fill_steep(residual, noise, wide, doubled, variance, density):
    """Fill the density of a gene's residual at each variance, relative to the largest variance.

    The variance of noise is ``wide`` with probability ``doubled``, and otherwise ``noise``.
    """
    lowest = 1.0 / (wide + variance[N_VARIANCES - 1])
    half = 0.5 * residual * residual
    # N(left; 0, V + T) up to a factor: exp(-left^2 / 2 (V + T)) / sqrt(V + T).
    for e in range(N_VARIANCES):
        inverse = 1.0 / (noise + variance[e])
        density[e] = exp(half * (lowest - inverse)) * sqrt(inverse)
    if doubled > 0.0:
        for e in range(N_VARIANCES):
            inverse = 1.0 / (wide + variance[e])
            other = exp(half * (lowest - inverse)) * sqrt(inverse)
            density[e] += doubled * (other - density[e])


@fast
def fill_densities(residual, noise, wide, doubled, variance, density):
    """Do as :func:`fill_steep` in single precision, for all ``N_DENSITIES`` variances."""
    noise, wide = np.float32(noise), np.float32(wide)
    lowest = np.float32(1.0) / (wide + variance[N_VARIANCES - 1])
    half, share = np.float32(0.5 * residual * residual), np.float32(doubled)
    for e in range(N_DENSITIES):
        inverse = np.float32(1.0) / (noise + variance[e])
        density[e] = short_exp(half * (lowest - inverse)) * sqrt(inverse)
    if doubled > 0.0:
        for e in range(N_DENSITIES):
            inverse = np.float32(1.0) / (wide + variance[e])
            other = short_exp(half * (lowest - inverse)) * sqrt(inverse)
            density[e] += share * (other - density[e])


@fast
def add_logs(density, tail, chance, product, exponent):
    """Add the logarithm of every scale's likelihood, summed over tails (equation 15)."""
    n_genes = len(density)
    for m in range(N_SCALES):
        product[m], exponent[m] = 1.0, 0
    # sum_i log sum_t pi_t N(r_i; 0, V_i + 2^(m + t)): a product, which is kept between 1 and 2 by
    # moving its exponent to a sum.
    for i in range(n_genes):
        for m in range(N_SCALES):
            total = np.float32(0.0)
            for t in range(N_TAILS):
                total += tail[t] * density[i, m + t]
            product[m] *= np.float64(total)
        if i % _TOGETHER == _TOGETHER - 1:
            for m in range(N_SCALES):
                bits = np.float64(product[m]).view(np.int64)
                exponent[m] += (bits >> _SHIFT) - _OFFSET
                mantissa = (bits & _MANTISSA) | (_OFFSET << _SHIFT)
                product[m] = np.int64(mantissa).view(np.float64)
    for m in range(N_SCALES):
        chance[m] += np.log(product[m]) + exponent[m] * _LOG_TWO


@fast
def add_steep(density, tail, chance):
    """Add the logarithm of every scale's likelihood for one gene."""
    for m in range(N_SCALES):
        total = 0.0
        for t in range(N_TAILS):
            total += tail[t] * density[m + t]
        chance[m] += np.log(total)


@fast
def draw_tail(density, tail, uniform):
    """Draw a tail with probability proportional to its weight times its density.

    The second result is uniform between 0 and 1, independent of the tail.
    """
    # P(t) ~ pi_t N(r; 0, V + 2^(m + t)), by inverse transform.
    total = 0.0
    for t in range(N_TAILS):
        total += tail[t] * density[t]
    remaining, t = uniform * total, 0
    while t < N_TAILS - 1:
        remaining -= tail[t] * density[t]
        if remaining <= 0:
            break
        t += 1
    # The place of the random number between the limits of its tail.
    if remaining > 0:
        return t, remaining / (tail[t] * density[t])
    return t, 1.0 + remaining / (tail[t] * density[t])


@fast
def is_doubled(residual, noise, wide, doubled, uniform):
    """Draw whether the variance of noise is ``wide``, given both total variances."""
    odds = doubled / (1.0 - doubled) * sqrt(noise / wide)
    odds *= exp(min(0.5 * residual * residual * (1.0 / noise - 1.0 / wide), 80.0))
    return uniform * (1.0 + odds) < odds
