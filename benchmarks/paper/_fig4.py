"""Fig. 4: the shifts that a criterion selects, round by round, beside the ideal shift."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.paper._draw import LOOKS, STYLE, legend, plt, save
from benchmarks.paper._figures import CRITERIA, NAMES
from benchmarks.paper._files import read_csv, write_csv
from benchmarks.paper._run import mean_and_error
from benchmarks.paper._settings import PRIORS, Setting, instance, task
from benchmarks.paper._tables import markdown, value
from nextpert.core import campaigns

SETTING = Setting(
    "Erdos-Renyi, 10 nodes, 5 random targets", 10, "erdos_renyi", n_targets=5, where="random"
)
SHOWN = (0, 5, 10, 25, 50)
CLAIM = "The shifts that CIV selects converge to the ideal shift a*."


def run(folder: Path, *, quick: bool, workers: int) -> None:
    """Write distances of selected shifts to the ideal one, and the shifts of one campaign."""
    instances, runs, rounds = (2, 2, 8) if quick else (10, 20, 50)
    rows = []
    for prior, criterion in product(PRIORS, CRITERIA):
        keys = list(product(range(instances), range(runs)))
        tasks = [task(SETTING, seed, r, criterion, prior, rounds) for seed, r in keys]
        results = campaigns(tasks, n_jobs=workers)
        ideal = np.array([instance(SETTING, seed).shift for seed, _ in keys])
        tried = np.array([r.shifts for r in results])  # (campaigns, rounds, nodes)
        gap = np.linalg.norm(tried - ideal[:, None], axis=2)
        # The criteria look alike at a and -a: what counts for learning is the axis.
        cosine = np.abs((tried * ideal[:, None]).sum(axis=2))
        for name, found in (("gap", gap), ("cosine", cosine)):
            mean, error = mean_and_error(found.reshape(instances, runs, -1).mean(axis=1))
            rows += [(prior, criterion, name, t + 1, mean[t], error[t]) for t in range(rounds)]
        if (prior, criterion) == ("fixed", "civ"):
            shifts = np.vstack([ideal[0], tried[0]])
            one = pd.DataFrame(shifts).rename_axis("round").reset_index()
            write_csv(one.rename(columns=str), folder, "fig4-shifts")
    columns = ["prior", "criterion", "quantity", "round", "mean", "sem"]
    write_csv(pd.DataFrame(rows, columns=columns), folder, "fig4")


def table(folder: Path) -> str:
    """Return the distance of the selected shift to a*, and |cosine|, by round."""
    found = read_csv(folder, "fig4")
    ends = [t for t in (1, *SHOWN[1:]) if t in set(found["round"])]
    rows = []
    for (prior, criterion), part in found.groupby(["prior", "criterion"], sort=False):
        cells = []
        for quantity in ("gap", "cosine"):
            at = part[part["quantity"] == quantity].set_index("round")
            cells += [value(at.loc[t, "mean"], at.loc[t, "sem"]) for t in ends]
        rows.append([str(prior), NAMES[str(criterion)], *cells])
    header = [*(f"distance, round {t}" for t in ends), *(f"cosine, round {t}" for t in ends)]
    return markdown(["prior", "criterion", *header], rows)


def draw(folder: Path) -> None:
    """Draw the shifts of one campaign as a heat map beside a*, and the mean distance to a*."""
    shifts, found = read_csv(folder, "fig4-shifts"), read_csv(folder, "fig4")
    matrix = shifts.drop(columns="round").to_numpy().T
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 3, figsize=(8, 3.3), width_ratios=(10, 0.5, 8), layout="constrained"
        )
        axes[0].sharey(axes[1])
        look: Any = {"aspect": "auto", "cmap": "RdBu_r", "vmin": -1, "vmax": 1}
        n = matrix.shape[1] - 1
        edges: Any = {"extent": (0.5, n + 0.5, len(matrix) + 0.5, 0.5)}
        image = axes[0].imshow(matrix[:, 1:], **look, **edges)
        axes[1].imshow(matrix[:, :1], **look, extent=(0, 1, len(matrix) + 0.5, 0.5))
        axes[1].set(xticks=[], title="a*")
        axes[1].tick_params(labelleft=False)
        axes[0].set(xlabel="round", ylabel="node", yticks=range(1, len(matrix) + 1))
        axes[0].set_title("shift selected by CIV, one campaign", loc="left", fontsize=8)
        figure.colorbar(image, ax=axes[1], label="shift", fraction=2.0, aspect=30)
        part = found[(found["prior"] == "fixed") & (found["quantity"] == "gap")]
        for criterion, line in part.groupby("criterion", sort=False):
            colour, style, marker = LOOKS[str(criterion)]
            axes[2].plot(
                line["round"], line["mean"], color=colour, linestyle=style, marker=marker,
                markevery=5, markersize=3.2, linewidth=1.3, label=NAMES[str(criterion)],
            )  # fmt: skip
        axes[2].set(xlabel="round", ylabel="distance of the selected shift to a*", ylim=0)
        axes[2].grid(color="0.92", linewidth=0.6)
        legend(figure, axes[2], 6)
        save(figure, folder, "fig4")
