"""Tests of partial correlations: their threshold, and what they allow an order of the nodes."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import ndtri

from nextpert.core._blas import one_thread
from nextpert.core._checks import require_count, require_kind
from nextpert.core.cells.moments import Moments
from nextpert.core.graph.dag import Dag
from nextpert.core.search._family import Score
from nextpert.core.search._gsp_kernel import Elimination
from nextpert.core.search._inputs import (
    are_few,
    checked_correlation,
    checked_orders,
    checked_prior,
    packed,
)

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.search.prior_knowledge import PriorKnowledge


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


@one_thread()
def make_tests(
    moments: Moments, alpha: float, prior: PriorKnowledge | None
) -> tuple[Score, Elimination]:
    """Return tests at a level as a score, and what sparse orders are drawn from.

    A parent of m that is not significant given the others explains less than ``threshold[m - 1]``
    of the variance that they leave, so that a penalty of ``-n / 2 log(1 - threshold[m - 1])``
    drops exactly those, the weakest first.
    """
    require_kind(moments, Moments, "moments")
    p, n = moments.n_nodes, moments.n
    known = checked_prior(prior, p)
    correlation = checked_correlation(moments)
    given = np.arange(max(p - 1, 1))
    if are_few(n, p):  # shrunk, they lose no degree of freedom to the nodes given
        given = np.zeros_like(given)
    threshold = np.asarray(fisher_z_threshold(n, given, alpha), np.float64) ** 2
    constant = np.zeros(p + 1)
    constant[1 : len(threshold) + 1] = np.cumsum(n / 2 * np.log1p(-threshold))
    sets = packed(known)
    score = Score(
        correlation, constant, np.full(p + 1, n / 2), 0.0, **sets, log_odds=np.zeros((0, 0))
    )
    precision = np.asarray(np.linalg.inv(correlation), np.float64)
    return score, Elimination(precision, threshold, sets["after"])


@one_thread()
def dependences(
    matrix: NDArray[np.float64], threshold: NDArray[np.float64], order: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which nodes depend on which given all others before them, row = the later one.

    With R = L L' in the given order and V = L^-1, ``-V[j, i] / sqrt(sum_{i <= k <= j} V[k, i]^2)``
    is the partial correlation of j and an earlier i, because V'V is the precision matrix.
    """
    p = len(order)
    factor = np.linalg.cholesky(matrix[np.ix_(order, order)])
    squares = solve_triangular(factor, np.eye(p), lower=True) ** 2
    given = np.maximum(np.arange(p) - 1, 0)
    significant = squares > threshold[given, None] * np.cumsum(squares, axis=0)
    out = np.zeros((p, p), np.bool_)
    out[np.ix_(order, order)] = np.tril(significant, -1)
    return out


def minimal_imap(
    moments: Moments,
    permutation: ArrayLike,
    *,
    alpha: float = 1e-3,
    prior: PriorKnowledge | None = None,
) -> Dag:
    """Return the minimal I-map of a permutation.

    An earlier node is a parent of a later one unless the two are independent given all the other
    nodes before the later one: ``sqrt(n - k - 3) |atanh r|`` of their partial correlation is below
    the two-sided ``alpha`` quantile (Raskutti & Uhler 2018, doi:10.1002/sta4.183).

    Parameters
    ----------
    moments
        Moments of the (control) cells.
    permutation
        All nodes in the order wanted, shape ``(n_nodes,)``.
    alpha
        Significance level of every test, two-sided.
    prior
        Required arcs are put in and forbidden ones left out; the permutation must agree with the
        orders.

    Raises
    ------
    ValueError
        If ``permutation`` does not name each node once or contradicts an order, ``alpha`` is not
        between 0 and 1, or the moments do not allow all tests (too few cells, constant or
        linearly dependent nodes).

    Examples
    --------
    >>> from nextpert.core import Moments, random_scm
    >>> from nextpert.core import minimal_imap
    >>> cells = random_scm(4, "path", rng=0).sample(2000, rng=1)
    >>> minimal_imap(Moments.from_array(cells), [0, 1, 2, 3]).edges()
    [(0, 1), (1, 2), (2, 3)]
    """
    tests, elimination = make_tests(moments, alpha, prior)
    known = checked_prior(prior, moments.n_nodes)
    (order,) = checked_orders(np.asarray(permutation)[None], known, "permutation")
    arcs = dependences(tests.matrix, elimination.threshold, order).T
    return Dag.from_matrix(arcs & ~known.forbidden | known.required)
