"""The loop of a lab: what is proposed, what counts as under way, and what is written down."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.campaign.candidates import plate_options, standing_options
from nextpert.campaign.state import _moved as moved
from nextpert.core.design.stopping import CONFIRM, ORDER, STOP

pytestmark = pytest.mark.brief_chain


@pytest.mark.slow
def test_the_whole_loop_finds_the_state(campaign, parts, assert_same_adata):
    given = [part.copy() for part in parts]
    plate = campaign.propose(3, 200, strategy="exploit")
    assert plate["perturbation"].iloc[0] == "CDK4"
    assert list(campaign.pending) == plate["perturbation"].tolist()[:3]
    before = campaign.summarize()
    campaign.observe(parts[1], batch="same")
    assert "CDK4" not in campaign.pending
    table = campaign.summarize()
    assert table.index.tolist() == [0, 1]
    assert table["best"].iloc[1] == "CDK4"
    assert table["n_observed"].tolist() == [3, 1]
    assert table["n_cells"].tolist() == [parts[0].n_obs, parts[1].n_obs]
    assert table["relative_distance"].iloc[1] < 0.1 < before["relative_distance"].iloc[0]
    assert table["expected_gain"].iloc[1] < before["expected_gain"].iloc[0]
    assert table["advice"].tolist() == [ORDER, CONFIRM]
    assert table["probability_best"].iloc[1] > 0.9
    assert table["proposed"].tolist() == ["", ", ".join(plate["perturbation"][:3])]
    for part, before in zip(parts, given, strict=True):
        assert_same_adata(part, before)


def test_nothing_is_stated_of_a_target_at_the_control(parts, given):
    control = (parts[0].obs["perturbation"] == "control").to_numpy()
    gene = parts[0].var_names[3]
    target = {gene: float(parts[0].X[control, 3].mean()) + 1e-4}
    campaign = npt.Campaign(parts[0], target, learn=given)
    last = campaign.summarize().iloc[-1]
    assert last["advice"] == STOP
    assert np.isnan(last["relative_measured_distance"])
    assert np.isnan(last["good_enough"])
    assert STOP in repr(campaign)


def test_nothing_under_way_is_proposed_again(campaign):
    other = copy.deepcopy(campaign)
    plates = [campaign.propose(3, 200) for _ in range(2)]
    first, second = (set(plate["perturbation"][:3]) for plate in plates)
    assert not first & second
    assert set(campaign.pending) == first | second
    assert campaign.history["round"].max() == 2
    assert all(other.propose(3, 200).equals(plate) for plate in plates)  # equal campaigns
    assert campaign.history["seed"].equals(other.history["seed"])
    campaign.propose(1, 100, rng=None)
    assert int(campaign.history["seed"].iloc[-1]) >= 0


def test_what_is_in_progress_is_not_included_again(campaign, target):
    plan = {"candidates": "genes", "constraints": {"include": ["B2M", "CD58"]}}
    options = plate_options(campaign.adata, target, plan, {"B2M": 30}, ())
    assert options["pending"] == {"B2M": 30}
    assert options["constraints"]["include"] == ["CD58"]
    options = plate_options(campaign.adata, target, plan, {}, ["CD58"])
    assert options["constraints"]["include"] == ["B2M"]


def test_vectors_of_the_panel_move_as_mappings_do():
    added = {"A": 3.0, "B": -1.0}
    assert moved({"A": 1.0, "B": 1.0}, added) == {"A": -2.0, "B": 2.0}
    np.testing.assert_array_equal(moved([np.array([1.0, 1.0])], added)[0], [-2.0, 2.0])
    assert moved("CDK4", added) == "CDK4"


def test_what_failed_comes_back_by_retry_alone(campaign):
    assert campaign.propose(1, 100, strategy="exploit")["perturbation"].iloc[0] == "CDK4"
    campaign.mark_failed(["CDK4"], reason="no cell survived")
    assert campaign.failed == {"CDK4": "no cell survived"}
    assert not campaign.pending
    assert "CDK4" not in set(campaign.propose(1, 100, strategy="exploit")["perturbation"])
    campaign.retry(["CDK4"])
    assert campaign.propose(1, 100, strategy="exploit")["perturbation"].iloc[0] == "CDK4"
    assert campaign.history["action"].tolist()[-5:] == [
        "proposed", "failed", "proposed", "retried", "proposed",
    ]  # fmt: skip
    assert campaign.summarize()["failed"].tolist() == ["", "CDK4", "", ""]


def test_what_failed_after_it_was_measured_is_ranked(campaign):
    plan = {"candidates": ["B2M", "CDK4", "CD58"]}
    ranking, _ = standing_options(campaign.adata, campaign.target, plan, ["B2M", "CDK4"])
    assert list(ranking["candidates"]) == ["B2M", "CD58"]  # CDK4 has no cells


def test_a_plate_is_written_down_so_that_it_can_be_made_again(campaign):
    plate = campaign.propose(2, 200, strategy="explore", rng=np.random.default_rng(3))
    rows = campaign.history.query("action == 'proposed'")
    assert rows["perturbation"].tolist() == plate["perturbation"].tolist()[:2]
    assert rows["why"].tolist() == plate["why"].tolist()[:2]
    assert rows["n_cells"].tolist() == plate["n_cells"].tolist()[:2]
    assert json.loads(rows["options"].iloc[0]) == {
        "n_perturbations": 2, "n_cells": 200, "strategy": "explore",
    }  # fmt: skip
    assert all(f"nextpert {npt.__version__}" in said for said in rows["versions"])
    assert rows["when"].str.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").all()
    seed = int(rows["seed"].iloc[0])
    again = campaign.adata.copy()
    npt.tl.plan_screen(
        again, campaign.target, n_perturbations=2, n_cells=200, strategy="explore",
        candidates="genes", rng=np.random.default_rng([seed, 1]),
    )  # fmt: skip
    assert again.uns["plan"]["plate"].equals(plate)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learn": {"metod": "boss"}}, r"learn has no option metod.*Close matches: method"),
        ({"learn": {"search_options": {"penalty": 1.0}}}, "holds penalty"),
        ({"learn": {"n_runs": 2}}, "Give it as search_options={'n_runs': ...}"),
        ({"fit": {"layer": "counts"}}, "fit has no option layer"),
        ({"plan": {"pending": ["CDK4"]}}, "plan has no option pending"),
        ({"plan": {"candidates": {"x": {"B2M": -1.0}}}}, "plan: candidates must be names"),
        ({"plan": {"constraints": {"exclude": ["NOPE"]}}}, "exclude contains names"),
        (
            {"learn": {"method": "given", "dag": object()}},
            r"options\['learn'\]\['dag'\] is of type",
        ),
    ],
)
def test_options_that_are_none(options, message, parts, target, given):
    with pytest.raises((TypeError, ValueError), match=message):
        npt.Campaign(parts[0], target, **({"learn": given} | options)).propose(1, 100)


def test_names_that_nobody_knows(campaign):
    before = campaign.history
    for mark in (campaign.mark_pending, campaign.mark_failed, campaign.retry):
        with pytest.raises(ValueError, match=r"neither perturbations.*CDK44.*Close matches: CDK4"):
            mark(["CDK44"])
        with pytest.raises(TypeError, match="must be a list of names"):
            mark("CDK4")
    campaign.retry(["CDK4"])  # did not fail
    pd.testing.assert_frame_equal(campaign.history, before, check_dtype=False)
    assert not campaign.pending
    assert not campaign.failed


def test_a_plate_that_cannot_be_changes_nothing(campaign, assert_same_adata):
    cells, before = campaign.adata.copy(), campaign.history
    with pytest.raises(ValueError, match="do not suffice"):
        campaign.propose(4, 10)
    with pytest.raises(ValueError, match="strategy must be"):
        campaign.propose(2, 200, strategy="wurst")
    assert_same_adata(campaign.adata, cells)
    assert campaign.history.equals(before)


@pytest.mark.slow
def test_the_targets_own_perturbation_is_neither_proposed_nor_the_best(screen, given, caplog):
    campaign = npt.Campaign(screen, "CDK4", learn=given)
    ranked = set(campaign.adata.uns["design"]["ranking"]["perturbation"])
    assert {"B2M", "CD59", "control"} <= ranked
    assert "CDK4" not in ranked
    assert "CDK4" not in campaign.adata.uns["design"]["advice"]["candidates"]
    assert campaign.summarize()["best"].iloc[0] != "CDK4"
    campaign.mark_pending(["CDK4"])  # more cells of the target: no candidate, and no error
    plate = campaign.propose(4, 400)
    assert "CDK4" not in set(plate["perturbation"])
    options = {"candidates": ["CDK4", "B2M", "CD59"]}
    campaign = npt.Campaign(screen, "CDK4", learn=given, plan=options)
    assert campaign.summarize()["best"].iloc[0] == "CDK4"
    assert campaign.propose(1, 100)["perturbation"].iloc[0] == "CDK4"


@pytest.mark.slow
def test_what_is_excluded_is_in_no_ranking_and_no_stopping_rule(screen, target, given):
    names = ["B2M", "CD59", "CD58", "CD58+B2M"]
    plan = {"candidates": names, "constraints": {"exclude": ["B2M"]}}
    campaign = npt.Campaign(screen, target, learn=given, plan=plan)
    ranked = set(campaign.adata.uns["design"]["ranking"]["perturbation"])
    # All measured perturbations are compared, but for what is excluded and the target itself.
    assert {"CD59", "CD58", "control"} <= ranked
    assert not [name for name in ranked if "B2M" in name.split("+")]
    assert {*campaign.adata.uns["design"]["advice"]["candidates"]} == ranked - {"control"}
    plate = campaign.propose(4, 400, strategy="exploit")
    assert set(plate["perturbation"]) == {"CD59", "CD58", "control"}
    plan = {"candidates": ["B2M"], "constraints": {"exclude": ["B2M"]}}
    with pytest.raises(ValueError, match="No candidate is left: all are in exclude or failed"):
        npt.Campaign(screen, target, learn=given, plan=plan)


def test_a_combination_that_failed_is_not_proposed_again(parts, target, given):
    plan = {"candidates": ["B2M", "CD59", "CD58"], "constraints": {"max_combination": 2}}
    campaign = npt.Campaign(parts[0], target, learn=given, plan=plan)
    campaign.mark_failed(["B2M+CD59"])
    plate = campaign.propose(8, 800, strategy="explore")
    assert "B2M+CD58" in set(plate["perturbation"])
    assert "B2M+CD59" not in set(plate["perturbation"])
