"""Frequencies over resamples, what settles directions, and open directions, in ``pl.dag``."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex

import nextpert as npt
from nextpert.pl import dag
from nextpert.pl._figure import BLUE, GREEN, GREY, ORANGE, PALETTE


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


def _drawn(ax):
    """Return {(parent, child): (colour, opacity, width, whether dashed)}."""
    names = [text.get_text() for text in ax.texts]
    (lines,) = (c for c in ax.collections if isinstance(c, LineCollection))
    n = len(lines.get_segments())
    styles = [lines.get_linestyles()[i % len(lines.get_linestyles())] for i in range(n)]
    widths = np.broadcast_to(lines.get_linewidths(), n)
    return {
        (names[round(path[0, 0])], names[round(path[-1, 0])]): (
            to_hex(colour).upper(), colour[3], width, style[1] is not None
        )
        for path, colour, width, style in zip(
            lines.get_segments(), lines.get_colors(), widths, styles, strict=True
        )
    }  # fmt: skip


def _labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def _shares(adata):
    return {
        (edge.parent, edge.child): edge.adjacency if edge.oriented_by == "open" else edge.frequency
        for edge in adata.uns["dag"]["edges"].itertuples()
    }


@pytest.mark.parametrize("posterior_key", ["dag_blr", None])
def test_frequent_edges_are_darker_and_open_ones_dashed(resampled, posterior_key):
    ax = dag(resampled, posterior_key=posterior_key, show=False)
    drawn, shares = _drawn(ax), _shares(resampled)
    assert set(drawn) == set(shares)
    assert len(set(shares.values())) > 2
    by_share = sorted(shares, key=shares.__getitem__)
    for column in (1,) if posterior_key else (1, 2):
        seen = np.array([drawn[edge][column] for edge in by_share])
        assert (np.diff(seen) >= 0).all()
        assert seen[0] < seen[-1]
    table = resampled.uns["dag"]["edges"]
    left = {(edge.parent, edge.child) for edge in table.itertuples() if edge.oriented_by == "open"}
    assert {edge for edge, value in drawn.items() if value[3]} == left
    assert ax.get_title() == f"10 genes, {len(drawn)} edges, {len(left)} unoriented"
    assert _labels(ax)[-4:] == [
        "unoriented", "in 100% of the graphs", "in 50% of the graphs", "in 10% of the graphs"
    ]  # fmt: skip


def test_colour_says_what_settles_a_direction_or_the_sign(resampled):
    ax = dag(resampled, posterior_key=None, show=False)
    colour = {
        "cells": GREY, "open": GREY, "interventions": GREEN, "prior knowledge": PALETTE[1].upper()
    }  # fmt: skip
    drawn = _drawn(ax)
    for edge in resampled.uns["dag"]["edges"].itertuples():
        assert drawn[edge.parent, edge.child][0] == colour[edge.oriented_by]
    assert _labels(ax)[:3] == [
        "oriented by cells", "by interventions", "by prior knowledge"
    ]  # fmt: skip
    signed = dag(resampled, show=False)
    assert {value[0] for value in _drawn(signed).values()} == {BLUE, ORANGE}
    assert "by interventions" not in _labels(signed)
    widths = {edge: value[2] for edge, value in _drawn(signed).items()}
    names, weight = resampled.var_names, resampled.varp["dag_blr_mean"].toarray()
    place = {name: i for i, name in enumerate(names)}
    size = {(a, b): abs(weight[place[a], place[b]]) for a, b in widths}
    assert sorted(widths, key=widths.__getitem__) == sorted(widths, key=size.__getitem__)


def test_a_graph_without_resamples_has_no_frequencies(resampled):
    npt.tl.learn_dag(resampled, method="boss")
    ax = dag(resampled, posterior_key=None, show=False)
    table = resampled.uns["dag"]["edges"]
    assert not any("of the graphs" in label for label in _labels(ax))
    assert sum(value[3] for value in _drawn(ax).values()) == (table["oriented_by"] == "open").sum()
    assert {value[1:3] for value in _drawn(ax).values()} == {(0.65, 0.8)}


def test_a_graph_changed_by_hand_is_drawn_plainly(resampled):
    graph = resampled.varp["dag"].tolil()
    order = list(resampled.uns["dag"]["order"])
    place = [resampled.var_names.get_loc(gene) for gene in order]
    first = next(j for j in place[1:] if not graph[place[0], j])
    graph[place[0], first] = 1
    resampled.varp["dag"] = graph.tocsr()
    ax = dag(resampled, posterior_key=None, show=False)
    assert set(_drawn(ax).values()) == {(GREY, 0.65, 0.8, False)}
    assert ax.get_legend() is None
