"""Effects of perturbations on an AnnData: what is written, candidates, graphs of resamples."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import posterior_from
from nextpert.core.model.effects import exact_effects
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.coexpression import Coexpression
from nextpert.core.model.predictors.mean_perturbation import MeanPerturbation
from nextpert.core.model.sampler import Chain
from tests._screens import screen_of, simulated_fit, with_fit


@pytest.fixture
def fitted():
    """A simulated screen, fitted on its true graph."""
    return simulated_fit(n_control=800, n_perturbed=60, perturbed=["MYC", "FOS", "CDK4"], rng=1)


def test_tables_are_those_of_the_core(fitted):
    npt.tl.perturbation_effects(fitted, level=0.8)
    found = fitted.uns["perturbation_effects"]
    fit = posterior_from(fitted)
    wanted = fit.hierarchical.effects.summary(0.8)
    for name, table in wanted._asdict().items():
        np.testing.assert_array_equal(found[name], table)
    away = np.eye(len(fit.genes)) - fit.posterior.mean().toarray()
    np.testing.assert_allclose(found["direct"], wanted.mean @ away.T, atol=1e-12)
    drawn = np.array(list(fit.hierarchical.effects.draws(4000, rng=0)))
    np.testing.assert_allclose(drawn.std(axis=0), wanted.sd, rtol=0.15)
    counted = fit.means.n[:, None] / fit.means.ratio
    share = counted * wanted.sd**2 / fit.hierarchical.effects.unit**2
    np.testing.assert_allclose(found["data_weight"], np.minimum(share, 1.0), rtol=1e-6)
    assert list(found["perturbations"]) == ["CDK4", "FOS", "MYC"]
    assert list(found["genes"]) == fit.genes
    assert found["n_cells"].tolist() == [60, 60, 60]
    x, label = fitted.X, fitted.obs["perturbation"].to_numpy()
    plain = x[label == "FOS"].mean(axis=0) - x[label == "control"].mean(axis=0)
    np.testing.assert_allclose(found["raw_mean"][1], plain, atol=1e-5)
    assert found["params"]["level"] == 0.8


def test_effects_are_nearer_the_truth_than_the_cells(fitted):
    npt.tl.perturbation_effects(fitted)
    found = fitted.uns["perturbation_effects"]
    b = fitted.uns["truth"]["weights"]
    total = np.linalg.inv(np.eye(fitted.n_vars) - b.toarray())
    fit = posterior_from(fitted)
    changed = {name: fitted.var_names.get_loc(name) for name in found["perturbations"]}
    x, label = fitted.X, fitted.obs["perturbation"].to_numpy()
    errors = []
    for j, (name, gene) in enumerate(changed.items()):
        own = x[label == name][:, gene].mean() - fit.control_mean[gene]
        truth = total[:, gene] / total[gene, gene] * own
        errors.append([((found[k][j] - truth) ** 2).sum() for k in ("mean", "raw_mean")])
        assert np.argmax(np.abs(found["direct"][j])) == gene
    assert np.sum(errors, axis=0)[0] < 0.5 * np.sum(errors, axis=0)[1]


def test_candidates_without_cells_have_what_is_expected(fitted):
    names = ["MYC", "STAT3", "FOS+STAT3"]
    npt.tl.perturbation_effects(fitted, candidates=names)
    found = fitted.uns["perturbation_effects"]
    assert list(found["perturbations"]) == names
    assert found["n_cells"].tolist() == [60, 0, 0]
    fit, own = posterior_from(fitted), fitted.var_names.get_loc("STAT3")
    efficacy = fitted.uns["dag_blr"]["efficacy"]
    shift = np.zeros((1, fitted.n_vars))
    shift[0, own] = -efficacy["mean"] * fit.control_mean[own]
    # By the weights of the predictors: the graph's, and what the others say of each gene.
    weight = fit.expectation.weights
    graph = fit.posterior.predict_mean(shift) - fit.posterior.predict_mean(np.zeros(fitted.n_vars))
    told = Perturbations(fit.expectation.measured.moments, 0, [-1], [[own]], shift)
    wanted = weight["coexpression"] * Coexpression().predict(fit.expectation.measured, told).effects
    mean = MeanPerturbation().predict(fit.expectation.measured, told).effects
    assert np.abs(mean).max() > 0.01
    wanted += weight["mean perturbation"] * mean
    wanted = wanted + weight["graph"] * graph + (1 - weight["graph"]) * shift
    np.testing.assert_allclose(found["mean"][1], wanted[0], atol=1e-10)
    assert found["direct"][1, own] == pytest.approx(shift[0, own], rel=0.5)
    # A combination does what its measured member does, and what is expected of the other.
    npt.tl.perturbation_effects(fitted, candidates=["FOS", "STAT3+FOS"], key_added="both")
    both = fitted.uns["both"]
    assert both["n_cells"].tolist() == [60, 0]
    np.testing.assert_allclose(found["mean"][2], both["mean"][0] + wanted[0], atol=1e-10)
    np.testing.assert_allclose(found["mean"][2], both["mean"][1], atol=1e-10)
    assert (found["data_weight"][1:] == 0).all()
    assert found["data_weight"][0].max() > 0
    assert np.isnan(found["raw_mean"][1:]).all()
    npt.tl.perturbation_effects(fitted, key_added="seen")
    row = list(fitted.uns["seen"]["perturbations"]).index("MYC")
    np.testing.assert_allclose(found["mean"][0], fitted.uns["seen"]["mean"][row])
    # Without cells, the own gene is as uncertain as the efficacy: of the variance, its equation's.
    sd = efficacy["sd"] * fit.control_mean[own]
    assert found["sd"][1, own] >= 0.99 * sd


def test_every_gene_and_tables_of_shifts(fitted):
    npt.tl.perturbation_effects(fitted, candidates="genes")
    found = fitted.uns["perturbation_effects"]
    assert len(found["perturbations"]) == fitted.n_vars
    table = pd.DataFrame({"MYC": [-1.0], "STAT3": [0.5]}, index=["mine"])
    npt.tl.perturbation_effects(fitted, candidates=table)
    found = fitted.uns["perturbation_effects"]
    places = fitted.var_names.get_indexer(["MYC", "STAT3"])
    np.testing.assert_allclose(found["direct"][0, places], [-1.0, 0.5], atol=1e-10)
    assert found["n_cells"].tolist() == [0]


def test_exact_shifts_are_certain_but_for_the_weights(fitted):
    npt.tl.fit_dag_blr(fitted, shift_sd=0)
    npt.tl.perturbation_effects(fitted, candidates=["MYC", "STAT3"])
    found = fitted.uns["perturbation_effects"]
    fit = posterior_from(fitted)
    for j, gene in enumerate(["MYC", "STAT3"]):
        own = fitted.var_names.get_loc(gene)
        np.testing.assert_allclose(found["direct"][j, own], -fit.control_mean[own])
    assert (found["data_weight"] == 0).all()
    assert found["n_cells"].tolist() == [60, 0]


def test_as_an_anndata_of_its_own(fitted, tmp_path):
    before = set(fitted.uns)
    effects = npt.tl.perturbation_effects(fitted, as_anndata=True)
    assert set(fitted.uns) == before
    npt.tl.perturbation_effects(fitted)
    found = fitted.uns["perturbation_effects"]
    np.testing.assert_array_equal(effects.X, found["mean"])
    for name in ("sd", "lower", "upper", "lfsr", "direct", "data_weight", "raw_mean"):
        np.testing.assert_array_equal(effects.layers[name], found[name])
    assert effects.obs["n_cells"].tolist() == [60, 60, 60]
    assert effects.var_names.tolist() == list(found["genes"])
    effects.write_h5ad(tmp_path / "effects.h5ad")
    back = ad.read_h5ad(tmp_path / "effects.h5ad")
    np.testing.assert_array_equal(back.layers["lfsr"], found["lfsr"])


def test_graphs_of_resamples_are_averaged(small_screen):
    """Exact shifts act on each of the graphs, which count alike."""
    npt.tl.learn_dag(small_screen, method="boss", n_graphs=3, rng=0)
    npt.tl.fit_dag_blr(small_screen, shift_sd=0)
    fit = posterior_from(small_screen)
    assert len(fit.ensemble) == 3
    npt.tl.perturbation_effects(small_screen)
    found = small_screen.uns["perturbation_effects"]
    each = [exact_effects([blr], fit.shifts).mean for blr in fit.posteriors]
    np.testing.assert_allclose(found["mean"], np.mean(each, axis=0), atol=1e-12)
    np.testing.assert_allclose(found["direct"], fit.shifts, atol=1e-12)
    assert found["params"]["n_graphs"] == 3


@pytest.fixture
def narrow(fitted):
    """The same cells, with half of the genes in the panel; FOS and a constant gene are not."""
    adata = fitted
    adata.X[:, adata.var_names.get_loc("B2M")] = 0.5
    panel = [gene for gene in adata.var_names[::2] if gene not in ("FOS", "B2M")]
    return with_fit(adata, genes=sorted({*panel, "MYC", "CDK4", "STAT3"}))


def test_genes_outside_the_panel_are_shrunken(narrow):
    npt.tl.perturbation_effects(narrow, key_added="panel")
    npt.tl.perturbation_effects(narrow, genes="all", candidates=["FOS", "MYC", "STAT3"])
    found, panel = narrow.uns["perturbation_effects"], narrow.uns["panel"]
    assert list(found["genes"]) == list(narrow.var_names)
    assert set(found["genes"][found["in_graph"]]) == set(panel["genes"])
    rows = [list(panel["perturbations"]).index(name) for name in ("FOS", "MYC")]
    columns = [list(found["genes"]).index(gene) for gene in panel["genes"]]
    for name in ("mean", "sd", "lfsr", "direct", "raw_mean"):
        np.testing.assert_allclose(found[name][:2][:, columns], panel[name][rows])
    outside = np.flatnonzero(~found["in_graph"])
    assert np.isnan(found["direct"][:, outside]).all()
    x, label = narrow.X, narrow.obs["perturbation"].to_numpy()
    control = x[label == "control"].mean(axis=0)
    for j, name in enumerate(["FOS", "MYC"]):
        plain = x[label == name].mean(axis=0) - control
        np.testing.assert_allclose(found["raw_mean"][j, outside], plain[outside], atol=1e-5)
        assert (np.abs(found["mean"][j, outside]) <= np.abs(plain[outside]) + 0.3).all()
    np.testing.assert_allclose(found["mean"][2, outside], 0, atol=1e-6)  # STAT3 has no cells
    own = narrow.var_names.get_loc("FOS")
    assert found["lfsr"][0, own] < 1e-3
    assert abs(found["mean"][0, own] / found["raw_mean"][0, own] - 1) < 0.2
    constant = narrow.var_names.get_loc("B2M")
    assert (found["mean"][:, constant] == 0).all()
    np.testing.assert_array_equal(found["lfsr"][:, constant], [1, 1, np.nan])


@pytest.mark.parametrize("at_once", [500, 20])
def test_effects_outside_the_panel_are_recovered_in_blocks(at_once, monkeypatch):
    """One gene in ten responds; nine tenths of the intervals of the others cover 0.

    The chain of every block has the sweeps of all genes outside the panel, not those of the block.
    """
    rng, names = np.random.default_rng(0), [f"P{j}" for j in range(12)]
    label = np.repeat(["control", *names], [500, *[40] * 12])
    truth = 1.5 * rng.choice([-1, 1], (12, 40)) * (rng.random((12, 40)) < 0.1)
    x = 3.0 + rng.normal(size=(len(label), 40))
    for name, effect in zip(names, truth, strict=True):
        x[label == name] += effect
    adata = screen_of(x, label)
    with_fit(adata, genes=["g0", "g1"])
    monkeypatch.setattr("nextpert.tl._perturbation_effects._AT_ONCE", at_once)
    sizes, chains = [], []

    def of_size(size):
        sizes.append(size)
        return Chain(50, 50, 2)

    def fit(*given, chain, **options):
        chains.append(chain)
        return fit_hierarchical(*given, chain=chain, **options)

    monkeypatch.setattr(Chain, "of_size", of_size)
    monkeypatch.setattr("nextpert.tl._perturbation_effects.fit_hierarchical", fit)
    effects = npt.tl.perturbation_effects(adata, genes="all", as_anndata=True)[names]
    assert sizes == [12 * 2, 12 * 38]  # of the panel, and of the other genes
    assert set(chains) == {Chain(50, 100, 1)}
    outside = np.arange(40) >= 2
    mean, lower, upper, lfsr, weight = (
        np.asarray(table)[:, outside]
        for table in (effects.X, *(effects.layers[k] for k in ("lower", "upper", "lfsr")),
                      effects.layers["data_weight"])
    )  # fmt: skip
    truth = truth[:, outside]
    strong = truth != 0
    assert ((lfsr < 0.05) & (np.sign(mean) == np.sign(truth)))[strong].mean() > 0.95
    np.testing.assert_allclose(mean[strong], truth[strong], atol=0.8)
    assert ((lower <= 0) & (upper >= 0))[~strong].mean() > 0.9
    assert (lfsr[~strong] < 0.05).mean() < 0.02
    raw = effects.layers["raw_mean"][:, outside]
    assert ((mean - truth) ** 2).sum() < 0.7 * ((raw - truth) ** 2).sum()
    assert weight[strong].mean() > weight[~strong].mean()


@pytest.mark.parametrize("n_alone", [2, 4])
def test_own_genes_of_combinations_do_what_they_did_alone(n_alone):
    rng, names = np.random.default_rng(0), ["A", "B", "C", "D"][:n_alone]
    label = np.repeat(["control", *names], [800, *[400] * n_alone])
    x = 3 + rng.normal(size=(len(label), 8))
    fallen = dict(zip(names, [2.9, 0.3, 1.5, 1.5], strict=False))
    for k, (name, by) in enumerate(fallen.items()):
        x[label == name, k] -= by
        x[label == name, 4 + k] += 1
    adata = screen_of(x, label, [*"ABCD", *"efgh"])
    with_fit(adata, [("A", "h")])
    npt.tl.perturbation_effects(adata, candidates=["A", "B", "A+B"])
    mean = adata.uns["perturbation_effects"]["mean"]
    place = [list(adata.uns["perturbation_effects"]["genes"]).index(gene) for gene in "ABef"]
    np.testing.assert_allclose(mean[2, place], (mean[0] + mean[1])[place], atol=0.02)
    np.testing.assert_allclose(mean[2, place], [-2.9, -0.3, 1, 1], atol=0.25)
