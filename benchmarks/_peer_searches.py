"""Peers that search with interventions: GIES and UT-IGSP; ``pip install gies causaldag``."""

from __future__ import annotations

import random
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._predictors import search_all

if TYPE_CHECKING:
    from benchmarks._simulated import Simulated

_ALPHA = 1e-3  # of UT-IGSP's tests


def _environments(found: Simulated) -> tuple[list[str], list[np.ndarray]]:
    names = ["control", *sorted(set(found.label) - {"control"})]
    return names, [found.cells[found.label == name] for name in names]


def nextpert_boss(found: Simulated, seed: int) -> np.ndarray:
    """BOSS with indicators and as many starts as in ``tl.learn_dag``; targets are not given."""
    return search_all(found.statistics(), n_starts=10, rng=seed)[0].to_matrix().toarray() != 0


def gies(
    found: Simulated, seed: int, *, means: bool = False, targets: dict[str, int] | None = None
) -> np.ndarray:
    """GIES with nextpert's penalty and given targets, which it assumes fixed; it drops their cells.

    Its score centres every environment; with ``means``, all at the mean of the controls instead,
    so that it sees the shifts. ``targets`` are given in place of the true ones.
    """
    names, cells = _environments(found)
    told = found.targets if targets is None else targets
    held = [[told[name]] if name in told else [] for name in names]
    penalty = np.log(len(found.label))
    module = import_module("gies.scores.gauss_int_l0_pen")
    score = module.GaussIntL0Pen(cells, held, lmbda=penalty)
    if means:
        away = [each - cells[0].mean(axis=0) for each in cells]
        for gene in range(found.scm.n_nodes):
            kept = [x for x, some in zip(away, held, strict=True) if gene not in some]
            score.part_sample_cov[gene] = sum(x.T @ x for x in kept) / sum(map(len, kept))
    return import_module("gies").fit(score)[0] != 0


def gies_with_means(found: Simulated, seed: int) -> np.ndarray:
    """GIES whose score sees the shifts."""
    return gies(found, seed, means=True)


def ut_igsp(found: Simulated, seed: int) -> np.ndarray:
    """UT-IGSP of causaldag with Gaussian tests at 0.001; targets are not given."""
    tests, learning = (
        import_module(name) for name in ("conditional_independence", "graphical_model_learning")
    )
    names, cells = _environments(found)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - it draws from both
    independence = tests.MemoizedCI_Tester(
        tests.partial_correlation_test, tests.partial_correlation_suffstat(cells[0]), alpha=_ALPHA
    )
    invariance = tests.MemoizedInvarianceTester(
        tests.gauss_invariance_test,
        tests.gauss_invariance_suffstat(cells[0], cells[1:]),
        alpha=_ALPHA,
    )
    settings = [{"known_interventions": []} for _ in names[1:]]
    nodes = set(range(found.scm.n_nodes))
    dag, _ = learning.unknown_target_igsp(settings, nodes, independence, invariance)
    matrix = np.zeros((len(nodes), len(nodes)), bool)
    for parent, child in dag.arcs:
        matrix[parent, child] = True
    return matrix


SEARCHES = {
    "nextpert: BOSS, all environments": (nextpert_boss, None),
    "gies: GIES, targets given": (gies, "gies"),
    "gies: GIES, targets given, means kept": (gies_with_means, "gies"),
    "causaldag: UT-IGSP": (ut_igsp, "graphical_model_learning"),
}


def is_there(module: str | None) -> bool:
    """Whether a peer can be imported."""
    if module is None:
        return True
    try:
        import_module(module)
    except ImportError:
        return False
    return True


def distance(found: np.ndarray, truth: np.ndarray) -> int:
    """Return the pairs that two graphs join differently; an undirected edge goes both ways."""
    wrong = found != truth
    return int(np.triu(wrong | wrong.T).sum())
