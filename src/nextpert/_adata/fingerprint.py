"""A fingerprint of the cells behind a result, so that a change of them is noticed later."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata.labels import read_labels
from nextpert._adata.read import read_blocks

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.labels import LabelTable

# Of more labelled cells, only every second (third, ...) run of cells is read.
_MOST_CELLS, _RUN = 100_000, 1000
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)


def fingerprint(
    adata: ad.AnnData, labels: LabelTable, columns: NDArray[np.int64], layer: str | None
) -> dict[str, str]:
    """Return fingerprints of the ``labels`` and of the ``values`` of all labelled cells.

    They do not depend on how the cells are stored, nor on the order in which they are read.
    """
    text = hashlib.sha256("\0".join([labels.key, *labels.names]).encode())
    text.update(np.ascontiguousarray(labels.codes, dtype="<i8").tobytes())
    cells = np.flatnonzero(labels.codes >= 0)
    step = -(-len(cells) // _MOST_CELLS)
    if step > 1:
        cells = cells[np.arange(len(cells)) // _RUN % step == 0]
    # Sums of products modulo 2^64: exact, so that their order does not matter.
    weights = _mixed(np.arange(len(columns)))
    total = len(cells)
    for which, values in read_blocks(adata, columns, cells, layer=layer):
        dense: Any = values.toarray() if isinstance(values, sp.csr_array) else values
        bits = (np.asarray(dense, dtype=np.float64) + 0.0).view(np.uint64)  # -0.0 is 0.0
        of_cell = bits @ weights
        total += int((_stirred(of_cell) * _mixed(which)).sum(dtype=np.uint64))
    return {"labels": text.hexdigest()[:16], "values": f"{total % 2**64:016x}"}


def changed_since(
    adata: ad.AnnData,
    before: Any,
    perturbation_key: str,
    columns: NDArray[np.int64],
    layer: str | None,
) -> list[str]:
    """Return which of ``labels`` and ``values`` differ from an earlier fingerprint."""
    gone = []
    if perturbation_key not in adata.obs.columns:
        gone.append("labels")
    if layer is not None and layer not in adata.layers:
        gone.append("values")
    if gone:
        return gone
    now = fingerprint(adata, read_labels(adata, perturbation_key), columns, layer)
    return [what for what, value in now.items() if value != str(before[what])]


def _mixed(positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return odd numbers, another for every position."""
    spread = (positions.astype(np.uint64) + np.uint64(1)) * _ODD
    return _stirred(spread) | np.uint64(1)


def _stirred(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix high bits into low ones: most floats have zeros at the end."""
    bits = (bits ^ (bits >> _SHIFT)) * _ODD
    return bits ^ (bits >> np.uint64(32))
