"""Acquisitions by name: one registry, which all that asks for a name reads."""

import numpy as np
import pytest

from nextpert.core import (
    Acquisition,
    Candidates,
    Dag,
    DagBlr,
    Pool,
    acquisitions,
    build_acquisition,
    find_acquisition,
)
from nextpert.core.causal import registry
from nextpert.core.causal.registry import acquisition
from nextpert.study.replay import known_strategies

BLR = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)


@pytest.fixture
def nearest(monkeypatch):
    """An acquisition of one's own, known by its name while the test runs."""
    known = registry._ACQUISITIONS
    monkeypatch.setattr(known, "_known", known.every())

    @acquisition("nearest")
    class Nearest(Acquisition):
        def __init__(self, posterior, target_mean, *, n_cells=1):
            self.n_nodes, self.target, self.n_cells = posterior.n_nodes, target_mean, n_cells

        def values(self, shifts):
            return np.abs(self._pool(shifts) - self.target).sum(axis=1)

    return Nearest


def test_one_of_your_own_is_found_wherever_names_are(nearest):
    pool, target = np.array([[0.0, 3.0], [2.0, 0.0], [1.0, 1.0]]), np.array([1.0, 0.0])
    wanted = [4.0, 1.0, 1.0]
    found = find_acquisition("nearest").of_candidates(Candidates(BLR, pool, target))
    assert found.values.tolist() == wanted
    made = build_acquisition("nearest", BLR, target, domain=Pool(pool), n_cells=7)
    assert isinstance(made, nearest)
    assert (made.name, made.n_cells) == ("nearest", 7)
    assert {"nearest", "exact_nearest"} & set(known_strategies(None)) == {"exact_nearest"}


def test_a_name_belongs_to_one_class(nearest):
    with pytest.raises(ValueError, match=r"'greedy' already \(Greedy\)"):
        acquisition("greedy")(nearest)
    assert find_acquisition("greedy").__name__ == "Greedy"
    assert acquisition("nearest")(nearest) is nearest  # as where a notebook's cell is run again


def test_plates_hold_the_best_of_those_ready(nearest):
    from nextpert.core import Candidates

    pool = np.array([[0.0, 3.0], [2.0, 0.0], [1.0, 0.5], [1.0, 0.0]])
    asked = Candidates(BLR, pool, [1.0, 0.0], rng=0)
    assert nearest.plate(asked, np.array([0, 1, 2]), 2).tolist() == [2, 1]
    for name in acquisitions():
        plate = find_acquisition(name).plate(asked, np.array([0, 2, 3]), 2)
        assert len(set(plate.tolist()) & {0, 2, 3}) == 2, name
