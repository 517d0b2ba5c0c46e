"""A digest of all that an h5ad or zarr holds, so that any damage is noticed."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h5py  # type: ignore[import-untyped]
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def opened(path: Any, mode: str) -> Iterator[Any]:
    """Yield the root group of a file, an h5ad or a zarr, or of a store of zarr."""
    if getattr(path, "suffix", ".zarr") == ".zarr":
        import zarr

        yield zarr.open_group(path, mode="r" if mode == "r" else "r+", use_consolidated=False)
    else:
        with h5py.File(path, mode) as file:
            yield file


def attributes(group: Any) -> dict[str, Any]:
    """Return the attributes of a group or array, arrays as lists."""
    return {str(name): _plain(value) for name, value in dict(group.attrs).items()}


def contents_digest(group: Any, *leave_out: str) -> str:
    """Return a digest of all groups, arrays and attributes but some of the root's."""
    text = hashlib.sha256()
    _add(text, group, "", set(leave_out))
    return text.hexdigest()


def _add(text: Any, node: Any, where: str, leave_out: set[str]) -> None:
    told = sorted((k, repr(v)) for k, v in attributes(node).items() if k not in leave_out)
    text.update(f"{where}\0{told}\0".encode())
    if hasattr(node, "keys"):
        for name in sorted(node.keys()):
            _add(text, node[name], f"{where}/{name}", set())
        return
    text.update(f"{node.dtype}{node.shape}\0".encode())
    values = np.asarray(node[...] if node.shape else node[()])
    if values.dtype.kind in "biufc":
        text.update(np.ascontiguousarray(values).tobytes())
    else:
        text.update("\0".join(map(str, values.ravel().tolist())).encode())


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value
