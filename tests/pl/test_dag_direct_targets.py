"""Perturbations and their direct targets in ``pl.dag``."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.text import Annotation

import nextpert as npt
from nextpert.pl import dag
from nextpert.pl._figure import BLACK, BLUE, ORANGE, PALETTE, PURPLE

OWN, OFF, OTHER = BLACK, PURPLE, PALETTE[0]


def _store(adata, rows):
    columns = ["perturbation", "gene", "frequency"]
    adata.uns["dag"]["direct_targets"] = pd.DataFrame(rows, columns=columns)


@pytest.fixture
def screen(designed):
    """A screen with direct targets: own genes, others, an enhancer, a combination, a covariate."""
    rows = [
        ("MYC", "MYC", 1.0), ("MYC", "B2M", 0.4), ("HS2", "STAT1", 0.8),
        ("CCR10+CD58", "CD58", 0.9), ("log_depth", "MYC", 0.6), ("CCR10+CD58", "IRF3", 0.2),
    ]  # fmt: skip
    _store(designed, rows)
    return designed


def _squares(ax):
    return {t.get_text(): t.xy for t in ax.texts if isinstance(t, Annotation)}


def _drawn(ax):
    """Return {(perturbation, gene): (colour, opacity)}, and check where the lines end."""
    genes = [t for t in ax.texts if not isinstance(t, Annotation)]
    at = _squares(ax)
    lines = [c for c in ax.collections if isinstance(c, LineCollection)][-1]
    found = {}
    for path, colour in zip(lines.get_segments(), lines.get_colors(), strict=True):
        ((name, _),) = [(n, p) for n, p in at.items() if np.allclose(p, path[0])]
        gene = genes[round(path[1, 0])].get_text()
        assert path[0, 1] < path[1, 1] < 0  # from the squares up to below the names
        found[name, gene] = to_hex(colour).upper(), colour[3]
    return found


def _labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_lines_lead_to_direct_targets_and_off_targets_stand_out(screen):
    ax = dag(screen, direct_targets=True, show=False)
    drawn = _drawn(ax)
    assert {pair: colour for pair, (colour, _) in drawn.items()} == {
        ("MYC", "MYC"): OWN,
        ("MYC", "B2M"): OFF,
        ("HS2", "STAT1"): OTHER,
        ("CCR10+CD58", "CD58"): OWN,
        ("CCR10+CD58", "IRF3"): OFF,
        ("log_depth", "MYC"): OTHER,
    }
    table = screen.uns["dag"]["direct_targets"].sort_values("frequency")
    pairs = zip(table["perturbation"], table["gene"], strict=True)
    assert (np.diff([drawn[pair][1] for pair in pairs]) > 0).all()
    assert _labels(ax)[-4:] == [
        "perturbation", "acts on its target", "acts on another gene",
        "not named after a gene here",
    ]  # fmt: skip
    assert set(_squares(ax)) == {"MYC", "HS2", "CCR10+CD58", "log_depth"}


def test_edges_between_genes_lie_above_with_the_sign_as_colour(screen):
    ax = dag(screen, direct_targets=True, show=False)
    edges = next(c for c in ax.collections if isinstance(c, LineCollection))
    assert min(path[:, 1].min() for path in edges.get_segments()) > 0
    assert {to_hex(colour).upper() for colour in edges.get_colors()} == {BLUE, ORANGE}
    assert _labels(ax)[:2] == ["raises", "lowers"]
    plain = dag(screen, show=False)
    assert not _squares(plain)
    assert _labels(plain)[:2] == ["raises (above)", "lowers (below)"]


def test_a_part_of_the_perturbations_and_genes(screen):
    assert set(_squares(dag(screen, direct_targets=["HS2"], show=False))) == {"HS2"}
    assert set(_squares(dag(screen, direct_targets={"HS2", "MYC"}, show=False))) == {"HS2", "MYC"}
    some = dag(screen, genes=["MYC", "CD58"], direct_targets=True, show=False)
    assert set(_drawn(some)) == {("MYC", "MYC"), ("CCR10+CD58", "CD58"), ("log_depth", "MYC")}
    none = dag(screen, genes=["NPC1", "CD58"], direct_targets=["MYC"], show=False)
    assert not _squares(none)


def test_without_resamples_all_lines_are_dark(screen):
    del screen.uns["dag"]["direct_targets"]["frequency"]
    drawn = _drawn(dag(screen, direct_targets=True, posterior_key=None, show=False))
    assert {opacity for _, opacity in drawn.values()} == {1.0}


def test_squares_stand_under_their_own_gene(screen):
    names = list(screen.var_names)
    _store(screen, [(name, name, 1.0) for name in names] + [(names[0], names[9], 1.0)])
    ax = dag(screen, direct_targets=True, show=False)
    genes = [t.get_text() for t in ax.texts if not isinstance(t, Annotation)]
    assert {name: x for name, (x, _) in _squares(ax).items()} == pytest.approx(
        {gene: k for k, gene in enumerate(genes)}
    )


@pytest.mark.parametrize("n", [1, 36, 60, 100])
def test_names_overlap_neither_each_other_nor_lines(designed, n, overlaps):
    names = list(designed.var_names)
    _store(designed, [(f"enhancer-{k}", names[k * k % 7], 0.5) for k in range(n)])
    figure = dag(designed, direct_targets=True, return_fig=True)
    figure.canvas.draw()
    (ax,) = figure.axes
    assert overlaps(ax.texts, figure) == []
    genes = [t for t in ax.texts if not isinstance(t, Annotation)]
    squares = [t for t in ax.texts if isinstance(t, Annotation)]
    to_data = ax.transData.inverted()
    ends = [c for c in ax.collections if isinstance(c, LineCollection)][-1].get_segments()
    low, high = ends[0][:, 1]
    assert all(to_data.transform(t.get_window_extent())[0, 1] > high for t in genes)
    assert all(to_data.transform(t.get_window_extent())[1, 1] < low for t in squares)
    frame = ax.get_window_extent()
    for text in squares:
        box = text.get_window_extent()
        assert frame.y0 - 1 <= box.y0
        assert frame.x0 - 1 <= box.x0 < box.x1 <= frame.x1 + 1


def test_what_cannot_be_drawn_is_said(screen):
    with pytest.raises(ValueError, match=r"direct targets: HS3\. Close matches: HS2"):
        dag(screen, direct_targets=["HS3"])
    with pytest.raises(TypeError, match="direct_targets"):
        dag(screen, direct_targets="HS2")
    del screen.uns["dag"]["direct_targets"]
    with pytest.raises(ValueError, match='environments="all"'):
        dag(screen, direct_targets=True)
    assert not plt.get_fignums()


def test_those_that_learn_dag_finds_are_drawn():
    adata = npt.datasets.simulated_screen(
        n_genes=6, n_control=200, n_perturbed=60, perturbed=3, expected_degree=2, rng=0
    )
    npt.tl.learn_dag(adata, method="boss", environments="all")
    table = adata.uns["dag"]["direct_targets"]
    drawn = _drawn(dag(adata, direct_targets=True, show=False))
    assert set(drawn) == set(zip(table["perturbation"], table["gene"], strict=True)) != set()
