"""L-BFGS on a sphere, compiled with the criterion, so that no step pays a call from Python."""

from __future__ import annotations

import numpy as np
from numba import njit

from nextpert.core.acquisition._lookahead import evaluate

_MEMORY = 12
_ARMIJO = 1e-4


@njit(cache=True, nogil=True)
def _value_on_sphere(problem, radius, mask, z, shift, grad):
    """Criterion and its gradient by z at ``radius z / |z|``, entries off the mask held at zero."""
    norm = np.sqrt(np.sum(z * z))
    for i in range(len(z)):
        shift[i] = radius * z[i] / norm
    value = evaluate(problem, shift, grad)
    inner = 0.0
    for i in range(len(z)):
        if not mask[i]:
            grad[i] = 0.0
        inner += grad[i] * z[i] / norm
    for i in range(len(z)):
        grad[i] = radius * (grad[i] - inner * z[i] / norm) / norm if mask[i] else 0.0
    return value


@njit(cache=True, nogil=True)
def _direction(grad, steps, changes, rho, stored, newest):
    """Two-loop recursion; the memory is a ring."""
    q = -grad
    alpha = np.zeros(_MEMORY)
    for j in range(stored):
        at = (newest - j) % _MEMORY
        alpha[at] = rho[at] * np.sum(steps[at] * q)
        q -= alpha[at] * changes[at]
    if stored:
        q /= rho[newest] * np.sum(changes[newest] * changes[newest])
    for j in range(stored - 1, -1, -1):
        at = (newest - j) % _MEMORY
        beta = rho[at] * np.sum(changes[at] * q)
        q += (alpha[at] - beta) * steps[at]
    return q


@njit(cache=True, nogil=True)
def minimise_on_sphere(problem, radius, mask, start, max_iter, tol):
    """Minimise the criterion over shifts of norm ``radius`` from ``start``.

    Returns the shift, its value and the number of evaluations. Stops where a step lowers the
    value by less than ``tol`` of itself, or the scaled gradient falls below ``tol``.
    """
    p = len(start)
    z = np.where(mask, start, 0.0)
    z /= np.sqrt(np.sum(z * z))
    shift, grad, fresh = np.empty(p), np.empty(p), np.empty(p)
    value = _value_on_sphere(problem, radius, mask, z, shift, grad)
    evaluations = 1
    steps, changes, rho = np.empty((_MEMORY, p)), np.empty((_MEMORY, p)), np.empty(_MEMORY)
    stored, newest, quiet = 0, -1, 0
    for _ in range(max_iter):
        norm = np.sqrt(np.sum(grad * grad))
        if norm <= tol * abs(value):
            break
        ahead = _direction(grad, steps, changes, rho, stored, newest)
        slope = np.sum(ahead * grad)
        if not slope < 0.0:
            ahead, slope, stored = -grad, -norm * norm, 0
        length = 1.0 if stored else 0.3 / norm
        moved, new = False, value
        for _ in range(30):
            candidate = z + length * ahead
            new = _value_on_sphere(problem, radius, mask, candidate, shift, fresh)
            evaluations += 1
            if new <= value + _ARMIJO * length * slope:
                moved = True
                break
            fit = 2.0 * (new - value - length * slope)
            trial = -slope * length * length / fit if fit > 0.0 else 0.5 * length
            length = min(max(trial, 0.1 * length), 0.5 * length)
        if not moved:
            if stored:  # a stale memory: try once more along the gradient
                stored = 0
                continue
            break
        change = fresh - grad
        step = length * ahead
        curvature = np.sum(step * change)
        if curvature > 1e-12 * np.sqrt(np.sum(step * step) * np.sum(change * change)):
            newest = (newest + 1) % _MEMORY
            stored = min(stored + 1, _MEMORY)
            steps[newest], changes[newest], rho[newest] = step, change, 1.0 / curvature
        quiet = quiet + 1 if value - new <= tol * abs(new) else 0
        z, value = z + step, new
        grad[:] = fresh
        if quiet >= 2:
            break
    norm = np.sqrt(np.sum(z * z))
    return radius * z / norm, value, evaluations
