"""A stored fit whose parts were changed: refused before anything is predicted from them."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt


@pytest.fixture(scope="module")
def once_fitted():
    adata = npt.datasets.simulated_screen(n_genes=8, n_control=200, n_perturbed=30, perturbed=6)
    npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    other = ad.AnnData(np.ones((2, 8)), pd.DataFrame(index=adata.obs["perturbation"].unique()[-2:]))
    other.var_names = adata.var_names
    npt.tl.fit_dag_blr(adata, features=other)
    return adata


def short(stored):
    stored["screen"]["mean"] = stored["screen"]["mean"][:-1]


def fewer_genes(stored):
    stored["screen"]["scatter"] = stored["screen"]["scatter"][:-1]


def words(stored):
    stored["screen"]["n"] = stored["screen"]["n"].astype(str)


def other_genes(stored):
    stored["features"]["effects"] = stored["features"]["effects"][:, 1:]


def row_left_out(stored):
    stored["environments"] = stored["environments"].iloc[:-1]


DAMAGES = short, fewer_genes, words, other_genes, row_left_out


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_it_is_refused(once_fitted, damage, assert_same_adata):
    adata = once_fitted.copy()
    damage(adata.uns["dag_blr"])
    before = adata.copy()
    target = {adata.var_names[0]: 1.0}
    with pytest.raises(ValueError, match=r"'dag_blr'.*damaged.*run tl.fit_dag_blr again"):
        npt.tl.design_interventions(adata, target, n_samples=10)
    assert_same_adata(adata, before)
