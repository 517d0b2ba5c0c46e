"""What ``tl.diagnose`` says of guides and batches held out."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

import nextpert as npt
from nextpert._adata import read_roles
from nextpert.study.scores import judge_guides
from nextpert.tl._read_halves import read_halves
from tests._screens import screen_of, with_graph
from tests.tl.test_diagnose import diagnosed, levels, values

pytestmark = pytest.mark.brief_chain


def guided(effect_of_guide, batch_effect=0.0, rng=0):
    """Six perturbations of three guides each in two batches, sixteen guides of the controls."""
    rng, parts, obs = np.random.default_rng(rng), [], []
    effects = 1.5 * rng.normal(size=(7, 12)) * (rng.random((7, 12)) < 0.4)
    effects[0] = 0
    for j in range(7):
        for k in range(16 if j == 0 else 3):
            own = effects[j] + effect_of_guide * rng.normal(size=12)
            for batch in ("a", "b"):
                shift = own + (batch == "b") * batch_effect * rng.normal(size=12)
                parts.append(3 + shift + rng.normal(size=(40, 12)))
                obs += [("control" if j == 0 else f"P{j}", f"{j}_{k}", batch)] * 40
    label, guide, batch = zip(*obs, strict=True)
    return with_graph(screen_of(np.vstack(parts), label, guide=guide, batch=batch))


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_guides_held_out_lie_in_intervals_with_their_spread_added(spread):
    adata = guided(spread)
    npt.pp.setup_screen(adata, guide_key="guide")
    found = diagnosed(adata)
    value = values(found)
    assert np.sqrt(adata.uns["dag_blr"]["guide_variance"]) == pytest.approx(spread, abs=0.1)
    assert value["guides", "coverage_90"] == pytest.approx(0.9, abs=0.06)
    assert levels(found)["guides"] == "trust"
    # What a guide does besides is no one else's to tell.
    assert value["guides", "error_to_no_effect"] < (0.05 if spread == 0 else 0.4)


@pytest.mark.slow
def test_halves_are_of_guides_and_intervals_allow_for_those_that_are_scored():
    adata = guided(0.3)
    npt.pp.setup_screen(adata, guide_key="guide", batch_key="batch")
    names = [f"P{j}" for j in range(1, 7)]
    halves, _ = read_halves(
        adata, np.arange(12), names, read_roles(adata), np.random.default_rng(0)
    )
    one, two = (part.n for part in halves.parts)
    assert halves.by_guides.all()
    assert ((one == 0) != (two == 0)).all()  # a guide is in one half, in both batches
    for group in range(7):
        guides = [set(halves.guide[(halves.group == group) & (n > 0)]) for n in (one, two)]
        assert abs(len(guides[0]) - len(guides[1])) == int(group > 0)  # 16, or three
    found = diagnosed(adata)
    assert found["perturbations"]["split_by"].eq("guides").all()
    value = values(found)
    assert value["shrinkage", "n_by_guides"] == 6
    assert value["shrinkage", "coverage_90"] == pytest.approx(0.9, abs=0.07)
    assert levels(found)["shrinkage"] == "trust"


@pytest.mark.slow
def test_a_perturbation_of_one_guide_is_split_by_cells():
    adata = guided(0.3)
    guide = adata.obs["guide"].to_numpy()
    few = np.isin(guide, ["2_1", "2_2"])  # three cells of these
    adata = adata[~np.isin(guide, ["1_1", "1_2"]) & (~few | (np.arange(len(few)) % 30 == 0))].copy()
    npt.pp.setup_screen(adata, guide_key="guide")
    found = diagnosed(adata)
    by = found["perturbations"].set_index("perturbation")["split_by"].to_dict()
    assert by == {"P1": "cells", "P2": "cells"} | dict.fromkeys(["P3", "P4", "P5", "P6"], "guides")
    assert "by guide for 4 of 6 perturbations" in found["verdict"]


@pytest.mark.slow
def test_guides_that_contradict_one_another_are_said_to():
    adata = guided(0.0)
    x, guide = np.array(adata.X), adata.obs["guide"].to_numpy()
    for j in range(1, 7):
        for k in range(3):
            rows = guide == f"{j}_{k}"
            x[rows] += 2 * np.random.default_rng(10 * j + k).normal(size=12)
    adata.X = x
    npt.pp.setup_screen(adata, guide_key="guide")
    found = diagnosed(adata)
    assert levels(found)["guides"] == "do not trust"
    assert "Guides: they disagree" in found["verdict"]


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "level"), [(0.0, "trust"), (2.0, "do not trust")])
def test_batches_held_out(spread, level):
    adata = guided(0.0, spread)
    adata.X[adata.obs["batch"].to_numpy() == "b"] += 2.0  # what all cells share is taken off
    npt.pp.setup_screen(adata, batch_key="batch")
    found = diagnosed(adata)
    assert levels(found)["batches"] == level
    assert ("condition_key" in found["verdict"]) == (level != "trust")
    assert found["summary"].set_index(["part", "quantity"])["n"]["batches", "coverage_90"] == 6
    if spread == 0:
        assert values(found)["batches", "coverage_90"] > 0.8
        assert values(found)["batches", "error_to_no_effect"] < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("key", ["guide", "batch"])
def test_what_was_seen_in_one_guide_or_batch_is_not_judged_by_another(key):
    adata = guided(0.0)
    labels, column = adata.obs["perturbation"], adata.obs[key]
    adata = adata[(labels != "P1") | (column == column[labels == "P1"].iloc[0])].copy()
    npt.pp.setup_screen(adata, **{f"{key}_key": key})
    found = diagnosed(adata)
    table, n = (
        found[name].set_index(index)
        for name, index in (("perturbations", "perturbation"), ("summary", ["part", "quantity"]))
    )
    name = "guides" if key == "guide" else "batches"
    assert n["n"][name, "coverage_90"] == n["n"][name, "error_to_no_effect"] == 5
    assert table.loc["P1", "error_half"] < table.loc["P1", "error_half_no_effect"]


def own_guides(rng, sd=0.0, weak=(), n=40):
    """Twelve knockdowns, five guides each; ten control guides; ``weak`` have no effect."""
    rng, parts, obs = np.random.default_rng(rng), [], []
    for j in range(13):
        for k in range(10 if j == 0 else 5):
            mean = 3 + sd * rng.normal(size=12)
            if j > 0 and (j, k) not in weak:
                mean[j - 1] -= 1.5
            parts.append(mean + rng.normal(size=(n, 12)))
            obs += [("control" if j == 0 else f"g{j - 1}", f"{j}_{k}")] * n
    label, guide = zip(*obs, strict=True)
    adata = screen_of(np.vstack(parts), label, guide=guide)
    npt.pp.setup_screen(adata, guide_key="guide")
    return adata


def judged_guides(adata, spread=0.0):
    names = [f"g{k}" for k in range(12)]
    halves, _ = read_halves(
        adata, np.arange(12), names, read_roles(adata), np.random.default_rng(0)
    )
    fit = SimpleNamespace(names=names, genes=names, targets=[[name] for name in names])
    return judge_guides(halves, fit, spread)


def test_a_guide_is_compared_with_the_other_guides_of_its_perturbation():
    adata = own_guides(0, weak=[(3, 1)])
    table = judged_guides(adata, 0.01).set_index("guide")
    assert table.index[table["weak"]].tolist() == ["3_1"]
    assert len(table) == 60
    # The same numbers from the cells.
    x, guide, n = adata.X, adata.obs["guide"].to_numpy(), 40
    own = x[:, 2]
    controls = [own[guide == f"0_{k}"] for k in range(10)]
    mine = {k: own[guide == f"3_{k}"] for k in range(5)}
    start = np.mean(controls)
    a, b = mine.pop(1).mean() - start, np.mean([*mine.values()]) - start
    assert table.loc["3_1", ["change", "change_of_others"]].tolist() == pytest.approx([a, b])
    within, of_controls = (
        np.mean([np.var(part, ddof=1) for part in some])
        for some in ([own[guide == f"3_{k}"] for k in range(5)], controls)
    )
    every = [x[guide == name, 2].var(ddof=1) for name in dict.fromkeys(guide)]
    shared = 0.01 * np.mean(every)
    variance = (
        (within / n + shared)
        + (within / (4 * n) + shared / 4) / 4
        + (of_controls / (10 * n) + shared / 10) / 4
    )
    p = norm.sf((a - b / 2) / np.sqrt(variance))
    assert table.loc["3_1", "p_value"] == pytest.approx(p)


@pytest.mark.parametrize("sd", [0.0, 0.2])
def test_working_guides_are_seldom_weak(sd):
    # At most one screen in twenty, with 60 guides each, names a guide that works.
    wrong = [judged_guides(own_guides(seed, sd), sd**2)["weak"].any() for seed in range(20)]
    assert sum(wrong) <= 3


def test_guides_are_not_judged_by_guides_without_an_effect():
    # Four of five guides do not work: the fifth is not compared with them.
    table = judged_guides(own_guides(1, weak=[(2, k) for k in range(4)], n=200))
    assert "2_4" not in table["guide"].tolist()


@pytest.mark.slow
def test_the_verdict_names_guides_that_do_not_work():
    adata = own_guides(2, weak=[(3, 1), (7, 4)])
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    found = diagnosed(adata)
    assert found["guides"]["guide"][found["guides"]["weak"]].tolist() == ["3_1", "7_4"]
    assert "Of 60 guides " in found["verdict"]
    assert ", 3_1 (" in found["verdict"]
    assert levels(found)["guides"] == "care"
    assert "hardly change their target gene: 3_1, 7_4." in str(npt.summary(adata))
    # They are guides of the screen, but plans do not order them.
    assert npt.get.fitted_perturbations(adata)["n_guides"].eq(5).all()
    npt.tl.plan_screen(adata, "g0", n_perturbations=11, strategy="exploit")
    order = npt.get.order_df(adata)
    assert adata.uns["plan"]["summary"]["is_diagnosed"] == 1
    assert not {"3_1", "7_4"} & set(order["guides"])
    if adata.uns["plan"]["advice"]["n_new_guides"]:  # guides vary, so that new ones are designed
        assert set(order.loc[order["kind"] != "control", "status"]) == {"design"}
