import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.stats import norm

from nextpert.pl import diagnose
from nextpert.pl._diagnose import _draw_null


@pytest.fixture
def many(designed):
    """A diagnosis with more perturbations than are drawn, some weak or without predictions."""
    table = designed.uns["diagnosis"]["perturbations"]
    wide = table.loc[np.arange(40) % len(table)].reset_index(drop=True)
    wide["perturbation"] = [f"LONGNAME{i}" for i in range(40)]
    wide["n_cells"] = np.arange(40)
    wide["error_half"] *= np.random.default_rng(0).uniform(0.5, 2, 40)
    wide.loc[20:25, "target_gene_found"] = "no"
    wide.loc[30, "target_gene_found"] = "opposite direction"
    wide.loc[22:30, "r_all"] = np.nan
    designed.uns["diagnosis"]["perturbations"] = wide
    return designed


def offsets(ax, label):
    (points,) = [c for c in ax.collections if c.get_label() == label]
    return np.asarray(points.get_offsets())


def labels(ax):
    return [text.get_text() for text in ax.get_yticklabels()]


def test_errors_of_effects_from_half_of_the_cells_the_largest_on_top(designed):
    table = designed.uns["diagnosis"]["perturbations"]
    table = table.sort_values("squared_distance", ascending=False, kind="stable")
    ax = diagnose(designed, show=False)[0]
    columns = {
        "shrunken": "error_half", "no effect": "error_half_no_effect",
        "cells' means": "error_half_raw_means",
    }  # fmt: skip
    least = 1e-3 * table[list(columns.values())].to_numpy().max()
    for label, column in columns.items():
        drawn = offsets(ax, label)
        np.testing.assert_allclose(drawn[:, 0], np.maximum(table[column], least))
        np.testing.assert_array_equal(drawn[:, 1], np.arange(len(table)))
    assert labels(ax) == table["perturbation"].tolist()
    low, high = ax.get_ylim()
    assert low > high
    assert ax.get_title() == f"effects from half of the cells, all {len(table)}"


def test_correlations_and_own_genes_of_those_with_most_cells(many, rows):
    few = diagnose(many, n_top=12, show=False)[0]
    assert sorted(labels(few)) == sorted(f"LONGNAME{i}" for i in range(28, 40))
    assert few.get_title() == "effects from half of the cells, 12 of 40"
    table = many.uns["diagnosis"]["perturbations"]
    axes = diagnose(many, n_top=40, show=False)
    table = table.set_index("perturbation").loc[labels(axes[0])]
    np.testing.assert_allclose(offsets(axes[1], "all predictors")[:, 0], table["r_all"])
    for label, status in {
        "found (lfsr < 0.05)": "yes", "not found": "no", "opposite direction": "opposite direction",
    }.items():  # fmt: skip
        mine = np.flatnonzero(table["target_gene_found"] == status)
        np.testing.assert_array_equal(offsets(axes[2], label)[:, 1], mine)
    drawn = rows(axes[2])
    columns = [f"target_gene_{name}" for name in ("mean", "lower", "upper")]
    np.testing.assert_allclose(drawn[["value", "low", "high"]], table[columns])
    assert drawn["filled"].tolist() == (table["target_gene_found"] != "no").tolist()


def test_negative_controls_are_drawn_against_a_normal(designed):
    stored = designed.uns["diagnosis"]
    z = np.random.default_rng(0).normal(size=(5, 2000)) * 1.5
    ax = plt.figure().add_subplot()
    _draw_null(ax, stored | {"null_z": z})
    drawn = np.asarray(ax.collections[0].get_offsets())
    assert len(drawn) == z.size
    for x, y in drawn[:: len(drawn) // 20]:
        assert (z <= y).mean() == pytest.approx(norm.cdf(x), abs=1e-4)
    width = stored["summary"].set_index(["part", "quantity"])["value"]["negative controls"]
    right, wide = ax.lines
    np.testing.assert_allclose(right.get_ydata(), right.get_xdata())
    np.testing.assert_allclose(wide.get_ydata(), width["null_width"] * wide.get_xdata())
    assert f"width {width['null_width']:.2f} ± " in wide.get_label()
    ax = plt.figure().add_subplot()
    _draw_null(ax, stored | {"null_z": np.zeros((0, 20))})
    assert [t.get_text() for t in ax.texts] == ["too few controls"]


def test_one_panel_alone(designed):
    ax = diagnose(designed, panel="negative controls", show=False)
    assert "z-score" in ax.get_xlabel()
    assert len(ax.figure.axes) == 1
    with pytest.raises(ValueError, match="panel"):
        diagnose(designed, panel="all")


def test_predictions_shares_and_coverage(designed, rows):
    stored = designed.uns["diagnosis"]
    summary = stored["summary"]  # values without a standard error are open
    summary["standard_error"] = np.where(summary["quantity"] == "error_to_raw_means", np.nan, 0.1)
    axes = diagnose(designed, panel="checks", show=False)
    value = summary.set_index(["part", "quantity"])["value"]
    drawn = rows(axes[0])["value"].tolist()
    assert drawn[0] == value["unseen perturbations", "error_to_no_effect"]
    assert drawn[2:] == value["graph"][["error_alone", "error_to_no_graph"]].tolist()
    assert labels(axes[0])[2] == "graph alone vs no effect"
    shares = [value["shrinkage", f"error_to_{name}"] for name in ("raw_means", "no_effect")]
    drawn = rows(axes[1])
    np.testing.assert_allclose(drawn["value"], shares)
    assert labels(axes[1]) == ["new cells vs cells' means", "new cells vs no effect"]
    assert drawn["filled"].tolist() == [False, True]
    reach = [0.0, 1.645 * 0.1]
    np.testing.assert_allclose(drawn["high"] - drawn["value"], reach, atol=1e-12)
    covered = [100 * value[part, "coverage_90"] for part in ("shrinkage", "unseen perturbations")]
    np.testing.assert_allclose(rows(axes[2])["value"], covered)
    assert labels(axes[2]) == ["cells", "perturbations"]
    assert "%" in axes[2].get_xlabel()
    np.testing.assert_allclose(
        axes[3].collections[0].get_offsets()[:, 1], np.sort(stored["null_z"].ravel())
    )


def test_the_verdict_is_one_line_and_nothing_known_is_drawn_as_such(designed):
    stored = designed.uns["diagnosis"]
    stored["level"] = "care"
    stored["parts"] = stored["parts"].head(3).assign(level=["care", "trust", "care"])
    stored["perturbations"]["target_gene_mean"] = np.nan
    stored["perturbations"]["target_gene_found"] = ""
    axes = diagnose(designed, show=False)
    one, two, three = stored["parts"]["part"]
    assert axes[0].figure.get_suptitle() == (
        f"Verdict: trust with care.   trust: {two};   trust with care: {one}, {three}"
    )
    assert [t.get_text() for t in axes[2].texts] == ["no target gene on the panel"]
    assert diagnose(designed, panel="checks", show=False)
