"""How much a fit models: all, random shifts alone, or exact shifts; stored with it and said."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core.model.shift_prior import TAU2, UNSEEN_WEIGHTS

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")


@pytest.fixture
def screen(small_screen, edges):
    npt.tl.learn_dag(small_screen, method="given", dag=edges)
    return small_screen


def test_the_default_is_all_of_it(screen, assert_same):
    npt.tl.fit_dag_blr(screen)
    npt.tl.fit_dag_blr(screen, spec="full", key_added="full")
    assert_same(screen.uns["dag_blr"], screen.uns["full"])
    assert screen.uns["full"]["params"]["spec"] == "full"


@pytest.mark.slow
def test_shifts_alone_have_no_predictors_and_no_average(screen, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    npt.tl.fit_dag_blr(screen, spec="shifts")
    assert "(spec shifts)" in caplog.text
    stored = screen.uns["dag_blr"]
    assert not {"predictors", "hierarchical"} & set(stored)
    assert {"shift_prior", "efficacy"} <= set(stored)
    fit = posterior_from(screen)
    assert len(fit.posteriors) == 1
    # The same shifts on the graph as the whole model has before predictors are asked.
    npt.tl.fit_dag_blr(screen, key_added="full")
    for name, matrix in screen.uns["full"]["posterior"].items():
        np.testing.assert_array_equal(np.asarray(stored["posterior"][name]), np.asarray(matrix))
    npt.tl.plan_screen(screen, "MYC", candidates="genes", n_perturbations=3)
    assert screen.uns["plan"]["params"]["spec"] == "shifts"
    assert "fit of spec shifts" in caplog.text
    npt.tl.perturbation_effects(screen)
    npt.tl.diagnose(screen)
    screen.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    npt.tl.design_interventions(again, "MYC", n_samples=50)


def test_exact_is_that_of_no_spread_of_shifts(screen, assert_same):
    npt.tl.fit_dag_blr(screen, spec="exact")
    npt.tl.fit_dag_blr(screen, shift_sd=0, key_added="other")
    assert_same(screen.uns["dag_blr"], screen.uns["other"])
    assert screen.uns["dag_blr"]["params"]["spec"] == "exact"


@pytest.mark.parametrize("spec", ["full", "shifts"])
def test_of_controls_alone_effects_are_expected_of_the_usual_size(screen, spec, tmp_path):
    npt.tl.fit_dag_blr(screen, perturbations=[], spec=spec)
    screen.write_h5ad(tmp_path / "a.h5ad")
    fit = posterior_from(ad.read_h5ad(tmp_path / "a.h5ad"))
    # Of knockouts as they usually are, as none was seen.
    mean, sd = fit.efficacy.mean, fit.efficacy.sd
    assert 0.3 < mean < 1
    assert sd > 0.05
    pool = npt.tl._design_interventions.candidates.read_candidates(["MYC"], None, fit)
    place = fit.genes.index("MYC")
    prior = pool.prior
    np.testing.assert_allclose(prior.shift[0, place], -mean * fit.control_mean[place])
    np.testing.assert_allclose(prior.own[0, place], (sd * fit.control_mean[place]) ** 2)
    np.testing.assert_allclose(prior.weights[0], UNSEEN_WEIGHTS)
    (known,) = fit.known(pool.prior)
    others = np.arange(len(fit.genes)) != place
    np.testing.assert_allclose(known.spare[0, others], UNSEEN_WEIGHTS @ TAU2)


def test_an_acquisition_fills_a_plate(screen):
    npt.tl.fit_dag_blr(screen)
    options = {"candidates": "genes"}
    npt.tl.design_interventions(screen, "MYC", acquisition="greedy", **options)
    npt.tl.plan_screen(
        screen,
        "MYC",
        strategy="greedy",
        n_perturbations=4,
        constraints={"include": ["OXR1"]},
        **options,
    )
    wells = screen.uns["plan"]["plate"].iloc[:-1]
    first = screen.uns["design"]["ranking"].query("rank > 0")["perturbation"]
    wanted = ["OXR1", *[name for name in first if name != "OXR1"][:3]]
    assert wells["perturbation"].tolist() == wanted
    assert wells["strategy"].tolist() == ["include", *["acquisition"] * 3]
    assert "by the acquisition" in wells["why"].iloc[1]
    npt.pl.plan_screen(screen, show=False)
    costs = {"budget": 100.0, "perturbation": dict.fromkeys(first, 30.0)}
    npt.tl.plan_screen(screen, "MYC", strategy="greedy", constraints={"costs": costs}, **options)
    assert screen.uns["plan"]["plate"]["perturbation"].iloc[:-1].tolist() == first.iloc[:3].tolist()
