"""Whether to stop: what is still to be gained beyond the best perturbation known so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_positive
from nextpert.core.cells.mean_distance import require_confidence

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert.core.predict.ranked_distance import RankedDistance


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
        Probability that no candidate is nearer by more than the tolerance.
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

    Draws are taken about the distances of the expected states. By itself a draw lies farther by the
    variance of all nodes, so that no draw of a candidate without cells comes near a target of many
    nodes: for the model none was made for it, while who asks looks for one that was. On the draws
    as they are the rule stopped too early in a fifth to a half of simulated campaigns
    (``python -m benchmarks.power``).

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
    draws = found.draws - found.mean + found.centre
    left = draws[:, chosen] - draws.min(axis=1)
    nothing = max(float(found.mean[-1]), 0.0)
    gap, good = float(left.mean()), float((left <= tolerance * nothing).mean())
    share = gap / nothing if nothing > 0 else float("nan")
    return Stopping(chosen, gap, share, good, good >= confidence)
