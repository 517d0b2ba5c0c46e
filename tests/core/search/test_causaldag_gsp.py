"""Agreement with the lab's own GSP, where the extra is installed."""

import random
import sys

import numpy as np
import pytest

from nextpert.core import Moments, causaldag_gsp, gsp, minimal_imap

pytestmark = pytest.mark.slow

REASON = "the extra is not installed: pip install 'nextpert[causaldag]'"


@pytest.fixture(scope="module")
def peer():
    """The peer's function from a permutation, moments and its own alpha to edges."""
    pytest.importorskip("conditional_independence", reason=REASON)
    learning = pytest.importorskip("graphical_model_learning", reason=REASON)
    tests = sys.modules["conditional_independence"]

    def imap(moments, order, alpha):
        precision = np.linalg.inv(moments.correlation())
        tester = tests.MemoizedCI_Tester(
            tests.partial_correlation_test, {"P": precision, "n": moments.n}, alpha=alpha
        )
        from graphical_model_learning.algorithms.dag import permutation2dag

        return permutation2dag(order, tester).arcs

    assert learning.gsp
    return imap


def _assert_imaps_agree(moments, peer):
    rng = np.random.default_rng(0)
    for _ in range(200):
        order = rng.permutation(moments.n_nodes).tolist()
        ours = minimal_imap(moments, order, alpha=2e-3)
        theirs = peer(moments, order, 1e-3)
        assert set(ours.edges()) == {(int(k), int(i)) for k, i in theirs}


def test_imaps_of_random_permutations_agree(simulated, peer):
    _assert_imaps_agree(simulated(36, 5, seed=0)[1], peer)


@pytest.mark.screen
def test_imaps_of_random_permutations_agree_on_tapseq(tapseq_controls, peer):
    assert (tapseq_controls.n, tapseq_controls.n_nodes) == (7760, 62)
    _assert_imaps_agree(tapseq_controls, peer)


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize(("degree", "standardise"), [(3, True), (5, False), (8, True)])
def test_never_more_edges_than_the_peer(simulated, degree, standardise):
    _, moments = simulated(36, degree, seed=degree, standardise=standardise)
    theirs = causaldag_gsp(moments, n_runs=100, rng=0)
    for seed in range(3):
        assert gsp(moments, n_runs=100, rng=seed).dag.n_edges <= theirs.n_edges


@pytest.mark.usefixtures("peer")
@pytest.mark.screen
def test_never_more_edges_than_the_peer_on_tapseq(tapseq_controls):
    theirs = causaldag_gsp(tapseq_controls, n_runs=100, rng=0)
    assert gsp(tapseq_controls, n_runs=100, rng=0).dag.n_edges <= theirs.n_edges


@pytest.mark.usefixtures("peer")
def test_peer_is_seeded_and_leaves_the_global_state(simulated):
    _, moments = simulated(15, 4, seed=0)
    random.seed(3)
    np.random.seed(4)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    one = causaldag_gsp(moments, n_runs=3, rng=5)
    after = random.getstate(), np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert before[1][0] == after[1][0]
    assert np.array_equal(before[1][1], after[1][1])
    assert before[1][2:] == after[1][2:]
    random.seed(99)
    assert causaldag_gsp(moments, n_runs=3, rng=5) == one


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "conditional_independence", None)
    moments = Moments.from_array(np.random.default_rng(0).normal(size=(50, 3)))
    state = random.getstate()
    with pytest.raises(ImportError, match=r"pip install 'nextpert\[causaldag\]'"):
        causaldag_gsp(moments, rng=0)
    assert random.getstate() == state
