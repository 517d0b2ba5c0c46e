"""A search is one file: its name, options and defaults are asked for wherever users meet them."""

import numpy as np
import pytest

import nextpert as npt
from nextpert.core import Dag
from nextpert.core.search import registry
from nextpert.core.search.registry import Found, register, searches


@pytest.fixture
def chain(monkeypatch):
    """A search of 3 default runs that finds each gene to act on the next; what it was asked."""
    asked = []
    monkeypatch.setattr(registry._SEARCHES, "_known", dict(searches()))

    @register("chain", default_runs=lambda n_genes: n_genes - 1)
    def learn(moments, options, *, n_context, rng, n_jobs, progress):
        assert n_context == 0
        asked.append((options, rng.integers(10), n_jobs))
        if progress is not None:
            progress(1, 1)
        p = moments.n_nodes
        return Found(Dag.from_edges(p, [(i, i + 1) for i in range(p - 1)]), np.arange(p), stored={
            "length": p - 1
        })  # fmt: skip

    return asked


def test_a_search_is_offered_once_it_is_registered(small_screen, chain):
    genes = list(small_screen.var_names)
    npt.tl.learn_dag(small_screen, method="chain", n_graphs=3)
    stored = small_screen.uns["dag"]
    assert small_screen.varp["dag"].nnz == stored["length"] == len(genes) - 1
    assert stored["params"]["n_runs"] == len(genes) - 1
    assert stored["edges"]["frequency"].tolist() == [1.0] * (len(genes) - 1)
    first, *resampled = [options for options, *_ in chain]
    assert first.order is None
    assert [n_jobs for *_, n_jobs in chain] == [1] * 4
    npt.tl.learn_dag(small_screen, method="chain", n_jobs=2)
    assert chain.pop()[2] == 2
    assert [options.order.tolist() for options in resampled] == [list(range(len(genes)))] * 3
    with pytest.raises(ValueError, match=r"method must be 'boss', .*'causaldag', 'chain', "):
        npt.tl.learn_dag(small_screen, method="chains")
    with pytest.raises(ValueError, match='"all" needs method="boss", but method is \'chain\''):
        npt.tl.learn_dag(small_screen, method="chain", environments="all")


@pytest.mark.usefixtures("chain")
def test_a_name_is_taken_by_one_search_which_may_be_run_again():
    register("chain")(searches()["chain"].learn)
    with pytest.raises(ValueError, match=r"'gsp' already .*methods\.gsp\.learn"):
        register("gsp")(searches()["chain"].learn)
