"""Effects of one perturbation on all genes, against their local false sign rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import at_least, checked
from nextpert.core.fit.naming import Naming
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.pl._effect_map import where, with_cells
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    chosen,
    counted,
    documented,
    entry,
    finish,
    legend,
    panel_of,
    place_names,
)

if TYPE_CHECKING:
    import os

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FLOOR = 1e-15  # rates below it, which rounding reaches, are drawn here as triangles


@checked(n_names=at_least(0))
@documented
def volcano(
    adata: AnnData,
    *,
    perturbation: str | None = None,
    n_names: int = 15,
    key: str = "perturbation_effects",
    ax: Axes | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | Axes | None:
    """Draw the effects of one perturbation on all genes against their local false sign rates.

    The x axis is the posterior mean effect, the y axis -log10 of the local false sign rate (lfsr),
    the probability that the direction of the effect is wrong. Genes whose direction is significant
    (lfsr below 0.05, dashed line) are coloured: orange if the perturbation increases them, blue if
    it decreases them. Triangles are rates below 1e-15. Target genes of the perturbation have a
    black ring. The significant genes with the largest effects are named where a name has space.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.perturbation_effects`.
    perturbation
        Label of the perturbation; by default the one with the most significant effects.
    n_names
        Maximum number of significant genes that are named, besides the target genes.
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
        If the effects were not computed (run :func:`nextpert.tl.perturbation_effects` first), do
        not include ``perturbation``, or it has no cells and therefore no local false sign rates.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.perturbation_effects(adata)
    >>> axes = npt.pl.volcano(adata, perturbation="MYC", show=False)
    >>> axes.get_title().splitlines()[0]
    'effect of MYC (100 cells)'
    """
    stored = read_result(adata, key, "tl.perturbation_effects", what="effects", part="lfsr")
    labels, genes = ([str(name) for name in stored[part]] for part in ("perturbations", "genes"))
    naming = Naming(set(genes), str(stored["params"]["separator"]))
    row = int(np.argmax((stored["lfsr"] < SIGNIFICANCE).sum(axis=1)))
    if perturbation is not None:
        label = naming.spelled([perturbation], labels)
        row = int(chosen(label, labels, "Perturbations without effects", f"adata.uns[{key!r}]")[0])
    effect, lfsr = stored["mean"][row], stored["lfsr"][row]
    if not np.isfinite(lfsr).any():
        message = (
            f"{labels[row]} has no local false sign rates, because it has no cells: choose a "
            "perturbation with cells, or draw it with pl.perturbation_effects."
        )
        raise ValueError(message)
    targets = np.isin(genes, naming.targets(labels[row])[0])
    panel = panel_of(ax, (6.4, 4.6))
    height = -np.log10(np.maximum(lfsr, _FLOOR))
    _draw_points(panel, effect, lfsr, targets)
    panel.set_xlabel(f"effect: mean minus that of {stored['params']['control']}")
    panel.set_ylabel("-log10 local false sign rate")
    panel.set_title(
        f"effect of {with_cells(stored, row)}{where(stored)}\non {counted(len(genes), 'gene')}"
    )
    largest = np.argsort(-np.abs(effect), kind="stable")
    significant = [i for i in largest if lfsr[i] < SIGNIFICANCE and not targets[i]][:n_names]
    named = [*np.flatnonzero(targets), *significant]
    place_names(panel, (effect, height), {int(i): genes[i] for i in named})
    return finish(panel, is_new=ax is None, show=show, return_fig=return_fig, save=save)


def _draw_points(panel: Axes, effect: Any, lfsr: Any, targets: Any) -> None:
    """Draw the genes by significance and direction, target genes with a ring, and a legend."""
    height = -np.log10(np.maximum(lfsr, _FLOOR))
    significant = lfsr < SIGNIFICANCE
    groups = (
        ("direction not significant", ~significant, GREY),
        ("significant increase", significant & (effect > 0), ORANGE),
        ("significant decrease", significant & (effect <= 0), BLUE),
    )
    handles = []
    for label, members, colour in groups:
        for marker, part in (("o", lfsr >= _FLOOR), ("^", lfsr < _FLOOR)):
            at = np.flatnonzero(members & part)
            style: dict[str, Any] = {"s": 18, "linewidths": 0, "zorder": 3, "alpha": 0.85}
            panel.scatter(effect[at], height[at], marker=marker, color=colour, **style)
        handles.append(entry(f"{label} ({members.sum()})", colour, "o"))
    if (lfsr < _FLOOR).any():
        handles.append(entry(f"lfsr < {_FLOOR:g}", GREY, "^"))
    if targets.any():
        ring: dict[str, Any] = {"s": 70, "facecolors": "none", "edgecolors": BLACK, "zorder": 4}
        panel.scatter(effect[targets], height[targets], **ring)
        handles.append(entry("target gene", BLACK, "o", face="none", markersize=8))
    panel.axhline(-np.log10(SIGNIFICANCE), color=GREY, linestyle="--", linewidth=1, zorder=1)
    panel.axvline(0.0, color=GREY, linewidth=0.8, zorder=1)
    panel.margins(0.1)
    legend(panel, handles)
