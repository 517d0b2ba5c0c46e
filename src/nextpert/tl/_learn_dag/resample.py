"""Moments of resampled control cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert import _adata
from nextpert.core.search._resamples import Resamples

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.core import Moments


def resample(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    cells: NDArray[np.int64],
    n_bootstraps: int,
    rng: np.random.Generator,
    *,
    layer: str | None,
) -> list[Moments]:
    """Return the moments of every resample of some cells, all of them from one pass.

    A cell's weights follow from its place among ``cells``, however the matrix is stored.
    """
    seeds = rng.integers(0, 2**64, n_bootstraps, dtype=np.uint64)
    resamples = Resamples(len(columns), seeds)
    for here, block in _adata.read_blocks(adata, columns, cells, layer=layer):
        resamples.add(np.searchsorted(cells, here), block)
    return resamples.finish()
