"""The array core, given what it cannot use: numbers, shapes, indices and graphs."""

from functools import partial

import numpy as np
import pytest

from nextpert import core
from nextpert.core.causal.scm import matched_random_dag
from nextpert.core.design.distances import states_of
from nextpert.core.screen.mean_distance import mean_distance

NAN, INF = float("nan"), float("inf")
RNG = np.random.default_rng(0)
CELLS = RNG.normal(size=(50, 3))
MOMENTS = core.Moments.from_array(CELLS)
DAG = core.Dag.from_edges(3, [(0, 1), (1, 2)])
BLR = core.DagBlr(DAG).update(MOMENTS)
INFINITE = core.DagBlr(DAG, prior_scale=1.0, prior_shape=1.2)
TARGET = np.ones(3)
EXACT = states_of(BLR, np.eye(3))
SCM = core.LinearScm(np.zeros((3, 3)), np.ones(3), np.zeros(3))
POOL = core.Pool(np.eye(3))


EDGE, FOUR = [(0, 1)], core.PriorKnowledge(4)
LATE = core.PriorKnowledge(3, before=[(2, 0)])
ONE_CELL = core.Moments.from_array(np.ones((1, 3)))
ranked = partial(core.ranked_distance, EXACT, TARGET)


def acquire(acquisition="civ", target=TARGET, n_cells=1):
    return core.build_acquisition(acquisition, BLR, target, domain=POOL, n_cells=n_cells)


def scm(weights, noise_var=(1, 1)):
    return core.LinearScm(weights, np.array(noise_var), np.zeros(2))


def many(name, call, *values):
    """One case for each wrong value of a parameter."""
    shown = [getattr(value, "__name__", repr(value)) for value in values]
    return [
        (f"{name}={word}"[:60], lambda value=value: call(value), name)
        for word, value in zip(shown, values, strict=True)
    ]


CASES = [
    *many("n_nodes", core.Moments.zeros, -1, 1.5, "three", None),
    ("NaN cells", lambda: core.Moments.from_array(np.full((4, 2), NAN)), "NaN"),
    ("infinite cells", lambda: core.Moments.from_array(np.full((4, 2), INF)), "infinite"),
    ("moments of other sizes", lambda: core.Moments(2, np.ones(3), np.eye(2)), "scatter"),
    *many("whole number", lambda n: core.Moments(n, np.zeros(2), np.eye(2)), 2.5, NAN),
    *many("target", lambda t: mean_distance(MOMENTS, t), MOMENTS.subset([0, 1]), [0.0, NAN, 0.0]),
    *many("nodes", MOMENTS.subset, [-1], [3], ["a"], "ab", 3, [1.5], [True], [[0]], [NAN]),
    *many("vector of whole numbers", lambda p: core.Dag(*p), ([0, 0.5, 1], [0]), ([0, 1], [0.5])),
    ("sum of sizes", lambda: MOMENTS + core.Moments.zeros(4), "nodes"),
    *many("dge", lambda e: core.Dag.from_edges(3, [e]), (0, 3), (-1, 0), (0,), ("a", "b"), 3),
    *many("dge", lambda e: core.Dag.from_edges(3, [e]), (0, 1, 2), "ab", (0.5, 1), (None, 1)),
    *many("matrix", core.Dag.from_matrix, *(np.eye(2) * bad for bad in (NAN, 1j)), [["a", None]]),
    ("loop", lambda: core.Dag.from_edges(3, [(1, 1)]), "1 -> 1"),
    ("circle", lambda: core.Dag.from_edges(3, [(0, 1), (1, 0)]), "->"),
    *many("alpha", lambda a: core.gsp(MOMENTS, alpha=a), 0, 1, 2, NAN, "low", None),
    *many("n_runs", lambda n: core.gsp(MOMENTS, n_runs=n), 0, 1.5, "ten", True),
    *many("rng", lambda r: core.gsp(MOMENTS, rng=r), -1, "seed", 1.5),
    ("cells for moments, gsp", lambda: core.gsp(CELLS), "Moments"),
    *many("penalty", lambda p: core.boss(MOMENTS, penalty=p), 0, -1, NAN, "high"),
    *many("n_starts", lambda n: core.boss(MOMENTS, n_starts=n), 0, 1.5, "ten"),
    *many("permutation", partial(core.minimal_imap, MOMENTS), [0, 1], [0, 1, 1], [0, 1, 3], "abc"),
    *many("before", lambda b: core.PriorKnowledge(3, before=b), [(0, 3)], [(0,)], 3, [(0, NAN)]),
    ("both", lambda: core.PriorKnowledge(3, required=EDGE, forbidden=EDGE), "required and f"),
    ("turned, imap", lambda: core.minimal_imap(MOMENTS, [0, 1, 2], prior=LATE), "0 precedes"),
    ("turned, gsp", lambda: core.gsp(MOMENTS, orders=[0, 1, 2], prior=LATE), "0 precedes"),
    *many("about 4 nodes, but the cells", lambda f: f(MOMENTS, prior=FOUR), core.gsp, core.boss),
    *many("0..2 once", lambda o: core.gsp(MOMENTS, orders=o), [0, 1, 1], [[0, 1]], list("abc")),
    ("a list for a graph", lambda: core.DagBlr([(0, 1)]), "Dag"),
    *many("prior_scale", lambda s: core.DagBlr(DAG, prior_scale=s), 0, -1, NAN, "learned"),
    *many("prior_units", lambda u: core.DagBlr(DAG, prior_units=u), "cells", 3),
    *many("noise_var", lambda v: core.DagBlr(DAG, noise_var=v), 0, -1, NAN, [1, 2], "known"),
    *many("noise_var has shape", lambda v: core.DagBlr(DAG, noise_var=v), [1.0] * 4, [[1.0] * 3]),
    ("means of five", lambda: BLR.predict_mean(np.zeros((4, 5))), "shifts must have the shape"),
    ("ideal of two", lambda: BLR.ideal_shift([1.0, 2.0]), "target_mean"),
    ("gap of one shift", lambda: core.gap_variance(BLR, [0.0], TARGET), "shift"),
    ("gap of no cells", lambda: core.gap_variance(BLR, TARGET, TARGET, n_cells=0), "n_cells"),
    ("no variance", lambda: core.gap_variance(core.DagBlr(DAG), TARGET, TARGET), "control cells"),
    *many("shift", core.Civ(BLR, TARGET).value, [1.0, 2.0]),
    *many("pool", core.Civ(BLR, TARGET).values, np.ones((2, 2)), [[1.0, INF, 0.0]]),
    *many("n_samples", lambda n: core.MutualInformationInt(BLR, TARGET, n_samples=n), 0),
    *many("shift", lambda s: BLR.update(MOMENTS, s), [1, 2], [NAN, 0, 0], "knockout", np.eye(3)),
    *many("n_samples", lambda n: BLR.sample(n), 0, -1, 1.5, "ten"),
    *many("expected_degree", lambda d: core.random_dag(5, expected_degree=d), -1, NAN),
    ("family", lambda: core.random_dag(5, "ring"), "ring"),
    *many("No acyclic graph", matched_random_dag, [1], [1, 1], [0, 2], [0, -1]),
    ("few cells", lambda: core.fisher_z_threshold(10, 7), "10 cells are too few for tests given 7"),
    *many("indptr", lambda p: core.Dag(*p), ([0, 1], []), ([1, 1], [0]), ([0, 2, 1], [0])),
    ("an edge twice", lambda: core.Dag.from_edges(2, [(0, 1), (0, 1)]), "given twice"),
    *many("n_nodes", lambda n: core.random_dag(n, expected_degree=1), -1, 1.5, "a"),
    ("weights of no square", lambda: scm(np.zeros((2, 3))), "square"),
    ("weights in a circle", lambda: scm(np.ones((2, 2))), "->"),
    ("noise below 0", lambda: scm(np.zeros((2, 2)), (-1, 1)), "noise_var"),
    ("NaN weights", lambda: scm([[0.0, 0.0], [NAN, 0.0]]), "weights"),
    *many("target_mean", SCM.optimal_shift, [1.0]),
    *many("shift", SCM.mean, [1, 2], [NAN, 0, 0], "knockout"),
    *many("n", SCM.sample, -1, 1.5, "ten", None),
    *many("acquisition", acquire, "best", 3, None),
    ("target of two", lambda: acquire(target=[1, 2]), "target"),
    *many("n_cells", lambda n: acquire(n_cells=n), 0, "ten"),
    *many("radius", lambda r: core.Sphere(r), 0, -1, NAN, "big"),
    *many("shifts", core.Pool, np.zeros((0, 3)), np.full((2, 3), NAN), np.ones(3), "abc"),
    ("distance to two", lambda: core.ranked_distance(EXACT, [1, 2]), "target"),
    *many("n_samples", lambda n: core.ranked_distance(EXACT, TARGET, n_samples=n), 0, "a"),
    ("shd of sizes", lambda: core.shd(DAG, core.Dag.from_edges(2, [])), "nodes"),
    ("posterior of nothing", lambda: core.DagBlr.from_dict({}), "posterior"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "call", "word"), CASES, ids=[case[0] for case in CASES])
def test_core(name, call, word, assert_refused):
    assert_refused(lambda _: call(), None, [word])
