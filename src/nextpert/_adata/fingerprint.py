"""A fingerprint of the cells behind a result, so that a change of them is noticed later."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.read import Checksum, read_sums, stirred

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.labels import LabelTable

# Of more labelled cells, only every second (third, ...) run of cells is read.
_MOST_CELLS, _RUN = 100_000, 1000
_ODD = np.uint64(0x9E3779B97F4A7C15)


def fingerprint(
    adata: ad.AnnData, labels: LabelTable, columns: NDArray[np.int64], layer: str | None
) -> dict[str, str]:
    """Return fingerprints of the ``labels`` and of the ``values`` of all labelled cells.

    They do not depend on how the cells are stored, nor on the order in which they are read.
    """
    wanted = fingerprint_weights(labels, len(columns))
    _, found = read_sums(adata, columns, [], checksum=wanted, layer=layer)
    return as_fingerprint(labels, found)


def fingerprint_weights(labels: LabelTable, n_columns: int) -> Checksum:
    """Return the weights of the checksum that a fingerprint of the labelled cells is made from."""
    cells = np.flatnonzero(labels.codes >= 0)
    step = -(-len(cells) // _MOST_CELLS)
    if step > 1:
        cells = cells[np.arange(len(cells)) // _RUN % step == 0]
    weights = np.zeros(len(labels.codes), np.uint64)
    weights[cells] = _mixed(cells)
    return Checksum(weights, _mixed(np.arange(n_columns)))


def as_fingerprint(labels: LabelTable, checksum: int) -> dict[str, str]:
    """Return the fingerprint of labels, and of the values of which a checksum was read."""
    text = hashlib.sha256("\0".join([labels.key, *labels.names]).encode())
    text.update(np.ascontiguousarray(labels.codes, dtype="<i8").tobytes())
    n_cells = int(np.count_nonzero(fingerprint_weights(labels, 0).cells))
    return {"labels": text.hexdigest()[:16], "values": f"{(n_cells + checksum) % 2**64:016x}"}


def _mixed(positions: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Return odd numbers, another for every position."""
    spread = (positions.astype(np.uint64) + np.uint64(1)) * _ODD
    return stirred(spread) | np.uint64(1)
