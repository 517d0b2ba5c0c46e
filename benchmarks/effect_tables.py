"""Screens given as tables: whether they agree with their own cells, and their diagnosis.

Effects and standard errors are computed from the cells of a screen, without guides, and given to
``pp.effect_table`` with the means and standard errors of the controls. The fits to the table and to
the cells are compared by their posterior means, in standard errors of the effects, and by the first
five of the ranking towards a target state, and a plan of five. *Moderated*: variances as in a fit
to cells, with the correlation of genes; *raw*: variances of each perturbation's own cells, without
the correlation.

``tl.diagnose`` of the table is compared with that of its cells, of the table with halved standard
errors, and of a table from shuffled labels, which has no effects. Values are means over
``--splits`` splits. False effects of simulated tables are in ``benchmarks.designs``.

    python -m benchmarks.effect_tables
"""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table
from benchmarks._screens import add_arguments, screens_of

JUDGED = {
    "perturbations that differ from the controls": ("cells", "n_significant"),
    "of these, also from the others": ("cells", "n_distinct"),
    "width of z-scores": ("negative controls", "perturbations_width"),
    "target genes found": ("positive controls", "n_found"),
    "error of shrunken effects / raw means": ("shrinkage", "error_to_raw_means"),
    "coverage of 90% intervals": ("shrinkage", "coverage_90"),
    "coverage of large effects": ("shrinkage", "coverage_90_large"),
    "error on unseen perturbations / no effect": ("unseen perturbations", "error_to_no_effect"),
}


def raw_table(adata: ad.AnnData, control: str) -> ad.AnnData:
    """Return a table of effects with the variances of each perturbation's own cells."""
    groups = pd.DataFrame(np.asarray(adata.X, float), columns=adata.var_names).groupby(
        adata.obs["perturbation"].astype(str).to_numpy()
    )
    mean, n = groups.mean(), groups.size()
    variance = groups.var().div(n, axis=0)
    names = mean.index.drop(control)
    return npt.pp.effect_table(
        mean.loc[names] - mean.loc[control],
        np.sqrt(variance.loc[names] + variance.loc[control]),
        n_cells=n[names].to_dict(), n_controls=int(n[control]),
        control_mean=dict(mean.loc[control]),
        control_se=dict(np.sqrt(variance.loc[control])),
    )  # fmt: skip


def results(adata: ad.AnnData, target: str) -> dict[str, Any]:
    """Return effects, ranking and plan of a screen, of cells or a table, on an empty graph."""
    npt.tl.learn_dag(adata, method="given", dag=[])
    npt.tl.fit_dag_blr(adata)
    npt.tl.design_interventions(adata, target, acquisition="probability")
    npt.tl.plan_screen(adata, target, n_perturbations=5)
    plate = adata.uns["plan"]["plate"]
    return {
        "effects": npt.tl.perturbation_effects(adata, as_anndata=True).to_df(),
        "first five": adata.uns["design"]["ranking"]["perturbation"].tolist()[:5],
        "plate": plate.loc[plate["strategy"] != "control", "perturbation"].tolist(),
    }


def agreement(adata: ad.AnnData, control: str, target: str) -> str:
    """Return by how many standard errors effects differ, and what is decided alike."""
    tables = {"moderated": npt.pp.effect_table(adata), "raw": raw_table(adata, control)}
    se = tables["raw"].to_df("se").set_axis(tables["raw"].obs["perturbation"])
    cells, rows = results(adata.copy(), target), {}
    for name, each in tables.items():
        found = results(each, target)
        gap = (cells["effects"] - found["effects"]).abs() / se.loc[cells["effects"].index]
        rows[name] = [
            *(f"{np.quantile(gap, q):.3f}" for q in (0.5, 0.99, 1.0)),
            *(len(set(cells[what]) & set(found[what])) for what in ("first five", "plate")),
        ]  # fmt: skip
    head = ("table", "median difference", "99%", "largest", "first five shared", "plan shared")
    return table(head, rows)


def diagnosed(adata: ad.AnnData, splits: int) -> tuple[pd.Series, str]:
    """Return the quantities of a diagnosis, means over splits, and the level of the first."""
    npt.tl.learn_dag(adata, method="given", dag=[])
    npt.tl.fit_dag_blr(adata)
    values = []
    for seed in reversed(range(splits)):
        npt.tl.diagnose(adata, rng=seed)
        summary = adata.uns["diagnosis"]["summary"].set_index(["part", "quantity"])
        values.append(summary["value"])
    return pd.concat(values, axis=1).mean(axis=1), str(adata.uns["diagnosis"]["level"])


def diagnoses(adata: ad.AnnData, splits: int) -> str:
    """Return the diagnoses of cells and tables, a column each."""
    half, shuffled = npt.pp.effect_table(adata), adata.copy()
    half.layers["se"] = 0.5 * np.asarray(half.layers["se"])
    labels = shuffled.obs["perturbation"].to_numpy()
    shuffled.obs["perturbation"] = np.random.default_rng(0).permutation(labels)
    found = {
        "cells": diagnosed(adata.copy(), splits),
        "table": diagnosed(npt.pp.effect_table(adata), splits),
        "standard errors halved": diagnosed(half, splits),
        "labels shuffled": diagnosed(npt.pp.effect_table(shuffled), splits),
    }
    rows = {
        words: [f"{values[key]:.2f}" if key in values else "" for values, _ in found.values()]
        for words, key in JUDGED.items()
    }
    return table(["", *found], {**rows, "level": [level for _, level in found.values()]})


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = options("effect_tables", __doc__, data=True)
    parser.add_argument("--splits", type=int, default=3, help="into halves, of a diagnosis")
    add_arguments(parser, "papalexi", "tapseq")
    args, sections = parser.parse_args(arguments), []
    for screen in screens_of(args):
        adata, control = screen.cells, screen.control
        adata.obs = adata.obs[["perturbation"]]  # a table knows no guides
        npt.pp.setup_screen(adata, control=control, check_scale=False)
        target = min(set(screen.targets) - {control})
        sections += [
            show(f"## {screen.name}, target {target}\n\n{agreement(adata, control, target)}"),
            show(f"## {screen.name}, diagnosis\n\n{diagnoses(adata, args.splits)}"),
        ]
    save("effect_tables", sections, args.save)


if __name__ == "__main__":
    main()
