"""Everything that is stored survives h5ad and zarr unchanged, and works after reading."""

import inspect
import re
import warnings

import anndata as ad
import pandas as pd
import pytest
import zarr

import nextpert as npt
from tests.test_documented_slots import given, guide_counts, look_like_the_study

pytestmark = [pytest.mark.formats, pytest.mark.brief_chain]


def learn(adata):
    npt.tl.learn_dag(adata, search_options={"n_runs": 5, "prior": {"before": [("MYC", "UBR5")]}})


def no_edges(adata):
    npt.tl.learn_dag(adata, method="given", dag=[], genes=["MYC", "STK3"])


def fit(adata, **options):
    given(adata)
    npt.tl.fit_dag_blr(adata, **options)


def fit_exact_known_noise(adata):
    known = {"noise_var": 0.2, "prior_scale": 1.0, "intercept": False}
    fit(adata, shift_sd=0, prior_options=known)


def fit_table(adata):
    fit(adata, shift={"HS2": {"MYC": -0.5}}, perturbations=["HS2"])


def fit_controls_alone(adata):
    fit(adata, perturbations=[])


def design(adata):
    fit(adata)
    for acquisition in ("remaining_variance", "greedy", "random"):
        npt.tl.design_interventions(adata, "MYC", candidates="genes", acquisition=acquisition)


def design_group(adata):
    fit(adata)
    npt.tl.design_interventions(adata, ("batch", "a"))


def design_means(adata):
    fit_controls_alone(adata)
    table = {"a/b": {"MYC": -1.0}, "nothing": {}}
    npt.tl.design_interventions(adata, {"MYC": 2.0}, candidates=table, key_added="mine")


def design_goal(adata):
    fit(adata)
    wanted = npt.Target(
        state=["MYC", ("batch", "a")], signature={"MYC": -1, "STK3": 0.5},
        at_least={"GATA1": 0.0}, at_most={"GATA1": 1.0}, away_from="STK3",
        weights=["MYC", "STK3", "GATA1"], distance="noise",
    )  # fmt: skip
    npt.tl.design_interventions(adata, wanted, acquisition="ei")
    npt.tl.plan_screen(adata, wanted, n_perturbations=1)
    directed = npt.Target(signature=pd.Series({"MYC": -1.0}), distance="cosine")
    npt.tl.design_interventions(adata, directed, key_added="directed")


def cpca(adata):
    npt.tl.cpca(adata, alpha=1.0)


def assign(adata):
    npt.pp.assign_guides(adata, guides=guide_counts(adata), key_added="mine")


def screen(adata):
    npt.pp.perturbation_screen(adata, panel=["MYC", "STK3"], combinations="keep")


def study(adata):
    look_like_the_study(adata)
    npt.pp.perturb_cite_seq(adata, panel=["MYC", "STK3"], controls="both")


def roles(adata):
    npt.pp.setup_screen(adata, batch_key="batch", layer="lognorm")


def diagnose(adata):
    fit(adata)
    npt.tl.diagnose(adata)


def replay(adata):
    fit(adata)
    options = {"targets": ["MYC", "STK3"], "held_out": True, "n_rounds": 1, "n_cells": 3}
    strategies = ["remaining_variance", "exact_greedy"]
    npt.tl.replay_design(adata, strategies=strategies, n_repeats=2, **options)


def dag_fit(adata):
    given(adata)
    npt.tl.dag_fit(adata, n_random=5)


def target_distances(adata):
    npt.tl.target_distances(adata, "MYC")


def effects(adata):
    fit(adata)
    npt.tl.perturbation_effects(adata, candidates="genes", genes="all")


def plan(adata):
    fit(adata)
    npt.tl.plan_screen(adata, "MYC", pending=["STK3"], candidates="genes")
    npt.tl.plan_loading(adata)


def plan_cells(adata):
    fit(adata)
    npt.tl.plan_cells(adata, "MYC", n_guides=2)


# Every kind of stored field once, then every function once.
FIELDS = [
    learn, no_edges, fit_exact_known_noise, fit_table, fit_controls_alone,
    design_group, design_means, design_goal, cpca, assign, screen, study, roles,
    diagnose, replay, dag_fit, target_distances, effects, plan, plan_cells,
]  # fmt: skip
FUNCTIONS = [
    given, fit, design_means, cpca, assign, screen, study, roles, diagnose, replay, dag_fit,
    target_distances, effects, plan, plan_cells,
]  # fmt: skip


@pytest.mark.parametrize("calls", [FIELDS, FUNCTIONS], ids=["fields", "functions"])
def test_results_of_every_function_are_walked(calls):
    source = "".join(inspect.getsource(call) for call in [*calls, fit, given])
    called = set(re.findall(r"npt\.(?:tl|pp)\.(\w+)\(", source))
    # What pp.effect_table makes is kept in files by its own tests.
    assert {*npt.tl.__all__, *npt.pp.__all__} - {"effect_table"} <= called


def write_and_read(adata, tmp_path, kind):
    path = tmp_path / "screen.h5ad"
    if kind == "h5ad":
        adata.write_h5ad(path)
        return ad.read_h5ad(path)
    path = zarr.storage.MemoryStore()  # many small files are slow
    adata.write_zarr(path)
    return ad.read_zarr(path)


@pytest.mark.filterwarnings("ignore:Perturbations left out")
@pytest.mark.parametrize("call", FIELDS, ids=lambda call: call.__name__)
def test_results_survive(call, small_screen, tmp_path, assert_same):
    slots = ("uns", "varp", "obsm", "varm")
    before = {slot: set(getattr(small_screen, slot)) for slot in slots}
    call(small_screen)
    assert any(set(getattr(small_screen, slot)) - keys for slot, keys in before.items())
    for kind in ("h5ad", "zarr"):
        back = write_and_read(small_screen, tmp_path, kind)
        for slot in slots:
            assert_same(dict(getattr(small_screen, slot)), dict(getattr(back, slot)), slot)
        for slot in ("obs", "var", "X"):
            assert_same(getattr(small_screen, slot), getattr(back, slot), slot)


@pytest.mark.filterwarnings("ignore:Perturbations left out")
def test_a_file_takes_up_where_the_session_ended(small_screen, tmp_path, assert_same):
    design(small_screen)
    back = write_and_read(small_screen, tmp_path, "h5ad")
    for adata in (small_screen, back):
        npt.tl.design_interventions(adata, "STK3", candidates=["MYC", "STK3+MYC"])
    assert_same(small_screen.uns["design"], back.uns["design"])
    assert back.uns["design"]["trace"]["round"].tolist() == [1] * 4  # one fit
    npt.tl.fit_dag_blr(back)
    assert_same(small_screen.uns["dag_blr"], back.uns["dag_blr"])


@pytest.mark.parametrize("call", FUNCTIONS, ids=lambda call: call.__name__)
def test_views_become_actual_without_a_word_and_the_parent_stays(
    call, small_screen, assert_same, assert_same_adata
):
    parent = small_screen
    untouched = parent.copy()
    view, actual = parent[20:], parent[20:].copy()
    with warnings.catch_warnings(action="error", category=ad.ImplicitModificationWarning):
        warnings.filterwarnings("ignore", "Perturbations left out")
        call(view)
        call(actual)
    assert not view.is_view
    assert_same(dict(view.uns), dict(actual.uns))
    assert_same(dict(view.varp), dict(actual.varp))
    assert_same_adata(parent, untouched)


@pytest.mark.filterwarnings("ignore:Perturbations left out")
@pytest.mark.parametrize("name", ["learn_dag", "fit_dag_blr", "design_interventions"])
def test_copy_leaves_the_original(name, small_screen, assert_same_adata, assert_same):
    fit(small_screen)
    before = small_screen.copy()
    options = {
        "learn_dag": {"method": "given", "dag": [("STK3", "MYC")], "key_added": "other"},
        "fit_dag_blr": {"key_added": "other"},
        "design_interventions": {"target": "MYC", "key_added": "other"},
    }[name]
    written = getattr(npt.tl, name)(small_screen, **options, copy=True)
    assert_same_adata(small_screen, before)
    assert "other" in written.uns
    assert getattr(npt.tl, name)(small_screen, **options) is None
    assert_same(dict(written.uns), dict(small_screen.uns))
