"""Whether a sparse matrix can be read at all: kernels trust its indices, and crash on bad ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from nextpert.core._checks import refuse_mask

# Indices looked at at once, of a matrix in memory or in a file.
_AT_ONCE = 2**22


def require_sound(matrix: Any, name: str = "The sparse matrix") -> None:
    """Raise unless the indices of a CSR or CSC matrix in memory lie within its shape."""
    if sp.issparse(matrix) and matrix.format in ("csr", "csc"):
        shape = matrix.shape if matrix.format == "csr" else matrix.shape[::-1]
        arrays = matrix.data, matrix.indices, matrix.indptr
        require_sound_pointers(arrays, shape[0], name)
        require_sound_indices(matrix.indices, shape[1], name)


def require_sound_pointers(
    arrays: tuple[Any, Any, Any], n_major: int, name: str = "The sparse matrix"
) -> None:
    """Raise unless ``data``, ``indices`` and ``indptr`` belong together.

    They may lie in a file: of the first two, the shape and type alone are looked at.
    """
    data, indices, indptr = arrays
    if any(len(array.shape) != 1 for array in arrays):
        raise damaged("values or indices of more than one dimension", name)
    if indices.dtype.kind not in "iu" or indptr.dtype.kind not in "iu":
        raise damaged("indices that are no whole numbers", name)
    if indptr.shape[0] != n_major + 1:
        raise damaged(f"{indptr.shape[0]} row or column pointers for {n_major}", name)
    last = 0
    for start in range(0, n_major + 1, _AT_ONCE):
        some = np.asarray(indptr[start : start + _AT_ONCE])
        if some[0] < last or (some[1:] < some[:-1]).any() or (start == 0 and some[0] != 0):
            raise damaged("row pointers that fall, or do not start at 0", name)
        last = int(some[-1])
    if last > min(data.shape[0], indices.shape[0]):
        raise damaged("fewer values than its row pointers say", name)


def require_sound_indices(indices: Any, n_minor: int, name: str = "The sparse matrix") -> None:
    """Raise unless all indices lie below ``n_minor``; they may lie in a file."""
    for start in range(0, indices.shape[0], _AT_ONCE):
        some = np.asarray(indices[start : start + _AT_ONCE])
        if some.min() < 0 or some.max() >= n_minor:
            raise damaged("column indices out of range", name)


def require_shape(matrix: Any, shape: tuple[int, int], name: str) -> None:
    """Raise unless a matrix is as large as the tables beside it say."""
    if tuple(matrix.shape) != shape:
        what = f"the shape {tuple(matrix.shape)} for {shape[0]} cells and {shape[1]} genes"
        raise damaged(what, name)


def require_numbers(values: Any, name: str = "The matrix") -> None:
    """Raise for values that a conversion to floats would change: masked, complex, no numbers."""
    refuse_mask(values, name)
    kind = np.dtype(values.dtype).kind
    if kind not in "buif":
        what = "complex numbers" if kind == "c" else f"values of type {values.dtype}"
        message = f"{name} holds {what}, but real numbers are needed: convert it first."
        raise ValueError(message)


def damaged(what: str, name: str = "The sparse matrix") -> ValueError:
    """Return the error about a damaged matrix."""
    return ValueError(f"{name} is damaged: it has {what}. Write the file anew.")
