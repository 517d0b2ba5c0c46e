"""A target that is a label excludes its perturbation, also in combinations, unless asked for."""

from __future__ import annotations

import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.arguments import in_mappings
from nextpert.study.ranking import candidates_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Perturbations without a target on the panel"),
    pytest.mark.slow,
    pytest.mark.brief_chain,
]
FORMS = {
    "label": "MYC",
    "pair": ("perturbation", "MYC"),
    "Target": npt.Target(state="MYC", at_most={"CPQ": 9.0}),
    "pair in a Target": npt.Target(state=("perturbation", "MYC"), distance="noise"),
    "list of one": npt.Target(state=["MYC"]),
}


def by_design(adata, target, **options):
    npt.tl.design_interventions(adata, target, n_samples=50, **options)
    return candidates_of(adata.uns["design"]["ranking"])["perturbation"].tolist()


def by_plan_screen(adata, target, **options):
    flat = {"n_perturbations": 40, "strategy": "explore", **options}
    npt.tl.plan_screen(adata, target, **in_mappings(npt.tl.plan_screen, flat))
    plan = adata.uns["plan"]
    wells = plan["plate"].query("strategy != 'control'")["perturbation"].tolist()
    assert len(wells) == plan["params"]["n_candidates"] + plan["summary"]["n_not_admitted"]
    return wells


def by_plan_cells(adata, target, **options):
    npt.tl.plan_cells(adata, target, **options)
    return adata.uns["plan_cells"]["advice"]["candidates"].tolist()


WAYS = [by_design, by_plan_screen, by_plan_cells]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("form", FORMS)
def test_the_targets_own_perturbation_is_no_candidate(form, way, fitted):
    target = FORMS[form]
    others, own = ["HS2", "OXR1", "STK3"], ["MYC", "MYC+OXR1"]
    assert sorted(way(fitted, target)) == others
    assert not set(own) & {*way(fitted, target, candidates="genes")}
    assert sorted(way(fitted, target, candidates=[*own, *others])) == sorted([*own, *others])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("target", [{"MYC": 0.0}, ("batch", "a")])
def test_other_targets_exclude_nothing(target, way, fitted):
    assert "MYC" in way(fitted, target)


@pytest.mark.parametrize("way", WAYS)
def test_candidates_that_name_it_keep_it(way, fitted):
    shifts = pd.DataFrame({"MYC": [-1.0, 0.0], "STK3": [0.0, -1.0]}, ["MYC", "half"])
    for candidates, names in ((["MYC", "STK3"], {"MYC", "STK3"}), (shifts, {"MYC", "half"})):
        found = set(way(fitted, "MYC", candidates=candidates))
        if way is by_plan_cells and isinstance(candidates, list):  # an advice compares all
            names = names | {"HS2", "OXR1"}
        assert found == names


@pytest.mark.parametrize("way", WAYS)
def test_a_combination_as_target_excludes_itself_but_not_its_members(way, fitted):
    assert sorted(way(fitted, "OXR1+MYC")) == ["HS2", "MYC", "OXR1", "STK3"]


@pytest.mark.parametrize("way", WAYS)
def test_an_error_where_it_was_the_only_candidate(way, fitted):
    npt.tl.fit_dag_blr(fitted, perturbations=["MYC"])
    before = set(fitted.uns)
    with pytest.raises(ValueError, match=r"No candidate is left: MYC defines the.*Name it in cand"):
        way(fitted, "MYC")
    assert set(fitted.uns) == before


def test_a_label_without_a_place_on_the_panel_is_excluded_by_name(fitted):
    npt.tl.fit_dag_blr(fitted, perturbations=["MYC", "STK3"])
    assert by_design(fitted, "HS2") == ["MYC", "STK3"] or by_design(fitted, "HS2")[0] == "STK3"


def test_must_cannot_name_it_and_cells_of_it_under_way_concern_no_candidate(fitted):
    with pytest.raises(ValueError, match="include has names that are not among"):
        by_plan_screen(fitted, "MYC", include=["MYC"])
    assert "plan" not in fitted.uns
    npt.tl.plan_screen(fitted, "MYC", pending={"MYC": 50, "MYC+OXR1": 9, "STK3": 20})
    assert fitted.uns["plan"]["pending"]["perturbation"].tolist() == ["STK3"]
    never = by_plan_screen(fitted, "MYC", exclude=["MYC"])
    assert "MYC+OXR1" not in never
    assert sorted(never) == ["HS2", "OXR1", "STK3"]


def test_what_is_excluded_enters_no_probability(fitted):
    options = {"candidates": ["MYC", "STK3", "OXR1", "MYC+OXR1", "HS2"], "n_perturbations": 1}
    npt.tl.plan_screen(fitted, "MYC", **options)
    every = fitted.uns["plan"]
    assert every["advice"]["best_known"] == "MYC"
    npt.tl.plan_screen(fitted, "MYC", constraints={"exclude": ["MYC"]}, **options)
    plan = fitted.uns["plan"]
    assert plan["params"]["n_candidates"] == every["params"]["n_candidates"] - 2  # MYC+OXR1 too
    assert plan["advice"]["best_known"] not in ("", "MYC", "MYC+OXR1")
    npt.tl.plan_screen(
        fitted, "MYC", constraints={"exclude": ["MYC"]}, **options | {"n_perturbations": 3}
    )
    plan = fitted.uns["plan"]
    assert plan["summary"]["probability_contains_best"] == pytest.approx(1)
    assert plan["plate"]["probability_best"].sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        (["HS2"], ["MYC", "MYC+STK3", "STK3"]),  # no gene of the panel
        (["STK3+MYC"], ["HS2", "HS2+MYC", "MYC", "STK3"]),  # as MYC+STK3, and in larger ones
        (["MYC", "MYC+STK3"], ["HS2", "STK3"]),
    ],
)
def test_what_is_excluded_is_excluded_in_combinations_too(exclude, left, fitted):
    candidates = ["MYC", "STK3", "HS2", "HS2+MYC", "MYC+STK3", "HS2+MYC+STK3"]
    options = {"candidates": candidates, "exclude": exclude}
    assert sorted(by_plan_screen(fitted, {"MYC": 0.5}, **options)) == left


def test_combinations_are_excluded_by_name_before_they_are_listed(fitted):
    options = {"candidates": ["MYC", "STK3", "OXR1"], "max_combination": 2, "n_cells": 4000}
    assert len(by_plan_screen(fitted, {"MYC": 0.5}, **options)) == 6
    wells = by_plan_screen(fitted, {"MYC": 0.5}, exclude=["STK3+OXR1"], **options)
    assert sorted(wells) == ["MYC", "MYC+OXR1", "MYC+STK3", "OXR1", "STK3"]


def test_what_is_under_way_stays_in_the_pool_though_no_more_can_be_had(fitted):
    npt.tl.plan_screen(fitted, {"MYC": 0.5}, pending=["STK3"], constraints={"exclude": ["STK3"]})
    plan = fitted.uns["plan"]
    assert plan["pending"]["perturbation"].tolist() == ["STK3"]
    assert "STK3" not in plan["plate"]["perturbation"].tolist()
