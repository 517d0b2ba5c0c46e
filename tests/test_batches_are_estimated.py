"""Batch effects are estimated from few cells, so that their error is part of every interval."""

from itertools import product

import anndata as ad
import numpy as np
import pytest

import nextpert as npt
from benchmarks import designs
from tests._screens import with_fit

pytestmark = pytest.mark.slow
SEEDS = {25: 5, 400: 3}  # controls of each of six batches


@pytest.mark.parametrize(
    ("held_by", "n_control", "guides"), product((1, 2, 6), SEEDS, (False, True))
)
def test_intervals_cover_effects_measured_in_batches(held_by, n_control, guides):
    """In screens nested in batches, crossed with them, and balanced."""
    options = {"n": 12, "n_genes": 30, "share": 1.0, "n_control": n_control, "guides": guides}
    judged = [designs.in_batches(seed, held_by, 6, **options) for seed in range(SEEDS[n_control])]
    assert 0.85 <= np.mean([designs.scores(*each)["of all"] for each in judged]) <= 0.95


@pytest.mark.parametrize("options", [{}, {"shift_sd": 0}, {"prior_options": {"intercept": False}}])
def test_fits_with_batches_are_read_as_they_were_stored(options, small_screen, edges, tmp_path):
    npt.pp.setup_screen(small_screen, batch_key="batch")
    with_fit(small_screen, edges, perturbations=["MYC", "STK3", "OXR1"], **options)
    small_screen.write_h5ad(tmp_path / "screen.h5ad")
    again = ad.read_h5ad(tmp_path / "screen.h5ad")
    found = [npt.tl.perturbation_effects(each, as_anndata=True) for each in (small_screen, again)]
    for name, layer in found[0].layers.items():
        np.testing.assert_array_equal(found[1].layers[name], layer)
    npt.tl.design_interventions(again, target="MYC")
    assert again.uns["dag_blr"]["posterior"]["n_fixed"] == 0  # they are integrated out
