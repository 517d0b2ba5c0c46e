"""Writing results: nothing by halves, and nothing that h5ad or zarr would change."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad

from nextpert._adata.sound import require_sound_matrices
from nextpert._adata.stored import as_stored_csr, with_format

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import scipy.sparse as sp
    from numpy.typing import NDArray


def check_key(key: str) -> None:
    """Raise unless ``key_added`` can name a slot: files take a slash for a group."""
    if not isinstance(key, str) or not key or "/" in key:
        message = f"key_added must be a non-empty string without a slash, but is {key!r}."
        raise ValueError(message)


def check_writable(adata: ad.AnnData, *, copy: bool) -> None:
    """Raise if results cannot be written to ``adata``: a view of a backed file, or damaged."""
    if adata.is_view and adata.isbacked and not copy:
        message = (
            "adata is a view of a backed file, which cannot hold results: "
            "call adata.to_memory() first, or pass copy=True."
        )
        raise ValueError(message)
    if adata.is_view:  # it is copied as it is written to
        require_sound_matrices(adata)


def write_results(
    adata: ad.AnnData,
    *,
    obs: Mapping[str, Any] | None = None,
    uns: Mapping[str, Any] | None = None,
    varp: Mapping[str, sp.csr_array] | None = None,
    obsm: Mapping[str, NDArray[np.floating]] | None = None,
    varm: Mapping[str, NDArray[np.floating]] | None = None,
    copy: bool = False,
) -> ad.AnnData | None:
    """Write all results at once, after all that can fail; a view becomes an actual AnnData.

    Returns the copy that was written to where ``copy`` is set, else ``None``.
    """
    target = adata
    if copy:
        target = adata.to_memory() if adata.isbacked else adata.copy()
    with warnings.catch_warnings():
        # A view turns into a copy on the first write, as everywhere in scanpy.
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        for key, column in (obs or {}).items():
            target.obs[key] = column
        for key, matrix in (varp or {}).items():
            target.varp[key] = as_stored_csr(matrix)
        for key, array in (obsm or {}).items():
            target.obsm[key] = array
        for key, array in (varm or {}).items():
            target.varm[key] = array
        for key, value in (uns or {}).items():
            target.uns[key] = with_format(value)
    return target if copy else None
