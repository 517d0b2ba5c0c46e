import numpy as np

import nextpert as npt
from nextpert.pl import target_distances


def test_points_intervals_and_sample_means_in_order(designed):
    table = designed.uns["target_distances"]["table"]
    some = table.index[table["perturbation"] != "control"]
    table.loc[some[:2], ["difference_low", "difference_high"]] = [[-2.0, -1.0], [-1.0, 1.0]]
    ax = target_distances(designed, show=False)
    names = [text.get_text() for text in ax.get_yticklabels()]
    wanted = [
        f"{p} ({n} cells)" for p, n in zip(table["perturbation"], table["n_cells"], strict=True)
    ]
    assert names == wanted
    low, high = ax.get_ylim()
    assert low > high  # the nearest on top
    bars, points, ticks = ax.collections[:3]
    np.testing.assert_allclose(
        [segment[:, 0] for segment in bars.get_segments()], table[["low", "high"]]
    )
    np.testing.assert_allclose(points.get_offsets()[:, 0], table["distance"])
    apart = (table["difference_low"] > 0) | (table["difference_high"] < 0)
    filled = [colour[:3].min() < 0.9 for colour in points.get_facecolor()]
    assert filled == (apart | (table["perturbation"] == "control")).tolist()
    assert not all(filled)
    np.testing.assert_allclose(ticks.get_offsets()[:, 0], table["plug_in_distance"])
    of_control = table.set_index("perturbation").loc["control"]
    assert of_control["distance"] in ax.lines[0].get_xdata()
    target = designed.uns["target_distances"]["target"]
    assert ax.get_title() == f"distance to {target} (30 cells)\nover 36 genes"
    assert "90% intervals" in ax.get_xlabel()
    ax = target_distances(designed, n_top=2, show=False)
    assert len(ax.get_yticklabels()) == 2
    assert "nearest 2 of 4" in ax.get_title()
    designed.uns["target_distances"]["table"][["distance", "low", "high"]] -= 10
    ax = target_distances(designed, show=False)
    assert ax.get_xlim()[0] < designed.uns["target_distances"]["table"]["low"].min()


def test_wanted_means_of_many_genes_and_the_control_state(designed):
    genes = designed.var_names[:9]
    npt.tl.target_distances(designed, dict.fromkeys(genes, 1.0))
    assert target_distances(designed, show=False).get_title().startswith("distance to target means")
    npt.tl.target_distances(designed, "control", key_added="d")
    ax = target_distances(designed, key="d", show=False)
    assert not ax.lines  # no line of the control cells, who are the target
