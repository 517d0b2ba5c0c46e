"""Graphs of resampled cells, and graphs learned without the cells of some perturbations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from joblib import Parallel, delayed, effective_n_jobs

from nextpert._adata.graph import GraphsRecord, resampled_screens
from nextpert._adata.progress import progress
from nextpert._adata.roles import fitted_roles
from nextpert._adata.screen import read_environments
from nextpert._adata.stored import eager
from nextpert.core import Moments
from nextpert.core._codec import pack
from nextpert.core.causal.design_loop import run_tasks
from nextpert.core.model.sampler import threads
from nextpert.core.search.registry import SearchOptions, searches
from nextpert.tl._learn_dag.context import ContextNodes, Joint, search
from nextpert.tl._learn_dag.prior import read_knowledge, read_stored_targets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles
    from nextpert._adata.screen import Environments
    from nextpert.core import Dag, ScreenMoments
    from nextpert.core.screen.screen import Screen
    from nextpert.core.search.registry import Found
    from nextpert.tl._learn_dag.context import Panel


def fold_streams(n: int) -> list[np.random.Generator]:
    """Return the random streams of the searches that a fit runs without each of ``n`` folds."""
    return np.random.default_rng(0).spawn(n)


class HeldOut(NamedTuple):
    """Arguments of searches without some perturbations; the environments are of all cells."""

    environments: Environments
    options: SearchOptions
    targets: Mapping[str, Sequence[str]]  # known targets, as in Panel


def read_held_out(
    adata: ad.AnnData, dag_key: str, roles: Roles, n_genes: int, names: Sequence[str]
) -> HeldOut | None:
    """Return the arguments of searches without some of the perturbations ``names``.

    ``None`` if the graph in ``adata.uns[dag_key]`` was learned without perturbed cells, or with
    another column of labels or another control than ``roles``: no search is then repeated. Columns
    and prior knowledge are those of the stored graph.
    """
    stored = eager(adata.uns.get(dag_key))
    params: Any = stored.get("params") if hasattr(stored, "get") else None
    if not hasattr(params, "get") or params.get("environments") != "all":
        return None
    own = fitted_roles(adata, params)
    if (own.perturbation_key, own.control) != (roles.perturbation_key, roles.control):
        return None
    prior = read_knowledge(stored.get("prior"), n_genes)
    options = SearchOptions(str(params["method"]), 0, prior)
    own = replace(own, separator=roles.separator)
    return HeldOut(read_environments(adata, own, named=names), options, read_stored_targets(stored))


def graphs_without(
    dag: Dag,
    held_out: HeldOut | None,
    searches: tuple[Environments, Screen] | None,
    genes: Sequence[str],
    sets: Sequence[Sequence[str]],
    streams: Sequence[np.random.Generator],
    *,
    n_jobs: int | None = None,
) -> Sequence[Dag]:
    """Return a graph for every set of perturbations, learned without any cell of them.

    Each search starts from the order of ``dag``, the graph of all cells, and has its own stream of
    random numbers. If ``held_out`` is ``None``, ``dag`` is returned for every set. ``searches`` are
    the environments of ``held_out`` and their sums; each set is a union of folds. Without
    ``n_jobs``, the number of threads is that of joblib's active configuration, or else that which
    draws the effects.
    """
    if held_out is None or searches is None:
        return [dag] * len(sets)
    prior = held_out.options.prior
    order = dag.order if prior is None else prior.order_of(dag)  # which agrees with it
    options = replace(held_out.options, order=np.asarray(order))
    parts, where = without_sets(*searches, sets), "among the cells without some perturbations"
    contexts = ((some, ContextNodes.of(rest, genes, held_out.targets)) for rest, some in parts)
    tasks = (
        delayed(search)(Joint.of(some, len(genes), context), genes, options, s, where)
        for (some, context), s in zip(contexts, streams, strict=True)
    )
    if n_jobs is None and effective_n_jobs() == 1:  # nothing is configured
        n_jobs = threads(len(searches[0].table) * len(genes))
    # joblib reads n_jobs=None as one thread, and an absent n_jobs as its configuration.
    workers = {} if n_jobs is None else {"n_jobs": n_jobs}
    pool = Parallel(**workers, prefer="threads", return_as="generator")
    with progress(len(sets), "Held-out graphs") as bar:
        return [(best.dag, bar.update())[0] for best in pool(tasks)]


def without_sets(
    environments: Environments, screen: Screen, sets: Sequence[Collection[str]]
) -> Iterator[tuple[Environments, ScreenMoments]]:
    """Yield, for every set of labels, the environments of all other labels and their moments."""
    labels = set(environments.perturbation)
    for some in sets:
        kept = environments.groups(list(some)) < 0
        others = sorted(labels - set(environments.perturbation[~kept]))
        yield environments.only(others), screen.some(kept).moments()


def stored_graphs(edges: Sequence[sp.csr_array]) -> dict[str, Any]:
    """Return graphs, given as one matrix each (row = parent), in the form that is stored."""
    stacked = sp.csr_array(sp.vstack(edges))
    stacked.sort_indices()
    pointers = (stacked.indptr.astype(np.int64), stacked.indices.astype(np.int64))
    return pack(GraphsRecord(len(edges), *pointers))


def ensemble(
    panel: Panel,
    context: ContextNodes,
    n_graphs: int,
    options: SearchOptions,
    rng: np.random.Generator,
    n_jobs: int,
) -> tuple[list[sp.csr_array], NDArray[np.float64]]:
    """Return the graphs of ``n_graphs`` resamples, and frequencies of edges from context nodes.

    Cells are resampled within environments, and guides as a whole. Graphs are matrices (row =
    parent); frequencies have the shape ``(n_context, n_genes)``. A gene that does not vary in a
    resample has no edges in the graph of this resample.

    Raises
    ------
    ValueError
        If genes are linearly dependent in a resample; they are named.
    """
    seeds = rng.integers(0, 2**64, n_graphs, dtype=np.uint64)
    # One stream per resample, whichever worker takes it.
    streams = rng.spawn(n_graphs)
    screens = resampled_screens(panel.adata, panel.columns, panel.environments, seeds)
    genes = panel.genes
    joints = (_isolated(Joint.of(screen, len(genes), context), len(genes)) for screen in screens)
    n_jobs = n_jobs if searches()[options.method].threads else 1
    tasks = ((joint, genes, options, s) for joint, s in zip(joints, streams, strict=True))
    done: dict[int, sp.csr_array] = {}
    counts = np.zeros((len(context.names), len(genes)))
    with progress(n_graphs, "Graphs") as bar:
        for k, (present, best) in run_tasks(_resampled, tasks, n_jobs=n_jobs, prefer="threads"):
            done[k] = sp.csr_array(best.dag.to_matrix())
            counts[present] += best.context_edges
            bar.update()
    return [done[i] for i in range(n_graphs)], counts / n_graphs


def _isolated(joint: Joint, n_genes: int) -> Joint:
    """Return the moments with genes that are constant in a resample as isolated nodes."""
    lost = [int(i) for i in joint.moments.constant_nodes() if i < n_genes]
    if not lost:
        return joint
    # Their variance is above 0 and their correlations are 0, so no test finds an edge.
    scatter = joint.moments.scatter.copy()
    scatter[lost] = scatter[:, lost] = 0.0
    scatter[lost, lost] = joint.moments.n * (1 + joint.moments.mean[lost] ** 2)
    return joint._replace(moments=Moments(joint.moments.n, joint.moments.mean, scatter))


def _resampled(
    joint: Joint, genes: Sequence[str], options: SearchOptions, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Found]:
    return joint.present, search(joint, genes, options, rng, "in a resample of the cells")
