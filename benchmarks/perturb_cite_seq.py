"""How fast, and in how much memory, the portal's Perturb-CITE-seq files are read.

Run ``python -m benchmarks.perturb_cite_seq``. Files in the portal's layout are written at two
sizes and in two ways of printing numbers, and read back on one core: by decompressing alone, by
``pandas.read_csv`` and by ``datasets.perturb_cite_seq``: the table alone, and the whole study with
its metadata, guides and checks. The result is compared with what was written, entry by entry.
Peak memory is that of a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = ((2_000, 500), (20_000, 4_000))  # cells, genes
FORMS = {  # how a value is printed, and a zero
    "15 digits, 0": (lambda values: [f"{v:.15g}" for v in values.tolist()], "0"),
    "float32, 0.0": (lambda values: [str(v) for v in values.astype(np.float32)], "0.0"),
}
_SHARE = 0.16  # of entries that are not zero, as in the study


def write_study(folder: Path, n_cells: int, n_genes: int, form: str) -> sp.csr_matrix:
    """Write a study without guides; return its counts, cells x genes."""
    rng = np.random.default_rng(0)
    to_text, zero = FORMS[form]
    depth = np.exp(rng.normal(0, 0.4, n_cells))
    rate = rng.gamma(0.3, 1, n_genes)
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
    with gzip.open(folder / "RNA_expression.csv.gz", "wb", compresslevel=6) as file:
        file.write((",".join(["GENE", *cells]) + "\n").encode())
        for g in range(n_genes):
            row = by_gene[g]
            fields = [zero] * n_cells
            values = np.log1p(row.data * 1e6 / total[row.indices])
            for j, text in zip(row.indices.tolist(), to_text(values), strict=True):
                fields[j] = text
            file.write((f"GENE{g + 1}," + ",".join(fields) + "\n").encode())
    header = "NAME,library_preparation_protocol,condition,MOI,sgRNA,UMI_count"
    rows = [f"{cell},10x,Control,0,,{n}" for cell, n in zip(cells, total, strict=True)]
    (folder / "RNA_metadata.csv").write_text("\n".join([header, *rows, ""]))
    guides = "\n".join(["Cell,sgRNAs", *(f"{cell}," for cell in cells), ""])
    (folder / "all_sgRNA_assignments.txt").write_text(guides)
    return sp.csr_matrix(by_gene.T)


def read(folder: Path, **options: Any) -> Any:
    """Read the study without its proteins."""
    from nextpert.datasets import perturb_cite_seq

    return perturb_cite_seq(folder, protein=False, **options)


def read_table(path: Path, umi: np.ndarray) -> sp.csr_matrix:
    """Read the table of expression alone, as pandas does."""
    from nextpert.datasets._scp1064 import expression, rows

    table = expression.WideTable(path)
    obs = pd.DataFrame({"UMI_count": umi.astype(float)}, index=table.cells)
    study = rows.Study(obs, obs, np.ones(len(obs), bool), [], {}, {})
    wanted = rows.Wanted(None, None, False, False, None, True)
    with rows.RowStore(len(obs)) as store:
        for entries in expression.read_expression([table], study, wanted):
            store.add(*entries)
        return store.in_memory(len(study.genes), {"value": np.float32})["value"]


def decompress(path: Path) -> int:
    """Read a gzipped file to its end; return its length."""
    n = 0
    with gzip.open(path) as file:
        while data := file.read(1 << 22):
            n += len(data)
    return n


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Return the shortest of several times, CPU seconds of this process, and the last result."""
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return best, result


def agrees(found: Any, counts: sp.csr_matrix, path: Path) -> bool:
    """Whether counts and values are those written; values of a few lines by Python's float."""
    if (found.layers["counts"] != counts).nnz or found.X.nnz != counts.nnz:
        return False
    by_gene = found.X.tocsc()
    with gzip.open(path, "rt") as file:
        next(file)
        for g, line in enumerate(file):
            if g % 37 == 0:
                written = np.array([float(text) for text in line.split(",")[1:]])
                if not np.array_equal(by_gene[:, [g]].toarray().ravel(), written.astype("f4")):
                    return False
    return True


def peak_of(folder: Path, warm: Path, backed: Path | None) -> tuple[float, float]:
    """Return peak memory over the idle process and size of the result, MB, in a new process."""
    target = "" if backed is None else str(backed)
    command = [sys.executable, "-m", "benchmarks.perturb_cite_seq", "--peak", str(folder)]
    done = subprocess.run(
        [*command, str(warm), target], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    peak, size = json.loads(done.stdout)
    return peak, size


def print_peak(folder: str, warm: str, target: str) -> None:
    """Print peak memory of reading one study, and the size of what it returns."""
    from benchmarks._measure import _forget_peak, _peak, _resident

    backed = Path(target) if target else None
    read(Path(warm), counts=True, backed=backed)
    before = _resident()
    _forget_peak()
    found = read(Path(folder), counts=True, backed=backed)
    peak = _peak() - before
    size = 0.0
    if backed is None:
        for matrix in (found.X, found.layers["counts"]):
            size += sum(a.nbytes for a in (matrix.data, matrix.indices, matrix.indptr)) / 2**20
    print(json.dumps([peak, size]))


def measure(n_cells: int, n_genes: int, form: str, folder: Path, warm: Path) -> bool:
    """Write one study, read it in all ways and print a row."""
    folder.mkdir()
    counts = write_study(folder, n_cells, n_genes, form)
    path = folder / "RNA_expression.csv.gz"
    repeats = 3 if n_cells * n_genes < 10**7 else 2
    inflate, n_bytes = timed(lambda: decompress(path), repeats)
    umi = np.asarray(counts.sum(axis=1)).ravel()
    ours, _ = timed(lambda: read_table(path, umi), repeats)
    whole, _ = timed(lambda: read(folder), repeats)
    with_counts, found = timed(lambda: read(folder, counts=True), repeats)
    exact = agrees(found, counts, path)
    target = folder / "out.h5ad"
    on_disk, backed = timed(lambda: read(folder, counts=True, backed=target), 1)
    exact &= not (backed.to_memory().layers["counts"] != counts).nnz
    backed.file.close()
    del found, backed
    pandas, _ = timed(lambda: pd.read_csv(path, index_col=0), 1)
    peak, size = peak_of(folder, warm, None)
    peak_on_disk, _ = peak_of(folder, warm, target)
    speed = [n_bytes / 1e6 / s for s in (inflate, pandas, ours, whole, with_counts, on_disk)]
    print(
        f"| {n_cells:,} x {n_genes:,} | {form} | {n_bytes / 1e6:,.0f} | "
        + " | ".join(f"{s:,.0f}" for s in speed)
        + f" | {speed[2] / speed[1]:.1f} | {speed[2] / speed[0]:.2f} | {peak:,.0f} ({size:,.0f}) | "
        f"{peak_on_disk:,.0f} | {'exact' if exact else 'DIFFERS'} |",
        flush=True,
    )
    for file in folder.iterdir():
        file.unlink()
    return exact


def main() -> int:
    """Measure all sizes and forms; return 1 if anything read differs from what was written."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the small size only")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(*options.peak)
        return 0
    with contextlib.suppress(AttributeError, OSError):  # where the system can
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("Speeds in MB of text a CPU second, on one core; memory in MB over an idle process.\n")
    print(
        "| cells x genes | printed as | MB | gzip alone | pandas.read_csv | the same table | whole "
        "study | with counts | counts, backed | table / pandas | table / gzip | peak (result) | "
        "peak, backed | round trip |"
    )
    print("|" + "---|" * 14)
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        warm = Path(scratch) / "warm"
        warm.mkdir()
        write_study(warm, 60, 20, "15 digits, 0")
        read(warm, counts=True)  # compiles
        read(warm)
        for n_cells, n_genes in SIZES[: 1 if options.quick else None]:
            for k, form in enumerate(FORMS):
                folder = Path(scratch) / f"{n_cells}_{k}"
                good &= measure(n_cells, n_genes, form, folder, warm)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
