import numpy as np
from matplotlib.colors import to_hex

from nextpert.pl import dag_fit
from nextpert.pl._figure import BLUE


def test_points_bars_and_medians(designed):
    stored = designed.uns["dag_fit"]
    genes, means = dag_fit(designed, show=False)
    table = stored["table"].sort_values("r", kind="stable")
    random = stored["random_r"][:, table.index]
    names = [text.get_text() for text in genes.get_xticklabels()]
    assert names == [f"{g} ({n})" for g, n in zip(table["gene"], table["n_parents"], strict=True)]
    low, middle, high = np.quantile(random, [0.05, 0.5, 0.95], axis=0)
    np.testing.assert_allclose([bar.get_y() for bar in genes.patches], low)
    np.testing.assert_allclose([bar.get_height() for bar in genes.patches], high - low)
    medians, points = genes.collections
    np.testing.assert_allclose([s[0, 1] for s in medians.get_segments()], middle)
    np.testing.assert_allclose(points.get_offsets()[:, 1], table["r"])
    filled = [to_hex(colour).upper() == BLUE for colour in points.get_facecolor()]
    assert filled == (table["r"] > high).tolist()
    assert f"{sum(filled)} of {len(table)} genes above" in genes.get_title()
    assert sum(bar.get_height() for bar in means.patches) == 30
    assert means.lines[0].get_xdata()[0] == stored["mean_r"]
    assert f"z = {stored['z']:.1f}" in means.get_title()


def test_more_genes_than_have_room_for_names(designed, monkeypatch):
    r = designed.uns["dag_fit"]["table"]["r"]
    for most, label in ((len(r), "gene (number of parents)"), (len(r) - 1, "rank of the gene")):
        monkeypatch.setattr("nextpert.pl._dag_fit._MAX_NAMED_GENES", most)
        left = dag_fit(designed, show=False)[0]
        assert left.get_xlabel() == label
        np.testing.assert_allclose(left.collections[1].get_offsets()[:, 1], sorted(r))
