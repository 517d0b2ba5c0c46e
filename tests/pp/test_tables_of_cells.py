"""Tables made of cells, or of samples of summed counts: means, standard errors, what follows."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt

GENES = [f"g{i}" for i in range(60)]
NAMES = GENES[:8]


def cells(seed=0, guide_sd=0.0):
    """Cells of two batches, and of two guides a perturbation; effects are 0 in most genes."""
    rng = np.random.default_rng(seed)
    true = pd.DataFrame(rng.normal(size=(8, 60)) * (rng.random((8, 60)) < 0.2), NAMES, GENES)
    label = np.repeat(["nt", *NAMES], [300, *[60] * 8])
    batch = rng.choice(["a", "b"], len(label))
    guide = np.array([f"{name}_{rng.integers(6 if name == 'nt' else 2)}" for name in label])
    x = 2.0 + 0.7 * rng.normal(size=(len(label), 60))
    x += np.where(batch == "a", 0.5, 0.0)[:, None]
    for name in NAMES:
        x[label == name] += true.loc[name].to_numpy()
    _, codes = np.unique(guide, return_inverse=True)
    x += guide_sd * rng.normal(size=(codes.max() + 1, 60))[codes]
    obs = pd.DataFrame({"target": label, "batch": batch, "guide": guide})
    obs.index = [f"c{i}" for i in range(len(label))]
    return ad.AnnData(x, obs, pd.DataFrame(index=GENES)), true


def z_scores(table, true):
    rows = table.obs["perturbation"].astype(str).to_numpy()
    seen = np.asarray(table.X[rows != "control"]) - np.asarray(table.X[rows == "control"])
    se = np.asarray(table.layers["se"])[rows != "control"]
    return (seen - true.loc[rows[rows != "control"], table.var_names].to_numpy()) / se


def test_a_screen_of_cells_becomes_its_table():
    screen, true = cells()
    npt.pp.setup_screen(screen, perturbation_key="target", control="nt", batch_key="batch")
    table = npt.pp.effect_table(screen)
    assert table.obs["perturbation"].tolist() == ["nt", *NAMES]
    assert table.obs["n_cells"].tolist() == [300, *[60] * 8]
    record = table.uns["effect_table"]
    assert record["source"] == "cells"
    assert table.varp["correlation"].shape == (table.n_vars, table.n_vars)
    assert [record[f"{name}_given"] for name in ("cells", "controls", "means")] == [1, 1, 1]
    table.obs["perturbation"] = table.obs["perturbation"].astype(str).replace("nt", "control")
    z = z_scores(table, true)
    assert z.std() == pytest.approx(1.0, abs=0.08)  # batches taken off
    assert np.allclose(table.layers["se"][1:], 0.7 * np.sqrt(1 / 60 + 1 / 300), rtol=0.2)
    assert np.allclose(table.var["control_se"], 0.7 / np.sqrt(300), rtol=0.2)


def test_the_variance_between_guides_is_part_of_the_errors():
    screen, true = cells(guide_sd=0.3)
    widths = []
    for guide in (None, "guide"):
        npt.pp.setup_screen(
            screen, perturbation_key="target", control="nt", guide_key=guide, batch_key="batch"
        )
        table = npt.pp.effect_table(screen)
        table.obs["perturbation"] = table.obs["perturbation"].astype(str).replace("nt", "control")
        widths.append(z_scores(table, true).std())
    assert widths[0] > 1.5
    assert widths[1] == pytest.approx(1.0, abs=0.15)


def test_a_table_of_cells_leads_where_cells_do():
    screen, _ = cells()
    npt.pp.setup_screen(screen, perturbation_key="target", control="nt", batch_key="batch")
    table = npt.pp.effect_table(screen)
    npt.tl.learn_dag(screen, method="given", dag=[])
    first = []
    for each in (screen, table):
        npt.tl.fit_dag_blr(each)
        npt.tl.design_interventions(each, "g1", acquisition="greedy")
        first.append(each.uns["design"]["ranking"]["perturbation"].tolist()[:2])
    assert first[0] == first[1]


def samples(seed=0):
    """Summed counts of three replicates a perturbation, and six samples of controls."""
    rng, genes = np.random.default_rng(seed), [f"g{i}" for i in range(400)]
    true = pd.DataFrame(
        0.8 * rng.normal(size=(8, 400)) * (rng.random((8, 400)) < 0.05), NAMES, genes
    )
    mean, rows, counts = 50 * rng.gamma(2.0, size=400) + 20, [], []
    for replicate in ("r1", "r2", "r3"):
        of_batch = 0.3 * rng.normal(size=400)
        for name in ("control", "control", *NAMES):
            effect = 0.0 if name == "control" else true.loc[name].to_numpy()
            n_cells = int(rng.integers(40, 200))
            rate = mean * np.exp(of_batch + effect + 0.15 * rng.normal(size=400))
            counts.append(rng.poisson(rate * n_cells / 20))
            rows.append((name, replicate, n_cells))
    obs = pd.DataFrame(rows, columns=["perturbation", "replicate", "n_cells"])
    obs.index = [f"sample{i}" for i in range(len(obs))]
    return ad.AnnData(np.array(counts, np.float64), obs, pd.DataFrame(index=genes)), true


@pytest.mark.slow
def test_pseudo_bulk_counts_become_a_table():
    """Replicates are the units: their scatter is the standard error, not that of the counts."""
    bulk, true = samples()
    n_cells = bulk.obs.groupby("perturbation")["n_cells"].sum()
    npt.pp.perturbation_screen(bulk, batch_key="replicate", min_cells=2)
    table = npt.pp.effect_table(bulk)
    known = dict(zip(table.obs["perturbation"], table.obs["n_cells"], strict=True))
    assert known == n_cells.to_dict()
    z = z_scores(table, true)
    assert 0.85 < np.median(np.abs(z)) / 0.6745 < 1.25
    npt.tl.fit_dag_blr(table)
    npt.tl.plan_screen(table, "g1", n_perturbations=3, n_cells=300, strategy="exploit")
    assert table.uns["plan"]["plate"]["n_cells"].sum() == 300
    npt.tl.diagnose(table)
    assert table.uns["diagnosis"]["level"] == "care"


def test_genes_that_do_not_vary_are_left_out():
    screen, _ = cells()
    screen.X[:, 7] = 1.0
    with pytest.raises(ValueError, match=r"call pp.setup_screen first"):
        npt.pp.effect_table(screen)
    npt.pp.setup_screen(screen, perturbation_key="target", control="nt")
    assert "g7" not in npt.pp.effect_table(screen).var_names
