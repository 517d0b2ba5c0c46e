"""How far effects add up, and how large what departs from that is: by evidence and priors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from scipy.optimize import minimize

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.effects._member_algebra import Measured

    Array = NDArray[np.float64]

# Weak priors. Strength: effects add up, give or take .3. Standard deviations of v and rest, in
# units of the scale: log-normal about .3, by a factor of 2. They speak where little is measured.
_STRENGTH = (1.0, 0.3)
_SD = (float(np.log(0.3)), float(np.log(2.0)))
_BOUNDS = ((-0.5, 2.5), (-6.0, 3.0), (-6.0, 3.0))  # of the strength and the logarithms
_NODES = 5  # of the quadrature over the strength
_MOST_DIMS = 128  # dimensions that are learned from


def by_evidence(data: Measured) -> tuple[float, float, Array, Array]:
    """Return the two standard deviations, and nodes and weights of the strength."""
    step = -(-len(data.alone) // _MOST_DIMS)
    parts = ("alone", "variance", "effects", "noise")
    some = replace(data, **{part: getattr(data, part)[::step] for part in parts})

    def density(strength: float, member: float, rest: float) -> float:
        prior = ((strength - _STRENGTH[0]) / _STRENGTH[1]) ** 2
        prior += ((member - _SD[0]) / _SD[1]) ** 2 + ((rest - _SD[0]) / _SD[1]) ** 2
        evidence = some.solved(strength, float(np.exp(member)), float(np.exp(rest))).log_evidence()
        return evidence - 0.5 * prior

    start = np.array([_STRENGTH[0], _SD[0], _SD[0]])
    best = minimize(lambda at: -density(*at), start, method="L-BFGS-B", bounds=_BOUNDS)
    mode, member, rest = (float(x) for x in best.x)
    near = 1e-3
    sides = density(mode + near, member, rest) + density(mode - near, member, rest)
    curvature = max((2 * density(mode, member, rest) - sides) / near**2, _STRENGTH[1] ** -2)
    nodes, weights = hermegauss(_NODES)
    strengths = mode + nodes / np.sqrt(curvature)
    log = np.array([density(s, member, rest) for s in strengths.tolist()])
    log += np.log(weights) + nodes**2 / 2
    chances = np.exp(log - log.max())
    return float(np.exp(member)), float(np.exp(rest)), strengths, chances / chances.sum()
