"""The diagnosis of a screen at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import read_result
from nextpert._adata.arguments import checked, one_of
from nextpert.pl._figure import (
    BLUE,
    GREY,
    LIGHT,
    ORANGE,
    REACH,
    SCREEN,
    documented,
    draw_intervals,
    finish,
    legend_above,
    logarithmic,
    name_rows,
    panel_of,
    panels_of,
    root_figure,
    row_height,
    row_panels,
)

if TYPE_CHECKING:
    import os

    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AROUND = 2.2  # inches above and below the rows, including the title
_MIN_RELATIVE_ERROR = 1e-3  # of the largest error; smaller errors are drawn at this value
_LEVELS = {"trust": "trust", "care": "trust with care", "do not trust": "do not trust"}


@checked(panel=one_of("perturbations", "checks", "negative controls"))
@documented
def diagnose(
    adata: AnnData,
    *,
    key: str = "diagnosis",
    n_top: int = 30,
    panel: str | None = None,
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | Axes | None:
    """Draw which parts of a fit are reliable on a screen.

    The figure of perturbations has one row for each, the largest effects on top. Its panels show
    the squared error of effects learned from half of the guides or cells, on the other half, for
    shrunken effects, the cells' means and "no effect"; the correlation over genes of the observed
    effect with the one predicted without the perturbation's cells; and the effect on the target
    gene, the positive control.

    The figure of checks (``panel="checks"``) shows the squared error of predictions of left-out
    perturbations; the squared error of effects on held-out cells, guides and batches; the coverage
    of 90% intervals; and the negative controls: quantiles of the z-scores of control guides (or
    other control cells), analysed as perturbations, against those of a standard normal
    distribution. Points on the diagonal show that standard errors are correct; the slope of the
    orange line is the width of the null that the verdict states. Bars are 90% intervals; open
    circles are values without a standard error. The title says which parts to trust; the full
    verdict is ``adata.uns[key]["verdict"]``.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.diagnose`.
    key
        The ``key_added`` of :func:`nextpert.tl.diagnose`.
    n_top
        Maximum number of perturbations to draw, those with the most cells.
    panel
        The figure: ``"perturbations"`` (default), ``"checks"``, or only the panel
        ``"negative controls"`` of the checks.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no diagnosis (run :func:`nextpert.tl.diagnose` first), ``panel`` is unknown, or
        ``n_top`` is not a whole number of at least 1.

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
    table = table[table["split_by"] != ""]  # of many perturbations, only a sample is tested
    n_all = len(table)
    table = table.sort_values("n_cells", ascending=False, kind="stable").head(n_top)
    table = table.sort_values("squared_distance", ascending=False, kind="stable")
    if panel == "negative controls":
        drawn = panel_of(None, (4.4, 3.6))
        _draw_null(drawn, stored)
        return finish(drawn, is_new=True, show=show, return_fig=return_fig, save=save)
    if panel == "checks":
        panels = _draw_checks(stored, table)
    else:
        panels = row_panels(len(table), (3.3, 3.3, 3.0), shared=3, around=_AROUND, min_height=3.6)
        _draw_errors(panels[0], table, n_all)
        _draw_correlations(panels[1], table)
        _draw_strength(panels[2], table)
    parts = stored["parts"].astype({"level": str, "part": str}).groupby("level")["part"]
    by_level = {level: ", ".join(names) for level, names in parts}
    verdict = [f"{_LEVELS[level]}: {by_level[level]}" for level in _LEVELS if level in by_level]
    title = f"Verdict: {_LEVELS.get(str(stored['level']), stored['level'])}."
    figure = root_figure(panels[0])
    figure.suptitle(f"{title}   {';   '.join(verdict)}", fontsize=9, x=0.01, ha="left")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.07)  # type: ignore[call-arg,union-attr]
    return finish(panels, is_new=True, show=show, return_fig=return_fig, save=save)


def _draw_checks(stored: dict[str, Any], table: pd.DataFrame) -> list[Axes]:
    """Draw the checks of the model in four panels, on a figure of their own."""
    held_out, raw = _words(table)
    summary = stored["summary"]
    parts = {"shrinkage": f"new {held_out}", "guides": "new guide", "batches": "new batch"}
    beside = {"error_to_raw_means": raw, "error_to_no_effect": "no effect"}
    predictions = {
        ("unseen perturbations", "error_to_no_effect"): "all predictors vs no effect",
        ("unseen perturbations", "error_to_mean"): "all predictors vs mean perturbation",
        ("graph", "error_alone"): "graph alone vs no effect",
        ("graph", "error_to_no_graph"): "all predictors vs all but the graph",
    }
    predicted = summary.set_index(["part", "quantity"]).loc[[*predictions]]
    errors = summary[summary["part"].isin(parts) & summary["quantity"].isin(beside)]
    # Negative controls cover 0.
    covered = summary[
        (summary["quantity"] == "coverage_90") & summary["part"].ne("negative controls")
    ]
    rows = [1.5 + max(len(predicted), len(errors)), max(1.5 + len(covered), 9.0)]
    size = 4.8, min(0.6 + 0.17 * sum(rows), SCREEN / 2)
    panels, _ = panels_of(4, 2, size, (0.0, 0.0), height_ratios=rows)
    names = predicted.index.map(predictions)
    _draw_points(panels[0], names, predicted["value"], predicted["standard_error"])
    panels[0].set(title="predictions of left-out perturbations", xlabel="squared error, ratio")
    names = errors["part"].map(parts) + " vs " + errors["quantity"].map(beside)
    _draw_points(panels[1], names, errors["value"], errors["standard_error"])
    label = "squared error of shrunken effects, ratio"
    panels[1].set(title="shrinkage and replication", xlabel=label)
    words = {"shrinkage": held_out, "unseen perturbations": "perturbations"}
    values, sd = 100 * covered["value"], 100 * covered["standard_error"]
    _draw_points(panels[2], covered["part"].replace(words), values, sd, line=90.0)
    panels[2].set_xlim(min(45.0, np.nanmin(values, initial=90.0) - 5), 102)
    label = "held-out means inside 90% intervals, %"
    panels[2].set(title="calibration, by what was held out", xlabel=label)
    _draw_null(panels[3], stored)
    return panels


def _words(table: pd.DataFrame) -> tuple[str, str]:
    """Return words for held-out data and raw effects, for cells or a table."""
    of_table = table["split_by"].eq("table").all()
    return ("half", "table's effects") if of_table else ("cells", "cells' means")


def _draw_errors(panel: Axes, table: pd.DataFrame, n_all: int) -> None:
    """Draw the squared error of effects from half of the cells, one row per perturbation."""
    held_out, raw = _words(table)
    columns = ["error_half_no_effect", "error_half_raw_means", "error_half"]
    values = table[columns]
    largest = np.nanmax(values, initial=0.0)
    if largest > 0:
        values = values.clip(lower=_MIN_RELATIVE_ERROR * largest)
        logarithmic(panel, "x", 1 / _MIN_RELATIVE_ERROR)
    none, means, shrunken = columns
    y = range(len(table))
    panel.hlines(y, values[shrunken], values[means], color=LIGHT, linewidth=2, zorder=0)
    for name, marker, edge, face, label in (
        (none, "o", GREY, "white", "no effect"),
        (means, "s", BLUE, BLUE, raw),
        (shrunken, "D", ORANGE, ORANGE, "shrunken"),
    ):
        colours: dict[str, Any] = {"edgecolors": edge, "facecolors": face}
        panel.scatter(values[name], y, marker=marker, s=26, label=label, **colours)
    name_rows(panel, table["perturbation"].tolist(), row_height(len(table), _AROUND))
    panel.set_xlabel("squared error on the other half\n(log-normalised expression²)")
    half = "half of the cells" if held_out == "cells" else "half of the table"
    number = f"{len(table)} of {n_all}" if len(table) < n_all else f"all {n_all}"
    panel.set_title(f"effects from {half}, {number}")
    legend_above(panel)


def _draw_correlations(panel: Axes, table: pd.DataFrame) -> None:
    """Draw the correlation of predicted and observed effect on other genes."""
    panel.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    panel.scatter(
        table["r_all"], range(len(table)), marker="D", s=26, color=ORANGE, label="all predictors"
    )
    panel.set_xlim(-1.05, 1.05)
    panel.set_xlabel("correlation of predicted and\nobserved effect on other genes")
    panel.set_title("r, perturbation left out")
    legend_above(panel)


def _draw_strength(panel: Axes, table: pd.DataFrame) -> None:
    """Draw the effect on every perturbation's (weakest) target gene, with its 90% interval."""
    panel.axvline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    for status, colour, label in (
        ("yes", BLUE, "found (lfsr < 0.05)"),
        ("no", BLUE, "not found"),
        ("opposite direction", ORANGE, "opposite direction"),
    ):
        rows = np.flatnonzero(table["target_gene_found"] == status)
        values = [table[f"target_gene_{x}"].iloc[rows] for x in ("mean", "lower", "upper")]
        if len(rows):
            draw_intervals(panel, values, status != "no", colour, rows=rows, label=label)
    panel.set_xlabel("effect on the target gene\n(log-normalised expression)")
    panel.set_title("positive controls: target gene")
    if table["target_gene_mean"].notna().any():
        legend_above(panel)
    else:
        panel.text(0.5, 0.5, "no target gene on the panel", ha="center", transform=panel.transAxes)


def _draw_null(panel: Axes, stored: dict[str, Any]) -> None:
    """Draw quantiles of the z-scores of negative controls against those of a standard normal."""
    from scipy.stats import norm

    z = np.sort(np.asarray(stored["null_z"], dtype=float).ravel())
    panel.set_title("negative controls")
    panel.set_xlabel("expected z-score")
    panel.set_ylabel("z-score of controls")
    if not len(z):
        of_cells = _words(stored["perturbations"])[0] == "cells"
        why = "too few controls" if of_cells else "a table has no control cells"
        panel.text(0.5, 0.5, why, ha="center", transform=panel.transAxes)
        return
    expected = norm.ppf((np.arange(len(z)) + 0.5) / len(z))
    summary = stored["summary"].set_index(["part", "quantity"])
    width, error = summary.loc[("negative controls", "null_width"), ["value", "standard_error"]]
    ends = expected[[0, -1]]
    panel.plot(ends, ends, color=GREY, linewidth=1, linestyle="--", label="correct errors")
    label = f"width {width:.2f} ± {error:.2f}"
    panel.plot(ends, width * ends, color=ORANGE, linewidth=1.2, label=label)
    panel.scatter(expected, z, s=8, color=BLUE, linewidths=0, rasterized=True)
    n_false = int(stored["negative_controls"]["n_false"].sum())
    panel.set_title(f"negative controls: {n_false} of {len(z)} significant")
    panel.legend(frameon=False, fontsize=7, loc="upper left", handlelength=1.2, borderaxespad=0.2)


def _draw_points(
    panel: Axes,
    names: pd.Index | pd.Series,
    values: pd.Series,
    errors: pd.Series,
    *,
    line: float = 1.0,
) -> None:
    """Draw a row per value with its 90% interval; those without a standard error are open."""
    panel.axvline(line, color=GREY, linewidth=1, linestyle="--", zorder=0)
    reach = REACH * errors.fillna(0.0)
    draw_intervals(panel, (values, values - reach, values + reach), errors.notna(), BLUE)
    if line == 1.0 and values.notna().any():
        # A very wide interval must not hide the others.
        low, high = min(values.min(), 0.0), max(1.6 * values.max(), 1.2)
        panel.set_xlim(low - 0.05 * (high - low), high)
    name_rows(panel, names.tolist())
