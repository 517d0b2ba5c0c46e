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
    for seed in range(12):
        adata, truth = screen(seed)
        npt.tl.learn_dag(adata, method="given", dag=np.zeros((N_GENES, N_GENES)))
        npt.tl.fit_dag_blr(adata)
        effects = npt.tl.perturbation_effects(adata, as_anndata=True)
        called = effects.layers["lfsr"] < 0.05
        wrong += (called & (np.sign(effects.X) != np.sign(truth))).sum()
        stated += effects.layers["lfsr"][called].sum()
        significant += called.sum()
        found += (called & (np.abs(truth) > 0.7)).sum() / (np.abs(truth) > 0.7).sum() / 12
    assert significant > 300
    assert wrong <= stated + 2 * np.sqrt(stated)
    assert found > 0.8
