"""Draws every plot once, on one small simulated screen: the pictures of the gallery.

``python docs/make_gallery.py FOLDER`` writes ``FOLDER/<name>.png``, the same bytes on every run.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import matplotlib.pyplot as plt

import nextpert as npt

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from matplotlib.figure import Figure

# What is on each picture, and the options it is drawn with.
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "cpca_density": (
        "Where the cells of each perturbation lie relative to control cells, in contrastive "
        "components.",
        {},
    ),
    "dag": (
        "The graph of genes, causes left of effects: sign and size of every weight, and how often "
        "bootstrap graphs have the edge; dashed where it is unoriented.",
        {},
    ),
    "dag_fit": (
        "How well parents predict each gene in held-out cells, compared with random graphs.",
        {},
    ),
    "design": (
        "The ranking: predicted distance of every candidate to the target with 90% intervals, "
        "the acquisition, and the rounds so far.",
        {"n_top": 12},
    ),
    "diagnose": (
        "Which parts of a fit to trust on this screen: effects, left-out perturbations, the "
        "strength of each perturbation on its target gene, calibration.",
        {},
    ),
    "effects_heatmap": (
        "The significant effects, perturbations and genes clustered, with both trees.",
        {},
    ),
    "expression_shift": (
        "Each target gene in control cells and in the cells in which it is perturbed.",
        {},
    ),
    "perturbation_counts": ("Cells of every perturbation, ranked.", {"min_cells": 30}),
    "perturbation_effects": (
        "Expected effect of every perturbation on every gene; + or − where the direction is "
        "significant.",
        {},
    ),
    "plan_cells": ("What numbers of cells and guides achieve.", {}),
    "plan_screen": (
        "The next round: which perturbations and why, their cells, and the value of the plan.",
        {},
    ),
    "programs": (
        "The programs that perturbations share: the score of each perturbation, and the genes that "
        "change, with 90% intervals.",
        {},
    ),
    "replay": (
        "How near each strategy would have come to each target on this screen, round by round.",
        {},
    ),
    "state_map": (
        "States of perturbations, control and target, similar states near each other.",
        {},
    ),
    "target_distances": (
        "Measured distance of every perturbation to the target, with confidence intervals.",
        {},
    ),
    "volcano": (
        "Effects of one perturbation on all genes against their local false sign rates.",
        {},
    ),
}


def screen() -> AnnData:
    """Return a screen of 16 genes, 10 of them knocked out, with every result that plots draw."""
    adata = npt.datasets.simulated_screen(
        n_genes=16, n_control=200, n_perturbed=60, perturbed=10, expected_degree=3.0, rng=7
    )
    labels = [label for label in adata.obs["perturbation"].cat.categories if label != "control"]
    # As in a real screen, some perturbations have few cells.
    place = adata.obs.groupby("perturbation", observed=True).cumcount().to_numpy()
    kept = {label: 60 - 5 * i for i, label in enumerate(labels)} | {"control": 200}
    adata = adata[place < adata.obs["perturbation"].map(kept).astype(int)].copy()
    target, *others = labels  # the model has not seen the perturbation that produces the target
    plate = adata[adata.obs["perturbation"].isin([target, *others[:4], "control"])].copy()
    for seen, known in ((plate, others[:4]), (adata, others)):  # in two rounds
        npt.tl.learn_dag(seen, search_options={"n_runs": 2}, n_graphs=10)
        npt.tl.fit_dag_blr(seen, perturbations=known)
        if seen is adata:
            adata.uns["design"] = plate.uns["design"]
        npt.tl.design_interventions(seen, target, candidates="genes", n_samples=200)
    npt.tl.dag_fit(adata, n_random=40)
    npt.tl.cpca(adata, alpha=1.0, n_components=2)
    npt.tl.perturbation_effects(adata)
    npt.tl.diagnose(adata)
    npt.tl.target_distances(adata, target)
    npt.tl.plan_cells(adata, target)
    # Towards this target, three candidates are expected to be nearer than the control.
    npt.tl.plan_screen(adata, others[2], n_perturbations=4)
    npt.tl.replay_design(
        adata,
        others[:3],
        strategies=["exploit", "thompson", "random", "round_robin_means"],
        held_out=True,
        n_rounds=4,
        n_perturbations=2,
        n_repeats=2,
    )
    return adata


def figures(adata: AnnData) -> dict[str, Callable[[], Figure]]:
    """Return what draws each picture, by name."""

    def drawing(name: str, options: dict[str, Any]) -> Callable[[], Figure]:
        return lambda: getattr(npt.pl, name)(adata, return_fig=True, **options)

    return {name: drawing(name, options) for name, (_, options) in PICTURES.items()}


def make(folder: Path) -> dict[str, str]:
    """Write ``folder/<name>.png`` for every plot; return what is on each, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings(), mpl.style.context("default"):
        warnings.simplefilter("ignore")
        plt.switch_backend("agg")
        for name, plot in figures(screen()).items():
            figure = plot()
            figure.savefig(
                folder / f"{name}.png", dpi=110, bbox_inches="tight", metadata={"Software": None}
            )
            plt.close(figure)
    return {name: caption for name, (caption, _) in PICTURES.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    make(parser.parse_args().folder)
