"""Variation between cells of a perturbation: coexpression of genes, and responses of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh

from nextpert.core._blas import in_blocks
from nextpert.core.screen.departures import Coexpression

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]

# If a table does not state the correlation of errors between genes, a program is modelled for at
# most this many perturbations. With 100 perturbations and 100 coexpressed genes, 70 of 467 effects
# were false.
WITHOUT_CORRELATION = 30
MIN_PSI = 0.05  # minimum own share of a gene's variance, so that no factor explains a single gene
# Share of the excess variance of genes that lies along the effect: the excess along the effects of
# IFNGR1, IFNGR2, JAK2 and STAT1 on Papalexi, measured on cells, is 0.20 to 0.26 of their squared
# size, where the regression over genes gives 0.25. The rest is independent between genes: higher
# expression has more variance. With 0.5, effects of small lfsr were covered 2 percentage points
# less often on Papalexi and Norman.
_ALONG = 0.8
# Prior precision of phi: phi ~ N(0, 1/8^2). Without it, if there are hardly any effects, the
# regression is uninformative: a phi of 10 multiplied draws of effects by 22.
_PRIOR_PRECISION = 64.0
_FACTORS = 8  # maximum number of coexpression factors; a tenth of the genes if these are few
# Up to this many genes, factors come from eigenvectors of the whole correlation matrix; above, from
# a subspace with a few more columns than factors, updated by one power iteration per step.
_MAX_DENSE_GENES = 1000
_N_EXTRA_COLUMNS = 8
# Variance ratios above this, in a table, mean that almost nothing is known of a gene.
_OUTLYING = 4.0


def filled(variance: Array) -> Array:
    """Return variances of genes within perturbations; the median of the others if a gene has none.

    Genes may be constant in a part of the cells. The result is 1 if no gene varies.
    """
    varies = variance > 0
    return np.where(varies, variance, np.median(variance[varies]) if varies.any() else 1.0)


def response_variance(
    cells: PooledGuides, effects: Callable[[slice], Array], unit: Array, error: Array | None = None
) -> float:
    """Return the variance of the response of cells to their perturbation (equation 23).

    Some cells escape, and others respond more: ``x = c + s theta``, where ``s`` has mean 1 and
    variance phi. The variance of a gene then exceeds that of other cells by ``phi theta^2``. The
    excess is regressed on ``theta^2``, with the prior ``phi ~ N(0, 1/8^2)``. ``effects`` returns
    the effects of some perturbations, ``unit`` is the standard deviation of genes between cells,
    and ``error`` the contribution of sampling to squared effects (``None`` for posterior means).
    """
    along = total = 0.0
    for rows in in_blocks(len(cells.n) - 1, cells.mean.shape[1]):
        freedom, square = cells.freedom[1:][rows, None], (effects(rows) / unit) ** 2
        if error is not None:
            square = np.maximum(square - error[rows], 0.0)
        ratio = cells.variance_ratio[1:][rows]
        # Undo the shrinkage of the ratio towards 1, which added prior degrees of freedom.
        excess = (ratio - 1.0) * (cells.prior_freedom + freedom)
        if not cells.are_cells:  # in a table, a large standard error does not indicate responses
            excess = np.where(ratio < _OUTLYING, excess, 0.0)
        # Least squares of the excess on theta^2, weighted by degrees of freedom.
        total += float((freedom * square**2).sum())
        along += float((excess * square).sum())
    # An excess has the variance 2 / freedom, so that of _ALONG * along / total is 2 _ALONG^2 /
    # total.
    return max(_ALONG * along / (total + 2.0 * _ALONG**2 * _PRIOR_PRECISION), 0.0)


def without_responses(cells: PooledGuides, unit: Array) -> Array:
    """Return the covariance between cells, without the part due to different responses of cells.

    Otherwise the effects of strong perturbations would become factors of coexpression, and effects
    of other perturbations along these factors would count as noise. In units of ``unit``, shape
    ``(n_genes, n_genes)``.
    """
    within = cells.covariance / np.outer(unit, unit)
    # A table has the correlation of its controls.
    if not cells.are_cells:
        return np.asarray(within)
    change, error = cells.to_controls()
    # phi from the differences of means, with noise subtracted from their squares.
    change, n = change / unit, cells.n_cells[1:, None]
    phi = response_variance(cells, change.__getitem__, np.ones_like(unit), error)
    noise = float((n * error).mean(axis=1).sum())  # in squared changes, times the cells
    # Responses add phi n theta theta' / sum n; noise of theta adds its own covariance.
    along = phi / cells.n_cells.sum() * ((n * change).T @ change - noise * within)
    return np.asarray(within - along)


def factors(correlation: Array, n_factors: int) -> tuple[Array, Array]:
    """Return factors and own variances of a correlation matrix, by principal-axis factoring.

    ``correlation`` is approximately ``diag(psi) + gamma gamma'``; ``gamma`` has the shape
    ``(n_genes, n_factors)``, and ``psi`` ``(n_genes,)``.
    """
    p, basis = len(correlation), np.zeros((0, 0))
    if p <= _MAX_DENSE_GENES:
        psi: Any = 1.0 / np.linalg.inv(correlation + 1e-3 * np.eye(p)).diagonal()
    else:  # a random subspace, updated with psi (Halko et al. 2011)
        psi = np.full(p, MIN_PSI)
        basis = np.random.default_rng(0).standard_normal((p, n_factors + _N_EXTRA_COLUMNS))
    for _ in range(200):
        # Largest eigenvectors of R - Psi give Gamma, 1 - |Gamma_i|^2 gives Psi.
        bounded_psi = np.maximum(psi, MIN_PSI)
        if p <= _MAX_DENSE_GENES:
            reduced = correlation - np.diag(bounded_psi)
            values, vectors = eigh(reduced, subset_by_index=[p - n_factors, p - 1])
        else:
            basis = np.linalg.qr(correlation @ basis - bounded_psi[:, None] * basis)[0]
            small = basis.T @ (correlation @ basis - bounded_psi[:, None] * basis)
            values, turned = eigh(
                small, subset_by_index=[_N_EXTRA_COLUMNS, n_factors + _N_EXTRA_COLUMNS - 1]
            )
            vectors = basis @ turned
        gamma = vectors * np.sqrt(np.maximum(values, 0.0))
        before, psi = psi, np.maximum(1.0 - (gamma**2).sum(axis=1), MIN_PSI)
        if np.abs(psi - before).max() < 1e-6:
            break
    return np.ascontiguousarray(gamma), psi


def coexpression(cells: PooledGuides, within: PooledGuides | None = None) -> Coexpression:
    """Return the covariance between cells as factors and own variances (equation 13).

    ``within`` has the cells from which coexpression is learned, by default ``cells``. A gene that
    is constant, as may happen in halves, is given the median variance. A table may have no
    information on coexpression; it then has no factors.
    """
    unit = np.sqrt(filled(cells.covariance.diagonal()))
    p = len(unit)
    if not cells.knows_correlation:
        return Coexpression(np.zeros((p, 0)), np.ones(p), unit)
    # Sigma, without the part explained by (23), is factored as Psi + Gamma Gamma'.
    q = int(np.clip(p // 10, 1, _FACTORS))
    covariance = without_responses(within or cells, unit)
    sd = np.sqrt(np.maximum(covariance.diagonal(), MIN_PSI))
    return Coexpression(*factors(covariance / np.outer(sd, sd), q), unit)


# Degrees of freedom above which the tails of t make no difference: with the smallest prior degrees,
# those of some 20 cells. With 3 to 12 cells of unequal variances, 17 of 240 significant effects
# were false (1.8 stated) with normal noise.
_NORMAL = 40.0


def noise_tails(freedom: Array) -> tuple[Array, Array]:
    """Return a mixture of two normals in place of t distributions, whose scale is 1.

    The variance of a mean is estimated, with some degrees of ``freedom``: its noise has a t
    distribution (Smyth 2004, doi:10.2202/1544-6115.1027). The mixture has the same second and
    fourth moments. The results are the probability ``w`` that its variance is twice the usual one,
    0 above 40 degrees of freedom, and the usual one, both of the shape of ``freedom``.
    """
    # c (1 + w) = d / (d - 2) and 3 c^2 (1 + 3 w) = 3 d^2 / ((d - 2) (d - 4)), of which the ratio is
    # (1 + 3 w) / (1 + w)^2 = (d - 2) / (d - 4) = k. It is at most 9 / 8, for 20 degrees.
    d = np.maximum(freedom, 20.0)
    k = (d - 2.0) / (d - 4.0)
    doubled = (3.0 - 2.0 * k - np.sqrt(np.maximum(9.0 - 8.0 * k, 0.0))) / (2.0 * k)
    usual = d / (d - 2.0) / (1.0 + doubled)
    has_tails = freedom <= _NORMAL
    return np.where(has_tails, doubled, 0.0), np.where(has_tails, usual, 1.0)
