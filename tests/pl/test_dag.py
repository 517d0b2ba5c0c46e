from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

import nextpert as npt
from nextpert.pl import dag
from nextpert.pl._figure import BLUE, GREEN, GREY, ORANGE, PALETTE


class Edge(NamedTuple):
    side: float
    colour: str
    opacity: float
    width: float
    is_dashed: bool


def _edges(ax):
    """Return what is drawn: {(parent, child): Edge}."""
    names = [text.get_text() for text in ax.texts]
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    paths, styles = lines.get_segments(), lines.get_linestyles()
    widths = np.broadcast_to(lines.get_linewidths(), len(paths))
    edges = {}
    for k, (path, colour, width) in enumerate(zip(paths, lines.get_colors(), widths, strict=True)):
        assert path[0, 0] < path[-1, 0]  # from left to right
        edges[names[round(path[0, 0])], names[round(path[-1, 0])]] = Edge(
            np.sign(path[len(path) // 2, 1]), to_hex(colour).upper(), colour[3], width,
            styles[k % len(styles)][1] is not None,
        )  # fmt: skip
    return edges


def _labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_every_edge_is_drawn_from_cause_to_effect_with_sign_and_width(designed):
    names = designed.var_names[:24]  # few enough for all of their edges
    ax = dag(designed, genes=names, show=False)
    weight = designed.varp["dag_blr_mean"].toarray()
    edges = np.argwhere(designed.varp["dag"].toarray()[:24, :24])
    drawn = _edges(ax)
    assert set(drawn) == {(names[k], names[i]) for k, i in edges}
    for k, i in edges:
        edge = drawn[names[k], names[i]]
        assert edge.side == np.sign(weight[k, i])
        assert edge.colour == (BLUE if weight[k, i] > 0 else ORANGE)
    by_weight = sorted(edges.tolist(), key=lambda edge: abs(weight[edge[0], edge[1]]))
    widths = [drawn[names[k], names[i]].width for k, i in by_weight]
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
        assert {edge[:2] for edge in drawn.values()} == {(1.0, GREY)}
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
    texts = [ax.get_xlabel(), *_labels(ax)]
    assert "which acts on which is not known" in texts[0]
    assert texts[1:3] == ["positive (above)", "negative (below)"]
    assert not any(word in " ".join(texts) for word in ("cause", "effect", "raises", "unoriented"))
    assert not [patch for patch in ax.patches if patch.get_zorder() == 0]  # no layers
    directed = dag(designed, genes=names, show=False)
    one, other = ({pair: e[:4] for pair, e in _edges(x).items()} for x in (directed, ax))
    assert one == other  # but for dashes
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
        legend = _labels(ax)
        assert legend[-2:] == ["m1", "m2"]
        assert "raises (above)" in legend
    plain = dag(designed, posterior_key=None, modules=module, show=False)
    assert _labels(plain) == ["m1", "m2"]
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


@pytest.fixture(scope="module")
def _resampled():
    adata = npt.datasets.simulated_screen(
        n_genes=10, n_control=40, n_perturbed=20, perturbed=3, expected_degree=3, rng=3
    )
    npt.tl.learn_dag(
        adata, method="boss", environments="all", n_graphs=8, search_options={"n_runs": 2}
    )
    npt.tl.fit_dag_blr(adata)
    return adata


@pytest.fixture
def resampled(_resampled):
    """A screen whose graph was learned from all cells and eight resamples of them."""
    adata = _resampled.copy()
    how = ["cells", "interventions", "prior knowledge", "open"]
    edges = adata.uns["dag"]["edges"]
    edges["oriented_by"] = [how[i % 4] for i in range(len(edges))]  # all four, whatever was found
    return adata


def _shares(adata):
    return {
        (edge.parent, edge.child): edge.adjacency if edge.oriented_by == "open" else edge.frequency
        for edge in adata.uns["dag"]["edges"].itertuples()
    }


@pytest.mark.parametrize("posterior_key", ["dag_blr", None])
def test_frequent_edges_are_darker_and_open_ones_dashed(resampled, posterior_key):
    ax = dag(resampled, posterior_key=posterior_key, show=False)
    drawn, shares = _edges(ax), _shares(resampled)
    assert set(drawn) == set(shares)
    assert len(set(shares.values())) > 2
    by_share = sorted(shares, key=shares.__getitem__)
    for column in ("opacity",) if posterior_key else ("opacity", "width"):
        seen = np.array([getattr(drawn[edge], column) for edge in by_share])
        assert (np.diff(seen) >= 0).all()
        assert seen[0] < seen[-1]
    table = resampled.uns["dag"]["edges"]
    left = {(edge.parent, edge.child) for edge in table.itertuples() if edge.oriented_by == "open"}
    assert {pair for pair, edge in drawn.items() if edge.is_dashed} == left
    assert ax.get_title() == f"10 genes, {len(drawn)} edges, {len(left)} unoriented"
    assert _labels(ax)[-4:] == [
        "unoriented", "in 100% of the graphs", "in 50% of the graphs", "in 10% of the graphs"
    ]  # fmt: skip


def test_colour_says_what_settles_a_direction_or_the_sign(resampled):
    ax = dag(resampled, posterior_key=None, show=False)
    colour = {
        "cells": GREY, "open": GREY, "interventions": GREEN, "prior knowledge": PALETTE[1].upper()
    }  # fmt: skip
    drawn = _edges(ax)
    for edge in resampled.uns["dag"]["edges"].itertuples():
        assert drawn[edge.parent, edge.child].colour == colour[edge.oriented_by]
    assert _labels(ax)[:3] == [
        "oriented by cells", "by interventions", "by prior knowledge"
    ]  # fmt: skip
    signed = dag(resampled, show=False)
    assert {edge.colour for edge in _edges(signed).values()} == {BLUE, ORANGE}
    assert "by interventions" not in _labels(signed)
    widths = {pair: edge.width for pair, edge in _edges(signed).items()}
    names, weight = resampled.var_names, resampled.varp["dag_blr_mean"].toarray()
    place = {name: i for i, name in enumerate(names)}
    size = {(a, b): abs(weight[place[a], place[b]]) for a, b in widths}
    assert sorted(widths, key=widths.__getitem__) == sorted(widths, key=size.__getitem__)


def test_a_graph_without_resamples_has_no_frequencies(resampled):
    npt.tl.learn_dag(resampled, method="boss")
    ax = dag(resampled, posterior_key=None, show=False)
    table = resampled.uns["dag"]["edges"]
    assert not any("of the graphs" in label for label in _labels(ax))
    assert (
        sum(edge.is_dashed for edge in _edges(ax).values())
        == (table["oriented_by"] == "open").sum()
    )
    assert {edge[2:4] for edge in _edges(ax).values()} == {(0.65, 0.8)}


def test_a_graph_changed_by_hand_is_drawn_plainly(resampled):
    graph = resampled.varp["dag"].tolil()
    order = list(resampled.uns["dag"]["order"])
    place = [resampled.var_names.get_loc(gene) for gene in order]
    first = next(j for j in place[1:] if not graph[place[0], j])
    graph[place[0], first] = 1
    resampled.varp["dag"] = graph.tocsr()
    ax = dag(resampled, posterior_key=None, show=False)
    assert {edge[1:] for edge in _edges(ax).values()} == {(GREY, 0.65, 0.8, False)}
    assert ax.get_legend() is None
