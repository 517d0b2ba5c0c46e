"""Small pools of candidates of all kinds, on one graph or two."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks._plate_pools import random_pool
from nextpert.core import Dag, DagBlr, Moments


@pytest.fixture(scope="session")
def pools():
    """Makers of pools from a seed."""
    return SimpleNamespace(one=random_pool, several=several_graphs, weighted=weighted_graphs)


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
