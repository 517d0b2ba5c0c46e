"""The heat map of effects that plots share: rows and columns, their clustering and names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.pl._figure import BLACK, BLUE, ORANGE, SMALL, counted, font_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def strongest(effect: np.ndarray, n: int, *, axis: int) -> np.ndarray:
    """Return the rows (``axis`` 0) or columns with the largest effects, in their order."""
    size = np.abs(effect).max(axis=1 - axis)
    return np.sort(np.argsort(-size, kind="stable")[:n])


def with_cells(stored: dict[str, Any], row: int) -> str:
    """Return a perturbation's name with its cells, for labels."""
    n = int(stored["n_cells"][row])
    return f"{stored['perturbations'][row]} ({counted(n, 'cell') if n else 'no cells'})"


def where(stored: dict[str, Any]) -> str:
    """Return the condition of the effects, for titles."""
    condition = stored["params"].get("condition")
    return "" if condition is None else f" in {condition}"


def draw_effects(
    panel: Axes,
    stored: dict[str, Any],
    rows: np.ndarray,
    columns: np.ndarray,
    cell: tuple[float, float],
    gap: float = 0.0,
) -> None:
    """Draw a heat map of perturbations and genes in the order given, with a colour bar.

    ``cell`` is the size of a field, and ``gap`` what is between map and colour bar, in inches.
    """
    import seaborn as sns
    from matplotlib.ticker import MaxNLocator

    effect = stored["mean"][np.ix_(rows, columns)]
    names = ([with_cells(stored, j) for j in rows], [str(stored["genes"][i]) for i in columns])
    # A few genes (mostly the targets) change much more than the others, which must remain visible.
    limit = max(float(np.quantile(np.abs(effect), 0.98)), 1e-12)
    width = cell[0] * len(columns)
    beside = panel.inset_axes((1.02 + gap / width, 0.0, 0.16 / width, 1.0))
    beyond = "both" if np.abs(effect).max() > limit else "neither"
    bar = {"label": "effect\n(log-normalised expression)", "extend": beyond}
    colours = sns.blend_palette([BLUE, "white", ORANGE], as_cmap=True)
    sns.heatmap(
        effect,
        vmin=-limit,
        vmax=limit,
        cmap=colours,
        ax=panel,
        cbar_ax=beside,
        cbar_kws=bar,
        xticklabels=False,
        yticklabels=False,
    )
    # seaborn would parse names as formulas, to see whether they overlap.
    down, right = (0.5 + np.arange(n) for n in effect.shape)
    panel.set_yticks(down, names[0], fontsize=font_size(cell[1], 7))
    panel.set_xticks(right, names[1], fontsize=font_size(cell[0], 7), rotation=90)
    panel.tick_params(length=0)
    beside.tick_params(labelsize=7)
    beside.yaxis.label.set_fontsize(SMALL)
    beside.yaxis.set_major_locator(MaxNLocator(5))
    # Signs, because both ends of the colour scale are equally dark in black and white.
    significant = stored["lfsr"][np.ix_(rows, columns)] < SIGNIFICANCE
    size = (0.3 * 72 * min(cell)) ** 2
    for marker, sign in (("+", 1), ("_", -1)):
        y, x = np.nonzero(significant & (np.sign(effect) == sign))
        ink = np.where(np.abs(effect[y, x]) > 0.7 * limit, "white", BLACK)
        panel.scatter(x + 0.5, y + 0.5, s=size, marker=marker, c=ink, linewidths=0.8, zorder=3)


def clustered(effect: np.ndarray) -> np.ndarray | None:
    """Return the tree of rows by average linkage, as ``seaborn.clustermap``; None of one."""
    if len(effect) < 2:
        return None
    return np.asarray(linkage(effect, method="average", optimal_ordering=True))


def order_of(tree: np.ndarray | None) -> np.ndarray:
    """Return the order of the rows of a tree, which puts similar rows side by side."""
    return np.zeros(1, np.int64) if tree is None else np.asarray(leaves_list(tree), np.int64)
