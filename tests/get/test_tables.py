"""Results as tables: the values that are stored, row by row, and errors that name the call."""

import warnings

import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.core.design.stopping import ORDER
from tests._screens import small_fit, with_fit

pytestmark = pytest.mark.brief_chain

TABLES = {
    "effects_df": "tl.perturbation_effects",
    "ranking_df": "tl.design_interventions",
    "plan_df": "tl.plan_screen",
    "order_df": "tl.plan_screen",
    "diagnosis_df": "tl.diagnose",
}


@pytest.fixture
def fitted():
    return small_fit()


@pytest.mark.parametrize(("name", "function"), TABLES.items())
def test_without_a_result_the_call_is_named(name, function, small_screen):
    table = getattr(npt.get, name)
    with pytest.raises(ValueError, match=f"run {function} first"):
        table(small_screen)
    small_screen.uns["other"] = {"params": {}}  # of another kind
    with pytest.raises(ValueError, match=rf"'other': run {function} first"):
        table(small_screen, key="other")


def test_effects_row_by_row(fitted):
    npt.tl.perturbation_effects(fitted, key_added="mine")
    stored = fitted.uns["mine"]
    table = npt.get.effects_df(fitted, "mine")
    names, genes = (list(stored[x]) for x in ("perturbations", "genes"))
    assert len(table) == len(names) * len(genes)
    for row in table.to_dict("records"):
        i, j = names.index(row["perturbation"]), genes.index(row["gene"])
        for column in set(row) - {"perturbation", "gene"}:
            np.testing.assert_equal(row[column], stored[column][i, j])
    is_significant = table["lfsr"] < 0.05
    assert 0 < is_significant.sum() < len(table)
    assert is_significant.is_monotonic_decreasing
    for part in (table[is_significant], table[~is_significant]):
        assert part["mean"].abs().is_monotonic_decreasing


def test_a_condition_is_a_column(fitted):
    fitted.obs["dose"] = np.where(np.arange(fitted.n_obs) % 2, "high", "low")
    npt.pp.setup_screen(fitted, condition_key="dose")
    npt.tl.fit_dag_blr(fitted)
    npt.tl.perturbation_effects(fitted, condition="low")
    assert set(npt.get.effects_df(fitted)["condition"]) == {"low"}


@pytest.mark.parametrize(
    ("name", "call", "key", "part"),
    [
        ("ranking_df", npt.tl.design_interventions, "design", "ranking"),
        ("plan_df", npt.tl.plan_screen, "plan", "plate"),
        ("order_df", npt.tl.plan_screen, "plan", "constructs"),
    ],
)
def test_stored_tables_are_copies(name, call, key, part, fitted):
    call(fitted, "MYC+OXR1")
    table = getattr(npt.get, name)(fitted)
    pd.testing.assert_frame_equal(table, fitted.uns[key][part])
    table["perturbation"] = "changed"
    assert "changed" not in set(fitted.uns[key][part]["perturbation"])
    with warnings.catch_warnings(action="error"):
        getattr(npt.get, name)(fitted)
    npt.tl.fit_dag_blr(fitted, perturbations=["MYC", "OXR1", "MYC+OXR1"])
    options = {"allow_stale": True} if name == "order_df" else {}
    with pytest.warns(UserWarning, match="was computed from another fit"):
        getattr(npt.get, name)(fitted, **options)


def test_a_diagnosis_with_the_level_of_each_part(fitted):
    npt.tl.diagnose(fitted)
    stored, table = fitted.uns["diagnosis"], npt.get.diagnosis_df(fitted)
    pd.testing.assert_frame_equal(table.drop(columns="level"), stored["summary"])
    levels = stored["parts"].set_index("part")["level"]
    for row in table.to_dict("records"):
        assert row["level"] == levels.get(row["part"], "")
    assert "level" not in stored["summary"]


def test_fitted_perturbations_have_cells_guides_and_targets(small_screen, edges):
    label = small_screen.obs["perturbation"].astype(object).to_numpy().copy()
    label[np.flatnonzero(label == "HS2")[::2]] = "HS2+MYC"
    small_screen.obs["perturbation"] = label
    guide = small_screen.obs["perturbation"].astype(str)
    n = guide.map({"MYC": 3, "control": 4}).fillna(2).astype(int).to_numpy()
    small_screen.obs["guide"] = guide + "-" + (np.arange(len(n)) % n).astype(str)
    with_fit(small_screen, edges, key_added="plain")
    assert "n_guides" not in npt.get.fitted_perturbations(small_screen, "plain")
    npt.pp.setup_screen(small_screen, guide_key="guide")
    npt.tl.fit_dag_blr(small_screen)
    table = npt.get.fitted_perturbations(small_screen).set_index("perturbation")
    cells = small_screen.obs["perturbation"].value_counts()
    assert table["n_cells"].to_dict() == {name: cells[name] for name in table.index}
    assert table.loc["MYC", "n_guides"] == 3
    assert set(table["n_guides"].drop("MYC")) == {2}
    assert table.loc["MYC+OXR1", "target_genes"] == "MYC, OXR1"
    enhancer = ["HS2", "HS2+MYC"]
    assert table["targets_on_panel"].drop(enhancer).all()
    assert not table.loc[enhancer, "targets_on_panel"].any()
    del small_screen.uns["dag_blr"]
    with pytest.raises(ValueError, match=r"run tl\.fit_dag_blr first"):
        npt.get.fitted_perturbations(small_screen)


def test_an_order_against_the_advice_is_warned_of(fitted, caplog):
    npt.tl.plan_screen(fitted, "MYC", n_perturbations=3, strategy="explore")
    advice = fitted.uns["plan"]["advice"]
    assert advice["kind"] != ORDER
    caplog.clear()
    npt.get.order_df(fitted)
    assert caplog.messages == [f"The advice is not to order this plan: {advice['words']}"]
    order = npt.get.order_df(fitted)
    advised = set(map(str, advice["perturbations"]))
    assert 0 < len(advised) < 3
    is_advised = order["perturbation"].isin(advised) | (order["kind"] == "control")
    assert (order["is_advised"] == is_advised).all()
    # By default, what is advised is planned.
    npt.tl.plan_screen(fitted, "MYC", n_perturbations=3)
    assert npt.get.order_df(fitted)["is_advised"].all()
    caplog.clear()
    npt.get.order_df(fitted)
    assert not caplog.messages
