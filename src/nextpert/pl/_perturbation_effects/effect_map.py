"""Effects of many perturbations as a map, rows and columns in the order of a clustering."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from nextpert._adata.effects import CLEAR_SIGN
from nextpert.pl._figure import BLACK, BLUE, ORANGE, font_size, root_figure
from nextpert.pl._perturbation_effects.intervals import with_cells

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray


def draw_map(
    panel: Axes,
    stored: dict[str, Any],
    rows: NDArray[Any],
    columns: NDArray[Any],
    *,
    n_all: int,
    cell: tuple[float, float],
) -> None:
    """Draw the map of some perturbations (of ``n_all``) and genes, with its colour bar.

    ``cell`` is the width and height of a field, in inches.
    """
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.ticker import MaxNLocator

    effect = stored["mean"][np.ix_(rows, columns)]
    down, right = _order(effect), _order(effect.T)
    effect, rows, columns = effect[np.ix_(down, right)], rows[down], columns[right]
    clear = stored["lfsr"][np.ix_(rows, columns)] < CLEAR_SIGN
    # A few genes (mostly own ones) move far more than all others, which are to be seen, too.
    limit = max(float(np.quantile(np.abs(effect), 0.98)), 1e-12)
    colours = LinearSegmentedColormap.from_list("effects", [BLUE, "white", ORANGE])
    image = panel.imshow(
        effect, cmap=colours, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    # Signs, not dots alone: both ends of the colours are equally dark where there is no colour.
    size = (0.3 * 72 * min(cell)) ** 2
    for marker, sign in (("+", 1), ("_", -1)):
        y, x = np.nonzero(clear & (np.sign(effect) == sign))
        ink = np.where(np.abs(effect[y, x]) > 0.7 * limit, "white", BLACK)
        panel.scatter(x, y, s=size, marker=marker, c=ink, linewidths=0.8, zorder=3)
    down_size, right_size = (font_size(side, 7) for side in reversed(cell))
    panel.set_yticks(range(len(rows)), [with_cells(stored, j) for j in rows], fontsize=down_size)
    names = [str(stored["genes"][i]) for i in columns]
    panel.set_xticks(range(len(columns)), names, rotation=90, fontsize=right_size)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    n_genes, n_rows = len(stored["genes"]), len(rows)
    parts = [
        f"{n_rows} of {n_all} perturbations" if n_rows < n_all else f"{n_rows} perturbations",
        f"{len(columns)} of {n_genes} genes" if len(columns) < n_genes else f"{n_genes} genes",
    ]
    panel.set_title(f"effects of {' on '.join(parts)}\n(+ or −: sign clear, lfsr < {CLEAR_SIGN:g})",
                    fontsize=9)  # fmt: skip
    beside = panel.inset_axes((1.02, 0.0, 0.16 / (cell[0] * len(columns)), 1.0))
    beyond = "both" if np.abs(effect).max() > limit else "neither"
    figure = root_figure(panel)
    bar = figure.colorbar(image, cax=beside, extend=beyond)
    bar.set_label("effect\n(log-normalised expression)", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    bar.ax.yaxis.set_major_locator(MaxNLocator(5))
    bar.outline.set_visible(False)


def _order(effect: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order of rows that a clustering puts side by side."""
    if len(effect) < 3:
        return np.arange(len(effect))
    tree = linkage(effect, method="average", optimal_ordering=True)
    return np.asarray(leaves_list(tree), np.int64)
