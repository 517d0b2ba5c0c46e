"""Graphs of resamples of the cells, and graphs that have not seen some perturbations.

Finished graphs are kept on disk, so that an interrupted call takes them up again.
"""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import scipy.sparse as sp
from joblib import Parallel, delayed

from nextpert._adata import LabelTable, fingerprint
from nextpert._adata.graph import GraphsRecord, resampled_screens
from nextpert._adata.progress import progress
from nextpert._adata.roles import fitted_roles
from nextpert._adata.screen import read_environments
from nextpert._adata.stored import eager
from nextpert._files import writing_to
from nextpert.core import Moments
from nextpert.core._codec import pack
from nextpert.core.evaluate.design_loop import run_tasks
from nextpert.core.search.registry import SearchOptions, searches
from nextpert.tl._learn_dag.context import ContextNodes, Joint, search
from nextpert.tl._learn_dag.prior import read_knowledge, told_targets

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles
    from nextpert._adata.screen import Environments
    from nextpert.core import Dag, ScreenMoments
    from nextpert.core.screen.screen import Screen
    from nextpert.tl._learn_dag.context import Panel, Workers


def has_seen_perturbed(stored: Any) -> bool:
    """Whether what is stored of a graph says that perturbed cells were searched."""
    params: Any = stored.get("params") if hasattr(stored, "get") else None
    return hasattr(params, "get") and params.get("environments") == "all"


def fold_streams(n: int) -> list[np.random.Generator]:
    """Return the streams of the searches that a fit makes without each of ``n`` folds."""
    return np.random.default_rng(0).spawn(n)


class HeldOut(NamedTuple):
    """What searches without some perturbations take; the environments are of all cells."""

    environments: Environments
    options: SearchOptions
    targets: Mapping[str, Sequence[str]]  # known ones, as of a Panel


def read_held_out(
    adata: ad.AnnData, dag_key: str, roles: Roles, n_genes: int, names: Sequence[str]
) -> HeldOut | None:
    """Return what searches without some of the perturbations ``names`` take.

    ``None`` where the graph in ``adata.uns[dag_key]`` has seen no perturbed cell, or other labels
    than those of the call's ``roles``: then it is itself a graph without any. Columns, restarts,
    penalty and prior knowledge are those of the stored graph; only how much a network is believed
    (two numbers) is taken from it.
    """
    stored = eager(adata.uns.get(dag_key))
    if not has_seen_perturbed(stored):
        return None
    params = stored["params"]
    own = fitted_roles(adata, params)
    if (own.perturbation_key, own.control) != (roles.perturbation_key, roles.control):
        return None
    prior, log_odds = read_knowledge(stored.get("prior"), n_genes)
    options = SearchOptions(
        str(params["method"]), 0.0, float(params["penalty"]), 0, prior, log_odds=log_odds
    )
    own = replace(own, separator=roles.separator)
    return HeldOut(read_environments(adata, own, named=names), options, told_targets(stored))


def graphs_without(
    dag: Dag,
    held_out: HeldOut | None,
    searches: tuple[Environments, Screen] | None,
    genes: Sequence[str],
    sets: Sequence[Sequence[str]],
    streams: Sequence[np.random.Generator],
    *,
    n_jobs: int = 1,
) -> Sequence[Dag]:
    """Return a graph for every set of perturbations, learned without any cell of them.

    Each is searched once, from the order of the graph of all cells.

    Parameters
    ----------
    dag
        The graph of all cells, which is returned where nothing is held out of it.
    held_out
        As of :func:`read_held_out`.
    searches
        Its environments and their sums, each set a union of folds.
    genes
        The panel.
    sets
        Labels of perturbations, ``n_sets`` lists; a label may be in several.
    streams
        Source of the random numbers of each search, whichever worker takes it, of length
        ``n_sets``.
    n_jobs
        Number of threads.

    Raises
    ------
    ValueError
        If genes are linearly dependent without a set; they are named.
    """
    if held_out is None or searches is None:
        return [dag] * len(sets)
    options = replace(held_out.options, order=np.asarray(dag.order))
    parts = without_sets(*searches, sets)
    contexts = ((some, ContextNodes.of(rest, genes, held_out.targets)) for rest, some in parts)
    tasks = (
        delayed(_search)(Joint.of(some, len(genes), context), genes, options, s)
        for (some, context), s in zip(contexts, streams, strict=True)
    )
    pool = Parallel(n_jobs=n_jobs, prefer="threads", return_as="generator")
    with progress(len(sets), "Held-out graphs") as bar:
        return [(graph, bar.update())[0] for graph in pool(tasks)]


def without_sets(
    environments: Environments, screen: Screen, sets: Sequence[Collection[str]]
) -> Iterator[tuple[Environments, ScreenMoments]]:
    """Yield, for every set of labels, the environments of all other labels and their moments."""
    labels = set(environments.perturbation)
    for some in sets:
        kept = environments.groups(list(some)) < 0
        others = sorted(labels - set(environments.perturbation[~kept]))
        yield environments.only(others), screen.some(kept).moments()


def _search(
    joint: Joint, genes: Sequence[str], options: SearchOptions, rng: np.random.Generator
) -> Dag:
    return search(joint, genes, options, rng, "among the cells without some perturbations").dag


logger = logging.getLogger(__name__)

_WHAT = "finished graphs of tl.learn_dag"


class Finished(NamedTuple):
    """Graph of a resample: its edges, context nodes that are there, and the edges of these."""

    edges: sp.csr_array
    present: NDArray[np.int64]
    direct: NDArray[np.bool_]


@dataclass
class Checkpoint:
    """Finished graphs by the number of their resample, and the file that they are kept in.

    Parameters
    ----------
    path
        The file; ``None`` keeps nothing.
    digest
        What tells apart all that the graphs depend on.
    done
        The graphs.
    """

    path: Path | None
    digest: str
    done: dict[int, Finished]

    def add(self, number: int, graph: Finished) -> None:
        """Take up a graph; the file changes in one step, whenever the process is stopped."""
        self.done[number] = graph
        if self.path is None:
            return
        arrays: dict[str, Any] = {"what": np.array(_WHAT), "digest": np.array(self.digest)}
        for k, (edges, present, direct) in self.done.items():
            arrays[f"edges_{k}"] = np.array(edges.nonzero(), np.int32)
            arrays[f"present_{k}"], arrays[f"direct_{k}"] = present, direct
        part = _part(self.path)
        with writing_to(self.path):
            with part.open("wb") as file:
                np.savez_compressed(file, **arrays)
            os.replace(part, self.path)


@dataclass(frozen=True)
class Ensemble:
    """Graphs of resamples.

    Parameters
    ----------
    edges
        A matrix a graph, CSR, row = parent, shape ``(n_genes, n_genes)``.
    context_frequency
        Share of the graphs that have an edge from a context node, ``(n_context, n_genes)``.
    """

    edges: list[sp.csr_array]
    context_frequency: NDArray[np.float64]

    @property
    def frequency(self) -> sp.csr_array:
        """Share of the graphs that have an edge, row = parent."""
        total = sum(self.edges[1:], start=self.edges[0])
        return sp.csr_array(total / len(self.edges))

    def stored(self) -> dict[str, Any]:
        """Return the graphs as they are stored."""
        stacked = sp.csr_array(sp.vstack(self.edges))
        stacked.sort_indices()
        pointers = (stacked.indptr.astype(np.int64), stacked.indices.astype(np.int64))
        return pack(GraphsRecord(len(self.edges), *pointers))


def ensemble(
    panel: Panel,
    context: ContextNodes,
    n_graphs: int,
    options: SearchOptions,
    rng: np.random.Generator,
    workers: Workers,
    kept: Checkpoint,
) -> Ensemble:
    """Return the graphs of ``n_graphs`` resamples of the cells within environments, guides whole.

    A gene that is seen in too few cells to vary in a resample has no edges in its graph. Graphs of
    ``kept`` are taken as they are, and the others added to it as they are finished.

    Raises
    ------
    ValueError
        If genes are linearly dependent in a resample; they are named.
    """
    seeds = rng.integers(0, 2**64, n_graphs, dtype=np.uint64)
    streams = rng.spawn(n_graphs)  # one a resample, whichever worker takes it
    missing = [i for i in range(n_graphs) if i not in kept.done]
    screens = resampled_screens(panel.adata, panel.columns, panel.environments, seeds[missing])
    genes = panel.genes
    joints = (_isolated(Joint.of(screen, len(genes), context), len(genes)) for screen in screens)
    n_jobs = workers.n_jobs if searches()[options.method].threads else 1
    tasks = ((joint, genes, options, streams[i]) for joint, i in zip(joints, missing, strict=True))
    with progress(n_graphs, "Graphs", initial=len(kept.done)) as bar:
        for k, found in run_tasks(_edges, tasks, n_jobs=n_jobs, prefer="threads"):
            kept.add(missing[k], found)
            bar.update()
    counts = np.zeros((len(context.names), len(genes)))
    for graph in kept.done.values():
        counts[graph.present] += graph.direct
    return Ensemble([kept.done[i].edges for i in range(n_graphs)], counts / n_graphs)


def _isolated(joint: Joint, n_genes: int) -> Joint:
    """Return the moments with genes constant in a resample as nodes that nothing is joined to."""
    lost = [int(i) for i in joint.moments.constant_nodes() if i < n_genes]
    if not lost:
        return joint
    scatter = joint.moments.scatter.copy()
    scatter[lost] = scatter[:, lost] = 0.0
    scatter[lost, lost] = joint.moments.n * (1 + joint.moments.mean[lost] ** 2)
    return joint._replace(moments=Moments(joint.moments.n, joint.moments.mean, scatter))


def _edges(
    joint: Joint, genes: Sequence[str], options: SearchOptions, rng: np.random.Generator
) -> Finished:
    found = search(joint, genes, options, rng, "in a resample of the cells")
    return Finished(sp.csr_array(found.dag.to_matrix()), joint.present, found.context_edges)


def open_checkpoint(path: str | os.PathLike[str] | None, digest: str, n_genes: int) -> Checkpoint:
    """Return the graphs that an earlier call with the same ``digest`` kept, if there are any.

    Raises
    ------
    ValueError
        If the file is no checkpoint, is damaged, or is that of another call.
    """
    if path is None:
        return Checkpoint(None, digest, {})
    file = Path(path)
    if not file.parent.is_dir() or file.is_dir():
        message = f"checkpoint must be a file in a folder that is there, but is {str(file)!r}."
        raise ValueError(message)
    if not file.exists():
        return Checkpoint(file, digest, {})
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
        if str(arrays.pop("what")) != _WHAT:
            raise KeyError
        earlier = str(arrays.pop("digest"))
        numbers = sorted(int(name.removeprefix("edges_")) for name in arrays if "edges_" in name)
        done = {k: _read_graph(arrays, k, n_genes) for k in numbers}
    except (BadZipFile, EOFError, KeyError, OSError, ValueError, TypeError, AttributeError):
        message = (
            f"checkpoint {str(file)!r} holds no graphs of an interrupted call of tl.learn_dag, or "
            f"is damaged: name another file, or remove it."
        )
        raise ValueError(message) from None
    if earlier != digest:
        message = (
            f"checkpoint {str(file)!r} is of another call: cells, labels, options, rng or the "
            f"version of nextpert differ. Repeat that call, name another file, or remove it."
        )
        raise ValueError(message)
    logger.info("%d finished graphs are taken from %s.", len(done), file)
    return Checkpoint(file, digest, done)


def close_checkpoint(path: str | os.PathLike[str] | None) -> None:
    """Remove the file, once the graphs are where they belong."""
    if path is not None:
        for file in (Path(path), _part(Path(path))):
            file.unlink(missing_ok=True)


def digest_of(
    panel: Panel,
    screen: ScreenMoments,
    n_graphs: int,
    options: SearchOptions,
    rng: np.random.Generator,
) -> str:
    """Return a digest of all that ``n_graphs`` graphs depend on; workers are not among it.

    ``screen`` holds the sums over the cells of each environment.
    """
    environments = panel.environments
    rows = environments.table.astype(str).agg("\0".join, axis=1).tolist()
    labels = LabelTable("environments", rows, environments.codes)
    cells = fingerprint(panel.adata, labels, panel.columns, environments.roles.layer)
    bits: Any = rng.bit_generator
    seed = bits.seed_seq
    given = (
        version("nextpert"), cells, list(panel.genes), environments.roles, n_graphs, bits.state,
        sorted(panel.targets.items()),
        (seed.entropy, seed.spawn_key, seed.n_children_spawned),
    )  # fmt: skip
    found = hashlib.sha256(repr(given).encode())
    tables: list[Any] = [environments.covariates, screen.n, screen.mean, screen.squares]
    tables.append(screen.scatter)
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name == "prior" and value is not None:
            tables += [value.before, value.required, value.forbidden]
        elif isinstance(value, np.ndarray):
            tables.append(value)
        else:
            found.update(f"{field.name}={value!r}".encode())
    for table in tables:
        found.update(f"{table.shape}{table.dtype}".encode())
        found.update(np.ascontiguousarray(table).tobytes())
    return found.hexdigest()


def _read_graph(arrays: dict[str, NDArray[Any]], number: int, p: int) -> Finished:
    parents, children = arrays[f"edges_{number}"]
    ones = np.ones(len(parents))
    edges = sp.csr_array(sp.coo_array((ones, (parents, children)), shape=(p, p)))
    return Finished(edges, arrays[f"present_{number}"], arrays[f"direct_{number}"])


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
