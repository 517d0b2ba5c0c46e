"""Cost of fit and effects of a large screen: seconds, and the peak memory of the process.

A made screen: sparse random graph (given), controls and perturbations of 20 cells each, half of the
genes knocked out and the others perturbations of genes that are not measured.

    python -m benchmarks.fit_cost                     # 10,000 x 1,000: some minutes, 2 GB
    python -m benchmarks.fit_cost --perturbations 1000
    python -m benchmarks.fit_cost --chain 2           # only the hierarchical model, in two threads
"""

from __future__ import annotations

import time

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import nextpert as npt
from benchmarks._measure import peak
from benchmarks._page import options, save, show, table
from nextpert.core import random_dag
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.screen.guides import PooledGuides

N_CELLS, N_CONTROL = 20, 5000


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("fit_cost", __doc__)
    parser.add_argument("--perturbations", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=1_000)
    parser.add_argument("--chain", type=int, metavar="THREADS",
                        help="only the hierarchical model of simulated means")  # fmt: skip
    args = parser.parse_args(arguments)
    if args.chain:
        save("fit_cost", [show(chain(args.perturbations, args.genes, args.chain))], args.save)
        return
    adata = screen(args.perturbations, args.genes)
    rows = {"(cells made)": ["", "", f"{peak() / 1e3:.2f}"]}
    for step in (npt.tl.fit_dag_blr, npt.tl.perturbation_effects):
        wall, cpu = time.perf_counter(), time.process_time()
        step(adata)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows[f"tl.{step.__name__}"] = [f"{wall:.0f}", f"{cpu:.0f}", f"{peak() / 1e3:.2f}"]
    text = table(("step", "wall s", "CPU s", "peak memory, GB"), rows)
    title = f"{args.perturbations:,} perturbations x {args.genes:,} genes, {adata.n_obs:,} cells"
    save("fit_cost", [show(f"{title}\n\n{text}")], args.save)


def chain(n: int, p: int, n_jobs: int) -> str:
    """Return what the hierarchical model of ``n`` perturbations x ``p`` genes takes."""
    rng = np.random.default_rng(0)
    gamma, psi = 0.4 * rng.normal(size=(p, 3)), rng.uniform(0.5, 1.0, p)
    counted = np.append(500.0, np.full(n, 25.0))
    mean = np.outer(np.append(0.0, rng.normal(size=n)), 0.3 * rng.normal(size=p))
    mean[1:] += rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.05)
    noise = rng.normal(size=(n + 1, 3)) @ gamma.T + rng.normal(size=mean.shape) * np.sqrt(psi)
    mean += noise / np.sqrt(counted)[:, None]
    scatter = (gamma @ gamma.T + np.diag(psi)) * (counted.sum() - n - 1)
    cells = PooledGuides(counted.astype(np.int64), counted, mean, scatter, np.ones_like(mean))
    del noise
    wall, cpu = time.perf_counter(), time.process_time()
    effects = fit_hierarchical(cells, rng=0, n_jobs=n_jobs).effects
    effects.summary(n_jobs=n_jobs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    size = f"{n:,} perturbations x {p:,} genes, {n_jobs} threads, {effects.n_draws} draws"
    return f"{size}: {wall:.0f} s, {cpu:.0f} s of the processor, {peak() / 1e3:.1f} GB"


def screen(n_perturbations: int, n_genes: int) -> ad.AnnData:
    """Return cells in single precision, with a graph that is given."""
    rng = np.random.default_rng(0)
    dag = random_dag(n_genes, expected_degree=5, rng=rng)
    parents, children = np.array(dag.edges()).T
    size = rng.choice([-1, 1], len(parents)) * rng.uniform(0.2, 0.6, len(parents))
    weights = sp.csr_array((size, (children, parents)), shape=(n_genes, n_genes)).toarray()
    total = np.linalg.inv(np.eye(n_genes) - weights).astype(np.float32)
    n = N_CONTROL + n_perturbations * N_CELLS
    x = np.empty((n, n_genes), np.float32)
    for start in range(0, n, 10_000):
        noise = rng.standard_normal((min(10_000, n - start), n_genes), dtype=np.float32)
        x[start : start + 10_000] = noise @ total.T + 3
    names = []
    for j in range(n_perturbations):
        shift = np.zeros(n_genes, np.float32)
        shift[rng.choice(n_genes, 5, replace=False)] = rng.normal(size=5)
        knocked = j < n_genes // 2
        if knocked:
            shift[j] = -2.0
        names.append(f"G{j}" if knocked else f"E{j}")
        first = N_CONTROL + j * N_CELLS
        x[first : first + N_CELLS] += total @ shift
    label = np.repeat(["control", *names], [N_CONTROL, *[N_CELLS] * n_perturbations])
    obs = pd.DataFrame({"perturbation": pd.Categorical(label)})
    obs.index = obs.index.astype(str)
    adata = ad.AnnData(x, obs, pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]))
    npt.tl.learn_dag(adata, method="given", dag=weights.T, genes=list(adata.var_names))
    return adata


if __name__ == "__main__":
    main()
