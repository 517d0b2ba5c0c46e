"""A map of the states of perturbations, the control and the target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert._adata.stored import read_stored
from nextpert.pl._effect_map import strongest, where
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    ORANGE,
    counted,
    documented,
    entry,
    finish,
    first_of,
    goal,
    legend,
    panel_of,
    place_names,
)

if TYPE_CHECKING:
    import os

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

_LARGEST_AREA = 60.0  # squared points: 9 points wide, so that names do not lie on points
_SMALLEST_AREA = 12.0  # squared points: the colour of a smaller point is not seen


@checked()
@documented
def state_map(
    adata: AnnData,
    *,
    target_key: str | None = None,
    n_top: int = 200,
    key: str = "perturbation_effects",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw perturbations, control and target as points, similar states near each other.

    Distances between points approximate the distances between states, which are the posterior mean
    effects of perturbations and the difference between target and control, by classical
    multidimensional scaling (Torgerson 1952, doi:10.1007/BF02288916). If there is a target,
    distances are over its genes, else over all genes of the effects. The axes say what share of the
    sum of squared distances they show: if it is small, states that are near each other on the map
    may be far apart. Areas are proportional to numbers of cells, and open circles have no cells.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.perturbation_effects`.
    target_key
        The ``key_added`` of :func:`nextpert.tl.plan_screen` or
        :func:`nextpert.tl.design_interventions` whose target is drawn, as a star. By default
        ``"plan"``, or else ``"design"``; without these results, no target is drawn.
    n_top
        Maximum number of perturbations; those with the largest effects are drawn.
    key
        The ``key_added`` of :func:`nextpert.tl.perturbation_effects`.
    ax
        Axes to draw on.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If the effects were not computed (run :func:`nextpert.tl.perturbation_effects` first) or
        lack genes of the target, or ``target_key`` has no target.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.perturbation_effects(adata)
    >>> axes = npt.pl.state_map(adata, show=False)
    >>> axes.get_title().splitlines()[0]
    'states of 2 perturbations and control'
    """
    stored = read_result(adata, key, "tl.perturbation_effects", what="effects", part="lfsr")
    labels, genes = ([str(name) for name in stored[part]] for part in ("perturbations", "genes"))
    control = str(stored["params"]["control"])
    rows = strongest(stored["mean"], n_top, axis=0)
    effect, target = np.asarray(stored["mean"])[rows], np.zeros((0, len(genes)))
    target_name = ""
    if target_key is None:
        target_key = next((name for name in ("plan", "design") if name in adata.uns), None)
    if target_key is not None:
        columns, change = _target(adata, target_key, genes, key)
        effect, target = effect[:, columns], change[None]
        target_name = f"target: {goal(adata.uns[target_key]['params']['target'])}"
    points, shares = _classical_scaling(np.vstack([effect, target, np.zeros(effect.shape[1])]))
    panel = panel_of(ax, (6.4, 4.8))
    handles = _draw_points(panel, points, np.asarray(stored["n_cells"])[rows], target_name, control)
    panel.set_aspect("equal", adjustable="datalim")
    panel.margins(0.12)
    for axis, share, number in zip((panel.xaxis, panel.yaxis), shares, (1, 2), strict=True):
        axis.set_label_text(f"axis {number} ({100 * share:.0f}% of squared distances)")
    title = f"states of {first_of(len(rows), len(labels), 'perturbations')} and {control}"
    over = f"over {counted(effect.shape[1], 'gene')}{' of the target' if len(target) else ''}"
    panel.set_title(f"{title}{where(stored)}\n{over}")
    legend(panel, handles)
    # Names of the largest effects are placed first; target and control are in the legend.
    order = np.argsort(-np.linalg.norm(effect, axis=1), kind="stable")
    names = {int(i): labels[rows[i]] for i in order}
    place_names(panel, (points[:, 0], points[:, 1]), names)
    return finish(panel, is_new=ax is None, show=show, return_fig=return_fig, save=save)


def _target(
    adata: AnnData, target_key: str, genes: list[str], key: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the columns of the target's genes among ``genes``, and target minus control."""
    result = read_result(adata, target_key, "tl.plan_screen", what="plan", part="target_mean")
    fit = read_stored(adata, str(result["params"]["posterior_key"]), "tl.fit_dag_blr")
    control = dict(zip(map(str, fit["genes"]), np.asarray(fit["control_mean"]), strict=True))
    of_target = [str(gene) for gene in result["genes"]]
    column = {gene: j for j, gene in enumerate(genes)}
    if absent := [gene for gene in of_target if gene not in column or gene not in control]:
        message = (
            f"adata.uns[{key!r}] has no effects on {len(absent)} genes of the target in "
            f"adata.uns[{target_key!r}], such as {absent[0]}: run tl.perturbation_effects again."
        )
        raise ValueError(message)
    change = np.asarray(result["target_mean"]) - [control[gene] for gene in of_target]
    return np.array([column[gene] for gene in of_target]), change


def _draw_points(panel: Axes, points: Any, n_cells: Any, target: str, control: str) -> list[Any]:
    """Draw perturbations, then the target if it has a name, and the control; return a legend."""
    n, largest = len(n_cells), int(n_cells.max(initial=0))
    area = np.maximum(_LARGEST_AREA * n_cells / max(largest, 1), _SMALLEST_AREA)
    face = np.where(n_cells > 0, BLUE, "white")
    style: dict[str, Any] = {"edgecolors": BLUE, "alpha": 0.75, "zorder": 3}
    panel.scatter(points[:n, 0], points[:n, 1], s=area, c=face, **style)
    label = f"perturbation (largest: {counted(largest, 'cell')})"
    handles = [entry(label, BLUE, "o", markersize=8)]
    if (n_cells == 0).any():
        handles.append(entry("perturbation without cells", BLUE, "o", face="white"))
    if target:
        panel.scatter(points[n, 0], points[n, 1], s=90, marker="*", color=ORANGE, zorder=5)
        handles.append(entry(target, ORANGE, "*", markersize=9))
    panel.scatter(points[-1, 0], points[-1, 1], s=45, marker="s", color=BLACK, zorder=4)
    return [*handles, entry(control, BLACK, "s")]


def _classical_scaling(states: NDArray[np.float64]) -> tuple[Any, NDArray[np.float64]]:
    """Return points in two dimensions, ``(n_states, 2)``, and the share of squared distances.

    For Euclidean distances, classical scaling is the singular value decomposition of the centred
    states (Gower 1966, doi:10.1093/biomet/53.3-4.325).
    """
    vectors, sizes, _ = np.linalg.svd(states - states.mean(axis=0), full_matrices=False)
    points, shares = np.zeros((len(states), 2)), np.zeros(2)
    n = min(2, len(sizes))
    points[:, :n] = vectors[:, :n] * sizes[:n]
    shares[:n] = sizes[:n] ** 2 / max(float((sizes**2).sum()), 1e-300)
    return points, shares
