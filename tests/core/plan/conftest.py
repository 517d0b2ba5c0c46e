"""Small pools of candidates of all kinds, on one graph or two."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.posterior.shift_posterior import ShiftPosterior


@pytest.fixture(scope="session")
def pools():
    """Makers of pools from a seed, and the criterion after cells."""
    return SimpleNamespace(
        one=random_pool, several=several_graphs, weighted=weighted_graphs, look=look
    )


def random_pool(seed):
    """Return a posterior, candidates of all kinds, a target, and the generator."""
    rng = np.random.default_rng(seed)
    p, m = int(rng.integers(2, 7)), int(rng.integers(2, 10))
    edges = [(a, b) for a in range(p) for b in range(a + 1, p) if rng.random() < 0.5]
    weights = np.zeros((p, p))
    for a, b in edges:
        weights[b, a] = rng.normal()
    cells = np.linalg.solve(np.eye(p) - weights, rng.normal(size=(p, 50)) + 1).T
    blr = DagBlr(Dag.from_edges(p, edges)).update(Moments.from_array(cells))
    n = np.where(rng.random(m) < 0.4, rng.integers(5, 100, m), 0).astype(float)
    tau2 = 10 ** rng.uniform(-3, 1, size=(m, p))
    spare = tau2 / (1 + n[:, None] * tau2)
    prior = rng.normal(size=(m, p)) * (rng.random((m, p)) < 0.4)
    effect = np.where(rng.random((m, 1)) < 0.4, rng.normal(size=(m, p)), 0.0)
    prior += effect - (blr.mean() @ effect.T).T
    mean = 2 * rng.normal(size=(m, p))
    known = ShiftPosterior(n, mean, prior, n[:, None] * spare, spare, effect)
    return blr, known, rng.normal(size=p), rng


def several_graphs(seed):
    """Return the same with a second graph."""
    blr, known, target, rng = random_pool(seed)
    other = DagBlr(Dag.from_edges(blr.n_nodes, [(0, 1)]))
    other = other.update(Moments.from_array(rng.normal(size=(60, blr.n_nodes))))
    return [blr, other], known, target, rng


def weighted_graphs(seed):
    """The same, one graph of more weight than the other."""
    blrs, known, target, rng = several_graphs(seed)
    return blrs, [replace(known, weight=0.3), replace(known, weight=0.7)], target, rng


def look(criterion, cells):
    """Return the criterion after the cells of every candidate."""
    working = criterion.work_on(np.flatnonzero(cells))
    return working.look(cells[working.columns])
