"""The diagnosis of a screen at a glance."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from nextpert._adata.arguments import checked
from nextpert.pl._diagnose import panels
from nextpert.pl._figure import SCREEN, finish, read_to_draw, root_figure, row_height

if TYPE_CHECKING:
    import os

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@checked()
def diagnose(
    adata: AnnData,
    *,
    key: str = "diagnosis",
    n_top: int = 30,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | Axes | None:
    """Draw which parts of a fit are worth trusting on a screen.

    On the left, one row a perturbation, the largest effects on top: the squared error of effects
    learned from half of its guides or cells on the other half, shrunken, as the cells' means are,
    and of "no effect"; the correlation over genes of its effect with what was expected of it, left
    out, by all experts together and by each of the first three; the change of its own gene with
    two standard errors. On the right: the squared error of every expert on left-out perturbations,
    with its weight; that of effects on cells, guides and batches held out; and the coverage of 90%
    intervals. Values without a standard error are drawn as open circles. The verdict is the title,
    part by part.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.diagnose`.
    key
        Its ``key_added``.
    n_top
        Most perturbations to draw, those with most cells.
    ax
        Axes to draw the squared errors on; the other panels are left out then.
    show
        Whether to show the figure; by default as scanpy is set up.
    return_fig
        Whether to return the figure.
    save
        File to save the figure to.

    Returns
    -------
    ~matplotlib.figure.Figure, ~matplotlib.axes.Axes, list of them, or None
        The figure, with ``return_fig``; ``None`` once shown; else the axes.

    Raises
    ------
    ValueError
        If there is no diagnosis (run :func:`nextpert.tl.diagnose` first), or ``n_top`` is no
        whole number of at least 1.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=12, n_control=500, expected_degree=4)
    >>> npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.diagnose(adata)
    >>> figure = npt.pl.diagnose(adata, return_fig=True)
    >>> len(figure.axes)
    6
    """
    stored = read_to_draw(adata, key, "tl.diagnose", what="diagnosis", part="parts")
    table = panels.rows_to_draw(stored["perturbations"], n_top)
    n_all = len(stored["perturbations"])
    if ax is not None:
        panels.draw_errors(ax, table, n_all)
        figure = root_figure(ax)
        return finish(figure, ax, show=show, return_fig=return_fig, save=save, own=False)
    experts, shares, held = (
        stored["experts"],
        panels.shares_to_draw(stored["summary"]),
        panels.coverage_to_draw(stored["summary"]),
    )
    figure, axes = _figure(len(table), (len(experts), 1.5 * len(shares), len(held)))
    panels.draw_errors(axes[0], table, n_all)
    panels.draw_correlations(axes[1], table)
    panels.draw_strength(axes[2], table)
    panels.draw_experts(axes[3], experts)
    panels.draw_shares(axes[4], shares)
    panels.draw_coverage(axes[5], held)
    parts = [str(words) for words in stored["parts"]["verdict"]]
    first = str(stored["verdict"]).removesuffix(" ".join(parts)).strip()
    # A number and its % stay together.
    whole = (part.replace(" %", "\u00a0%") for part in (first, *parts))
    lines = [line.replace("\u00a0", " ") for part in whole for line in textwrap.wrap(part, 185)]
    figure.suptitle("\n".join(lines), fontsize=8.5, x=0.02, ha="left")
    return finish(figure, axes, show=show, return_fig=return_fig, save=save, own=True)


def _figure(n_rows: int, sizes: tuple[float, ...]) -> tuple[Any, list[Axes]]:
    import matplotlib.pyplot as plt

    height = max(7.0, panels.AROUND + n_rows * row_height(n_rows, 0.2, panels.AROUND))
    figure = plt.figure(figsize=(12.5, min(height, SCREEN)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.06)  # type: ignore[call-arg,union-attr]
    heights = [1.0 + max(size, 2.0) for size in sizes]
    grid = figure.add_gridspec(3, 4, width_ratios=[1.0, 1.0, 0.9, 1.0], height_ratios=heights)
    first = figure.add_subplot(grid[:, 0])
    others = [figure.add_subplot(grid[:, column], sharey=first) for column in (1, 2)]
    return figure, [first, *others, *(figure.add_subplot(grid[row, 3]) for row in range(3))]
