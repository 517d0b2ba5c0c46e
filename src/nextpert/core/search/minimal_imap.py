"""Minimal I-maps from tests of partial correlations, and input checks of all searches."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import ndtri

from nextpert.core._blas import one_thread
from nextpert.core._checks import require_count, require_kind, require_positive
from nextpert.core.graph.dag import Dag
from nextpert.core.screen.moments import Moments
from nextpert.core.search._classes import Score, rows_of
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


# Minimum share of its variance that a node may keep given others: below it, a singular matrix of
# correlations is indistinguishable from rounding errors of the sums that it was computed from.
_MIN_RESIDUAL = 1e-9
# Number of cells with independent nodes that are pooled with few cells, as by a conjugate prior.
# For 100 nodes and 20 to 100 cells, BOSS was within 0.03 of its best F1 over shares of 0.005 to 0.2
# (0.91 of 110 edges with 100 cells); with the share of Ledoit and Wolf, which is optimal for the
# whole matrix, it found 0.29.
_PSEUDO_CELLS = 5
_MIN_CELLS = 4  # Fisher's z needs more than 3


def are_few(n_cells: int, n_nodes: int) -> bool:
    """Return whether there are so few cells that their correlations need shrinkage."""
    return n_cells < n_nodes + 2


def checked_correlation(moments: Moments) -> NDArray[np.float64]:
    """Return the correlation matrix, shrunk if cells are few; raise if it is undefined or singular.

    With fewer than ``n_nodes + 2`` cells, correlations are multiplied by ``n / (n + 5)``. An error
    about certain nodes has their indices in its attribute ``columns``, so that callers can name
    the genes.
    """
    if moments.n < _MIN_CELLS:
        message = (
            f"{moments.n} cells are too few to learn a graph: at least {_MIN_CELLS} are needed, "
            f"and {moments.n_nodes + 2} or more to test pairs of {moments.n_nodes} nodes given all "
            f"others."
        )
        raise ValueError(message)
    constant = moments.constant_nodes()
    if len(constant):
        message = f"Nodes {constant.tolist()} are constant in these cells: remove them."
        raise _about(constant, message)
    correlation = moments.correlation()
    # 1 - r^2: the share of its variance that a node keeps given the other.
    twins = np.argwhere(np.triu(1.0 - correlation**2 <= _MIN_RESIDUAL, 1))
    if len(twins):
        i, j = twins[0]
        message = f"Nodes {i} and {j} are copies of each other (correlation ±1): remove one."
        raise _about([i, j], message)
    # R n / (n + 5) off the diagonal: 5 more cells, with independent nodes.
    if are_few(moments.n, moments.n_nodes):
        correlation *= moments.n / (moments.n + _PSEUDO_CELLS)
        np.fill_diagonal(correlation, 1.0)
    try:
        min_residual = np.linalg.cholesky(correlation).diagonal().min() ** 2
    except np.linalg.LinAlgError:
        min_residual = 0.0
    if min_residual <= _MIN_RESIDUAL:
        involved = np.flatnonzero(np.abs(np.linalg.eigh(correlation)[1][:, 0]) > 1e-3)
        message = (
            f"Nodes {involved.tolist()} are linearly dependent, so that partial correlations are "
            "undefined: remove one of them."
        )
        raise _about(involved, message)
    return correlation


def checked_prior(prior: PriorKnowledge | None, n_nodes: int) -> PriorKnowledge:
    """Return the prior knowledge, empty if it is None; raise if its number of nodes differs."""
    knowledge = PriorKnowledge(n_nodes) if prior is None else prior
    if knowledge.n_nodes != n_nodes:
        message = (
            f"The prior knowledge is about {knowledge.n_nodes} nodes, but the cells have "
            f"{n_nodes}: create it with n_nodes={n_nodes}."
        )
        raise ValueError(message)
    return knowledge


def checked_orders(
    orders: ArrayLike | None, prior: PriorKnowledge, name: str = "Every order"
) -> NDArray[np.int64]:
    """Return orders, ``(n_orders, n_nodes)``; raise if one contradicts the prior knowledge.

    ``orders`` is a single order, several, or None.
    """
    p = prior.n_nodes
    rows = np.empty((0, p), np.int64) if orders is None else np.atleast_2d(np.asarray(orders))
    shaped = rows.dtype.kind in "iu" and rows.ndim == 2 and rows.shape[1] == p
    if not shaped or (np.sort(rows, axis=1) != np.arange(p)).any():
        message = f"{name} must contain each of the nodes 0..{p - 1} once, but got {orders!r}."
        raise ValueError(message)
    for row in rows:
        conflict = prior.first_conflict(row)
        if conflict is not None:
            message = (
                f"{name} must agree with the prior knowledge, but node {conflict[1]} precedes "
                f"{conflict[0]}."
            )
            raise ValueError(message)
    return np.ascontiguousarray(rows, np.int64)


def sets_of(prior: PriorKnowledge) -> dict[str, Any]:
    """Return the prior knowledge as fields of the input of the compiled searches."""
    return {
        "required": rows_of(prior.required),
        "forbidden": rows_of(prior.forbidden),
        "before": rows_of(prior.before),
        "after": rows_of(prior.before.T),
    }


def make_score(moments: Moments, penalty: float, prior: PriorKnowledge | None) -> Score:
    """Return the BIC: log-likelihood up to a constant, minus ``penalty log(n) / 2`` per parent."""
    knowledge = checked_prior(prior, moments.n_nodes)
    correlation = checked_correlation(moments)
    # penalty/2 log n per parent.
    cost = 0.5 * require_positive(penalty, "penalty") * np.log(moments.n)
    constant = -cost * np.arange(moments.n_nodes + 1)
    return Score(correlation, constant, moments.n / 2, **sets_of(knowledge))


def _about(columns: ArrayLike, message: str) -> ValueError:
    error = ValueError(message)
    error.columns = np.asarray(columns)  # type: ignore[attr-defined]
    return error


def fisher_z_threshold(
    n_cells: int, n_given: ArrayLike, alpha: float = 1e-3
) -> NDArray[np.float64]:
    """Return the smallest absolute partial correlation that is significant at ``alpha``.

    The test is two-sided and uses Fisher's z: ``sqrt(n - k - 3) |atanh r|`` is compared with the
    ``1 - alpha / 2`` quantile of the standard normal distribution.

    Parameters
    ----------
    n_cells, n_given
        Number ``n`` of cells, and number ``k`` of nodes conditioned on (a number or an array).
    alpha
        Significance level, two-sided.

    Examples
    --------
    >>> from nextpert.core import fisher_z_threshold
    >>> print(fisher_z_threshold(5000, 10, alpha=0.05).round(4))
    0.0277
    """
    if not isinstance(alpha, Real) or not 0 < alpha < 1:
        message = f"alpha must lie between 0 and 1, both excluded, but is {alpha!r}."
        raise ValueError(message)
    # z = atanh(r) sqrt(n - k - 3) is about standard normal under independence.
    n_conditioned = np.asarray(n_given, np.float64)
    freedom = require_count(n_cells, "n_cells") - n_conditioned - 3
    if (freedom <= 0).any():
        message = (
            f"{n_cells} cells are too few for tests given {int(n_conditioned.max())} nodes: at "
            f"least {int(n_conditioned.max()) + 4} are needed. Use more cells or fewer genes."
        )
        raise ValueError(message)
    return np.tanh(-ndtri(alpha / 2) / np.sqrt(freedom))


@one_thread()
def make_tests(
    moments: Moments, alpha: float, prior: PriorKnowledge | None
) -> tuple[Score, NDArray[np.float64]]:
    """Return the tests at a level as a score, with their thresholds of squared correlations.

    One of m parents that is not significant given the others explains less than
    ``threshold[m - 1]`` of the remaining variance, so that a penalty of
    ``-n / 2 log(1 - threshold[m - 1])`` drops exactly such parents, the weakest first.
    """
    require_kind(moments, Moments, "moments")
    p = moments.n_nodes
    n = moments.n
    knowledge = checked_prior(prior, p)
    correlation = checked_correlation(moments)
    n_conditioned = np.arange(max(p - 1, 1))
    # Tests of shrunk correlations all have n - 3 degrees of freedom.
    if are_few(n, p):
        n_conditioned = np.zeros_like(n_conditioned)
    threshold = np.asarray(fisher_z_threshold(n, n_conditioned, alpha), np.float64) ** 2
    constant = np.zeros(p + 1)
    constant[1 : len(threshold) + 1] = np.cumsum(n / 2 * np.log1p(-threshold))
    return Score(correlation, constant, n / 2, **sets_of(knowledge)), threshold


@one_thread()
def dependences(
    matrix: NDArray[np.float64], threshold: NDArray[np.float64], order: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which pairs of nodes depend on each other given all others before the later one.

    Rows are the later nodes. With R = L L' in the given order and V = L^-1,
    ``-V[j, i] / sqrt(sum_{i <= k <= j} V[k, i]^2)`` is the partial correlation of j and an earlier
    i, because V'V is the precision matrix.
    """
    p = len(order)
    # R = L L' in this order: one factor gives all tests.
    factor = np.linalg.cholesky(matrix[np.ix_(order, order)])
    squares = solve_triangular(factor, np.eye(p), lower=True) ** 2
    n_conditioned = np.maximum(np.arange(p) - 1, 0)
    significant = squares > threshold[n_conditioned, None] * np.cumsum(squares, axis=0)
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

    A node is a parent of a later node unless the two are independent given all other nodes before
    the later one. They are treated as independent if ``sqrt(n - k - 3) |atanh r|`` is below the
    ``1 - alpha / 2`` quantile of the standard normal distribution, where ``r`` is their partial
    correlation, ``n`` the number of cells and ``k`` the number of nodes conditioned on (Raskutti &
    Uhler 2018, doi:10.1002/sta4.183).

    Parameters
    ----------
    moments
        Moments of the (control) cells.
    permutation
        Order of all nodes, shape ``(n_nodes,)``.
    alpha
        Significance level of every test, two-sided.
    prior
        Prior knowledge. Required edges are added and forbidden edges left out; the permutation must
        agree with the orders.

    Raises
    ------
    ValueError
        As for :func:`gsp`.

    Examples
    --------
    >>> from nextpert.core import Moments, random_scm
    >>> from nextpert.core import minimal_imap
    >>> cells = random_scm(4, "path", rng=0).sample(2000, rng=1)
    >>> minimal_imap(Moments.from_array(cells), [0, 1, 2, 3]).edges()
    [(0, 1), (1, 2), (2, 3)]
    """
    tests, threshold = make_tests(moments, alpha, prior)
    knowledge = checked_prior(prior, moments.n_nodes)
    (order,) = checked_orders(np.asarray(permutation)[None], knowledge, "permutation")
    edges = dependences(tests.matrix, threshold, order).T
    return Dag.from_matrix(edges & ~knowledge.forbidden | knowledge.required)
