import matplotlib.colors
import numpy as np
import pytest

import nextpert as npt
from nextpert.pl import perturbation_effects
from nextpert.pl._figure import BLUE


def test_map_of_all_perturbations(designed):
    found = designed.uns["perturbation_effects"]
    ax = perturbation_effects(designed, show=False)
    rows = [text.get_text() for text in ax.get_yticklabels()]
    columns = [text.get_text() for text in ax.get_xticklabels()]
    names = {f"{name} (30 cells)": j for j, name in enumerate(found["perturbations"])}
    genes = {gene: i for i, gene in enumerate(found["genes"])}
    assert sorted(rows) == sorted(names)
    assert sorted(columns) == sorted(genes)
    index = np.ix_([names[row] for row in rows], [genes[gene] for gene in columns])
    image, *signs = ax.collections
    np.testing.assert_array_equal(np.reshape(image.get_array(), (4, -1)), found["mean"][index])
    low, high = image.get_clim()
    assert low == -high
    clear = found["lfsr"][index] < 0.05
    for marks, sign in zip(signs, (1, -1), strict=True):  # + and −
        wanted = np.argwhere(clear & (sign * found["mean"][index] > 0))[:, ::-1]
        assert len(wanted)
        np.testing.assert_array_equal(marks.get_offsets(), wanted + 0.5)
    assert "4 perturbations on 36 genes" in ax.get_title()


def test_the_strongest_alone_and_neighbours_are_alike(designed):
    found = designed.uns["perturbation_effects"]
    ax = perturbation_effects(designed, n_top=3, show=False)
    shown = {text.get_text().split(" ")[0] for text in ax.get_yticklabels()}
    order = np.argsort(-np.abs(found["mean"]).max(axis=1))[:3]
    assert shown == set(found["perturbations"][order])
    assert len(ax.get_xticklabels()) == 3
    assert "3 of 4 perturbations on 3 of 36 genes" in ax.get_title()
    j = np.arange(4)
    found["mean"][:] = np.where((j % 2)[:, None] == 0, 1.0, -1.0) + 0.01 * j[:, None]
    ax = perturbation_effects(designed, show=False)
    rows = [text.get_text().split(" ")[0] for text in ax.get_yticklabels()]
    place = [list(found["perturbations"]).index(row) % 2 for row in rows]
    assert place in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_one_perturbation_with_intervals(designed):
    found = designed.uns["perturbation_effects"]
    name = str(found["perturbations"][0])
    ax = perturbation_effects(designed, perturbations=[name], n_top=10, show=False)
    genes = [text.get_text() for text in ax.get_yticklabels()]
    index = [list(found["genes"]).index(gene) for gene in genes]
    assert (np.diff(found["mean"][0, index]) <= 0).all()
    bars, points, direct, plain = ax.collections
    segments = np.array([segment[:, 0] for segment in bars.get_segments()])
    np.testing.assert_allclose(segments, np.c_[found["lower"][0, index], found["upper"][0, index]])
    np.testing.assert_allclose(points.get_offsets()[:, 0], found["mean"][0, index])
    np.testing.assert_allclose(direct.get_offsets()[:, 0], found["direct"][0, index])
    np.testing.assert_allclose(plain.get_offsets()[:, 0], found["raw_mean"][0, index])
    blue = matplotlib.colors.to_rgb(BLUE)
    filled = [np.allclose(colour[:3], blue) for colour in points.get_facecolor()]
    assert filled == (found["lfsr"][0, index] < 0.05).tolist()
    assert ax.get_title() == f"effect of {name} (30 cells)\non 10 of 36 genes"
    assert "90% intervals" in ax.get_xlabel()


def test_perturbations_without_cells(designed):
    npt.tl.perturbation_effects(designed, candidates="genes", key_added="all")
    held = designed.uns["all"]
    unseen = str(held["perturbations"][held["n_cells"] == 0][0])
    ax = perturbation_effects(designed, key="all", perturbations=[unseen], show=False)
    assert f"{unseen} (no cells)" in ax.get_title()
    assert not np.isfinite(np.ma.filled(ax.collections[3].get_offsets()[:, 0], np.nan)).any()
    assert perturbation_effects(designed, key="all", show=False).has_data()
    with pytest.raises(ValueError, match=r"Perturbations without effects: NOPE"):
        perturbation_effects(designed, perturbations=["NOPE"])
