"""Campaigns of screens that are tables of effects: rounds of tables, saved and loaded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import nextpert as npt

GENES = [f"g{i}" for i in range(12)]


def table(names, seed):
    rng = np.random.default_rng(seed)
    effects = pd.DataFrame(rng.normal(size=(len(names), 12)), names, GENES)
    means = dict.fromkeys(GENES, 2.0)
    return npt.pp.effect_table(
        effects, effects * 0 + 0.1, n_cells=100, n_controls=400, control_mean=means
    )


@pytest.fixture
def campaign():
    return npt.Campaign(table(GENES[:5], 0), {"g7": 1.0, "g8": 3.0}, plan={"candidates": "genes"})


@pytest.mark.slow
def test_rounds_of_tables(campaign, tmp_path):
    plate = campaign.propose(n_perturbations=2, n_cells=200)
    assert (plate["strategy"] != "control").sum() == 2
    chosen = plate.loc[plate["strategy"] != "control", "perturbation"].tolist()
    campaign.observe(table([*chosen, "HS1"], 1))
    found = campaign.summarize()
    assert found["n_cells"].tolist() == [900, 700]
    assert campaign.adata.n_obs == 10
    assert np.isfinite(np.asarray(campaign.adata.layers["se"])).all()
    assert sorted(set(campaign.adata.uns["dag_blr"]["environments"]["perturbation"])) == sorted(
        {*GENES[:5], *chosen, "HS1"}
    )
    campaign.save(tmp_path / "c.h5ad")
    again = npt.Campaign.load(tmp_path / "c.h5ad")
    assert again.summarize().equals(found)
    one, two = (each.propose(n_perturbations=2, n_cells=200) for each in (campaign, again))
    assert one.equals(two)


@pytest.mark.slow
def test_a_round_is_relative_to_its_own_controls_and_the_target_to_the_first(campaign):
    before = campaign.adata.uns["dag_blr"]["control_mean"]
    more = table(["g9", "g10"], 2)
    more.X += 1.0  # the controls of that round, too
    campaign.observe(more)
    npt.tl.perturbation_effects(campaign.adata)
    effects = campaign.adata.uns["perturbation_effects"]
    row = effects["perturbations"].tolist().index("g9")
    expected = np.asarray(more["g9"].X - more["control"].X)[0]
    assert np.allclose(effects["raw_mean"][row], expected, atol=1e-6)
    # Means are those at the average batch, and the target moves with the first batch.
    moved = campaign.adata.uns["dag_blr"]["control_mean"] - before
    target = campaign.adata.uns["design"]["target_mean"]
    assert target[[7, 8]] - [1.0, 3.0] == pytest.approx(moved[[7, 8]])


def test_a_search_that_needs_cells_is_refused():
    with pytest.raises(ValueError, match="learn_dag with method='boss' needs the cells"):
        npt.Campaign(table(GENES[:5], 0), {"g7": 1.0}, learn={"method": "boss"})
