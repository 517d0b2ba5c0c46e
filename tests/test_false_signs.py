"""Few effects among many zeros: the directions that are called significant are right."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt

pytestmark = pytest.mark.slow

N_GENES, N_PERTURBATIONS = 120, 15


def screen(seed):
    rng = np.random.default_rng([seed, 99])
    label = np.repeat(np.arange(N_PERTURBATIONS + 1), [500, *[60] * N_PERTURBATIONS])
    effects = 0.7 * rng.standard_t(5, size=(N_PERTURBATIONS, N_GENES))
    effects *= rng.random(effects.shape) < 0.05
    x = 2.0 + rng.normal(size=(len(label), N_GENES))
    x += np.vstack([np.zeros(N_GENES), effects])[label]
    names = np.array(["control", *(f"P{k:02}" for k in range(N_PERTURBATIONS))])
    obs = pd.DataFrame({"perturbation": names[label]}, index=[f"c{i}" for i in range(len(label))])
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(N_GENES)])), effects


def test_no_more_directions_are_false_than_is_stated():
    wrong, stated, significant, found = 0, 0.0, 0, 0
    for seed in range(6):
        adata, truth = screen(seed)
        npt.tl.learn_dag(adata, method="given", dag=np.zeros((N_GENES, N_GENES)))
        npt.tl.fit_dag_blr(adata)
        effects = npt.tl.perturbation_effects(adata, as_anndata=True)
        called = effects.layers["lfsr"] < 0.05
        wrong += (called & (np.sign(effects.X) != np.sign(truth))).sum()
        stated += effects.layers["lfsr"][called].sum()
        significant += called.sum()
        found += (called & (np.abs(truth) > 0.7)).sum() / (np.abs(truth) > 0.7).sum() / 6
    assert significant > 150
    assert wrong <= stated + 2 * np.sqrt(stated)
    assert found > 0.8


def test_no_direction_is_called_significant_without_cells():
    """Of groups in which a gene's effect is kept with a probability of 0.7, 28 of 80 were false."""
    rng, n, p = np.random.default_rng(77), 24, 60
    of_group = rng.normal(size=(4, p)) * (rng.random((4, p)) < 0.3)
    group = np.arange(n) % 4
    effects = of_group[group] * (rng.random((n, p)) < 0.7)
    names = [f"P{k:02}" for k in range(n)]
    label = np.repeat(np.arange(n + 1), [500, *[100] * n])
    x = 2.0 + rng.normal(size=(len(label), p)) + np.vstack([np.zeros(p), effects])[label]
    obs = pd.DataFrame({"perturbation": np.array(["control", *names])[label]})
    genes = pd.DataFrame(index=[f"G{k}" for k in range(p)])
    adata = ad.AnnData(x, obs.set_index(obs.index.astype(str)), genes)
    known = adata[~adata.obs["perturbation"].isin(names[:4])].copy()
    features = pd.DataFrame(np.eye(4)[group], names, list("abcd"))
    npt.tl.learn_dag(known, method="given", dag=[], genes=list(known.var_names)[:50])
    npt.tl.fit_dag_blr(known, features=features)
    npt.tl.perturbation_effects(known, candidates=names[:6], genes="all")
    found = known.uns["perturbation_effects"]
    assert np.isnan(found["lfsr"][:4]).all()  # 80 of these were below 0.05, on four screens
    assert (found["lfsr"][4:] < 0.05).any()
    assert np.corrcoef(found["mean"][:4, :50].ravel(), effects[:4, :50].ravel())[0, 1] > 0.5
    covered = (found["lower"] <= effects[:6]) & (effects[:6] <= found["upper"])
    assert covered[:4, :50].mean() > 0.8
