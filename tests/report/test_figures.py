"""Figures of the report: what of a large graph is drawn, and how large a picture may be."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from PIL import Image

import nextpert as npt
from nextpert._report import figures, measured
from nextpert._report.results import keys_of, read_all


@pytest.fixture
def asked(monkeypatch):
    """The options that the plot of the graph was called with, in place of a plot."""
    given = {}
    monkeypatch.setattr(measured, "draw", lambda plot, *_: plot())
    monkeypatch.setattr(npt.pl, "dag", lambda _, **options: given.update(options))
    return given


def graph(adata):
    keys = keys_of(None)
    return measured.graph_section(adata, read_all(adata, keys, {}), keys)


def test_of_many_arcs_the_strongest_are_drawn(adata, asked, monkeypatch):
    weights = np.abs(sp.csr_array(adata.varp["dag_blr_mean"]).data)
    section = graph(adata)
    assert (asked["genes"], asked["min_weight"]) == (None, 0.0)
    assert len(section.tables[0].rows) == len(weights)
    monkeypatch.setattr(measured, "MOST_ARCS", 5)
    section = graph(adata)
    assert asked["min_weight"] == pytest.approx(np.sort(weights)[-5])
    ends = {cell.text for row in section.tables[0].rows[:5] for cell in row[:2]}
    assert set(asked["genes"]) == ends
    assert "Drawn are the 5 strongest arcs" in section.words[1]
    drawn = [abs(float(row[2].value)) for row in section.tables[0].rows]
    assert drawn == sorted(drawn, reverse=True)


def test_without_weights_the_genes_with_most_arcs_are_drawn(adata, asked, monkeypatch):
    del adata.uns["dag_blr"]
    for module in (measured, figures):
        monkeypatch.setattr(module, "MOST_GENES", 4)
    section = graph(adata)
    arcs = sp.csr_array(adata.varp["dag"])
    degree = pd.Series(arcs.sum(axis=0) + arcs.sum(axis=1), adata.var_names)
    assert degree[asked["genes"]].min() >= degree.drop(asked["genes"]).max()
    assert len(asked["genes"]) == 4
    assert asked["posterior_key"] is None
    assert [column.head for column in section.tables[0].columns] == ["Cause", "Effect"]


def test_a_graph_without_arcs_is_told(adata, asked):
    npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    assert "without arcs" in graph(adata).words[1]
    assert not asked


def test_long_drawings_become_pixels(monkeypatch):
    import matplotlib.pyplot as plt

    def plot():
        figure, panel = plt.subplots()
        panel.plot(np.sin(np.arange(50)))
        return figure

    assert figures.draw(plot, "", "").link.startswith("data:image/svg+xml;base64,")
    monkeypatch.setattr(figures, "_LARGE", 10)
    links = [figures.draw(plot, "", "").link for _ in range(2)]
    assert links[0] == links[1]
    kind, held = links[0].split(",")
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(held))).convert("RGBA")
    assert image.getpixel((0, 0))[3] == 0  # no background
    assert np.asarray(image)[..., 3].max() > 250
