"""Significant effects are drawn where the clustering puts them, and nothing else."""

import numpy as np
import pytest
import scipy.cluster.hierarchy as hierarchy

import nextpert as npt
from nextpert.pl import effects_heatmap


def names_of(ax):
    rows = [text.get_text().split(" (")[0] for text in ax.get_yticklabels()]
    return rows, [text.get_text() for text in ax.get_xticklabels()]


def test_rows_and_columns_are_those_with_a_significant_effect_in_the_order_of_the_trees(designed):
    stored = designed.uns["perturbation_effects"]
    stored["lfsr"][0] = 0.5
    stored["lfsr"][:, 3] = 0.05  # not below it
    ax = effects_heatmap(designed, show=False)
    significant = stored["lfsr"] < 0.05
    rows, columns = (np.flatnonzero(significant.any(axis=1 - axis)) for axis in (0, 1))
    assert 0 not in rows
    assert 3 not in columns
    effect = stored["mean"][np.ix_(rows, columns)]
    # The order of seaborn.clustermap, up to mirror images of branches.
    for table, drawn, index, names in zip(
        (effect, effect.T),
        names_of(ax),
        (rows, columns),
        (stored["perturbations"], stored["genes"]),
        strict=True,
    ):
        tree = hierarchy.average(table)
        place = {str(names[i]): number for number, i in enumerate(index)}
        order = [place[name] for name in drawn]
        assert sorted(order) == list(range(len(index)))
        for node in hierarchy.to_tree(tree, rd=True)[1]:
            at = sorted(order.index(leaf) for leaf in node.pre_order())
            assert at == list(range(at[0], at[0] + len(at)))  # side by side
    index = np.ix_(
        [list(stored["perturbations"]).index(name) for name in names_of(ax)[0]],
        [list(stored["genes"]).index(name) for name in names_of(ax)[1]],
    )
    image = ax.collections[0]
    np.testing.assert_array_equal(
        np.reshape(image.get_array(), (len(rows), len(columns))), stored["mean"][index]
    )
    low, high = image.get_clim()
    assert low == -high
    assert f"{len(rows)} of 4 perturbations on {len(columns)} of 36 genes" in ax.get_title()


def test_trees_end_at_the_rows_and_columns_that_they_join(designed):
    ax = effects_heatmap(designed, show=False)
    stored = designed.uns["perturbation_effects"]
    index = np.ix_(
        [list(stored["perturbations"]).index(name) for name in names_of(ax)[0]],
        [list(stored["genes"]).index(name) for name in names_of(ax)[1]],
    )
    effect = stored["mean"][index]
    of_rows, of_columns = (child.collections[0] for child in ax.child_axes[1:])
    for lines, table, along in ((of_rows, effect, 1), (of_columns, effect.T, 0)):
        segments = np.array(lines.get_segments())
        lowest = segments[np.argmin(segments[..., 1 - along].max(axis=1))]
        i, j = (lowest[[0, -1], along] - 0.5).astype(int)
        nearest = np.linalg.norm(table[i] - table[j])
        assert lowest[:, 1 - along].max() == pytest.approx(nearest)
        distances = np.linalg.norm(table[:, None] - table[None], axis=2)
        assert nearest == pytest.approx(distances[np.triu_indices(len(table), 1)].min())
    assert ax.child_axes[1].get_ylim() == ax.get_ylim()
    assert ax.child_axes[2].get_xlim() == ax.get_xlim()


def test_names_and_numbers_select(designed):
    stored = designed.uns["perturbation_effects"]
    labels, genes = list(stored["perturbations"]), list(stored["genes"])
    ax = effects_heatmap(designed, perturbations=labels[:1], genes=genes[:5], show=False)
    assert names_of(ax)[0] == labels[:1]
    assert sorted(names_of(ax)[1]) == sorted(genes[:5])
    assert [len(tree.collections) for tree in ax.child_axes[1:]] == [0, 1]  # none of a single row
    ax = effects_heatmap(designed, n_perturbations=2, n_genes=3, show=False)
    assert [len(names) for names in names_of(ax)] == [2, 3]
    size = np.abs(stored["mean"]).max(axis=1)
    assert set(names_of(ax)[0]) == {labels[i] for i in np.argsort(-size)[:2]}


def test_absent_names_and_absent_effects_are_named(designed):
    with pytest.raises(ValueError, match="Perturbations without effects: NOPE"):
        effects_heatmap(designed, perturbations=["NOPE"])
    with pytest.raises(ValueError, match="Genes without effects: NOPE"):
        effects_heatmap(designed, genes=["NOPE"])
    stored = designed.uns["perturbation_effects"]
    stored["lfsr"][:] = 0.5
    with pytest.raises(ValueError, match=r"No effect .* is significant .*name both"):
        effects_heatmap(designed)
    names = list(stored["perturbations"]), list(stored["genes"])
    ax = effects_heatmap(designed, perturbations=names[0], genes=names[1], show=False)
    assert "4 perturbations on 36 genes" in ax.get_title()


def test_without_cells_no_perturbation_is_drawn_by_default(designed):
    npt.tl.perturbation_effects(designed, candidates="genes", key_added="all")
    stored = designed.uns["all"]
    tested = set(stored["perturbations"][stored["n_cells"] > 0])
    assert set(names_of(effects_heatmap(designed, key="all", show=False))[0]) <= tested
