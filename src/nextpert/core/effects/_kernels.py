"""Compiled loops over perturbations and nodes: departures from a graph, mixtures of variances."""

from __future__ import annotations

import numpy as np

from nextpert.core._compile import lean
from nextpert.core.posterior._kernels import fill_row

_SMALL = 1e-250  # a sum of chances below this is not exact


@lean
def add_means(indptr, indices, vptr, mptr, mean, shift, count, xtx, xty, yty, design):
    """Add means of environments to the sums of equation 5 in place.

    Environment j counts for ``count[j, i]`` cells at node i. ``mean`` is (n_environments, p + n),
    with the n fixed columns after the nodes; ``design`` is room for the longest design row.
    """
    for j in range(len(mean)):
        for i in range(len(indptr) - 1):
            k = count[j, i]
            if k == 0.0:
                continue
            d = fill_row(indptr, indices, vptr, i, mean[j], design)
            response = mean[j, i] - shift[j, i]
            for a in range(d):
                xty[vptr[i] + a] += k * design[a] * response
                line = mptr[i] + a * d
                for b in range(d):
                    xtx[line + b] += k * design[a] * design[b]
            yty[i] += k * response * response


@lean
def departures(indptr, indices, vptr, mptr, weights, cov, mean, shift, away, leverage, design):
    """Fill ``away = x_i - a_i - z'm`` and ``leverage = z'M z`` of equation 6.

    Both, as ``shift``, are (n_environments, p); ``design`` is room for the longest design row z.
    """
    for j in range(len(mean)):
        for i in range(len(indptr) - 1):
            d = fill_row(indptr, indices, vptr, i, mean[j], design)
            away[j, i] = mean[j, i] - shift[j, i]
            leverage[j, i] = 0.0
            for a in range(d):
                away[j, i] -= design[a] * weights[vptr[i] + a]
                line = mptr[i] + a * d
                s = 0.0
                for b in range(d):
                    s += cov[line + b] * design[b]
                leverage[j, i] += design[a] * s


@lean
def mixture_step(square, n, tau2, weights, own, share, spare, counts, work):
    """Fill shares ``w`` (equation 6) under the mixture of equation 8; return its part of the bound.

    ``share`` is the mean over the components; ``spare`` holds the variance within and between them.
    ``square`` is ``E[r^2 / sigma^2]``. ``own`` is the prior variance over ``sigma^2`` of those
    whose prior is not the mixture, nan elsewhere; they do not enter ``counts``. ``work`` is room
    for two numbers a component, (2, n_components).
    """
    n_components = len(tau2)
    chance, part = work[0], work[1]
    bound = 0.0
    for j in range(square.shape[0]):
        for i in range(square.shape[1]):
            cells = n[j, i]
            if not np.isnan(own[j, i]):
                grown = 1.0 + cells * own[j, i]
                share[j, i] = cells * own[j, i] / grown
                spare[j, i] = own[j, i] / grown
                bound -= 0.5 * np.log(grown) + 0.5 * square[j, i] * cells / grown
                continue
            # The widest component has the least negative exponent: over it none is above 0.
            half = 0.5 * square[j, i] * cells
            least = 1.0 / (1.0 + cells * tau2[n_components - 1])
            top, total = -half * least, 0.0
            for k in range(n_components):
                part[k] = 1.0 / (1.0 + cells * tau2[k])
                chance[k] = weights[j, k] * np.sqrt(part[k]) * np.exp(-half * (part[k] - least))
                total += chance[k]
            if total < _SMALL:  # the widest has next to no weight: by logarithms
                top, total = -np.inf, 0.0
                for k in range(n_components):
                    chance[k] = np.log(weights[j, k]) + 0.5 * np.log(part[k]) - half * part[k]
                    top = max(top, chance[k])
                for k in range(n_components):
                    chance[k] = np.exp(chance[k] - top)
                    total += chance[k]
            w, ww, s = 0.0, 0.0, 0.0
            for k in range(n_components):
                r = chance[k] / total
                left = tau2[k] * part[k]
                w += r * cells * left
                ww += r * (cells * left) ** 2
                s += r * left
                counts[j, k] += r
            share[j, i], spare[j, i] = w, s + max(ww - w * w, 0.0) * square[j, i]
            bound += top + np.log(total)
    return bound


@lean
def add_within(indptr, indices, vptr, mptr, scatter, fixed, xtx, xty, yty, place):
    """Add the scatter within environments, W of equation 5: nothing for the intercept.

    ``scatter`` is (p, p) of the nodes; ``fixed`` (n, p + n) that of n fixed columns with the nodes
    and then with one another. ``place`` is room for the numbers of a design row's columns.
    """
    p = len(indptr) - 1
    for i in range(p):
        first, last = indptr[i], indptr[i + 1]
        d = vptr[i + 1] - vptr[i]
        k = d - (last - first)
        for a in range(1, k):
            place[a] = p + a - 1
        for a in range(last - first):
            place[k + a] = indices[first + a]
        for a in range(min(k, 1), d):
            j = place[a]
            xty[vptr[i] + a] += scatter[j, i] if j < p else fixed[j - p, i]
            row = mptr[i] + a * d
            for b in range(min(k, 1), d):
                other = place[b]
                if j >= p:
                    xtx[row + b] += fixed[j - p, other]
                else:
                    xtx[row + b] += scatter[j, other] if other < p else fixed[other - p, j]
        yty[i] += scatter[i, i]
