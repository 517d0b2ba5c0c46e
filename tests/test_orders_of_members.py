"""A combination is the set of its members: A+B and B+A are one perturbation in every function."""

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from tests._screens import new_copies, small_cells, with_fit

pytestmark = [pytest.mark.slow, pytest.mark.brief_chain]

ONE, TURNED = "MYC+OXR1", "OXR1+MYC"
NEW, NEW_TURNED = "STK3+OXR1", "OXR1 + STK3"
FIT = {"n_samples": 20}
PLAN = {"n_perturbations": 2, "n_cells": 200}


@new_copies
def one():
    """The small screen with graph and fit, its combination under one label."""
    adata = small_cells()
    npt.tl.learn_dag(adata, method="boss", environments="all", search_options={"n_runs": 2})
    npt.tl.fit_dag_blr(adata)
    return adata


def relabelled(adata, step=1):
    """Return a copy with the labels of the combination turned, or of every second such cell."""
    out = adata.copy()
    labels = out.obs["perturbation"].astype(object)
    rows = np.flatnonzero(labels == ONE)[1::step]
    labels.iloc[rows] = TURNED
    if step == 1:
        labels[labels == ONE] = TURNED
    out.obs["perturbation"] = pd.Categorical(labels)
    return out


def without_cells(uns):
    """Return results without the fingerprint of labels as they are spelled."""
    if not hasattr(uns, "items"):
        return uns
    return {k: without_cells(v) for k, v in uns.items() if k != "cells"}


@pytest.mark.slow
def test_both_spellings_are_one_perturbation_of_a_fit(small_screen, one, assert_same, caplog):
    both = relabelled(small_screen, step=2)
    npt.tl.learn_dag(both, method="boss", environments="all", search_options={"n_runs": 2})
    with caplog.at_level(logging.INFO, "nextpert"):
        npt.tl.fit_dag_blr(both)
    assert f"{ONE} ({TURNED})" in caplog.text
    for key in ("dag", "dag_blr"):
        assert_same(without_cells(both.uns[key]), without_cells(one.uns[key]))
    names = both.uns["dag_blr"]["environments"]["perturbation"].tolist()
    assert (names.count(ONE), names.count(TURNED)) == (1, 0)
    for adata in (both, one):  # all that reads the cells once more
        npt.tl.diagnose(adata)
        npt.tl.plan_cells(adata, TURNED)
        npt.tl.target_distances(adata, "MYC")
        npt.tl.cpca(adata, alpha=1.0)
        npt.tl.perturbation_effects(adata, genes="all")
        npt.tl.replay_design(adata, n_rounds=1, n_repeats=2, strategies=["random"])
        npt.tl.plan_screen(adata, ONE, **PLAN)
    for key in (
        "diagnosis", "plan_cells", "target_distances", "cpca", "perturbation_effects", "replay",
        "plan",
    ):  # fmt: skip
        assert_same(without_cells(both.uns[key]), without_cells(one.uns[key]))


def test_the_spelling_that_comes_first_is_shown(small_screen):
    turned = relabelled(small_screen)
    with_fit(turned, [("MYC", "STK3")])
    assert TURNED in set(turned.uns["dag_blr"]["environments"]["perturbation"])
    options = {"candidates": ["MYC", ONE], **FIT}
    npt.tl.design_interventions(turned, ONE, **options)
    design = turned.uns["design"]
    assert set(design["ranking"]["perturbation"]) == {"MYC", TURNED, "control"}
    assert design["params"]["target"] == TURNED


def test_another_separator(small_screen):
    labels = small_screen.obs["perturbation"].astype(object).str.replace("+", "_")
    labels.iloc[np.flatnonzero(labels == "MYC_OXR1")[1::2]] = "OXR1_MYC"
    small_screen.obs["perturbation"] = labels
    npt.pp.setup_screen(small_screen, separator="_")
    npt.tl.learn_dag(small_screen, method="boss", environments="all", search_options={"n_runs": 2})
    assert not small_screen.uns["dag"]["direct_targets"]["perturbation"].str.contains("_").any()
    npt.tl.fit_dag_blr(small_screen)
    table = small_screen.uns["dag_blr"]["environments"].set_index("perturbation")
    assert table.loc["MYC_OXR1", "n_cells"] == 60
    assert "OXR1_MYC" not in table.index
    npt.tl.design_interventions(small_screen, "OXR1_MYC", **FIT)


def shifts(name):
    return pd.DataFrame([[-1.0, -1.0], [-1.0, 0.0]], [name, "MYC"], ["MYC", "OXR1"])


def elsewhere(adata, name):
    """Return effects in another screen of a combination, and of the one that is not here."""
    values = np.random.default_rng(0).normal(size=(3, adata.n_vars))
    return ad.AnnData(values, pd.DataFrame(index=[name, NEW, "MYC"]), adata.var[[]])


def known_elsewhere(adata, name, new):
    npt.tl.fit_dag_blr(adata, features=elsewhere(adata, name))
    npt.tl.perturbation_effects(adata, candidates=[new])


CALLS = {
    "fit": lambda a, name, _: npt.tl.fit_dag_blr(a, perturbations=[name, "MYC", "STK3"]),
    "fit shifts": lambda a, name, _: npt.tl.fit_dag_blr(a, shift=shifts(name)),
    "fit features": known_elsewhere,
    "effects": lambda a, name, _: npt.tl.perturbation_effects(a, candidates=[name, "MYC"]),
    "design": lambda a, name, _: npt.tl.design_interventions(a, name, **FIT),
    "design candidates": lambda a, name, _: npt.tl.design_interventions(
        a, "MYC", candidates=[name, "STK3"], **FIT
    ),
    "design table": lambda a, name, _: npt.tl.design_interventions(
        a, "STK3", candidates=shifts(name), **FIT
    ),
    "plan": lambda a, name, new: npt.tl.plan_screen(
        a, name, candidates=[ONE, NEW, "MYC", "STK3"], **PLAN,
        constraints={"include": [new], "exclude": [name]},
    ),
    "plan pending": lambda a, name, new: npt.tl.plan_screen(
        a, "STK3", candidates=[ONE, NEW, "MYC", "STK3"], pending=[name], **PLAN
    ),
    "plan pending cells": lambda a, name, new: npt.tl.plan_screen(
        a, "STK3", candidates=[ONE, NEW, "MYC"], pending={new: 30}, **PLAN
    ),
    "cells": lambda a, name, _: npt.tl.plan_cells(a, name, candidates=["MYC", name]),
    "distances": lambda a, name, _: npt.tl.target_distances(a, name),
    "distances of": lambda a, name, _: npt.tl.target_distances(a, "MYC", perturbations=[name]),
    "replay": lambda a, name, _: npt.tl.replay_design(
        a, [name, "STK3"], n_rounds=1, n_repeats=2,
        strategies=["random"], held_out=True,
    ),
    "cpca": lambda a, name, _: npt.tl.cpca(a, groups=[name, "MYC"], alpha=1.0),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The table of shifts has", "ignore:Perturbations left out")
@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_names_are_taken_in_any_order(call, one, assert_same_adata):
    other = one.copy()
    call(one, ONE, NEW)
    call(other, TURNED, NEW_TURNED)
    assert_same_adata(one, other)


def test_two_orders_are_one_candidate(one):
    both = [ONE, TURNED, NEW, NEW_TURNED, "MYC", "control+MYC"]
    npt.tl.perturbation_effects(one, candidates=both)
    assert one.uns["perturbation_effects"]["perturbations"].tolist() == [ONE, NEW, "MYC"]
    npt.tl.design_interventions(one, "STK3", candidates=both, **FIT)
    assert len(one.uns["design"]["ranking"]) == 3 + 1
    npt.tl.plan_screen(
        one, "STK3", candidates=both, n_perturbations=6, n_cells=600, pending=[NEW_TURNED, NEW],
        constraints={"include": [ONE, TURNED]}, strategy="exploit",
    )  # fmt: skip
    assert sorted(one.uns["plan"]["plate"]["perturbation"]) == ["MYC", ONE, "control"]
    assert one.uns["plan"]["pending"]["perturbation"].tolist() == [NEW]


def test_combinations_that_are_made_up_are_none_of_those_given(one):
    npt.tl.plan_screen(
        one, "STK3", candidates=["MYC", "OXR1", "STK3", NEW_TURNED],
        constraints={"max_combination": 2, "exclude": ["MYC+OXR1"]}, n_perturbations=6, n_cells=800,
    )  # fmt: skip
    plate = one.uns["plan"]["plate"]["perturbation"].tolist()
    assert len({frozenset(name.replace(" ", "").split("+")) for name in plate}) == len(plate)
    assert not {ONE, TURNED} & set(plate)


TWICE = {
    "pending": lambda a: npt.tl.plan_screen(a, "STK3", pending={ONE: 10, TURNED: 20}),
    "shifts": lambda a: npt.tl.fit_dag_blr(a, shift=pd.concat([shifts(ONE), shifts(TURNED)[:1]])),
    "candidates": lambda a: npt.tl.design_interventions(
        a, "STK3", candidates=pd.concat([shifts(NEW), shifts(NEW_TURNED)[:1]])
    ),
    "features": lambda a: npt.tl.fit_dag_blr(
        a, features=ad.concat([elsewhere(a, ONE), elsewhere(a, TURNED)[:1]])
    ),
}


@pytest.mark.parametrize("call", TWICE)
def test_two_values_for_one_perturbation(call, one):
    with pytest.raises(ValueError, match=r"more than once|include and pending both"):
        TWICE[call](one)


def test_what_only_looks_like_a_combination_is_itself():
    rng = np.random.default_rng(0)
    labels = np.repeat(["control", "IFNG", "IFNG+", "+", "A++B", "B++A"], 30)
    adata = ad.AnnData(rng.normal(3, 1, size=(len(labels), 4)))
    adata.var_names = ["IFNG", "b", "c", "d"]
    adata.obs["perturbation"] = labels
    with_fit(adata, [("IFNG", "b")])
    names = set(adata.uns["dag_blr"]["environments"]["perturbation"])
    assert names == set(labels) - {"control"}
