"""Results in ``.uns``: written completely or not at all, and checked when read."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from functools import cache, partial
from importlib.metadata import version
from numbers import Integral
from typing import TYPE_CHECKING, Any

import anndata as ad
import scipy.sparse as sp

from nextpert.core._codec import FORMAT, describe, require_as_described

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray


def check_writable(adata: ad.AnnData, key: str, *, copy: bool) -> None:
    """Raise if results cannot be written: an invalid key, or a view of a backed file."""
    # In files, a slash separates groups.
    if not isinstance(key, str) or not key or "/" in key:
        message = f"key_added must be a non-empty string without a slash, but is {key!r}."
        raise ValueError(message)
    if adata.is_view and adata.isbacked and not copy:
        message = (
            "adata is a view of a backed file, which cannot hold results: "
            "call adata.to_memory() first, or pass copy=True."
        )
        raise ValueError(message)


def write_results(
    adata: ad.AnnData,
    *,
    obs: Mapping[str, Any] | None = None,
    uns: Mapping[str, Any] | None = None,
    varp: Mapping[str, sp.csr_array | NDArray[np.floating]] | None = None,
    obsm: Mapping[str, NDArray[np.floating]] | None = None,
    varm: Mapping[str, NDArray[np.floating]] | None = None,
    copy: bool = False,
) -> ad.AnnData | None:
    """Write all results at once, after every step that can fail; views become actual.

    Returns the copy that holds the results if ``copy`` is true, else ``None``.
    """
    results = {key: with_format(value) for key, value in (uns or {}).items()}
    slots = {
        "obs": obs,
        "varp": as_stored_csr(varp or {}),
        "obsm": obsm,
        "varm": varm,
        "uns": results,
    }
    target = adata
    if copy:
        target = adata.to_memory() if adata.isbacked else adata.copy()
    with warnings.catch_warnings():
        # The first write turns a view into a copy, as in scanpy.
        warnings.simplefilter("ignore", ad.ImplicitModificationWarning)
        for slot, values in slots.items():
            for key, value in (values or {}).items():
                getattr(target, slot)[key] = value
    return target if copy else None


@cache
def _version() -> str:
    """Return the version of nextpert, read from disk only once."""
    return version("nextpert")


def with_format(result: Any) -> Any:
    """Return a result with format, version and a list of its parts; other values unchanged."""
    if not isinstance(result, Mapping) or "format" in result:
        return result
    made = {**as_stored_csr(result), "version": _version()}
    return {**made, "format": FORMAT, "contents": json.dumps(describe(made)["parts"])}


def with_parts(stored: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    """Return a stored result with some parts replaced, and the list of its parts made anew."""
    made = {name: part for name, part in stored.items() if name not in ("format", "contents")}
    return dict(with_format(made | parts))


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return a value after ``change``, applied in nested mappings, which become dicts, to parts."""
    whole: dict[str, Any] = {}
    left = [(whole, "", value)]
    while left:
        place, name, part = left.pop()
        if hasattr(part, "items") and hasattr(part, "keys") and not hasattr(part, "columns"):
            inner = place[name] = dict.fromkeys(map(str, part.keys()))  # in the order given
            left += [(inner, str(each), held) for each, held in part.items()]
        else:
            place[name] = change(part)
    return whole[""]


def _stored_csr(part: Any) -> Any:
    """Return a sparse matrix as the CSR class that anndata reads from files; others unchanged."""
    if sp.issparse(part):
        kind = sp.csr_array if ad.settings.use_sparse_array_on_read else sp.csr_matrix
        part = kind(part)
        part.sort_indices()
    return part


def _in_memory(part: Any) -> Any:
    """Return a Dask array or lazy table in memory, and strings from zarr as objects."""
    while hasattr(part, "compute") and not hasattr(part, "to_memory"):
        part = part.compute()
    # A table of anndata.experimental.read_lazy.
    if hasattr(part, "to_memory"):
        return part.to_memory()
    is_text = getattr(getattr(part, "dtype", None), "kind", "") == "T"
    return part.astype(object) if is_text else part


# A value, or all parts of a mapping, before it is written and after it is read.
as_stored_csr = partial(_mapped, _stored_csr)
eager = partial(_mapped, _in_memory)


def read_stored(adata: ad.AnnData, key: str, function: str) -> dict[str, Any]:
    """Return the result in ``adata.uns[key]``, in memory; ``function`` is named in the error."""
    stored = eager(adata.uns.get(key))
    require_as_described(stored, f"adata.uns[{key!r}]", f"run {function} again")
    return dict(stored)


def seed_of(rng: int | np.random.Generator | None) -> str:
    """Return the stored form of the ``rng`` of a call: the seed, ``generator``, or ``fresh``.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert._adata import seed_of
    >>> seed_of(7), seed_of(np.random.default_rng(7)), seed_of(None)
    ('7', 'generator', 'fresh')
    """
    if rng is None:
        return "fresh"
    return str(int(rng)) if isinstance(rng, Integral) else "generator"
