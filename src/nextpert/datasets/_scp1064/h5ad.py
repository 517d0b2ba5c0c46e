"""Write rows of cells to an h5ad file in bounded memory; the file is there whole or not at all."""

from __future__ import annotations

import glob
import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._files import writing_to
from nextpert.datasets._scp1064.store import index_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anndata import AnnData

    from nextpert.datasets._scp1064.store import RowStore

_CHUNK = 1 << 18  # entries


@contextmanager
def part_file(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` that takes its place at the end, or vanishes after an error.

    What a killed process left there is removed: the name tells whose it is.
    """
    beginning = f".{target.name}.{socket.gethostname()}-"
    for left in target.parent.glob(f"{glob.escape(beginning)}*.part"):
        if not _is_running(left.name.removeprefix(beginning).removesuffix(".part")):
            left.unlink(missing_ok=True)
    part = target.with_name(f"{beginning}{os.getpid()}.part")
    try:
        with writing_to(target):
            yield part
            os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def _is_running(pid: str) -> bool:
    if not pid.isdecimal() or os.name == "nt":  # there, a signal 0 would interrupt
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_rows(path: Path, skeleton: AnnData, store: RowStore, *, is_sorted: bool) -> None:
    """Write annotation and rows to an h5ad file: values to ``X``, counts to ``layers``."""
    import h5py  # type: ignore[import-untyped]

    skeleton.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        groups = store.groups(is_sorted=is_sorted)
        n = int(store.n_entries.sum())
        index = index_type(n)
        indptr = np.concatenate([[0], np.cumsum(store.n_entries)]).astype(index)
        if "X" in file:
            del file["X"]
        names = ["X", "layers/counts"][: len(store.kinds)]
        matrices = [file.create_group(name) for name in names]
        for matrix, kind in zip(matrices, store.kinds, strict=True):
            matrix.attrs["encoding-type"] = "csr_matrix"
            matrix.attrs["encoding-version"] = "0.1.0"
            matrix.attrs["shape"] = np.array([store.n_cells, skeleton.n_vars], dtype=np.int64)
            matrix.create_dataset("indptr", data=indptr)
            for part, dtype in (("indices", index), ("data", kind)):
                matrix.create_dataset(part, (n,), dtype, maxshape=(None,), chunks=(_CHUNK,))
        start = 0
        for columns, *parts in groups:
            stop = start + len(columns)
            for matrix, values in zip(matrices, parts, strict=True):
                matrix["indices"][start:stop] = columns
                matrix["data"][start:stop] = values
            start = stop


def open_backed(path: Path) -> AnnData:
    """Open an h5ad file with values, and counts if there are any, left on disk."""
    import anndata as ad
    import h5py
    from anndata.io import read_elem, sparse_dataset

    file = h5py.File(path, "r")
    if "layers/counts" not in file:
        file.close()
        return ad.read_h5ad(path, backed="r")
    slots: dict[str, Any] = {name: read_elem(file[name]) for name in ("obs", "var", "uns", "obsm")}
    # read_h5ad would take the layer into memory.
    layers = {"counts": sparse_dataset(file["layers/counts"])}
    return ad.AnnData(filename=path, filemode="r", layers=layers, **slots)
