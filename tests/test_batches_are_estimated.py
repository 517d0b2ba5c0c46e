"""Batch effects are estimated from few cells, so that their error is part of every interval."""

from itertools import product

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt

pytestmark = pytest.mark.slow

N_GENES, N_PERTURBATIONS, N_BATCHES, N_CELLS = 30, 12, 6, 100
HELD_BY = {"nested": 1, "crossed": 2, "balanced": 6}  # batches that hold a perturbation
SEEDS = {25: 5, 400: 3}


def screen(design, n_control, guides, seed):
    rng = np.random.default_rng([seed, n_control, guides, len(design)])
    held_by = HELD_BY[design]
    label = np.repeat(np.arange(N_PERTURBATIONS + 1), [n_control * N_BATCHES, *[N_CELLS] * 12])
    within = np.concatenate([np.arange(n_control * N_BATCHES), *[np.arange(N_CELLS)] * 12])
    batch = (2 * label + within % held_by) % N_BATCHES
    batch[label == 0] = within[label == 0] % N_BATCHES
    sizes = rng.choice([0.3, 1.2], p=[0.7, 0.3], size=(N_PERTURBATIONS, N_GENES))
    effects = sizes * rng.normal(size=sizes.shape)
    x = 5.0 + rng.normal(size=(len(label), N_GENES))
    x += np.vstack([np.zeros(N_GENES), effects])[label]
    x += rng.normal(size=(N_BATCHES, N_GENES))[batch]
    n_guides = np.where(label == 0, 20, 4)
    guide = 100 * label + within % n_guides
    if guides:
        code = np.unique(guide, return_inverse=True)[1]
        x += np.sqrt(0.05) * rng.normal(size=(code.max() + 1, N_GENES))[code]
    names = np.array(["control", *(f"P{k:02}" for k in range(N_PERTURBATIONS))])
    obs = pd.DataFrame(
        {"perturbation": names[label], "batch": batch.astype(str), "guide": guide.astype(str)},
        index=[f"c{i}" for i in range(len(label))],
    )
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(N_GENES)])), effects


def coverage(design, n_control, guides):
    inside = []
    for seed in range(SEEDS[n_control]):
        adata, effects = screen(design, n_control, guides, seed)
        keys = {"guide_key": "guide"} if guides else {}
        npt.pp.setup_screen(adata, batch_key="batch", **keys)
        npt.tl.learn_dag(adata, method="given", dag=np.zeros((N_GENES, N_GENES)))
        npt.tl.fit_dag_blr(adata)
        found = npt.tl.perturbation_effects(adata, as_anndata=True)
        inside.append((found.layers["lower"] <= effects) & (effects <= found.layers["upper"]))
    return np.mean(inside)


@pytest.mark.parametrize(
    ("design", "n_control", "guides"), [*product(HELD_BY, SEEDS, (False, True))]
)
def test_intervals_cover_effects_measured_in_batches(design, n_control, guides):
    assert 0.85 <= coverage(design, n_control, guides) <= 0.95


@pytest.mark.parametrize("options", [{}, {"shift_sd": 0}, {"prior_options": {"intercept": False}}])
def test_fits_with_batches_are_read_as_they_were_stored(options, tmp_path):
    adata, _ = screen("crossed", 25, False, 0)
    npt.pp.setup_screen(adata, batch_key="batch")
    edges = [("G0", "G1"), ("G1", "G2")]
    npt.tl.learn_dag(adata, method="given", dag=edges, genes=list(adata.var_names))
    shifts = {f"P{k:02}": {f"G{k}": 1.0} for k in range(N_PERTURBATIONS)}
    npt.tl.fit_dag_blr(adata, shift=shifts, **options)
    adata.write_h5ad(tmp_path / "screen.h5ad")
    again = ad.read_h5ad(tmp_path / "screen.h5ad")
    found = [npt.tl.perturbation_effects(each, as_anndata=True) for each in (adata, again)]
    for name, layer in found[0].layers.items():
        np.testing.assert_array_equal(found[1].layers[name], layer)
    npt.tl.design_interventions(again, target="P03", acquisition="civ")
    assert again.uns["dag_blr"]["posterior"]["n_fixed"] == 0  # they are integrated out
