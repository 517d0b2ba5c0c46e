"""From moments and what is known before to the input of the compiled searches, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import gammaln

from nextpert.core._checks import as_numbers, require_positive
from nextpert.core.search._bits import pack_rows
from nextpert.core.search._family import Score
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.cells.moments import Moments


# Least share of its variance that a node may keep given others: below, correlations of rank one
# less are indistinguishable from rounding errors of the sums they were made of.
_LEAST_RESIDUAL = 1e-9
# Cells of independent nodes that few cells are pooled with, in a conjugate prior's way. For 100
# nodes and 20 to 100 cells, BOSS came within .03 of its best F1 over shares of .005 to .2 (.91 of
# 110 arcs with 100 cells); with Ledoit and Wolf's share, made for the whole matrix, it found .29.
_PSEUDO_CELLS = 5
_LEAST_CELLS = 4  # Fisher's z needs one more than three


def are_few(n_cells: int, n_nodes: int) -> bool:
    """Whether the cells are too few to take their correlations as they are."""
    return n_cells < n_nodes + 2


def checked_correlation(moments: Moments) -> NDArray[np.float64]:
    """Return the correlation matrix, shrunk if cells are few; raise if it is undefined or singular.

    With fewer than ``n_nodes + 2`` cells, correlations are multiplied by ``n / (n + 5)``. The
    ``columns`` of an error that is about some nodes are their indices, so that callers can name
    the genes.
    """
    if moments.n < _LEAST_CELLS:
        message = (
            f"{moments.n} cells are too few to learn a graph: at least {_LEAST_CELLS} are needed, "
            f"and {moments.n_nodes + 2} or more to test {moments.n_nodes} nodes given one another."
        )
        raise ValueError(message)
    constant = moments.constant_nodes()
    if len(constant):
        message = f"Nodes {constant.tolist()} are constant in these cells: remove them."
        raise _about(constant, message)
    correlation = moments.correlation()
    _refuse_copies(correlation)
    if are_few(moments.n, moments.n_nodes):
        correlation *= moments.n / (moments.n + _PSEUDO_CELLS)
        np.fill_diagonal(correlation, 1.0)
    _refuse_singular(correlation)
    return correlation


def checked_prior(prior: PriorKnowledge | None, n_nodes: int) -> PriorKnowledge:
    """Return the prior knowledge, none where it is None, or raise if it is about other nodes."""
    known = PriorKnowledge(n_nodes) if prior is None else prior
    if known.n_nodes != n_nodes:
        message = (
            f"The prior knowledge is about {known.n_nodes} nodes, but the cells have {n_nodes}."
        )
        raise ValueError(message)
    return known


def checked_orders(
    orders: ArrayLike | None, known: PriorKnowledge, what: str = "Each of orders"
) -> NDArray[np.int64]:
    """Return orders, shape ``(n_orders, n_nodes)``, or raise unless all agree with what is known.

    ``orders`` are one of them, several, or none.
    """
    p = known.n_nodes
    rows = np.empty((0, p), np.int64) if orders is None else np.atleast_2d(np.asarray(orders))
    shaped = rows.dtype.kind in "iu" and rows.ndim == 2 and rows.shape[1] == p
    if not shaped or (np.sort(rows, axis=1) != np.arange(p)).any():
        message = f"{what} must name each of the nodes 0..{p - 1} once, but is {orders!r}."
        raise ValueError(message)
    for row in rows:
        conflict = known.first_conflict(row)
        if conflict is not None:
            message = (
                f"{what} must agree with the prior knowledge, but node {conflict[1]} stands "
                f"before {conflict[0]}."
            )
            raise ValueError(message)
    return np.ascontiguousarray(rows, np.int64)


def checked_log_odds(
    log_odds: ArrayLike | None, n_nodes: int, n_exogenous: int
) -> NDArray[np.float64] | None:
    """Return log-odds of arcs with a row a child and none for exogenous arcs; None if all are 0."""
    if log_odds is None:
        return None
    given = as_numbers(log_odds, "log_odds")
    if given.shape != (n_nodes, n_nodes) or not np.isfinite(given).all():
        message = (
            f"log_odds must be finite numbers of shape ({n_nodes}, {n_nodes}), a row a parent: "
            f"for arcs that must or must not be, use required and forbidden ones."
        )
        raise ValueError(message)
    if not given.any():
        return None
    full = np.zeros((n_nodes + n_exogenous, n_nodes + n_exogenous))
    full[:n_nodes, :n_nodes] = given.T
    return full


def packed(known: PriorKnowledge) -> dict[str, Any]:
    """Return the prior knowledge as bit sets, the fields of the compiled searches' input."""
    return {
        "required": pack_rows(known.required.T),
        "forbidden": pack_rows(known.forbidden.T),
        "before": pack_rows(known.before.T),
        "after": pack_rows(known.before),
    }


def make_score(
    moments: Moments,
    score: str,
    penalty: float,
    prior: PriorKnowledge | None,
    log_odds: NDArray[np.float64] | None = None,
) -> Score:
    """Return the input of the compiled best-order search."""
    known = checked_prior(prior, moments.n_nodes)
    correlation = checked_correlation(moments)
    if score == "bic":
        constant, weight, half = _bic(moments, require_positive(penalty, "penalty"))
    elif score == "bge":
        constant, weight, half, shrinkage = _bge(moments)
        correlation = correlation * shrinkage
        np.fill_diagonal(correlation, 1.0)
    else:
        message = f"Unknown score {score!r}: choose 'bic' or 'bge'."
        raise ValueError(message)
    return Score(
        correlation,
        constant,
        weight,
        half,
        **packed(known),
        log_odds=np.zeros((0, 0)) if log_odds is None else log_odds,
    )


def _bic(
    moments: Moments, penalty: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Log-likelihood (without its constant) less ``penalty log(n) / 2`` a parent."""
    d = np.arange(moments.n_nodes + 1)
    return -0.5 * penalty * np.log(moments.n) * d, np.full(len(d), moments.n / 2), 0.0


def _bge(
    moments: Moments,
) -> tuple[NDArray[np.float64], NDArray[np.float64], float, float]:
    """Log marginal likelihood of standardised nodes: Geiger & Heckerman 2002, Kuipers et al. 2014.

    Hyperparameters ``alpha_mu = 1``, ``alpha_w = p + 2``, the prior mean is the sample mean, and
    ``T = t I`` with ``t = alpha_mu (alpha_w - p - 1) / (alpha_mu + 1)``. The posterior matrix
    ``R = t I + n corr`` has the diagonal ``t + n``; taken out, it leaves correlations times
    ``n / (t + n)``.
    """
    n, p = moments.n, moments.n_nodes
    alpha_mu, alpha_w = 1.0, p + 2.0
    t = alpha_mu * (alpha_w - p - 1) / (alpha_mu + 1)
    d = np.arange(p + 1)
    own = alpha_w - p + d + 1
    weight = (n + own) / 2
    scale = np.log(t + n)
    constant = (
        0.5 * np.log(alpha_mu / (alpha_mu + n))
        - 0.5 * n * np.log(np.pi)
        + gammaln((n + own) / 2)
        - gammaln(own / 2)
        + 0.5 * (own + d) * np.log(t)
        - (0.5 * d + weight) * scale
    )
    return constant, weight, 0.5, n / (t + n)


def _refuse_copies(correlation: NDArray[np.float64]) -> None:
    twins = np.argwhere(np.triu(1.0 - correlation**2 <= _LEAST_RESIDUAL, 1))
    if len(twins):
        i, j = twins[0]
        message = f"Nodes {i} and {j} are copies of each other (correlation ±1): remove one."
        raise _about([i, j], message)


def _refuse_singular(correlation: NDArray[np.float64]) -> None:
    try:
        least = np.linalg.cholesky(correlation).diagonal().min() ** 2
    except np.linalg.LinAlgError:
        least = 0.0
    if least <= _LEAST_RESIDUAL:
        involved = np.flatnonzero(np.abs(np.linalg.eigh(correlation)[1][:, 0]) > 1e-3)
        message = (
            f"Nodes {involved.tolist()} are linearly dependent, so that partial correlations are "
            "undefined: remove one of them."
        )
        raise _about(involved, message)


def _about(columns: ArrayLike, message: str) -> ValueError:
    error = ValueError(message)
    error.columns = np.asarray(columns)  # type: ignore[attr-defined]
    return error
