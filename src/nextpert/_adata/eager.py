"""Results of files read lazily."""

from __future__ import annotations

from typing import Any


def eager(value: Any) -> Any:
    """Return a stored value in memory: Dask arrays and lazy tables read, mappings gone through."""
    if hasattr(value, "to_memory"):  # a table of anndata.experimental.read_lazy
        return value.to_memory()
    if hasattr(value, "compute"):
        return value.compute()
    if hasattr(value, "items") and hasattr(value, "keys") and not hasattr(value, "columns"):
        return {name: eager(part) for name, part in value.items()}
    return value
