"""Orders, required and forbidden edges: closure, contradictions, agreement."""

import numpy as np
import pytest

from nextpert.core import CycleError, Dag, PriorKnowledge


def _reachable(n, pairs):
    matrix = np.zeros((n, n), dtype=int)
    for a, b in pairs:
        matrix[a, b] = 1
    total, power = matrix.copy(), matrix.copy()
    for _ in range(n):
        power = (power @ matrix > 0).astype(int)
        total |= power
    return total.astype(bool)


@pytest.mark.parametrize("seed", range(5))
def test_closure_equals_powers_of_the_relation(seed):
    rng = np.random.default_rng(seed)
    label = rng.permutation(70)
    pairs = [(label[a], label[b]) for a, b in rng.integers(0, 70, (90, 2)) if a < b]
    prior = PriorKnowledge(70, before=pairs)
    assert np.array_equal(prior.before, _reachable(70, pairs))


def test_required_edges_imply_the_order():
    prior = PriorKnowledge(3, before=[(0, 1)], required=[(1, 2)])
    assert prior.before[0, 2]
    assert prior.first_conflict([0, 2, 1]) == (1, 2)


@pytest.mark.parametrize(
    "given",
    [
        {"before": [(0, 1), (1, 2), (2, 0), (3, 0)]},
        {"before": [(0, 1), (1, 2)], "required": [(2, 0)]},
    ],
)
def test_a_circle_is_named(given):
    with pytest.raises(CycleError) as caught:
        PriorKnowledge(4, **given)
    cycle = caught.value.cycle
    pairs = set(map(tuple, given.get("before", []))) | set(map(tuple, given.get("required", [])))
    assert all((a, b) in pairs for a, b in zip(cycle, cycle[1:] + cycle[:1], strict=True))
    assert "MYC" in str(caught.value.named(["MYC", "STAT1", "JUN", "FOS"]))


def test_a_node_before_itself_is_a_circle():
    with pytest.raises(CycleError, match="2 -> 2"):
        PriorKnowledge(3, before=[(2, 2)])


def test_allows_graph():
    prior = PriorKnowledge(4, before=[(0, 3)], required=[(1, 2)], forbidden=[(0, 1)])
    assert prior.allows(Dag.from_edges(4, [(1, 2), (0, 3)]))
    assert not prior.allows(Dag.from_edges(4, [(0, 3)]))  # lacks 1 -> 2
    assert not prior.allows(Dag.from_edges(4, [(1, 2), (0, 1)]))  # holds 0 -> 1
    assert not prior.allows(Dag.from_edges(4, [(1, 2), (3, 2), (2, 0)]))  # a path from 3 to 0


def test_orders_of_the_paper_run_in_circles_which_are_named(paper_orders, consistent_orders):
    orders, genes = paper_orders
    assert len(orders) == 346
    with pytest.raises(CycleError) as caught:
        PriorKnowledge(36, before=orders)
    cycle = caught.value.cycle
    assert set(zip(cycle, cycle[1:] + cycle[:1], strict=True)) <= set(orders)
    assert " -> ".join(genes[i] for i in cycle) in str(caught.value.named(genes))
    prior = PriorKnowledge(36, before=consistent_orders)
    assert prior.before.sum() >= len(consistent_orders) == 249
    assert prior.first_conflict(prior.order_of(Dag.from_edges(36, consistent_orders))) is None
