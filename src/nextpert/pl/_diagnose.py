"""The diagnosis of a screen at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked, one_of
from nextpert.pl._docs import documented
from nextpert.pl._figure import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    ORANGE,
    PURPLE,
    REACH,
    SCREEN,
    finish,
    first_of,
    font_size,
    logarithmic,
    panel_of,
    root_figure,
    row_height,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AROUND = 2.2  # inches above and below the rows, the title among them
_LEAST = 1e-3  # of the largest error: what is less is drawn there
_POINTS = 3000  # z-scores that are drawn at most
_LEVELS = {"trust": "trust", "care": "trust with care", "do not trust": "do not trust"}


@checked(panel=one_of("perturbations", "checks", "errors", "negative controls"))
@documented
def diagnose(
    adata: AnnData,
    *,
    key: str = "diagnosis",
    n_top: int = 30,
    ax: Axes | None = None,
    panel: str | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | Axes | None:
    """Draw which parts of a fit are worth trusting on a screen.

    The figure of the perturbations has one row for each, the largest effects on top: the squared
    error of effects learned from half of its guides or cells on the other half, for shrunken
    effects, the cells' means and "no effect"; the correlation over genes of its effect with the one
    predicted when it was left out, by all predictors together and by each of the first three, and
    the largest that is possible (the ceiling; rows where it cannot be measured are grey); the
    effect on its target gene, the positive control. The figure of the checks (``panel="checks"``)
    has the squared error of every predictor on left-out perturbations, with its weight; that of
    effects on cells, guides and batches held out; the coverage of 90% intervals; and the negative
    controls: quantiles of the z-scores of control guides (or other control cells) in the place of
    perturbations, against those of a standard normal. On the diagonal, standard errors are right; a
    steeper line has the width that is stated. Bars are 90% intervals; values without a standard
    error are drawn as open circles. The title says which parts to trust; the full verdict is
    ``adata.uns[key]["verdict"]``.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.diagnose`.
    key
        Its ``key_added``.
    n_top
        Most perturbations to draw, those with most cells.
    ax
        Axes to draw one panel on: ``"errors"`` (default) or ``"negative controls"``.
    panel
        Which figure: ``"perturbations"`` (default) or ``"checks"``; or a panel of them by itself:
        ``"errors"`` or ``"negative controls"``.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no diagnosis (run :func:`nextpert.tl.diagnose` first), ``panel`` is unknown, or
        ``n_top`` is no whole number of at least 1.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=12, n_control=500, expected_degree=4)
    >>> npt.tl.learn_dag(adata, method="given", dag=adata.uns["truth"]["weights"].T)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.diagnose(adata)
    >>> figure = npt.pl.diagnose(adata, return_fig=True)
    >>> len(figure.axes)
    3
    """
    stored = read_result(adata, key, "tl.diagnose", what="diagnosis", part="parts")
    table = stored["perturbations"]
    table = table[table["split_by"] != ""]  # of many a sample is judged
    n_all = len(table)
    table = table.sort_values("n_cells", ascending=False, kind="stable").head(n_top)
    table = table.sort_values("squared_distance", ascending=False, kind="stable")
    if ax is not None or panel in ("errors", "negative controls"):
        drawn = panel_of(ax, (4.4, 3.6))
        if panel == "negative controls":
            _draw_null(drawn, stored)
        else:
            _draw_errors(drawn, table, n_all)
        return finish(drawn, own=ax is None, show=show, return_fig=return_fig, save=save)
    if panel == "checks":
        panels = _draw_checks(stored, table)
    else:
        panels = _panels(len(table))
        _draw_errors(panels[0], table, n_all)
        _draw_correlations(panels[1], table)
        _draw_strength(panels[2], table)
    levels = stored["parts"]["level"].astype(str)
    told = [
        f"{words}: {', '.join(stored['parts'].loc[levels == level, 'part'].astype(str))}"
        for level, words in _LEVELS.items()
        if (levels == level).any()
    ]
    title = f"Verdict: {_LEVELS.get(str(stored['level']), stored['level'])}.   {';   '.join(told)}"
    root_figure(panels[0]).suptitle(title, fontsize=9, x=0.01, ha="left")
    return finish(panels, own=True, show=show, return_fig=return_fig, save=save)


def _draw_checks(stored: dict[str, Any], table: pd.DataFrame) -> list[Axes]:
    """Draw the checks of the model in four panels, on a figure of their own."""
    import matplotlib.pyplot as plt

    held_out, raw = _words(table)
    predictors, shares = stored["predictors"], _shares_to_draw(stored["summary"], held_out, raw)
    held = stored["summary"][stored["summary"]["quantity"] == "coverage_90"]
    held = held[held["part"] != "negative controls"]  # these cover 0
    rows = [1.5 + max(len(predictors), len(shares)), max(1.5 + len(held), 9.0)]
    grid = plt.subplots(
        2, 2, figsize=(9.6, min(1.2 + 0.34 * sum(rows), SCREEN)), height_ratios=rows,
        layout="constrained",
    )[1]  # fmt: skip
    panels = list(grid.ravel())
    panels[0].figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)
    weights = predictors["weight"].to_numpy(dtype=float)
    names = [
        f"{name} ({weight:.2f})" if np.isfinite(weight) else str(name)
        for name, weight in zip(predictors["predictor"], weights, strict=True)
    ]
    values, errors = (
        predictors[name].to_numpy(dtype=float)
        for name in ("error_to_no_effect", "error_to_no_effect_se")
    )
    _points(panels[0], names, values, errors, last=ORANGE)
    panels[0].set(
        title="predictors (weight), left out", xlabel="squared error over that of no effect"
    )
    values, errors = (np.array([share[i] for share in shares], dtype=float) for i in (1, 2))
    _points(panels[1], [name for name, _, _ in shares], values, errors)
    panels[1].set(
        title="shrinkage and replication", xlabel="squared error of shrunken effects, ratio"
    )
    words = {"shrinkage": held_out, "unseen perturbations": "perturbations"}
    names = [words.get(part, part) for part in held["part"]]
    values, errors = (100 * held[name].to_numpy(float) for name in ("value", "standard_error"))
    _points(panels[2], names, values, errors, line=90.0)
    panels[2].set_xlim(min(45.0, np.nanmin(values, initial=90.0) - 5), 102)
    panels[2].set(title="calibration, by what was held out")
    panels[2].set_xlabel("held-out means inside 90% intervals, %")
    _draw_null(panels[3], stored)
    return panels


def _words(table: pd.DataFrame) -> tuple[str, str]:
    """Return what effects are judged on, and what they are compared with: of cells or a table."""
    of_table = table["split_by"].eq("table").all()
    return ("half", "table's effects") if of_table else ("cells", "cells' means")


def _panels(n_rows: int) -> list[Axes]:
    """Return three panels of ``n_rows`` rows."""
    import matplotlib.pyplot as plt

    height = max(3.6, _AROUND + n_rows * row_height(n_rows, 0.2, _AROUND))
    figure = plt.figure(figsize=(9.6, min(height, SCREEN)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.06)  # type: ignore[call-arg,union-attr]
    grid = figure.add_gridspec(1, 3, width_ratios=[1.0, 1.0, 0.9])
    first = figure.add_subplot(grid[0])
    others = [figure.add_subplot(grid[column], sharey=first) for column in (1, 2)]
    for panel in others:
        panel.tick_params(labelleft=False, left=False)
    return [first, *others]


def _draw_errors(panel: Axes, table: pd.DataFrame, n_all: int) -> None:
    """Draw the squared error of effects from half of the cells, one row per perturbation."""
    place, (held_out, raw) = np.arange(len(table)), _words(table)
    columns = ("error_half_no_effect", "error_half_raw_means", "error_half")
    values = {name: table[name].to_numpy(dtype=float) for name in columns}
    every = np.concatenate(list(values.values()))
    largest = np.nanmax(every, initial=0.0)
    if largest > 0:
        values = {name: np.maximum(each, _LEAST * largest) for name, each in values.items()}
        logarithmic(panel, 1 / _LEAST)
    shrunken, cells = values["error_half"], values["error_half_raw_means"]
    panel.hlines(place, shrunken, cells, color=LIGHT, linewidth=2, zorder=0)
    for name, marker, colour, face, label in (
        ("error_half_no_effect", "o", GREY, "white", "no effect"),
        ("error_half_raw_means", "s", BLUE, BLUE, raw),
        ("error_half", "D", ORANGE, ORANGE, "shrunken"),
    ):
        panel.scatter(
            values[name], place, marker=marker, s=26, facecolors=face, edgecolors=colour,
            label=label,
        )  # fmt: skip
    size = font_size(row_height(len(table), 0.2, _AROUND))
    panel.set_yticks(place, table["perturbation"].tolist(), fontsize=size)
    panel.set_ylim(len(table) - 0.5, -0.5)
    panel.set_xlabel("squared error on the other half\n(log-normalised expression²)")
    shown = first_of(len(table), n_all, "") if len(table) < n_all else f"all {n_all}"
    half = "half of the cells" if held_out == "cells" else "half of the table"
    panel.set_title(f"effects from {half}, {shown}".rstrip())
    _legend_above(panel)


def _draw_correlations(panel: Axes, table: pd.DataFrame) -> None:
    """Draw the correlation of expected and observed effect on other genes, by predictor."""
    place = np.arange(len(table))
    panel.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    kind = table["ceiling"].astype(str)
    ceiling = table["ceiling_r"].where(~kind.isin(["", "not measurable"]))
    panel.scatter(ceiling, place, marker="|", s=120, color=BLACK, label="largest possible")
    for k, row in enumerate(place[kind == "not measurable"]):
        panel.axhspan(
            row - 0.5, row + 0.5, color="0.92", linewidth=0, zorder=-1,
            label="" if k else "not measurable",
        )  # fmt: skip
    for name, marker, colour, face, label in (
        ("r_mean_perturbation", "s", BLUE, BLUE, "mean perturbation"),
        ("r_coexpression", "v", PURPLE, PURPLE, "coexpression"),
        ("r_graph", "^", BLACK, "white", "graph"),
        ("r_all", "D", ORANGE, ORANGE, "all predictors"),
    ):
        if name not in table:  # of a fit without predictors
            continue
        panel.scatter(
            table[name], place, marker=marker, s=26, facecolors=face, edgecolors=colour,
            label=label,
        )  # fmt: skip
    panel.set_xlim(-1.05, 1.05)
    panel.set_xlabel("correlation of predicted and\nobserved effect on other genes")
    panel.set_title("r, perturbation left out")
    _legend_above(panel)


def _draw_strength(panel: Axes, table: pd.DataFrame) -> None:
    """Draw the effect on every perturbation's (weakest) target gene, with its 90% interval."""
    place, found = np.arange(len(table)), table["target_gene_found"].astype(str).to_numpy()
    mean, low, high = (
        table[f"target_gene_{name}"].to_numpy(dtype=float) for name in ("mean", "lower", "upper")
    )
    panel.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    for status, colour, face, label in (
        ("yes", BLUE, BLUE, "found (lfsr < 0.05)"),
        ("no", BLUE, "white", "not found"),
        ("opposite direction", ORANGE, ORANGE, "opposite direction"),
    ):
        which = found == status
        if which.any():
            reach = np.maximum([(mean - low)[which], (high - mean)[which]], 0.0)
            panel.errorbar(
                mean[which], place[which], xerr=reach, fmt="o", color=colour,
                markerfacecolor=face, markersize=5, elinewidth=1.2, capsize=2, label=label,
            )  # fmt: skip
    panel.set_xlabel("effect on the target gene\n(log-normalised expression)")
    panel.set_title("positive controls: target gene")
    if np.isfinite(mean).any():
        _legend_above(panel)
    else:
        panel.text(0.5, 0.5, "no target gene on the panel", ha="center", transform=panel.transAxes)


def _draw_null(panel: Axes, stored: dict[str, Any]) -> None:
    """Draw quantiles of the z-scores of the negative controls against those of a normal."""
    from scipy.stats import norm

    z = np.sort(np.asarray(stored["null_z"], dtype=float).ravel())
    panel.set_title("negative controls")
    panel.set_xlabel("z-score if errors are right")
    panel.set_ylabel("z-score of controls")
    if not len(z):
        of_cells = _words(stored["perturbations"])[0] == "cells"
        why = "too few controls" if of_cells else "a table has no control cells"
        panel.text(0.5, 0.5, why, ha="center", transform=panel.transAxes)
        return
    expected = norm.ppf((np.arange(len(z)) + 0.5) / len(z))
    # Many points in the middle overlap, so only some are drawn; the tails are drawn in full.
    tail = min(_POINTS // 4, len(z) // 2)
    middle = np.linspace(tail, len(z) - 1 - tail, _POINTS // 2).astype(int)
    kept = np.unique(np.concatenate([np.arange(tail), middle, np.arange(len(z) - tail, len(z))]))
    summary = stored["summary"].set_index(["part", "quantity"])
    value, error = summary.loc[("negative controls", "null_width"), ["value", "standard_error"]]
    ends = np.array([expected[0], expected[-1]])
    panel.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="errors are right")
    panel.plot(
        ends, value * ends, color=ORANGE, linewidth=1.2, label=f"width {value:.2f} ± {error:.2f}"
    )
    panel.scatter(expected[kept], z[kept], s=8, color=BLUE, linewidths=0, rasterized=True)
    kinds = stored["negative_controls"]
    n_false = int(kinds["n_false"].sum())
    panel.set_title(f"negative controls: {n_false} of {len(z)} significant")
    panel.legend(frameon=False, fontsize=7, loc="upper left", handlelength=1.2, borderaxespad=0.2)


def _shares_to_draw(
    summary: pd.DataFrame, held_out: str, raw: str
) -> list[tuple[str, float, float]]:
    """Return name, value and standard error of the errors of shrunken effects on parts held out.

    ``held_out`` and ``raw`` as :func:`_words` returns them.
    """
    shares = []
    for part, held in (("shrinkage", held_out), ("guides", "guide"), ("batches", "batch")):
        for quantity, beside in (("error_to_raw_means", raw),
                                 ("error_to_no_effect", "no effect")):  # fmt: skip
            found = summary[(summary["part"] == part) & (summary["quantity"] == quantity)]
            for value, error in zip(found["value"], found["standard_error"], strict=True):
                shares.append((f"new {held} vs {beside}", float(value), float(error)))
    return shares


def _points(
    panel: Axes,
    names: list[str],
    values: np.ndarray,
    errors: np.ndarray,
    *,
    line: float = 1.0,
    last: str = BLUE,
) -> None:
    place = np.arange(len(names))
    panel.axvline(line, color=GREY, linewidth=1, linestyle="--", zorder=0)
    colours = [BLUE] * (len(names) - 1) + [last]
    for y, value, error, colour in zip(place, values, errors, colours, strict=True):
        has_error = bool(np.isfinite(error))
        panel.errorbar(
            value, y, xerr=REACH * error if has_error else 0.0, fmt="o", color=colour, markersize=5,
            capsize=2, markerfacecolor=colour if has_error else "white",
        )  # fmt: skip
    known = values[np.isfinite(values)]
    if line == 1.0 and len(known):
        # A wild error bar must not hide the others.
        low = min(float(known.min()), 0.0)
        high = max(1.6 * float(known.max()), 1.2)
        panel.set_xlim(low - 0.05 * (high - low), high)
    panel.set_yticks(place, names)
    panel.set_ylim(len(names) - 0.5, -0.5)


def _legend_above(panel: Axes) -> None:
    """Put the legend between panel and title, where it hides no row."""
    panel.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=7,
        borderaxespad=0.2, columnspacing=1.0, handletextpad=0.3,
    )  # fmt: skip
    n_rows = -(-len(panel.get_legend_handles_labels()[0]) // 2)
    panel.set_title(panel.get_title(), pad=12 + 13 * max(n_rows, 2))
