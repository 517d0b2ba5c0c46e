"""The lab may name the members of a combination in another order than the plan."""

from __future__ import annotations

import numpy as np
import pytest

import nextpert as npt
from nextpert._adata.arguments import in_mappings

pytestmark = [pytest.mark.slow, pytest.mark.brief_chain]

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
    assert campaign.propose(1, 100)["perturbation"].iloc[0] == ONE
    campaign.observe(cells(TURNED), batch="same")
    assert list(campaign.pending) == ["CD58", "B2M"]
    observed = campaign.history.query("action == 'observed'")
    assert observed["perturbation"].tolist() == [TURNED]  # as the data has it
    campaign.mark_failed(["CD58", "B2M"])
    campaign.retry(["B2M"])
    names = campaign.propose(2, 200)["perturbation"].tolist()
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


def test_marks_in_any_order(campaign):
    campaign.mark_failed([TURNED], reason="no virus")
    assert campaign.failed == {ONE: "no virus"}
    assert ONE not in set(campaign.propose(3, 300, strategy="explore")["perturbation"])
    campaign.mark_pending([ONE, TURNED, "CD59 + B2M"], n_cells=12)
    campaign.mark_pending([TURNED], n_cells=30)
    assert not campaign.failed
    assert campaign.pending[ONE] == 30
    campaign.mark_failed([ONE])
    assert ONE not in campaign.pending
    campaign.retry([TURNED])
    assert not campaign.failed


def test_what_failed_is_not_made_up_again(parts, target, given):
    campaign = started(parts, target, given, candidates=["B2M", "CD59"], max_combination=2)
    assert ONE in set(campaign.propose(3, 300, strategy="explore")["perturbation"])
    campaign.mark_failed([TURNED])
    assert campaign.failed == {ONE: ""}
    campaign.mark_failed(["B2M"])
    campaign.retry(["B2M"])
    assert not {ONE, TURNED} & set(campaign.propose(3, 300)["perturbation"])


def test_constraints_in_any_order(parts, target, given):
    """What must be on the plate is left out while it is under way."""
    campaign = started(parts, target, given, candidates=[ONE, "CD58"], include=[TURNED])
    assert ONE in set(campaign.propose(1, 100)["perturbation"])
    assert set(campaign.propose(1, 100)["perturbation"]) == {"CD58", "control"}
    assert campaign.adata.uns["plan"]["pending"]["perturbation"].tolist() == [ONE]
    campaign = started(parts, target, given, candidates=[ONE, "CD58"], exclude=[TURNED])
    assert set(campaign.propose(2, 200)["perturbation"]) == {"CD58", "control"}


def test_another_separator(parts, target, given):
    first, later = (part.copy() for part in parts)
    later.obs["perturbation"] = np.resize(["CD59_B2M", "B2M_CD59"], later.n_obs)
    npt.pp.setup_screen(first, separator="_")
    campaign = npt.Campaign(
        first, target, learn=given, plan={"candidates": ["B2M_CD59", "CD58"]},
    )  # fmt: skip
    campaign.mark_pending(["B2M_CD59"])
    campaign.observe(later, batch="same")
    assert not campaign.pending
    assert campaign.history.query("action == 'observed'")["perturbation"].tolist() == ["CD59_B2M"]
