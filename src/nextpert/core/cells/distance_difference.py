"""Whether some cells lie nearer to a target than others do."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_vector
from nextpert.core.cells.mean_distance import (
    covariance_of_mean,
    covariance_within,
    squared_trace,
)
from nextpert.core.cells.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def distance_difference(
    cells: Moments,
    others: Moments,
    target: Moments | ArrayLike,
    *,
    confidence: float = 0.95,
    errors: ArrayLike | None = None,
) -> tuple[float, float, float]:
    r"""Estimate the difference of two squared distances to the same target mean.

    With :math:`a` and :math:`b` the differences of both sample means to that of the target,

    .. math:: |a|^2 - |b|^2 - \operatorname{tr} V_a + \operatorname{tr} V_b

    is unbiased, where :math:`V` is the estimated covariance of a sample mean: the target's own
    cancels. So does most of its part in the variance,

    .. math:: 4 (a' V_a a + b' V_b b + (a - b)' V_* (a - b)) - q, \qquad
        q = 2 \operatorname{tr} V_a^2 + 2 \operatorname{tr} V_b^2
        + 4 \operatorname{tr} V_* (V_a + V_b),

    so that the difference is better known than the two distances. The variance is taken to be at
    least :math:`q`, which it is where all three means are the same; the interval is normal. It
    holds for dozens of nodes; in simulations of 1 to 5 nodes and 30 cells, intervals of 0.95
    covered the truth with 0.89 at worst.

    Parameters
    ----------
    cells, others
        Moments of at least 2 cells each, no cell in both.
    target
        Moments of at least 2 cells in neither, or a mean known without error, shape
        ``(n_nodes,)``.
    confidence
        Coverage of the interval, above 0 and below 1.
    errors
        Errors that batches leave in the means of cells, others and target, shape
        ``(3, n_columns)``, as in :func:`~nextpert.core.cells.mean_distance.mean_distance`.

    Returns
    -------
    difference, low, high
        In squared units of the data; below 0 where ``cells`` lie nearer.

    Raises
    ------
    ValueError
        If there are fewer than 2 cells on a side, or the nodes differ in number.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Moments
    >>> from nextpert.core.cells.distance_difference import distance_difference
    >>> rng = np.random.default_rng(0)
    >>> x, y = (Moments.from_array(rng.normal(m, 1, (200, 5))) for m in (0.2, 0.0))
    >>> difference, low, high = distance_difference(x, y, np.full(5, 0.5))
    >>> low < 5 * (0.3**2 - 0.5**2) < high < 0
    True
    """
    of_target = np.zeros((cells.n_nodes, cells.n_nodes))
    if isinstance(target, Moments):
        wanted, of_target = target.mean, covariance_of_mean(target)
    else:
        wanted = as_vector(target, cells.n_nodes, "target")
    if not cells.n_nodes == others.n_nodes == len(wanted):
        message = (
            f"The cells have {cells.n_nodes} and {others.n_nodes} nodes, and the target has "
            f"{len(wanted)}: give the same nodes."
        )
        raise ValueError(message)
    of_cells, of_others = covariance_of_mean(cells), covariance_of_mean(others)
    a, b = cells.mean - wanted, others.mean - wanted
    difference = float(a @ a - np.trace(of_cells) - b @ b + np.trace(of_others))
    along = a @ of_cells @ a + b @ of_others @ b + (a - b) @ of_target @ (a - b)
    least = 2 * (squared_trace(of_cells, cells.n) + squared_trace(of_others, others.n))
    least += 4 * float(np.sum(of_target * (of_cells + of_others)))
    if errors is not None and np.size(errors):
        # Each column errs in all three means alike: its error times these slopes is in the sum.
        of_a, of_b, of_wanted = np.asarray(errors, np.float64)
        within = covariance_within([cells, others])
        slopes = np.outer(of_a - of_wanted, a) - np.outer(of_b - of_wanted, b)
        along += float(np.einsum("ki,ij,kj->", slopes, within, slopes))
        added = ((of_a - of_wanted) ** 2).sum() - ((of_b - of_wanted) ** 2).sum()
        difference -= float(added * np.trace(within))
    sd = float(np.sqrt(max(4 * float(along) - least, least)))
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * sd
    return difference, difference - reach, difference + reach
