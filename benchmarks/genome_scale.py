"""A screen of the shape of the public genome-scale ones, from counts in a file to a report.

Counts are simulated into a sparse file, block by block: 2,000 perturbations, 300,000 cells, 8,000
genes, a tenth of the values above zero; 2,018 genes are kept. The file is opened backed and goes
through preprocessing, a graph of 200 genes, the fit, effects on all genes kept, diagnosis, a plan
of 96 and the report. The table has seconds and the peak memory of the process, by step.

    python -m benchmarks.genome_scale                     # needs 4 GB of disk
    python -m benchmarks.genome_scale --perturbations 100 --cells 15000 --genes 1000
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata.io import write_elem

import nextpert as npt
from benchmarks._measure import forget_peak, peak
from benchmarks._page import options, save, show, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BLOCK, CONTROLS, FACTORS = 2_000, 0.05, 8  # cells at a time, share of controls, programs of genes
STRONG = 0.3  # share of perturbations that act on other genes than their own
GRAPH, PLATE = 200, 96


def rates(n_genes: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the mean counts of every gene, such that a tenth of the values are above zero."""
    rate = np.exp(rng.normal(-4.6, 2.0, n_genes))
    for _ in range(20):
        rate *= 0.1 / (1 - np.exp(-rate)).mean()
    return rate


def write(path: Path, n_perturbations: int, n_cells: int, n_genes: int) -> None:
    """Write the counts, a block of cells at a time."""
    rng = np.random.default_rng(0)
    rate = rates(n_genes, rng)
    # Perturbed are genes that the cells express, and the effects of a part reach other genes.
    expressed = np.argsort(-rate)[: max(n_genes // 3, n_perturbations)]
    targets = rng.choice(expressed, n_perturbations, replace=False)
    loading = 0.3 * rng.normal(size=(FACTORS, n_genes)) * (rng.random((FACTORS, n_genes)) < 0.2)
    score = rng.normal(size=(n_perturbations + 1, FACTORS))
    score[1:] *= (rng.random(n_perturbations) < STRONG)[:, None]
    score[0] = 0.0
    n_control = int(CONTROLS * n_cells)
    group = np.append(np.zeros(n_control, int), rng.integers(1, n_perturbations + 1, n_cells))
    group = rng.permutation(group[:n_cells])
    names = np.append("non-targeting", [f"G{k:05d}" for k in targets])
    obs = pd.DataFrame({"gene": pd.Categorical.from_codes(group, names)})
    obs.index = "cell" + obs.index.astype(str)
    var = pd.DataFrame(index=[f"G{k:05d}" for k in range(n_genes)])
    with h5py.File(path, "w") as file:
        write_elem(file, "/", ad.AnnData(obs=obs, var=var))
        del file["raw"]  # an empty one, which a file opened backed may not have
        for start in range(0, n_cells, BLOCK):
            own = group[start : start + BLOCK]
            log_rate = (
                np.log(rate) + (score[own] + 0.5 * rng.normal(size=(len(own), FACTORS))) @ loading
            )
            log_rate += rng.normal(0, 0.3, (len(own), 1))  # how deeply a cell is sequenced
            hit = np.flatnonzero(own)
            log_rate[hit, targets[own[hit] - 1]] += np.log(0.2)
            counts = sp.csr_matrix(rng.poisson(np.exp(log_rate)).astype(np.float32))
            if start:
                ad.io.sparse_dataset(file["X"]).append(counts)
            else:
                write_elem(file, "X", counts)


def main(arguments: list[str] | None = None) -> None:
    """Write the file, go through the steps and print what each took."""
    parser = options("genome_scale", __doc__)
    parser.add_argument("--perturbations", type=int, default=2_000)
    parser.add_argument("--cells", type=int, default=300_000)
    parser.add_argument("--genes", type=int, default=8_000)
    parser.add_argument("--n-jobs", type=int, default=2)
    parser.add_argument("--scratch", metavar="DIR", help="folder for the file, of some 4 GB")
    args = parser.parse_args(arguments)
    rows: dict[str, list[Any]] = {}

    def step(
        name: str, call: Callable[[], Any], remark: Callable[[Any], str] = lambda _: ""
    ) -> Any:
        forget_peak()
        wall, own = time.perf_counter(), time.process_time()
        result = call()
        wall, own = time.perf_counter() - wall, time.process_time() - own
        rows[name] = [f"{wall:.0f}", f"{own:.0f}", f"{peak() / 1e3:.1f}", remark(result)]
        show(f"{name}: {' '.join(rows[name][:3])} {rows[name][3]}")
        return result

    with tempfile.TemporaryDirectory(dir=args.scratch) as folder:
        path = Path(folder) / "screen.h5ad"
        step(
            "(simulated)", lambda: write(path, args.perturbations, args.cells, args.genes),
            lambda _: f"file of {path.stat().st_size / 1e9:.1f} GB",
        )  # fmt: skip
        backed = ad.read_h5ad(path, backed="r")
        adata = step(
            "pp.perturbation_screen",
            lambda: npt.pp.perturbation_screen(backed, "gene", "non-targeting", copy=True),
            lambda a: f"{a.n_obs:,} cells x {a.n_vars:,} genes kept",
        )
        backed.file.close()
        variable = adata.var["control_sd"].sort_values(ascending=False)
        panel = sorted(variable.index[:GRAPH])
        step(
            "tl.learn_dag",
            lambda: npt.tl.learn_dag(
                adata, genes=panel, method="boss", environments="all", n_jobs=args.n_jobs
            ),
            lambda _: f"{len(adata.uns['dag']['edges']):,} edges",
        )
        step("tl.fit_dag_blr", lambda: npt.tl.fit_dag_blr(adata))
        step("tl.perturbation_effects", lambda: npt.tl.perturbation_effects(adata))
        step(
            "the same, all genes", lambda: npt.tl.perturbation_effects(
                adata, genes="all", key_added="every_gene"
            ),
        )  # fmt: skip
        step("tl.diagnose", lambda: npt.tl.diagnose(adata, n_jobs=args.n_jobs))
        target = adata.obs["perturbation"].value_counts().index[1]
        step(
            "tl.plan_screen",
            lambda: npt.tl.plan_screen(adata, target, n_perturbations=PLATE, n_cells=40_000),
        )
        step("report", lambda: npt.report(adata, Path(folder) / "report.html"))
        print(npt.summary(adata))
    size = f"{args.perturbations:,} perturbations, {args.cells:,} cells, {args.genes:,} genes"
    head = ("step", "wall s", "CPU s", "peak memory, GB", "")
    save("genome_scale", [show(f"{size}\n\n{table(head, rows)}")], args.save)


if __name__ == "__main__":
    main()
