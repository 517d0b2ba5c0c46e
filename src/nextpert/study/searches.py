"""Graphs learned without the cells of some perturbations, and from resampled cells."""

from __future__ import annotations

import logging
from copy import deepcopy
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp
from joblib import Parallel, delayed, effective_n_jobs

from nextpert._adata import list_names
from nextpert._adata.progress import progress
from nextpert._adata.screen import without_sets
from nextpert.core._tasks import run_tasks
from nextpert.core.model.sampler import threads
from nextpert.core.search import registry
from nextpert.core.search.context import Joint, search
from nextpert.study.context_nodes import context_nodes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert._adata.screen import Environments
    from nextpert.core import Dag
    from nextpert.core.screen.screen import Screen, ScreenMoments
    from nextpert.core.search.context import ContextNodes
    from nextpert.core.search.registry import Found, SearchOptions


logger = logging.getLogger(__name__)


class HeldOut(NamedTuple):
    """What the searches without some perturbations need; the environments are of all cells.

    ``rng`` is the generator of the call that learned the graph, in its state before the search, and
    ``graphs`` has the graphs that are stored, by the labels without which they were learned.
    """

    environments: Environments
    options: SearchOptions
    targets: Mapping[str, Sequence[str]]  # known targets, as in Panel
    rng: np.random.Generator
    graphs: Mapping[frozenset[str], Dag]

    def unknown(self, sets: Sequence[Sequence[str]]) -> list[Sequence[str]]:
        """Return those of some sets of perturbations without which no graph is stored."""
        return [members for members in sets if frozenset(members) not in self.graphs]


def graphs_without(
    dag: Dag,
    held_out: HeldOut | None,
    searches: Screen | None,
    genes: Sequence[str],
    sets: Sequence[Sequence[str]],
    *,
    n_jobs: int | None = None,
) -> list[Dag]:
    """Return a graph for every set of perturbations, learned without any cell of them.

    Each is the graph that :func:`nextpert.tl.learn_dag` gives of a file without these cells, with
    the same options and ``rng``; it is searched unless it is known. If ``held_out`` is ``None``,
    ``dag`` is returned for every set. ``searches`` are sums of the environments of ``held_out``,
    with a fold for every set that is not known. Nothing is taken from the graph of all cells, which
    knows the effects of the perturbations. Without ``n_jobs``, the number of threads is that of
    joblib's active configuration, or else that which draws the effects.
    """
    if held_out is None:
        return [dag] * len(sets)
    graphs = dict(held_out.graphs)
    unknown = held_out.unknown(sets)
    if not unknown or searches is None:
        return [graphs[frozenset(members)] for members in sets]
    parts = without_sets(held_out.environments, searches, unknown)
    contexts = (
        (screen_part, context_nodes(remaining, genes, held_out.targets))
        for remaining, screen_part in parts
    )
    tasks = (
        delayed(_search_part)(Joint.of(screen_part, len(genes), context), genes, held_out)
        for screen_part, context in contexts
    )
    if not registry.searches()[held_out.options.method].threads:
        n_jobs = 1
    elif n_jobs is None and effective_n_jobs() == 1:  # nothing is configured
        n_jobs = threads(len(held_out.environments.table) * len(genes))
    # joblib reads n_jobs=None as one thread, and an absent n_jobs as its configuration.
    workers = {} if n_jobs is None else {"n_jobs": n_jobs}
    pool = Parallel(**workers, prefer="threads", return_as="generator")
    with progress(len(unknown), "Held-out graphs") as bar:
        results = [(one, bar.update())[0] for one in pool(tasks)]
    for members, (found, lost) in zip(unknown, results, strict=True):
        graphs[frozenset(members)] = found
        if lost:
            logger.info(
                "Without the cells of %s, the other genes determine %s: in the graph that predicts "
                "these perturbations, they have no edges.",
                list_names(members),
                list_names([genes[i] for i in sorted(lost)]),
            )
    return [graphs[frozenset(members)] for members in sets]


def _search_part(joint: Joint, genes: Sequence[str], held_out: HeldOut) -> tuple[Dag, set[int]]:
    """Return the graph of a part of the cells, and the genes that are isolated in it.

    A panel that can be separated in all cells may hold copies of genes, or genes that are constant,
    without some perturbations: all but the first of these are then isolated.
    """
    lost: set[int] = set()
    while True:
        rng, where = deepcopy(held_out.rng), "among the cells without some perturbations"
        try:
            part = joint.isolated(sorted(lost))
            return search(part, genes, held_out.options, rng, where).dag, lost
        except ValueError as error:
            columns = np.asarray(getattr(error, "columns", ())).astype(int).tolist()
            dependent = set(part.dependent(columns, len(genes))) if columns else set()
            if not dependent - lost:
                raise
            lost |= dependent


def resampled_graphs(
    screens: Iterable[ScreenMoments],
    streams: Sequence[np.random.Generator],
    genes: Sequence[str],
    context: ContextNodes,
    options: SearchOptions,
    n_jobs: int,
) -> tuple[list[sp.csr_array], NDArray[np.float64]]:
    """Return the graphs of resampled cells, and frequencies of edges from context nodes.

    ``screens`` are sums of the resamples, and ``streams`` generators of their searches. Graphs are
    matrices (row = parent); frequencies have the shape ``(n_context, n_genes)``. A gene that does
    not vary in a resample has no edges in the graph of this resample.

    Raises
    ------
    ValueError
        If genes are linearly dependent in a resample; they are named.
    """
    n_graphs = len(streams)
    joints = (_varying(Joint.of(screen, len(genes), context), len(genes)) for screen in screens)
    n_jobs = n_jobs if registry.searches()[options.method].threads else 1
    tasks = ((joint, genes, options, s) for joint, s in zip(joints, streams, strict=True))
    graphs: dict[int, sp.csr_array] = {}
    counts = np.zeros((len(context.names), len(genes)))
    with progress(n_graphs, "Graphs") as bar:
        for k, (present, best) in run_tasks(_resampled, tasks, n_jobs=n_jobs, prefer="threads"):
            graphs[k] = sp.csr_array(best.dag.to_matrix())
            counts[present] += best.context_edges
            bar.update()
    return [graphs[i] for i in range(n_graphs)], counts / n_graphs


def _varying(joint: Joint, n_genes: int) -> Joint:
    """Return the moments with genes that are constant in a resample as isolated nodes."""
    return joint.isolated([i for i in joint.moments.constant_nodes().tolist() if i < n_genes])


def _resampled(
    joint: Joint, genes: Sequence[str], options: SearchOptions, rng: np.random.Generator
) -> tuple[NDArray[np.int64], Found]:
    return joint.present, search(joint, genes, options, rng, "in a resample of the cells")
