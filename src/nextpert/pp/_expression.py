"""Counts or ln(1 + TPM) to log-normalised expression."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata.labels import column_of
from nextpert._adata.read import require_finite
from nextpert._adata.scale import overruled_by, read_scale
from nextpert._adata.sources import dense

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.scale import Scale

logger = logging.getLogger(__name__)

_PER_MILLION = 1e6
_PROBED = 1000  # cells looked at to tell whether ln(1 + TPM) gives back counts


class Matrix(NamedTuple):
    """What the matrix holds: ``"counts"``, ``"log_tpm"``, or ``"none"`` for what stays as it is.

    ``depth`` is the total counts of every cell, where they are known, and ``scale`` what a sample
    of the values shows.
    """

    kind: str
    depth: Any
    scale: Scale


def read_matrix(
    adata: ad.AnnData,
    cells: NDArray[np.int64],
    otherwise: str,
    depth_key: str | None,
    layer: str | None,
) -> Matrix:
    """Return what the values of some cells are: counts if they are whole, or else as said."""
    _adata.require_layer(adata, layer)
    scale = read_scale(adata, np.arange(adata.n_vars), cells, layer)
    kind = "counts" if scale.whole else otherwise
    what = {"none": "log-normalised expression", "log_tpm": "ln(1 + TPM)"}.get(kind, kind)
    logger.info("The values are interpreted as %s.", what)
    if kind != "counts" and scale.fault:
        instead = "check_scale=False to pp.setup_screen, and leave out this step"
        raise ValueError(overruled_by(scale, instead))
    if depth_key is not None:
        return Matrix(kind, _read_depth(adata, depth_key), scale)
    return Matrix(kind, _total_counts(adata, cells, layer) if kind == "counts" else None, scale)


def _total_counts(adata: ad.AnnData, cells: NDArray[Any], layer: str | None) -> NDArray[np.float64]:
    """Return the sum of the values of ``cells`` over all genes, 0 for others, ``(n_cells,)``."""
    total, columns = np.zeros(adata.n_obs), np.arange(adata.n_vars)
    for block, values in _adata.read_blocks(adata, columns, cells, layer=layer):
        total[block] = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
    return total


def _read_depth(adata: ad.AnnData, key: str) -> NDArray[np.float64]:
    """Return the counts of every cell in ``adata.obs[key]``, or raise."""
    column = column_of(adata, key, "name the column of every cell's total counts with depth_key")
    try:
        depth = _adata.real_values(column, key)
    except ValueError:
        depth = np.full(1, np.nan)
    if not (np.isfinite(depth) & (depth >= 0)).all():
        message = f"adata.obs[{key!r}] must hold total counts, a number of 0 or more in every cell."
        raise ValueError(message)
    return depth


def normalise(
    new: ad.AnnData,
    genes: list[str],
    matrix: Matrix,
    cells: NDArray[np.int64],
    layer: str | None,
    target_sum: float | None,
) -> float | None:
    """Put log-normalised expression in X and what it came from in a layer.

    Return the counts a cell is scaled to, by default their median; ``None`` where the values are
    left as they are.
    """
    values = new.X if layer is None else new.layers[layer]
    if sp.issparse(values):
        # The logarithm is that of the sum, not of its parts.
        values.sum_duplicates()
    try:
        require_finite(values)
    except ValueError as error:
        raise _adata.named(error, np.array(genes), np.arange(len(genes))) from error
    new.X = values
    if matrix.kind == "none":
        return None
    depth: Any = None if matrix.depth is None else matrix.depth[cells]
    target_sum = target_sum or float(np.median(depth))
    if matrix.kind == "log_tpm":
        _require_log_tpm(values, depth)
        depth = np.full(len(cells), _PER_MILLION)
    else:
        _require_counts(values)
    if matrix.kind == "counts" or target_sum != _PER_MILLION:
        new.X = _log_normalised(values, matrix.kind, target_sum / depth)
        if matrix.kind not in new.layers:
            new.layers[matrix.kind] = values
    logger.info("Expression: ln(1 + counts per %g), from %s.", target_sum, matrix.kind)
    return target_sum


def _log_normalised(values: Any, kind: str, scale: NDArray[np.float64]) -> Any:
    """Return ``x = ln(1 + s_c n_cg)`` of counts, or TPM, ``n`` of cells x genes.

    ``values`` are dense or sparse, and not written to; ``scale`` has shape ``(n_cells,)``.
    """
    dtype = values.dtype if values.dtype.kind == "f" else np.float32
    is_sparse = sp.issparse(values)
    out = values.tocsr(copy=True) if is_sparse else values
    exact = (out.data if is_sparse else out).astype(np.float64)
    if kind == "log_tpm":
        np.expm1(exact, out=exact)
    exact *= np.repeat(scale, np.diff(out.indptr)) if is_sparse else scale[:, None]
    exact = np.log1p(exact, out=exact).astype(dtype, copy=False)
    if is_sparse:
        out.data = exact
    return out if is_sparse else exact


def _require_counts(values: Any) -> None:
    stored = _stored(values)
    if not ((stored >= 0) & (stored == np.floor(stored))).all():
        message = (
            "The matrix has values that are not counts (whole numbers of 0 or more), unlike most "
            "of them: name the layer of counts, or that of log-normalised expression."
        )
        raise ValueError(message)


def _require_log_tpm(values: Any, depth: NDArray[np.float64] | None) -> None:
    """Raise if values cannot be ln(1 + TPM); with the cells' counts, they must give whole ones."""
    stored = _stored(values)
    bad = bool(stored.size) and not 0 <= stored.min() <= stored.max() <= np.log1p(_PER_MILLION)
    reason = "values below 0 or above ln(1 + 1e6)"
    if not bad and depth is not None:
        rows = np.arange(0, values.shape[0], max(1, values.shape[0] // _PROBED))
        few = dense(values[rows])
        counts = np.expm1(few) * depth[rows, None] / _PER_MILLION
        counts = counts[few > 0]
        # Files round: leave room for three decimals of the logarithm.
        off = np.abs(counts - np.maximum(np.round(counts), 1)) > 0.1 + 0.002 * counts
        bad = bool(off.size) and bool(off.mean() > 0.05)
        reason = "given the cells' total counts they are not whole numbers"
    if bad:
        message = (
            f"The matrix does not hold ln(1 + TPM) ({reason}): name the layer of counts or of "
            f"ln(1 + TPM), or use pp.perturbation_screen for other log-normalised expression."
        )
        raise ValueError(message)


def _stored(values: Any) -> NDArray[Any]:
    return values.data if sp.issparse(values) else np.asarray(values)
