"""L-BFGS on a sphere, compiled with the acquisition, so that no step calls Python."""

from __future__ import annotations

import numpy as np

from nextpert.core._compile import entry, inner
from nextpert.core.causal._lookahead import evaluate

_MEMORY = 12  # steps that approximate the Hessian; 3 to 20 are usual (Liu and Nocedal 1989)
_ARMIJO = 1e-4  # fraction of the expected decrease that a step must achieve, the usual value


@inner
def _dot(one, two):
    total = 0.0
    for i in range(len(one)):
        total += one[i] * two[i]
    return total


@inner
def _add(target, factor, other):
    for i in range(len(target)):
        target[i] += factor * other[i]


@entry
def _value_on_sphere(problem, radius, z, shift, grad):
    """Return the acquisition at ``radius z / |z|``; fill the shift and the gradient in z."""
    norm = np.sqrt(_dot(z, z))
    for i in range(len(z)):
        shift[i] = radius * z[i] / norm
    # The shift does not depend on the length of z: only the gradient perpendicular to z matters.
    value = evaluate(problem, shift, grad)
    inner = 0.0
    for i in range(len(z)):
        inner += grad[i] * z[i] / norm
    for i in range(len(z)):
        grad[i] = radius * (grad[i] - inner * z[i] / norm) / norm
    return value


@inner
def _direction(grad, steps, changes, rho, stored, newest, q):
    """Fill q with the step of the two-loop recursion; the memory is a ring buffer."""
    for i in range(len(q)):
        q[i] = -grad[i]
    # Two loops (Nocedal 1980): H grad for the inverse Hessian H of the stored steps.
    alpha = np.zeros(_MEMORY)
    for j in range(stored):
        at = (newest - j) % _MEMORY
        alpha[at] = rho[at] * _dot(steps[at], q)
        _add(q, -alpha[at], changes[at])
    # The middle factor: the curvature along the newest step.
    if stored:
        scale = 1.0 / (rho[newest] * _dot(changes[newest], changes[newest]))
        for i in range(len(q)):
            q[i] *= scale
    for j in range(stored - 1, -1, -1):
        at = (newest - j) % _MEMORY
        _add(q, alpha[at] - rho[at] * _dot(changes[at], q), steps[at])


@inner
def _line_search(problem, radius, z, value, slope, length, ahead, trial, shift, fresh):
    """Backtrack along ``ahead``; fill the trial point and its gradient.

    Returns the new value, the length of the step (0 if none lowers the value) and the number of
    evaluations.
    """
    for attempt in range(30):
        for i in range(len(z)):
            trial[i] = z[i] + length * ahead[i]
        new = _value_on_sphere(problem, radius, trial, shift, fresh)
        if new <= value + _ARMIJO * length * slope:
            return new, length, attempt + 1
        # The minimum of the parabola through both values and the slope, within limits.
        fit = 2.0 * (new - value - length * slope)
        shorter = -slope * length * length / fit if fit > 0.0 else 0.5 * length
        length = min(max(shorter, 0.1 * length), 0.5 * length)
    return value, 0.0, 30


@entry
def minimise_on_sphere(problem, radius, start, max_iter, tol):
    """Minimise the acquisition over shifts of norm ``radius`` from ``start``.

    Returns the shift, its value minus the floor and the number of evaluations. The search stops
    when two consecutive steps each lower the value by less than ``tol`` of the value, or the
    gradient is at most ``tol`` times the value.
    """
    p = len(start)
    z, trial, ahead = np.empty(p), np.empty(p), np.empty(p)
    shift, grad, fresh = np.empty(p), np.empty(p), np.empty(p)
    norm = np.sqrt(_dot(start, start))
    for i in range(p):
        z[i] = start[i] / norm
    value = _value_on_sphere(problem, radius, z, shift, grad)
    evaluations = 1
    steps, changes, rho = np.empty((_MEMORY, p)), np.empty((_MEMORY, p)), np.empty(_MEMORY)
    stored, newest, quiet = 0, -1, 0
    for _ in range(max_iter):
        norm = np.sqrt(_dot(grad, grad))
        # Relative to values minus their floor, so that the noise does not hide the gradient.
        if norm <= tol * abs(value):
            break
        _direction(grad, steps, changes, rho, stored, newest, ahead)
        slope = _dot(ahead, grad)
        # Not a descent direction, by rounding: restart along the negative gradient.
        if not slope < 0.0:
            for i in range(p):
                ahead[i] = -grad[i]
            slope, stored = -norm * norm, 0
        # A quasi-Newton step has the right length; the first one turns z by 0.3 at most.
        length = 1.0 if stored else 0.3 / norm
        new, length, tried = _line_search(
            problem, radius, z, value, slope, length, ahead, trial, shift, fresh
        )
        evaluations += tried
        if length == 0.0:
            # The memory is outdated: try once more along the negative gradient.
            if stored:
                stored = 0
                continue
            break
        # The step s and the change y of the gradient are stored if s'y shows positive curvature.
        at = (newest + 1) % _MEMORY
        for i in range(p):
            steps[at, i] = length * ahead[i]
            changes[at, i] = fresh[i] - grad[i]
        curvature = _dot(steps[at], changes[at])
        size = np.sqrt(_dot(steps[at], steps[at]) * _dot(changes[at], changes[at]))
        rho[at] = 1.0 / curvature
        if curvature > 1e-12 * size:
            newest, stored = at, min(stored + 1, _MEMORY)
        quiet = quiet + 1 if value - new <= tol * abs(new) else 0
        value = new
        for i in range(p):
            z[i], grad[i] = trial[i], fresh[i]
        if quiet >= 2:
            break
    # The last trial point may differ from the best point.
    norm = np.sqrt(_dot(z, z))
    for i in range(p):
        shift[i] = radius * z[i] / norm
    return shift, value, evaluations
