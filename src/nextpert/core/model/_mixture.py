"""Mixtures over prior variances: their weights, and loops over effects for quantiles and draws."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nextpert.core._compile import inner, lean
from nextpert.core.model._kernels import fill_row

Array = NDArray[np.float64]
Single = NDArray[np.float32]

# Pairs of perturbation and gene that the weights of a mixture are learned from at most.
ENOUGH_PAIRS = 100_000
_MAX_NEWTON = 100  # steps; some 20 are needed
_TOLERANCE = 1e-4  # of the logarithm of the density


@inner
def fill_weights(square, cells, tau2, weights, chance):
    """Fill the weights of the prior variances, R of equation 8, times their sum; return that sum.

    ``square`` is ``E[r^2 / sigma^2]`` of one shift, ``cells`` those that count for it; ``chance``
    has one number per component. Sums of small chances are not exact, so all are over the largest,
    the logarithm of which is returned first.
    """
    top = -np.inf
    for k in range(len(tau2)):
        grown = 1.0 + cells * tau2[k]
        chance[k] = np.log(weights[k]) - 0.5 * np.log(grown) - 0.5 * square * cells / grown
        top = max(top, chance[k])
    total = 0.0
    for k in range(len(tau2)):
        chance[k] = np.exp(chance[k] - top)
        total += chance[k]
    return top, total


def best_weights(chance: Array, prior: Array, start: Array) -> Array:
    r"""Return the weights of a mixture that maximise a posterior density, by Newton's method.

    That is :math:`\sum_i \log \sum_k w_k c_{ik} + \sum_k a_k \log w_k`, which is concave. Steps of
    EM are so slow where components are hard to distinguish that they stay near where they start.
    The sum of the weights is 1 at the maximum of that less ``total`` times their sum (Kim et al.
    2020, doi:10.1080/10618600.2019.1689985).

    Parameters
    ----------
    chance
        Densities of every component, ``(n, n_components)``; a factor common to a row is no matter.
    prior, start
        The counts ``a``, above 0, and weights to start from, ``(n_components,)``.
    """
    weights, total = start, len(chance) + prior.sum()

    def value(x: Array) -> float:
        return float(np.log(chance @ x).sum() + prior @ np.log(x) - total * x.sum())

    now = value(weights)
    for _ in range(_MAX_NEWTON):
        part = chance / (chance @ weights)[:, None]
        slope = part.sum(axis=0) + prior / weights - total
        step = np.linalg.solve(part.T @ part + np.diag(prior / weights**2), slope)
        gain, length = float(slope @ step), 1.0
        if gain < _TOLERANCE:
            break
        falling = step < 0
        if falling.any():
            length = min(1.0, 0.99 * float((-weights[falling] / step[falling]).min()))
        while (new := value(weights + length * step)) < now + 0.1 * length * gain:
            length *= 0.5
        weights, now = weights + length * step, new
    return weights / weights.sum()


@lean
def fill_chances(
    square: Array, n: Array, tau2: Array, weights: Array, own: Array, below: Single, room: Array
) -> None:
    """Fill the chance of each prior variance and all smaller ones, cells seen (equation 8).

    ``square`` is ``E[r^2 / sigma^2]``; it, ``n`` and ``own`` are (n_perturbations, p), ``below``
    has one row per component more. Where a variance is given in ``own`` nothing is filled. ``room``
    holds one number per component.
    """
    for j in range(square.shape[0]):
        for i in range(square.shape[1]):
            if not np.isnan(own[j, i]):
                continue
            _, whole = fill_weights(square[j, i], n[j, i], tau2, weights[j], room)
            total = 0.0
            for k in range(len(tau2)):
                total += room[k]
                below[j, i, k] = total
                below[j, i, k] /= whole


@lean
def draw_components(
    below: Single, n: Array, tau2: Array, own: Array, uniform: Array, share: Array, spare: Array
) -> None:
    """Fill share and spare variance of one component per perturbation and node, by ``uniform``."""
    last = len(tau2) - 1
    for j in range(n.shape[0]):
        for i in range(n.shape[1]):
            variance = own[j, i]
            if np.isnan(variance):
                k = 0
                while k < last and uniform[j, i] >= below[j, i, k]:
                    k += 1
                variance = tau2[k]
            spare[j, i] = variance / (1.0 + n[j, i] * variance)
            share[j, i] = n[j, i] * spare[j, i]


@lean
def add_scores(below: Single, own: Array, middle: Array, sums: Array, squares: Array) -> None:
    """Add the score of every shift to the sum of its perturbation, its square to that of its node.

    The score is the mean over the components of ``middle``, by their chances ``below``.
    """
    for j in range(below.shape[0]):
        for i in range(below.shape[1]):
            if not np.isnan(own[j, i]):
                continue
            score, before = 0.0, 0.0
            for k in range(len(middle)):
                score += middle[k] * (below[j, i, k] - before)
                before = below[j, i, k]
            sums[j] += score
            squares[i] += score**2


_SMALL = 1e-4  # components of less weight are skipped
_ROOT_HALF = math.sqrt(0.5)
_ROOT_2PI = math.sqrt(2.0 * math.pi)


@lean
def own_terms(
    indptr, indices, vptr, mptr, coefficients, cov, noise_var, precision, tau2, weights, own, n,
    mean, shift, effect, chance, centre, spread, total, work,
):  # fmt: skip
    """Fill what every node's own equation adds to the effect on it, as a mixture.

    That is equation 6, carried on to the effect. ``chance`` are the weights of the components,
    ``centre`` their means less that of all, and ``spread`` their variances
    ``sigma^2 ((d - w z)' M (d - w z) + tau^2 / (1 + n tau^2))``: d the effect on the parents, z
    their means in cells, w the share that is believed. ``total`` is the variance of all together. A
    given prior variance, ``own``, is the first component. ``work`` is room for two of the longest
    design rows.
    """
    n_components = len(tau2)
    design, change = work[0], work[1]
    for j in range(len(mean)):
        for i in range(len(indptr) - 1):
            d = fill_row(indptr, indices, vptr, i, mean[j], design)
            first = d - (indptr[i + 1] - indptr[i])
            for a in range(d):
                change[a] = 0.0 if a < first else effect[j, indices[indptr[i] + a - first]]
            away = mean[j, i] - shift[j, i]
            dd, dz, zz = 0.0, 0.0, 0.0
            for a in range(d):
                away -= design[a] * coefficients[vptr[i] + a]
                line = mptr[i] + a * d
                by_design, by_change = 0.0, 0.0
                for b in range(d):
                    by_design += cov[line + b] * design[b]
                    by_change += cov[line + b] * change[b]
                dd += change[a] * by_change
                dz += change[a] * by_design
                zz += design[a] * by_design
            cells, given = n[j, i], not np.isnan(own[j, i])
            if given:
                for k in range(n_components):
                    chance[j, i, k] = 1.0 if k == 0 else 0.0
            else:
                square = away * away * precision[i] + zz
                _, whole = fill_weights(square, cells, tau2, weights[j], chance[j, i])
                for k in range(n_components):
                    chance[j, i, k] /= whole
            share = 0.0
            for k in range(n_components):
                prior = own[j, i] / noise_var[i] if given else tau2[k]
                share += chance[j, i, k] * cells * prior / (1.0 + cells * prior)
            total[j, i] = 0.0
            for k in range(n_components):
                prior = own[j, i] / noise_var[i] if given else tau2[k]
                left = prior / (1.0 + cells * prior)
                w = cells * left
                off = (w - share) * away
                variance = noise_var[i] * max(dd - 2.0 * w * dz + w * w * zz + left, 0.0)
                centre[j, i, k], spread[j, i, k] = off, variance
                total[j, i] += chance[j, i, k] * (variance + off * off)


@lean
def add_mixture(chance, centre, spread, effect, rest, sum_chance, sum_centre, sum_spread):
    """Add a graph's mixture in place, component by component with its mean and variance."""
    for j in range(chance.shape[0]):
        for i in range(chance.shape[1]):
            for k in range(chance.shape[2]):
                r = chance[j, i, k]
                if r == 0.0:
                    continue
                sum_chance[j, i, k] += r
                part = r / sum_chance[j, i, k]
                off = effect[j, i] + centre[j, i, k] - sum_centre[j, i, k]
                sum_centre[j, i, k] += part * off
                now = spread[j, i, k] + rest[j, i] + (1.0 - part) * off * off
                sum_spread[j, i, k] += part * (now - sum_spread[j, i, k])


@inner
def cumulative(x, weight, mean, sd, m):
    """Return ``P(X <= x)`` and the density of a mixture; with ``sd`` 0 a component is a point."""
    below, density = 0.0, 0.0
    for k in range(m):
        if sd[k] == 0.0:
            if x >= mean[k]:
                below += weight[k]
            continue
        z = (x - mean[k]) / sd[k]
        below += weight[k] * 0.5 * math.erfc(-z * _ROOT_HALF)
        density += weight[k] * math.exp(-0.5 * z * z) / (sd[k] * _ROOT_2PI)
    return below, density


@inner
def quantile(q, z, weight, mean, sd, m, start, tolerance):
    """Return where a mixture reaches ``q``, the normal quantile of which is ``z``."""
    low, high = np.inf, -np.inf
    for k in range(m):
        low, high = min(low, mean[k] + z * sd[k]), max(high, mean[k] + z * sd[k])
    for k in range(m):
        if sd[k] == 0.0 and low <= mean[k] <= high:
            at = cumulative(mean[k], weight, mean, sd, m)[0]
            if at < q:
                low = mean[k]
            elif at - weight[k] < q:
                return mean[k]
            else:
                high = mean[k]
    x = min(max(start, low), high)
    last = high - low
    for _ in range(100):
        if high - low <= tolerance:
            break
        below, density = cumulative(x, weight, mean, sd, m)
        if below < q:
            low = x
        else:
            high = x
        step = (q - below) / density if density > 0.0 else np.inf
        if not (low < x + step < high) or 2.0 * abs(step) > last:
            step = 0.5 * (low + high) - x
        x += step
        last = abs(step)
        if last <= tolerance:
            break
    return x


@lean
def summarise(
    chance, centre, spread, tau2, cells, sampling, q, z, mean, sd, lower, upper, lfsr, work
):
    r"""Fill mean, sd, the quantiles ``q`` and ``1 - q``, and the local false sign rate.

    A component whose effects are too small for these cells to tell from 0 says nothing of the
    sign: the smallest ones take up chance that belongs to no effect at all, since both fit the
    cells alike. Of component ``k`` the share :math:`2 \Phi(-r_k)` counts against both signs,
    :math:`r_k^2 = c^2 / s^2 + n \tau_k^2` the mean square of its effects in units of the
    ``sampling`` error ``s`` of the cells' mean: ``c`` is what is expected without a shift (0
    unless graph or predictors expect an effect), ``n`` the ``cells``. So no shift at all, which
    is ``k = 0``, has no sign where nothing is expected. Where ``sampling`` is 0 (no cells, or a
    prior of its own) the sign is that of the mixture. ``work`` is room for four numbers a
    component, (4, n_components).
    """
    n_components = chance.shape[2]
    weight, at, scale, unclear = work[0], work[1], work[2], work[3]
    for j in range(chance.shape[0]):
        for i in range(chance.shape[1]):
            total, first, second = 0.0, 0.0, 0.0
            for k in range(n_components):
                total += chance[j, i, k]
                first += chance[j, i, k] * centre[j, i, k]
            first /= total
            for k in range(n_components):
                off = centre[j, i, k] - first
                second += chance[j, i, k] * (spread[j, i, k] + off * off)
            mean[j, i], sd[j, i] = first, math.sqrt(second / total)
            m, kept, error = np.int64(0), 0.0, sampling[j, i]
            for k in range(n_components):
                if chance[j, i, k] > _SMALL * total:
                    if error > 0.0:
                        square = (centre[j, i, 0] / error) ** 2 + cells[j, i] * tau2[k]
                        unclear[m] = math.erfc(math.sqrt(square) * _ROOT_HALF)
                    else:
                        unclear[m] = 0.0
                    weight[m], at[m] = chance[j, i, k], centre[j, i, k]
                    scale[m] = math.sqrt(spread[j, i, k])
                    kept += weight[m]
                    m += 1
            negative, positive, nil = 0.0, 0.0, 1e-9 * sd[j, i]
            for k in range(m):
                weight[k] /= kept
                if scale[k] <= nil:  # a point; what rounding leaves of 0 has no sign
                    up = 1.0 if at[k] >= -nil else 0.0
                    down = 1.0 if at[k] <= nil else 0.0
                else:
                    up = 0.5 * math.erfc(-at[k] / scale[k] * _ROOT_HALF)
                    down = 1.0 - up
                positive += weight[k] * max(up, unclear[k])
                negative += weight[k] * max(down, unclear[k])
            lfsr[j, i] = min(negative, positive)
            reach, tolerance = z * sd[j, i], 1e-5 * sd[j, i]
            lower[j, i] = quantile(q, z, weight, at, scale, m, first + reach, tolerance)
            upper[j, i] = quantile(1.0 - q, -z, weight, at, scale, m, first - reach, tolerance)
