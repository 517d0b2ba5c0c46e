"""Writing results: nothing by halves, and nothing that h5ad or zarr would change."""

from __future__ import annotations

import itertools
import warnings
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import scipy.sparse as sp

from nextpert._adata.sound import require_sound_matrices
from nextpert._adata.stored import with_format

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


def as_stored_csr(matrix: Any) -> sp.csr_array | sp.csr_matrix:
    """Return ``matrix`` as the CSR class that anndata gives back when it reads a file."""
    kind = sp.csr_array if ad.settings.use_sparse_array_on_read else sp.csr_matrix
    stored = kind(matrix)
    stored.sort_indices()
    return stored


def strings(values: Iterable[Any]) -> NDArray[np.object_]:
    """Return strings as the object array that anndata gives back when it reads an h5ad file."""
    items = [str(value) for value in values]
    out = np.empty(len(items), dtype=object)
    out[:] = items
    return out


def stored_lists(lists: Iterable[Sequence[str]]) -> dict[str, NDArray[Any]]:
    """Return lists of names as they are stored: one after the other, and where each begins.

    Names may hold any character, so that no string joined from them could be taken apart again.

    Examples
    --------
    >>> from nextpert._adata import read_lists, stored_lists
    >>> read_lists(stored_lists([["A, B", "C"], [], ["C"]]), 3, "targets")
    [['A, B', 'C'], [], ['C']]
    """
    every = [list(names) for names in lists]
    offsets = np.cumsum([0, *map(len, every)], dtype=np.int64)
    return {"names": strings(name for names in every for name in names), "offsets": offsets}


def read_lists(stored: Any, n: int, where: str) -> list[list[str]]:
    """Return ``n`` lists stored by :func:`stored_lists`; ``where`` names them in errors."""
    held = stored if hasattr(stored, "get") else {}
    offsets, names = (np.asarray(held.get(part, ())) for part in ("offsets", "names"))
    whole = offsets.dtype.kind in "iu" and offsets.shape == (n + 1,) and names.ndim == 1
    if not whole or offsets[0] != 0 or (np.diff(offsets) < 0).any() or offsets[-1] != len(names):
        message = f"{where} is damaged or of an earlier version: run what wrote it again."
        raise ValueError(message)
    return [[str(x) for x in names[a:b]] for a, b in itertools.pairwise(offsets.tolist())]
