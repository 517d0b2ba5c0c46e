"""Sums over a screen of millions of cells, out of core: time, peak memory, and correctness.

An h5ad file of 2,000,000 cells x 1,000 genes (sparse counts) in 10,000 environments is written by
repeating one block of cells, and read once, backed, as ``tl.learn_dag(environments="all")`` reads
it. The peak is that of this process during reading, above its memory before. The products of all
cells are compared with those of the block; environments are drawn again for every repetition.

    python -m benchmarks.out_of_core
    python -m benchmarks.out_of_core --cells 40000 --environments 200
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp

from benchmarks._measure import forget_peak, peak, resident
from benchmarks._page import options, save, show, table
from nextpert._adata.roles import Roles
from nextpert._adata.screen import read_environments, screen_moments

_BLOCK, _SHARE = 20_000, 0.1  # cells that are repeated, and share of their entries not zero


def write(path: Path, n_cells: int, n_genes: int, n_environments: int) -> sp.csr_array:
    """Write the file; return the block that it repeats."""
    rng = np.random.default_rng(0)
    n = min(_BLOCK, n_cells)
    block = sp.random_array((n, n_genes), density=_SHARE, format="csr", random_state=rng)
    block.data = np.log1p(rng.poisson(1, block.nnz) + 1).astype(np.float32)
    block.sort_indices()
    times = n_cells // n
    names = np.array(["control", *(f"p{k}" for k in range(1, n_environments))])
    codes = rng.integers(n_environments, size=times * n)
    obs = pd.DataFrame({"perturbation": pd.Categorical.from_codes(codes, names)})
    obs.index = obs.index.astype(str)
    empty = sp.csr_matrix((times * n, n_genes), dtype=np.float32)
    ad.AnnData(empty, obs).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        x = file["X"]
        for name in ("data", "indices", "indptr"):
            del x[name]
        for name, values in (("data", block.data), ("indices", block.indices.astype(np.int32))):
            size = times * block.nnz
            whole = x.create_dataset(name, (size,), values.dtype, chunks=(min(2**18, size),))
            for k in range(times):
                whole[k * block.nnz : (k + 1) * block.nnz] = values
        starts = np.arange(times)[:, None] * block.nnz + block.indptr[:-1]
        x.create_dataset("indptr", data=np.append(starts.ravel(), times * block.nnz))
    return block


def main(arguments: list[str] | None = None) -> None:
    """Write the file, read it and print what it took."""
    parser = options("out_of_core", __doc__)
    parser.add_argument("--cells", type=int, default=2_000_000)
    parser.add_argument("--genes", type=int, default=1000)
    parser.add_argument("--environments", type=int, default=10_000)
    parser.add_argument("--scratch", metavar="DIR", help="folder for the file, of some 2 GB")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        path = Path(folder) / "screen.h5ad"
        block = write(path, args.cells, args.genes, args.environments)
        adata = ad.read_h5ad(path, backed="r")
        environments = read_environments(adata, Roles())
        gc.collect()
        forget_peak()
        before, wall, own = resident(), time.perf_counter(), time.process_time()
        screen = screen_moments(adata, np.arange(args.genes), environments)
        wall, own = time.perf_counter() - wall, time.process_time() - own
        more, size = peak() - before, path.stat().st_size
        adata.file.close()
    dense = block.toarray().astype(np.float64)
    times = int(screen.n.sum()) // len(dense)
    gram = times * dense.T @ dense
    total = screen.total()
    worst = np.abs(total.gram - gram).max() / np.abs(gram).max()
    held = sum(getattr(screen, name).nbytes for name in ("n", "mean", "squares", "scatter"))
    head = (
        "cells", "genes", "environments", "file, MB", "wall s", "CPU s",
        "peak, MB above start", "MB kept", "sums agree to",
    )  # fmt: skip
    row = [
        f"{screen.n.sum():,}", args.genes, f"{len(screen.n):,}", f"{size / 1e6:,.0f}",
        f"{wall:.0f}", f"{own:.0f}", f"{more:,.0f}", f"{held / 1e6:.0f}", f"{worst:.0e}",
    ]  # fmt: skip
    save("out_of_core", [show(table(head, [row]))], args.save)


if __name__ == "__main__":
    main()
