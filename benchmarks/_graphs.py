"""Graph searches: GSP and causaldag's GSP; BOSS and causal-learn's BOSS and GRaSP."""

from __future__ import annotations

import random
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._row import Work
from nextpert.core import Dag, Moments, boss, causaldag_gsp, gsp, random_scm

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_ALPHA = 1e-3
_PENALTY = 2.0  # on the BIC, nextpert's default; causal-learn counts from half of it


def draw_cells(
    n_genes: int, degree: float, n_cells: int, seed: int, *, shuffle: bool = True
) -> tuple[Dag, Array]:
    """Draw cells of a random graph of mean degree ``degree``.

    Columns come in random order, or in a topological one without ``shuffle``.
    """
    rng = np.random.default_rng(seed)
    scm = random_scm(n_genes, "erdos_renyi", expected_degree=degree, rng=rng)
    cells = scm.sample(n_cells, rng=rng)
    place = rng.permutation(n_genes) if shuffle else np.arange(n_genes)  # gene of each column
    truth = scm.dag.to_matrix().toarray()[np.ix_(place, place)]
    return Dag.from_matrix(truth), np.ascontiguousarray(cells[:, place])


def skeleton(graph: Dag | Any) -> NDArray[np.bool_]:
    """Return the symmetric adjacency of a graph, ours or causal-learn's."""
    matrix = graph.to_matrix().toarray() if isinstance(graph, Dag) else graph.graph
    present = np.asarray(matrix) != 0
    return present | present.T


def skeleton_f1(graph: Dag | Any, truth: Dag) -> float:
    """Return F1 of the adjacencies found: 2 |found and true| / (|found| + |true|)."""
    found, true = skeleton(graph), skeleton(truth)
    return float(2 * (found & true).sum() / max(found.sum() + true.sum(), 1))


def search_gsp(*, n_genes: int, degree: float, n_cells: int, n_runs: int) -> Work:
    """GSP with equally many runs on both sides, and the same cells, level and depth."""
    truth, cells = draw_cells(n_genes, degree, n_cells, 0)
    moments = Moments.from_array(cells)
    options: dict[str, Any] = {"alpha": _ALPHA, "n_runs": n_runs}

    def report(found: list[Any], peers: list[Dag]) -> tuple[str, bool]:
        edges = [result.dag.n_edges for result in found]
        remark = f"edges (true {truth.n_edges}): ours {_range(edges)}"
        if not peers:
            return remark, True
        theirs = [dag.n_edges for dag in peers]
        return f"{remark}, peer {_range(theirs)}", max(edges) <= min(theirs)

    return Work(
        lambda k: gsp(moments, rng=k, **options),
        lambda k: causaldag_gsp(moments, rng=k, **options),
        report,
    )


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def search_boss(
    *,
    n_genes: int,
    degree: float,
    n_cells: int,
    n_jobs: int = 1,
    peer: str | None = None,
    shuffle: bool = True,
) -> Work:
    """BOSS with the BIC; the peer is causal-learn's ``"BOSS"`` or ``"GRaSP"``, the same score.

    The peers start from the order of the columns. A topological one (no ``shuffle``) spares them
    most of the way; nextpert starts from an order of its own.
    """
    truth, cells = draw_cells(n_genes, degree, n_cells, 0, shuffle=shuffle)

    def ours(k: int) -> Dag:
        return boss(Moments.from_array(cells), penalty=_PENALTY, rng=k, n_jobs=n_jobs).dag

    def theirs(k: int) -> Any:
        module = import_module(f"causallearn.search.PermutationBased.{peer}")
        search = getattr(module, str(peer).lower())
        random.seed(k)  # it draws from the global generator
        score = {"lambda_value": _PENALTY / 2}
        return search(cells, "local_score_BIC_from_cov", parameters=score, verbose=False)

    def report(found: list[Dag], peers: list[Any]) -> tuple[str, bool]:
        mine = [skeleton_f1(dag, truth) for dag in found]
        edges = found[0].n_edges
        remark = f"skeleton F1: ours {np.median(mine):.3f} ({edges} edges, true {truth.n_edges})"
        if not peers:
            return remark, True
        other = [skeleton_f1(graph, truth) for graph in peers]
        edges = int(skeleton(peers[0]).sum() // 2)
        remark += f", peer {np.median(other):.3f} ({edges} edges)"
        return remark, bool(np.median(mine) >= np.median(other) - 1e-9)

    return Work(ours, theirs if peer else None, report)
