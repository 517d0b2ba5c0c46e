"""Results in ``.uns``: what each holds is written with it, and compared when it is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert._adata.eager import eager
from nextpert.core._codec import Reading
from nextpert.core.cells._sound import require_sound

FORMAT = 1  # of every result; others are refused


def with_format(result: Any) -> Any:
    """Return a result with format, version and a list of what it holds; others as they are."""
    if not isinstance(result, Mapping) or "format" in result:
        return result
    made = {**_as_read(result), "version": version("nextpert")}
    contents = json.dumps({str(name): _describe(value) for name, value in made.items()})
    return {**made, "format": FORMAT, "contents": contents}


def _as_read(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _as_read(part) for name, part in value.items()}
    return as_stored_csr(value) if sp.issparse(value) else value


def as_stored_csr(matrix: Any) -> sp.csr_array | sp.csr_matrix:
    """Return ``matrix`` as the CSR class that anndata gives back when it reads a file."""
    kind = sp.csr_array if ad.settings.use_sparse_array_on_read else sp.csr_matrix
    stored = kind(matrix)
    stored.sort_indices()
    return stored


def read_stored(adata: ad.AnnData, key: str, function: str) -> dict[str, Any]:
    """Return the result in ``adata.uns[key]``, in memory, as ``function`` wrote it.

    Raises
    ------
    ValueError
        If it has another format version, or a part of it is gone, was cut, has another type or
        is no longer finite. Parts may be added, and rows of tables left out.
    """
    stored = eager(adata.uns.get(key))
    fault = _fault(stored)
    if fault:
        raise Reading(f"adata.uns[{key!r}]", f"run {function} again", {}).damaged(fault)
    return dict(stored)


def _fault(stored: Any) -> str:
    """Return what is wrong with a result, or an empty string."""
    if not hasattr(stored, "keys") or hasattr(stored, "columns"):
        return "it is no result"
    its_format = stored.get("format")
    if _describe(its_format) != "numbers []" or its_format != FORMAT:
        return f"its format is not {FORMAT}"
    try:
        wanted = json.loads(str(stored.get("contents")))
    except json.JSONDecodeError:
        wanted = None
    if not isinstance(wanted, dict):
        return "the list of what it holds is unreadable"
    return _compare(stored, wanted, "")


def _compare(found: Any, wanted: Mapping[str, Any], where: str) -> str:
    for name, described in wanted.items():
        if name not in found:
            return f"it lacks {where}{name}"
        value = found[name]
        try:
            require_sound(value, f"{where}{name}")
        except ValueError as error:
            return str(error).split(": ")[0]
        now = _describe(value)
        if not isinstance(described, dict):
            fault = "" if now == described else f"{where}{name} is {now} in place of {described}"
        elif not isinstance(now, dict) or now.keys() != described.keys():
            fault = f"{where}{name} has another type"
        elif "columns" in described:
            differ = [
                k for k, kind in described["columns"].items() if now["columns"].get(k) != kind
            ]
            fault = f"{where}{name} has another column {differ[0]!r}" if differ else ""
        else:
            fault = _compare(value, described["parts"], f"{where}{name}/")
        if fault:
            return fault
    return ""


def _describe(value: Any) -> Any:
    """Return type, shape and finiteness of a part of a result, in words that files keep."""
    if isinstance(value, pd.DataFrame):
        return {"columns": {str(name): _kind(value[name].dtype) for name in value.columns}}
    if isinstance(value, Mapping):
        return {"parts": {str(name): _describe(part) for name, part in value.items()}}
    if sp.issparse(value):
        return f"sparse {list(value.shape)}{_finite(value.data)}"
    if value is None:
        return "nothing"
    try:
        array = np.asarray(value)
    except ValueError:
        return "ragged"
    if not array.size:
        return f"empty {list(array.shape)}"
    return f"{_kind(array.dtype)} {list(array.shape)}{_finite(array)}"


def _kind(dtype: Any) -> str:
    if pd.api.types.is_complex_dtype(dtype):
        return "complex"
    return "numbers" if pd.api.types.is_numeric_dtype(dtype) else "text"


def _finite(array: Any) -> str:
    return "" if array.dtype.kind != "f" or np.isfinite(array).all() else " not finite"
