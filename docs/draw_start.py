"""Draws the figures of ``README.md`` and ``start.md``, by the calls that these pages show.

``python docs/draw_start.py`` writes ``start_*.png`` and ``first_ranking.png`` to ``docs/_static``.
It runs the lines of the README on the screens of Papalexi (in the folder ``$NEXTPERT_DATA``) and
TAP-seq, which takes some minutes.
"""

from __future__ import annotations

import os
from pathlib import Path

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


def main() -> None:
    """Run the calls, and write the figures."""
    folder = folder_asked("")
    draw_first(folder)
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
