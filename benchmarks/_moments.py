"""Moments of many cells: from memory against ``X.T @ X``, from a file against reading it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from benchmarks._row import Work
from nextpert import _adata
from nextpert.core import Moments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_STEP = 20_000  # cells written at a time
_ENTRIES = 2**22  # stored values read at a time


def from_memory(*, n_cells: int, n_genes: int) -> Work:
    """Moments of a dense array against the bare product ``X.T @ X``."""
    rng = np.random.default_rng(0)
    cells = np.empty((n_cells, n_genes))
    for first in range(0, n_cells, _STEP):
        part = cells[first : first + _STEP]
        part[:] = rng.gamma(2.0, 0.5, part.shape)

    def report(found: list[Moments], peers: list[Array]) -> tuple[str, bool]:
        if not peers:
            return "", True
        worst = float(np.abs(found[0].gram / peers[0] - 1).max())
        return f"products agree to {worst:.0e}", worst < 1e-10

    return Work(lambda _: Moments.from_array(cells), lambda _: cells.T @ cells, report)


def _blocks(n_cells: int, n_genes: int, density: float) -> Iterator[sp.csr_array]:
    """Draw log-normalised cells in blocks, with the same number of non-zeros in every cell."""
    rng = np.random.default_rng(0)
    stored = max(1, round(density * n_genes))
    for first in range(0, n_cells, _STEP):
        n = min(_STEP, n_cells - first)
        # One gene out of each of `stored` ranges: sorted and without repeats.
        edges = np.linspace(0, n_genes, stored + 1).astype(np.int64)
        columns = rng.integers(edges[:-1], edges[1:], (n, stored), dtype=np.int32)
        values = np.log1p(rng.integers(1, 40, (n, stored))).astype(np.float32)
        indptr = np.arange(0, n * stored + 1, stored)
        yield sp.csr_array((values.ravel(), columns.ravel(), indptr), shape=(n, n_genes))


def screen_file(
    *, n_cells: int, n_genes: int, n_panel: int, density: float, scratch: str,
    compression: str | None = None,
) -> Path:  # fmt: skip
    """Write the h5ad file of the benchmark, block by block, unless it is there already.

    Beside it stands the expected answer: the panel's products over the control cells.
    """
    kind = compression or "plain"
    path = Path(scratch) / f"screen_{n_cells}_{n_genes}_{n_panel}_{density:g}_{kind}.h5ad"
    if path.exists():
        return path
    labels = np.random.default_rng(1).integers(0, 26, n_cells)
    names = np.array(["control"] * 2 + [f"g{i}" for i in range(24)])
    obs = pd.DataFrame({"perturbation": pd.Categorical(names[labels])}, index=_names(n_cells))
    var = pd.DataFrame(index=pd.Index([f"g{i}" for i in range(n_genes)]))
    empty = sp.csr_matrix((n_cells, n_genes), dtype=np.float32)
    part = path.with_suffix(".part")
    ad.AnnData(empty, obs=obs, var=var).write_h5ad(part)
    panel, gram, control = panel_columns(n_genes, n_panel), np.zeros((n_panel, n_panel)), labels < 2
    with h5py.File(part, "r+") as file:
        x = file["X"]
        for name, dtype in (("data", np.float32), ("indices", np.int32)):
            del x[name]
            x.create_dataset(
                name, (0,), dtype, maxshape=(None,), chunks=(2**18,), compression=compression
            )
        done, stored, indptr = 0, 0, np.zeros(n_cells + 1, np.int64)
        for block in _blocks(n_cells, n_genes, density):
            for name in ("data", "indices"):
                x[name].resize((stored + block.nnz,))
                x[name][stored:] = getattr(block, name)
            stop = done + block.shape[0]
            indptr[done + 1 : stop + 1] = stored + block.indptr[1:]
            own = block[control[done:stop]][:, panel].astype(np.float64)
            gram += (own.T @ own).toarray()
            done, stored = stop, stored + block.nnz
        del x["indptr"]
        x.create_dataset("indptr", data=indptr)
    np.save(path.with_suffix(".npy"), gram)
    part.rename(path)
    return path


def _names(n_cells: int) -> pd.Index:
    return pd.Index([f"c{i}" for i in range(n_cells)])


def panel_columns(n_genes: int, n_panel: int) -> NDArray[np.int64]:
    """Return the columns of the panel, spread over the genes."""
    return np.linspace(0, n_genes - 1, n_panel).astype(np.int64)


def _read_whole(path: Path) -> int:
    """Read every stored value and index once, in blocks; return how many."""
    with h5py.File(path) as file:
        x = file["X"]
        x["indptr"][:]
        size = x["data"].shape[0]
        for first in range(0, size, _ENTRIES):
            x["data"][first : first + _ENTRIES]
            x["indices"][first : first + _ENTRIES]
    return size


def from_file(*, n_panel: int, **file: Any) -> Work:
    """Moments of the controls and 24 perturbations from a backed sparse file; or reading it.

    Both start from an open file: anndata reads the names of all cells as it opens one, which is
    timed apart.
    """
    path = screen_file(n_panel=n_panel, **file)
    start = time.perf_counter()
    adata = ad.read_h5ad(path, backed="r")
    opening = time.perf_counter() - start
    columns = panel_columns(adata.n_vars, n_panel)

    def ours(_: int) -> Moments:
        labels = _adata.read_labels(adata, "perturbation")
        names = ["control", *(name for name in labels.names if name != "control")]
        groups = labels.groups(names)
        return _adata.read_groups(adata, columns, groups, len(names), _adata.Roles())[0][0]

    def report(found: list[Moments], peers: list[int]) -> tuple[str, bool]:
        expected = np.load(path.with_suffix(".npy"))
        worst = float(np.abs(found[0].gram - expected).max() / np.abs(expected).max())
        size = f"{path.stat().st_size / 2**20:,.0f} MB"
        said = f"file of {size}, in the page cache; opening it {opening:.1f} s more; agree to"
        return f"{said} {worst:.0e}", worst < 1e-10

    return Work(ours, lambda _: _read_whole(path), report)
