"""Cells on another scale than the screen's are refused; batch effects are not."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import nextpert as npt

pytestmark = pytest.mark.brief_chain


@pytest.fixture
def batch(parts):
    """The later cells and half of the controls, which the campaign does not start with."""
    first, later = parts
    control = np.flatnonzero((first.obs["perturbation"] == "control").to_numpy())[::2]
    kept = np.setdiff1d(np.arange(first.n_obs), control)
    return first[kept].copy(), ad.concat([later, first[control].copy()])


@pytest.fixture
def campaign(batch, target, given):
    return npt.Campaign(batch[0], target, learn=given)


def changed(cells, change):
    out = cells.copy()
    out.X = change(out.X)
    return out


OTHER = {
    "counts": lambda x: np.round(np.abs(x)),
    "thousands": lambda x: 1000 * x,
    "thousandths": lambda x: x / 1000,
    "not logged": np.expm1,
    "other logarithm": lambda x: x / np.log(10),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", OTHER.values(), ids=list(OTHER))
def test_another_scale_is_refused(change, campaign, batch, assert_same_adata):
    cells, before = campaign.adata.copy(), campaign.history
    with pytest.raises(ValueError, match=r"The new cells .*check_scale=False"):
        campaign.observe(changed(batch[1], change))
    assert_same_adata(campaign.adata, cells)
    assert campaign.history.equals(before)
    campaign.observe(changed(batch[1], change), check_scale=False)
    assert len(campaign.history) > len(before)


@pytest.mark.parametrize("name", ["counts", "thousands", "not logged"])
@pytest.mark.parametrize("n_cells", [5, 40])
def test_without_controls_too(name, n_cells, campaign, parts):
    later = changed(parts[1][:n_cells].copy(), OTHER[name])
    with pytest.raises(ValueError, match=r"The new cells .*check_scale=False"):
        campaign.observe(later, batch="same")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + 3,
        lambda x: 1.5 * x + np.linspace(-1, 1, x.shape[1]),
        lambda x: 0.7 * x,
        sp.csr_matrix,
    ],
)
def test_batch_effects_are_none(change, campaign, batch):
    campaign.observe(changed(batch[1], change))
    assert campaign.summarize()["n_cells"].sum() == sum(part.n_obs for part in batch)


@pytest.mark.slow
def test_batches_and_perturbations_so_far_do_not_count_as_scatter(campaign, batch, parts):
    half = np.arange(batch[1].n_obs) % 2 == 0
    campaign.observe(changed(batch[1][half].copy(), lambda x: x + 9))
    campaign.observe(batch[1][~half].copy())
    assert campaign.adata.obs["campaign_batch"].nunique() == 3
    strong = changed(parts[1], lambda x: x + 20 * (np.arange(x.shape[1]) < 2))
    campaign.observe(strong, batch="start")
    campaign.observe(changed(parts[1][:1].copy(), lambda x: x + 0.5), batch="start")


def test_another_target_sum_is_refused(batch, given):
    rng = np.random.default_rng(0)
    first, later = (part.copy() for part in batch)
    for part in (first, later):
        counts = rng.poisson(np.exp(rng.normal(1, 1, part.n_vars)), part.shape)
        part.X = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 3e3)
    campaign = npt.Campaign(first, {str(first.var_names[0]): 9.0}, learn=given)
    other = changed(later, lambda x: np.log1p(np.expm1(x) * 1e4 / 3e3))
    with pytest.raises(ValueError, match=r"total of the scaled counts .* is 3\.\d* times"):
        campaign.observe(other)
    campaign.observe(later)


@pytest.mark.screen
def test_replicates_of_a_real_screen(screen_path):
    adata = ad.read_h5ad(screen_path / "papalexi_thp1" / "papalexi_lowmoi.h5ad")
    raw = adata[adata.obs["bio_rep"] == "rep_1"].copy()
    npt.pp.perturbation_screen(adata, batch_key="bio_rep")
    panel = adata.var_names[:20]
    first, later = (
        adata[adata.obs["bio_rep"] == name, panel].copy() for name in ("rep_2", "rep_1")
    )
    options = {"learn": {"method": "given", "dag": [], "genes": list(panel)}}
    campaign = npt.Campaign(first, "STAT1", **options)
    raw = raw[:, panel].copy()
    raw.obs["perturbation"] = raw.obs["perturbation"].astype(str)
    cp10k = raw.copy()
    cp10k.X = np.log1p(np.asarray(raw.X.todense()) / raw.obs[["panel_umis"]].to_numpy() * 1e4)
    for other in (raw, cp10k):
        with pytest.raises(ValueError, match=r"The new cells .*check_scale=False"):
            campaign.observe(other)
    campaign.observe(later)
