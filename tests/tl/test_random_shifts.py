"""``tl.fit_dag_blr`` with shifts learned: who takes part, what is stored, guides, the refusals."""

from __future__ import annotations

import logging

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata import posterior_from

pytestmark = pytest.mark.filterwarnings("ignore:Perturbations left out")


@pytest.fixture
def screen(small_screen, arcs):
    npt.tl.learn_dag(small_screen, method="given", dag=arcs, genes=list(small_screen.var_names))
    return small_screen


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
    assert "learned from cells alone" in caplog.text
    assert "HS2 (not measured: HS2)" in caplog.text
    assert "from 5 own genes" in caplog.text


def test_labels_that_are_no_perturbation_are_left_out_unless_they_are_asked_for(screen):
    hs2 = screen.obs["perturbation"] == "HS2"
    screen.obs["perturbation"] = screen.obs["perturbation"].astype(str).mask(hs2, "multi")
    with pytest.warns(UserWarning, match=r"multi \(no perturbation\)"):
        npt.tl.fit_dag_blr(screen)
    assert "multi" not in screen.uns["dag_blr"]["environments"]["perturbation"].tolist()
    npt.tl.fit_dag_blr(screen, perturbations=["multi", "MYC"])
    assert "multi" in screen.uns["dag_blr"]["environments"]["perturbation"].tolist()


def test_states_lie_between_expectation_and_cells(screen):
    npt.tl.fit_dag_blr(screen)
    fit = posterior_from(screen)
    states = fit.shift_prior.given(fit.blr).states(fit.blr)
    for name, state in zip(fit.environments["perturbation"], states, strict=True):
        apart = ((state - mean_of(screen, name)) ** 2).sum()
        moved = ((mean_of(screen, "control") - mean_of(screen, name)) ** 2).sum()
        assert apart < (0.05 * moved if name != "HS2" else moved)


def test_weights_are_right_where_knockdowns_are_partial(small_screen, arcs, truth):
    """A third of the knockout's effect: exact shifts bend the weights, learned ones do not."""
    control = mean_of(small_screen, "control")
    for label in ("MYC", "STK3", "OXR1"):
        cells = (small_screen.obs["perturbation"] == label).to_numpy()
        small_screen.X[cells] += 2 / 3 * (control - mean_of(small_screen, label))
    npt.tl.learn_dag(small_screen, method="given", dag=arcs, genes=list(small_screen.var_names))
    errors = []
    for shift_sd in (0, "learned"):
        npt.tl.fit_dag_blr(small_screen, perturbations=["MYC", "STK3", "OXR1"], shift_sd=shift_sd)
        weights = small_screen.varp["dag_blr_mean"].toarray().T
        errors.append(((weights - truth.weights) ** 2).sum())
    assert errors[1] < 0.9 * errors[0]
    assert 0.2 < small_screen.uns["dag_blr"]["efficacy"]["mean"] < 0.5


def test_guides_that_differ_count_for_fewer_cells(screen):
    rng = np.random.default_rng(0)
    guide = rng.integers(0, 6, screen.n_obs)
    label = screen.obs["perturbation"].astype(str)
    screen.obs["guide"] = [f"{a}_{b}" for a, b in zip(label, guide, strict=True)]
    npt.tl.fit_dag_blr(screen, guide_key="guide", key_added="alike")
    codes = screen.obs["guide"].astype("category").cat.codes.to_numpy()
    away = 0.3 * rng.normal(size=(codes.max() + 1, screen.n_vars))
    screen.X = screen.X + away[codes]
    npt.tl.fit_dag_blr(screen, guide_key="guide")
    assert screen.uns["alike"]["guide_variance"] < 0.02
    assert screen.uns["dag_blr"]["guide_variance"] > 0.1
    n = screen.uns["dag_blr"]["shift_prior"]["n"]
    assert (n < 0.7 * screen.uns["alike"]["shift_prior"]["n"]).all()
    assert screen.uns["dag_blr"]["params"]["guide_key"] == "guide"


DAMAGES = {
    "gone": lambda s: s.pop("mean"),
    "short": lambda s: s.update(n=s["n"][:-1]),
    "negative cells": lambda s: s.update(n=-s["n"]),
    "not finite": lambda s: s.update(effect=s["effect"] * np.nan),
    "other grid": lambda s: s.update(tau2=s["tau2"] + 1),
    "no variance": lambda s: s.update(ratio=0 * s["ratio"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_priors_are_refused(damage, screen):
    npt.tl.fit_dag_blr(screen)
    DAMAGES[damage](screen.uns["dag_blr"]["shift_prior"])
    with pytest.raises(ValueError, match=r"run tl\.fit_dag_blr again"):
        posterior_from(screen)


@pytest.mark.parametrize("bad", ["exact", 1, -1.0, None])
def test_shift_sd_is_learned_or_nothing(bad, screen):
    before = set(screen.uns)
    with pytest.raises((ValueError, TypeError), match="shift_sd must be"):
        npt.tl.fit_dag_blr(screen, shift_sd=bad)
    assert set(screen.uns) == before
