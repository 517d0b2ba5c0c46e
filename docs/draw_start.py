"""Draws the figures of ``README.md`` and ``start.md``, by the calls that these pages show.

``python docs/draw_start.py`` writes ``start_*.png``, ``first_ranking.png`` and ``social.png`` to
``docs/_static``; other sites show the last beside a link.
It runs the lines of the README on the screens of Papalexi (in the folder ``$NEXTPERT_DATA``) and
TAP-seq, which takes some minutes.
"""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib.image as mpimg
import matplotlib.pyplot as plt

import nextpert as npt
from _figures import folder_asked

TARGET = "UBR5"


def draw_first(folder: Path) -> None:
    """Draw the ranking of the first question of the README."""
    file = Path(os.environ["NEXTPERT_DATA"]) / "papalexi_thp1" / "papalexi_lowmoi.h5ad"
    adata = npt.datasets.papalexi_2021(file)
    npt.pp.perturbation_screen(adata, guide_key="guide", batch_key="replicate")
    npt.tl.learn_dag(adata, method="boss", environments="all", n_graphs=25)
    npt.tl.fit_dag_blr(adata)
    npt.tl.design_interventions(adata, "IFNGR1")
    npt.pl.design(adata, show=False, save=folder / "first_ranking.png")


def draw_social(folder: Path) -> None:
    """Draw the picture for links, 1280 x 640 pixels: logo, question and the ranking."""
    figure = plt.figure(figsize=(12.8, 6.4), dpi=100, facecolor="white")
    logo = figure.add_axes((0.04, 0.66, 0.1, 0.2), xlim=(0, 64), ylim=(64, 0), aspect="equal")
    logo.plot([14, 30], [50, 40], ":", c="#9aa0a6", lw=4)
    logo.plot([34, 44], [37, 22], ":", c="#9aa0a6", lw=4)
    logo.scatter([12, 32], [51, 39], s=520, c=["#757b84", "#0072b2"], zorder=3)
    logo.scatter([16], [22], s=380, facecolor="white", edgecolor="#0072b2", lw=5)
    logo.scatter([51], [14], s=1300, marker="*", c="#d55e00", zorder=3)
    logo.axis("off")
    figure.text(0.145, 0.745, "nextpert", size=48, weight="bold", color="#757b84", va="center")
    figure.text(0.045, 0.42, "Which perturbation\nshould you test next?", size=32, va="center")
    about = (
        "Effects with intervals, rankings, plans and orders\nfor single-cell perturbation screens"
    )
    figure.text(0.045, 0.17, about, size=17, color="#5f656d", va="center")
    picture = figure.add_axes((0.53, 0.02, 0.46, 0.96))
    picture.imshow(mpimg.imread(folder / "first_ranking.png"))
    picture.axis("off")
    figure.savefig(folder / "social.png")


def main() -> None:
    """Run the calls, and write the figures."""
    folder = folder_asked("")
    draw_first(folder)
    draw_social(folder)
    adata = npt.datasets.schraivogel_2020()
    npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    npt.tl.learn_dag(adata, method="boss", environments="all", n_graphs=25)
    npt.tl.fit_dag_blr(adata)
    npt.tl.perturbation_effects(adata)
    npt.tl.diagnose(adata)
    npt.tl.design_interventions(adata, TARGET)
    npt.tl.plan_screen(adata, TARGET, n_cells=2000, constraints={"max_combination": 2})
    npt.pl.perturbation_effects(adata, show=False, save=folder / "start_effects.png")
    npt.pl.diagnose(adata, show=False, save=folder / "start_diagnosis.png")
    npt.pl.design(adata, show=False, save=folder / "start_ranking.png")
    npt.pl.plan_screen(adata, show=False, save=folder / "start_plan.png")


if __name__ == "__main__":
    main()
