"""The plot of a replay: what is drawn where, and which lines stand for what."""

import numpy as np
import pytest

import nextpert as npt

pytestmark = pytest.mark.brief_chain

EVERY = ["thompson", "exact_greedy", "random", "round_robin_means"]


@pytest.fixture(scope="module")
def _replayed(_designed):
    adata = _designed.copy()
    npt.tl.replay_design(
        adata, strategies=EVERY[:3], held_out=True, n_rounds=3, n_repeats=2, n_perturbations=2
    )
    return adata


@pytest.fixture
def replayed(_replayed):
    return _replayed.copy()


def medians(adata, column="median"):
    """Return a column of the table, ``(n_strategies, n_targets, n)``; what is below 0 is 0."""
    values = adata.uns["replay"]["table"][column].to_numpy().reshape(4, 4, 4)
    return np.maximum(values, 0).swapaxes(0, 1)


def curves(panel):
    """Return the curves of a panel: not the two lines of reference, which come first."""
    lines = panel.get_lines()
    assert [len(line.get_xdata()) for line in lines[:2]] == [2, 2]
    return lines[2:]


@pytest.mark.slow
def test_a_panel_a_target_and_their_median_first_with_lines_of_reference(replayed):
    figure = npt.pl.replay(replayed, return_fig=True)
    table = replayed.uns["replay"]["table"]
    names = list(dict.fromkeys(table["target"]))
    titles = [panel.get_title() for panel in figure.axes]
    assert titles[0] == "median of 4 targets"
    assert [title.split(" (best: ")[0] for title in titles[1:]] == names
    median = medians(replayed)
    for panel, name in zip(figure.axes, [None, *names], strict=True):
        drawn = curves(panel)
        assert len(drawn) == 4
        for line, strategy in zip(drawn, EVERY, strict=True):
            mine = median[EVERY.index(strategy)]
            expected = np.median(mine, axis=0) if name is None else mine[names.index(name)]
            np.testing.assert_allclose(line.get_ydata(), expected)
            assert line.get_xdata().tolist() == [0, 1, 2, 3]
    rows = replayed.uns["replay"]["targets"]
    share = (rows["best_distance"] / rows["control_distance"]).clip(lower=0).to_numpy()
    for panel, best in zip(figure.axes, [np.median(share), *share], strict=True):
        nothing, nearest = panel.get_lines()[:2]
        assert list(nothing.get_ydata()) == [1, 1]
        assert nearest.get_ydata()[0] == pytest.approx(best)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == [*EVERY, "control", "best candidate"]


@pytest.mark.slow
def test_bands_are_the_middle_90_percent_and_stay_above_0(replayed):
    table = replayed.uns["replay"]["table"]
    table.loc[table["round"] == 3, ["median", "low", "high"]] = -0.1  # unbiased may be below 0
    figure = npt.pl.replay(replayed, return_fig=True)
    k = EVERY.index("round_robin_means")
    ends = np.quantile(medians(replayed)[k], [0.05, 0.95], axis=0)
    first = [medians(replayed, name)[k, 0] for name in ("low", "high")]
    for panel, (low, high) in zip(figure.axes, [ends, first], strict=False):
        band = panel.collections[k]
        vertices = band.get_paths()[0].vertices
        for t in range(4):
            ys = vertices[vertices[:, 0] == t, 1]
            np.testing.assert_allclose([ys.min(), ys.max()], [low[t], high[t]])
        assert vertices[:, 1].min() == 0
        assert panel.get_ylim()[1] > max(1, vertices[:, 1].max())


def test_curves_on_each_other_bear_markers_at_other_plates(replayed):
    figure = npt.pl.replay(replayed, return_fig=True)
    for panel in figure.axes:
        marked = [set(range(4)[slice(start, None, step)])
                  for start, step in (line.get_markevery() for line in curves(panel))]  # fmt: skip
        assert all(marked)
        assert len(set.union(*marked)) == sum(map(len, marked))  # no plate twice


def test_usual_strategies_have_styles_of_their_own():
    from nextpert.pl._replay import _STYLES
    from nextpert.study.replay import known_strategies

    assert set(_STYLES) < set(known_strategies(None))
    assert len({marker for _, _, marker in _STYLES.values()}) == len(_STYLES)
    assert len({(colour, str(dashes)) for colour, dashes, _ in _STYLES.values()}) == len(_STYLES)
