"""Side information and labels of which nothing is known, as users give and ask for them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.posterior import posterior_from
from tests._screens import screen_of, with_fit

pytestmark = pytest.mark.full_chain

N_SEEN, N_UNSEEN, N_GENES, N_MODULES = 24, 8, 20, 4
NAMES = [f"P{j}" for j in range(N_SEEN + N_UNSEEN)]
UNSEEN = NAMES[N_SEEN:]


@pytest.fixture(scope="module")
def modules():
    """A screen whose targets are on no panel, the truth, and the features of perturbations."""
    rng = np.random.default_rng(3)
    module = np.arange(len(NAMES)) % N_MODULES
    effects = 0.3 * rng.normal(size=N_GENES) + 0.1 * rng.normal(size=(len(NAMES), N_GENES))
    effects += 0.5 * rng.normal(size=(N_MODULES, N_GENES))[module]
    label = np.repeat(np.arange(N_SEEN + 1), [400, *[40] * N_SEEN])
    x = 2 + rng.normal(size=(len(label), N_GENES)) + np.vstack([np.zeros(N_GENES), effects])[label]
    adata = screen_of(x, np.array(["control", *NAMES])[label], [f"G{g}" for g in range(N_GENES)])
    npt.pp.setup_screen(adata, check_scale=False)
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    table = rng.normal(size=(N_MODULES, 5))[module] + 0.2 * rng.normal(size=(len(NAMES), 5))
    return adata, effects, pd.DataFrame(table, index=NAMES)


@pytest.fixture(scope="module")
def informed(modules):
    adata = modules[0].copy()
    npt.tl.fit_dag_blr(adata, features=modules[2])
    npt.tl.perturbation_effects(adata, candidates=UNSEEN)
    return adata


@pytest.fixture(scope="module")
def plain(modules):
    adata = modules[0].copy()
    npt.tl.fit_dag_blr(adata)
    with pytest.warns(UserWarning, match="Nothing is known about P24, P25"):
        npt.tl.perturbation_effects(adata, candidates=UNSEEN)
    return adata


def weights(adata):
    found = adata.uns["dag_blr"]["predictors"]
    return dict(zip(found["predictors"], found["weights"], strict=True))


@pytest.mark.slow
def test_unseen_perturbations_follow_their_features(modules, informed, plain):
    truth = modules[1][N_SEEN:]
    error = [
        ((adata.uns["perturbation_effects"]["mean"] - truth) ** 2).sum()
        for adata in (informed, plain)
    ]
    assert error[0] < 0.5 * error[1]
    assert weights(informed)["features"] > 0.8
    assert "features" not in weights(plain)
    # Intervals are narrower, and as wide as they have to be.
    width = []
    for adata in (informed, plain):
        found = adata.uns["perturbation_effects"]
        assert 0.83 <= ((found["lower"] <= truth) & (truth <= found["upper"])).mean() <= 0.96
        width.append((found["upper"] - found["lower"]).mean())
    assert width[0] < 0.75 * width[1]


def test_candidates_without_features_have_wider_intervals(modules, informed):
    """The fit knows features of all, but this label has none: its departures are the others'."""
    with pytest.warns(UserWarning, match="Nothing is known"):
        npt.tl.perturbation_effects(informed, candidates=["P24", "unheard of"])
    found = informed.uns["perturbation_effects"]
    described, alone = (found["upper"] - found["lower"]).mean(axis=1)
    scales = informed.uns["dag_blr"]["predictors"]["scales"]
    assert (scales[1] < scales[0]).all()
    assert described < 0.8 * alone
    target = {f"G{g}": 2 + modules[1][N_SEEN, g] for g in range(N_GENES)}
    npt.tl.design_interventions(informed, target, candidates=["P24"], n_samples=200)
    table = informed.uns["design"]["ranking"].iloc[0]
    narrow = table["predicted_high"] - table["predicted_low"]
    informed.uns["dag_blr"]["predictors"]["scales"] = np.ones((2, 2))
    npt.tl.design_interventions(informed, target, candidates=["P24"], n_samples=200)
    table = informed.uns["design"]["ranking"].iloc[0]
    informed.uns["dag_blr"]["predictors"]["scales"] = scales
    assert narrow < 0.8 * (table["predicted_high"] - table["predicted_low"])


def test_a_label_of_which_nothing_is_known_is_the_mean_perturbation(modules, plain):
    found = plain.uns["perturbation_effects"]
    assert np.ptp(found["mean"], axis=0).max() < 1e-9
    seen = posterior_from(plain).expectation.measured
    share = weights(plain)["mean perturbation"]
    assert share > 0.3
    np.testing.assert_allclose(found["mean"][0], share * seen.observed.mean(axis=0), atol=0.02)
    truth = modules[1][N_SEEN:]
    inside = (found["lower"] <= truth) & (truth <= found["upper"])
    assert 0.85 <= inside.mean() <= 1


def test_labels_without_targets_are_designed_with(modules, plain, informed):
    target = {f"G{g}": 2 + modules[1][N_SEEN, g] for g in range(N_GENES)}
    with pytest.warns(UserWarning, match="Nothing is known"):
        npt.tl.design_interventions(plain, target, candidates=["P0", "P24", "P25"], n_samples=50)
    npt.tl.design_interventions(informed, target, candidates=UNSEEN, n_samples=200)
    ranking = informed.uns["design"]["ranking"].set_index("perturbation")
    alike = ["P24", "P28"]  # of the module of the target
    others = [name for name in UNSEEN if name not in alike]
    distance = ranking["predicted_distance"]
    assert distance[alike].max() < distance[others].min()
    npt.tl.perturbation_effects(informed, candidates=["P24+P25"])
    sums = informed.uns["perturbation_effects"]["mean"][0]
    npt.tl.perturbation_effects(informed, candidates=["P24", "P25"])
    each = informed.uns["perturbation_effects"]["mean"]
    np.testing.assert_allclose(sums, each.sum(axis=0), atol=0.05)


def test_a_screen_with_targets_refuses_what_is_probably_misspelled(small_screen):
    screen = small_screen.copy()
    with_fit(screen, [("MYC", "STK3")], genes=None)
    with pytest.raises(ValueError, match="outside the panel"):
        npt.tl.perturbation_effects(screen, candidates=["MYCC"])
    sets = {"one": ["MYC", "MYCC"], "two": ["STK3", "OXR1"]}
    npt.tl.fit_dag_blr(screen, features=sets)
    npt.tl.perturbation_effects(screen, candidates=["MYCC"])
    assert screen.uns["perturbation_effects"]["perturbations"].tolist() == ["MYCC"]


@pytest.mark.slow
def test_another_screen_predicts_what_only_it_has(modules, plain):
    adata, effects, _ = modules
    adata = adata.copy()
    error = 0.1
    rng = np.random.default_rng(0)
    seen = effects + error * rng.normal(size=effects.shape)
    seen[2, :5] = np.nan
    other = ad.AnnData(seen, pd.DataFrame(index=NAMES), adata.var[[]])
    other.layers["se"] = np.full(seen.shape, error)
    half = np.arange(len(NAMES)) // N_MODULES % 2 == 0
    npt.tl.fit_dag_blr(adata, features=other[half].copy())
    found = weights(adata)
    assert found["other screen"] + found["features"] > 0.7
    with pytest.warns(UserWarning, match="Nothing is known"):
        npt.tl.perturbation_effects(adata, candidates=UNSEEN)
    truth, without = effects[N_SEEN:], plain.uns["perturbation_effects"]["mean"]
    away = ((adata.uns["perturbation_effects"]["mean"] - truth) ** 2).sum(axis=1)
    before = ((without - truth) ** 2).sum(axis=1)
    assert away[:4].sum() < 0.3 * before[:4].sum()
    assert away[4:].sum() < 1.1 * before[4:].sum()


def known_elsewhere(effects, adata, order, *, se=True):
    rng = np.random.default_rng(0)
    seen = (effects + 0.05 * rng.normal(size=effects.shape))[order]
    other = ad.AnnData(seen, pd.DataFrame(index=NAMES[: len(seen)]), adata.var[[]])
    if se:
        other.layers["se"] = np.full(seen.shape, 0.05)
    return other


def effects_with_cells(adata, features=None):
    adata = adata.copy()
    npt.tl.fit_dag_blr(adata, features=features)
    return npt.tl.perturbation_effects(adata, candidates=NAMES[:N_SEEN], as_anndata=True)


@pytest.mark.slow
def test_another_screen_tells_of_perturbations_with_cells_where_it_is_alike(modules, tmp_path):
    adata, effects, _ = modules
    every, truth = np.arange(N_SEEN), effects[:N_SEEN]
    alone = effects_with_cells(adata)
    with_it = effects_with_cells(adata, known_elsewhere(effects, adata, every))
    far = ((alone.X - truth) ** 2).sum()
    assert ((with_it.X - truth) ** 2).sum() < 0.4 * far
    held = (with_it.layers["lower"] <= truth) & (truth <= with_it.layers["upper"])
    assert 0.85 < held.mean() < 0.95
    # Of permuted labels, and without standard errors, it has no say.
    order = np.roll(every, 1)
    for features in (
        known_elsewhere(effects, adata, order),
        known_elsewhere(effects, adata, every, se=False),
    ):
        without = effects_with_cells(adata, features)
        np.testing.assert_array_equal(without.X, alone.X)
    path = tmp_path / "fit.h5ad"
    fitted = adata.copy()
    npt.tl.fit_dag_blr(fitted, features=known_elsewhere(effects, adata, every))
    fitted.write_h5ad(path)
    back = npt.tl.perturbation_effects(ad.read_h5ad(path), as_anndata=True)
    np.testing.assert_array_equal(back[with_it.obs_names].X, with_it.X)


@pytest.mark.slow
def test_effects_of_another_fit_tell_as_much_as_their_cells(modules):
    adata, effects, _ = modules
    rng = np.random.default_rng(1)
    there = adata.copy()
    truth = pd.DataFrame(effects, index=NAMES).T.assign(control=0.0).T
    there.X = 2 + truth.loc[adata.obs["perturbation"]].to_numpy() + rng.normal(size=there.shape)
    npt.tl.fit_dag_blr(there)
    other = npt.tl.perturbation_effects(there, as_anndata=True)
    found, alone = effects_with_cells(adata, other), effects_with_cells(adata)
    far, truth = ((alone.X - effects[:N_SEEN]) ** 2).sum(), effects[:N_SEEN]
    # 0.89; one chain for both screens (equation 24 of before) had 0.70.
    assert ((found.X - truth) ** 2).sum() < 0.95 * far
