"""Whether to stop: what is still to be gained beyond the best perturbation known so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import gamma

from nextpert.core._checks import require_positive
from nextpert.core.cells.mean_distance import require_confidence

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.predict.ranked_distance import RankedDistance

_NEAREST = 5  # spacings that tell the scale of the lower tail
_NODES = 50  # of the quadrature over that scale
_TINY = 1e-150


@dataclass(frozen=True)
class Stopping:
    """What is left to gain, and whether that is little enough.

    Parameters
    ----------
    chosen
        The best known: of the candidates with cells, and doing nothing (the last), that of the
        least mean distance.
    gap
        Expected squared distance by which the best of all candidates is nearer, squared units of
        the data.
    relative_gap
        That as a share of the distance of doing nothing.
    good_enough
        Probability that no candidate is nearer by more than the tolerance, never-tried ones taken
        to be like those measured.
    stop
        Whether that is as high as asked for.
    """

    chosen: int
    gap: float
    relative_gap: float
    good_enough: float
    stop: bool


def stopping(
    found: RankedDistance,
    measured: ArrayLike,
    *,
    tolerance: float = 0.1,
    confidence: float = 0.9,
) -> Stopping:
    """Return what going on could gain, from draws of all candidates' distances.

    A campaign stops where the best known is, with probability ``confidence`` or more, within
    ``tolerance`` of the best candidate there is, those never tried among them. The expected gap
    alone would give no warrant: it can be small while a great gain has a fair chance.

    The draws of the best known are taken as they are, all others about the distance of the expected
    state. By itself a draw lies farther by the variance of all nodes, so that no draw of a
    candidate without cells comes near a target of many nodes: for the model none was made for it,
    while who asks looks for one that was. With all draws about expected states the best known
    gained as well, and it was chosen for looking near.

    The rule cannot know what few cells hide: a candidate of strong effect whose 10 cells were taken
    to do little, by shrinkage, counts as tried (``python -m benchmarks.power``).

    Candidates never tried may hold more than the model expects of them: so they are taken, too, to
    be like those measured, and the chance that one of them is nearer by more than the tolerance is
    ``record_chance``. No candidate comes nearer than the target, so that a best known that is
    there already is good enough at once.

    Parameters
    ----------
    found
        Distances by draws, of all candidates and of doing nothing.
    measured
        Which candidates have cells, shape ``(n_perturbations,)``.
    tolerance
        What need not be gained any more, as a share of the distance of doing nothing.
    confidence
        Probability asked for.

    Raises
    ------
    ValueError
        If ``measured`` does not fit, or a number is out of range.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr, ShiftPosterior, ranked_distance
    >>> from nextpert.core.plan.stopping import stopping
    >>> blr = DagBlr(Dag.from_edges(1, []), noise_var=1.0, intercept=False)
    >>> found = ranked_distance(blr, ShiftPosterior.exact([[1.0], [1.5]]), [2.0], n_samples=10)
    >>> stopping(found, [True, False]).stop, stopping(found, [True, True]).stop
    (False, True)
    """
    require_confidence(confidence)
    require_positive(tolerance, "tolerance")
    seen = np.asarray(measured, np.bool_)
    if seen.shape != (found.draws.shape[1] - 1,):
        message = (
            f"measured must hold one truth value for each of {found.draws.shape[1] - 1} "
            f"candidates, but its shape is {seen.shape}."
        )
        raise ValueError(message)
    chosen = int(np.where(np.append(seen, True), found.mean, np.inf).argmin())
    best = found.draws[:, chosen]
    others = np.delete(found.draws - found.mean + found.centre, chosen, axis=1)
    left = np.maximum(best - others.min(axis=1), 0.0)
    nothing = max(float(found.mean[-1]), 0.0)
    enough = tolerance * nothing
    gap, good = float(left.mean()), float((left <= enough).mean())
    tried = found.mean[:-1][seen]
    # Above 0 where the best known is to do nothing.
    farther = float(tried.min() - found.mean[chosen]) if len(tried) else 0.0
    expected = best - found.mean[chosen] + found.centre[chosen]
    record = record_chance(tried, int((~seen).sum()), farther + enough, farther + expected)
    good *= 1 - float(record.mean())
    share = gap / nothing if nothing > 0 else float("nan")
    return Stopping(chosen, gap, share, good, good >= confidence)


def record_chance(
    values: ArrayLike, n_more: int, excess: float, most: ArrayLike
) -> NDArray[np.float64]:
    r"""Return the chance that one of some more values lies below the least by more than an excess.

    If all values are of one kind, whatever their distribution, the least of all is one of the ``m``
    to come with probability ``m / (m + k)``, ``k`` those known. By how much is told by the spacings
    of the nearest five known: where the lower tail is exponential with scale ``s``, the ``m`` lie
    below the least known by more than ``x`` with probability ``r / (1 + r)``,

    .. math:: r = \frac{m}{k} \frac{e^{-x/s} - e^{-x_{most}/s}}{1 - e^{-x_{most}/s}},

    and the sum of spacings is a gamma variable of the scale, over which the mean is taken.

    Parameters
    ----------
    values
        Those known, shape ``(k,)``.
    n_more
        Number to come.
    excess
        Excess below the least known, 0 or more.
    most
        Excess that is possible, numbers or shape ``(n,)``; where it is less than ``excess`` the
        chance is 0.

    Returns
    -------
    ~numpy.ndarray
        The chance, as many as there are of ``most``.

    Examples
    --------
    >>> from nextpert.core.plan.stopping import record_chance
    >>> record_chance([1.0, 2.0, 3.0], 3, 0.0, [9.0]).round(3).tolist()
    [0.5]
    >>> record_chance([1.0, 2.0, 3.0], 3, 0.5, [0.4, 1.0, 9.0]).round(2).tolist()
    [0.0, 0.29, 0.42]
    """
    known, most = np.sort(np.asarray(values, np.float64)), np.asarray(most, np.float64)
    few = min(_NEAREST, len(known) - 1)
    possible = most > excess
    if n_more < 1 or few < 1:
        return possible * n_more / max(n_more + len(known), 1)
    spacings = max(float((known[few] - known[:few]).sum()), _TINY)
    rate = gamma.ppf((np.arange(_NODES) + 0.5) / _NODES, few)[:, None] / spacings
    end = np.exp(-rate * np.maximum(most, excess).ravel())
    share = np.exp(-rate * excess) - end
    ratio = n_more / len(known) * share / np.maximum(1 - end, _TINY)
    chance = (ratio / (1 + ratio)).mean(axis=0).reshape(most.shape)
    return np.where(possible, chance, 0.0)
