"""The power that ``tl.plan_cells`` states, and the share of true effects that a fit detects."""

import anndata as ad
import numpy as np
import pytest

import nextpert as npt
from tests._screens import with_fit

pytestmark = pytest.mark.slow


def world(seed, n, share):
    """A fitted screen without coexpression, with effects of 0.7 and 1.2 SD, and these effects."""
    rng, n_perturbations, p = np.random.default_rng([seed, n]), 16, 50
    sizes = rng.choice([-1.0, 1.0], (n_perturbations, p)) * rng.choice(
        [0.7, 1.2], (n_perturbations, p)
    )
    effects = np.where(rng.random(sizes.shape) < share, sizes, 0.0)
    labels = np.repeat(
        ["control", *(f"P{j:02d}" for j in range(n_perturbations))], [200] + [n] * n_perturbations
    )
    mean = np.vstack([np.zeros((200, p)), np.repeat(effects, n, axis=0)])
    adata = ad.AnnData((rng.normal(size=mean.shape) + 3 + mean).astype(np.float32))
    adata.obs["perturbation"] = labels
    npt.pp.setup_screen(adata, check_scale=False)
    with_fit(adata)
    npt.tl.perturbation_effects(adata)
    return adata, effects


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_stated_power_is_the_share_of_effects_that_are_found(share):
    """By the rule of the package; one in 20 or five effects is not zero."""
    found = {}
    pilot = world(99, 20, share)[0]
    for size in (0.7, 1.2):
        npt.tl.plan_cells(pilot, effect=size, budget={"n_perturbations": 16})
        screens = pilot.uns["plan_cells"]["screens"]
        found[size] = screens.set_index("n_cells")["power"]
    for n in (10, 20):
        hits = {0.7: [], 1.2: []}
        for seed in range(6):
            adata, effects = world(seed, n, share)
            lfsr = adata.uns["perturbation_effects"]["lfsr"]
            for size, some in hits.items():
                some += (lfsr < 0.05)[np.isclose(np.abs(effects), size)].tolist()
        for size, some in hits.items():
            share_found = np.mean(some)
            error = np.sqrt(share_found * (1 - share_found) / len(some))
            assert abs(found[size][n] - share_found) < 0.05 + 3 * error
