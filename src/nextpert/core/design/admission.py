"""Which untested combinations are candidates of a plan to find the nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MORE_LIKELY = 0.5  # probability above which a combination is nearer than what is known


def nearer_than_known(
    draws: Array, members: Mapping[int, Sequence[int]], best: int | None
) -> tuple[Array, Array]:
    """Return how probably combinations are nearer than their members, and than the best measured.

    Parameters
    ----------
    draws
        Squared distances by joint draws, shape ``(n_draws, n)``.
    members
        Of each combination (its column), the columns of its members.
    best
        Column of the best measured candidate; ``None`` where none was measured.

    Returns
    -------
    ndarray, ndarray
        The probability of being nearer than all its members, and than the best, shape ``(n,)``; NaN
        of what is no such combination, or where there is nothing to compare with.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.admission import nearer_than_known
    >>> draws = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 2.5]])
    >>> [x.tolist() for x in nearer_than_known(draws, {2: [0, 1]}, 0)]
    [[nan, nan, 0.5], [nan, nan, 1.0]]
    """
    over_members, over_best = np.full((2, draws.shape[1]), np.nan)
    for i, own in members.items():
        if len(own):
            over_members[i] = (draws[:, [i]] < draws[:, list(own)]).all(axis=1).mean()
        if best is not None:
            over_best[i] = (draws[:, i] < draws[:, best]).mean()
    return over_members, over_best
