import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

import nextpert as npt
from nextpert.pl import dag
from nextpert.pl._figure import BLUE, ORANGE


def _edges(ax):
    """Return what is drawn: {(parent, child): (weight's side, colour, width)}."""
    names = [text.get_text() for text in ax.texts]
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    widths = np.broadcast_to(lines.get_linewidths(), len(lines.get_segments()))
    found = {}
    for path, colour, width in zip(lines.get_segments(), lines.get_colors(), widths, strict=True):
        ends = names[round(path[0, 0])], names[round(path[-1, 0])]
        assert path[0, 0] < path[-1, 0]  # from left to right
        found[ends] = np.sign(path[len(path) // 2, 1]), to_hex(colour).upper(), width
    return found


def test_every_edge_is_drawn_from_cause_to_effect_with_sign_and_width(designed):
    names = designed.var_names[:24]  # few enough for all of their edges
    ax = dag(designed, genes=names, show=False)
    weight = designed.varp["dag_blr_mean"].toarray()
    edges = np.argwhere(designed.varp["dag"].toarray()[:24, :24])
    drawn = _edges(ax)
    assert set(drawn) == {(names[k], names[i]) for k, i in edges}
    for k, i in edges:
        side, colour, _ = drawn[names[k], names[i]]
        assert side == np.sign(weight[k, i])
        assert colour == (BLUE if weight[k, i] > 0 else ORANGE)
    by_weight = sorted(edges.tolist(), key=lambda edge: abs(weight[edge[0], edge[1]]))
    widths = [drawn[names[k], names[i]][2] for k, i in by_weight]
    assert widths == sorted(widths)
    assert widths[0] < widths[-1]
    assert ax.get_title() == f"24 genes, {len(edges)} edges"


def test_without_posterior_all_edges_are_grey_and_above(designed):
    for ax in (
        dag(designed, genes=designed.var_names[:24], posterior_key=None, show=False),
        dag(designed, genes=designed.var_names[:24], posterior_key="absent", show=False),
    ):
        drawn = _edges(ax)
        assert len(drawn) == designed.varp["dag"][:24, :24].nnz
        assert {value[:2] for value in drawn.values()} == {(1.0, "#8A8A8A")}
        assert ax.get_legend() is None


def _table(graph, names):
    """Return the edges of a graph as learned, the more frequent the later."""
    ends = {what: names[i] for what, i in zip(("parent", "child"), graph.nonzero(), strict=True)}
    share = np.linspace(0.2, 1.0, graph.sum())
    return pd.DataFrame(ends | {"oriented_by": "cells", "adjacency": share, "frequency": share})


@pytest.mark.parametrize("known", ["weight", "share", "nothing"])
def test_of_many_edges_the_strongest_are_drawn(designed, known):
    names, weight = designed.var_names[:24], np.abs(designed.varp["dag_blr_mean"].toarray())
    graph = designed.varp["dag"].toarray()[:24, :24] != 0
    edges = _table(graph, names)
    if known == "share":
        designed.uns["dag"]["edges"] = edges
    key = "dag_blr" if known == "weight" else None
    every, few = (
        dag(designed, genes=names, posterior_key=key, n_top=k, show=False) for k in (100, 20)
    )
    assert few.get_title() == f"24 genes, strongest 20 of {len(edges)} edges"
    drawn, rest = set(_edges(few)), set(_edges(every)) - set(_edges(few))
    assert len(drawn) == 20 < len(rest)
    degree = graph.sum(axis=0) + graph.sum(axis=1)
    share = {pair: i for i, pair in enumerate(zip(edges["parent"], edges["child"], strict=True))}

    def strength(pair):
        k, i = names.get_loc(pair[0]), names.get_loc(pair[1])
        sizes = {"weight": weight[k, i], "share": share[pair], "nothing": degree[k] + degree[i]}
        return sizes[known]

    assert min(map(strength, drawn)) >= max(map(strength, rest))
    silent = 24 - len({gene for pair in drawn for gene in pair})
    assert few.get_xlabel().splitlines()[1] == f"{silent} genes have none of these edges"
    # Genes stand as in the whole graph: no edge that is left out would run to the left.
    order = [text.get_text() for text in few.texts]
    both = [pair for pair in rest if set(pair) <= set(order)]
    assert all(order.index(one) < order.index(two) for one, two in both)


def test_associations_are_drawn_without_directions(designed):
    names = designed.var_names[:24]
    designed.uns["dag"]["edges"] = _table(designed.varp["dag"].toarray()[:24, :24] != 0, names)
    designed.uns["dag"]["edges"].loc[0, "oriented_by"] = "open"
    ax = dag(designed, genes=names, directed=False, show=False)
    assert ax.get_title() == f"24 genes, {len(designed.uns['dag']['edges'])} associations"
    texts = [ax.get_xlabel(), *(text.get_text() for text in ax.get_legend().get_texts())]
    assert "which acts on which is not known" in texts[0]
    assert texts[1:3] == ["positive (above)", "negative (below)"]
    assert not any(word in " ".join(texts) for word in ("cause", "effect", "raises", "unoriented"))
    assert not [patch for patch in ax.patches if patch.get_zorder() == 0]  # no layers
    directed = dag(designed, genes=names, show=False)
    assert _edges(directed) == _edges(ax)
    assert [patch for patch in directed.patches if patch.get_zorder() == 0]


def test_light_edges_can_be_left_out(designed):
    weight = designed.varp["dag_blr_mean"].toarray()
    ax = dag(designed, min_weight=0.4, show=False)
    assert len(_edges(ax)) == (np.abs(weight) >= 0.4).sum() > 0


def test_a_part_of_the_genes_and_bold_names(designed):
    names = designed.var_names
    k, i = np.argwhere(designed.varp["dag"].toarray())[0]
    other = next(n for n in names if n not in (names[k], names[i]))
    ax = dag(designed, genes=[names[i], names[k], other], highlight=[names[k]], show=False)
    assert {t.get_text() for t in ax.texts} == {names[i], names[k]}
    assert ax.get_xlabel().splitlines()[1] == f"1 gene without edges: {other}"
    assert (names[k], names[i]) in _edges(ax)
    assert [t.get_text() for t in ax.texts if t.get_fontweight() == "bold"] == [names[k]]


def test_genes_without_edges_are_named_below():
    adata = npt.datasets.simulated_screen(n_genes=5, n_control=10, perturbed=0)
    names = adata.var_names.tolist()
    edges = [(names[1], names[0])]
    npt.tl.learn_dag(adata, method="given", dag=edges, genes=names)
    ax = dag(adata, show=False)
    assert [t.get_text() for t in ax.texts] == [names[1], names[0]]
    below = f"3 genes without edges: {', '.join(names[2:])}"
    assert ax.get_xlabel().splitlines()[1:] == [below]
    assert ax.get_title() == "5 genes, 1 edge"
    ax = dag(adata, highlight=[names[3]], show=False)
    assert [t.get_text() for t in ax.texts] == [names[1], names[0], names[3]]
    assert ax.get_xlabel().splitlines()[1] == f"2 genes without edges: {names[2]}, {names[4]}"


def test_a_long_list_of_genes_without_edges_is_cut_short():
    adata = npt.datasets.simulated_screen(n_genes=150, n_control=10, perturbed=0)
    names = adata.var_names.tolist()
    npt.tl.learn_dag(adata, method="given", dag=[(names[1], names[0])], genes=names)
    figure = dag(adata, return_fig=True)
    lines = figure.axes[0].get_xlabel().splitlines()
    assert 3 < len(lines) <= 7
    names, rest = " ".join(lines[1:]).split(" and ")
    assert names.startswith("148 genes without edges: ")
    assert names.count(",") + 1 + int(rest.removesuffix(" more")) == 148
    figure.canvas.draw()
    height = figure.get_window_extent().height
    text = figure.axes[0].xaxis.label.get_window_extent()
    assert text.y0 >= 0
    assert text.height < 0.35 * height


def test_a_graph_without_edges(designed):
    npt.tl.learn_dag(designed, method="given", dag=[], genes=["MYC", "B2M"])
    ax = dag(designed, show=False)
    assert ax.get_title() == "2 genes, 0 edges"


def test_unknown_genes_are_named(designed):
    for option in ("genes", "highlight"):
        with pytest.raises(ValueError, match="NOPE"):
            dag(designed, **{option: ["MYC", "NOPE"]})
    assert not plt.get_fignums()


@pytest.mark.parametrize("n_genes", [3, 36, 62])
def test_names_overlap_neither_each_other_nor_edges(n_genes, overlaps):
    adata = npt.datasets.simulated_screen(
        n_genes=n_genes, n_control=100, perturbed=0, expected_degree=min(8, n_genes - 1)
    )
    npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    npt.tl.fit_dag_blr(adata, perturbations=[])
    figure = dag(adata, return_fig=True)
    figure.canvas.draw()
    (ax,) = figure.axes
    assert overlaps(ax.texts, figure) == []
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    nearest = min(np.abs(path[:, 1]).min() for path in lines.get_segments())
    to_data = ax.transData.inverted()
    for text in ax.texts:
        box = to_data.transform(text.get_window_extent())
        assert np.abs(box[:, 1]).max() < nearest, text.get_text()


def _tiles(ax):
    """Return the colour of the tile behind every name that has one."""
    names = {text.get_position()[0]: text.get_text() for text in ax.texts}
    # Bands across the whole plot are no rectangles in matplotlib before 3.9.
    patches = [p for p in ax.patches if isinstance(p, Rectangle)]
    tiles = [p for p in patches if p.get_width() == 1 and p.get_zorder() == 1]
    return {names[tile.get_x() + 0.5]: tile.get_facecolor() for tile in tiles}


def test_modules_colour_the_names(designed):
    module = {"MYC": "m1", "B2M": "m1", "STAT1": "m2", "not drawn": "m3"}
    designed.var["module"] = [module.get(name) for name in designed.var_names]
    for given in (module, "module", designed.var["module"]):
        ax = dag(designed, modules=given, show=False)
        tiles = _tiles(ax)
        assert set(tiles) == {"MYC", "B2M", "STAT1"}
        assert tiles["MYC"] == tiles["B2M"] != tiles["STAT1"]
        legend = [text.get_text() for text in ax.get_legend().get_texts()]
        assert legend[-2:] == ["m1", "m2"]
        assert "raises (above)" in legend
    plain = dag(designed, posterior_key=None, modules=module, show=False)
    assert [text.get_text() for text in plain.get_legend().get_texts()] == ["m1", "m2"]
    assert not _tiles(dag(designed, show=False))
    many = _tiles(dag(designed, modules={n: n for n in designed.var_names}, show=False))
    assert len(set(many.values())) == len(many) > 30


def test_modules_that_say_nothing(designed):
    with pytest.raises(ValueError, match="no column 'modul'"):
        dag(designed, modules="modul")
    with pytest.raises(ValueError, match="none of the genes drawn"):
        dag(designed, modules={"NOPE": "m1"})
    with pytest.raises(TypeError, match="a mapping, a Series or None"):
        dag(designed, modules=["m1"])
    assert not plt.get_fignums()
