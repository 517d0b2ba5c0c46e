"""Draws the pictures of ``model/in_pictures.md``: ``python docs/draw_model.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from _figures import BLUE, GREEN, GREY, ORANGE, PINK, draw, folder_asked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GENES = {"A": (0, 1), "B": (1, 1.6), "C": (1, 0.4), "D": (2, 1), "E": (3, 1)}
EDGES = [("A", "B"), ("A", "C"), ("B", "D"), ("C", "D"), ("D", "E")]


def bare(ax: Axes, title: str) -> None:
    """Draw a title, but no ticks and no frame."""
    ax.set_title(title, fontsize=10, loc="left")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def graph(ax: Axes, moved: dict[str, float], shifted: dict[str, float]) -> None:
    """Draw the genes: the darker, the more their mean moved; with an arrow where shifted."""
    for parent, child in EDGES:
        (x, y), (to_x, to_y) = GENES[parent], GENES[child]
        arrow = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 13, "shrinkB": 13}
        ax.annotate("", (to_x, to_y), (x, y), arrowprops=arrow)
    for gene, (x, y) in GENES.items():
        share = moved.get(gene, 0.0)
        ax.scatter(x, y, s=480, color="white", edgecolor=GREY, zorder=2)
        ax.scatter(x, y, s=480, color=BLUE, alpha=share, linewidth=0, zorder=3)
        ax.text(x, y, gene, ha="center", va="center", zorder=4)
        if gene in shifted:
            arrow = {"arrowstyle": "-|>", "color": ORANGE, "linewidth": 1 + 3 * shifted[gene]}
            ax.annotate("", (x, y + 0.28), (x, y + 0.85), arrowprops=arrow)
    ax.set(xlim=(-0.5, 3.5), ylim=(-0.1, 2.5))


def shift() -> Figure:
    """Draw a graph, a shift and its downstream effects, and the partial shift of a screen."""
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.5), layout="constrained")
    graph(axes[0], {}, {})
    bare(axes[0], "1. Genes act on each other")
    graph(axes[1], {"A": 0.9, "B": 0.55, "C": 0.4, "D": 0.35, "E": 0.2}, {"A": 1.0})
    bare(axes[1], "2. A perturbation shifts its target gene;\n    genes downstream change, too")
    graph(axes[2], {"A": 0.5, "B": 0.3, "C": 0.65, "D": 0.4, "E": 0.25}, {"A": 0.5, "C": 0.35})
    bare(axes[2], "3. In a screen the shift is partial,\n    and may affect other genes")
    return figure


def posterior_mean(seen: np.ndarray, n: int) -> np.ndarray:
    """Return the posterior mean of an effect, given a difference of means of n cells (SD 1)."""
    variances = np.r_[0.0, 2.0 ** np.arange(-9, 3)]
    weights = np.r_[0.7, np.full(len(variances) - 1, 0.3 / (len(variances) - 1))]
    total = variances[:, None] + 1 / n
    density = weights[:, None] * np.exp(-(seen**2) / (2 * total)) / np.sqrt(total)
    return (density * variances[:, None] / total).sum(0) / density.sum(0) * seen


def shrinkage() -> Figure:
    """Draw the posterior mean of an effect against the difference of means, by number of cells."""
    figure, ax = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    seen = np.linspace(0, 1.6, 400)
    ax.plot(seen, seen, color=GREY, linestyle=":", label="no shrinkage")
    styles = ((250, BLUE, "-"), (50, GREEN, "--"), (10, ORANGE, "-."))
    for n, colour, style in styles:
        ax.plot(seen, posterior_mean(seen, n), color=colour, linestyle=style, label=f"{n} cells")
    ax.set(xlabel="difference of means (SD of a cell)", ylabel="estimated effect (SD)")
    ax.legend(frameon=False)
    ax.spines[["top", "right"]].set_visible(False)
    return figure


def prior_and_data() -> Figure:
    """Draw prior, data and posterior for few, many and no cells."""
    figure, ax = plt.subplots(figsize=(5.4, 3.2), layout="constrained")
    rows = [("few cells, data agree with prior", -0.8, 0.45, -0.95, 0.3, -0.85, 0.22)]
    rows += [("few cells, data disagree", -0.8, 0.45, 0.5, 0.3, 0.05, 0.3)]
    rows += [("many cells, data disagree", -0.8, 0.45, 0.5, 0.08, 0.48, 0.08)]
    rows += [("no cells", -0.8, 0.45, np.nan, 0, -0.8, 0.45)]
    kinds = (("prior", GREY, "s"), ("data", BLUE, "o"), ("posterior", ORANGE, "D"))
    for row, (_, *numbers) in enumerate(rows):
        for place, (label, colour, marker) in enumerate(kinds):
            ax.errorbar(
                numbers[2 * place], 3.0 - row + 0.22 * (1 - place), xerr=numbers[2 * place + 1],
                color=colour, marker=marker, linestyle="", label=label if row == 0 else None,
            )  # fmt: skip
    ax.axvline(0, color="0.8", linewidth=1, zorder=0)
    ax.set(yticks=[3, 2, 1, 0], yticklabels=[row[0] for row in rows], xlabel="effect on a gene")
    ax.legend(frameon=False, loc="lower right")
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return figure


def distance() -> Figure:
    """Draw candidates around a target state, with the uncertainty of each."""
    figure, (plane, line) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    rng = np.random.default_rng(3)
    target, start = np.array([2.0, 1.2]), np.array([0.0, 0.0])
    states = {"P": ((1.5, 0.7), 0.08), "Q": ((1.4, 1.3), 0.35), "R": ((0.7, -0.9), 0.15)}
    plane.scatter(*start, color=GREY, s=70, zorder=3)
    plane.annotate("control", start, (-8, -14), textcoords="offset points", color="0.3")
    plane.scatter(*target, marker="*", s=220, color=GREEN, zorder=3)
    plane.annotate("target", target, (8, 4), textcoords="offset points", color=GREEN)
    edge = target + np.hypot(*target) * np.column_stack(
        [np.cos(np.linspace(0, 7, 200)), np.sin(np.linspace(0, 7, 200))]
    )
    plane.plot(*edge.T, color=GREY, linestyle=":", linewidth=1)
    colours = dict(zip(states, (BLUE, ORANGE, PINK), strict=True))
    for row, (name, (mean, sd)) in enumerate(states.items()):
        draws = np.array(mean) + sd * rng.normal(size=(100, 2))
        plane.scatter(*draws.T, s=4, alpha=0.35, color=colours[name], linewidth=0)
        plane.annotate(name, mean, ha="center", va="center", weight="bold")
        squared = ((draws - target) ** 2).sum(1)
        low, high = np.quantile(squared, [0.05, 0.95])
        line.plot([low, high], [row, row], color=colours[name], linewidth=3)
        line.plot(squared.mean(), row, "o", color=colours[name], markersize=9)
    line.axvline((target**2).sum(), color=GREY, linestyle="--", linewidth=1)
    line.text((target**2).sum() + 0.1, 0.4, "control", color="0.3")
    line.set(yticks=range(3), yticklabels=states, ylim=(2.5, -0.5), xlim=(0, 8.5))
    line.set_xlabel("squared distance to the target state")
    line.spines[["top", "right"]].set_visible(False)
    plane.set(xlim=(-0.7, 3), ylim=(-1.5, 2.2), aspect="equal")
    bare(plane, "Two genes; each dot is a draw from the posterior")
    line.set_title("The ranking: mean and 90% interval", fontsize=10, loc="left")
    return figure


def plate() -> Figure:
    """Draw the loop: cells, fit, next round, experiment."""
    figure, ax = plt.subplots(figsize=(9, 1.8), layout="constrained")
    steps = ["cells\nof all rounds", "graph", "effects", "ranking", "next round"]
    calls = ["Campaign.observe", "learn_dag", "fit_dag_blr", "design_interventions", "plan_screen"]
    for place, (step, call) in enumerate(zip(steps, calls, strict=True)):
        colour = BLUE if place in (0, 4) else GREY
        box = {"boxstyle": "round,pad=0.5", "facecolor": "white", "edgecolor": colour}
        ax.text(2 * place, 1, step, ha="center", va="center", bbox=box)
        ax.text(2 * place, 0.3, call, ha="center", va="center", fontsize=8, color="0.35")
        if place:
            arrow = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", (2 * place - 0.6, 1), (2 * place - 1.4, 1), arrowprops=arrow)
    back = {"arrowstyle": "-|>", "color": BLUE, "connectionstyle": "bar,fraction=0.09"}
    back |= {"shrinkA": 22, "shrinkB": 22}
    ax.annotate("", (0, 1), (8, 1), arrowprops=back)
    ax.text(4, 2.02, "experiment", ha="center", va="bottom", color=BLUE)
    ax.set(xlim=(-1, 9), ylim=(0, 2.5))
    ax.axis("off")
    return figure


FIGURES = {
    "shift": shift,
    "prior_and_data": prior_and_data,
    "shrinkage": shrinkage,
    "distance": distance,
    "plate": plate,
}


if __name__ == "__main__":
    draw(FIGURES, {}, folder_asked("model"))
