"""Power of a plan by cells, guides and reads, and what a budget detects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALETTE,
    PURPLE,
    TEXT,
    counted,
    documented,
    finish,
    legend,
    logarithmic,
    panels_of,
    root_figure,
)

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour and dashes for numbers of guides other than the planned one.
_STYLES: tuple[tuple[str, Any], ...] = (
    (ORANGE, (0, (1, 1))),
    (PALETTE[0], (0, (4, 1.5))),
    (GREEN, (0, (3, 1, 1, 1))),
    (BLUE, "-"),
    (PURPLE, (0, (6, 1.5))),
)
# Colours of shares of the reads other than all.
_OF_READS: tuple[str, ...] = (BLUE, GREEN, ORANGE)
_RULES = {"lfsr": "lfsr < 0.05", "fdr": "FDR 5%"}


@checked()
@documented
def plan_cells(
    adata: AnnData,
    *,
    key: str = "plan_cells",
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw power by cells, guides and reads, and what a budget detects.

    The first panel shows the power to detect the effect, averaged over genes, with a line per
    number of guides; the line of the plan is black, and the dashed line is the power needed. If
    fewer reads are planned, the second panel has a line per share of the reads. If the plan has a
    budget, the last panel shows the expected number of detected effects of the screens that the
    budget pays for, by their number of perturbations, and marks the screen with most.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.plan_cells`.
    key
        The ``key_added`` of :func:`nextpert.tl.plan_cells`.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no plan (run :func:`nextpert.tl.plan_cells` first).

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_cells(adata, budget=5000)
    >>> figure = npt.pl.plan_cells(adata, return_fig=True)
    >>> len(figure.axes)
    2
    """
    stored = read_result(adata, key, "tl.plan_cells", what="plan of cells", part="screens")
    params = stored["params"]
    screens = stored["screens"]
    planned = screens[screens["n_guides"] == params["n_guides"]]
    has_reads, has_budget = len(set(screens["reads"])) > 1, bool(screens["is_best"].any())
    panels, _ = panels_of(1 + has_reads + has_budget, 2, (3.8, 2.6), (0.0, 0.7))
    rule = _RULES[str(params["rule"])]
    title = f"{stored['noise']['n_control_cells']} control cells; detected: {rule}"
    root_figure(panels[0]).suptitle(title, fontsize=TEXT)
    _draw_guides(panels[0], screens[screens["reads"] == 1], params)
    if has_reads:
        _draw_reads(panels[1], planned, params)
    if has_budget:
        _draw_budget(panels[-1], screens, params)
    return finish(panels, is_new=True, show=show, return_fig=return_fig, save=save)


def _draw_guides(panel: Axes, screens: pd.DataFrame, params: Mapping[str, Any]) -> None:
    """Draw the power by number of cells, a line per number of guides."""
    styles = iter(_STYLES)
    for n_guides, curve in screens.groupby("n_guides"):
        is_planned = n_guides == params["n_guides"]
        colour, dashes = (BLACK, "-") if is_planned else next(styles)
        panel.plot(
            curve["n_cells"],
            curve["power"],
            color=colour,
            linestyle=dashes,
            linewidth=2.0 if is_planned else 1.4,
            zorder=3 if is_planned else 2,
            label=counted(int(str(n_guides)), "guide"),
        )
    _finish_power(panel, screens, params)


def _draw_reads(panel: Axes, screens: pd.DataFrame, params: Mapping[str, Any]) -> None:
    """Draw the power by number of cells, a line per share of the reads."""
    by_reads = screens.sort_values("reads", ascending=False, kind="stable")
    curves = by_reads.groupby("reads", sort=False)
    for colour, (share, curve) in zip((BLACK, *_OF_READS), curves, strict=False):
        name = "all reads" if share == 1 else f"{100 * float(str(share)):g}% of the reads"
        panel.plot(
            curve["n_cells"],
            curve["power"],
            color=colour,
            label=name,
            linewidth=2.0 if share == 1 else 1.4,
            zorder=3 if share == 1 else 2,
        )
    _finish_power(panel, screens, params)


def _finish_power(panel: Axes, screens: pd.DataFrame, params: Mapping[str, Any]) -> None:
    panel.axhline(
        float(params["power"]), color=GREY, linestyle="--", linewidth=1, zorder=1, label="needed"
    )
    if len(screens):
        logarithmic(panel, "x", screens["n_cells"].max() / screens["n_cells"].min())
    panel.set_ylim(-0.03, 1.03)
    panel.set_xlabel("cells per perturbation")
    panel.set_ylabel(f"power to detect a change of {params['effect']:g},\naveraged over genes")
    legend(panel, panel.get_legend_handles_labels()[0], loc="lower right")


def _draw_budget(panel: Axes, screens: pd.DataFrame, params: Mapping[str, Any]) -> None:
    """Draw the detected effects by number of perturbations, and mark the screen with most."""
    best = screens[screens["is_best"]].iloc[0]
    drawn = screens[screens["n_guides"] == best["n_guides"]]
    colours = dict(zip(sorted(screens["reads"].unique())[::-1], (BLACK, *_OF_READS), strict=False))
    for share, curve in drawn.groupby("reads"):
        # Of the screens with as many perturbations, that which detects most.
        number = curve.groupby("n_perturbations")["detected"].max()
        panel.plot(number.index, number, color=colours[float(str(share))], linewidth=1.6, zorder=2)
    panel.plot(best["n_perturbations"], best["detected"], "o", color=BLACK, zorder=4)
    panel.set_title(
        f"best: {best['n_perturbations']:,.0f} perturbations, {best['n_cells']:,.0f} cells each\n"
        f"in {counted(int(best['n_guides']), 'guide')}, {100 * best['reads']:g}% of the reads",
        fontsize=TEXT,
    )
    if len(set(drawn["n_perturbations"])) > 1:
        numbers = drawn["n_perturbations"]
        logarithmic(panel, "x", numbers.max() / numbers.min())
    panel.set_ylim(bottom=0)
    panel.set_xlabel(f"perturbations in a budget of {float(params['budget']):,.0f}")
    panel.set_ylabel("expected number of\ndetected effects")
