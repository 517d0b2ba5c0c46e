from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

import nextpert as npt
from nextpert.pl import dag
from nextpert.pl._figure import BLUE, GREEN, GREY, ORANGE, PALETTE
from tests._screens import true_graph, with_fit


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


def _shares(adata):
    return {
        (edge.parent, edge.child): edge.adjacency if edge.oriented_by == "open" else edge.frequency
        for edge in adata.uns["dag"]["edges"].itertuples()
    }


@pytest.fixture
def learned(designed):
    """A table of the edges between the first 24 genes, as after a search with bootstrap graphs."""
    names, graph = designed.var_names[:24], designed.varp["dag"].toarray()[:24, :24]
    ends = {what: names[i] for what, i in zip(("parent", "child"), graph.nonzero(), strict=True)}
    how = np.resize(["cells", "interventions", "prior knowledge", "open"], np.count_nonzero(graph))
    share = np.random.default_rng(0).permutation(np.linspace(0.2, 0.8, len(how)))
    known = {"oriented_by": how, "adjacency": share + 0.2, "frequency": share}
    designed.uns["dag"]["edges"] = pd.DataFrame(ends | known)
    return designed


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
    for key in (None, "absent"):
        plain = dag(designed, genes=names, posterior_key=key, show=False)
        assert {edge[:2] for edge in _edges(plain).values()} == {(1.0, GREY)}  # above
        assert len(_edges(plain)) == len(edges)
        assert plain.get_legend() is None


@pytest.mark.parametrize("known", ["weight", "share", "nothing"])
def test_of_many_edges_the_strongest_are_drawn(learned, known):
    names, weight = learned.var_names[:24], np.abs(learned.varp["dag_blr_mean"].toarray())
    graph, share = learned.varp["dag"].toarray()[:24, :24] != 0, _shares(learned)
    if known != "share":
        del learned.uns["dag"]["edges"]
    key = "dag_blr" if known == "weight" else None
    every, few = (
        dag(learned, genes=names, posterior_key=key, n_top=k, show=False) for k in (100, 20)
    )
    assert few.get_title().startswith(f"24 genes, strongest 20 of {graph.sum()} edges")
    drawn, rest = set(_edges(few)), set(_edges(every)) - set(_edges(few))
    assert len(drawn) == 20 < len(rest)
    degree = graph.sum(axis=0) + graph.sum(axis=1)

    def strength(pair):
        k, i = names.get_loc(pair[0]), names.get_loc(pair[1])
        sizes = {"weight": weight[k, i], "share": share[pair], "nothing": degree[k] + degree[i]}
        return sizes[known]

    assert min(map(strength, drawn)) >= max(map(strength, rest))
    silent = 24 - len({gene for pair in drawn for gene in pair})
    assert f"{silent} gene" in few.get_xlabel().splitlines()[1]
    # Genes stand as in the whole graph: no edge that is left out would run to the left.
    order = [text.get_text() for text in few.texts]
    both = [pair for pair in rest if set(pair) <= set(order)]
    assert all(order.index(one) < order.index(two) for one, two in both)


def test_associations_are_drawn_without_directions(learned):
    names = learned.var_names[:24]
    ax = dag(learned, genes=names, directed=False, show=False)
    assert ax.get_title() == f"24 genes, {len(learned.uns['dag']['edges'])} associations"
    texts = [" ".join(ax.get_xlabel().split()), *_labels(ax)]
    assert "its direction is not known" in texts[0]
    assert texts[1:3] == ["positive (above)", "negative (below)"]
    assert not any(word in " ".join(texts) for word in ("cause", "effect", "raises", "unoriented"))
    directed = dag(learned, genes=names, show=False)
    one, other = ({pair: e[:4] for pair, e in _edges(x).items()} for x in (directed, ax))
    assert one == other  # but for dashes
    assert any(edge.is_dashed for edge in _edges(directed).values())
    assert not any(edge.is_dashed for edge in _edges(ax).values())
    layers = [[patch for patch in x.patches if patch.get_zorder() == 0] for x in (ax, directed)]
    assert [bool(each) for each in layers] == [False, True]


@pytest.mark.parametrize("n_genes", [5, 150])
def test_genes_without_edges_are_named_below(n_genes):
    adata = npt.datasets.simulated_screen(n_genes=n_genes, n_control=10, perturbed=0)
    names = adata.var_names.tolist()
    npt.tl.learn_dag(adata, method="given", dag=[(names[1], names[0])], genes=names)
    ax = dag(adata, show=False)
    assert [t.get_text() for t in ax.texts] == [names[1], names[0]]
    assert ax.get_title() == f"{n_genes} genes, 1 edge"
    lines = ax.get_xlabel().splitlines()[1:]
    count, listed = " ".join(lines).split(" without edges: ")
    assert count == f"{n_genes - 2} genes"
    if n_genes == 5:
        assert listed == ", ".join(names[2:])
    else:
        shown, rest = listed.split(" and ")
        assert shown.count(",") + 1 + int(rest.removesuffix(" more")) == n_genes - 2
        ax.figure.canvas.draw()
        text = ax.xaxis.label.get_window_extent()
        assert text.y0 >= 0
        assert text.height < 0.35 * ax.figure.get_window_extent().height
    npt.tl.learn_dag(adata, method="given", dag=[], genes=names[:2])
    assert dag(adata, show=False).get_title() == "2 genes, 0 edges"


@pytest.mark.parametrize("n_genes", [3, 62])
def test_names_overlap_neither_each_other_nor_edges(n_genes, overlaps):
    adata = npt.datasets.simulated_screen(
        n_genes=n_genes, n_control=100, perturbed=0, expected_degree=min(8, n_genes - 1)
    )
    with_fit(adata, true_graph(adata), perturbations=[])
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
    module = {"MYC": "m1", "B2M": "m1", "STAT1": "m2"}
    designed.var["module"] = [module.get(name) for name in designed.var_names]
    ax = dag(designed, modules="module", show=False)
    tiles = _tiles(ax)
    assert set(tiles) == set(module)
    assert tiles["MYC"] == tiles["B2M"] != tiles["STAT1"]
    assert _labels(ax)[-2:] == ["m1", "m2"]
    assert not _tiles(dag(designed, show=False))
    designed.var["name"], designed.var["none"] = designed.var_names, None
    many = _tiles(dag(designed, modules="name", show=False))
    assert len(set(many.values())) == len(many) > 30
    for wrong, message in (
        ("modul", "not in adata.var: modul"),
        ("none", "no value for the genes drawn"),
    ):
        with pytest.raises(ValueError, match=message):
            dag(designed, modules=wrong)


@pytest.mark.parametrize("posterior_key", ["dag_blr", None])
def test_frequent_edges_are_darker_and_open_ones_dashed(learned, posterior_key):
    names, shares = learned.var_names[:24], _shares(learned)
    ax = dag(learned, genes=names, posterior_key=posterior_key, show=False)
    drawn, table = _edges(ax), learned.uns["dag"]["edges"]
    assert set(drawn) == set(shares)
    by_share = sorted(shares, key=shares.__getitem__)
    for column in ("opacity",) if posterior_key else ("opacity", "width"):
        seen = np.array([getattr(drawn[edge], column) for edge in by_share])
        assert (np.diff(seen) >= 0).all()
        assert seen[0] < seen[-1]
    left = {(edge.parent, edge.child) for edge in table.itertuples() if edge.oriented_by == "open"}
    assert {pair for pair, edge in drawn.items() if edge.is_dashed} == left
    assert ax.get_title() == f"24 genes, {len(drawn)} edges, {len(left)} unoriented"
    assert _labels(ax)[-4:] == [
        "unoriented", "in 100% of the graphs", "in 50% of the graphs", "in 10% of the graphs"
    ]  # fmt: skip
    if posterior_key:
        assert {edge.colour for edge in drawn.values()} == {BLUE, ORANGE}
        assert "by interventions" not in _labels(ax)
        return
    colour = {
        "cells": GREY, "open": GREY, "interventions": GREEN, "prior knowledge": PALETTE[1].upper()
    }  # fmt: skip
    for edge in table.itertuples():
        assert drawn[edge.parent, edge.child].colour == colour[edge.oriented_by]
    assert _labels(ax)[:3] == ["oriented by cells", "by interventions", "by prior knowledge"]


def test_what_is_not_known_of_edges_is_not_drawn(learned):
    names, table = learned.var_names[:24], learned.uns["dag"]["edges"]
    learned.uns["dag"]["edges"] = table.drop(columns=["frequency", "adjacency"])
    ax = dag(learned, genes=names, posterior_key=None, show=False)
    assert not any("of the graphs" in label for label in _labels(ax))
    assert {edge[2:4] for edge in _edges(ax).values()} == {(0.65, 0.8)}
    learned.uns["dag"]["edges"] = table.iloc[1:]  # a graph that was changed by hand
    ax = dag(learned, genes=names, posterior_key=None, show=False)
    assert {edge[1:] for edge in _edges(ax).values()} == {(GREY, 0.65, 0.8, False)}
    assert ax.get_legend() is None
