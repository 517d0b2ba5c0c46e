"""Densities of perturbed cells and controls in contrastive components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import (
    Roles,
    list_names,
    read_every_label,
    read_stored,
    require_control,
)
from nextpert._adata.arguments import checked
from nextpert.core._checks import as_rng
from nextpert.core.screen.moments import require_numbers
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLUE,
    GREY,
    SMALL,
    TEXT,
    entry,
    finish,
    legend,
    panels_of,
    root_figure,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

# Fewer cells make no density: they are drawn one by one.
_FEW_CELLS = 10
_GRID = 50


@checked()
@documented
def cpca_density(
    adata: AnnData,
    *,
    groups: str | Sequence[str] | None = None,
    n_top: int = 12,
    perturbation_key: str | None = None,
    control: str | None = None,
    components: tuple[int, int] = (1, 2),
    key: str = "cpca",
    ncols: int | None = None,
    levels: int = 6,
    max_cells: int = 2000,
    rng: int | np.random.Generator | None = 0,
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw density contours of perturbed cells and of controls, one panel per group.

    As in Fig. 6a of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0): kernel densities in two
    contrastive components, with the same axes in every panel, so that panels compare. Controls
    are grey areas, the group's cells blue lines; the origin is the mean of the controls.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.cpca`.
    groups
        Labels to draw; that of the controls has a panel without blue lines. By default the
        foreground of :func:`nextpert.tl.cpca`, those with the strongest effects first.
    n_top
        Maximum number of groups by default: those whose means are farthest from that of the
        controls in the two components (unbiased squared distance). All of ``groups`` are drawn.
    perturbation_key, control
        Column of labels and label of the controls; by default those of :func:`nextpert.tl.cpca`.
    components
        The two components to draw, counted from 1.
    key
        The ``key_added`` of :func:`nextpert.tl.cpca`.
    ncols
        Panels per row; by default 4, or more if the figure would not fit on a screen.
    levels
        Number of contours of a density.
    max_cells
        Maximum number of cells of a group to estimate a density from; more are sampled.
    rng
        Seed or generator of that sample.
    ax
        Axes to draw on, for a single group.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there are no components in ``adata`` (run :func:`nextpert.tl.cpca` first), a group or
        the control label is unknown, or ``ax`` is given for several groups.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=300, n_perturbed=40, perturbed=["MYC"])
    >>> npt.tl.cpca(adata, alpha=1.0)
    >>> figure = npt.pl.cpca_density(adata, return_fig=True)
    >>> figure.axes[0].get_title()
    'MYC (40 cells)'
    """
    from matplotlib.patches import Patch

    scores = _scores(adata, key, components)
    stored = read_stored(adata, key, "tl.cpca")
    params = stored["params"]
    background = control or str(params["control"])
    roles = Roles(perturbation_key or str(params["perturbation_key"]), background)
    labels = read_every_label(adata, roles)
    require_control(labels, background)
    given = stored["groups"] if groups is None else [groups] if isinstance(groups, str) else groups
    wanted = list(dict.fromkeys(labels.spelled([str(name) for name in given])))
    labels.require(wanted, "Groups")
    codes = labels.groups([background, *wanted])
    if background in wanted:  # the panel of the controls is that of no perturbation
        codes[codes == 1 + wanted.index(background)] = 0
    n_all = len(wanted)
    if groups is None and n_all > n_top:
        strength = [_distance(scores[codes == i + 1], scores[codes == 0]) for i in range(n_all)]
        wanted = [wanted[i] for i in np.argsort(-np.array(strength), kind="stable")[:n_top]]
        codes = labels.groups([background, *wanted])
    if not wanted or (ax is not None and len(wanted) > 1):
        message = f"ax takes one group, but there are {len(wanted)}: name one with `groups`."
        raise ValueError(message)
    generator = as_rng(rng)
    rows = [0, *(0 if name == background else i + 1 for i, name in enumerate(wanted))]
    cells = [_thin(scores[codes == row], max_cells, generator) for row in rows]
    panels, columns = panels_of(
        ax, len(wanted), ncols, 4, (2.2, 2.2), (0.9, 1.2), sharex=True, sharey=True
    )
    for panel in panels[-columns:]:  # the lowest panel of a column keeps its tick labels
        panel.tick_params(labelbottom=True)
    limits = _limits(cells)
    for i, (panel, name) in enumerate(zip(panels, wanted, strict=True)):
        if i == 0 or not _is_spread(cells[0]):
            _draw(panel, cells[0], levels, limits, background=True)
        else:  # the same cells again: copy the contours instead of estimating anew
            _copy_contours(panels[0].collections[0], panel)
        if rows[i + 1]:
            _draw(panel, cells[i + 1], levels, limits, background=False)
        panel.set_title(f"{name} ({int((codes == rows[i + 1]).sum())} cells)")
        panel.set(xlim=limits[0], ylim=limits[1])
    unit = "s.d. of controls" if params["standardize"] else "log-normalised expression"
    names = [f"cPC{c} ({unit})" for c in components]
    handles = [
        Patch(color=GREY, alpha=0.55, linewidth=0, label=background),
        entry("perturbed", BLUE, line="-"),
    ]
    title = f"α = {float(stored['alpha']):.3g}"
    if len(wanted) < n_all:
        title += f"; strongest {len(wanted)} of {n_all} perturbations"
    options: dict[str, Any] = {"title": title, "title_fontsize": SMALL}
    if ax is None:
        figure = root_figure(panels[0])
        figure.supxlabel(names[0], fontsize=TEXT)
        figure.supylabel(names[1], fontsize=TEXT)
        legend(figure, handles, loc="outside upper right", ncols=2, **options)
    else:
        ax.set(xlabel=names[0], ylabel=names[1])
        legend(ax, handles, loc="best", **options)
    return finish(panels, own=ax is None, show=show, return_fig=return_fig, save=save)


def _distance(cells: Scores, control: Scores) -> float:
    """Return the squared distance of two means, with its bias subtracted."""
    noise = sum(
        float(each.var(axis=0, ddof=1).sum()) / len(each)
        for each in (cells, control)
        if len(each) > 1
    )
    return float(((cells.mean(axis=0) - control.mean(axis=0)) ** 2).sum()) - noise


def _scores(adata: AnnData, key: str, components: tuple[int, int]) -> Scores:
    if f"X_{key}" not in adata.obsm or key not in adata.uns:
        message = (
            f"adata.obsm has no {f'X_{key}'!r} with its adata.uns[{key!r}]: run tl.cpca first."
        )
        raise ValueError(message)
    found = np.asarray(adata.obsm[f"X_{key}"])
    require_numbers(found, f"adata.obsm[{f'X_{key}'!r}]")
    scores = found.astype(np.float64)
    n = scores.shape[1]
    if not all(1 <= c <= n for c in components):
        message = (
            f"components must be two of 1 to {n}, but are {list_names(map(str, components))}: "
            "run tl.cpca with more n_components for others."
        )
        raise ValueError(message)
    return scores[:, [c - 1 for c in components]]


def _thin(cells: Scores, most: int, rng: np.random.Generator) -> Scores:
    if len(cells) <= most:
        return cells
    return cells[np.sort(rng.choice(len(cells), most, replace=False))]


def _limits(cells: list[Scores]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return limits that cover 99% of the cells of every group, with a margin."""
    quantiles = [np.quantile(group, [0.005, 0.995], axis=0) for group in cells]
    low = np.min([q[0] for q in quantiles], axis=0)
    high = np.max([q[1] for q in quantiles], axis=0)
    margin = 0.15 * np.maximum(high - low, 1e-9)
    low, high = low - margin, high + margin
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))


def _draw(panel: Axes, cells: Scores, levels: int, limits: Any, *, background: bool) -> None:
    import seaborn as sns

    colour = GREY if background else BLUE
    if not _is_spread(cells):
        panel.scatter(cells[:, 0], cells[:, 1], s=9, color=colour, linewidth=0)
        return
    style: dict[str, Any] = {"fill": True, "alpha": 0.55} if background else {"linewidths": 1.0}
    sns.kdeplot(
        x=cells[:, 0],
        y=cells[:, 1],
        levels=levels,
        thresh=0.05,
        gridsize=_GRID,
        clip=limits,
        color=colour,
        ax=panel,
        **style,
    )


def _is_spread(cells: Scores) -> bool:
    """Return whether cells are enough, and not all on one line, to estimate a density."""
    return len(cells) >= _FEW_CELLS and bool(np.linalg.matrix_rank(np.cov(cells.T)) == 2)


def _copy_contours(source: Any, panel: Axes) -> None:
    from matplotlib.collections import PathCollection

    copied = PathCollection(
        source.get_paths(),
        facecolors=source.get_facecolor(),
        edgecolors=source.get_edgecolor(),
        linewidths=source.get_linewidth(),
        zorder=source.get_zorder(),
    )
    panel.add_collection(copied)
