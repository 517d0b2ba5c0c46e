"""Fig. 4: the interventions a^(t) that CIV selects on one DAG, and how far they are from a*."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._page import table as markdown
from benchmarks.paper._draw import LOOKS, STYLE, legend, plt, save
from benchmarks.paper._figures import NAMES
from benchmarks.paper._files import read_csv, write_csv
from benchmarks.paper._run import mean_and_error
from benchmarks.paper._settings import Instance, Setting, instance, task
from benchmarks.paper._tables import value
from nextpert.core import Dag, design_loops

Array = np.ndarray
# By the name of their files: the authors' density and number of targets, and our own.
SETTINGS = {
    "fig4": Setting(
        "Erdos-Renyi 0.2, 10 nodes, 5 random targets", 10, "erdos_renyi", 0.2, 5, "random"
    ),
    "fig4-denser": Setting(
        "Erdos-Renyi 0.4, 10 nodes, 3 random targets", 10, "erdos_renyi", 0.4, 3, "random"
    ),
}
QUANTITIES = {
    "selected": "distance of a^(t) to a*",
    "parents": "cosine of a^(t) and a* among nodes with children",
    "estimate": "distance of the estimate a*_t to a*",
}
CLAIM = "The interventions that CIV selects converge to a*."


def measures(tried: Array, recommended: Array, drawn: Instance) -> dict[str, Array]:
    """Return how far selected interventions and estimates ``(runs, steps, nodes)`` are from a*.

    Either sign counts as the same in the cosine: for learning, a shift is as good as its opposite.
    An intervention on a node without children provides no information on any weight, so that the
    cosine is among the others; NaN where a* is zero on all of them.
    """
    ideal = drawn.shift
    has_child = np.isin(np.arange(len(ideal)), [parent for parent, _ in drawn.dag.edges()])
    part, whole = tried[..., has_child], ideal[has_child]
    norms = np.linalg.norm(part, axis=-1) * np.linalg.norm(whole)
    return {
        "selected": np.linalg.norm(tried - ideal, axis=-1),
        "parents": np.abs(part @ whole) / np.where(norms > 0, norms, np.nan),
        "estimate": np.linalg.norm(recommended - ideal, axis=-1),
    }


def run(folder: Path, *, quick: bool, workers: int) -> None:
    """Write distances to a* over instances, and the interventions of one campaign."""
    for name, setting in SETTINGS.items():
        _run_setting(name, setting, folder, quick=quick, workers=workers)


def _run_setting(key: str, setting: Setting, folder: Path, *, quick: bool, workers: int) -> None:
    instances, runs, rounds = (2, 2, 12) if quick else (10, 20, 50)
    rows = []
    for acquisition in ("random", "civ"):
        keys = list(product(range(instances), range(runs)))
        tasks = [task(setting, seed, r, acquisition, "fixed", rounds) for seed, r in keys]
        results = design_loops(tasks, n_jobs=workers)
        shape = (instances, runs, rounds, -1)
        tried = np.array([r.shifts for r in results]).reshape(shape)
        recommended = np.array([r.recommended[1:] for r in results]).reshape(shape)
        drawn = [instance(setting, seed) for seed in range(instances)]
        found = [measures(*each) for each in zip(tried, recommended, drawn, strict=True)]
        for name in QUANTITIES:
            by_instance = np.array([one[name].mean(axis=0) for one in found])
            counted = ~np.isnan(by_instance).any(axis=1)
            mean, error = mean_and_error(by_instance[counted])
            rows += [(acquisition, name, t + 1, mean[t], error[t]) for t in range(rounds)]
        if acquisition == "civ":
            one = pd.DataFrame(np.vstack([drawn[0].shift, tried[0, 0], recommended[0, 0]]))
            kinds = ["a*", *["selected"] * rounds, *["estimate"] * rounds]
            write_csv(one.rename(columns=str).assign(kind=kinds), folder, f"{key}-shifts")
    columns = ["acquisition", "quantity", "step", "mean", "sem"]
    write_csv(pd.DataFrame(rows, columns=columns), folder, key)


def table(folder: Path) -> str:
    """Return the distances and the cosine by step, for both settings."""
    rows = []
    for key, setting in SETTINGS.items():
        found = read_csv(folder, key).set_index(["acquisition", "quantity", "step"])
        ends = [t for t in (1, 10, 25, 50) if t in found.index.levels[2]]
        rows += [
            [setting.name, NAMES[a], words,
             *(value(*found.loc[(a, name, t), ["mean", "sem"]]) for t in ends)]
            for a in ("random", "civ")
            for name, words in QUANTITIES.items()
        ]  # fmt: skip
    header = ["setting", "acquisition", "quantity", *(f"step {t}" for t in ends)]
    return markdown(header, rows)


def _places(dag: Dag) -> dict[int, tuple[float, float]]:
    """Place nodes by their longest path from a source, downwards."""
    depth = np.zeros(dag.n_nodes, int)
    for node in dag.order:
        depth[node] = 1 + max((depth[k] for k in dag.parents(node)), default=-1)
    places = {}
    for level in range(depth.max() + 1):
        nodes = np.flatnonzero(depth == level)
        for j, node in enumerate(nodes):
            places[int(node)] = ((j + 0.5) / len(nodes) + 0.08 * (-1) ** level, -float(level))
    return places


def _draw_dag(ax: Any, drawn: Instance) -> None:
    places = _places(drawn.scm.dag)
    look = {"arrowstyle": "-|>", "color": "0.45", "shrinkA": 7, "shrinkB": 7, "linewidth": 0.8}
    for parent, child in drawn.scm.dag.edges():
        bend = {**look, "connectionstyle": "arc3,rad=0.12"}
        ax.annotate("", places[child], places[parent], arrowprops=bend)
    for node, (x, y) in places.items():
        face = "#D55E00" if drawn.shift[node] else "white"
        ax.scatter(x, y, s=150, color=face, edgecolor="black", linewidth=0.8, zorder=3)
        ax.text(x, y, str(node + 1), ha="center", va="center", fontsize=7, zorder=4)
    ax.margins(0.15)
    ax.set_axis_off()
    ax.set_title("DAG; targets of a* orange", loc="left", fontsize=8)


def draw(folder: Path) -> None:
    """Draw the DAG, the interventions and estimates of one campaign beside a*, and distances."""
    for key, setting in SETTINGS.items():
        _draw_setting(key, setting, folder)


def _draw_setting(key: str, setting: Setting, folder: Path) -> None:
    shifts, found = read_csv(folder, f"{key}-shifts"), read_csv(folder, key)
    kinds = {kind: part.drop(columns="kind").to_numpy().T for kind, part in shifts.groupby("kind")}
    p, n = kinds["selected"].shape
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(
            1, 5, figsize=(11, 3.2), width_ratios=(6, 8, 8, 0.6, 7), layout="constrained"
        )
        _draw_dag(axes[0], instance(setting, 0))
        titles = {"selected": "selected by CIV, $a^{(t)}$", "estimate": "estimate $a^*_t$"}
        for ax, kind in zip(axes[1:4], (*titles, "a*"), strict=True):
            width = 1 if kind == "a*" else n
            image = ax.imshow(
                kinds[kind], aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1,
                extent=(0.5, width + 0.5, p + 0.5, 0.5),
            )  # fmt: skip
            ax.set_title(titles.get(kind, "a*"), loc="left", fontsize=8)
            ax.set_yticks(range(1, p + 1), range(1, p + 1) if kind == "selected" else [])
            ax.set_xlabel("step t" if kind != "a*" else "")
        axes[3].set_xticks([])
        axes[1].set_ylabel("node")
        figure.colorbar(image, ax=axes[3], label="shift", fraction=2.0, aspect=30)
        for (acquisition, quantity), part in found.groupby(["acquisition", "quantity"], sort=False):
            if quantity != "parents":
                name = f"{NAMES[acquisition]}, {quantity}"
                line = "-" if quantity == "selected" else ":"
                axes[4].plot(
                    part["step"], part["mean"], line, color=LOOKS[acquisition][0], label=name
                )
        axes[4].set(xlabel="step t", ylabel="distance to a*, ten instances", ylim=0)
        axes[4].grid(color="0.92", linewidth=0.6)
        legend(figure, axes[4], 4)
        save(figure, folder, key)
