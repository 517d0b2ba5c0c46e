"""The partial correlation from which two nodes count as dependent."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from nextpert.core._checks import require_count

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def fisher_z_threshold(
    n_cells: int, n_given: ArrayLike, alpha: float = 1e-3
) -> NDArray[np.float64]:
    """Return the least absolute partial correlation that is significant at ``alpha``.

    Fisher's z, two-sided: ``sqrt(n - k - 3) |atanh r|`` is compared with the ``1 - alpha / 2``
    quantile of the standard normal distribution, where ``k`` nodes are given.

    Parameters
    ----------
    n_cells
        Number of cells, ``n``.
    n_given
        Number of nodes given, ``k``; a number or an array of them.
    alpha
        Significance level, two-sided.

    Returns
    -------
    numpy.ndarray
        Thresholds, shape of ``n_given``.

    Raises
    ------
    ValueError
        If ``alpha`` is not between 0 and 1, or ``n - k - 3`` is not above 0.

    Examples
    --------
    >>> from nextpert.core import fisher_z_threshold
    >>> print(fisher_z_threshold(5000, 10, alpha=0.05).round(4))
    0.0277
    """
    if not isinstance(alpha, Real) or not 0 < alpha < 1:
        message = f"alpha must lie between 0 and 1, both excluded, but is {alpha!r}."
        raise ValueError(message)
    given = np.asarray(n_given, np.float64)
    freedom = require_count(n_cells, "n_cells") - given - 3
    if (freedom <= 0).any():
        message = (
            f"{n_cells} cells are too few to test given {int(given.max())} nodes: at least "
            f"{int(given.max()) + 4} are needed. Take more cells or fewer genes."
        )
        raise ValueError(message)
    return np.tanh(-ndtri(alpha / 2) / np.sqrt(freedom))
