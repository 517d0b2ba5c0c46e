"""Counts or ln(1 + TPM) to log-normalised expression."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata.labels import column_of
from nextpert._adata.sources import dense

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

_PER_MILLION = 1e6
# Cells looked at to tell whether ln(1 + TPM) gives back counts.
_PROBED = 1000
# Scaled by more than this, the first count of a gene tells five times what the second does.
_BLOWN_UP = 20


def total_counts(adata: ad.AnnData, cells: NDArray[Any], layer: str | None) -> NDArray[np.float64]:
    """Return the sum of the values of ``cells`` over all genes, 0 for others, ``(n_cells,)``."""
    total = np.zeros(adata.n_obs)
    for block, values in _adata.read_blocks(adata, np.arange(adata.n_vars), cells, layer=layer):
        total[block] = np.asarray(values.sum(axis=1, dtype=np.float64)).ravel()
    return total


def read_depth(adata: ad.AnnData, key: str) -> NDArray[np.float64]:
    """Return the counts of every cell in ``adata.obs[key]``.

    Raises
    ------
    ValueError
        If the column is absent, or holds something else than numbers of 0 or more.
    """
    column = column_of(adata, key, "name the column of every cell's total counts with depth_key")
    try:
        depth = _adata.real_values(column, key)
    except ValueError:
        depth = np.full(1, np.nan)
    if not (np.isfinite(depth) & (depth >= 0)).all():
        message = f"adata.obs[{key!r}] must hold total counts, a number of 0 or more in every cell."
        raise ValueError(message)
    return depth


def log_normalise(
    values: Any, kind: str, depth: NDArray[np.float64] | None, target_sum: float
) -> Any:
    """Return ``ln(1 + target_sum * share of the cell's counts)``.

    Parameters
    ----------
    values
        Cells x genes, dense or sparse; not written to.
    kind
        ``"counts"``, or ``"log_tpm"`` for ln(1 + TPM).
    depth
        Total counts of every cell, for counts, shape ``(n_cells,)``.
    target_sum
        Counts a cell is scaled to.
    """
    if kind == "log_tpm" and target_sum == _PER_MILLION:
        return values
    dtype = values.dtype if values.dtype.kind == "f" else np.float32
    scale = np.broadcast_to(
        target_sum / (_PER_MILLION if depth is None else depth), values.shape[0]
    )
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


def blown_up_messages(depth: NDArray[np.float64], target_sum: float) -> list[str]:
    """Return the warning about cells scaled to many times their counts, if they are.

    ``depth`` are the total counts of the cells, which are scaled to ``target_sum``.
    """
    typical = float(np.median(depth))
    if target_sum <= _BLOWN_UP * typical:
        return []
    first = np.log1p(target_sum / typical)
    second = np.log1p(2 * target_sum / typical) - first
    message = (
        f"Cells hold {typical:.3g} counts (median) and are scaled to {target_sum:g}: the first "
        f"count of a gene adds {first:.1f} and the second {second:.1f}, so values depend mostly on "
        f"whether a gene is detected. Leave target_sum at 'median', and if the matrix has only a "
        f"panel of genes, name the cells' total counts over all genes with depth_key in "
        f"count_options."
    )
    return [message]


def check_counts(values: Any) -> None:
    """Raise unless all values are whole numbers of 0 or more."""
    stored = _stored(values)
    if not ((stored >= 0) & (stored == np.floor(stored))).all():
        message = (
            "The matrix has values that are not counts (whole numbers of 0 or more): pass "
            "count_options={'normalise': 'none'} if they are log-normalised expression, or name "
            "the layer of counts."
        )
        raise ValueError(message)


def check_log_tpm(values: Any, depth: NDArray[np.float64] | None) -> None:
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
        reason = "with the cells' total counts they give no whole numbers"
    if bad:
        message = (
            f"The matrix does not hold ln(1 + TPM) ({reason}): pass "
            f"count_options={{'normalise': 'none'}} to keep its values as they are, or name the "
            f"layer of counts."
        )
        raise ValueError(message)


def _stored(values: Any) -> NDArray[Any]:
    return values.data if sp.issparse(values) else np.asarray(values)
