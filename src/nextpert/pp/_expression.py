"""Log-normalised expression from counts or ln(1 + TPM)."""

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
    from collections.abc import Iterator

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.scale import Scale

logger = logging.getLogger(__name__)

_PER_MILLION = 1e6
_PROBED = 1000  # cells in which ln(1 + TPM) is converted back to counts as a check
_BLOCK_ENTRIES = 2**22  # entries of cells x genes at once, of at most 34 MB in double precision


class Matrix(NamedTuple):
    """Kind of the values: ``"counts"``, ``"log_tpm"``, or ``"none"`` if they are not transformed.

    ``depth`` is the total counts of every cell, if known, and ``scale`` the scale of a sample of
    the values.
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
    """Return the kind of the values of some cells: counts if they are whole, else ``otherwise``."""
    _adata.require_layer(adata, layer)
    scale = read_scale(adata, np.arange(adata.n_vars), cells, layer)
    kind = "counts" if scale.whole else otherwise
    scale_name = {"none": "log-normalised expression", "log_tpm": "ln(1 + TPM)"}.get(kind, kind)
    logger.info("The values are interpreted as %s.", scale_name)
    if kind != "counts" and scale.fault:
        instead = "check_scale=False to pp.setup_screen, and omit this step"
        raise ValueError(overruled_by(scale, instead))
    if depth_key is not None:
        return Matrix(kind, _read_depth(adata, depth_key), scale)
    return Matrix(kind, _total_counts(adata, cells, layer) if kind == "counts" else None, scale)


def _total_counts(adata: ad.AnnData, cells: NDArray[Any], layer: str | None) -> NDArray[np.float64]:
    """Return the sum over genes for each of ``cells``, 0 for other cells, ``(n_cells,)``."""
    total = np.zeros(adata.n_obs)
    columns = np.arange(adata.n_vars)
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
        message = (
            f"adata.obs[{key!r}] must hold total counts, a number of 0 or more in every cell: pass "
            f"another column as depth_key, or correct its values."
        )
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
    """Write log-normalised expression to X, and the earlier values to a layer.

    Return the total counts to which cells are scaled, by default the median; ``None`` if the values
    do not change.
    """
    values = new.X if layer is None else new.layers[layer]
    if sp.issparse(values):
        # Duplicate entries are summed before the logarithm is taken.
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
    """Return ``x = ln(1 + s_c n_cg)`` for counts or TPM ``n``, cells x genes.

    ``values`` are dense or sparse, and not changed; ``scale`` is ``s``, shape ``(n_cells,)``. The
    result has the columns of CSR values in the same array.
    """
    dtype = values.dtype if values.dtype.kind == "f" else np.float32
    is_sparse = sp.issparse(values)
    by_row = values.tocsr() if is_sparse else values
    numbers = _stored(by_row)
    logarithms = np.empty_like(numbers, dtype)
    # In double precision, a block of cells at a time: all cells at once would take twice their
    # memory.
    for rows, entries in _blocks(by_row):
        exact = numbers[entries].astype(np.float64)
        if kind == "log_tpm":
            np.expm1(exact, out=exact)
        of_cells = scale[rows]
        if is_sparse:
            pointers = by_row.indptr[rows.start : rows.stop + 1]
            exact *= np.repeat(of_cells, np.diff(pointers))
        else:
            exact *= of_cells[:, None]
        logarithms[entries] = np.log1p(exact, out=exact)
    if not is_sparse:
        return logarithms
    # One array for both saves a quarter of their memory. If zeros are stored, each has its own, as
    # `eliminate_zeros` on one would shift the columns of the other.
    columns = by_row.indices if numbers.all() else by_row.indices.copy()
    return type(by_row)((logarithms, columns, by_row.indptr.copy()), shape=by_row.shape)


def _blocks(values: Any) -> Iterator[tuple[slice, slice]]:
    """Yield ranges of rows, and the place of each in the stored values; of CSC, of columns."""
    shape = values.shape[::-1] if getattr(values, "format", None) == "csc" else values.shape
    step = max(1, _BLOCK_ENTRIES // max(1, shape[1]))
    for start in range(0, shape[0], step):
        rows = slice(start, min(start + step, shape[0]))
        if sp.issparse(values):
            yield rows, slice(values.indptr[rows.start], values.indptr[rows.stop])
        else:
            yield rows, rows


def _require_counts(values: Any) -> None:
    numbers = _stored(values)
    for _, entries in _blocks(values):
        stored = numbers[entries]
        if not ((stored >= 0) & (stored == np.floor(stored))).all():
            message = (
                "Most values of the matrix are counts, but some are not whole numbers of 0 or "
                "more: name the layer of counts, or that of log-normalised expression."
            )
            raise ValueError(message)


def _require_log_tpm(values: Any, depth: NDArray[np.float64] | None) -> None:
    """Raise unless values can be ln(1 + TPM) and, with the total counts, yield whole counts."""
    stored = _stored(values)
    bad = bool(stored.size) and not 0 <= stored.min() <= stored.max() <= np.log1p(_PER_MILLION)
    reason = "values below 0 or above ln(1 + 1e6)"
    if not bad and depth is not None:
        rows = np.arange(0, values.shape[0], max(1, values.shape[0] // _PROBED))
        sample = dense(values[rows])
        counts = np.expm1(sample) * depth[rows, None] / _PER_MILLION
        counts = counts[sample > 0]
        # Logarithms in files are rounded, to three decimals or more.
        off = np.abs(counts - np.maximum(np.round(counts), 1)) > 0.1 + 0.002 * counts
        bad = bool(off.size) and bool(off.mean() > 0.05)
        reason = "with the total counts of the cells, the counts behind them are not whole numbers"
    if bad:
        message = (
            f"The values of the matrix are not ln(1 + TPM) ({reason}): name the layer of counts or "
            f"of ln(1 + TPM), or use pp.perturbation_screen for other log-normalised expression."
        )
        raise ValueError(message)


def _stored(values: Any) -> NDArray[Any]:
    return values.data if sp.issparse(values) else np.asarray(values)
