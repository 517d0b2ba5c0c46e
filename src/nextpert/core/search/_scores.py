"""The scores of a best-order search as numbers by number of parents, and their input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln

from nextpert.core._checks import require_positive
from nextpert.core.search._grow_shrink import ScoreProblem
from nextpert.core.search._statistics import checked_correlation, checked_prior, packed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.cells.moments import Moments
    from nextpert.core.search.prior_knowledge import PriorKnowledge


def make_score_problem(
    moments: Moments, score: str, penalty: float, prior: PriorKnowledge | None
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
