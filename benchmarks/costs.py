"""The cost of every step by size: CPU seconds, wall seconds and peak memory.

Screens are simulated: a sparse random graph, controls, and perturbations, half of them knockouts of
the genes and the others perturbations of genes that are not measured. Every size runs in a process
of its own, on one core and on two: the graph (BOSS, all environments), the fit, effects, diagnosis
and a plan of 24. Above 1,000 genes the graph has a panel of 100, and the effects are of all genes.
Sizes without cells are tables of effects and standard errors, with an empty graph.

    python -m benchmarks.costs                                  # forty minutes
    python -m benchmarks.costs --only 10000x8000x0 --cores 2    # a table
    python -m benchmarks.costs --only 1000x1000x25000 --cores 2
    python -m benchmarks.costs --only 100x100x25000 --cores 2 --workers 2  # of Dask, 16 graphs
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import anndata as ad
import joblib
import numpy as np
import pandas as pd
import scipy.sparse as sp

import nextpert as npt
from benchmarks._measure import forget_peak, peak
from benchmarks._page import options, save, show, table
from benchmarks._worker import last_line_of
from nextpert._adata.table import is_table
from nextpert.core import random_dag

if TYPE_CHECKING:
    from collections.abc import Callable

# Perturbations, genes, cells; each list varies one of them.
AXES = {
    "perturbations": [(100, 100, 7_000), (1_000, 100, 25_000), (10_000, 100, 205_000)],
    "genes": [(1_000, 100, 25_000), (1_000, 300, 25_000), (1_000, 1_000, 25_000)],
    "cells": [(100, 100, 10_000), (100, 100, 100_000), (100, 100, 1_000_000)],
}
PANEL, PLATE = 100, 24


def main(arguments: list[str] | None = None) -> None:
    """Print a table for every axis, with the exponents of its steps."""
    parser = options("costs", __doc__)
    parser.add_argument("--only", metavar="PxGxC", help="only this size, without the tables")
    parser.add_argument("--cores", type=int, default=1, help="of that size")
    parser.add_argument("--workers", type=int, help="of a Dask cluster on this machine")
    args = parser.parse_args(arguments)
    if args.only:
        n, p, n_cells = map(int, args.only.split("x"))
        print(json.dumps(steps(n, p, n_cells, args.cores, args.workers)))
        return
    done = {}
    for size in dict.fromkeys(size for axis in AXES.values() for size in axis):
        for cores in (1, 2):
            given = "--only", "x".join(map(str, size)), "--cores", str(cores)
            done[size, cores] = last_line_of(str(size), "benchmarks.costs", *given)
            show(f"{given} {done[size, cores]}")
    parts = []
    for axis, sizes in AXES.items():
        where = list(AXES).index(axis)
        rows = []
        for step in done[sizes[0], 1]:
            cpu, wall, two, memory = (
                [done[size, cores][step][k] for size in sizes]
                for cores, k in ((1, 0), (1, 1), (2, 1), (1, 2))
            )
            # Of time, from the second largest size to the largest.
            exponent = np.log(cpu[-1] / cpu[-2]) / np.log(sizes[-1][where] / sizes[-2][where])
            several = (" / ".join(f"{x:.{d}f}" for x in values) for values, d in (
                (cpu, 1), (wall, 1), (two, 1), (memory, 2)
            ))  # fmt: skip
            rows.append([step, *several, f"{exponent:.2f}"])
        shown = " / ".join(f"{size[where]:,}" for size in sizes)
        others = "; ".join(
            f"{' / '.join(f'{x:,}' for x in dict.fromkeys(size[k] for size in sizes))} {name}"
            for k, name in enumerate(AXES) if k != where
        )  # fmt: skip
        head = ("step", "CPU s", "wall s, one core", "wall s, two cores", "peak GB", "exponent")
        parts.append(show(f"**{shown} {axis}** ({others})\n\n{table(head, rows)}"))
    save("costs", parts, args.save)


def steps(
    n: int, p: int, n_cells: int, cores: int, workers: int | None = None
) -> dict[str, list[float]]:
    """Return CPU seconds, wall seconds and peak GB of every step, in this process."""
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:cores])
    if workers:
        from distributed import Client, LocalCluster

        client = Client(LocalCluster(n_workers=workers, threads_per_worker=1))
        with client, joblib.parallel_config(backend="dask"):
            return _measured(n, p, n_cells, workers, n_graphs=16)
    return _measured(n, p, n_cells, cores)


def _measured(n: int, p: int, n_cells: int, jobs: int, **search: Any) -> dict[str, list[float]]:
    warm = screen(10, 10, 500)
    for call in _calls(warm, jobs).values():  # compiled, or loaded from the cache
        call()
    adata, costs = (screen(n, p, n_cells) if n_cells else effects(n, p)), {}
    for name, call in _calls(adata, jobs, **search).items():
        forget_peak()
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        costs[name] = [time.process_time() - cpu, time.perf_counter() - wall, peak() / 1e3]
        print(name, np.round(costs[name], 2), file=sys.stderr, flush=True)  # large sizes take long
    return costs


def _calls(adata: ad.AnnData, jobs: int, **search: Any) -> dict[str, Callable[[], Any]]:
    """Return the calls of a user, in their order."""
    large = adata.n_vars > 1_000
    panel, target = list(adata.var_names[: PANEL if large else None]), adata.var_names[0]
    search = {"method": "boss", "environments": "all", "n_jobs": jobs, **search}
    if is_table(adata):
        search = {"method": "given", "dag": []}
    return {
        "tl.learn_dag": lambda: npt.tl.learn_dag(adata, genes=panel, **search),
        "tl.fit_dag_blr": lambda: npt.tl.fit_dag_blr(adata),
        "tl.perturbation_effects": lambda: npt.tl.perturbation_effects(
            adata, genes="all" if large else None
        ),
        "tl.diagnose": lambda: npt.tl.diagnose(adata, n_jobs=jobs),
        "tl.plan_screen": lambda: npt.tl.plan_screen(
            adata, target, n_perturbations=min(PLATE, adata.n_vars // 2), n_cells=2_000
        ),
    }


def effects(n_perturbations: int, n_genes: int) -> ad.AnnData:
    """Return a table of effects, a twentieth of them not zero, from 20 cells each."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_perturbations, n_genes), dtype=np.float32)
    x *= np.where(rng.random(x.shape, np.float32) < 0.05, 1.0, 0.2)
    genes = [f"G{i}" for i in range(n_genes)]
    table = pd.DataFrame(x, [f"G{j}" for j in range(n_perturbations)], genes)
    error = pd.DataFrame(np.full_like(x, 0.2), table.index, genes)
    return npt.pp.effect_table(table, error, n_cells=20, n_controls=5_000)


def screen(n_perturbations: int, n_genes: int, n_cells: int) -> ad.AnnData:
    """Return cells in single precision; each thousand of genes has a graph of its own."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n_cells, n_genes), dtype=np.float32)
    effect = np.zeros((n_perturbations, n_genes), np.float32)
    for row in effect:
        row[rng.choice(n_genes, 5, replace=False)] = rng.normal(size=5)
    knocked = np.arange(min(n_perturbations, n_genes // 2))
    effect[knocked, knocked] = -2.0
    for first in range(0, n_genes, 1_000):
        some = slice(first, min(first + 1_000, n_genes))
        p = some.stop - first
        parents, children = np.array(random_dag(p, expected_degree=5, rng=rng).edges()).T
        size = rng.choice([-1, 1], len(parents)) * rng.uniform(0.2, 0.6, len(parents))
        weights = sp.csr_array((size, (children, parents)), shape=(p, p)).toarray()
        total = np.linalg.inv(np.eye(p) - weights).astype(np.float32)
        effect[:, some] = effect[:, some] @ total.T
        for start in range(0, n_cells, 10_000):
            x[start : start + 10_000, some] = x[start : start + 10_000, some] @ total.T + 3
    each = n_cells * 4 // 5 // n_perturbations
    first = n_cells - each * n_perturbations
    names = [f"{'G' if j < len(knocked) else 'E'}{j}" for j in range(n_perturbations)]
    for j, shift in enumerate(effect):
        x[first + j * each : first + (j + 1) * each] += shift
    label = np.repeat(["control", *names], [first, *[each] * n_perturbations])
    obs = pd.DataFrame({"perturbation": pd.Categorical(label)})
    obs.index = obs.index.astype(str)
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"G{i}" for i in range(n_genes)]))


if __name__ == "__main__":
    main()
