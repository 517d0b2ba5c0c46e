"""Diagnoses of tables of effects: halves made of noise, and what is judged with them."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata import fitted_roles, posterior_from
from nextpert._adata.roles import read_roles
from nextpert._adata.screen import coding, read_environments, read_screens
from nextpert._adata.table import in_halves
from nextpert.core.model.scores import pooled_sizes
from nextpert.core.screen.guides import pool_guides
from nextpert.study.scores import _coverage
from nextpert.tl._read_halves import read_halves

pytestmark = pytest.mark.brief_chain

GENES = [f"g{i}" for i in range(40)]
NAMES = [*GENES[:9], "HS1"]
TOLD = {"n_cells": 80, "n_controls": 400}


def effects(seed=0, size=0.4, noise=0.1, names=NAMES):
    """Effects observed with noise of that standard deviation, and standard errors of 0.1."""
    rng = np.random.default_rng(seed)
    true = size * rng.normal(size=(len(names), len(GENES))) * (rng.random(len(GENES)) < 0.4)
    seen = pd.DataFrame(true + noise * rng.normal(size=true.shape), names, GENES)
    return seen, seen * 0 + 0.1


def moments_of(table):
    found = read_environments(table, read_roles(table))
    (screen,) = read_screens(table, np.arange(table.n_vars), [coding({"row": found.codes})])
    return screen.moments()


def diagnosed(seen, se, **told):
    table = npt.pp.effect_table(seen, se, **(TOLD | told))
    npt.tl.fit_dag_blr(table)
    npt.tl.diagnose(table)
    return table.uns["diagnosis"]


def quantities(found):
    return found["summary"].set_index(["part", "quantity"])["value"]


def test_halves_have_the_moments_of_thinning():
    """Means of the table, twice its variances, and no covariance between the halves.

    Over many tables, each observed with the errors that it states, those of the controls shared.
    """
    rng = np.random.default_rng(1)
    seen, se = effects()
    se *= rng.uniform(0.8, 1.2, se.shape)
    moments = moments_of(npt.pp.effect_table(seen, se, **TOLD))
    within = moments.scatter.diagonal() / (moments.n.sum() - moments.n_environments)
    sd = np.sqrt(within / moments.counted)
    draws = []
    for _ in range(4000):
        noisy = moments.mean + sd * rng.normal(size=sd.shape)
        halves = in_halves(replace(moments, mean=noisy), rng)
        draws.append([half.mean[:3, :5] for half in halves])
    drawn = np.array(draws)  # (draw, half, row, gene); the first row is that of the controls
    variance = sd[:3, :5] ** 2
    error = 4 / np.sqrt(4000)
    assert (np.abs(drawn.mean(axis=0) - moments.mean[:3, :5]) < error * np.sqrt(2 * variance)).all()
    away = drawn - drawn.mean(axis=0)
    assert np.allclose((away**2).mean(axis=0), 2 * variance, rtol=1.5 * error)
    assert (np.abs((away[:, 0] * away[:, 1]).mean(axis=0)) < 2 * error * variance).all()
    # Effects of one half share the error of its controls, and nothing with those of the other.
    change = away[:, :, 1:] - away[:, :, :1]
    shared = (change[:, :, 0] * change[:, :, 1]).mean(axis=(0, 1))
    assert np.allclose(shared, 2 * variance[0], atol=2 * error * 2 * variance.max())
    across = (change[:, 0, 0] * change[:, 1, 1]).mean(axis=0)
    assert (np.abs(across) < 2 * error * 2 * variance.max()).all()


def test_coverage_is_a_share_of_the_scored_genes():
    scored = np.tril(np.ones((4, 3), bool), -1)  # 0, 1, 2 and 3 genes
    inside = scored & (np.arange(3) != 1)
    np.testing.assert_array_equal(_coverage(inside, scored), [np.nan, 1.0, 1 / 2, 2 / 3])


def test_halves_add_up_to_the_table():
    seen, se = effects()
    seen.iloc[2, 5:9] = np.nan
    moments = moments_of(npt.pp.effect_table(seen, se, n_cells=7, n_controls=401))
    one, two = in_halves(moments, np.random.default_rng(0))
    assert (one.counted == two.counted).all()
    assert ((one.counted == 0) == (moments.counted == 0)).all()
    assert (one.n + two.n).tolist() == moments.n.tolist()
    assert np.allclose((one.mean + two.mean) / 2, moments.mean)
    assert np.allclose(one.counted + two.counted, moments.counted)
    for half in (one, two):  # what a mean counts for is its variance, in every half
        for row in range(moments.n_environments):
            assert np.allclose(half.mean_variance(row), 2 * moments.mean_variance(row))


def test_halves_are_independent_where_the_correlation_of_genes_is_known():
    """Else half of one gene and the other half of another have what is common to them."""
    rng, p, n = np.random.default_rng(3), len(GENES), 3000
    loading = rng.normal(size=(p, 1))
    sd = np.sqrt((loading**2).ravel() + 1)
    names = [f"p{j}" for j in range(n)]
    noise = rng.normal(size=(n, 1)) @ loading.T + rng.normal(size=(n, p))
    seen = pd.DataFrame(0.1 * noise / sd, names, GENES)
    cells = pd.DataFrame(rng.normal(size=(9 * n, 1)) @ loading.T + rng.normal(size=(9 * n, p)))
    across = []
    for given in (None, cells.set_axis(GENES, axis=1)):
        table = npt.pp.effect_table(
            seen, seen * 0 + 0.1, n_cells=100, n_controls=10**6, correlation=given
        )
        one, two = in_halves(moments_of(table), rng)
        both = one.mean[1:].T @ two.mean[1:] / n / 0.01
        across.append(np.abs(both - np.diag(both.diagonal())).max())
    assert across[0] > 0.5
    assert across[1] < 0.15


@pytest.mark.slow
def test_a_table_is_judged_by_halves_of_its_own():
    seen, se = effects(size=0.8)
    table = npt.pp.effect_table(seen, se, **TOLD)
    npt.tl.fit_dag_blr(table)
    npt.tl.diagnose(table)
    found = table.uns["diagnosis"]
    value, rows = quantities(found), found["perturbations"]
    assert found["level"] == "care"  # without control cells there is no trust
    assert rows["split_by"].eq("table").all()
    assert rows["n_cells"].eq(80).all()
    assert value["cells", "n_significant"] == 10
    assert value["shrinkage", "error_to_raw_means"] < 0.9
    assert value["shrinkage", "error_to_no_effect"] < 0.3
    assert 0.85 < value["shrinkage", "coverage_90"] < 0.95
    assert np.isnan(value["negative controls", "null_width"])
    words = found["parts"].set_index("part")["verdict"]
    assert "variation between clones and batches" in words["negative controls"]
    assert not found["parts"]["level"].eq("trust").any()  # alleles in another batch: 0.55 covered
    checks = npt.pl.diagnose(table, panel="checks", show=False)
    assert "a table has no control cells" in [text.get_text() for ax in checks for text in ax.texts]
    assert "half of the table" in npt.pl.diagnose(table, show=False)[0].get_title()


@pytest.mark.slow
def test_noise_is_found_to_be_noise():
    """Also where errors of genes are correlated, of which a table does not tell."""
    rng, levels = np.random.default_rng(0), []
    for seed in range(2):
        seen, se = effects(seed, size=0.0, noise=0.0)
        program = rng.normal(size=(len(seen), 1)) * np.sign(rng.normal(size=len(GENES)))
        seen += 0.1 * (np.sqrt(0.8) * program + np.sqrt(0.2) * rng.normal(size=seen.shape))
        levels.append(diagnosed(seen, se)["level"])
    assert levels.count("do not trust") >= 1
    assert "trust" not in levels


def test_tests_of_tables_allow_for_correlated_errors():
    rng, n, p = np.random.default_rng(2), 30, 60
    table = pd.DataFrame(np.zeros((n, p)), [f"p{j}" for j in range(n)], [f"G{i}" for i in range(p)])
    shares = []
    for _ in range(20):
        seen = table + 0.08 * rng.normal(size=(n, 1)) + 0.06 * rng.normal(size=(n, p))
        moments = moments_of(npt.pp.effect_table(seen, table + 0.1, **TOLD))
        sizes = pooled_sizes(pool_guides(moments, range(n + 1), n + 1))
        shares.append([(size.p_value < 0.05).mean() for size in sizes])
    # Taken as independent, errors of genes give 0.24 and 0.30.
    assert (np.mean(shares, axis=0) < 0.13).all()


@pytest.mark.slow
def test_standard_errors_that_are_too_small_are_pointed_at():
    """Halves of them share what is noise, and look alike: only their size gives it away."""
    seen, se = effects(3, size=0.0)
    right, half = diagnosed(seen, se), diagnosed(seen, se / 2)
    width = "negative controls", "perturbations_width"
    assert quantities(right)[width] < 1.1
    assert quantities(half)[width] == pytest.approx(2 * quantities(right)[width], rel=1e-6)
    words = half["parts"].set_index("part")["verdict"]["negative controls"]
    assert "standard errors are too small" in words
    assert quantities(half)["cells", "n_significant"] > 5
    assert half["level"] == "do not trust"
    assert half["parts"].set_index("part")["level"]["negative controls"] == "do not trust"
    assert not half["parts"]["level"].eq("trust").any()


@pytest.mark.slow
def test_missing_entries_are_not_scored():
    seen, se = effects(size=0.8)
    gone = seen.mask(np.random.default_rng(5).random(seen.shape) < 0.2)
    gone.loc["g3", "g3"] = np.nan  # its target gene
    found = diagnosed(gone, se)
    rows, found = found["perturbations"], quantities(found)
    assert np.isfinite(rows[["q_value", "q_value_from_others", "error_half"]]).all(axis=None)
    assert found["cells", "n_significant"] == 10
    assert 0.8 < found["shrinkage", "coverage_90"] < 0.97
    assert rows.set_index("perturbation").loc["g3", "target_gene_found"] == ""


@pytest.mark.slow
def test_batches_of_a_table_are_real_replicates():
    """What rows of a perturbation differ by widens all errors, and lets other parts be trusted."""
    names = [*NAMES, *NAMES]
    first, se = effects(7, size=0.0, noise=0.0, names=names)
    true = effects(7, size=0.5, noise=0.0)[0].to_numpy()
    rng = np.random.default_rng(0)
    noisy = first + np.vstack([true, true]) + 0.1 * rng.normal(size=first.shape)
    batch = ["a"] * len(NAMES) + ["b"] * len(NAMES)
    for factor in (1.0, 0.5):  # half of what they should be
        obs = pd.DataFrame({"perturbation": names, "batch": batch})
        table = npt.pp.effect_table(_adata_of(noisy, factor * se, obs), n_cells=80, n_controls=4000)
        assert np.asarray(table.layers["se"])[2:] == pytest.approx(0.1, rel=0.1)
    npt.tl.fit_dag_blr(table)
    npt.tl.diagnose(table)
    found = table.uns["diagnosis"]
    assert quantities(found)["batches", "coverage_90"] > 0.8
    assert found["parts"]["level"].eq("trust").any()


def _adata_of(seen, se, obs):
    index = obs.index.astype(str)
    return ad.AnnData(
        seen.to_numpy(),
        obs.set_axis(index),
        pd.DataFrame(index=GENES),
        layers={"se": se.to_numpy()},
    )


@pytest.mark.slow
def test_target_genes_of_a_table_without_means_are_expected_to_fall():
    """A table says nothing of control means, but a knockout lowers its gene all the same."""
    seen, se = effects()
    for j in range(9):
        seen.iloc[j, j] = 1.0 if j < 2 else -1.0
    found = diagnosed(seen, se)
    value, rows = quantities(found), found["perturbations"].set_index("perturbation")
    assert (rows.loc[NAMES[:9], "target_gene_found"] != "").all()
    assert rows.loc["HS1", "target_gene_found"] == ""
    assert value["positive controls", "n_found"] == 7
    assert value["positive controls", "n_opposite"] == 2


def test_halves_are_those_of_the_fit():
    seen, se = effects()
    table = npt.pp.effect_table(seen, se, **TOLD)
    npt.tl.fit_dag_blr(table)
    fit = posterior_from(table)
    names = [str(name) for name in fit.environments["perturbation"]]
    halves, _ = read_halves(
        table, fit.columns, names, fitted_roles(table, fit.params), np.random.default_rng(0)
    )
    assert halves.of_table
    assert not halves.by_guides.any()
    change = halves.pool(halves.all_cells).pooled.to_controls()[0]
    assert np.allclose(change, seen.loc[names])
