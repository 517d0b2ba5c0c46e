"""One advice from one rule: its five kinds, in the same words everywhere; and which pairs count."""

from __future__ import annotations

import re

import numpy as np
import pytest
from markupsafe import escape

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert._report.planned import plan_section
from nextpert.core.design.stopping import (
    AT_TARGET,
    CONFIRM,
    MEASURE,
    ORDER,
    STOP,
    UNTRUSTED,
)
from nextpert.study.advice import in_words
from nextpert.study.pool import read_candidates
from nextpert.tl._read_target import read_target
from tests._screens import screen_of, with_fit

GENES = [f"g{i}" for i in range(8)]


def screen(effects, n_cells=60, rng=0):
    """A fitted screen of perturbations that shift the means of eight genes."""
    rng = np.random.default_rng(rng)
    names = ["control", *effects]
    counts = [300, *[n_cells] * len(effects)]
    labels = np.repeat(names, counts)
    x = 3 + rng.normal(size=(len(labels), len(GENES)))
    for name, effect in effects.items():
        x[labels == name] += effect
    adata = screen_of(x, labels, GENES)
    return with_fit(adata)


def along(size, gene=0):
    return size * np.eye(len(GENES))[gene]


def state(effect):
    return dict(zip(GENES, 3 + np.asarray(effect, float), strict=True))


NOTHING = {f"g{k}": along(0.0) for k in range(6)}
STRONG = {f"g{k}": along(-2.0, k) for k in range(4)}
SEVERAL = {f"g{k}": along(-2.0) + along(1.0, k + 1) for k in range(5)} | {"g6": along(2.0)}
ALIKE = {f"g{k}": along(-2.0) + along(0.5 * (k + 1), k + 1) for k in range(5)}
# A screen, a target and candidates of each kind.
CASES = {
    CONFIRM: (STRONG, state(along(-2.0)), None),
    MEASURE: (SEVERAL, state(along(-2.0) + along(1.5, 7)), None),
    STOP: (ALIKE, state(along(-2.0)), None),
    ORDER: (STRONG, state(along(-2.5, 6)), "genes"),
}


@pytest.fixture(scope="module")
def screens():
    found = {}
    for kind, (effects, _, _) in CASES.items():
        found[kind] = screen(effects, n_cells={MEASURE: 12, STOP: 20}.get(kind, 60))
    return found


def everywhere(adata, target, candidates=None, folder=None):
    """Return the advice of every function, and what report and summary say next."""
    options = {"candidates": candidates}
    said = {}
    npt.tl.design_interventions(adata, target, n_samples=50, **options)
    said["summary of a ranking"] = str(npt.summary(adata).facts["Next"])
    npt.tl.plan_cells(adata, target, **options)
    npt.tl.plan_screen(adata, target, **options)
    said["summary"] = str(npt.summary(adata).facts["Next"])
    if folder is not None:
        said["report"] = npt.report(adata, folder / "x.html").read_text(encoding="utf-8")
    return {k: adata.uns[k]["advice"] for k in ("design", "plan", "plan_cells")}, said


@pytest.mark.parametrize("kind", CASES)
def test_each_kind_in_the_same_words_everywhere(kind, screens, tmp_path):
    _, target, candidates = CASES[kind]
    adata = screens[kind].copy()
    advice, said = everywhere(adata, target, candidates, tmp_path)
    assert {each["kind"] for each in advice.values()} == {kind}
    (words,) = {each["words"] for each in advice.values()}
    for name, text in said.items():
        assert (str(escape(words)) if name == "report" else words) in text
    # A ranking after the plan follows its size.
    npt.tl.design_interventions(adata, target, candidates=candidates)
    assert adata.uns["design"]["advice"]["words"] == words


def test_numbers_of_the_rule_are_those_that_decide(screens):
    for kind, (_, target, candidates) in CASES.items():
        adata = screens[kind].copy()
        npt.tl.plan_cells(adata, target, candidates=candidates)
        said = adata.uns["plan_cells"]["advice"]
        if kind == CONFIRM:
            assert said["good_enough"] >= 0.95
            assert said["perturbations"].tolist() == ["g0"]
            assert said["cells_needed"] in range(10, 100, 10)
        if kind in (STOP, MEASURE, ORDER):
            assert said["good_enough"] < 0.95
            gains = said["relative_gain"], said["relative_gain_of_more"]
            assert (max(gains) < 0.02) == (kind == STOP)
            if kind != STOP:
                assert (gains[1] >= gains[0]) == (kind == MEASURE)


def test_the_plate_is_what_is_advised(screens, caplog):
    caplog.set_level("INFO", "nextpert")
    for kind, (_, target, candidates) in CASES.items():
        adata = screens[kind].copy()
        caplog.clear()
        npt.tl.plan_screen(adata, target, candidates=candidates, n_cells=600)
        advice = adata.uns["plan"]["advice"]
        assert advice["n_new_guides"] == 0  # guides are not known
        (level,) = {x.levelname for x in caplog.records if x.getMessage() == advice["words"]}
        assert level == "INFO"
        plan, order = adata.uns["plan"], npt.get.order_df(adata)
        chosen = plan["plate"].query("strategy != 'control'")
        said = plan["advice"]
        assert plan["plate"]["n_cells"].sum() <= 600
        if kind == STOP:
            assert not len(plan["plate"])
            assert not len(order)
            with pytest.raises(ValueError, match="plan is empty"):
                npt.tl.plan_loading(adata)
            with pytest.raises(ValueError, match="plan is empty"):
                npt.pl.plan_screen(adata, show=False)
            continue
        assert chosen["perturbation"].tolist() == said["perturbations"].tolist()
        assert len(chosen) == said["n_perturbations"]
        assert plan["plate"]["is_advised"].all()
        assert order["is_advised"].all()
        assert order["n_cells"].sum() == plan["plate"]["n_cells"].sum()
        assert chosen["n_cells"].median() == pytest.approx(said["n_cells"], abs=1)
        if kind == CONFIRM:  # no more cells than it takes
            assert chosen["n_cells"].tolist() == [said["cells_needed"]]
        else:
            assert plan["plate"]["n_cells"].sum() == 600


def test_a_test_warns_and_does_not_decide(screens, caplog):
    """Of a target that is not shown to differ nothing is stated, and what is nearest is used."""
    adata = screens[CONFIRM].copy()
    far, near = state(along(-2.0)), state(along(-0.05))
    npt.tl.plan_screen(adata, far)
    assert adata.uns["plan"]["advice"]["target_differs"]
    caplog.set_level("INFO", "nextpert")
    npt.tl.plan_screen(adata, near)
    advice = adata.uns["plan"]["advice"]
    assert not advice["target_differs"]
    assert np.isnan(advice["good_enough"])
    assert "do not show that " in advice["words"]
    assert "with probability" not in advice["words"].lower()
    (level,) = {x.levelname for x in caplog.records if x.getMessage() == advice["words"]}
    assert level == "WARNING"
    npt.tl.design_interventions(adata, near)
    mean = adata.uns["design"]["ranking"].set_index("perturbation")["mean_distance"]
    best = mean.idxmin()
    assert advice["best_known"] == ("no perturbation" if best == "control" else best)
    nothing = with_differences({"candidates_differ": 0})
    assert "No candidate with cells is shown to differ" in nothing


def with_differences(changes):
    """Return the words of an advice with these results of the tests."""
    return in_words({**WORDS, **changes}, "T")


def test_no_difference_between_candidates_is_a_warning():
    adata = screen(NOTHING)
    npt.tl.plan_screen(adata, state(along(-2.0)), n_cells=600)
    advice = adata.uns["plan"]["advice"]
    assert not advice["candidates_differ"]
    assert "No candidate with cells is shown to differ" in advice["words"]
    assert advice["kind"] in (CONFIRM, STOP, MEASURE)


def test_included_candidates_are_planned_and_marked_whatever_is_advised(screens):
    _, target, _ = CASES[STOP]
    adata = screens[STOP].copy()
    npt.tl.plan_screen(adata, target, constraints={"include": ["g4"]})
    plan = adata.uns["plan"]
    assert plan["advice"]["kind"] == STOP
    chosen = plan["plate"].query("strategy != 'control'")
    assert chosen["perturbation"].tolist() == ["g4"]
    assert not plan["plate"]["is_advised"].any()
    assert not plan["constructs"]["is_advised"].any()
    assert plan_section({"plan": plan}).words[0].startswith("This round contains what was included")


def test_other_strategies_fill_the_plate_and_mark_every_row(screens, caplog):
    _, target, _ = CASES[STOP]
    adata = screens[STOP].copy()
    npt.tl.plan_screen(adata, target, strategy="exploit")
    plan = adata.uns["plan"]
    assert plan["advice"]["kind"] == STOP
    assert plan["plate"]["n_cells"].sum() == 2000
    assert not plan["plate"]["is_advised"].any()
    assert "Planned by strategy 'exploit', but not advised" in caplog.text


@pytest.mark.parametrize(
    "kind", [CONFIRM, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (STOP, MEASURE))]
)
def test_an_advice_does_not_change_with_how_it_is_asked(kind, screens):
    """Naming the advised candidates, or more of them, is the same question."""
    _, target, _ = CASES[kind]
    adata = screens[kind].copy()
    npt.tl.plan_screen(adata, target)
    first = adata.uns["plan"]["advice"]
    named = [*first["perturbations"]] or [first["best_known"]]
    for names in (named, [*named[::-1]], None):
        npt.tl.plan_screen(adata, target, candidates=names)
        npt.tl.design_interventions(adata, target, candidates=names)
        npt.tl.plan_cells(adata, target, candidates=names)
        for key in ("plan", "design", "plan_cells"):
            again = adata.uns[key]["advice"]
            assert again["kind"] == kind
            assert set(again["candidates"]) == set(first["candidates"])
            assert again["good_enough"] == pytest.approx(first["good_enough"], abs=0.03)
    ranked = npt.get.ranking_df(adata)["perturbation"]
    assert len(ranked) == len(adata.uns["dag_blr"]["environments"]) + 1
    # What is excluded does not count.
    npt.tl.plan_screen(adata, target, constraints={"exclude": [named[0]]})
    assert named[0] not in adata.uns["plan"]["advice"]["candidates"]


def test_the_rule_has_limits_that_a_lab_sets(screens):
    _, target, _ = CASES[STOP]
    adata = screens[STOP].copy()

    def kind(**stopping):
        npt.tl.plan_screen(adata, target, stopping=stopping)
        return adata.uns["plan"]["advice"]["kind"]

    assert kind(min_gain=0.0) == MEASURE
    assert kind(stop_probability=0.5) == CONFIRM
    assert kind(tolerance=1.0) == CONFIRM
    message = r"stopping\['min_gain'\] must be a finite number of at least 0"
    with pytest.raises(ValueError, match=message):
        npt.tl.plan_screen(adata, target, stopping={"min_gain": -1})


WORDS = {
    "kind": MEASURE, "best_known": "A", "good_enough": 0.87, "relative_gain": 0.03,
    "relative_gain_of_more": 0.054, "relative_distance": 0.4, "perturbations": ["A", "B"],
    "cells_needed": 0.0, "n_new_guides": 0, "n_perturbations": 8, "n_cells": 185,
    "n_untested": 0, "target_differs": 1, "candidates_differ": 1, "has_replicates": 1,
    "tolerance": 0.1, "min_gain": 0.02,
    "candidates": ["A"] * 24,
}  # fmt: skip
CHANCE = "ith probability 87%, none of the 24 candidates .* T than A by more than 10% "
MORE = {"kind": CONFIRM, "cells_needed": 34.0}
FAR = {**MORE, "cells_needed": np.inf, "relative_distance": 0.95}
NONE = {**FAR, "best_known": "no perturbation"}
BY_MORE = {**NONE, "kind": ORDER, "n_untested": 3, "relative_gain": 0.004}
BY_MORE |= {"relative_gain_of_more": 0.0}
UNLIKELY = {**BY_MORE, "good_enough": 0.004}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"kind": STOP, "relative_gain_of_more": 0.004},
            rf"^Order nothing; use A: .* by 3% .* gain .*\(2%\)\. W{CHANCE}.* A has 40% .*\.$",
        ),
        ({"kind": STOP, "relative_distance": 0.95}, "^Order nothing; no candidate comes close: "),
        (
            {"kind": STOP, "best_known": "no perturbation"},
            r"^Order nothing; no candidate is known to be closer: .*10% of .* distance\.$",
        ),
        ({}, rf"^Measure more cells of A, B first \(185 cells each\): .* by 5% .*W{CHANCE}.*\.$"),
        ({"n_new_guides": 4}, r"\(185 cells each, with 4 new guides each\)"),
        (MORE, rf"^Order nothing new; confirm A, B .* 34 new cells each: w{CHANCE}.* A has 40% "),
        ({**MORE, "n_new_guides": 4}, "confirm A, B .* 34 new cells in 4 new guides each: with"),
        ({**MORE, "cells_needed": np.inf}, "confirm A, B: with"),
        (FAR, "^Order nothing, as no candidate comes close: with"),
        (NONE, f"^Order nothing: w{CHANCE.replace('than A', 'than the control')}"),
        (BY_MORE, r"by less than 1% of .* distance \(more cells of .*: less"),
        (UNLIKELY, "With probability > 99%, at least one of the 24 candidates .* T than the"),
        ({**UNLIKELY, "kind": UNTRUSTED}, "tl.diagnose does not trust the negative controls"),
        ({"kind": AT_TARGET}, "^Order nothing: the control is at T, so no "),
        ({"good_enough": np.nan}, r"closer by 5% of the control's distance\.$"),
        ({"target_differs": 0}, r" The cells do not show that T differs from the control\.$"),
        ({"has_replicates": 0}, r" The table has no replicates, so that distances "),
    ],
)
def test_words_by_numbers(changes, words):
    assert re.search(words, in_words({**WORDS, **changes}, "T"))


# -- pairs --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def paired():
    """Singles of one gene each, one without effect, and three measured pairs that add up."""
    single = {f"g{k}": along(-2.0, k) for k in range(5)} | {"g5": along(0.0)}
    pairs = {f"g{i}+g{j}": single[f"g{i}"] + single[f"g{j}"] for i, j in ((0, 2), (1, 3), (2, 4))}
    return screen(single | pairs, n_cells=200)


TOGETHER = state(along(-2.0, 0) + along(-2.0, 1))


def test_a_pair_has_to_be_nearer_than_its_members_and_than_the_best_measured(paired):
    adata = paired.copy()
    singles = [f"g{k}" for k in range(6)]
    asked = [*singles, "g0+g2", "g0+g1", "g0+g5", "g3+g4"]
    npt.tl.design_interventions(adata, TOGETHER, candidates=asked, n_samples=200)
    ranking = adata.uns["design"]["ranking"].set_index("perturbation")
    over = ranking[["probability_nearer_than_members", "probability_nearer_than_measured"]]
    assert over.loc[[*singles, "g0+g2", "control"]].isna().all(axis=None)  # no untested pair
    assert (over.loc["g0+g1"] > 0.5).all()
    assert not (over.loc["g0+g5"] > 0.5).all()
    assert not (over.loc["g3+g4"] > 0.5).any()
    # P(nearest) is among those admitted: by the same draws, made here without the functions.
    fit = posterior_from(adata)
    wanted = read_target(adata, TOGETHER, fit)
    pool = read_candidates(asked, fit)
    (_, draw), rng = pool.states(fit, wanted.rows_in_fit), np.random.default_rng(1)
    means = np.array([each.states for one in draw(4000, rng) for each in one.sampled(rng)])
    away = ((means - wanted.goal.states[0]) ** 2).sum(axis=-1)
    at = {name: i for i, name in enumerate(asked)}
    best = min(("g0", "g1", "g0+g2"), key=lambda name: away[:, at[name]].mean())
    for name in ("g0+g1", "g0+g5", "g3+g4"):
        own = [at[part] for part in name.split("+")]
        nearer = (away[:, at[name]] < away[:, own].min(axis=1)).mean()
        assert over.loc[name].iloc[0] == pytest.approx(nearer, abs=0.1)
        nearer = (away[:, at[name]] < away[:, at[best]]).mean()
        assert over.loc[name].iloc[1] == pytest.approx(nearer, abs=0.1)
    out = [name for name in asked if (over.loc[name] <= 0.5).any()]
    assert (ranking.loc[out, "probability_best"] == 0).all()
    assert ranking["probability_best"].sum() == pytest.approx(1)


def test_members_that_are_no_candidates_are_compared_too(paired):
    adata = paired.copy()
    npt.tl.design_interventions(adata, TOGETHER, candidates=["g0+g1", "g0+g5", "g3+g4"])
    ranking = adata.uns["design"]["ranking"].set_index("perturbation")
    assert (ranking.loc["g0+g1"].filter(like="probability_nearer") > 0.5).all()
    assert ranking.loc["g0+g1", "probability_best"] == 1
    assert (ranking.loc[["g0+g5", "g3+g4"], "probability_best"] == 0).all()


def test_a_plan_to_find_the_best_takes_admitted_pairs_alone(paired):
    adata = paired.copy()
    npt.tl.plan_screen(adata, TOGETHER, constraints={"max_combination": 2}, n_perturbations=30)
    plan = adata.uns["plan"]
    wells = plan["plate"].query("strategy != 'control'")
    over = wells[["probability_nearer_than_members", "probability_nearer_than_measured"]]
    untested = wells["n_cells_seen"] == 0
    assert "g0+g1" in set(wells.loc[untested, "perturbation"])
    assert (over[untested] > 0.5).all(axis=None)
    assert over[~untested].isna().all(axis=None)
    left = plan["summary"]["n_not_admitted"]
    assert left == 15 - 3 - untested.sum()
    assert plan["params"]["n_candidates"] == len(wells) == 9 + 15 - 3 - left
    assert len(plan["advice"]["candidates"]) == len(wells)
    assert plan["summary"]["if_effects_add_up"] == 0
    assert wells["probability_best"].sum() == pytest.approx(1)


def test_where_no_pair_is_admitted_there_is_nothing_to_order(screens):
    adata = screens[CONFIRM].copy()
    options = {"constraints": {"max_combination": 2}}
    npt.tl.plan_screen(adata, state(along(-2.0)), **options)
    plan = adata.uns["plan"]
    assert plan["summary"]["n_not_admitted"] == 6
    assert plan["summary"]["if_effects_add_up"] == 0  # no candidate is untested
    assert not plan["plate"]["perturbation"].str.contains("+", regex=False).any()
    assert plan["advice"]["words"].startswith("Order nothing new; confirm g0 with at least ")
    rows = plan["plate"].set_index("perturbation")["n_cells"]
    cells = rows.drop("control")
    assert rows["control"] == round(np.sqrt(len(cells)) * cells.mean())
    npt.tl.design_interventions(adata, state(along(-2.0)))
    assert adata.uns["design"]["advice"]["words"] == plan["advice"]["words"]
    # Asked to reduce uncertainty, pairs are planned nevertheless.
    npt.tl.plan_screen(adata, state(along(-2.0)), strategy="explore", **options)
    assert adata.uns["plan"]["plate"]["perturbation"].str.contains("+", regex=False).any()


def test_what_a_pair_does_does_not_depend_on_the_other_candidates(screens):
    adata = screens[CONFIRM].copy()
    singles = posterior_from(adata).names
    found = []
    for more in ([], singles, [*singles, "g1+g2", "g1+g3", "g2+g3"]):
        npt.tl.design_interventions(
            adata, TOGETHER, candidates=["g0+g1", *more], n_samples=2000, rng=1
        )
        found.append(adata.uns["design"]["ranking"].set_index("perturbation").loc["g0+g1"])
    for column in ("predicted_distance", "predicted_low", "predicted_high"):
        values = [float(row[column]) for row in found]
        np.testing.assert_allclose(values, values[0], rtol=0.06, err_msg=column)


@pytest.mark.parametrize("strategy", ["exploit", "both"])
def test_what_finds_the_best_is_admitted_whatever_else_is_planned(strategy, screens):
    adata = screens[CONFIRM].copy()
    options = {"constraints": {"max_combination": 2}, "n_perturbations": 9}
    npt.tl.plan_screen(adata, TOGETHER, strategy=strategy, **options)
    plan = adata.uns["plan"]
    assert plan["summary"]["n_not_admitted"] > 0
    wells = plan["plate"].query("strategy == 'exploit' and n_cells_seen == 0")
    assert plan["summary"]["if_effects_add_up"] == 1
    assert wells["perturbation"].tolist() == ["g0+g1"]
    assert (wells.filter(like="probability_nearer") > 0.5).all(axis=None)
    assert plan["plate"].query("strategy == 'exploit'")["n_cells"].min() > 0
