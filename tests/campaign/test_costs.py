"""Plans with prices in a campaign: every plate keeps to its budget, also after a file."""

from __future__ import annotations

import pytest

import nextpert as npt

pytestmark = pytest.mark.brief_chain

PRICES = {"CDK4": 30.0, "CCR10": 10.0, "CTSA": 20.0}
CANDIDATES = [*PRICES, "B2M"]


def started(parts, target, given, costs):
    plan = {"candidates": CANDIDATES, "constraints": {"costs": costs}}
    return npt.Campaign(parts[0], target, learn=given, plan=plan)


def test_every_plate_keeps_to_the_budget(parts, target, given, tmp_path):
    costs = {"budget": 60.0, "perturbation": PRICES | {"B2M": 90.0}, "cell": 0.1}
    campaign = started(parts, target, given, costs)
    campaign.save(tmp_path / "campaign.h5ad")
    for one in (campaign, npt.Campaign.load(tmp_path / "campaign.h5ad")):
        for _ in range(2):  # the second plate has other perturbations
            plate = one.propose(3, 200, strategy="explore")
            names = plate["perturbation"].astype(str)
            expected = names.map(costs["perturbation"]).fillna(0.0) + 0.1 * plate["n_cells"]
            assert plate["cost"].tolist() == pytest.approx(expected.tolist())
            assert 0 < plate["cost"].sum() <= 60
            assert "B2M" not in set(names)
        assert set(one.pending) <= set(PRICES)
        assert len(one.pending) >= 2


@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ({"perturbation": 1.0}, "costs needs a budget"),
        ({"budget": 10.0, "perturbation": 11.0}, "pays for no perturbation"),
        ({"budget": 10.0, "perturbation": PRICES}, "no cost of B2M"),
        ({"budget": 10.0, "plate": 1.0}, "unknown keys: plate"),
    ],
)
def test_nothing_is_pending_after_costs_that_cannot_be_used(parts, target, given, costs, message):
    campaign = started(parts, target, given, costs)
    before = campaign.history
    with pytest.raises(ValueError, match=message):
        campaign.propose(2, 200, strategy="exploit")
    assert campaign.pending == {}
    assert campaign.history.equals(before)
