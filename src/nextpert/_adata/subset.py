"""Cells and genes cut out of an AnnData, and put in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.read import _parent
from nextpert._adata.sound import require_sound_matrices
from nextpert._adata.sources import is_lazy

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray


def check_in_place(adata: ad.AnnData, *, copy: bool) -> None:
    """Raise if cells and genes are to be dropped in place from a file or a lazy matrix."""
    if not copy and (adata.isbacked or is_lazy(_parent(adata).X)):
        message = (
            "adata is backed by a file, from which cells and genes cannot be dropped in place: "
            "pass copy=True, which reads the cells and genes that are kept, or call "
            "adata.to_memory() first."
        )
        raise ValueError(message)


def take(adata: ad.AnnData, cells: NDArray, genes: NDArray) -> ad.AnnData:
    """Return some cells and genes as an AnnData of its own, in memory."""
    require_sound_matrices(adata)
    source = _parent(adata)
    if not adata.isbacked and not is_lazy(source.X):
        return adata[cells, genes].copy()
    if source is not adata:  # a view of a backed file has no views of its own
        cells = np.arange(source.n_obs)[adata._oidx][cells]
        genes = np.arange(source.n_vars)[adata._vidx][genes]
    # What to_memory returns of a view still bears the classes of views; a copy does not.
    return source[cells, genes].to_memory().copy()


def replace(adata: ad.AnnData, new: ad.AnnData) -> None:
    """Make ``adata`` hold what ``new`` holds, as scanpy's filters do; a view becomes actual."""
    adata._init_as_actual(new)
