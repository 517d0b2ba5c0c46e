"""Programs that perturbations share: perturbations on each program, and genes it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.core.model.programs import CLEAR
from nextpert.pl._figure import (
    BLUE,
    GREY,
    LIGHT,
    ORANGE,
    REACH,
    SMALL,
    TEXT,
    documented,
    draw_intervals,
    entry,
    finish,
    first_of,
    legend,
    name_rows,
    panel_of,
    panels_of,
    root_figure,
    short,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ROW = 0.17  # height of a row, in inches
_MAX_PROGRAMS = 6
_MAX_ROWS = 10  # perturbations, and genes, of each program


@checked()
@documented
def programs(
    adata: AnnData,
    *,
    key: str = "perturbation_effects",
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw the 6 largest programs that perturbations share, with perturbations and genes.

    The left of a panel shows the 10 largest scores of perturbations on a program, the right the 10
    largest effects of a score of 1 on genes. Bars are 90% intervals. Scores are filled for
    perturbations on the program (more than 3 standard deviations from 0 and above a quarter of the
    largest); effects are filled if they are more than 3 standard deviations from 0. The title gives
    the share of the effects that a program accounts for.

    If perturbations share no program, the figure says so.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.perturbation_effects`.
    key
        The ``key_added`` of :func:`nextpert.tl.perturbation_effects`.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there are no effects (run :func:`nextpert.tl.perturbation_effects` first), or they come
        from a fit without the hierarchical model.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=16, perturbed=10, expected_degree=3, rng=7)
    >>> npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.perturbation_effects(adata)
    >>> figure = npt.pl.programs(adata, return_fig=True)
    >>> figure.axes[0].get_title()
    'program 1: 17% of the effects'
    """
    stored = read_result(adata, key, "tl.perturbation_effects", what="effects", part="lfsr")
    if "programs" not in stored:
        message = (
            f"The effects in adata.uns[{key!r}] have no programs, because the shifts are exact: "
            f"run tl.fit_dag_blr with shift_sd='learned', and then tl.perturbation_effects."
        )
        raise ValueError(message)
    shares, scores, genes = (stored["programs"][name] for name in ("shares", "scores", "genes"))
    if shares.empty:
        panel = panel_of(None, (4.2, 1.4))
        panel.set_axis_off()
        message = "No program is shared by two perturbations."
        panel.text(0.5, 0.5, message, ha="center", va="center", fontsize=TEXT)
        return finish([panel], is_new=True, show=show, return_fig=return_fig, save=save)
    drawn = shares.head(_MAX_PROGRAMS)
    height = _ROW * min(_MAX_ROWS, len(stored["genes"])) + 0.75
    panels, columns = panels_of(len(drawn), 1, (5.2, height), (0.4, 0.6))
    figure = root_figure(panels[0])
    axes = []
    n_high = -(-len(drawn) // columns)
    row = _ROW * figure.get_figheight() / (0.6 + n_high * height)
    for panel, (number, share) in zip(panels, drawn[["program", "share"]].values, strict=True):
        panel.set_axis_off()
        panel.set_xlim(0.0, 1.0)
        panel.axvline(0.5, color=LIGHT, linewidth=1)
        score_panel, gene_panel = (panel.inset_axes((at, 0.0, 0.47, 1.0)) for at in (0.0, 0.53))
        top_scores, top_genes = (
            table[table["program"] == number].head(_MAX_ROWS) for table in (scores, genes)
        )
        clear = top_genes["effect"].abs() > CLEAR * top_genes["sd"]
        _draw_values(
            score_panel, top_scores, ("perturbation", "score"), top_scores["takes_part"], BLUE, row
        )
        _draw_values(gene_panel, top_genes, ("gene", "effect"), clear, ORANGE, row)
        gene_panel.yaxis.tick_right()
        panel.set_title(f"program {number:.0f}: {100 * share:.0f}% of the effects")
        axes += [panel, score_panel, gene_panel]
    for score_panel, gene_panel in zip(axes[1::3][-columns:], axes[2::3][-columns:], strict=True):
        score_panel.set_xlabel("score\n(90% intervals)")
        gene_panel.set_xlabel("effect of a score of 1\n(log-normalised expression)")
    handles = [
        entry("perturbation on the program", BLUE, "o", line="-"),
        entry(f"effect above {CLEAR:g} SD", ORANGE, "o", line="-"),
        entry("other", GREY, "o", line="-", face="white"),
    ]
    options: dict[str, Any] = {"loc": "outside upper right", "ncols": 3}
    if len(drawn) < len(shares):
        title = first_of(len(drawn), len(shares), "programs")
        options |= {"title": title, "title_fontsize": SMALL}
    legend(figure, handles, **options)
    return finish(axes, is_new=True, show=show, return_fig=return_fig, save=save)


def _draw_values(
    panel: Axes, table: pd.DataFrame, columns: tuple[str, str], clear: Any, colour: str, row: float
) -> None:
    """Draw the values of a table with 90% intervals, the largest on top.

    ``columns`` are those of names and values, ``clear`` says which rows are filled, shape
    ``(n_rows,)``, and ``row`` is the height of a row in inches.
    """
    from matplotlib.ticker import MaxNLocator

    name, value = columns
    table = table.assign(clear=clear).sort_values(value, ascending=False, kind="stable")
    at = table[value]
    reach = REACH * table["sd"]
    panel.axvline(0.0, color=GREY, linestyle="--", linewidth=1, zorder=1)
    draw_intervals(panel, (at, at - reach, at + reach), table["clear"], colour, s=22)
    name_rows(panel, [short(str(label), 24) for label in table[name]], row)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.xaxis.set_major_locator(MaxNLocator(4))
