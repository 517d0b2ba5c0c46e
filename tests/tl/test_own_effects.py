"""Side information that was computed from the cells of the screen is named, in any form."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from tests._screens import screen_of, with_fit

N, GENES = 30, [f"G{g}" for g in range(40)]
NAMES = [f"P{j}" for j in range(N)]


def screen(seed):
    """Return cells; the true effects are the same for every seed."""
    effects = 0.3 * np.random.default_rng(0).normal(size=(N, len(GENES)))
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(N + 1), [200, *[40] * N])
    x = 2 + np.vstack([np.zeros(len(GENES)), effects])[label] + rng.normal(size=(len(label), 1))
    x += rng.normal(size=x.shape)
    adata = screen_of(x, np.array(["control", *NAMES])[label], GENES)
    npt.pp.setup_screen(adata, check_scale=False)
    return adata


def means(adata):
    means = (
        pd.DataFrame(adata.X, columns=GENES).groupby(adata.obs["perturbation"].to_numpy()).mean()
    )
    return means.loc[NAMES] - means.loc["control"]


@pytest.fixture(scope="module")
def adata():
    adata = screen(1)
    return with_fit(adata)


def without_origin(adata):
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    effects.uns.clear()
    return effects


SAME = {
    "means": means,
    "other names of genes": lambda adata: means(adata).iloc[:, ::-1].add_prefix("x"),
    "half of the cells": lambda adata: means(adata[::2]),
    "posterior without origin": without_origin,
    "posterior means alone": lambda adata: without_origin(adata).to_df(),
}


@pytest.mark.parametrize("kind", SAME)
def test_effects_of_the_same_cells_are_named(adata, kind):
    features = SAME[kind](adata)
    with pytest.warns(UserWarning, match=r"features \(.*same cells.*Leave features out"):
        npt.tl.fit_dag_blr(adata, features=features, key_added="again")


OTHER = {
    "another screen": lambda rng: means(screen(2)),
    "true effects": lambda rng: pd.DataFrame(
        0.3 * np.random.default_rng(0).normal(size=(N, len(GENES))), NAMES, GENES
    ),
    "noise": lambda rng: pd.DataFrame(rng.normal(size=(N, 50)), NAMES),
    "gene sets": lambda rng: {f"s{k}": list(rng.choice(NAMES, 5, replace=False)) for k in range(9)},
    "network": lambda rng: pd.DataFrame(rng.choice(NAMES, (60, 2)), columns=["source", "target"]),
}


@pytest.mark.parametrize("kind", OTHER)
def test_other_features_are_not_named(adata, kind):
    features = OTHER[kind](np.random.default_rng(4))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*same cells")
        npt.tl.fit_dag_blr(adata, features=features, key_added="again")
