"""The scores of a best-order search as numbers by number of parents, and their input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from nextpert.core._checks import as_numbers, require_positive
from nextpert.core.search._local_score import ScoreProblem
from nextpert.core.search._statistics import checked_correlation, checked_prior, packed

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.cells.moments import Moments
    from nextpert.core.search.prior_knowledge import PriorKnowledge


def make_score_problem(
    moments: Moments,
    score: str,
    penalty: float,
    prior: PriorKnowledge | None,
    log_odds: NDArray[np.float64] | None = None,
) -> ScoreProblem:
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
    return ScoreProblem(
        correlation,
        constant,
        weight,
        half,
        **packed(known),
        log_odds=np.zeros((0, 0)) if log_odds is None else log_odds,
    )


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
