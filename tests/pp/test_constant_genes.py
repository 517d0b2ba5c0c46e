"""Genes that do not vary among the control cells are dropped as a screen is prepared."""

from __future__ import annotations

import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import nextpert as npt

GENES = ["MYC", "JUN", "FOS", "OFF", "SAME"]
N = 240


def screen(form=np.asarray, *, logs=True):
    """Return a screen whose last two genes are 0 and 1.5 in all control cells."""
    rng = np.random.default_rng(0)
    label = np.resize(["control", "control", "MYC", "OFF"], N)
    x = rng.poisson(4, (N, 5)).astype(np.float32)
    x[label == "control", 3] = 0
    if logs:
        x = np.log1p(x / rng.gamma(9, 1, (N, 1)))
        x[label == "control", 4] = 1.5
    obs = pd.DataFrame({"perturbation": label, "condition": "Control"})
    obs["guides"] = [f"{name}_1" if name != "control" else "NO_SITE_1" for name in label]
    obs.index = obs.index.astype(str)
    return ad.AnnData(form(x), obs, pd.DataFrame(index=GENES))


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
@pytest.mark.parametrize("logs", [True, False])
@pytest.mark.parametrize("panel", [None, GENES[::-1]])
def test_they_are_dropped_with_a_count(form, logs, panel, caplog):
    caplog.set_level(logging.INFO, logger="nextpert")
    adata = screen(form, logs=logs)
    kept = [gene for gene in panel or GENES if gene not in (["OFF", "SAME"] if logs else ["OFF"])]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        npt.pp.perturbation_screen(adata, panel=panel)
    assert adata.var_names.tolist() == kept
    assert f"{len(kept)} genes kept, {len(GENES) - len(kept)} not" in caplog.text
    told = [str(w.message) for w in caught if "constant" in str(w.message)]
    assert len(told) == (panel is not None)
    if panel is not None:
        assert "left out: " in told[0]
        assert "OFF" in told[0]
    assert (adata.var["control_sd"] > 0).all()
    npt.tl.learn_dag(adata, method="boss", environments="all")
    npt.tl.fit_dag_blr(adata)
    assert adata.uns["dag_blr"]["environments"]["perturbation"].tolist() == ["MYC", "OFF"]


def test_a_panel_of_them_alone_is_an_error(assert_same_adata):
    adata = screen()
    before = adata.copy()
    with pytest.raises(ValueError, match=r"No gene of the panel varies among the 120 con"):
        npt.pp.perturbation_screen(adata, panel=["OFF", "SAME"])
    assert_same_adata(adata, before)
