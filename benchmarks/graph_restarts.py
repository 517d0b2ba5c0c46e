"""Restarts of BOSS from perturbed orders, against FLOP and GSP, on cells of random graphs.

Six settings, from 10 to 100 genes, with 5,000 cells each: structural Hamming distance (SHD) of the
equivalence class to that of the true graph, how far the score is below that of the true graph, and
processor time. FLOP (``pip install flopsearch``) has the same penalty, and restarts from perturbed
orders as well; its matrix is a class, whose score is that of one member. GSP is causaldag's.

    python -m benchmarks.graph_restarts
    python -m benchmarks.graph_restarts --models 2 --settings 3
"""

from __future__ import annotations

import time
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._graphs import draw_cells
from benchmarks._page import options, save, show, table
from benchmarks._peer_searches import distance, is_there
from nextpert.core import Moments, boss, causaldag_gsp
from nextpert.core.graph.dag import Pdag
from nextpert.core.search._classes import rows_of, total_score
from nextpert.core.search.minimal_imap import make_score
from nextpert.core.search.prior_knowledge import PriorKnowledge

if TYPE_CHECKING:
    from collections.abc import Callable

    Search = Callable[[np.ndarray], np.ndarray]

_PENALTY = 2.0
# Genes and mean degree.
SETTINGS = [(10, 4), (20, 4), (30, 6), (30, 12), (100, 6), (100, 12)]


def nextpert_boss(cells: np.ndarray, **more: Any) -> np.ndarray:
    """Return the class that BOSS finds, row = parent."""
    found = boss(Moments.from_array(cells), penalty=_PENALTY, rng=0, **more)
    return Pdag.of_class(found.dag).edges


def flop(cells: np.ndarray, n_restarts: int) -> np.ndarray:
    """Return the class that FLOP finds; 1 is an edge, and 2 one without a direction."""
    search = import_module("flopsearch").flop
    return np.asarray(search(cells, _PENALTY, restarts=n_restarts)) != 0


def gsp_of_causaldag(cells: np.ndarray) -> np.ndarray:
    """Return the class that causaldag's GSP finds with its default number of runs."""
    return Pdag.of_class(causaldag_gsp(Moments.from_array(cells), alpha=1e-3, rng=0)).edges


# The module that a search needs, and the most genes that it takes seconds for.
SEARCHES: dict[str, tuple[Search, str | None, int]] = {
    "nextpert: BOSS, 10 starts": (partial(nextpert_boss, n_restarts=0), None, 1000),
    "nextpert: BOSS, 10 starts and 20 restarts": (
        partial(nextpert_boss, n_restarts=20), None, 1000
    ),
    "nextpert: BOSS, 1 start and 20 restarts": (
        partial(nextpert_boss, n_starts=1, n_restarts=20), None, 1000
    ),
    "flopsearch: FLOP, no restarts": (partial(flop, n_restarts=0), "flopsearch", 1000),
    "flopsearch: FLOP, 20 restarts": (partial(flop, n_restarts=20), "flopsearch", 1000),
    "causaldag: GSP": (gsp_of_causaldag, "graphical_model_learning", 20),
}  # fmt: skip


def below(edges: np.ndarray, truth: np.ndarray, cells: np.ndarray) -> float:
    """Return how far the score of a class is below that of the true graph."""
    problem = make_score(Moments.from_array(cells), _PENALTY, PriorKnowledge(len(truth)))
    member = Pdag(edges.copy()).to_dag()
    if member is None:
        return np.nan
    found = rows_of(member.to_matrix().toarray() != 0)
    return total_score(problem, rows_of(truth)) - total_score(problem, found)


def compared(setting: tuple[int, int], n_models: int) -> list[list[Any]]:
    """Return the rows of a setting."""
    n_genes, degree = setting
    drawn = [draw_cells(n_genes, degree, 5000, seed) for seed in range(n_models)]
    rows = []
    for name, (search, module, most) in SEARCHES.items():
        if n_genes > most or not is_there(module):
            rows.append([n_genes, degree, name, "not run", "-", "-"])
            continue
        search(drawn[0][1][:, :5])  # compiles
        values = []
        for truth, cells in drawn:
            start = time.process_time()
            edges = search(cells)
            seconds = time.process_time() - start
            true = Pdag.of_class(truth).edges
            lost = below(edges, truth.to_matrix().toarray() != 0, cells)
            values.append((distance(edges, true), lost, seconds))
        shd, lost, seconds = np.mean(values, axis=0)
        rows.append([n_genes, degree, name, f"{shd:.1f}", f"{lost:.1f}", f"{seconds:.3g}"])
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Compare the searches on every setting."""
    parser = options("graph_restarts", __doc__)
    parser.add_argument("--models", type=int, default=5, help="models of every setting")
    parser.add_argument("--settings", type=int, help="only the first so many")
    args = parser.parse_args(arguments)
    rows = [row for s in SETTINGS[: args.settings] for row in compared(s, args.models)]
    head = "genes", "degree", "search", "SHD", "score below the truth", "CPU s"
    title = f"## Restarts, means over {args.models} models"
    save("graph_restarts", [show(f"{title}\n\n{table(head, rows)}")], args.save)


if __name__ == "__main__":
    main()
