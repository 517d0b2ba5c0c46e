"""Many graphs in place of one: the same search on resamples of the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from joblib import parallel_config
from tqdm import tqdm

from nextpert._adata.graph import GraphsRecord
from nextpert._adata.resampled import resampled_screens
from nextpert.core import Moments
from nextpert.core._codec import pack
from nextpert.core.loop._workers import run_tasks
from nextpert.core.search.registry import searches
from nextpert.tl._learn_dag.checkpoint import Finished
from nextpert.tl._learn_dag.exogenous import Joint
from nextpert.tl._learn_dag.search import named, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.screen import Environments
    from nextpert.core.search.registry import SearchOptions
    from nextpert.tl._learn_dag.checkpoint import Checkpoint
    from nextpert.tl._learn_dag.exogenous import Exogenous
    from nextpert.tl._learn_dag.search import Workers

_WHERE = "in a resample of the cells"


@dataclass(frozen=True)
class Ensemble:
    """Graphs of resamples.

    Parameters
    ----------
    arcs
        A matrix a graph, CSR, row = parent, shape ``(n_genes, n_genes)``.
    exogenous_frequency
        Share of the graphs that have an arc from an exogenous node, ``(n_exogenous, n_genes)``.
    """

    arcs: list[sp.csr_array]
    exogenous_frequency: NDArray[np.float64]

    @property
    def frequency(self) -> sp.csr_array:
        """Share of the graphs that have an arc, row = parent."""
        total = sum(self.arcs[1:], start=self.arcs[0])
        return sp.csr_array(total / len(self.arcs))

    def stored(self) -> dict[str, Any]:
        """Return the graphs as they are stored."""
        stacked = sp.csr_array(sp.vstack(self.arcs))
        stacked.sort_indices()
        pointers = (stacked.indptr.astype(np.int64), stacked.indices.astype(np.int64))
        return pack(GraphsRecord(len(self.arcs), *pointers))


def ensemble(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    genes: Sequence[str],
    environments: Environments,
    exogenous: Exogenous,
    n_graphs: int,
    options: SearchOptions,
    rng: np.random.Generator,
    workers: Workers,
    kept: Checkpoint,
) -> Ensemble:
    """Return the graphs of resamples of the cells within environments, guides whole.

    A gene that is seen in too few cells to vary in a resample has no arcs in its graph. Those of
    ``kept`` are taken as they are, and the others added to it as they are finished.

    Raises
    ------
    ValueError
        If genes are linearly dependent in a resample; they are named.
    """
    seeds = rng.integers(0, 2**64, n_graphs, dtype=np.uint64)
    streams = rng.spawn(n_graphs)  # one a resample, whichever worker takes it
    missing = [i for i in range(n_graphs) if i not in kept.done]
    screens = resampled_screens(
        adata, columns, environments, seeds[missing], show_progress=workers.show_progress
    )
    joints = (_isolated(Joint.of(screen, len(genes), exogenous), len(genes)) for screen in screens)
    n_jobs = workers.n_jobs if searches()[options.method].threads else 1
    tasks = ((joint, genes, options, streams[i]) for joint, i in zip(joints, missing, strict=True))
    hidden = not workers.show_progress
    with tqdm(total=n_graphs, desc="Graphs", disable=hidden, initial=len(kept.done)) as bar:
        for k, found in run_tasks(_arcs, tasks, n_jobs=n_jobs, prefer="threads"):
            kept.add(missing[k], found)
            bar.update()
    counts = np.zeros((len(exogenous.names), len(genes)))
    for graph in kept.done.values():
        counts[graph.present] += graph.direct
    return Ensemble([kept.done[i].arcs for i in range(n_graphs)], counts / n_graphs)


def _isolated(joint: Joint, n_genes: int) -> Joint:
    """Return the moments with genes constant in a resample as nodes that nothing is joined to."""
    lost = [int(i) for i in joint.moments.constant_nodes() if i < n_genes]
    if not lost:
        return joint
    scatter = joint.moments.scatter.copy()
    scatter[lost] = scatter[:, lost] = 0.0
    scatter[lost, lost] = joint.moments.n * (1 + joint.moments.mean[lost] ** 2)
    return joint._replace(moments=Moments(joint.moments.n, joint.moments.mean, scatter))


def _arcs(
    joint: Joint, genes: Sequence[str], options: SearchOptions, rng: np.random.Generator
) -> Finished:
    try:
        with parallel_config("sequential"):  # no workers of workers
            found = run(joint.moments, len(genes), options, rng)
    except ValueError as error:
        raise named(error, genes, joint.names, _WHERE) from error
    return Finished(sp.csr_array(found.dag.to_matrix()), joint.present, found.exogenous_arcs)
