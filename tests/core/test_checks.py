"""Arguments of the wrong type or value: one clear sentence that names the thing and the remedy."""

import pickle
import re

import numpy as np
import pytest
import scipy.sparse as sp

from nextpert.core import (
    CycleError,
    Dag,
    DagBlr,
    Moments,
    PriorKnowledge,
    gsp,
    random_scm,
)
from nextpert.core._checks import as_nodes, as_rng, as_vector, require_count, require_positive

CLEAR = (TypeError, ValueError)
NO_NUMBERS = ["a", b"a", None, [1], (), {}, 1j, True, np.True_, np.ones(2), object(), Dag, "1"]
MOMENTS = Moments.from_array(np.random.default_rng(0).normal(size=(50, 4)))


def shown(value):
    """Its words, without an address, which differs from worker to worker."""
    return repr(value).split(" at 0x")[0]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=shown)
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"^n must be a whole number of at least 2, but is "):
        require_count(value, "n", least=2)
    with pytest.raises(TypeError, match=r"^x must be a finite number above 0, but is "):
        require_positive(value, "x")


@pytest.mark.parametrize("value", [1, -3, 2.5, np.nan, np.inf, -np.inf, 10**400, 2**63, 1e300])
def test_numbers_that_are_no_count(value):
    with pytest.raises(ValueError, match=r"^n must be a whole number of at least 2, but is "):
        require_count(value, "n", least=2)


@pytest.mark.parametrize("value", [0, -1.0, np.nan, np.inf, -(10**400), 10**400])
def test_numbers_that_are_not_positive(value):
    with pytest.raises(ValueError, match=r"^x must be a finite number above 0, but is "):
        require_positive(value, "x")


@pytest.mark.parametrize("value", [3, 3.0, np.int8(3), np.float32(3), np.array(3), np.uint64(3)])
def test_numbers_of_every_kind_are_taken(value):
    found = require_count(value, "n")
    assert (found, type(found)) == (3, int)
    assert (require_positive(value, "x"), type(require_positive(value, "x"))) == (3.0, float)


@pytest.mark.parametrize("rng", ["a", 1.5, -1, True, {}, object(), [-1], np.nan, 1j], ids=shown)
def test_seeds_that_are_none(rng):
    with pytest.raises(CLEAR, match=r"^rng must be a whole number of at least 0, a numpy\.random"):
        as_rng(rng)
    with pytest.raises(CLEAR, match=r"^rng must be"):
        gsp(MOMENTS, rng=rng)


def test_seeds_that_are():
    assert as_rng(3).random() == as_rng(np.int64(3)).random() == np.random.default_rng(3).random()
    generator = np.random.default_rng(0)
    assert as_rng(generator) is generator


@pytest.mark.parametrize(
    "value", ["ab", None, [1, "a"], [1j, 2], {}, [[1], [2, 3]], b"ab"], ids=shown
)
def test_vectors_that_hold_no_numbers(value):
    with pytest.raises(CLEAR, match=r"^shift ") as caught:
        as_vector(value, 2, "shift")
    assert re.search(r"must hold numbers alone|one value for each|NaN", str(caught.value))


@pytest.mark.parametrize("value", ["ab", None, 3, [1.5], [None], [True], [[0]], [np.nan], [10**30]])
def test_nodes_that_are_none(value):
    with pytest.raises(CLEAR, match=r"^do "):
        as_nodes(value, 4, "do")


@pytest.mark.parametrize("value", [[-1], [4], [0, 99]])
def test_nodes_outside(value):
    calls = [
        lambda: as_nodes(value, 4, "do"),
        lambda: MOMENTS.subset(value),
        lambda: PriorKnowledge(4, tiers=[[0], value]),
        lambda: DagBlr(Dag.complete(range(4))).update(MOMENTS, do=value),
        lambda: Dag.complete(range(4)).parents(value[-1]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"0\.\.3"):
            call()


def test_a_mask_is_no_list_of_nodes():
    with pytest.raises(TypeError, match="nodes must be a list of nodes"):
        MOMENTS.subset(np.array([True, False, True, True]))


@pytest.mark.parametrize("order", [[-1, 0], [0, 2], [1, 1], [0, 1, -1], [[0, 1]], [0.0, 1.0], "ab"])
def test_orders_that_are_no_permutation(order):
    with pytest.raises(ValueError, match=r"^order must (hold each of|be a vector of whole)"):
        Dag.complete(order)


@pytest.mark.parametrize("bad", [np.nan, 1j, "a", None])
def test_matrices_that_hold_no_numbers(bad):
    kind = object if bad in ("a", None) else np.asarray(bad).dtype
    matrix = np.zeros((3, 3), dtype=kind)
    matrix[0, 1] = bad
    with pytest.raises(ValueError, match=r"adjacency matrix (holds|has NaN)"):
        Dag.from_matrix(matrix)
    if kind is not object:
        with pytest.raises(ValueError, match=r"adjacency matrix (holds|has NaN)"):
            Dag.from_matrix(sp.csr_array(matrix))


@pytest.mark.parametrize(
    "edge", [(0,), (0, 1, 2), 5, "ab", ("a", "b"), (0.5, 1), (None, 1), (0, [1])]
)
def test_edges_that_are_no_pairs(edge):
    with pytest.raises(ValueError, match=r"Edges must be pairs \(parent, child\)"):
        Dag.from_edges(3, [(0, 1), edge])


@pytest.mark.parametrize(
    ("indptr", "indices"),
    [([0, 0.5, 1], [0]), ([0, 0, 1], [0.5]), ([[0, 0, 1]], [0]), ("ab", [0]), ([0, 0, 1], [True])],
)
def test_pointers_that_are_no_whole_numbers(indptr, indices):
    with pytest.raises(ValueError, match=r"must be a vector of whole numbers"):
        Dag(indptr, indices)


@pytest.mark.parametrize("pair", [3, (0,), (0, np.nan), (0, 1.5), (0, 1, 2)])
def test_pairs_of_prior_knowledge(pair):
    for name in ("before", "required", "forbidden"):
        with pytest.raises(ValueError, match=rf"{name} holds .* must be a pair of nodes"):
            PriorKnowledge(4, **{name: [pair]})


def test_tiers_hold_whole_numbers():
    with pytest.raises(TypeError, match="Tier 1 must be a list of nodes"):
        PriorKnowledge(4, tiers=[[0], [np.nan]])


@pytest.mark.parametrize("names", [None, ["A", "B"]])
def test_a_cycle_comes_back_from_a_worker(names):
    error = CycleError([0, 1], names)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is CycleError
    assert (again.cycle, str(again)) == (error.cycle, str(error))
    assert str(again.named(["X", "Y"])) == str(error.named(["X", "Y"]))


def test_centres_and_models_of_another_size():
    with pytest.raises(ValueError, match="origin has shape"):
        MOMENTS.centre(np.zeros(3))
    scm = random_scm(4, rng=0)
    with pytest.raises(CLEAR, match="shift"):
        scm.mean("abcd")
