"""``tl.learn_dag(method="given")``: graphs of the user's own, and their panels."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.core import Dag
from tests._screens import edges_of

GIVEN = {
    "edges": lambda dag, names: [(names[k], names[i]) for k, i in dag.edges()],
    "an array": lambda dag, names: np.array([(names[k], names[i]) for k, i in dag.edges()]),
    "Dag": lambda dag, names: dag,
    "array": lambda dag, names: dag.to_matrix().toarray(),
    "weights": lambda dag, names: -0.3 * dag.to_matrix().toarray(),
    "csr": lambda dag, names: dag.to_matrix(),
    "csc": lambda dag, names: sp.csc_matrix(dag.to_matrix()),
}  # fmt: skip


@pytest.mark.parametrize("kind", GIVEN)
def test_given_graphs(kind, small_screen, graph, edges):
    names = list(small_screen.var_names)
    small_screen.X[:] = np.nan  # no cell is read
    npt.tl.learn_dag(
        small_screen, method="given", dag=GIVEN[kind](graph, names), genes=names, key_added="mine"
    )
    assert edges_of(small_screen, "mine") == set(edges)
    assert small_screen.uns["mine"]["genes"].tolist() == names
    assert "n_control_cells" not in small_screen.uns["mine"]


def test_panel_of_a_given_graph(small_screen):
    npt.tl.learn_dag(small_screen, method="given", dag=[("CPQ", "MYC"), ("CPQ", "UBR5")])
    assert small_screen.uns["dag"]["genes"].tolist() == ["MYC", "UBR5", "CPQ"]
    assert small_screen.uns["dag"]["order"].tolist() == ["CPQ", "MYC", "UBR5"]
    npt.tl.learn_dag(
        small_screen, method="given", dag=np.array([[0, 1], [0, 0]]), genes=["UBR5", "STK3"]
    )
    assert edges_of(small_screen) == {("UBR5", "STK3")}
    with pytest.raises(ValueError, match=r"outside the panel: CPQ\."):
        npt.tl.learn_dag(small_screen, method="given", dag=[("CPQ", "MYC")], genes=["MYC", "STK3"])
    assert isinstance(Dag.from_matrix(small_screen.varp["dag"]), Dag)


@pytest.mark.parametrize("dag", [[], np.empty((0, 2), dtype=str)])
def test_a_graph_without_edges_is_one_of_every_gene(small_screen, dag):
    npt.tl.learn_dag(small_screen, method="given", dag=dag)
    assert small_screen.uns["dag"]["genes"].tolist() == small_screen.var_names.tolist()
    assert edges_of(small_screen) == set()
    npt.tl.fit_dag_blr(small_screen)
    npt.tl.learn_dag(small_screen, method="given", dag=dag, genes=["UBR5", "STK3"])
    assert small_screen.uns["dag"]["genes"].tolist() == ["UBR5", "STK3"]
