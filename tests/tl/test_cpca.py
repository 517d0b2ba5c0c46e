import importlib.util
import sys

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from contrastive import CPCA
from scipy.linalg import eigh

from nextpert.datasets import simulated_screen
from nextpert.study import contrast_search as _contrast_search
from nextpert.tl import cpca
from tests._screens import new_copies


@new_copies
def adata():
    return simulated_screen(n_control=400, n_perturbed=60, perturbed=4, rng=3)


def _parts(adata, genes=None):
    x = np.asarray(adata.X, dtype=float)
    if genes is not None:
        x = x[:, adata.var_names.get_indexer(genes)]
    is_control = (adata.obs["perturbation"] == "control").to_numpy()
    return x, is_control


def _leading(matrix, k):
    """Leading eigenvectors by scipy's solver, largest entry positive."""
    values, vectors = eigh(matrix)
    top = vectors[:, ::-1][:, :k]
    signs = np.sign([column[np.argmax(np.abs(column))] for column in top.T])
    return top * signs, values[::-1][:k]


@pytest.mark.parametrize("alpha", [0, 0.7, 5.0])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_loadings_are_eigenvectors_of_the_contrast(adata, alpha, k):
    cpca(adata, alpha=alpha, n_components=k)
    x, is_control = _parts(adata)
    loadings, values = _leading(np.cov(x[~is_control].T) - alpha * np.cov(x[is_control].T), k)
    np.testing.assert_allclose(adata.varm["cPCs"], loadings, atol=1e-7)
    np.testing.assert_allclose(adata.uns["cpca"]["eigenvalues"], values, rtol=1e-7)
    scores = (x - x[is_control].mean(0)) @ loadings
    np.testing.assert_allclose(adata.obsm["X_cpca"], scores, atol=1e-6)
    np.testing.assert_allclose(adata.obsm["X_cpca"][is_control].mean(0), 0, atol=1e-6)


def test_agrees_with_the_package_up_to_sign_and_origin(adata):
    x, is_control = _parts(adata)
    peer = CPCA(n_components=2, standardize=False)
    expected = peer.fit_transform(
        x[~is_control], x[is_control], alpha_selection="manual", alpha_value=2.0
    )
    cpca(adata, alpha=2.0)
    ours = adata.obsm["X_cpca"][~is_control]
    ours = ours - ours.mean(0)
    signs = np.sign((ours * expected).sum(0))
    np.testing.assert_allclose(ours * signs, expected, atol=1e-6)


def test_automatic_alpha_is_one_that_the_package_proposes(adata):
    x, is_control = _parts(adata)
    peer = CPCA(n_components=2, standardize=False)
    peer.fit(x[~is_control], x[is_control])
    ratios = eigh(np.cov(x[~is_control].T), np.cov(x[is_control].T), eigvals_only=True)
    most = ratios[-1]
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(int(np.random.default_rng(0).integers(2**32)))  # noqa: NPY002
    proposed, *_ = peer.find_spectral_alphas(40, np.log10(most), 4)
    np.random.set_state(state)  # noqa: NPY002
    cpca(adata)
    result = adata.uns["cpca"]
    np.testing.assert_allclose(result["alphas"], proposed, rtol=1e-5)
    # The largest grid point is where the last positive eigenvalue of the contrast vanishes.
    contrast = np.cov(x[~is_control].T) - most * np.cov(x[is_control].T)
    assert eigh(contrast)[0][-1] == pytest.approx(0, abs=1e-9)
    assert result["alpha"] == result["alphas"][np.argmax(result["separation"])]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_without_the_package_results_are_the_same(adata, k, monkeypatch):
    wanted = cpca(adata, n_components=k, copy=True)
    # The module read again, as where the package is not installed.
    monkeypatch.setitem(sys.modules, "contrastive", None)
    spec = importlib.util.find_spec("nextpert.study.contrastive")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not issubclass(module.CovarianceCpca, CPCA)
    monkeypatch.setattr("nextpert.tl._cpca.contrast", module.contrast)
    cpca(adata, n_components=k)
    for name in ("alpha", "alphas", "separation", "eigenvalues"):
        np.testing.assert_allclose(adata.uns["cpca"][name], wanted.uns["cpca"][name], rtol=1e-9)
    np.testing.assert_allclose(adata.obsm["X_cpca"], wanted.obsm["X_cpca"], atol=1e-9)


def test_the_search_is_that_of_the_package():
    rng = np.random.default_rng(1)

    class Ours(_contrast_search.CPCA):
        cpca_alpha = CPCA.cpca_alpha

    for n in (4, 7):
        foreground, background = rng.normal(size=(2, 300, n)) * rng.gamma(2.0, size=(2, 1, n))
        peer, ours = CPCA(2, standardize=False), Ours(2, standardize=False)
        peer.fit(foreground, background)
        ours.fg, ours.fg_cov, ours.bg_cov = peer.fg, peer.fg_cov, peer.bg_cov
        found = []
        for each in (peer, ours):
            np.random.seed(3)  # noqa: NPY002
            found.append(each.find_spectral_alphas(20, 2.0, 3))
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-9)


def test_separation_is_the_hotelling_lawley_trace(adata):
    cpca(adata)
    result = adata.uns["cpca"]
    for alpha, separation in zip(result["alphas"], result["separation"], strict=True):
        other = adata.copy()
        cpca(other, alpha=alpha)
        scores = pd.DataFrame(other.obsm["X_cpca"])
        label = adata.obs["perturbation"].astype(str).to_numpy()
        within = sum((g - g.mean()).T @ (g - g.mean()) for _, g in scores.groupby(label))
        total = (scores - scores.mean()).T @ (scores - scores.mean())
        expected = np.trace(np.linalg.solve(within, total - within))
        assert separation == pytest.approx(expected, rel=1e-6)


def test_finds_what_the_background_hides():
    """Foreground and background share a loud direction; only the quiet one tells groups apart."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(900, 5))
    label = np.repeat(["control", "A", "B"], 300)
    x[:, 0] *= np.where(label == "control", 10, 13)
    x[:, 1] *= 3
    x[label == "A", 3] += 3
    x[label == "B", 3] -= 3
    adata = ad.AnnData(x, obs=pd.DataFrame({"perturbation": label}, index=map(str, range(900))))
    cpca(adata, alpha=0)
    assert np.abs(adata.varm["cPCs"][:, 0]).argmax() == 0
    cpca(adata)
    assert adata.uns["cpca"]["alpha"] > 0.5
    assert np.abs(adata.varm["cPCs"][:, 0]).argmax() == 3


def test_seed_decides_and_global_state_is_left_alone(adata):
    results = []
    for seed in (0, 1):
        np.random.seed(seed)  # noqa: NPY002
        state = np.random.get_state()[1].copy()  # noqa: NPY002
        cpca(adata, rng=7)
        np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002
        results.append(adata.uns["cpca"]["alphas"])
    np.testing.assert_array_equal(*results)


def test_a_panel_leaves_zeros_elsewhere(adata):
    genes = ["STAT1", "MYC", "B2M", "CTSA"]
    cpca(adata, genes=genes, alpha=1)
    x, is_control = _parts(adata, genes)
    loadings, _ = _leading(np.cov(x[~is_control].T) - np.cov(x[is_control].T), 2)
    inside = adata.var_names.get_indexer(genes)
    np.testing.assert_allclose(adata.varm["cPCs"][inside], loadings, atol=1e-7)
    assert not np.delete(adata.varm["cPCs"], inside, axis=0).any()
    assert adata.uns["cpca"]["genes"].tolist() == genes


def test_groups_choose_the_foreground_and_all_cells_are_projected(adata):
    group = next(name for name in adata.obs["perturbation"].unique() if name != "control")
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(object)
    adata.obs.iloc[0, 0] = np.nan
    cpca(adata, groups=[group], alpha=1)
    x, _ = _parts(adata)
    inside = (adata.obs["perturbation"] == group).to_numpy()
    controls = (adata.obs["perturbation"] == "control").to_numpy()
    loadings, _ = _leading(np.cov(x[inside].T) - np.cov(x[controls].T), 2)
    np.testing.assert_allclose(adata.varm["cPCs"], loadings, atol=1e-6)
    assert np.isfinite(adata.obsm["X_cpca"]).all()
    assert adata.uns["cpca"]["groups"].tolist() == [group]


def test_tied_eigenvalues_give_orthonormal_real_loadings():
    x = np.r_[np.eye(6), -np.eye(6), 2 * np.eye(6), -2 * np.eye(6)]
    obs = pd.DataFrame({"perturbation": ["control"] * 12 + ["A"] * 12}, index=map(str, range(24)))
    adata = ad.AnnData(x, obs=obs)
    cpca(adata, n_components=3)
    loadings = adata.varm["cPCs"]
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(3), atol=1e-12)


def _with_nan(adata):
    adata.X[3, 2] = np.nan


def _cells_left(adata, perturbed, n):
    """Leave one cell of the perturbed, or of the controls, by taking its label from the others."""
    labels = adata.obs["perturbation"].astype(object)
    cells = np.flatnonzero((labels != "control") == perturbed)
    labels.iloc[cells[n:]] = np.nan
    adata.obs["perturbation"] = labels


def _one_control(adata):
    _cells_left(adata, False, 1)


def _one_perturbed(adata):
    _cells_left(adata, True, 1)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, _one_control, "one control cell.*at least two"),
        ({}, _one_perturbed, "one perturbed cell.*at least two"),
        ({"alpha": -1}, None, "alpha"),
        ({"alpha": np.nan}, None, "alpha"),
        ({"alpha": "best"}, None, "'best'"),
        ({"control": "ctrl"}, None, "No control cells"),
        ({"perturbation_key": "pert"}, None, "'pert'"),
        ({"groups": ["NOPE"]}, None, "NOPE"),
        ({"groups": ["control"]}, None, "leave them out"),
        ({"groups": []}, None, "No perturbed cells"),
        ({"genes": ["MYC", "NOPE"]}, None, "NOPE"),
        ({"genes": ["MYC", "MYC"]}, None, "more than once"),
        ({"genes": ["MYC"]}, None, "at least 2"),
        ({"genes": ["MYC", "B2M"], "n_components": 3}, None, "at least 3"),
        ({"n_components": 0}, None, "n_components"),
        ({"layer": "log"}, None, "'log'"),
        ({"key_added": "a/b"}, None, "slash"),
        ({}, _with_nan, "NaN.*CD58"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(adata, options, change, message):
    if change:
        change(adata)
    with pytest.raises(ValueError, match=message):
        cpca(adata, **options)
    assert set(adata.uns) == {"truth"}
    assert not adata.obsm
    assert not adata.varm


def test_labels_left_out_are_named_unless_groups_are_given(small_screen, caplog):
    small_screen.obs["perturbation"] = small_screen.obs["perturbation"].cat.add_categories("")
    small_screen.obs.loc[small_screen.obs_names[:3], "perturbation"] = ""
    cpca(small_screen)
    assert "(empty)" in caplog.text
    caplog.clear()
    cpca(small_screen, groups=["MYC"])
    assert "(empty)" not in caplog.text
