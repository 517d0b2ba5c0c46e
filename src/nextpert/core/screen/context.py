"""Moments over all cells of the nodes of a screen and of what the experiment set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.screen.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from nextpert.core.screen.screen import ScreenMoments


def context_moments(
    screen: ScreenMoments,
    indicators: ArrayLike,
    *,
    fixed: ArrayLike | None = None,
    guide_variance: float = 0.0,
) -> Moments:
    """Return the moments over all cells of the nodes of a screen and of indicators.

    Every regression on them is that of the cells with the indicators as columns (joint causal
    inference; Mooij et al. 2020, JMLR 21:99). With ``fixed`` it is the regression that has those
    columns, and the intercept, besides (Frisch, Waugh, Lovell): batches are fixed effects.

    Parameters
    ----------
    screen
        Moments of the environments.
    indicators
        Context nodes of an environment, such as 1 for the cells of a perturbation,
        shape ``(n_environments, n_indicators)``.
    fixed
        Columns to take out of everything, such as indicators of batches, shape
        ``(n_environments, n_fixed)``.
    guide_variance
        Variance between environments (guides) beyond sampling, relative to the noise variance of a
        node (:func:`guide_variance`): one of ``n`` cells counts for ``n / (1 + n guide_variance)``
        between environments, as in generalised least squares.

    Returns
    -------
    Moments
        Of the nodes of ``screen`` and then the indicators. The means are those of all cells; an
        indicator that ``fixed`` explains has a scatter of zero.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments, context_moments
    >>> rng, knocked = np.random.default_rng(0), np.repeat([0, 1], 500)
    >>> x = rng.normal(size=(1000, 2)) - 3 * np.outer(knocked, [1, 0])
    >>> joint = context_moments(ScreenMoments.from_array(x, knocked, 2), [[0], [1]])
    >>> bool(np.isclose(joint.correlation()[0, 2], np.corrcoef(x[:, 0], knocked)[0, 1]))
    True
    """
    columns = np.asarray(indicators, np.float64)
    weight = screen.n / (1.0 + screen.n * guide_variance)
    n, p = int(screen.n.sum()), screen.n_nodes
    rows = np.hstack([screen.mean, columns])
    mean = np.average(rows, axis=0, weights=weight) if n else np.zeros(rows.shape[1])
    left = (rows - mean) * np.sqrt(weight)[:, None]
    whole = np.einsum("ij,ij->j", left, left)
    if fixed is not None and n:
        batch = np.asarray(fixed, np.float64)
        batch = (batch - np.average(batch, axis=0, weights=weight)) * np.sqrt(weight)[:, None]
        left = left - batch @ np.linalg.lstsq(batch, left, rcond=1e-10)[0]
    scatter = left.T @ left
    scatter[:p, :p] += screen.scatter
    explained = np.flatnonzero(np.diag(scatter)[p:] <= 1e-10 * np.maximum(whole[p:], 1e-300)) + p
    scatter[explained] = scatter[:, explained] = 0.0
    return Moments(n, mean, (scatter + scatter.T) / 2)
