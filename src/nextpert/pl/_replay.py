"""The rounds of a replay, target by target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

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
    SMALL,
    documented,
    finish,
    label_grid,
    panels_of,
    root_figure,
    short,
)

if TYPE_CHECKING:
    import os

    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour, dashes and marker of each strategy, distinguishable without colours as well. Strategies
# have their markers at different rounds, so that curves on top of each other are all visible.
_STYLES: dict[str, tuple[str, Any, str]] = {
    "exploit": (BLUE, "-", "o"),
    "thompson": (BLUE, (0, (4, 1.5)), "s"),
    "ei": (PALETTE[1], (0, (4, 1.5)), "v"),
    "remaining_variance": (GREEN, "-", "^"),
    "random": (BLACK, (0, (1, 1)), "x"),
    "exact_greedy": (PURPLE, (0, (4, 1.5)), "+"),
    "exact_civ": ("#7E2F8E", (0, (3, 1, 1, 1, 1, 1)), "p"),
    "round_robin_means": (ORANGE, "-", "D"),
    "thompson_means": (PALETTE[0], (0, (4, 1.5)), "*"),
}
_ENDS = 0.05, 0.95  # of the targets, as quantiles
_CONTROL, _BEST = "control", "best candidate"
_LABEL = "squared distance to the target\n(relative to the control's)"


@checked()
@documented
def replay(
    adata: AnnData,
    *,
    key: str = "replay",
    show: bool | None = None,
    return_fig: bool = False,
    save: str | os.PathLike[str] | None = None,
) -> Figure | list[Axes] | None:
    """Draw the distance of the recommended perturbation to each target, round by round.

    The first panel summarises all targets; each target then has its own. A panel shows the squared
    distance of the recommended perturbation's true mean to the target, relative to that of the
    control: the median and the middle 90% of the repeats (in the first panel, of the targets'
    medians). Unbiased distances below 0 are drawn at 0. The dashed line is the control; the dotted
    line is the best candidate of the pool.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`nextpert.tl.replay_design`.
    key
        The ``key_added`` of :func:`nextpert.tl.replay_design`.
    %(show)s

    Returns
    -------
    %(returns)s

    Raises
    ------
    ValueError
        If there is no replay (run :func:`nextpert.tl.replay_design` first).

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=60, perturbed=4, expected_degree=3
    ... )
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.replay_design(adata, strategies=["thompson"], n_rounds=2, n_repeats=2)
    >>> figure = npt.pl.replay(adata, return_fig=True)
    >>> len(figure.axes)  # all together, and four targets
    5
    """
    stored = read_result(adata, key, "tl.replay_design", what="replay", part="overall")
    table, lines = stored["table"], stored["targets"]
    names = list(dict.fromkeys(table["target"]))
    shown = [None, *names] if len(names) > 1 else list(names)
    size = (2.3, 2.0)
    around = (0.6, 1.1)
    panels, columns = panels_of(len(shown), 4, size, around, sharex=True)
    width = root_figure(panels[0]).get_figwidth()
    letters = int(13 * (width - 0.6) / columns)  # that fit above a panel
    for panel, name in zip(panels, shown, strict=True):
        _draw(panel, table, lines, name, letters)
    control, best, *curves = panels[0].get_lines()
    where = {"loc": "outside upper center", "ncols": min(2 + len(curves), int(width / 1.4))}
    label_grid(panels, ("rounds", _LABEL), [*curves, control, best], **where)
    return finish(panels, is_new=True, show=show, return_fig=return_fig, save=save)


def _draw(
    panel: Axes, table: pd.DataFrame, lines: pd.DataFrame, name: str | None, letters: int
) -> None:
    """Draw reference lines and a curve per strategy, for all targets unless ``name`` is given."""
    from matplotlib.ticker import MaxNLocator

    if name is not None:
        table, lines = table[table["target"] == name], lines[lines["target"] == name]
    nearest = (lines["best_distance"] / lines["control_distance"]).clip(lower=0.0)
    panel.axhline(1.0, color=GREY, linestyle="--", linewidth=1, zorder=0, label=_CONTROL)
    panel.axhline(nearest.median(), color=GREY, linestyle=":", lw=1.4, zorder=0, label=_BEST)
    curves = list(table.groupby("strategy", sort=False))
    for i, (strategy, curve) in enumerate(curves):
        curve = curve.set_index("round")[["median", "low", "high"]].clip(lower=0.0)
        if name is None:  # over targets
            by_round = curve["median"].groupby("round")
            curve = pd.DataFrame({q: by_round.quantile(q) for q in (0.5, *_ENDS)})
        middle, low, high = curve.to_numpy().T
        rounds = np.arange(len(middle))
        marker_step = min(len(curves), len(middle))
        colour, dashes, marker = _STYLES.get(str(strategy), (BLACK, "-", "o"))
        panel.fill_between(rounds, low, high, color=colour, alpha=0.1, lw=0)
        panel.plot(
            rounds,
            middle,
            color=colour,
            linestyle=dashes,
            linewidth=1.5,
            label=str(strategy),
            marker=marker,
            markersize=4.5,
            markevery=(i % len(middle), marker_step),
            markerfacecolor=colour if dashes == "-" else "white",
        )
    title = f"median of {len(lines)} targets"
    if name is not None:
        title = f"{name} (best: {lines['best'].iloc[0]})"
    panel.set_title(short(title, letters - 1), fontsize=SMALL)
    top = max(panel.dataLim.y1, 1.0)  # with room for the curves that lie at an edge
    panel.set_ylim(-0.04 * top, 1.06 * top)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(4))
