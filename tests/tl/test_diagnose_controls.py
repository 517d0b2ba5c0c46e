"""Negative and positive controls of ``tl.diagnose``."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import binom, norm

import nextpert as npt
from nextpert._adata import posterior_from, read_roles
from nextpert.core.design.stopping import ORDER, UNTRUSTED
from nextpert.core.fit import cells
from nextpert.core.screen.departures import GuideSpread
from nextpert.study.controls import (
    StoredControls,
    _in_place_of_perturbations,
    _split,
    judge_controls,
)
from nextpert.tl._read_halves import read_halves, read_refit
from nextpert.tl._read_plan import stored_null
from tests._screens import diagnosis_of, screen_of, with_graph

N_GENES, N_PERTURBED = 40, 6
GENES = [f"G{k}" for k in range(N_GENES)]
NEGATIVE = "negative controls"


NO_SPREAD = GuideSpread.of_variance(1e-6)


def guided(spread=0.0, n_guides=10, n_cells=60, rng=0, sign=-1.0):
    """Six knockdowns of three guides each; guides differ by ``spread`` of a cell's noise."""
    rng, parts, obs = np.random.default_rng(rng), [], []
    effects = 0.8 * rng.normal(size=(N_PERTURBED + 1, N_GENES)) * (rng.random(N_GENES) < 0.3)
    effects[0] = 0
    effects[np.arange(1, N_PERTURBED + 1), np.arange(N_PERTURBED)] = 1.5 * sign
    for j in range(N_PERTURBED + 1):
        name = "control" if j == 0 else GENES[j - 1]
        for k in range(n_guides if j == 0 else 3):
            own = effects[j] + spread * rng.normal(size=N_GENES)
            parts.append(3 + own + rng.normal(size=(n_cells, N_GENES)))
            obs += [(name, f"{name}_{k}")] * n_cells
    label, guide = zip(*obs, strict=True)
    batch = np.resize(["a", "b"], len(guide))
    return with_graph(screen_of(np.vstack(parts), label, GENES, guide=guide, batch=batch))


@pytest.fixture(scope="module")
def right():
    """A screen on which the model is right, its guides declared, with its diagnosis."""
    adata = guided()
    diagnosis_of(adata, guide_key="guide")
    return adata


def part(found, name=NEGATIVE):
    return found["parts"].set_index("part").loc[name]


def values(found, name=NEGATIVE):
    return found["summary"].set_index(["part", "quantity"])["value"][name]


# -- negative controls --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_the_null_of_a_model_that_is_right_has_the_width_1(spread, right):
    found = diagnosis_of(guided(spread), guide_key="guide") if spread else right.uns["diagnosis"]
    value = values(found)
    assert value["null_width"] == pytest.approx(1.0, abs=0.15)
    assert value["standard_error_factor"] == 1.0
    assert value["false_share"] < 0.01
    assert value["coverage_90"] > 0.95
    assert part(found)["level"] == "trust"
    assert found["null_z"].shape == (10, N_GENES)
    assert sorted(found["negative_controls"]["name"]) == sorted(f"control_{k}" for k in range(10))
    assert "multiplied" not in part(found, "cells")["verdict"]


@pytest.mark.slow
def test_guides_that_are_not_declared_widen_the_null_and_the_tests():
    adata = guided(0.35)
    found = diagnosis_of(adata)
    value = values(found)
    # A guide of 60 cells among 540 others: what it has besides sampling error.
    true = np.sqrt((1 / 60 + 0.35**2) / (1 / 60 + 1 / 540))
    assert value["null_width"] == pytest.approx(true, rel=0.2)
    assert part(found)["level"] == found["level"] == "do not trust"
    factor = f"by a factor of {value['null_width']:.2f}"
    assert f"standard errors are too small, {factor}" in part(found)["verdict"]
    # The tests allow for the column already, so little is left to widen.
    assert value["standard_error_factor"] < 1.3


@pytest.mark.slow
def test_one_is_not_advised_to_go_on_where_controls_are_not_trusted():
    adata = guided(0.2, rng=1)
    options = {"target": {"G7": 1.5}, "candidates": "genes"}
    with warnings.catch_warnings(action="ignore"):
        npt.tl.fit_dag_blr(adata)
    npt.tl.plan_cells(adata, **options)
    assert adata.uns["plan_cells"]["advice"]["kind"] == ORDER
    found = diagnosis_of(adata)
    assert found["verdict"].startswith("Do not trust the model here: its significant effects")
    npt.tl.plan_cells(adata, **options)
    found = adata.uns["plan_cells"]
    assert found["advice"]["kind"] == UNTRUSTED
    # Fitted with its guides, the diagnosis of the other fit says nothing.
    npt.pp.setup_screen(adata, guide_key="guide")
    npt.tl.fit_dag_blr(adata)
    assert stored_null(adata, posterior_from(adata)) == StoredControls()
    npt.tl.diagnose(adata)
    assert values(adata.uns["diagnosis"])["standard_error_factor"] == 1.0
    assert stored_null(adata, posterior_from(adata)).is_trusted
    npt.tl.plan_cells(adata, **options)
    assert adata.uns["plan_cells"]["advice"]["kind"] == ORDER


@pytest.mark.slow
def test_standard_errors_of_tests_are_multiplied_by_the_width_and_it_is_said(right, monkeypatch):
    adata, before = right.copy(), right.uns["diagnosis"]["perturbations"]
    monkeypatch.setattr(
        "nextpert.study.controls.null_width",
        lambda z, _: npt.core.model.scores.NullWidth(2.0, 0.1),
    )
    npt.tl.diagnose(adata)
    found = adata.uns["diagnosis"]
    after = found["perturbations"]
    assert "multiplied by 2.00, see negative controls" in found["verdict"]
    assert (after["q_value"] >= before["q_value"]).all()
    assert (after["q_value"] > before["q_value"]).any()
    lost = before["squared_distance"] - after["squared_distance"]
    assert (lost > 0).all()  # more of the distance is error


@pytest.mark.slow
def test_effects_of_controls_are_those_that_a_user_gets():
    """Guides of a fold under labels of their own: the public calls give the same effects."""
    adata = guided(0.1)
    found = diagnosis_of(adata, guide_key="guide")
    names = found["negative_controls"]["name"].tolist()
    fold = names[:3]  # of ten guides in four folds the first has three
    label = adata.obs["perturbation"].astype(str)
    guide = adata.obs["guide"]
    # Their labels are sorted behind the others', as the folds of the fit ask for.
    adata.obs["perturbation"] = np.where(guide.isin(fold), "z" + guide.astype(str), label)
    npt.tl.fit_dag_blr(adata)
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    mine = [f"z{name}" for name in fold]
    effects = effects[mine]
    table = found["negative_controls"].head(3)
    n_false = (effects.layers["lfsr"] < 0.05).sum(axis=1)
    np.testing.assert_array_equal(table["n_false"], n_false)
    inside = (effects.layers["lower"] <= 0) & (effects.layers["upper"] >= 0)
    np.testing.assert_allclose(table["coverage"], inside.mean(axis=1))
    # z-scores, from the cells themselves.
    x, spread = np.asarray(adata.X), adata.uns["dag_blr"]["guide_variance"]
    variance = sum(
        ((x[rows] - x[rows].mean(axis=0)) ** 2).sum(axis=0)
        for rows in guide.groupby(guide, observed=True).indices.values()
    ) / (len(x) - guide.nunique())
    rest = (label == "control") & ~guide.isin(fold)
    counted, ratios = 60 / (1 + 60 * spread), []
    for k, name in enumerate(fold):
        change = x[guide == name].mean(axis=0) - x[rest].mean(axis=0)
        z = change / np.sqrt(variance * (1 / counted + 1 / (7 * counted)))
        # The fit weighs each perturbation's own scatter a little.
        np.testing.assert_allclose(found["null_z"][k], z, rtol=0.15, atol=0.02)
        ratios.append(found["null_z"][k] / z)
    width = np.median(np.abs(found["null_z"])) / norm.ppf(0.75)
    assert values(found)["null_width"] == pytest.approx(width)
    assert np.median(ratios) == pytest.approx(1.0, abs=0.03)


def test_controls_in_the_place_of_perturbations_tell_nothing_of_the_batches_of_the_others():
    adata = guided()
    npt.pp.setup_screen(adata, guide_key="guide", batch_key="batch")
    halves, _ = read_halves(
        adata, np.arange(N_GENES), GENES[:6], read_roles(adata), np.random.default_rng(0)
    )
    members = [halves.guide_name == f"control_{k}" for k in (2, 5)]
    held = _in_place_of_perturbations(halves, members)
    assert held.n_groups == 9
    for group in range(9):
        mine = held.group == group
        assert mine.any()
        assert not set(held.condition[mine]) & set(held.condition[~mine])
    assert (held.group[members[1]] == 8).all()
    assert (halves.group[members[1]] == 0).all()


@pytest.mark.slow
def test_a_guide_that_does_something_is_named():
    adata = guided()
    adata.X[(adata.obs["guide"] == "control_3").to_numpy(), :8] += 1.5
    found = diagnosis_of(adata, guide_key="guide")
    n_false = found["negative_controls"].set_index("name")["n_false"]
    assert n_false["control_3"] >= 6
    assert f"{n_false['control_3']} of them by control_3" in part(found)["verdict"]
    # At the ends of the interval so many are improbable: 2.5% have as many, or as few (Clopper).
    value, k, n = values(found), int(n_false.sum()), found["null_z"].size
    assert binom.sf(k - 1, n, value["false_share_lower"]) == pytest.approx(0.025)
    assert binom.cdf(k, n, value["false_share_upper"]) == pytest.approx(0.025)


@pytest.mark.slow
def test_controls_that_are_called_as_often_as_perturbations_are_not_trusted(monkeypatch):
    adata = guided()
    rng = np.random.default_rng(0)
    for k in range(10):
        rows = (adata.obs["guide"] == f"control_{k}").to_numpy()
        adata.X[rows] += 1.5 * rng.normal(size=N_GENES) * (rng.random(N_GENES) < 0.2)
    npt.pp.setup_screen(adata, guide_key="guide")
    # The model learns these departures of guides, and calls none of them.
    assert values(diagnosis_of(adata))["false_share"] < 0.01
    monkeypatch.setattr(cells, "learn_spread", lambda guides, _: NO_SPREAD)
    found = diagnosis_of(adata)
    assert values(found)["false_discovery_rate_lower"] > 0.1
    assert part(found)["level"] == "do not trust"
    assert found["level"] == "do not trust"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["no column", "one guide", "few cells per guide"])
def test_halves_of_the_cells_are_the_weaker_proof(case):
    adata = guided(n_guides=1 if case == "one guide" else 10)
    if case == "one guide":
        adata = adata[np.arange(adata.n_obs) != 0].copy()
    elif case == "few cells per guide":
        few = (adata.obs["perturbation"] == "control") & (np.arange(adata.n_obs) % 60 >= 15)
        adata = adata[~few].copy()
    if case == "no column":
        del adata.obs["guide"]
    found = diagnosis_of(adata, guide_key=None if case == "no column" else "guide")
    assert found["negative_controls"]["name"].tolist() == ["half of the control cells"]
    assert "This is weaker evidence" in part(found)["verdict"]
    assert part(found)["level"] == "trust"
    assert values(found)["null_width"] == pytest.approx(1.0, abs=0.35)


@pytest.mark.brief_chain
@pytest.mark.slow
def test_of_two_guides_one_is_judged_and_a_guide_that_is_not_said_stays_a_control():
    adata = guided(n_guides=2)
    found = diagnosis_of(adata, guide_key="guide")
    assert len(found["negative_controls"]) == 1
    assert "effects of 1 control guide," in part(found)["verdict"]
    adata = guided(n_guides=5)
    adata.obs["guide"] = adata.obs["guide"].where(adata.obs["guide"] != "control_4")
    found = diagnosis_of(adata, guide_key="guide")
    assert sorted(found["negative_controls"]["name"]) == [f"control_{k}" for k in range(4)]


@pytest.mark.brief_chain
@pytest.mark.slow
def test_few_controls_cannot_be_judged():
    adata = guided()
    control = (adata.obs["perturbation"] == "control").to_numpy()
    found = diagnosis_of(adata[~control | (np.cumsum(control) <= 30)].copy())
    assert part(found)["level"] == "care"
    assert part(found)["verdict"].endswith("the controls have fewer than 40 cells.")
    assert len(found["negative_controls"]) == 0
    assert np.isnan(values(found)["null_width"])
    assert values(found)["standard_error_factor"] == 1.0


# -- positive controls --------------------------------------------------------------------------


@pytest.mark.slow
def test_target_genes_are_found_as_the_effects_say(right):
    adata, found = right.copy(), right.uns["diagnosis"]
    table = found["perturbations"].set_index("perturbation")
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    for name, row in table.iterrows():
        own = effects[name, name]
        assert row["target_gene_mean"] == pytest.approx(own.X.item())
        for each in ("lower", "upper"):
            assert row[f"target_gene_{each}"] == pytest.approx(own.layers[each].item())
    assert table["target_gene_found"].eq("yes").all()
    assert part(found, "positive controls")["level"] == "trust"


@pytest.mark.slow
def test_target_genes_that_rise_under_a_knockout_are_said_to():
    found = diagnosis_of(guided(sign=1.0), guide_key="guide")
    assert found["perturbations"]["target_gene_found"].eq("opposite direction").all()
    assert values(found, "positive controls")["n_opposite"] == 6
    assert part(found, "positive controls")["level"] == "do not trust"
    adata = guided(sign=1.0)
    npt.pp.setup_screen(adata, guide_key="guide")
    npt.tl.fit_dag_blr(adata, shift="activation")
    npt.tl.diagnose(adata)
    assert adata.uns["diagnosis"]["perturbations"]["target_gene_found"].eq("yes").all()


def nested(n_perturbed=24, n_controls=60, n_genes=60):
    """No effects at all; perturbations of 60 cells, each in one of four batches."""
    rng = np.random.default_rng(0)
    number = np.repeat(np.arange(n_perturbed + 1), [4 * n_controls] + n_perturbed * [60])
    batch = np.where(number == 0, np.arange(len(number)) % 4, number % 4)
    label = [f"P{j - 1:02d}" if j else "control" for j in number]
    guide = [f"{name}_{k // 4 % 2}" for k, name in enumerate(label)]
    x = 3 + rng.normal(size=(len(label), n_genes)) + rng.normal(size=(4, n_genes))[batch]
    return with_graph(screen_of(x, label, guide=guide, batch=np.array(list("abcd"))[batch]))


@pytest.mark.slow
def test_halves_of_the_controls_of_nested_batches_tell_whether_their_errors_are_seen(monkeypatch):
    adata = nested(48, 40)
    del adata.obs["guide"]
    npt.pp.setup_screen(adata, batch_key="batch")
    npt.tl.fit_dag_blr(adata)
    refit, halves, _ = read_refit(adata, posterior_from(adata), "dag_blr", np.random.default_rng(0))
    table = judge_controls(refit, halves, None, 0.0).table
    assert table["name"].tolist() == [f"half of the controls in {b}" for b in "abcd"]
    assert table["n_cells"].tolist() == [20] * 4
    assert table["n_false"].sum() == 0
    assert table["coverage"].mean() > 0.95
    # A model that takes what the perturbations of a batch share for an effect.
    monkeypatch.setattr(
        "nextpert.core.model.sampler.batch_columns",
        lambda cells: (np.zeros((len(cells.n) - 1, 0)), cells.fixed_error()[1:]),
    )
    assert judge_controls(refit, halves, None, 0.0).table["coverage"].mean() < 0.9


@pytest.mark.brief_chain
@pytest.mark.slow
def test_control_guides_of_nested_batches_are_judged_in_each():
    adata = nested(12, n_genes=20)
    found = diagnosis_of(adata, batch_key="batch", guide_key="guide")
    table = found["negative_controls"]
    names = [f"control_{k} in {b}" for b in "abcd" for k in (0, 1)]
    assert sorted(table["name"]) == sorted(names)
    assert table["n_cells"].tolist() == [30] * 8
    assert "effects of 8 control guides" in part(found)["verdict"]
    # A guide that is alone in its batch has to stay.
    alone = (adata.obs["guide"] != "control_1") | (adata.obs["batch"] != "c")
    found = diagnosis_of(adata[alone].copy())
    assert sorted(found["negative_controls"]["name"]) == sorted(set(names) - {
        "control_0 in c", "control_1 in c",
    })  # fmt: skip


def test_a_control_guide_is_judged_only_if_other_controls_remain_in_its_batch():
    # Two control guides in each of two batches, and two perturbations, each in one batch.
    batch = np.array([0, 0, 1, 1, 0, 1])
    guide = np.array([0, 1, 0, 1, 2, 3])
    halves = SimpleNamespace(
        all_cells=SimpleNamespace(n=np.array([30, 25, 40, 10, 50, 50])), of_table=False, n_groups=3,
        group=np.array([0, 0, 0, 0, 1, 2]), guide=guide, batch=batch,
        guide_name=np.array(["c0", "c1", "c0", "c1", "P0", "P1"], object),
        batch_name=np.array(list("ab"), object)[batch],
    )  # fmt: skip
    # In batch b, 10 controls would remain beside the 40 cells of c0; c1 has 10 cells itself.
    members = _split(halves).members
    assert list(members) == ["c0 in a", "c1 in a"]
    assert [np.flatnonzero(which).tolist() for which in members.values()] == [[0], [1]]
