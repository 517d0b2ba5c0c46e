"""``pl.perturbation_effects``: effects of many perturbations, or of one with its intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import Naming, closest, in_order, list_names
from nextpert._adata.arguments import checked
from nextpert.pl._figure import SCREEN, finish, read_to_draw, root_figure, row_height
from nextpert.pl._perturbation_effects.effect_map import draw_map
from nextpert.pl._perturbation_effects.intervals import draw_intervals

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@checked()
def perturbation_effects(
    adata: AnnData,
    *,
    perturbations: Sequence[str] | None = None,
    key: str = "perturbation_effects",
    n_top: int = 40,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the strongest effects of perturbations on genes; of a single one, with intervals.

    Of several perturbations, a map: a row each, a column a gene, both in the order of a clustering
    of the effects. Colour is the expected effect; + and − mark those whose sign is clear (local
    false sign rate below .05).

    Of one, a row a gene: the expected effect with its interval, filled where its sign is clear;
    the diamond is what of it is direct, and does not come by way of other genes of the graph; the
    grey tick is the plain difference of the cells' means.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.perturbation_effects`.
    perturbations
        Labels to draw; by default all. One alone, as ``["STAT1"]``, is drawn with intervals.
    key
        The ``key_added`` of the effects.
    n_top
        Most perturbations, and most genes, to draw: those with the largest effects.
    ax
        Axes to draw on.
    show
        Whether to show the figure; by default as scanpy is set up.
    return_fig
        Whether to return the figure.
    save
        File to save the figure to.

    Returns
    -------
    ~matplotlib.figure.Figure or ~matplotlib.axes.Axes or None
        The figure, with ``return_fig``; ``None`` once shown; else the axes.

    Raises
    ------
    ValueError
        If there are no effects (run :func:`nextpert.tl.perturbation_effects` first), or a
        perturbation is not among them.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.perturbation_effects(adata)
    >>> figure = npt.pl.perturbation_effects(adata, perturbations=["MYC"], return_fig=True)
    >>> figure.axes[0].get_title().splitlines()[0]
    'effect of MYC (100 cells)'
    """
    stored = read_to_draw(adata, key, "tl.perturbation_effects", what="effects", part="lfsr")
    rows = _rows(stored, perturbations, key)
    if len(rows) == 1:
        genes = _strongest(stored["mean"][rows[0]][None], n_top, axis=1)
        row = row_height(len(genes), 0.19, 1.5)
        figure, panel = _axes(ax, (5.6, max(2.6, 1.5 + row * len(genes))))
        draw_intervals(panel, stored, rows[0], genes, row)
    else:
        kept = rows[_strongest(stored["mean"][rows], n_top, axis=0)]
        genes = _strongest(stored["mean"][kept], n_top, axis=1)
        # Of many genes, columns are narrower as well: two screens wide, at most.
        cell = (row_height(len(genes), 0.19, 2.6 - SCREEN), row_height(len(kept), 0.19, 1.9))
        figure, panel = _axes(ax, (2.6 + cell[0] * len(genes), 1.9 + cell[1] * len(kept)))
        draw_map(panel, stored, kept, genes, n_all=len(rows), cell=cell)
    return finish(figure, panel, show=show, return_fig=return_fig, save=save, own=ax is None)


def _rows(stored: dict[str, Any], wanted: Sequence[str] | None, key: str) -> np.ndarray:
    held = [str(name) for name in stored["perturbations"]]
    params = stored["params"]
    naming = Naming({str(gene) for gene in stored["genes"]}, str(params["separator"]))
    asked = held if wanted is None else map(str, in_order(wanted))
    names = list(dict.fromkeys(naming.spelled(asked, held)))
    absent = [name for name in names if name not in held]
    if absent:
        message = (
            f"Perturbations without effects: {list_names(absent)}.{closest(absent, held)} "
            f"adata.uns[{key!r}] holds {list_names(held)}."
        )
        raise ValueError(message)
    if not names:
        message = f"There are no perturbations to draw in adata.uns[{key!r}]."
        raise ValueError(message)
    return np.array([held.index(name) for name in names])


def _strongest(effect: np.ndarray, n: int, *, axis: int) -> np.ndarray:
    """Return the rows (``axis`` 0) or columns with the largest effects, in their order."""
    size = np.abs(effect).max(axis=1 - axis)
    return np.sort(np.argsort(-size, kind="stable")[:n])


def _axes(ax: Axes | None, size: tuple[float, float]) -> tuple[Figure, Axes]:
    import matplotlib.pyplot as plt

    if ax is not None:
        return root_figure(ax), ax
    return plt.subplots(figsize=size, layout="constrained")
