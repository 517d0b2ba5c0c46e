"""How fast, and in how much memory, the portal's Perturb-CITE-seq files are read.

A study in the portal's layout is written and read back on one core: by decompressing alone, by
``pandas.read_csv`` and by ``datasets.perturb_cite_seq``, in memory and into a file, with its
metadata, guides, checks and counts. The counts are compared with what was written. Peak memory is
that of this process, over what it held before.

    python -m benchmarks.perturb_cite_seq
    python -m benchmarks.perturb_cite_seq --cells 2000 --genes 500
"""

from __future__ import annotations

import gc
import gzip
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from benchmarks._measure import forget_peak, peak, resident
from benchmarks._page import options, save, show, table
from nextpert.datasets import perturb_cite_seq

if TYPE_CHECKING:
    from collections.abc import Callable

_SHARE = 0.16  # of entries that are not zero, as in the study


def write_study(folder: Path, n_cells: int, n_genes: int) -> sp.csr_matrix:
    """Write a study without guides; return its counts, cells x genes."""
    rng = np.random.default_rng(0)
    depth, rate = np.exp(rng.normal(0, 0.4, n_cells)), rng.gamma(0.3, 1, n_genes)
    low, high = 1e-3, 1e3
    for _ in range(40):  # the depth at which the wanted share is not zero
        scale = np.sqrt(low * high)
        share = 1 - np.exp(-scale * np.outer(rate, depth[:200])).mean()
        low, high = (scale, high) if share < _SHARE else (low, scale)
    counts = [sp.csr_matrix(rng.poisson(scale * r * depth)) for r in rate]
    by_gene = sp.vstack(counts, format="csr").astype(np.int64)
    by_gene[0, np.flatnonzero(np.asarray(by_gene.sum(axis=0)).ravel() == 0)] = 1
    total = np.asarray(by_gene.sum(axis=0)).ravel()
    cells = [f"CELL_{i + 1}" for i in range(n_cells)]
    with gzip.open(folder / "RNA_expression.csv.gz", "wt", compresslevel=6) as file:
        file.write(",".join(["GENE", *cells]) + "\n")
        for g in range(n_genes):
            row, fields = by_gene[g], ["0"] * n_cells
            values = np.log1p(row.data * 1e6 / total[row.indices]).tolist()
            for j, value in zip(row.indices.tolist(), values, strict=True):
                fields[j] = f"{value:.15g}"
            file.write(f"GENE{g + 1}," + ",".join(fields) + "\n")
    header = "NAME,library_preparation_protocol,condition,MOI,sgRNA,UMI_count"
    rows = [f"{cell},10x,Control,0,,{n}" for cell, n in zip(cells, total, strict=True)]
    (folder / "RNA_metadata.csv").write_text("\n".join([header, *rows, ""]))
    guides = "\n".join(["Cell,sgRNAs", *(f"{cell}," for cell in cells), ""])
    (folder / "all_sgRNA_assignments.txt").write_text(guides)
    return sp.csr_matrix(by_gene.T)


def decompress(path: Path) -> int:
    """Read a gzipped file to its end; return its length."""
    n = 0
    with gzip.open(path) as file:
        while data := file.read(1 << 22):
            n += len(data)
    return n


def measured(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return CPU seconds, peak memory over what was held before (MB), and the result."""
    gc.collect()
    forget_peak()
    before, start = resident(), time.process_time()
    result = call()
    return time.process_time() - start, peak() - before, result


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("perturb_cite_seq", __doc__)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--genes", type=int, default=4_000)
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        warm, folder = Path(scratch) / "warm", Path(scratch) / "study"
        for each, size in ((warm, (60, 20)), (folder, (args.cells, args.genes))):
            each.mkdir()
            counts = write_study(each, *size)
        perturb_cite_seq(warm, protein=False, counts=True)  # compiles
        path, file = folder / "RNA_expression.csv.gz", folder / "out.h5ad"
        ways: dict[str, Callable[[], Any]] = {
            "gzip alone": lambda: decompress(path),
            "pandas.read_csv": lambda: pd.read_csv(path, index_col=0).shape,
            "the study": lambda: perturb_cite_seq(folder, protein=False),
            "with counts": lambda: perturb_cite_seq(folder, protein=False, counts=True),
            "into a file": lambda: perturb_cite_seq(
                folder, protein=False, counts=True, backed=file
            ),
        }
        rows, megabytes = {}, decompress(path) / 1e6
        for name, call in ways.items():
            seconds, memory, found = measured(call)
            same = "-"
            if name == "with counts":
                same = "exact" if not (found.layers["counts"] != counts).nnz else "DIFFERS"
            rows[name] = [f"{megabytes / seconds:,.0f}", f"{memory:,.0f}", same]
            if name == "into a file":
                found.file.close()
            del found
    head = ("read by", "MB of text per CPU second", "peak, MB", "counts")
    title = f"{args.cells:,} cells x {args.genes:,} genes, {megabytes:,.0f} MB of text"
    save("perturb_cite_seq", [show(f"{title}\n\n{table(head, rows)}")], args.save)


if __name__ == "__main__":
    main()
