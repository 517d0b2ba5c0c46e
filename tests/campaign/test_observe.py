"""New cells: other gene orders, new batches, columns that lack, and what they leave behind."""

from __future__ import annotations

import copy

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import nextpert as npt
from nextpert.campaign.state import lined_up

pytestmark = pytest.mark.brief_chain


def fitted(campaign):
    """Graph, posterior and what was found, without times."""
    uns = campaign.adata.uns
    return {name: uns[name] for name in ("dag", "dag_blr", "design")}


def test_cells_observed_later_count_as_if_they_had_been_there(
    parts, target, given, assert_same, campaign
):
    options = {"candidates": "genes"}
    at_once = npt.Campaign(ad.concat(parts), target, learn=given, plan=options)
    campaign.observe(parts[1], batch="same")
    assert_same(fitted(campaign), fitted(at_once))
    assert campaign.propose(3, 200).equals(at_once.propose(3, 200))


@pytest.mark.slow
def test_parts_orders_of_genes_and_kinds_of_matrix_do_not_matter(campaign, parts, assert_same):
    other, later = copy.deepcopy(campaign), parts[1][:, ::-1].copy()
    later = ad.AnnData(
        sp.csc_matrix(np.column_stack([later.X, np.ones(later.n_obs)])), later.obs,
        {"gene": [*later.var_names, "NEW"]},
    )  # fmt: skip
    later.var_names = later.var["gene"].to_numpy()
    campaign.observe(parts[1], batch="same")
    other.observe(later[:15].copy(), batch="same")
    other.observe(later[15:].copy(), batch="same")
    assert_same(fitted(campaign), fitted(other))
    assert "NEW" not in other.adata.var_names


@pytest.fixture
def shifted(parts):
    """The later cells and half of the controls, both 3 units higher in all genes."""
    first, later = parts
    control = np.flatnonzero((first.obs["perturbation"] == "control").to_numpy())
    moved = ad.concat([later, first[control[::2]].copy()])
    moved.X = moved.X + 3
    kept = np.setdiff1d(np.arange(first.n_obs), control[::2])
    return first[kept].copy(), moved


@pytest.mark.slow
def test_a_new_batch_is_lined_up_by_its_own_controls(shifted, target, given):
    first, later = shifted
    for batch, name in ((None, "observed 1"), ("May", "May")):
        campaign = npt.Campaign(first, target, learn=given, plan={"candidates": "genes"})
        campaign.observe(later, batch=batch)
        assert campaign.adata.obs["campaign_batch"].unique().tolist() == ["start", name]
        assert campaign.summarize()["best"].iloc[-1] == "CDK4"
        assert campaign.summarize()["relative_distance"].iloc[-1] < 0.1
    wrong = npt.Campaign(first, target, learn=given, plan={"candidates": "genes"})
    wrong.observe(later, batch="same")
    assert wrong.summarize()["relative_distance"].iloc[-1] > 0.3


@pytest.mark.slow
def test_wanted_means_move_with_the_units_of_lined_up_cells(shifted, target, given):
    first, later = shifted
    campaign = npt.Campaign(first, target, learn=given, plan={"candidates": "genes"})
    campaign.observe(later)
    moved = 3 * later.n_obs / (first.n_obs + later.n_obs)  # on average nothing over all cells
    given_as = npt.Target(
        state=[{"B2M": 1.0}, "CDK4"], at_least={"CD58": 2.0}, signature={"CDK6": 1.0}
    )  # fmt: skip
    found = lined_up(given_as, campaign.adata, first.n_obs)
    assert found.state[0]["B2M"] == pytest.approx(1 + moved, abs=0.1)
    assert found.at_least["CD58"] == pytest.approx(2 + moved, abs=0.1)
    assert found.state[1] == "CDK4"
    assert found.signature == {"CDK6": 1.0}
    assert campaign.target == target
    genes = list(campaign.adata.uns["dag_blr"]["genes"])
    vector = np.array([target[gene] for gene in genes])
    for given_as, of in (
        (vector, lambda x: x),
        (npt.Target(state=vector), lambda x: x.state),
        (npt.Target(state="CDK4", away_from=vector), lambda x: x.away_from),
    ):
        found = of(lined_up(given_as, campaign.adata, first.n_obs))
        expected = lined_up(target, campaign.adata, first.n_obs)
        np.testing.assert_allclose(found, [expected[gene] for gene in genes])
        assert abs(found - vector).min() > 0.5


def test_few_controls_are_warned_of(campaign, parts, caplog):
    control = parts[0][parts[0].obs["perturbation"] == "control"][:5].copy()
    campaign.observe(ad.concat([parts[1], control], index_unique="-"))
    assert "aligned by only 5 control cells" in caplog.text


def test_controls_with_another_label_are_refused(campaign, parts):
    wrong = parts[0][parts[0].obs["perturbation"] == "control"][:30].copy()
    wrong.obs["perturbation"] = "NTC"
    with pytest.raises(ValueError, match=r"30 of the new cells are labelled 'NTC'.*'control'"):
        campaign.observe(wrong, batch="same")


def with_batches(adata, names):
    out = adata.copy()
    out.obs["batch"] = np.resize(names, out.n_obs)
    return out


@pytest.mark.slow
def test_columns_of_batches(parts, target, given, caplog):
    first = with_batches(parts[0], ["a", "b"])
    npt.pp.setup_screen(first, batch_key="batch")
    campaign = npt.Campaign(first, target, learn=given)
    assert campaign.adata.obs["batch"].unique().tolist() == ["a", "b"]
    with pytest.raises(ValueError, match=r"could be any of a, b: name the batch"):
        campaign.observe(parts[1], batch="same")
    with pytest.raises(ValueError, match="'c' has no control cells"):
        campaign.observe(with_batches(parts[1], ["b", "c"]))
    with pytest.raises(ValueError, match="'observed 1' has no control cells"):
        campaign.observe(parts[1])
    other = copy.deepcopy(campaign)
    campaign.observe(with_batches(parts[1], ["b"]))
    assert r"batches of the new cells (b) are known" in caplog.text
    caplog.clear()
    other.observe(parts[1], batch="b")
    assert "are known" not in caplog.text
    assert campaign.adata.obs["batch"].iloc[-40:].unique().tolist() == ["b"]
    assert fitted(campaign)["dag_blr"]["log_evidence"] == fitted(other)["dag_blr"]["log_evidence"]


def test_the_same_cells_are_not_counted_twice(campaign, parts):
    with pytest.raises(ValueError, match=r"observed before .* round 0"):
        campaign.observe(parts[0], batch="same")
    campaign.observe(parts[1], batch="same")
    with pytest.raises(ValueError, match=r"observed before"):
        campaign.observe(parts[1], batch="same")


@pytest.mark.parametrize(
    ("change", "batch", "message"),
    [
        (lambda a: a, None, r"'observed 1' has no control cells.*batch='same'"),
        (lambda a: a[:, a.var_names != "CDK6"].copy(), "same", "lack 1 genes of the panel: CDK6"),
        (lambda a: a.obs.drop(columns="perturbation", inplace=True), "same", "no column 'pert"),
        (lambda a: a.obs.__setitem__("perturbation", None), "same", "No new cell has a label"),
        (lambda a: setattr(a, "X", np.full(a.shape, np.nan)), "same", "NaN"),
        (lambda a: setattr(a, "var_names", ["CDK4", *a.var_names[1:]]), "same", "more than once"),
    ],
)
def test_bad_cells_change_nothing(change, batch, message, campaign, parts, assert_same_adata):
    later = parts[1].copy()
    later.obs["perturbation"] = later.obs["perturbation"].astype(object)
    later = change(later) or later
    cells, before = campaign.adata.copy(), campaign.history
    with pytest.raises(ValueError, match=message):
        campaign.observe(later, batch=batch)
    assert_same_adata(campaign.adata, cells)
    assert campaign.history.equals(before)


@pytest.mark.slow
def test_the_filters_of_the_first_screen_stay(parts, target, given):
    """By which tl.plan_loading knows which share of the sequenced cells is kept."""
    first = parts[0].copy()
    npt.pp.perturbation_screen(first, panel=list(first.var_names), min_cells=1)
    first.uns["preprocessing"]["steps"].loc[0, "n_cells_kept"] *= 4
    campaign = npt.Campaign(first, target, learn=given)
    for cells in (parts[1], None):
        campaign.propose(2, 200, strategy="exploit")
        npt.tl.plan_loading(campaign.adata)
        rows = campaign.adata.uns["loading"]["steps"].set_index("quantity")
        assert rows.loc["share_usable", "source"] == "this screen"
        if cells is not None:
            campaign.observe(cells, batch="same")
