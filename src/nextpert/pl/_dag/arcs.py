"""The arcs between genes: how they look, and the legend that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert.core.search._classes import CELLS, INTERVENTIONS, OPEN, PRIOR
from nextpert.pl._figure import BLUE, GREEN, GREY, ORANGE, PALETTE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]
    Nodes = NDArray[np.int64]

_THINNEST, _THICKEST = 0.3, 3.5
_COLOURS = {CELLS: GREY, INTERVENTIONS: GREEN, PRIOR: PALETTE[1], OPEN: GREY}
_LABELS = {
    CELLS: "direction settled by cells",
    INTERVENTIONS: "by interventions",
    PRIOR: "by prior knowledge",
    OPEN: "direction open",
}


class Arcs(NamedTuple):
    """What is known of the arcs drawn; ``None`` where it is not.

    ``share`` is that of the graphs of resamples that have the arc, in either direction where the
    direction is open.
    """

    weight: Vector | None
    settled_by: NDArray[np.str_] | None
    share: Vector | None

    @property
    def open(self) -> NDArray[np.bool_]:
        """Whether an arc's direction is open; empty where nothing is known."""
        return np.zeros(0, np.bool_) if self.settled_by is None else self.settled_by == OPEN


def known_arcs(
    table: pd.DataFrame | None, ends: Sequence[tuple[str, str]], weight: Vector | None
) -> Arcs:
    """Return what the stored table of arcs says of those drawn, ``(parent, child)``.

    A graph that was changed by hand has arcs that the table does not know: it says nothing then.
    """
    rows = {}
    if table is not None:
        pairs = zip(table["parent"].astype(str), table["child"].astype(str), strict=True)
        rows = {pair: row for row, pair in enumerate(pairs)}
    if table is None or not all(pair in rows for pair in ends):
        return Arcs(weight, None, None)
    drawn = table.iloc[[rows[pair] for pair in ends]]
    how = drawn["settled_by"].to_numpy(dtype=str)
    if "frequency" not in drawn:
        return Arcs(weight, how, None)
    frequency, adjacency = (drawn[name].to_numpy(float) for name in ("frequency", "adjacency"))
    return Arcs(weight, how, np.where(how == OPEN, adjacency, frequency))


def darkness(share: Vector | float) -> Any:
    """Return the opacity of lines that a share of the graphs has."""
    return 0.12 + 0.8 * np.asarray(share)


def draw_arcs(
    panel: Axes,
    start: Nodes,
    stop: Nodes,
    below: NDArray[np.bool_] | None,
    band: float,
    arcs: Arcs,
) -> list[Any]:
    """Draw the arcs above the band of names, some of them below; return the legend's entries."""
    from matplotlib.collections import LineCollection

    span = (stop - start).astype(float)
    t = np.linspace(0, np.pi, 80)
    x = (start + stop)[:, None] / 2 - span[:, None] / 2 * np.cos(t)
    y = band + span[:, None] ** 0.75 * np.sin(t)
    if below is not None:
        y[below] *= -1
    width, colours = _style(arcs, len(span))
    dashed = arcs.open if arcs.settled_by is not None else np.zeros(len(span), np.bool_)
    styles = [dashes(w) if d else "solid" for w, d in zip(width, dashed, strict=True)]
    lines = np.stack([x, y], axis=-1)
    panel.add_collection(
        LineCollection(
            list(lines),
            linewidths=width.tolist() or 0.8,
            linestyles=styles or "solid",
            colors=colours,
            zorder=2,
        )
    )
    return _handles(arcs, two_sided=below is not None)


def dashes(width: float) -> tuple[float, tuple[float, float]]:
    """Return dashes of the same length whatever the width, which matplotlib scales them by."""
    return 0.0, (3.5 / width, 2.2 / width)


def _style(arcs: Arcs, n: int) -> tuple[Vector, Any]:
    """Return the width and colour of every arc.

    Frequency is darkness. Width is that of the weight, or again of the frequency. Colour is the
    sign of the weight, or what settles the direction.
    """
    from matplotlib.colors import to_rgba_array

    names, width, alpha = [GREY] * n, np.full(n, 0.8), np.full(n, 0.65)
    if arcs.settled_by is not None:
        names = [_COLOURS[how] for how in arcs.settled_by]
    if arcs.share is not None:
        width, alpha = _width_of_share(arcs.share), darkness(arcs.share)
    if arcs.weight is not None:
        strength = np.abs(arcs.weight) / _largest(arcs.weight)
        names = np.where(arcs.weight < 0, ORANGE, BLUE).tolist()
        width = _THINNEST + (_THICKEST - _THINNEST) * strength
        if arcs.share is None:
            alpha = 0.45 + 0.4 * strength  # weak arcs step back
    colours = to_rgba_array(names)
    if n:
        colours[:, 3] = alpha
    return width, colours


def _width_of_share(share: Vector | float) -> Any:
    return 0.4 + 1.1 * np.asarray(share)


def _largest(weight: Vector) -> float:
    return float(np.abs(weight).max(initial=0.0)) or 1.0


def _handles(arcs: Arcs, *, two_sided: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    handles: list[Any] = []

    def entry(label: str, **style: Any) -> None:
        handles.append(Line2D([], [], label=label, **style))

    if arcs.weight is not None:
        above, under = (" (above)", " (below)") if two_sided else ("", "")
        entry("raises" + above, color=BLUE, linewidth=2)
        entry("lowers" + under, color=ORANGE, linewidth=2)
        largest = _largest(arcs.weight)
        for size in (largest, largest / 4):
            width = _THINNEST + (_THICKEST - _THINNEST) * size / largest
            entry(f"weight {size:.2g}", color=GREY, linewidth=width)
    if arcs.settled_by is not None:
        found = set(arcs.settled_by.tolist())
        told = (CELLS, INTERVENTIONS, PRIOR) if arcs.weight is None else ()
        for how in told:
            if how in found:
                entry(_LABELS[how], color=_COLOURS[how], linewidth=1.5)
        if OPEN in found:
            entry(_LABELS[OPEN], color=GREY, linewidth=1.2, linestyle=dashes(1.2))
    if arcs.share is not None:
        for share in (1.0, 0.5, 0.1):
            width = 1.5 if arcs.weight is not None else float(_width_of_share(share))
            alpha = float(darkness(share))
            entry(f"in {share:.0%} of the graphs", color=GREY, linewidth=width, alpha=alpha)
    return handles
