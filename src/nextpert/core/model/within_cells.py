"""What cells of one perturbation vary by: coexpression of genes, and how far each responds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh

from nextpert.core._blas import in_blocks

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]

# Perturbations of a table that does not say how errors of genes are correlated, up to which a
# program is modelled. Of 100 perturbations x 100 coexpressed genes, 70 of 467 effects were false.
WITHOUT_CORRELATION = 30
LEAST_PSI = 0.05  # of a gene's variance that is its own, or a factor could hold a gene by itself
# Of the excess of variances of genes, what lies along the effect: 0.20 of 0.36 on Papalexi, 0.14 of
# 0.30 on Norman. Genes that are expressed more vary more as well, each by itself.
_ALONG = 0.5
# Precision of phi before the cells are seen: phi ~ N(0, 1/8^2). Where hardly anything happens the
# regression has nothing to go by, and phi of 10 multiplied draws of effects by 22.
_PRIOR_PRECISION = 64.0
# Genes up to which the factors of a correlation are eigenvectors of all of it; above, those of a
# subspace of a few columns more than factors, whose power iteration is part of the factoring.
_DENSE, _MORE = 1000, 8
# Above this ratio a standard error of a table says that nothing is known of a gene, or next to.
_OUTLYING = 4.0


def response_variance(
    cells: PooledGuides, effects: Callable[[slice], Array], unit: Array, error: Array | None = None
) -> float:
    """Return the variance of how far cells respond to their perturbation (equation 23).

    Some escape, others respond more: ``x = c + s theta`` with ``s`` of mean 1 and variance phi. The
    variance of a gene then exceeds that of other cells by ``phi theta^2``, and the excess is
    regressed on it, with the prior ``phi ~ N(0, 1/8^2)``. ``effects`` returns those of some
    perturbations, ``unit`` is the standard deviation of genes within cells, and ``error`` what
    sampling adds to squared effects (``None`` where effects are expected ones).
    """
    along = total = 0.0
    for rows in in_blocks(len(cells.n) - 1, cells.mean.shape[1]):
        freedom, square = cells.freedom[1:][rows, None], (effects(rows) / unit) ** 2
        if error is not None:
            square = np.maximum(square - error[rows], 0.0)
        ratio = cells.variance_ratio[1:][rows]
        # The ratio is shrunk towards 1 as by so many degrees of freedom more; its excess is not.
        excess = (ratio - 1.0) * (cells.prior_freedom + freedom)
        if not cells.are_cells:  # nor is a large standard error a sign of cells that respond
            excess = np.where(ratio < _OUTLYING, excess, 0.0)
        # Least squares of the excess on theta^2, weighted by degrees of freedom.
        total += float((freedom * square**2).sum())
        along += float((excess * square).sum())
    # The variance of _ALONG * along / total is _ALONG / total, so that its precision is this.
    return max(_ALONG * along / (total + _ALONG * _PRIOR_PRECISION), 0.0)


def without_responses(cells: PooledGuides, unit: Array) -> Array:
    """Return the covariance within cells less what comes of cells that respond to a degree.

    Else strong perturbations would make their effects factors of coexpression, and those of others
    along them noise. In units of ``unit``, shape ``(n_genes, n_genes)``.
    """
    within = cells.covariance / np.outer(unit, unit)
    # A table brings the correlation of its controls.
    if not cells.are_cells:
        return np.asarray(within)
    change, error = cells.to_controls()
    # phi by the differences of means, whose noise is taken off their squares.
    change, n = change / unit, cells.n_cells[1:, None]
    phi = response_variance(cells, change.__getitem__, np.ones_like(unit), error)
    noise = float((n * error).mean(axis=1).sum())  # of the squares of changes, times the cells
    # Responses add phi n theta theta' / sum n; noise of theta adds its own covariance.
    along = phi / cells.n_cells.sum() * ((n * change).T @ change - noise * within)
    return np.asarray(within - along)


def factors(correlation: Array, n_factors: int) -> tuple[Array, Array]:
    """Return factors and own variances of a correlation matrix, by principal-axis factoring.

    ``correlation`` is about ``psi`` on the diagonal plus ``gamma gamma'``; shapes ``(n_genes,
    n_factors)`` and ``(n_genes,)``.
    """
    p, basis = len(correlation), np.zeros((0, 0))
    if p <= _DENSE:
        psi: Any = 1.0 / np.linalg.inv(correlation + 1e-3 * np.eye(p)).diagonal()
    else:  # principal components first; the subspace follows as psi does (Halko et al. 2011)
        psi = np.full(p, LEAST_PSI)
        basis = np.random.default_rng(0).standard_normal((p, n_factors + _MORE))
    for _ in range(200):
        # Largest eigenvectors of R - Psi give Gamma, 1 - |Gamma_i|^2 gives Psi.
        own = np.maximum(psi, LEAST_PSI)
        if p <= _DENSE:
            reduced = correlation - np.diag(own)
            values, vectors = eigh(reduced, subset_by_index=[p - n_factors, p - 1])
        else:
            basis = np.linalg.qr(correlation @ basis - own[:, None] * basis)[0]
            small = basis.T @ (correlation @ basis - own[:, None] * basis)
            values, turned = eigh(small, subset_by_index=[_MORE, n_factors + _MORE - 1])
            vectors = basis @ turned
        gamma = vectors * np.sqrt(np.maximum(values, 0.0))
        before, psi = psi, np.maximum(1.0 - (gamma**2).sum(axis=1), LEAST_PSI)
        if np.abs(psi - before).max() < 1e-6:
            break
    return np.ascontiguousarray(gamma), psi
