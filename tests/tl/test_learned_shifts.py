"""``tl.fit_dag_blr`` with effects learned: who takes part, what is stored, guides, the refusals."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from tests._screens import with_fit, with_graph

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")


def mean_of(adata, label):
    return adata.X[(adata.obs["perturbation"] == label).to_numpy()].mean(axis=0)


def test_every_perturbation_takes_part(screen, caplog):
    with caplog.at_level(logging.INFO, "nextpert"):
        npt.tl.fit_dag_blr(screen)
    table = screen.uns["dag_blr"]["environments"].set_index("perturbation")
    assert table.index.tolist() == ["HS2", "MYC", "MYC+OXR1", "OXR1", "STK3"]
    assert table.loc["HS2", ["target_genes", "shift", "shift_source", "n_cells"]].tolist() == [
        "", "", "not measured", 30,
    ]  # fmt: skip
    assert len(screen.uns["dag_blr"]["left_out"]) == 0
    assert "without a target on the panel" in caplog.text
    assert "from their cells only: HS2 (not measured)." in caplog.text
    assert "from 5 target genes" in caplog.text


def test_labels_that_are_no_perturbation_are_left_out_unless_they_are_asked_for(screen):
    hs2 = screen.obs["perturbation"] == "HS2"
    # Cells without a label are labelled "nan", whatever pandas makes of them as text.
    labels = screen.obs["perturbation"].astype(object)
    screen.obs["perturbation"] = labels.where(labels.notna(), "nan").mask(hs2, "multi")
    with pytest.warns(UserWarning, match=r"multi, nan \(no perturbation\)"):
        npt.tl.fit_dag_blr(screen)
    assert "multi" not in screen.uns["dag_blr"]["environments"]["perturbation"].tolist()
    npt.tl.fit_dag_blr(screen, perturbations=["multi", "MYC"])
    assert "multi" in screen.uns["dag_blr"]["environments"]["perturbation"].tolist()


def test_states_lie_between_expectation_and_cells(screen):
    npt.tl.fit_dag_blr(screen)
    fit = posterior_from(screen)
    for row, name in enumerate(fit.names):
        apart = ((fit.expected_state(row) - mean_of(screen, name)) ** 2).sum()
        moved = ((mean_of(screen, "control") - mean_of(screen, name)) ** 2).sum()
        assert apart < (0.05 * moved if name != "HS2" else moved)


def test_weights_do_not_depend_on_how_partial_knockdowns_are(small_screen, edges):
    """A tenth of the knockout's effect: exact shifts bend the weights, free ones do not."""
    partial, control = small_screen.copy(), mean_of(small_screen, "control")
    for label in ("MYC", "STK3", "OXR1"):
        cells = (partial.obs["perturbation"] == label).to_numpy()
        partial.X[cells] += 0.9 * (control - mean_of(partial, label))
    moved = []
    for shift_sd in (0, "learned"):
        weights = []
        for adata in (small_screen, partial):
            with_fit(adata, edges, perturbations=["MYC", "STK3", "OXR1"], shift_sd=shift_sd)
            weights.append(adata.varp["dag_blr_mean"].toarray())
        moved.append(np.abs(weights[1] - weights[0]).max())
    assert moved[0] > 0.005
    assert moved[1] < 1e-5


def test_guides_that_differ_count_for_fewer_cells(screen):
    rng = np.random.default_rng(0)
    guide = rng.integers(0, 6, screen.n_obs)
    label = screen.obs["perturbation"].astype(str)
    screen.obs["guide"] = [f"{a}_{b}" for a, b in zip(label, guide, strict=True)]
    npt.pp.setup_screen(screen, guide_key="guide")
    npt.tl.fit_dag_blr(screen, key_added="alike")
    codes = screen.obs["guide"].astype("category").cat.codes.to_numpy()
    away = 0.3 * rng.normal(size=(codes.max() + 1, screen.n_vars))
    screen.X = screen.X + away[codes]
    npt.tl.fit_dag_blr(screen)
    assert screen.uns["alike"]["guide_variance"] < 0.02
    assert screen.uns["dag_blr"]["guide_variance"] > 0.1
    n = screen.uns["dag_blr"]["means"]["n"]
    assert (n < 0.7 * screen.uns["alike"]["means"]["n"]).all()
    assert screen.uns["dag_blr"]["params"]["guide_key"] == "guide"


def simulated(n_genes=12, **options):
    adata = npt.datasets.simulated_screen(
        n_genes=n_genes, n_control=1000, expected_degree=4, **options
    )
    truth = adata.uns["truth"]["weights"]
    return with_graph(adata, truth.T)


def test_the_true_graph_earns_its_weight_and_a_wrong_one_does_not():
    adata = simulated()
    npt.tl.fit_dag_blr(adata)
    weights = weights_of(adata)
    assert weights["graph"] > 0.9
    assert weights["coexpression"] < 0.1
    assert adata.uns["dag_blr"]["predictors"]["error"] < 0.1
    # The last edge's end is perturbed to do what the first's does: no graph of such edges
    # transmits.
    wrong = adata.uns["truth"]["weights"][::-1, ::-1]
    with_fit(adata, wrong)
    assert weights_of(adata)["graph"] < 0.5


def weights_of(adata):
    stored = adata.uns["dag_blr"]["predictors"]
    return dict(zip(stored["predictors"], stored["weights"], strict=True))


def test_another_screen_is_believed_as_far_as_it_is_right():
    adata = simulated()
    names = sorted(set(adata.obs["perturbation"]) - {"control"})
    labels = adata.obs["perturbation"].to_numpy()
    control = adata.X[labels == "control"].mean(axis=0)
    effects = np.array([adata.X[labels == name].mean(axis=0) - control for name in names])
    effects += 0.02 * np.random.default_rng(0).normal(size=effects.shape)
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    found = []
    for order in (np.arange(len(names)), np.roll(np.arange(len(names)), 1)):
        other = ad.AnnData(effects[order], pd.DataFrame(index=names), adata.var[[]])
        npt.tl.fit_dag_blr(adata, features=other)
        found.append(weights_of(adata)["other screen"])
    assert found[0] > 0.9
    assert found[1] < 0.2


BAD_EFFECTS = {
    "twice": (["A", "A"], ["MYC", "STK3"], 1.0, "perturbations more than once"),
    "other genes": (["A", "B"], ["X1", "X2"], 1.0, "at least one gene of the panel"),
    "not finite": (["A", "B"], ["MYC", "STK3"], np.inf, "infinite values"),
}


@pytest.mark.parametrize("bad", BAD_EFFECTS)
def test_effects_that_cannot_be_used_are_refused(bad, screen):
    names, genes, value, match = BAD_EFFECTS[bad]
    other = ad.AnnData(np.full((2, 2), value))
    other.obs_names, other.var_names = names, genes
    before = set(screen.uns)
    with pytest.raises(ValueError, match=match):
        npt.tl.fit_dag_blr(screen, features=other)
    assert set(screen.uns) == before
