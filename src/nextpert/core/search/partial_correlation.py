"""The partial correlation of two nodes given others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_nodes, require_kind
from nextpert.core.cells.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterable


def partial_correlation(moments: Moments, i: int, j: int, given: Iterable[int] = ()) -> float:
    """Return the correlation of what the nodes ``given`` leave of ``i`` and of ``j``.

    Parameters
    ----------
    moments
        Moments of the cells.
    i, j
        Two nodes.
    given
        The other nodes that are held fixed.

    Raises
    ------
    ValueError
        If a node is absent, named twice or constant, or the nodes are linearly dependent.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Moments
    >>> from nextpert.core import partial_correlation
    >>> a, b, c = np.random.default_rng(0).normal(size=(3, 1000))
    >>> moments = Moments.from_array(np.column_stack([a, a + b, a + c]))
    >>> [round(partial_correlation(moments, 1, 2, given), 1) for given in ([], [0])]
    [0.5, 0.0]
    """
    require_kind(moments, Moments, "moments")
    nodes = as_nodes([i, j, *as_nodes(given, moments.n_nodes, "given")], moments.n_nodes, "i, j")
    if len(set(nodes)) < len(nodes):
        message = f"Nodes {nodes} name one of them twice: name each once."
        raise ValueError(message)
    correlation = moments.subset(nodes).correlation()
    if np.linalg.matrix_rank(correlation, hermitian=True) < len(nodes):
        message = f"Nodes {nodes} are linearly dependent: leave one out."
        raise ValueError(message)
    precision = np.linalg.inv(correlation)
    return float(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
