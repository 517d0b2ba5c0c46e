"""Learn bootstrap graphs on many nodes: workers are SLURM jobs, or processes on this machine.

    python graphs_on_many_nodes.py cells.h5ad graph.h5ad --graphs 200 --workers 20
    python graphs_on_many_nodes.py cells.h5ad graph.h5ad --graphs 50 --workers 2 --local

The result is bitwise identical to that of one process, for any number of workers, and if some are
killed in between. Needs the extra `dask`: `pip install ".[dask]"` in a clone of the repository.
"""

from __future__ import annotations

import argparse

import anndata as ad
import joblib
from distributed import Client, LocalCluster

import nextpert as npt


def slurm_cluster(n_workers: int):
    """Ask SLURM for workers, one job each, with the memory for a graph of 1,000 genes."""
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(
        cores=1,  # each search uses one thread
        processes=1,
        memory="4GB",
        walltime="04:00:00",
        job_extra_directives=["--job-name=nextpert-graphs"],
        job_script_prologue=["export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"],
        # If nodes are shared, name the network between them: interface="ib0".
    )
    cluster.scale(n_workers)
    return cluster


def main() -> None:
    """Read the cells, learn, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cells", help="log-normalised screen, after nextpert preprocess")
    parser.add_argument("graph", help="where to write")
    parser.add_argument("--graphs", type=int, default=50)
    parser.add_argument("--workers", type=int, default=10)
    parser.add_argument("--local", action="store_true", help="processes here, not SLURM jobs")
    args = parser.parse_args()
    adata = ad.read_h5ad(args.cells)
    cluster = (
        LocalCluster(n_workers=args.workers, threads_per_worker=1, dashboard_address=None)
        if args.local
        else slurm_cluster(args.workers)
    )
    with cluster, Client(cluster) as client, joblib.parallel_config(backend="dask"):
        client.wait_for_workers(1, timeout=3600)
        npt.tl.learn_dag(adata, method="boss", environments="all", n_graphs=args.graphs)
    adata.write_h5ad(args.graph)
    print(adata.uns["dag"]["n_edges"], "edges;", args.graphs, "bootstrap graphs")


if __name__ == "__main__":
    main()
