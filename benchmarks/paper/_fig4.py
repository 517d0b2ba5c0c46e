"""Fig. 4: the shifts that an acquisition selects, round by round, beside the ideal shift."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.paper._draw import LOOKS, STYLE, legend, plt, save
from benchmarks.paper._figures import ACQUISITIONS, NAMES
from benchmarks.paper._files import read_csv, write_csv
from benchmarks.paper._run import mean_and_error
from benchmarks.paper._settings import PRIORS, Instance, Setting, instance, task
from benchmarks.paper._tables import markdown, value
from nextpert.core import design_loops

Array = np.ndarray
SPARSE, DENSE = (
    Setting(f"{name}, 10 nodes, 5 random targets", 10, family, n_targets=5, where="random")
    for name, family in (("Erdos-Renyi", "erdos_renyi"), ("complete", "complete"))
)
SHOWN = (1, 10, 50)
QUANTITIES = {
    "gap": "distance",
    "cosine": "cosine",
    "parents": "cosine, parents only",
}
CLAIM = "The shifts that CIV selects converge to the ideal shift a*."


def measures(tried: Array, drawn: Instance) -> dict[str, Array]:
    """Return distance and cosine of tried shifts ``(..., nodes)`` to the ideal one.

    Both signs count as one in the cosines: for learning, a shift is as good as its opposite. The
    last one is among nodes with children: a shift of any other node tells nothing of a weight.
    """
    ideal = drawn.shift
    has_child = np.isin(np.arange(len(ideal)), [parent for parent, _ in drawn.dag.edges()])
    part, whole = tried[..., has_child], ideal[has_child]
    norms = np.linalg.norm(part, axis=-1) * np.linalg.norm(whole)
    return {
        "gap": np.linalg.norm(tried - ideal, axis=-1),
        "cosine": np.abs(tried @ ideal),
        # Where a* is zero on all parents there is no direction to find: not counted.
        "parents": np.abs(part @ whole) / np.where(norms > 0, norms, np.nan),
    }


def run(folder: Path, *, quick: bool, workers: int) -> None:
    """Write distances of selected shifts to the ideal one, and the shifts of one campaign."""
    instances, runs, rounds = (2, 2, 12) if quick else (10, 20, 50)
    rows = []
    for setting, prior, acquisition in product((SPARSE, DENSE), PRIORS, ACQUISITIONS):
        keys = list(product(range(instances), range(runs)))
        tasks = [task(setting, seed, r, acquisition, prior, rounds) for seed, r in keys]
        results = design_loops(tasks, n_jobs=workers)
        tried = np.array([r.shifts for r in results]).reshape(instances, runs, rounds, -1)
        drawn = [instance(setting, seed) for seed in range(instances)]
        found = [measures(shifts, one) for shifts, one in zip(tried, drawn, strict=True)]
        for name in QUANTITIES:
            by_instance = np.array([one[name].mean(axis=0) for one in found])
            counted = ~np.isnan(by_instance).any(axis=1)
            mean, error = mean_and_error(by_instance[counted])
            rows += [
                (setting.name, prior, acquisition, name, t + 1, mean[t], error[t])
                for t in range(rounds)
                if (t + 1) % 5 == 0 or t == 0
            ]
        if (setting, prior, acquisition) == (SPARSE, "fixed", "civ"):
            shifts = np.vstack([drawn[0].shift, tried[0, 0]])
            one = pd.DataFrame(shifts).rename_axis("round").reset_index()
            write_csv(one.rename(columns=str), folder, "fig4-shifts")
    columns = ["setting", "prior", "acquisition", "quantity", "round", "mean", "sem"]
    write_csv(pd.DataFrame(rows, columns=columns), folder, "fig4")


def table(folder: Path) -> str:
    """Return the distance of the selected shift to a*, and |cosine|, by round."""
    found = read_csv(folder, "fig4")
    ends = [t for t in SHOWN if t in set(found["round"])]
    rows = []
    keys = ["setting", "prior", "acquisition"]
    for (setting, prior, acquisition), part in found.groupby(keys, sort=False):
        cells = []
        for quantity in QUANTITIES:
            at = part[part["quantity"] == quantity].set_index("round")
            cells += [value(at.loc[t, "mean"], at.loc[t, "sem"]) for t in ends]
        rows.append([str(setting).split(",")[0], str(prior), NAMES[str(acquisition)], *cells])
    header = [f"{name}, round {t}" for name in QUANTITIES.values() for t in ends]
    return markdown(["graph", "prior", "acquisition", *header], rows)


def draw(folder: Path) -> None:
    """Draw the shifts of one campaign as a heat map beside a*, and the mean distance to a*."""
    shifts, found = read_csv(folder, "fig4-shifts"), read_csv(folder, "fig4")
    matrix = shifts.drop(columns="round").to_numpy().T
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 4, figsize=(10, 3.3), width_ratios=(9, 0.5, 7, 7), layout="constrained"
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
        axes[0].set_title("selected by CIV, Erdos-Renyi, one campaign", loc="left", fontsize=8)
        figure.colorbar(image, ax=axes[1], label="shift", fraction=2.0, aspect=30)
        axes[3].sharey(axes[2])
        for ax, setting in zip(axes[2:], (SPARSE, DENSE), strict=True):
            keep = (found["setting"] == setting.name) & (found["prior"] == "fixed")
            _draw_gaps(ax, found[keep & (found["quantity"] == "gap")])
            ax.set_title(setting.name.split(",")[0], loc="left", fontsize=8)
        axes[2].set_ylabel("distance of the selected shift to a*")
        legend(figure, axes[2], 6)
        save(figure, folder, "fig4")


def _draw_gaps(ax: Any, part: Any) -> None:
    for acquisition, line in part.groupby("acquisition", sort=False):
        colour, style, marker = LOOKS[str(acquisition)]
        ax.plot(
            line["round"], line["mean"], color=colour, linestyle=style, marker=marker,
            markersize=3.2, linewidth=1.3, label=NAMES[str(acquisition)],
        )  # fmt: skip
    ax.set(xlabel="round", ylim=0)
    ax.grid(color="0.92", linewidth=0.6)
