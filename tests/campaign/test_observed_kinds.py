"""Observing cells of counts: the same scale is accepted, and others are refused by name.

The campaign starts from few cells and a given graph, so that these tests belong to the core set.
"""

from __future__ import annotations

import copy
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert._adata.scale import Scale
from nextpert.campaign.candidates import _unlike

pytestmark = pytest.mark.brief_chain

GENES = ["A", "B", "C", "D", "E", "F"]
LEARN = {"method": "given", "dag": [("A", "C")], "genes": GENES}


def screen(seed, perturbed):
    """Return log1p of counts, scaled to 1,000 in total, with 60 controls."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(["control", *perturbed], [60, *([30] * len(perturbed))])
    rate = np.tile([1.0, 2, 4, 3, 6, 1.5], (len(labels), 1))
    for j, gene in enumerate(GENES):
        rate[labels == gene, j] *= 0.2
    counts = rng.poisson(rate * rng.lognormal(0, 0.3, (len(labels), 1)))
    counts[:, 4] += 1  # no empty cell
    obs = pd.DataFrame({"perturbation": labels}, [f"{seed}-{i}" for i in range(len(labels))])
    x = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e3)
    return ad.AnnData(x, obs, pd.DataFrame(index=GENES))


@pytest.fixture(scope="module")
def _campaign():
    with warnings.catch_warnings(action="ignore"):
        return npt.Campaign(
            screen(0, ["A", "B"]), {"C": 2.0}, learn=LEARN,
            plan={"candidates": "genes"},
        )  # fmt: skip


@pytest.fixture
def campaign(_campaign):
    return copy.deepcopy(_campaign)


@pytest.fixture
def later():
    return screen(1, ["D"])


def residuals(x):
    counts = np.expm1(x)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    return (counts - expected) / np.sqrt(expected + expected**2 / 100)


OTHERS = {
    "log2": (lambda x: x / np.log(2), "other values"),
    "z-scores": (lambda x: (x - x.mean(0)) / x.std(0), "values below 0"),
    "centred": (lambda x: x - x.mean(0), "values below 0"),
    "square roots": (lambda x: np.sqrt(np.expm1(x)) / 5, "other values"),
    "residuals": (residuals, "values below 0"),
    "a constant added": (lambda x: x + 1, "no zeros"),
    "target sum": (lambda x: np.log1p(np.expm1(x) * 10), "total of the scaled counts"),
    "log1p twice": (np.log1p, "logarithms of logarithms"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_kind_of_values_is_refused_by_name(campaign, later, name, assert_same_adata):
    change, words = OTHERS[name]
    before, history = campaign.adata.copy(), campaign.history
    later.X = change(later.X)
    with pytest.raises(ValueError, match=rf"The new cells .*{words}.*check_scale=False") as caught:
        campaign.observe(later)
    assert "campaign" in str(caught.value) or name == "log1p twice"
    assert_same_adata(campaign.adata, before)
    assert campaign.history.equals(history)


def test_cells_of_the_same_scale_are_added(campaign, later):
    n = campaign.adata.n_obs
    campaign.observe(later)
    assert campaign.adata.n_obs == n + later.n_obs
    assert campaign.summarize()["n_observed"].sum() == 3
    observed = campaign.history[campaign.history["action"] == "observed"]
    assert set(observed["perturbation"]) == {"control", "D"}
    with pytest.raises(ValueError, match="observed before"):
        campaign.observe(later)


def test_another_scale_is_taken_on_request(campaign, later):
    later.X = later.X / np.log(2)
    campaign.observe(later, check_scale=False)
    assert campaign.adata.n_obs == 120 + later.n_obs


def test_a_new_batch_without_controls_is_refused(campaign, later):
    alone = later[later.obs["perturbation"] == "D"].copy()
    with pytest.raises(ValueError, match="has no control cells"):
        campaign.observe(alone)
    campaign.observe(alone, batch="same")
    assert "campaign_batch" not in campaign.adata.obs


def test_a_proposal_gives_an_order(campaign):
    plate = campaign.propose(2, 200, strategy="exploit")
    order = npt.get.order_df(campaign.adata)
    assert set(plate["perturbation"]) == set(order["perturbation"])
    assert set(campaign.pending) == set(plate["perturbation"]) - {"control"}


def test_a_target_of_a_column_and_a_label_is_no_candidate_either(later):
    with warnings.catch_warnings(action="ignore"):
        campaign = npt.Campaign(
            screen(0, ["A", "B"]), ("perturbation", "A"),
            learn=LEARN, plan={"candidates": "genes"},
        )  # fmt: skip
    assert "A" not in set(campaign.propose(5, 500, strategy="exploit")["perturbation"])


def test_a_reason_with_a_null_character_is_refused(campaign):
    with pytest.raises(ValueError, match=r"reason .*without a null character"):
        campaign.mark_failed(["B"], reason="dead\0cells")
    assert not campaign.failed
    campaign.mark_failed(["B"], reason="")
    assert campaign.failed == {"B": ""}


def test_without_counts_a_quarter_of_the_values_below_0_is_another_kind():
    positive = Scale("assumed log-normalised")
    for share, words in ((0.2, ""), (0.3, "values below 0")):
        assert words in _unlike(positive, positive._replace(negative=share))
        assert bool(_unlike(positive, positive._replace(negative=share))) == bool(words)
    assert not _unlike(positive._replace(negative=0.1), positive._replace(negative=0.5))


def test_numbers_in_place_of_labels_are_refused(campaign, later, assert_same_adata):
    before = campaign.adata.copy()
    later.obs["perturbation"] = np.linspace(0.5, 2, later.n_obs)
    with pytest.raises(ValueError, match=r"obs\['perturbation'\] .* numbers such as 0.5: give the"):
        campaign.observe(later)
    assert_same_adata(campaign.adata, before)
