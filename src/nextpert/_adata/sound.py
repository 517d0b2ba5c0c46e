"""Matrices that cannot be read, found before rows or columns are taken, and tables of numbers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.sources import arrays_of, computed, is_lazy
from nextpert.core.cells._sound import (
    require_numbers,
    require_shape,
    require_sound,
    require_sound_indices,
    require_sound_pointers,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    import pandas as pd
    from numpy.typing import NDArray

_SLOTS = ("layers", "obsm", "varm", "obsp", "varp")


def require_sound_matrices(adata: ad.AnnData) -> None:
    """Raise if a sparse matrix of ``adata`` is damaged; of a view, those it is a view of.

    A subset or a copy of a view goes through all of them by kernels that trust the indices.

    Raises
    ------
    ValueError
        If indices lie out of range, or pointers fall; the matrix is named.
    """
    for name, matrix in _matrices(adata):
        if is_lazy(matrix):
            _require_lazy(matrix, name)
        elif getattr(matrix, "group", None) is not None and hasattr(matrix, "format"):
            shape = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
            arrays = arrays_of(matrix)
            require_sound_pointers(arrays, shape[0], name)
            require_sound_indices(arrays[1], shape[1], name)
        else:
            require_sound(matrix, name)


def real_values(table: pd.DataFrame | pd.Series, name: str) -> NDArray[np.float64]:
    """Return the values of a table or column as floats, NaN where one is missing.

    Raises
    ------
    ValueError
        If it holds complex numbers, whose imaginary part would be lost, or what is no number.
    """
    lost = np.exceptions.ComplexWarning
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", lost)
            return table.to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError, lost):
        message = f"{name} must hold real numbers alone, but some of its values do not."
        raise ValueError(message) from None


def _matrices(adata: ad.AnnData) -> Iterator[tuple[str, Any]]:
    whole = adata._adata_ref if adata.is_view and adata._adata_ref is not None else adata
    if whole.X is not None:
        require_shape(whole.X, (whole.n_obs, whole.n_vars), "adata.X")
        yield "adata.X", whole.X
    for slot in _SLOTS:
        for key, matrix in getattr(whole, slot).items():
            if key is not None:  # anndata 0.13 lists X as the layer None
                yield f"adata.{slot}[{key!r}]", matrix
    if whole.raw is not None:
        yield "adata.raw.X", whole.raw.X


def _require_lazy(matrix: Any, name: str) -> None:
    def check(chunk: Any) -> Any:
        require_numbers(chunk, name)
        require_sound(chunk, name)
        return np.zeros((1,) * chunk.ndim, dtype=bool)

    chunks = tuple((1,) * n for n in matrix.numblocks)
    meta = np.empty((0,) * matrix.ndim)
    computed(matrix.map_blocks(check, dtype=bool, chunks=chunks, meta=meta))
