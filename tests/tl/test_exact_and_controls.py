"""Exact shifts, controls alone, and fits of earlier versions."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.study.pool import read_candidates

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")


def test_exact_shifts_have_no_effects_of_their_own(screen):
    npt.tl.fit_dag_blr(screen, shift_sd=0)
    assert not {"hierarchical", "means", "predictors", "screen"} & set(screen.uns["dag_blr"])
    assert posterior_from(screen).is_exact


def test_means_and_weights_are_those_of_the_cells_and_survive_a_file(fitted, tmp_path, assert_same):
    screen = fitted
    screen.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    assert_same(again.uns["dag_blr"]["means"], screen.uns["dag_blr"]["means"])
    fit, back = posterior_from(screen), posterior_from(again)
    label, x = again.obs["perturbation"].astype(str).to_numpy(), again[:, fit.genes].X
    for row, name in enumerate(back.names):
        cells = x[label == name]
        assert back.means.n[row] == len(cells) == back.counted[row]
        np.testing.assert_allclose(back.means.mean[row], cells.mean(axis=0))
    assert back.is_measured.all()
    np.testing.assert_array_equal(back.posterior.mean().toarray(), fit.posterior.mean().toarray())
    np.testing.assert_array_equal(back.data_weight(), fit.data_weight())
    again.uns["dag_blr"]["format"] = 2
    with pytest.raises(ValueError, match=r"format.*run tl\.fit_dag_blr again"):
        posterior_from(again)


def test_of_controls_alone_effects_are_expected_of_the_usual_size(screen, tmp_path):
    npt.tl.fit_dag_blr(screen, perturbations=[])
    screen.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    fit = posterior_from(again)
    # Of knockouts as they usually are, as none was seen.
    mean, sd = fit.efficacy.mean, fit.efficacy.sd
    assert 0.3 < mean < 1
    assert sd > 0.05
    told = read_candidates(["MYC"], fit).without_cells
    place, p = fit.genes.index("MYC"), len(fit.genes)
    own = -mean * fit.control_mean[place] * (np.arange(p) == place)
    total = np.linalg.inv(np.eye(p) - fit.posterior.mean().toarray())
    np.testing.assert_allclose(told.effect[0], total @ own)
    np.testing.assert_allclose(told.own_variance[0, place], (sd * fit.control_mean[place]) ** 2)
    effects = npt.tl.perturbation_effects(again, candidates=["MYC", "STK3"], as_anndata=True)
    np.testing.assert_allclose(effects.X[0], total @ own, atol=1e-6)
    assert (effects.layers["sd"] > 0).all()
    npt.tl.design_interventions(again, {"MYC": 0.5}, candidates="genes", n_samples=50)
    assert again.uns["design"]["ranking"]["predicted_distance"].notna().all()


def test_an_acquisition_fills_a_plate(fitted):
    screen = fitted
    # As "genes", and the combination that contains the target.
    options = {"candidates": ["HS2", "MYC+OXR1", "OXR1", "STK3", "GATA1", "RIPK2", "UBR5"]}
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
