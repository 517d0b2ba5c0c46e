"""``tl.plan_loading``: from a plan to cells to load, by what the screen shows, or by numbers."""

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.core.design.loading import cells_to_reach
from tests._screens import with_fit

TARGET = {"STAT1": 0.5}


@pytest.fixture(scope="module")
def planned():
    adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC", "FOS"])
    with_fit(adata, [("MYC", "STAT1"), ("STAT1", "B2M")], genes=None)
    npt.tl.plan_screen(adata, TARGET, n_cells=3000, n_perturbations=2, strategy="exploit")
    return adata


def loaded(adata, **options):
    found = npt.tl.plan_loading(adata, copy=True, **options).uns["loading"]
    return found, found["steps"].set_index("quantity")["value"]


def test_each_step_follows_from_those_before(planned):
    _, x = loaded(
        planned,
        loading={"moi": 0.5, "kept": 0.7, "recovery": 0.5, "reads": 40_000, "lane_cells": 5000},
    )
    assert x["lanes"] > 1
    singles = x["droplets_with_cells"] * (1 - x["share_doublets"])
    assert x["planned_cells"] == 3000
    assert x["usable_cells"] == pytest.approx(singles * x["share_single"] * 0.7)
    assert x["share_single"] == pytest.approx(0.5 / np.expm1(0.5))
    assert x["cells_to_load"] == pytest.approx(x["captured_cells"] / 0.5)
    assert x["cells_to_load"] == pytest.approx(x["lanes"] * x["cells_to_load_per_lane"])
    assert x["million_reads"] == pytest.approx(x["droplets_with_cells"] * 0.04)


def test_the_share_that_filters_left_is_that_of_the_next_round(planned):
    adata = planned.copy()
    adata.uns["preprocessing"] = {
        "steps": pd.DataFrame({"step": ["all cells", "kept"], "n_cells_kept": [1000, 250]})
    }
    found, x = loaded(adata)
    assert x["share_usable"] == pytest.approx(0.25)
    assert x["droplets_with_cells"] == pytest.approx(4 * x["usable_cells"])
    sources = found["steps"].set_index("quantity")["source"]
    assert sources["share_usable"] == "this screen"
    # A file of which nothing was dropped was filtered before, and does not show it.
    adata.uns["preprocessing"]["steps"]["n_cells_kept"] = 1000
    assert loaded(adata)[1]["share_usable"] == loaded(planned)[1]["share_usable"]
    _, given = loaded(adata, loading={"kept": 0.9})
    assert given["share_usable"] > 0.6


def test_more_cells_are_loaded_where_guides_are_unequal(planned):
    adata = planned.copy()
    rare = np.flatnonzero(adata.obs["perturbation"] == "MYC")[4:]
    adata = adata[np.setdiff1d(np.arange(adata.n_obs), rare)].copy()
    with pytest.warns(UserWarning, match="does not belong to the present screen") as caught:
        few = loaded(planned)[1], loaded(adata)[1]
    assert {warning.filename for warning in caught} == {__file__}  # the line of the user's code
    # Of 20 and 20 cells, and of 4 and 20; the 200 controls do not count.
    assert few[0]["abundance_cv"] == 0.0
    assert few[1]["abundance_cv"] == pytest.approx(np.sqrt(128 - 12) / 12)
    assert few[1]["share_reached"] >= 0.9 - 1e-6


def test_guides_of_a_perturbation_even_out_its_abundance():
    """Two guides of 4 and 20 cells each: the perturbation varies by 1 / sqrt(2) as much."""
    adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=24, perturbed=["MYC", "FOS"])
    label = adata.obs["perturbation"].astype(str)
    is_rare = label.groupby(label).cumcount() < 4
    adata.obs["guide"] = label.where(label == "control", label + np.where(is_rare, "_1", "_2"))
    npt.pp.setup_screen(adata, guide_key="guide")
    with_fit(adata, [("MYC", "STAT1"), ("STAT1", "B2M")], genes=None)
    npt.tl.plan_screen(adata, TARGET, n_cells=60, n_perturbations=2, strategy="exploit")
    _, x = loaded(adata)
    cv, plate = x["abundance_cv"], adata.uns["plan"]["plate"]
    assert cv == pytest.approx(np.sqrt(4 * 64 / 3 - 12) / 12)  # sampling has a variance of 12
    planned = plate[plate["strategy"] != "control"]
    assert (planned["n_guides"] == 2).all()
    share = planned["n_cells"].to_numpy(float) / plate["n_cells"].sum()
    least = adata.uns["plan"]["params"]["min_cells"]
    assert x["usable_cells"] == pytest.approx(
        cells_to_reach(0.9, share, least, cv / np.sqrt(2)), rel=1e-4
    )


def test_more_usable_cells_are_loaded_than_planned_where_few_would_not_reach(planned):
    adata = planned.copy()
    npt.tl.plan_screen(adata, TARGET, n_cells=80, n_perturbations=2, strategy="exploit")
    found, x = loaded(adata)
    assert x["usable_cells"] > 85 > x["planned_cells"] == 80
    assert x["share_reached"] == pytest.approx(0.9)
    assert "the 80 planned, so that 90% of the perturbations reach 20" in found["words"]
    assert "more than" not in loaded(planned)[0]["words"]


def test_cost_is_the_sum_of_its_items(planned):
    found, x = loaded(planned, costs={"lane": 1500, "million_reads": 3, "construct": 80})
    cost = found["cost"].set_index("item")
    assert cost.loc["lane", "total"] == 1500 * x["lanes"]
    assert cost.loc["million_reads", "total"] == pytest.approx(3 * x["million_reads"])
    assert cost.loc["total", "total"] == pytest.approx(cost["total"].iloc[:-1].sum())
    new = (npt.get.order_df(planned)["status"] != "existing").sum()
    assert cost.loc["construct", "n"] == new
    assert f"the total cost is {cost.loc['total', 'total']:,.0f}." in found["words"]


@pytest.mark.parametrize("budget", [3_000, 6_000, 25_000])
def test_a_budget_pays_for_the_largest_plan_whose_cost_it_holds(planned, budget):
    costs = {"lane": 1500, "million_reads": 3, "cell": 0.05, "construct": 80}
    found, x = loaded(planned, costs={**costs, "budget": budget})
    paid = int(x["planned_cells_paid"])

    def cost(n_cells):
        adata = planned.copy()
        npt.tl.plan_screen(adata, TARGET, n_cells=n_cells, n_perturbations=2, strategy="exploit")
        return loaded(adata, costs=costs)[0]["cost"]["total"].iloc[-1]

    # The shares of another plan differ by the rounding of its cells alone.
    assert cost(paid) <= budget < cost(paid + 3)
    assert f"npt.tl.plan_screen(..., n_cells={paid})" in found["words"]
    total = found["cost"]["total"].iloc[-1]
    assert (f"{budget - total:,.0f} remains" in found["words"]) == (total <= budget)
    is_exceeded = f"exceeds the budget of {budget:,.0f} by {total - budget:,.0f}" in found["words"]
    assert is_exceeded == (total > budget)


@pytest.mark.parametrize("lanes", [1, 3])
def test_lanes_hold_the_largest_plan_that_needs_no_more(planned, lanes):
    found, x = loaded(planned, lanes=lanes)
    held = int(x["planned_cells_in_lanes"])
    assert f"{lanes} lane" in found["words"]
    assert f"npt.tl.plan_screen(..., n_cells={held})." in found["words"]

    def needed(n_cells):
        adata = planned.copy()
        npt.tl.plan_screen(adata, TARGET, n_cells=n_cells, n_perturbations=2, strategy="exploit")
        return loaded(adata)[1]["lanes"]

    assert needed(held) <= lanes < needed(held + 3)


def test_a_budget_below_the_least_cells_pays_for_none(planned):
    found, x = loaded(planned, costs={"lane": 1500, "budget": 1000})
    assert x["planned_cells_paid"] == 0
    assert "does not pay for 20 cells of each perturbation" in found["words"]
    with pytest.raises(ValueError, match="no price that depends on the number of cells"):
        loaded(planned, costs={"construct": 80, "budget": 1000})


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"loading": {"moi": 0}}, ValueError, "moi"),
        ({"loading": {"mio": 0.3}}, ValueError, "Close matches: moi"),
        ({"costs": {"lane": -1}}, ValueError, "lane"),
        ({"costs": {"lane": 1, "budget": 0}}, ValueError, "budget"),
        ({"key": "plans"}, ValueError, "plan_screen"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_is_written(planned, options, error, match):
    with pytest.raises(error, match=match):
        npt.tl.plan_loading(planned, **options)
    assert "loading" not in planned.uns


def test_the_report_says_what_to_load_for_this_plan_alone(planned, tmp_path):
    adata = planned.copy()
    npt.tl.plan_loading(adata)
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata = ad.read_h5ad(tmp_path / "a.h5ad")
    path = tmp_path / "page.html"
    npt.report(adata, path)
    assert 'id="loading-table"' in path.read_text()
    # Another plan of as many cells.
    n_cells = adata.uns["plan"]["summary"]["n_cells"]
    npt.tl.plan_screen(adata, TARGET, n_cells=n_cells, n_perturbations=1, strategy="explore")
    assert adata.uns["plan"]["summary"]["n_cells"] == n_cells
    npt.report(adata, path)
    assert 'id="loading-table"' not in path.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loading": {"recovery": 0}}, "recovery.*between 0.001 and 1"),
        ({"loading": {"kept": 0}}, "kept.*between 0.001 and 1"),
        ({"loading": {"moi": 20}}, "moi.*between 0.001 and 10"),
        ({"costs": {"budget": 1e308, "lane": 1}}, r"budget.*between 0 and 1e\+12"),
        ({"costs": {"budget": 1e11, "cell": 1e-9}}, "pays for more than 1,000,000,000 cells"),
        ({"lanes": 4634227744241257472}, "lanes.*between 1 and 10000"),
    ],
)
def test_numbers_beyond_any_instrument_are_refused(planned, options, words):
    with pytest.raises(ValueError, match=words):
        npt.tl.plan_loading(planned, **options)
