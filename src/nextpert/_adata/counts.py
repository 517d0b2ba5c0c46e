"""Counts of cells, from a layer or recovered from log-normalised values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from nextpert._adata.read import read_sample, slot
from nextpert._adata.scale import read_scale

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

COUNTS = "counts"  # the layer that scanpy's tutorials keep counts in


def read_counts(
    adata: ad.AnnData, columns: NDArray[np.int64], cells: NDArray[np.int64], layer: str | None
) -> tuple[Array, Array, str]:
    """Return counts of a sample of cells, the scaled value of one count, and why there are none.

    The counts of at most 1,000 of ``cells`` have the shape ``(n_sample, n_genes)`` and the values
    ``(n_sample,)``. They are read from the layer ``"counts"``. Without it they follow from values
    ``log(1 + c v)``, in which the smallest value above 0 of most cells is that of one count.
    """
    every = np.arange(adata.n_vars)
    kind = read_scale(adata, every, cells, layer).kind
    if kind != "log-normalised":
        where = slot(layer)
        reason = f"{where} holds {kind}, from which counts cannot be recovered"
        return np.zeros((0, 0)), np.zeros(0), reason
    scaled = sp.vstack(
        [
            sp.csr_array(x, dtype=np.float64).expm1()
            for x in read_sample(adata, every, cells, layer)
        ],
        format="csr",
    )
    scaled.eliminate_zeros()
    filled = np.diff(scaled.indptr) > 0
    scaled = scaled[filled]
    value = np.minimum.reduceat(scaled.data, scaled.indptr[:-1])
    counts = np.round(scaled[:, columns].toarray() / value[:, None])
    if COUNTS in adata.layers:
        blocks = read_sample(adata, columns, cells, COUNTS)
        whole = sp.vstack([sp.csr_array(x) for x in blocks]).toarray()[filled].astype(np.float64)
        if np.array_equal(whole, np.floor(whole)) and whole.min(initial=0.0) >= 0:
            # The value of one count, from all genes of a cell.
            total = whole.sum(axis=1)
            known = total > 0
            of_panel = scaled[:, columns].sum(axis=1)
            value = np.where(known, of_panel / np.maximum(total, 1.0), value)
            counts = whole
    return counts, value, ""
