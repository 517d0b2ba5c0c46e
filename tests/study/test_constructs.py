"""What to make for a plan, by every way in which a construct may or may not exist."""

from itertools import product
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.posterior import posterior_from
from nextpert.core.fit.naming import Naming
from nextpert.study.constructs import COMPOUNDS, combined, constructs_table, with_doses
from nextpert.tl._read_plan import guides_of, kinds_of_constructs, with_guide_columns


@pytest.mark.parametrize("sizes", [(1,), (3,), (1, 1), (2, 3), (3, 2), (4, 4), (2, 3, 2), (1, 4)])
def test_combinations_come_once_and_use_all_evenly(sizes):
    lists = [[f"{i}-{j}" for j in range(n)] for i, n in enumerate(sizes)]
    found = [*combined(lists)]
    assert sorted(found) == sorted(product(*lists))
    for n in range(1, len(found) + 1):  # in whatever number, none is used twice more than another
        for place, each in enumerate(lists):
            used = [sum(parts[place] == item for parts in found[:n]) for item in each]
            if len(sizes) < 3:
                assert max(used) - min(used) <= 1
    assert len({parts[-1] for parts in found[: max(sizes)]}) == sizes[-1]


GUIDES = {"A": ["a1", "a2", "a3"], "B": ["b1", "b2"], "A+B": ["a1b1"], "C+D": ["cd"], "e": ["e1"]}


def made(label, n, guides=GUIDES, pending=(), n_cells=100, told="", **options):
    """Return the rows of one perturbation: guides, status, members with new guides."""
    names = ["perturbation", "n_guides", "n_cells", "strategy", "target_genes", "is_advised"]
    plate = pd.DataFrame([(label, n, n_cells, "exploit", told, True)], columns=names)
    fit = SimpleNamespace(names=list(GUIDES), naming=Naming({"A", "B", "C", "X"}))
    table = constructs_table(plate, fit, guides, pending, **options)
    assert table["construct"].tolist() == list(range(1, n + 1))
    assert table["n_cells"].sum() == n_cells
    assert table["n_cells"].max() - table["n_cells"].min() <= 1
    assert set(table["perturbation"]) == {label}
    return table


def rows(*args, **options):
    table = made(*args, **options)[["guides", "status", "new_guides_of"]]
    return [tuple(row) for row in table.itertuples(index=False)]


def test_single_guides():
    assert rows("A", 2) == [("a1", "existing", ""), ("a2", "existing", "")]
    assert rows("e", 3) == [("e1", "existing", ""), *[("", "design", "e")] * 2]
    assert rows("X", 2) == [("", "design", "X")] * 2
    assert rows("C", 1) == [("", "clone", "")]  # its guide is in the pair C+D
    assert rows("A", 4, None) == [("", "existing", "")] * 4
    assert rows("A", 1, GUIDES | {"A": []}) == [("", "existing", "")]  # cells without a guide
    assert rows("X", 1, None) == [("", "design", "X")]


def test_dual_guides():
    assert rows("B+A", 1) == [("a1b1", "existing", "")]
    assert rows("A+e", 3) == [(f"a{i}, e1", "clone", "") for i in (1, 2, 3)]
    assert rows("A+e", 4)[3] == ("", "design", "A, e")  # three pairs of guides exist
    assert rows("A+C", 2) == [("a1", "clone", ""), ("a2", "clone", "")]  # of C they are not known
    assert rows("A+X", 2) == [("a1", "design", "X"), ("a2", "design", "X")]
    assert rows("X+Y", 2) == [("", "design", "X, Y")] * 2
    assert rows("X+A", 2, pending=["X"]) == [("a1", "clone", ""), ("a2", "clone", "")]
    assert rows("A+e", 2, None) == [("", "clone", "")] * 2
    pairs = {row[0] for row in rows("B+e+A", 6)}
    assert pairs == {f"a{i}, b{j}, e1" for i in (1, 2, 3) for j in (1, 2)}


def test_new_guides_where_guides_vary():
    assert rows("A", 2, are_new=True) == [("", "design", "A")] * 2
    assert rows("B+A", 2, are_new=True) == [("", "design", "A, B")] * 2
    assert rows("A+e", 1, are_new=True) == [("a1, e1", "clone", "")]  # the construct itself is new


@pytest.mark.parametrize(
    ("types", "has_guides", "first"),
    [
        (None, False, "construct"), (None, True, "single guide"), (["drug"], True, "compound"),
        (["CRISPR-cas9"], True, "single guide"), (["CRISPR"], False, "construct"),
        (["Drug (SM)", "control"], False, "compound"), (["control"], False, "construct"),
    ],
)  # fmt: skip
def test_what_a_construct_is(types, has_guides, first):
    obs = pd.DataFrame(index=["c1", "c2"])
    if types is not None:
        obs["perturbation_type"] = [types[0], types[-1]]
    kinds = kinds_of_constructs(ad.AnnData(np.zeros((2, 1)), obs), has_guides=has_guides)
    assert kinds[0] == first
    assert kinds[1] == {"single guide": "dual-guide vector", "compound": "{n} compounds"}.get(
        first, "construct"
    )


def test_kinds_and_target_genes():
    kinds_in_words = ("single guide", "dual-guide vector", "vector of {n} guides")
    for label, kind, genes in (
        ("A", "single guide", "A"), ("e", "single guide", "e"),
        ("X+e", "dual-guide vector", "X, e"), ("e+Y", "dual-guide vector", "e, Y"),
        ("A+B+X", "vector of 3 guides", "A, B, X"),
    ):  # fmt: skip
        table = made(label, 2, kinds=kinds_in_words)
        assert set(table["kind"]) == {kind}
        assert set(table["target_genes"]) == {genes}
    assert set(made("A+e", 1, told="A")["target_genes"]) == {"A, e"}  # also off the panel
    assert set(made("e", 1, told="B, C")["target_genes"]) == {"B, C"}  # by a table of shifts


def test_a_plan_says_what_to_make(small_screen, edges):
    labels = small_screen.obs["perturbation"].astype(str).to_numpy()
    n = {"MYC": 3, "STK3": 2, "MYC+OXR1": 1}
    guide = [f"{label}_{i % n.get(label, 2)}" for i, label in enumerate(labels)]
    small_screen.obs["guide"] = np.where(labels == "nan", None, guide)
    npt.tl.learn_dag(small_screen, method="given", dag=edges, genes=list(small_screen.var_names))
    npt.pp.setup_screen(small_screen, guide_key="guide")
    npt.tl.fit_dag_blr(small_screen)
    npt.tl.plan_screen(
        small_screen, "MYC+OXR1", candidates=["MYC", "OXR1", "HS2", "MYC+HS2", "CPQ", "STK3"],
        n_perturbations=6, n_cells=700, constraints={"include": ["MYC+HS2"]}, strategy="exploit",
    )  # fmt: skip
    plate, order = npt.get.plan_df(small_screen), npt.get.order_df(small_screen)
    assert order["n_cells"].sum() == 700
    assert order["kind"].iloc[-1] == "control"
    for row in plate[plate["strategy"] != "control"].itertuples():
        mine = order[order["perturbation"] == row.perturbation]
        assert (len(mine), mine["n_cells"].sum()) == (row.n_guides, row.n_cells)
    counts = small_screen.obs["guide"].value_counts()
    assert posterior_from(small_screen).guide_variance > 0  # so that new guides are advised
    for name in ("MYC", "OXR1", "HS2", "STK3"):
        mine = order[order["perturbation"] == name]
        assert set(mine["status"]) == {"design"}
        assert set(mine["new_guides_of"]) == {name}
        assert set(mine["guides"]) == {""}
    assert set(order.loc[order["perturbation"] == "CPQ", "status"]) == {"design"}
    used = order.loc[order["kind"] == "control", "guides"]
    held = [guide for guide in counts.index if guide.startswith("control_")]
    assert 0 < len(used) <= len(held)
    assert counts[used].min() >= max(counts[held].drop(used), default=0)
    pair = order[order["perturbation"] == "MYC+HS2"]
    assert set(pair["status"]) == {"clone"}
    assert set(pair["target_genes"]) == {"MYC, HS2"}
    assert pair["guides"].is_unique


def with_controls(n_controls, guides):
    names = ["perturbation", "n_guides", "n_cells", "strategy", "target_genes", "is_advised"]
    plates = [("A", 3, 90, "exploit", "", True), ("B", 2, 60, "exploit", "", True)]
    plates += [("control", 0, n_controls, "control", "", True)]
    fit = SimpleNamespace(names=list(GUIDES), naming=Naming({"A", "B", "C", "X"}))
    table = constructs_table(pd.DataFrame(plates, columns=names), fit, guides)
    assert table["n_cells"].sum() == 150 + n_controls
    return table[table["kind"] == "control"]


def test_controls_have_guides_of_as_many_cells_as_others():
    guides = GUIDES | {"control": [f"nt{i}" for i in range(9)]}
    table = with_controls(121, guides)
    assert table["guides"].tolist() == ["nt0", "nt1", "nt2", "nt3"]
    assert sorted(table["n_cells"]) == [30, 30, 30, 31]
    assert set(table["status"]) == {"existing"}
    assert with_controls(10, guides)["guides"].tolist() == ["nt0"]
    assert len(with_controls(3000, guides)) == 9  # there are no more
    assert with_controls(121, None)[["guides", "n_cells"]].to_numpy().tolist() == [["", 121]]


def test_an_order_of_compounds_has_their_doses():
    found = made("A", 1, kinds=COMPOUNDS)
    assert found[["compound", "dose"]].to_numpy().tolist() == [["A", ""]]
    assert "dose" not in made("A", 1)
    for label, compound, dose in (
        ("trametinib_0.1uM", "trametinib", "0.1uM"), ("JQ1@500 nM", "JQ1", "500 nM"),
        ("BI-2536_10", "BI-2536", "10"), ("5-FU", "5-FU", ""), ("IL_2", "IL", "2"),
        ("ethanol_0.5%", "ethanol", "0.5%"), ("JQ1_1uM+A_0.1uM", "A, JQ1", "0.1uM, 1uM"),
        ("JQ1+A_2", "A, JQ1", "2, "), ("JQ1+A", "A, JQ1", ""), ("control", "", ""),
    ):  # fmt: skip
        kind = "control" if label == "control" else "compound"
        table = pd.DataFrame({"perturbation": [label], "kind": [kind]})
        found = with_doses(table, Naming())[["compound", "dose"]]
        assert found.to_numpy().tolist() == [[compound, dose]]
    pair = made("A+B", 1, kinds=COMPOUNDS)
    assert pair[["compound", "dose"]].to_numpy().tolist() == [["A, B", ""]]


def test_further_columns_of_guides_are_in_the_order():
    """A vendor's identifiers and sequences, from the table of guides that the user gave."""
    table = pd.DataFrame(
        {"target": ["A", "A", "e"], "kind": "targeting", "n_cells": 3, "decided_by": "a table",
         "sequence": ["ACGT", "GGGG", "TTTT"], "status": ["x", "y", "z"]},
        index=["a1", "a2", "e1"],
    )  # fmt: skip
    adata = ad.AnnData(np.zeros((1, 1)), uns={"guides": table})
    made_of = made("A+e", 2)
    found = with_guide_columns(made_of, adata)
    assert found["sequence"].tolist() == ["ACGT, TTTT", "GGGG, TTTT"]
    assert found["guide_status"].tolist() == ["x, z", "y, z"]
    assert found["status"].tolist() == ["clone", "clone"]
    assert [*found] == [*made_of, "sequence", "guide_status"]
    assert with_guide_columns(made("X", 1), adata)["sequence"].tolist() == [""]
    pd.testing.assert_frame_equal(
        with_guide_columns(made_of, ad.AnnData(np.zeros((1, 1)))), made_of
    )


def test_joined_guides_are_no_guides_of_a_single_perturbation():
    screen = npt.datasets.simulated_screen(
        n_genes=6, n_control=200, n_perturbed=30, perturbed=4, expected_degree=2, rng=0
    )
    label = screen.obs["perturbation"].astype(str)
    number = np.arange(screen.n_obs) % 2
    guide = np.array([f"{name}_{k}" for name, k in zip(label, number, strict=True)], object)
    first = next(name for name in label.unique() if name != "control")
    guide[np.flatnonzero(label == first)[0]] += ";control_1"
    guide[np.flatnonzero(label == "control")[0]] += ";control_1"
    screen.obs["guide"] = guide
    npt.pp.setup_screen(screen, guide_key="guide")
    npt.tl.learn_dag(screen)
    npt.tl.fit_dag_blr(screen)
    guides, usual = guides_of(screen, posterior_from(screen))
    assert usual == 2
    assert {name: sorted(some) for name, some in guides.items()} == {
        name: [f"{name}_{k}" for k in (0, 1)] for name in guides
    }
    assert "control" in guides
