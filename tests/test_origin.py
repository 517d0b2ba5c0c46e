"""Results know what they came from: cells, roles of columns, and the fit behind them."""

import warnings

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import read_roles
from nextpert._adata.origin import fingerprint
from tests._screens import new_copies, small_cells, small_edges, with_fit

pytestmark = [
    pytest.mark.brief_chain,
    pytest.mark.filterwarnings("ignore:Batches nest in conditions", "ignore:Perturbations left"),
]


@new_copies
def fitted():
    """Fit a screen with guides, two batches and two conditions, and store its effects."""
    adata = small_cells()
    n = np.arange(adata.n_obs)
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["line"] = pd.Categorical(np.where(n // 2 % 2, "x", "y"))
    adata.obs["guide"] = pd.Categorical([f"{a}_{k}" for a, k in zip(labels, n % 3, strict=True)])
    adata.obs["depth"] = np.linspace(-1, 1, adata.n_obs)
    npt.pp.setup_screen(
        adata, guide_key="guide", batch_key="batch", condition_key="line", covariates="depth"
    )
    return with_fit(adata, small_edges(), genes=None)


def swapped(column):
    """Return a change that gives the cells of two levels of a column each other's level."""

    def change(adata):
        one, other = sorted(adata.obs[column].astype(str).unique())[:2]
        names = adata.obs[column].astype(str).replace({one: other, other: one})
        adata.obs[column] = pd.Categorical(names)

    return change


def replaced(column):
    """Return a change that deals the levels of a column to other cells."""

    def change(adata):
        adata.obs[column] = np.roll(np.asarray(adata.obs[column]), 1)

    return change


def silently(call, *args, **options):
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings("ignore", message="Perturbations left out|Batches nest")
        return call(*args, **options)


def permuted(adata):
    return adata[np.random.default_rng(0).permutation(adata.n_obs)].copy()


def test_the_order_of_cells_changes_nothing(fitted):
    for adata in (fitted, permuted(fitted)):
        silently(npt.tl.perturbation_effects, adata, condition="x")


@pytest.mark.parametrize(
    "change",
    [swapped("line"), replaced("line"), replaced("batch"), replaced("guide"), replaced("depth")],
)
def test_changed_roles_of_cells_are_noticed(fitted, change):
    change(fitted)
    for adata in (fitted, permuted(fitted)):
        with pytest.warns(UserWarning, match=r"The cells .* have changed since .*fit_dag_blr"):
            npt.tl.perturbation_effects(adata, condition="x")


@pytest.mark.parametrize(
    ("roles", "words"),
    [
        ({"control": "STK3"}, "control 'STK3'"),
        ({"layer": "lognorm"}, "layer 'lognorm'"),
        ({"guide_key": None}, "guide_key ''"),
    ],
)
def test_roles_declared_after_the_fit_are_noticed(fitted, roles, words):
    silently(npt.get.fitted_perturbations, fitted)
    npt.pp.setup_screen(fitted, **roles)
    for call in (npt.tl.perturbation_effects, npt.get.fitted_perturbations):
        with pytest.warns(UserWarning, match=f"declared {words} since.*fit_dag_blr again"):
            call(fitted)


def test_results_of_two_fits_are_named(small_screen, edges, tmp_path):
    adata = small_screen
    with_fit(adata, edges, genes=None)
    npt.tl.perturbation_effects(adata)
    npt.tl.design_interventions(adata, "MYC")
    npt.tl.target_distances(adata, "MYC")
    assert "Warning" not in silently(npt.summary, adata).facts
    silently(npt.pl.perturbation_effects, adata, show=False)
    npt.pp.setup_screen(adata, control="STK3", layer="lognorm")
    npt.tl.fit_dag_blr(adata)
    npt.tl.design_interventions(adata, "MYC")
    words = npt.summary(adata).facts["Warning"]
    page = npt.report(adata, tmp_path / "page.html").read_text()
    for shown in (words, page):
        assert "another fit" in shown
    silently(npt.pl.design, adata, show=False)
    with pytest.warns(UserWarning, match=r"'perturbation_effects'.* another fit.*again"):
        npt.pl.perturbation_effects(adata, show=False)
    mpl.pyplot.close("all")


def smaller(adata):
    npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STK3")], genes=["MYC", "STK3", "OXR1"])


def without_guides(adata):
    npt.pp.setup_screen(adata, guide_key=None)


@pytest.mark.parametrize(
    ("kind", "change"),
    [(kind, None) for kind in ("itself", "h5ad", "zarr")]
    + [("itself", change) for change in (permuted, smaller, without_guides)],
)
def test_effects_of_the_same_cells_are_no_side_information(fitted, kind, change, tmp_path):
    effects = npt.tl.perturbation_effects(fitted, as_anndata=True, genes=["MYC", "STK3", "OXR1"])
    given = effects
    if kind in ("h5ad", "zarr"):
        given = tmp_path / f"effects.{kind}"
        getattr(effects, f"write_{kind}")(given)
    adata = fitted if change is None else change(fitted) or fitted
    with pytest.raises(ValueError, match=r"features has effects from the cells of adata: give"):
        npt.tl.fit_dag_blr(adata, features=given)
    if change is None:
        npt.tl.fit_dag_blr(adata[100:].copy(), features=given)  # other cells


def test_zeros_of_either_sign_are_the_same_cells(small_screen):
    cells = small_screen.copy()
    cells.X = np.zeros(cells.shape)
    other = cells.copy()
    other.X = -cells.X
    assert np.signbit(other.X).all()
    columns = np.arange(cells.n_vars)
    digests = {fingerprint(x, read_roles(x), columns) for x in (cells, other)}
    assert len(digests) == 1
