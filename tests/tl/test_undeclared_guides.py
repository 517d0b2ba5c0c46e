"""Columns that look like guides but are not declared: found, measured, and no verdict of trust."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata.roles import Roles
from nextpert._adata.undeclared_guides import undeclared_guides
from nextpert.core import LinearScm, random_scm
from tests._screens import diagnosis_of, screen_of, with_graph

pytestmark = pytest.mark.brief_chain

CALL = 'npt.pp.setup_screen(adata, guide_key="guide")'


def screen(variance=0.1, *, effects=True, rng=0, n_genes=12, n_guides=3, n_cells=60):
    """Return knockouts of a known model, three guides each; guides scatter by a share of noise."""
    rng = np.random.default_rng(rng)
    unit = random_scm(n_genes, "erdos_renyi", expected_degree=4, rng=rng)
    mean = rng.uniform(2, 4, n_genes)
    scm = LinearScm(unit.weights, unit.noise_var, mean - unit.weights @ mean)
    sd = np.std(scm.sample(4000, rng=0), axis=0)
    parts, obs = [], []
    for j in range(n_genes - 1):
        name = "control" if j == 0 else f"G{j}"
        shift = -0.7 * mean * (np.arange(n_genes) == j) * (j > 0) * effects
        for k in range(10 if j == 0 else n_guides):
            cells = scm.sample(n_cells, shift, rng=rng)
            parts.append(cells + np.sqrt(variance) * sd * rng.normal(size=n_genes))
            obs += [(name, f"{name}_{k}")] * n_cells
    label, guide = zip(*obs, strict=True)
    genes, batch = [f"G{k}" for k in range(n_genes)], np.resize(["a", "b"], len(guide))
    adata = screen_of(np.vstack(parts), label, genes, guide=guide, batch=batch)
    return with_graph(adata, scm.weights.T)


@pytest.fixture(scope="module")
def undeclared():
    """The diagnosis of a screen whose guides scatter, and what fit and diagnosis warned of."""
    adata, said = screen(), []
    for step in (npt.tl.fit_dag_blr, npt.tl.diagnose):
        with pytest.warns(UserWarning, match="nest in the perturbation labels") as caught:
            step(adata)
        said.append(str(caught[0].message))
    return adata.uns["diagnosis"], said


def quantity(found, part, name):
    return found["summary"].set_index(["part", "quantity"]).loc[(part, name)]


# -- the warning --------------------------------------------------------------------------------


@pytest.mark.slow
def test_fit_and_diagnosis_warn_of_the_column_and_name_the_call(undeclared):
    for said in undeclared[1]:
        assert "adata.obs['guide']" in said
        assert CALL in said
        assert "differ by more than sampling error (p < 0.001)" in said


def test_cells_without_a_batch_say_nothing_of_the_scatter():
    adata = screen(n_genes=6)
    lost = np.arange(adata.n_obs) % 7 == 0
    adata.obs.loc[lost, "batch"] = None
    adata.X[lost] += 3.0 * np.random.default_rng(0).normal(size=(lost.sum(), 6))
    roles, names = Roles(batch_key=("batch",)), [f"G{k}" for k in range(1, 5)]
    whole, kept = (undeclared_guides(each, np.arange(6), names, roles)
                   for each in (adata, adata[~lost].copy()))  # fmt: skip
    assert whole.variance > 0
    assert (whole.variance, whole.p_value) == (kept.variance, kept.p_value)


def barcode(obs):
    return [f"AC{k}" for k in range(len(obs))]


def crossed(obs):
    return np.random.default_rng(0).choice(["x", "y", "z"], len(obs))


def label_and_batch(obs):
    return obs["perturbation"].astype(str) + obs["batch"]


def of_few_labels(obs):
    """Two levels in three labels alone."""
    two = obs["perturbation"].isin(["G1", "G2", "G3"]) & (np.arange(len(obs)) % 2 == 0)
    return obs["perturbation"].astype(str) + np.where(two, "_1", "")


def of_few_cells(obs):
    """A clone of three cells here and there."""
    place = np.arange(len(obs))
    return np.where(place % 60 < 3, obs["guide"].astype(str), obs["perturbation"].astype(str))


@pytest.mark.parametrize("column", [
    barcode, lambda obs: obs["batch"], lambda obs: obs["perturbation"], crossed, label_and_batch,
    of_few_labels, of_few_cells, lambda obs: np.random.default_rng(0).random(len(obs)),
    lambda obs: obs["perturbation"].str.lower(), lambda obs: "one", lambda obs: [[1]] * len(obs),
    lambda obs: np.nan,
])  # fmt: skip
def test_other_columns_are_no_guides(column):
    adata = screen()
    column = column(adata.obs)
    del adata.obs["guide"]
    adata.obs["extra"] = column
    npt.pp.setup_screen(adata, batch_key="batch")
    with warnings.catch_warnings(action="error"):
        npt.tl.fit_dag_blr(adata)


# -- the diagnosis ------------------------------------------------------------------------------


@pytest.mark.slow
def test_undeclared_guides_that_scatter_are_not_trusted(undeclared):
    found, _ = undeclared
    assert found["level"] != "trust"
    parts = found["parts"].set_index("part")
    assert parts.loc["guides", "level"] == "do not trust"
    assert CALL in parts.loc["guides", "verdict"]
    assert found["perturbations"]["split_by"].eq("guides").all()
    # Halves of the cells of one guide agree (0.86 here): they share what the guide does.
    assert quantity(found, "shrinkage", "coverage_90")["value"] < 0.75
    assert quantity(found, "shrinkage", "coverage_90_large")["value"] < 0.5
    assert parts.loc["shrinkage", "level"] == "do not trust"
    assert parts.loc["shrinkage", "verdict"].startswith("Effects: do not rely on them for ")
    adata = screen()
    npt.pp.setup_screen(adata, guide_key="guide")
    with warnings.catch_warnings(action="error"):
        npt.tl.fit_dag_blr(adata)
        npt.tl.diagnose(adata)
    declared = adata.uns["diagnosis"]
    assert quantity(declared, "shrinkage", "coverage_90")["value"] > 0.83
    assert quantity(declared, "shrinkage", "coverage_90_large")["value"] > 0.8
    assert declared["level"] == "trust"


@pytest.mark.slow
def test_declared_guides_count_although_those_of_the_controls_are_not_told_apart():
    adata = screen()
    control = (adata.obs["perturbation"] == "control").to_numpy()
    adata.obs["guide"] = np.where(control, "control", adata.obs["guide"])
    found = diagnosis_of(adata, guide_key="guide")
    assert adata.uns["dag_blr"]["guide_variance"] == pytest.approx(0.1, abs=0.05)
    assert quantity(found, "shrinkage", "coverage_90")["value"] > 0.83


@pytest.mark.slow
def test_of_many_cells_a_sample_is_read(monkeypatch):
    asked = screen(), np.arange(12), [f"G{k}" for k in range(1, 11)], Roles()
    whole = undeclared_guides(*asked)
    monkeypatch.setattr("nextpert._adata.undeclared_guides._CELLS", 700)
    some = undeclared_guides(*asked)
    assert whole.variance == pytest.approx(0.1, abs=0.04)
    assert some.variance == pytest.approx(0.1, abs=0.07)
    assert some.variance != whole.variance
    assert some.scatters


@pytest.mark.slow
def test_without_effects_guides_that_scatter_are_no_effects():
    found = diagnosis_of(screen(effects=False))
    assert found["level"] == "do not trust"
    assert quantity(found, "cells", "n_significant")["value"] <= 2  # of 10; 10 without guides
    assert quantity(found, "shrinkage", "error_to_no_effect")["passed"] == "no"
