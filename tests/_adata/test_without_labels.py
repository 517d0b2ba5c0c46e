"""Columns that are no labels, and cells without a guide, are named."""

import logging

import numpy as np
import pytest

import nextpert as npt


def test_a_column_of_measurements_is_no_column_of_labels(small_screen):
    small_screen.obs["depth"] = np.random.default_rng(0).normal(size=small_screen.n_obs)
    npt.tl.learn_dag(small_screen, method="given", dag=[])
    with pytest.raises(ValueError, match=r"guide_key='depth' holds \d+ .*a continuous quantity"):
        npt.pp.setup_screen(small_screen, guide_key="depth")


@pytest.mark.brief_chain
def test_cells_without_a_guide_are_counted(small_screen, caplog):
    guide = small_screen.obs["perturbation"].astype(object) + "_1"
    guide.iloc[np.flatnonzero(small_screen.obs["perturbation"] == "MYC")[:7]] = np.nan
    small_screen.obs["guide"] = guide
    npt.pp.setup_screen(small_screen, guide_key="guide")
    npt.tl.learn_dag(small_screen, method="given", dag=[])
    with caplog.at_level(logging.WARNING, "nextpert"):
        npt.tl.fit_dag_blr(small_screen)
    assert "7 labelled cells have no guide in adata.obs['guide']" in caplog.text
