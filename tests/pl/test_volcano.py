"""Genes are drawn at their effect and local false sign rate, by significance and direction."""

import matplotlib.colors
import numpy as np
import pytest

import nextpert as npt
from nextpert.pl import volcano
from nextpert.pl._figure import BLUE, GREY, ORANGE


def test_genes_by_significance_and_direction(designed, overlaps):
    stored = designed.uns["perturbation_effects"]
    stored["lfsr"][1, :2] = [1e-300, 1e-8]
    label = str(stored["perturbations"][1])
    ax = volcano(designed, perturbation=label, show=False)
    effect, lfsr = stored["mean"][1], stored["lfsr"][1]
    expected = {
        GREY: lfsr >= 0.05,
        ORANGE: (lfsr < 0.05) & (effect > 0),
        BLUE: (lfsr < 0.05) & (effect <= 0),
    }
    height = np.minimum(-np.log10(np.maximum(lfsr, 1e-299)), 15.0)
    target = list(stored["genes"]).index(label)
    *points, ring = ax.collections
    np.testing.assert_allclose(ring.get_offsets(), [[effect[target], height[target]]])
    for colour, members in expected.items():
        rgb = matplotlib.colors.to_rgb(colour)
        drawn = [p for p in points if len(p.get_offsets()) and np.allclose(p.get_fc()[0, :3], rgb)]
        found = np.vstack([p.get_offsets() for p in drawn])
        wanted = np.c_[effect, height][members]
        np.testing.assert_allclose(found[np.lexsort(found.T)], wanted[np.lexsort(wanted.T)])
    names = [text.get_text() for text in ax.texts]
    assert label in names
    significant = {str(gene) for gene in stored["genes"][lfsr < 0.05]}
    assert set(names) <= significant | {label}
    assert len(names) > 2
    ax.figure.canvas.draw()
    assert overlaps(ax.texts, ax.figure) == []
    assert ax.get_title() == f"effect of {label} (30 cells)\non 36 genes"


def test_the_default_has_most_significant_effects_and_names_can_be_left_out(designed):
    stored = designed.uns["perturbation_effects"]
    label = str(stored["perturbations"][np.argmax((stored["lfsr"] < 0.05).sum(axis=1))])
    ax = volcano(designed, n_names=0, show=False)
    assert label in ax.get_title()
    assert {text.get_text() for text in ax.texts} <= {label}


def test_perturbations_without_effects_or_cells_are_named(designed):
    with pytest.raises(ValueError, match="Perturbations without effects: NOPE"):
        volcano(designed, perturbation="NOPE")
    npt.tl.perturbation_effects(designed, candidates="genes", key_added="all")
    stored = designed.uns["all"]
    unseen = str(stored["perturbations"][stored["n_cells"] == 0][0])
    with pytest.raises(ValueError, match=f"{unseen} has no local false sign rates"):
        volcano(designed, key="all", perturbation=unseen)
