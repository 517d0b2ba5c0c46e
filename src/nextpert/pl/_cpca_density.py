"""Densities of perturbed cells and controls in contrastive components."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import (
    Roles,
    read_every_label,
    read_stored,
    require_control,
    say_changes,
)
from nextpert._adata.arguments import checked
from nextpert.core.screen.moments import require_numbers
from nextpert.pl._figure import (
    BLUE,
    GREY,
    SMALL,
    counted,
    documented,
    entry,
    finish,
    label_grid,
    panels_of,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    Scores = NDArray[np.float64]

_MIN_DENSITY_CELLS = 10  # fewer cells are drawn one by one, not as a density
_MAX_DENSITY_CELLS = 2000  # of a group, from which a density is estimated


@checked()
@documented
def cpca_density(
    adata: AnnData,
    *,
    groups: str | Sequence[str] | None = None,
    n_top: int = 12,
    key: str = "cpca",
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw density contours of perturbed cells and of controls, one panel per group.

    The panels show kernel densities in the first two contrastive components on common axes, as in
    Fig. 6a of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0). Controls are drawn as grey areas
    and the cells of the group as blue lines; the origin is the mean of the controls.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.cpca`.
    groups
        Labels to draw, all of them; the panel of the controls has no blue lines. By default the
        foreground of :func:`nextpert.tl.cpca`.
    n_top
        Maximum number of groups if ``groups`` is not given. The groups whose means are farthest
        from the controls in the two components (unbiased squared distance) are drawn.
    key
        The ``key_added`` of :func:`nextpert.tl.cpca`.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there are no components in ``adata`` (run :func:`nextpert.tl.cpca` first), or a group is
        unknown.

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

    scores = _scores(adata, key)
    stored = read_stored(adata, key, "tl.cpca")
    say_changes(adata, key, stored, "tl.cpca")
    control = str(stored["params"]["control"])
    labels = read_every_label(adata, Roles(str(stored["params"]["perturbation_key"]), control))
    require_control(labels, control)
    requested = (
        stored["groups"] if groups is None else [groups] if isinstance(groups, str) else groups
    )
    names = list(dict.fromkeys(labels.spelled([str(name) for name in requested])))
    labels.require(names, "Groups")
    group_names = list(dict.fromkeys([control, *names]))
    codes = labels.groups(group_names)
    n_all = len(names)
    cells = {name: scores[codes == i] for i, name in enumerate(group_names)}
    if groups is None and n_all > n_top:
        names = sorted(names, key=lambda name: -_distance(cells[name], cells[control]))[:n_top]
    if not names:
        message = "groups is empty: name at least one label, or pass None."
        raise ValueError(message)
    # The same cells on every call.
    rng = np.random.default_rng(0)
    drawn = {name: _thin(cells[name], rng) for name in dict.fromkeys([control, *names])}
    # Limits cover 99% of the cells of every group.
    ends = np.array([np.quantile(sample, [0.005, 0.995], axis=0) for sample in drawn.values()])
    low, high = ends[:, 0].min(axis=0), ends[:, 1].max(axis=0)
    margin = 0.15 * np.maximum(high - low, 1e-9)
    limits = np.stack([low - margin, high + margin], axis=1)  # (component, end)
    panels, _ = panels_of(len(names), 4, (2.2, 2.2), (0.9, 1.2), sharex=True, sharey=True)
    for panel, name in zip(panels, names, strict=True):
        _draw(panel, drawn[control], limits, GREY, fill=True, alpha=0.55, antialiased=True)
        if name != control:
            _draw(panel, drawn[name], limits, BLUE, linewidths=1.0)
        panel.set_title(f"{name} ({counted(len(cells[name]), 'cell')})")
        panel.set(xlim=limits[0], ylim=limits[1])
    across, up = (f"cPC{c} (log-normalised expression)" for c in (1, 2))
    handles = [
        Patch(color=GREY, alpha=0.55, linewidth=0, label=control),
        entry("perturbed", BLUE, line="-"),
    ]
    title = f"α = {float(stored['alpha']):.3g}"
    if len(names) < n_all:
        title += f"; strongest {len(names)} of {n_all} perturbations"
    where: dict[str, Any] = {"loc": "outside upper right", "title": title, "ncols": 2}
    label_grid(panels, (across, up), handles, **where, title_fontsize=SMALL)
    return finish(panels, is_new=True, show=show, return_fig=return_fig, save=save)


def _distance(cells: Scores, control: Scores) -> float:
    """Return the squared distance between two means, with its bias subtracted."""
    samples = [sample for sample in (cells, control) if len(sample) > 1]
    noise = sum(float(sample.var(axis=0, ddof=1).sum()) / len(sample) for sample in samples)
    return float(((cells.mean(axis=0) - control.mean(axis=0)) ** 2).sum()) - noise


def _scores(adata: AnnData, key: str) -> Scores:
    name = f"X_{key}"
    if name not in adata.obsm or key not in adata.uns:
        message = f"adata.obsm has no {name!r}, or adata.uns no {key!r}: run tl.cpca first."
        raise ValueError(message)
    scores = np.asarray(adata.obsm[name])
    require_numbers(scores, f"adata.obsm[{name!r}]")
    if scores.shape[1] < 2:
        message = f"adata.obsm[{name!r}] has 1 component: run tl.cpca with n_components=2."
        raise ValueError(message)
    return scores[:, :2].astype(np.float64)


def _thin(cells: Scores, rng: np.random.Generator) -> Scores:
    if len(cells) <= _MAX_DENSITY_CELLS:
        return cells
    return cells[np.sort(rng.choice(len(cells), _MAX_DENSITY_CELLS, replace=False))]


def _draw(panel: Axes, cells: Scores, limits: Scores, colour: str, **style: Any) -> None:
    """Draw a density, or the cells if they are few or all lie on one line."""
    import seaborn as sns

    if len(cells) < _MIN_DENSITY_CELLS or np.linalg.matrix_rank(np.cov(cells.T)) < 2:
        panel.scatter(cells[:, 0], cells[:, 1], s=9, color=colour, linewidth=0)
        return
    sns.kdeplot(
        x=cells[:, 0],
        y=cells[:, 1],
        levels=6,
        thresh=0.05,
        gridsize=50,
        clip=limits.tolist(),
        color=colour,
        ax=panel,
        **style,
    )
