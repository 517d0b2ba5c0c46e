import numpy as np
import pytest
from matplotlib.colors import to_hex

from nextpert.pl import design
from nextpert.pl._figure import BLUE, ORANGE, goal
from nextpert.study.ranking import candidates_of, nothing_of


def _acquisition(ax):
    """Return the lengths of the bars of the acquisition, and check that each bears its number."""
    lengths, numbers = [bar.get_width() for bar in ax.patches], [t.get_text() for t in ax.texts]
    for length, number in zip(lengths, numbers, strict=True):
        if not number.startswith(("<", ">")):
            assert float(number.rstrip("%")) == pytest.approx(length, rel=6e-3, abs=0.5)
    return lengths


@pytest.mark.parametrize("n_top", [30, 50])
def test_a_row_for_every_candidate_the_chosen_one_on_top(designed, rows, n_top):
    ranking = candidates_of(designed.uns["design"]["ranking"]).head(n_top)
    axes = design(designed, n_top=n_top, show=False)
    drawn = rows(axes[0])
    columns = ["predicted_distance", "predicted_low", "predicted_high"]
    np.testing.assert_allclose(drawn[["value", "low", "high"]], ranking[columns])
    assert drawn["place"].tolist() == list(range(len(ranking)))
    assert drawn["filled"].tolist() == (ranking["n_cells_seen"] > 0).tolist()
    assert [text.get_text() for text in axes[0].get_yticklabels()] == [
        f"{name} ({f'{n} cells' if n else 'no cells yet'})"
        for name, n in zip(ranking["perturbation"], ranking["n_cells_seen"], strict=True)
    ]
    low, high = axes[0].get_ylim()
    assert low > high  # the best on top
    colours = [to_hex(colour).upper() for colour in axes[0].collections[1].get_edgecolors()]
    assert colours == [ORANGE] + [BLUE] * (len(ranking) - 1)
    assert axes[0].get_yticklabels()[0].get_fontweight() == "bold"
    np.testing.assert_allclose(_acquisition(axes[1]), 100 * ranking["variance_reduction"])
    assert f"{len(ranking)}{' of 36' * (n_top < 36)} candidates" in axes[0].get_title()
    control = nothing_of(designed.uns["design"]["ranking"])["predicted_distance"]
    (dashed,) = [line for line in axes[0].lines if line.get_linestyle() == "--"]
    assert dashed.get_xdata()[0] == pytest.approx(control, rel=1e-5)
    marks = np.ma.filled(axes[0].collections[-1].get_offsets()[:, 0], np.nan)
    np.testing.assert_allclose(marks, ranking["measured_distance"])
    assert n_top < 50 or np.isfinite(marks).any()


def test_trace_has_one_point_a_round(designed, described_anew):
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
    designed.uns["design"]["params"]["target"] = "another"
    described_anew(designed.uns["design"])  # rounds towards others are not drawn
    assert len(design(designed, show=False)) == 2
    designed.uns["design"]["trace"] = trace.assign(target=["another", *trace["target"]][:-1])
    assert len(design(designed, show=False)) == 2  # it is the first towards this target
    designed.uns["design"]["trace"] = trace.assign(target="another")
    assert len(design(designed, show=False)[2].get_xticklabels()) == len(trace)


def test_scale_follows_the_spread_and_a_choice_farther_than_control_cells_is_said(designed, rows):
    ranking = designed.uns["design"]["ranking"]
    ranking["predicted_distance"] = np.linspace(1, 2, len(ranking))
    ranking["relative_distance"] = ranking["predicted_distance"]
    ranking["measured_distance"] = np.nan
    ax = design(designed, show=False)[0]
    assert ax.get_xscale() == "linear"
    assert "farther than control cells" not in ax.get_title()
    ranking["predicted_distance"] = np.geomspace(1, 1e4, len(ranking))
    ranking["predicted_low"] = 0.0
    ranking.loc[ranking["rank"] == 1, "relative_distance"] = 1.1
    ax = design(designed, show=False)[0]
    assert "farther than control cells" in ax.get_title()
    assert ax.get_xscale() == "function"
    ends = ax.transData.transform([(x, 0.0) for x in (-100.0, 0.0, 100.0, 400.0)])[:, 0]
    np.testing.assert_allclose(np.diff(ends) / (ends[1] - ends[0]), 1.0)  # the square root
    assert ax.get_xlim()[0] < 0  # an interval that ends at 0 is drawn to its end
    assert (rows(ax)["low"] == 0).all()


def test_long_lists_of_target_means_are_not_titles():
    assert goal("A = 1, B = 2, C = 3") == "A = 1, B = 2, C = 3"
    assert goal("A = 1, B = 2, C = 3, D = 4") == "target means of genes"
    assert goal("x" * 50) == "x" * 39 + "…"
