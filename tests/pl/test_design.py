import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

import nextpert as npt
from nextpert.pl import design
from nextpert.pl._figure import BLUE, ORANGE
from nextpert.tl._design_interventions.tables import candidates_of, nothing_of


def _bars(ax):
    """Return the points and error bars drawn, from top to bottom."""
    found = []
    for container in ax.containers:
        line, _, (bars,) = container
        (segment,) = bars.get_segments()
        found.append((line, segment))
    return found


def _acquisition(ax):
    """Return the lengths of the bars of the acquisition, and check that each bears its number."""
    lengths, numbers = [bar.get_width() for bar in ax.patches], [t.get_text() for t in ax.texts]
    decimals = len(numbers[0].partition(".")[2])
    assert [number.rstrip("%") for number in numbers] == [f"{x:.{decimals}f}" for x in lengths]
    assert decimals == 3 or len(set(numbers)) == len(set(lengths))
    return lengths


@pytest.mark.slow
def test_distances_with_their_interval_for_every_candidate(designed):
    ranking = candidates_of(designed.uns["design"]["ranking"])
    axes = design(designed, n_top=50, show=False)
    bars = _bars(axes[0])
    assert len(bars) == len(ranking) == 36
    for (line, segment), (_, row) in zip(bars, ranking.iterrows(), strict=True):
        mean, low, high = row[["predicted_distance", "predicted_low", "predicted_high"]]
        assert line.get_xdata()[0] == pytest.approx(mean)
        assert line.get_ydata()[0] == row["rank"] - 1
        np.testing.assert_allclose(segment[:, 0], [min(low, mean), max(high, mean)])
        is_open = to_hex(line.get_markerfacecolor()) == "#ffffff"
        assert is_open == (row["n_cells_seen"] == 0)
    names = [t.get_text() for t in axes[0].get_yticklabels()]
    for name, (_, row) in zip(names, ranking.iterrows(), strict=True):
        assert name.startswith(f"{row['perturbation']} (")
        cells = f"{row['n_cells_seen']} cells" if row["n_cells_seen"] else "no cells yet"
        assert name.endswith(f"({cells})")
    low, high = axes[0].get_ylim()
    assert low > high  # the best on top


def test_the_chosen_one_is_marked(designed):
    axes = design(designed, show=False)
    colours = [to_hex(line.get_color()).upper() for line, _ in _bars(axes[0])]
    assert colours == [ORANGE] + [BLUE] * 29
    assert axes[0].get_yticklabels()[0].get_fontweight() == "bold"
    ranking = designed.uns["design"]["ranking"].head(30)
    shares = 100 * ranking["variance_reduction"].to_numpy()
    np.testing.assert_allclose(_acquisition(axes[1]), shares[shares >= 0.5])
    assert "30 of 36 candidates" in axes[0].get_title()


def test_the_distance_of_control_cells_is_drawn(designed):
    stored = designed.uns["design"]
    expected = nothing_of(stored["ranking"])["predicted_distance"]
    ax = design(designed, show=False)[0]
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed[0].get_xdata()[0] == pytest.approx(expected, rel=1e-5)


def test_trace_has_one_point_a_round(designed):
    trace = designed.uns["design"]["trace"]
    axes = design(designed, show=False)
    line = axes[2].containers[0][0]
    np.testing.assert_allclose(line.get_ydata(), trace["predicted_distance"])
    heights = [np.ptp(bar[:, 1]) for bar in axes[2].containers[0][2][0].get_segments()]
    np.testing.assert_allclose(heights, trace["predicted_high"] - trace["predicted_low"])  # 90%
    labels = [t.get_text() for t in axes[2].get_xticklabels()]
    assert labels == [
        f"{row['round']}: {row['chosen']} ({row['acquisition']})" for _, row in trace.iterrows()
    ]


def test_a_single_round_has_no_trace(designed):
    designed = designed.copy()
    designed.uns["design"]["trace"] = designed.uns["design"]["trace"].head(1)
    assert len(design(designed, show=False)) == 2


def test_rounds_towards_other_targets_are_not_drawn(designed):
    npt.tl.design_interventions(designed, {"STAT1": 1.0}, candidates="genes")
    assert len(design(designed, show=False)) == 2  # it is the first towards this target
    npt.tl.design_interventions(designed, {"MYC": 1.0}, candidates="genes")
    trace = designed.uns["design"]["trace"]
    assert set(trace["target"]) == {"MYC=1", "STAT1=1"}
    of_one = trace[trace["target"] == "MYC=1"]
    assert len(of_one) == len(trace) - 1 > 1
    panel = design(designed, show=False)[2]
    np.testing.assert_allclose(panel.containers[0][0].get_ydata(), of_one["predicted_distance"])
    assert len(panel.get_xticklabels()) == len(of_one)


def test_numbers_at_bars_distinguish_them(designed):
    ranking = designed.uns["design"]["ranking"]
    ranking["variance_reduction"] = np.nan
    ranking.loc[ranking["rank"].between(1, 5), "variance_reduction"] = [
        0.0421, 0.0404, 0.0336, 0.0325, 0.0325,
    ]  # fmt: skip
    panel = design(designed, n_top=5, show=False)[1]
    assert [text.get_text() for text in panel.texts] == ["4.2", "4.0", "3.4", "3.2", "3.2"]
    ranking.loc[ranking["rank"] == 2, "variance_reduction"] = 0.0421 + 1e-9
    panel = design(designed, n_top=5, show=False)[1]
    assert panel.texts[0].get_text() == "4.210"  # no more than three decimals


@pytest.mark.parametrize("share", [0.9, 1.1])
def test_a_choice_farther_than_control_cells_is_said(designed, share):
    designed = designed.copy()
    ranking = designed.uns["design"]["ranking"].copy()
    ranking.loc[ranking["rank"] == 1, "relative_distance"] = share
    designed.uns["design"]["ranking"] = ranking
    title = design(designed, show=False)[0].get_title()
    assert ("farther than control cells" in title) == (share > 1)


def test_one_axes_takes_the_distances_alone(designed):
    _, ax = plt.subplots()
    assert design(designed, ax=ax, n_top=3, show=False) is ax
    assert len(_bars(ax)) == 3


def test_scale_follows_the_spread(designed):
    ranking = designed.uns["design"]["ranking"]
    ranking["predicted_distance"] = np.linspace(1, 2, len(ranking))
    ranking["relative_distance"] = ranking["predicted_distance"]
    ranking["measured_distance"] = np.nan
    assert design(designed, show=False)[0].get_xscale() == "linear"
    ranking["predicted_distance"] = np.geomspace(1, 1e4, len(ranking))
    ranking["predicted_low"] = 0.0
    ax = design(designed, show=False)[0]
    assert ax.get_xscale() == "function"
    ends = ax.transData.transform([(x, 0.0) for x in (-100.0, 0.0, 100.0, 400.0)])[:, 0]
    np.testing.assert_allclose(np.diff(ends) / (ends[1] - ends[0]), 1.0)  # the square root
    assert ax.get_xlim()[0] < 0  # an interval that ends at 0 is drawn to its end
    assert all(segment[0, 0] == 0 for _, segment in _bars(ax))
    assert ax.get_xticks()[0] == 0


def test_measured_distances_are_marked_where_there_are_cells(designed):
    ranking = candidates_of(designed.uns["design"]["ranking"])
    ax = design(designed, n_top=len(ranking), show=False)[0]
    marks = ax.collections[-1].get_offsets()
    known = ranking["measured_distance"].to_numpy()
    np.testing.assert_allclose(marks[np.isfinite(known), 0], known[np.isfinite(known)])
    assert np.isfinite(known).any()


def test_n_top_must_be_a_count(designed):
    with pytest.raises(ValueError, match="n_top"):
        design(designed, n_top=0)


@pytest.mark.parametrize("n_rounds", [1, 25])
@pytest.mark.parametrize("candidates", [["MYC", "B2M"], "genes"])
def test_nothing_overlaps(designed, overlaps, tick_labels, n_rounds, candidates):
    del designed.uns["design"]
    for k in range(n_rounds):
        npt.tl.design_interventions(
            designed, {"MYC": 1.0 + k}, candidates=candidates, n_samples=5, acquisition="random"
        )
    designed.uns["design"]["trace"]["target"] = designed.uns["design"]["params"]["target"]
    figure = design(designed, return_fig=True)
    figure.canvas.draw()
    texts = figure.legends[0].get_texts()
    for ax in figure.axes:
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label]
        texts += tick_labels(ax.xaxis) + tick_labels(ax.yaxis)
    assert overlaps(texts, figure) == []


@pytest.mark.slow
def test_the_probability_is_drawn_as_such(designed):
    designed = designed.copy()
    designed.uns["design"]["params"]["acquisition"] = "probability"
    panel = design(designed, show=False)[1]
    ranking = designed.uns["design"]["ranking"].head(30)
    chances = 100 * ranking["probability_best"].to_numpy()
    np.testing.assert_allclose(_acquisition(panel), chances[chances >= 0.5])
    assert "probability" in panel.get_xlabel()
    assert ("no bar: below 0.5%" in panel.get_title()) == bool((chances < 0.5).any())
