"""The lab may name the members of a combination in another order than the plan."""

from __future__ import annotations

import pytest

import nextpert as npt
from nextpert._adata.arguments import in_mappings

pytestmark = pytest.mark.brief_chain

ONE, TURNED = "B2M+CD59", "CD59+B2M"


@pytest.fixture
def cells(parts):
    """The later cells, as if they were of the combination, under one order or the other."""

    def labelled(name):
        out = parts[1].copy()
        out.obs["perturbation"] = name
        return out

    return labelled


def started(parts, target, given, **plan):
    return npt.Campaign(parts[0], target, learn=given, plan=in_mappings(npt.tl.plan_screen, plan))


@pytest.fixture
def campaign(parts, target, given):
    return started(parts, target, given, candidates=[ONE, "CD58", "B2M"])


def test_what_is_observed_is_pending_no_more(campaign, cells):
    campaign.mark_pending(["CD58", "B2M"])
    assert campaign.propose(1, 100, strategy="exploit")["perturbation"].iloc[0] == ONE
    campaign.observe(cells(TURNED), batch="same")
    assert list(campaign.pending) == ["CD58", "B2M"]
    observed = campaign.history.query("action == 'observed'")
    assert observed["perturbation"].tolist() == [TURNED]  # as the data has it
    campaign.mark_failed(["CD58", "B2M"])
    campaign.retry(["B2M"])
    names = campaign.propose(2, 200, strategy="exploit")["perturbation"].tolist()
    assert sorted(names) == ["B2M", TURNED, "control"]


def test_cells_of_both_orders_are_one_perturbation(campaign, cells, parts):
    first, second = cells(TURNED)[:20].copy(), cells(ONE)[20:].copy()
    campaign.observe(first, batch="same")
    campaign.observe(second, batch="same")
    table = campaign.adata.uns["dag_blr"]["environments"].set_index("perturbation")
    assert table.loc[TURNED, "n_cells"] == 40
    assert ONE not in table.index
    assert campaign.summarize()["n_observed"].iloc[-1] == 3 + 1
    with pytest.raises(ValueError, match="observed before"):
        campaign.observe(cells(ONE)[:20].copy(), batch="same")
    with pytest.raises(ValueError, match="observed before"):
        campaign.observe(first, batch="same")
