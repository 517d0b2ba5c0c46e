"""Labels that name no perturbation are left out wherever a cell's label is read, and counted."""

import logging

import anndata as ad
import numpy as np
import pytest

import nextpert as npt

NOBODY = ["Unassigned", "multiplet", "NEGATIVE", "NA", "Doublet", "", "No guide"]
N = 9  # cells of each
SAID = "63 cells are left out, as their labels in adata.obs['perturbation'] name no perturbation: "


@pytest.fixture(scope="module")
def _screens():
    clean = npt.datasets.simulated_screen(
        n_genes=6, n_control=200, n_perturbed=40, perturbed=4, expected_degree=2, rng=0
    )
    clean.obs["perturbation"] = clean.obs["perturbation"].astype(str)
    more = clean[: N * len(NOBODY)].copy()
    more.obs["perturbation"] = np.repeat(NOBODY, N)
    more.X = more.X + np.repeat(np.arange(len(NOBODY)), N)[:, None]
    more.obs_names = "more_" + more.obs_names
    return clean, ad.concat([clean, more])


@pytest.fixture
def clean(_screens):
    return _screens[0].copy()


@pytest.fixture
def mixed(_screens):
    return _screens[1].copy()


def perturbations(adata):
    return sorted(set(adata.obs["perturbation"]) - {"control", *NOBODY})


def learn(adata):
    npt.tl.learn_dag(adata, method="boss", environments="all", search_options={"n_runs": 2})


@pytest.mark.parametrize("shift_sd", ["learned", 0])
def test_a_fit_is_that_of_the_other_cells(clean, mixed, shift_sd, caplog):
    for adata in (clean, mixed):
        npt.tl.learn_dag(adata, method="boss", search_options={"n_runs": 2})
    npt.tl.fit_dag_blr(clean, shift_sd=shift_sd)
    with pytest.warns(UserWarning, match=r"Doublet, .*\(no perturbation\)"):
        npt.tl.fit_dag_blr(mixed, shift_sd=shift_sd)
    assert SAID in caplog.text
    assert "no label" not in caplog.text
    assert np.array_equal(
        mixed.varp["dag_blr_mean"].toarray(), clean.varp["dag_blr_mean"].toarray()
    )
    fit = mixed.uns["dag_blr"]
    assert fit["environments"]["perturbation"].tolist() == perturbations(clean)
    left = fit["left_out"].set_index("perturbation")
    assert left.loc["Unassigned"].tolist() == [N, "no perturbation"]
    assert left["n_cells"].sum() == N * len(NOBODY)


def test_all_that_follows_knows_the_others_alone(clean, mixed):
    known = perturbations(clean)
    npt.tl.target_distances(mixed, npt.Target(state=known[0], own_genes="include"))
    assert set(mixed.uns["target_distances"]["table"]["perturbation"]) == {"control", *known[1:]}
    npt.tl.cpca(mixed, alpha=1.0)
    assert list(mixed.uns["cpca"]["groups"]) == known
    figure = npt.pl.perturbation_counts(mixed, return_fig=True)
    assert f"{len(known)} perturbations" in figure.axes[0].get_title()
    assert f"{N * len(NOBODY)} cells left out" in figure.axes[0].get_title()


def test_the_screen_counts_them(mixed, caplog):
    npt.pp.setup_screen(mixed)
    assert SAID in caplog.text
    left = mixed.uns["screen"]["left_out"]
    assert dict(zip(left["perturbation"], left["n_cells"], strict=True)) == dict.fromkeys(NOBODY, N)
    caplog.set_level(logging.INFO, logger="nextpert")
    npt.pp.perturbation_screen(mixed, min_cells=0)
    assert set(mixed.obs["perturbation"]) == {"control", *perturbations(mixed)}
    step = mixed.uns["preprocessing"]["steps"].set_index("step").loc["assigned"]
    assert step["n_cells_dropped"] == N * len(NOBODY)
    assert "empty label 9" in step["why"]


def test_such_a_label_may_be_the_control(mixed):
    names = mixed.obs["perturbation"]
    mixed.obs["perturbation"] = names.where(names != "NEGATIVE", "lost").replace(
        {"control": "NEGATIVE"}
    )
    npt.pp.setup_screen(mixed, control="NEGATIVE")
    learn(mixed)
    npt.tl.fit_dag_blr(mixed)
    assert mixed.uns["dag_blr"]["n_control_cells"] == 200
    assert "lost" in mixed.uns["dag_blr"]["environments"]["perturbation"].tolist()
    npt.pp.perturbation_screen(mixed, control="NEGATIVE", min_cells=0)
    assert (mixed.obs["perturbation"] == "control").sum() == 200
