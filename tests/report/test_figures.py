"""Figures of the report: what is drawn of the graph, and how large a picture may be."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from PIL import Image

import nextpert as npt
from nextpert._report import measured, page
from nextpert._report.results import keys_of, read_all
from nextpert._report.tables import number


@pytest.fixture
def asked(monkeypatch):
    """The options that the plot of the graph was called with, in place of a plot."""
    given = {}

    def draw(plot, adata, alt, caption, **options):
        given.update(options)
        return page.Figure("", alt, caption)

    monkeypatch.setattr(measured, "draw", draw)
    return given


def graph(adata):
    keys = keys_of(None)
    return measured.graph_section(adata, read_all(adata, keys, {}), keys)


def effects(adata):
    keys = keys_of(None)
    return measured.effects_section(adata, read_all(adata, keys, {}), keys)


def judged(adata, level):
    """Set what the diagnosis says of the graph."""
    parts = adata.uns["diagnosis"]["parts"]
    rows = parts["part"] == "graph"
    parts.loc[rows, ["level", "verdict"]] = [level, "Graph: it adds nothing here."]
    assert rows.any()
    return adata


@pytest.mark.slow
def test_a_trusted_graph_has_causes_and_effects(adata, asked):
    section = graph(judged(adata, "trust"))
    assert asked["directed"] is True
    assert section.title == "Graph"
    heads = [column.head for column in section.tables[0].columns]
    assert heads[:2] == ["Cause", "Effect"]
    weights = np.abs(sp.csr_array(adata.varp["dag_blr_mean"]).data)
    drawn = [abs(float(row[2].value)) for row in section.tables[0].rows]
    np.testing.assert_allclose(drawn, np.sort(weights)[::-1], rtol=1e-5)


@pytest.mark.slow
def test_a_graph_that_is_not_trusted_shows_associations(adata, asked):
    section = graph(judged(adata, "do not trust"))
    assert asked["directed"] is False
    assert section.title == "Associations"
    assert "so its edges are associations" in section.words[1]
    assert section.words[1].endswith("Diagnosis: it adds nothing here.")
    heads = [column.head for column in section.tables[0].columns]
    assert heads[:2] == ["Gene", "Associated gene"]
    told = " ".join(
        [*section.words[:1], *section.figures[0][1:3], section.tables[0].caption, *heads]
    )
    assert not re.search("cause|effect|arrow|oriented", told, re.IGNORECASE)


@pytest.mark.slow
def test_a_learned_graph_that_nobody_judged_shows_associations(adata, asked):
    del adata.uns["diagnosis"]
    assert graph(adata).title == "Graph"  # it was given
    npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    section = graph(adata)
    assert section.title == "Associations"
    assert "run tl.diagnose" in section.words[1]
    assert asked["directed"] is False


def test_long_drawings_become_pixels(monkeypatch):
    import matplotlib.pyplot as plt

    def plot(adata, **options):
        figure, panel = plt.subplots()
        panel.plot(np.sin(np.arange(50)))
        return figure

    assert page.draw(plot, None, "", "").link.startswith("data:image/svg+xml;base64,")
    monkeypatch.setattr(page, "_LARGE", 10)
    links = [page.draw(plot, None, "", "").link for _ in range(2)]
    assert links[0] == links[1]
    kind, held = links[0].split(",")
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(held))).convert("RGBA")
    assert image.getpixel((0, 0))[3] == 0  # no background
    assert np.asarray(image)[..., 3].max() > 250


def test_fields_of_a_heat_map_tell_their_values(adata):
    figure = effects(adata).figures[0]
    stored = adata.uns["perturbation_effects"]
    mean = pd.DataFrame(stored["mean"], list(stored["perturbations"]), list(stored["genes"]))
    assert len(figure.spots) == mean.size
    told = {re.fullmatch(r"(.+) \(.*\), (.+): (.+)", spot.text).groups() for spot in figure.spots}
    names = [(x, gene) for x in mean.index for gene in mean]
    assert told == {(x, gene, number(mean.loc[x, gene])) for x, gene in names}
    # A field is where its colour is.
    svg = base64.b64decode(figure.link.split(",")[1]).decode()
    width, height = (float(re.search(rf'{x}="([\d.]+)pt"', svg)[1]) for x in ("width", "height"))
    assert figure.size == pytest.approx((width / 0.72, height / 0.72), abs=0.6)
    mesh = svg[svg.index('id="QuadMesh_1"') :]
    starts = re.findall(r'<path d="M ([\d.]+) ([\d.]+)', mesh)[: mean.size]
    corners = [(spot.x * 0.72, spot.y * 0.72) for spot in figure.spots]
    np.testing.assert_allclose(corners, np.array(starts, float), atol=0.5)
