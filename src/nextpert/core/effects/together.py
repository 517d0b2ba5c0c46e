"""How far the sizes of a perturbation's shifts go together, learned from the screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from nextpert.core.effects._component_kernel import add_scores, fill_chances
from nextpert.core.effects.shift_prior import TAU2, departure_squares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.effects.shift_prior import ShiftPrior
    from nextpert.core.posterior.dag_blr import DagBlr

    Array = NDArray[np.float64]

_GRID = np.linspace(0.0, 1.0, 101)  # of the correlation: far finer than screens tell it


def learn_together(prior: ShiftPrior, posterior: DagBlr) -> float:
    r"""Return how far the sizes of shifts of one perturbation go together, 0 to 1.

    The component of each shift is that which a standard normal picks by the weights. For two genes
    of a perturbation these normals have the correlation ``s``: 0 where every gene draws its own
    size, 1 where a perturbation has one. Given its departure a gene's normal has the expectation
    ``m``, of mean square ``v_i`` over perturbations. So for small ``s`` (large ones are found too
    large by up to .2) the sum :math:`\sum_i m_{ij}` of a perturbation has the variance

    .. math:: \sum_i v_i + s \Big( \big(\sum_i v_i\big)^2 - \sum_i v_i^2 \Big).

    Taken as normal, these sums are the likelihood of ``s``. All ``s`` are as likely before, and
    the expectation is returned: a half where the screen does not tell. What is expected of a gene
    uses the mean weights of all perturbations: their own have taken up what is common.

    Parameters
    ----------
    prior
        What was expected of the shifts, and the means of the cells.
    posterior
        The posterior of the weights of a graph. On a graph that lacks arcs sizes go together more.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.effects.shift_prior import TAU2, ShiftPrior
    >>> from nextpert.core.effects.together import learn_together
    >>> blr = DagBlr(Dag.from_edges(40, []), noise_var=1.0, intercept=False)
    >>> rng = np.random.default_rng(0)
    >>> size = np.repeat(rng.choice([0.1, 2.0], size=(30, 1)), 40, axis=1)
    >>> for sizes in (size, rng.permuted(size.ravel()).reshape(size.shape)):
    ...     x, flat = sizes * rng.normal(size=size.shape), np.full((30, len(TAU2)), 1 / len(TAU2))
    ...     zero, none = np.zeros_like(x), np.full(x.shape, np.nan)
    ...     prior = ShiftPrior(np.full(30, 100.0), x, zero + 1, zero, zero, none, flat)
    ...     print(learn_together(prior, blr) > 0.5)
    True
    False
    """
    seen = np.flatnonzero((prior.n > 0) & np.isnan(prior.own).any(axis=1))
    prior = prior.rows(seen)
    own = prior.own / posterior.noise_var
    common = prior.weights.sum(axis=0) / max(len(seen), 1)
    square = departure_squares(posterior, prior.design, prior.shifts(posterior))
    below = np.empty((*square.shape, len(TAU2)), np.float32)
    weights = np.ascontiguousarray(np.broadcast_to(common, prior.weights.shape))
    fill_chances(square, prior.counted(), TAU2, weights, own, below, np.empty((2, len(TAU2))))
    sums, squares = np.zeros(len(seen)), np.zeros(square.shape[1])
    add_scores(below, own, _middles(common), sums, squares)
    drawn = np.isnan(own)
    node = squares / np.maximum(drawn.sum(axis=0), 1)
    alone, pairs = drawn @ node, (drawn @ node) ** 2 - drawn @ node**2
    told = alone > 0
    variance = alone[told, None] + np.outer(pairs[told], _GRID)
    log = -0.5 * (np.log(variance) + sums[told, None] ** 2 / variance).sum(axis=0)
    chance = np.exp(log - log.max())
    return float(chance @ _GRID / chance.sum())


def _middles(weights: Array) -> Array:
    """Return the mean of the standard normals that pick each component."""
    ends = np.clip(np.concatenate([[0.0], np.cumsum(weights)]), 0.0, 1.0)
    density = np.exp(-0.5 * ndtri(ends) ** 2) / np.sqrt(2 * np.pi)
    return (density[:-1] - density[1:]) / np.maximum(weights, np.finfo(np.float64).tiny)
