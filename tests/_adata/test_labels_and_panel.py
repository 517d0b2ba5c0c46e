"""Labels to target genes, names to columns."""

import warnings
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nextpert._adata import (
    LabelTable,
    closest,
    list_names,
    read_labels,
    resolve_panel,
)
from nextpert.core.fit.interventions import Plan
from nextpert.core.fit.naming import Naming, numbered
from nextpert.study import environments

GENES = {"MYC", "STK3", "HLA-A", "A+B"}


@pytest.mark.parametrize(
    ("label", "inside", "outside", "members"),
    [
        ("MYC", ["MYC"], [], ["MYC"]),
        ("MYC+STK3", ["MYC", "STK3"], [], ["MYC", "STK3"]),
        ("STK3 + MYC + STK3", ["STK3", "MYC"], [], ["MYC", "STK3"]),
        ("MYC+control", ["MYC"], [], ["MYC"]),
        ("control", [], [], []),
        ("HLA-A", ["HLA-A"], [], ["HLA-A"]),
        ("A+B", ["A+B"], [], ["A+B"]),
        ("MYC+HS2", ["MYC"], ["HS2"], ["HS2", "MYC"]),
        ("multi", [], ["multi"], ["multi"]),
        ("MYC+", ["MYC"], [], ["MYC+"]),
    ],
)
def test_targets_and_members_of_a_label(label, inside, outside, members):
    assert Naming(GENES).targets(label) == (inside, outside)
    assert Naming(GENES).members(label) == tuple(members)


def test_members_are_numbered_in_order():
    names, numbers = numbered([("A", "C"), ("B", "C")], ["C"])
    assert names == ["C", "A", "B"]
    assert numbers == [(1, 0), (2, 0)]


def test_separator():
    assert Naming(GENES, "|").targets("MYC|STK3") == (["MYC", "STK3"], [])
    assert Naming(GENES, "").targets("MYC+STK3") == ([], ["MYC+STK3"])
    assert Naming(separator="").members("MYC+FOS") == ("MYC+FOS",)


@pytest.mark.parametrize("dtype", ["category", "object", "string"])
def test_labels_of_any_type_and_missing_ones(dtype):
    obs = pd.DataFrame({"p": pd.Series(["b", None, "a", "b"], dtype=dtype)})
    obs.index = list("wxyz")
    labels = read_labels(ad.AnnData(np.ones((4, 1)), obs), "p")
    assert labels.names == ["a", "b"]
    assert labels.codes.tolist() == [1, -1, 0, 1]
    assert labels.groups(["b", "a"]).tolist() == [0, -1, 1, 0]
    assert labels.groups(["a"]).tolist() == [-1, -1, 0, -1]
    assert (labels.n_cells("b"), labels.n_cells("a")) == (2, 1)


def test_numbers_as_labels_and_unused_categories():
    obs = pd.DataFrame({"p": pd.Categorical([3, 1, 3], categories=[1, 2, 3])}, index=list("xyz"))
    labels = read_labels(ad.AnnData(np.ones((3, 1)), obs), "p")
    assert labels.names == ["1", "3"]


def test_panel_keeps_the_order_given():
    adata = ad.AnnData(np.ones((2, 4)), var=pd.DataFrame(index=["A", "B", "C", "B"]))
    names, columns = resolve_panel(adata, ["C", "A"])
    assert names == ["C", "A"]
    assert columns.tolist() == [2, 0]
    with pytest.raises(ValueError, match="more than once: B"):
        resolve_panel(adata, ["A", "B"])
    with pytest.raises(ValueError, match="at least 1"):
        resolve_panel(adata, [])


def test_close_matches_look_past_the_case():
    assert closest(["myc"], ["MYC", "STK3"]) == " Close matches: MYC."
    assert closest(["zzzz"], ["MYC"]) == ""


def test_long_lists_are_cut():
    assert list_names("abcd", limit=2) == "a, b and 2 more"
    assert list_names("ab", limit=2) == "a, b"


def test_perturbations_are_all_labels_but_the_controls_or_those_named():
    labels = LabelTable("guide", ["A+B", "C", "ctrl"], np.array([0, 1, 2]), Naming(control="ctrl"))
    assert labels.perturbations() == ["A+B", "C"]
    assert labels.perturbations(["B+A", "A+B"]) == ["A+B"]
    with pytest.raises(ValueError, match="Groups not found"):
        labels.perturbations(["D"], "groups")
    with pytest.raises(ValueError, match="perturbations names the controls, 'ctrl'"):
        labels.perturbations(["C", "ctrl"])


def test_targets_outside_the_panel_are_a_warning_only_if_a_name_looks_wrong(caplog):
    plan = Plan(["MYCC"], [[]], [], "knockout", unmeasured=[("MYCC", "not measured")])
    with caplog.at_level("INFO", logger="nextpert"), warnings.catch_warnings():
        warnings.simplefilter("error")
        environments.report(plan)
    assert "without a target on the panel: 1." in caplog.text
    caplog.clear()
    with pytest.warns(UserWarning, match=r"MYCC \(not measured\)\. Close matches: MYC\."):
        environments.report(replace(plan, hint=" Close matches: MYC."))
