import numpy as np
import pytest
from matplotlib.colors import to_hex

import nextpert as npt
from nextpert.pl import diagnose
from nextpert.pl._figure import ORANGE


@pytest.fixture
def many(designed):
    """A diagnosis with more perturbations than are drawn, some weak or without predictions."""
    table = designed.uns["diagnosis"]["perturbations"]
    wide = table.loc[np.arange(40) % len(table)].reset_index(drop=True)
    wide["perturbation"] = [f"LONGNAME{i}" for i in range(40)]
    wide["n_cells"] = np.arange(40)
    wide["error"] *= np.random.default_rng(0).uniform(0.5, 2, 40)
    wide.loc[20:25, "is_strong"] = False
    wide.loc[22:30, "r"] = np.nan
    designed.uns["diagnosis"]["perturbations"] = wide
    return designed


def offsets(ax, label):
    (points,) = [c for c in ax.collections if c.get_label() == label]
    return np.asarray(points.get_offsets())


def test_errors_of_model_and_baselines_best_predicted_on_top(designed):
    table = designed.uns["diagnosis"]["perturbations"]
    ratio = table["error"] / table["error_nothing"]
    table = table.loc[ratio.sort_values(kind="stable").index]
    ax = diagnose(designed, show=False)[0]
    for label, column in {
        "model": "error", "nothing changes": "error_nothing",
        "mean perturbation": "error_mean", "sampling noise": "error_noise",
        "empty graph": "error_empty", "coexpression, controls": "error_coexpression",
    }.items():  # fmt: skip
        np.testing.assert_allclose(offsets(ax, label)[:, 0], table[column])
        np.testing.assert_array_equal(offsets(ax, label)[:, 1], np.arange(len(table)))
    assert [t.get_text() for t in ax.get_yticklabels()] == table["perturbation"].tolist()
    low, high = ax.get_ylim()
    assert low > high
    assert ax.get_title() == f"held-out prediction, all {len(table)} perturbations"


def test_the_perturbations_with_most_cells_are_drawn(many):
    axes = diagnose(many, n_top=12, show=False)
    names = [t.get_text() for t in axes[0].get_yticklabels()]
    assert sorted(names) == sorted(f"LONGNAME{i}" for i in range(28, 40))
    assert axes[0].get_title() == "held-out prediction, 12 of 40 perturbations"


def test_correlations_and_strength_share_the_rows(many):
    table = many.uns["diagnosis"]["perturbations"].set_index("perturbation")
    axes = diagnose(many, n_top=40, show=False)
    rows = [t.get_text() for t in axes[0].get_yticklabels()]
    without = offsets(axes[1], "without them")
    np.testing.assert_allclose(without[:, 0], table.loc[rows, "r"])
    crossed = offsets(axes[1], "no effect predicted but on them")
    assert {rows[int(y)] for y in crossed[:, 1]} == {f"LONGNAME{i}" for i in range(22, 31)} | {
        name for name in rows if np.isnan(table.loc[name, "r"])
    }
    weak = next(c for c in axes[2].containers if c.get_label() == "weak")
    line, _, (bars,) = weak
    assert {rows[int(y)] for y in line.get_ydata()} == set(table.index[~table["is_strong"]])
    assert to_hex(line.get_markerfacecolor()) == "#ffffff"
    for y, segment in zip(line.get_ydata(), bars.get_segments(), strict=True):
        row = table.loc[rows[int(y)]]
        width = 4 * abs(row["own_change"] / row["own_z"])
        assert np.ptp(segment[:, 0]) == pytest.approx(width)


def test_graph_calibration_and_residuals(designed):
    stored = designed.uns["diagnosis"]
    axes = diagnose(designed, show=False)
    genes = stored["genes"][stored["genes"]["r_parents"].notna()]
    drawn = offsets(axes[3], "this graph")
    np.testing.assert_allclose(drawn[:, 1], np.sort(genes["r_parents"]))
    assert to_hex(axes[3].collections[-1].get_facecolor()[0]).upper() == ORANGE
    covered = axes[4].containers[0][0]
    np.testing.assert_allclose(covered.get_ydata(), 100 * stored["calibration"]["coverage"])
    np.testing.assert_allclose(covered.get_xdata(), np.arange(10, 100, 10))
    points = np.asarray(axes[5].collections[0].get_offsets())
    np.testing.assert_allclose(points[:, 0], 100 * stored["genes"]["share_of_zeros"])
    np.testing.assert_allclose(points[:, 1], stored["genes"]["residual_skewness"])


def test_the_verdict_is_the_title_and_units_are_on_the_axes(designed):
    axes = diagnose(designed, show=False)
    title = axes[0].figure.get_suptitle().replace("\n", " ")
    assert title == designed.uns["diagnosis"]["verdict"]
    assert "expression²" in axes[0].get_xlabel()
    assert "log-normalised" in axes[2].get_xlabel()
    assert all("%" in label for label in (axes[4].get_xlabel(), axes[4].get_ylabel()))


def test_texts_do_not_overlap(many, overlaps, tick_labels):
    figure = diagnose(many, return_fig=True)
    figure.canvas.draw()
    texts = [figure._suptitle]
    for ax in figure.axes:
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label]
        texts += tick_labels(ax.xaxis) + (tick_labels(ax.yaxis) if ax.yaxis.label else [])
        if ax.get_legend():
            texts += ax.get_legend().get_texts()
    hidden = {id(t) for ax in figure.axes[1:3] for t in ax.get_yticklabels()}
    assert not overlaps([t for t in texts if id(t) not in hidden], figure)


def test_a_graph_without_arcs_is_drawn_as_such(designed):
    npt.tl.learn_dag(designed, method="given", dag=[], genes=list(designed.var_names))
    npt.tl.diagnose(designed)
    axes = diagnose(designed, show=False)
    assert [t.get_text() for t in axes[3].texts] == ["the graph has no arcs"]
    assert axes[3].get_title() == "graph"


@pytest.mark.parametrize("n_top", [0, 1.5, True])
def test_bad_n_top(designed, n_top):
    with pytest.raises((ValueError, TypeError), match="n_top must be a whole number of at least 1"):
        diagnose(designed, n_top=n_top)
