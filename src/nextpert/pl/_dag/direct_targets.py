"""What the experiment set, as squares below the genes, with lines to its direct targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from nextpert._adata import Naming, closest, in_order, list_names
from nextpert.pl._dag.arcs import darkness
from nextpert.pl._figure import BLACK, PALETTE, PURPLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

OWN, OFF, OTHER = "acts on its own gene", "acts on another gene", "not named after a gene here"
_COLOURS = {OWN: BLACK, OFF: PURPLE, OTHER: PALETTE[0]}
_WIDTHS = {OWN: 1.0, OFF: 2.0, OTHER: 1.0}  # told apart in print without colours as well


class DirectTargets(NamedTuple):
    """Lines to draw, a perturbation and a gene each, and how often resamples have them."""

    perturbation: list[str]
    gene: list[str]
    kind: list[str]
    share: NDArray[np.float64] | None

    @property
    def names(self) -> list[str]:
        """The perturbations."""
        return list(dict.fromkeys(self.perturbation))


def read_direct_targets(
    table: pd.DataFrame | None,
    wanted: bool | Sequence[str],
    panel: Sequence[str],
    drawn: Sequence[str],
    key: str,
) -> DirectTargets | None:
    """Return the direct targets among the genes drawn, or ``None`` where they are not wanted.

    A perturbation whose label names genes of the panel has them for its own.

    Raises
    ------
    ValueError
        If none are stored, or a perturbation has none.
    """
    if wanted is False:
        return None
    if table is None:
        message = (
            f"adata.uns[{key!r}] has no direct targets: run tl.learn_dag first, with "
            f'method="boss", environments="all", or leave direct_targets out.'
        )
        raise ValueError(message)
    perturbation = table["perturbation"].astype(str)
    keep = np.isin(table["gene"].astype(str), list(drawn))
    if wanted is not True:
        named = (str(name) for name in in_order(wanted))
        names = Naming(set(panel)).spelled(named, perturbation)
        absent = [name for name in names if name not in set(perturbation)]
        if absent:
            message = (
                f"Perturbations without direct targets: {list_names(absent)}."
                f"{closest(absent, perturbation)} adata.uns[{key!r}]['direct_targets'] holds "
                f"{list_names(dict.fromkeys(perturbation)) or 'none'}."
            )
            raise ValueError(message)
        keep &= np.isin(perturbation, names)
    rows = table[keep]
    share = rows["frequency"].to_numpy(float) if "frequency" in rows else None
    who, what = (rows[name].astype(str).tolist() for name in ("perturbation", "gene"))
    known = set(panel)
    kind = [_kind(label, gene, known) for label, gene in zip(who, what, strict=True)]
    return DirectTargets(who, what, kind, share)


def _kind(label: str, gene: str, panel: set[str]) -> str:
    own = Naming(panel).targets(label)[0]
    return OTHER if not own else OWN if gene in own else OFF


def draw_direct_targets(
    panel: Axes,
    targets: DirectTargets,
    genes: Sequence[str],
    rows: tuple[float, float],
    font_size: float,
) -> list[Any]:
    """Draw squares and names below the genes, and lines between; return the legend's entries.

    ``rows`` are the lower edge of the band of genes and the row of the squares.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba_array

    top, row = rows
    place = {gene: k for k, gene in enumerate(genes)}
    where = _places(targets, place)
    lines = [
        [(where[label], row), (place[gene], top)]
        for label, gene in zip(targets.perturbation, targets.gene, strict=True)
    ]
    colours = to_rgba_array([_COLOURS[kind] for kind in targets.kind])
    if lines and targets.share is not None:
        colours[:, 3] = darkness(targets.share)
    widths = [_WIDTHS[kind] for kind in targets.kind]
    panel.add_collection(LineCollection(lines, linewidths=widths, colors=colours, zorder=2))
    panel.scatter(list(where.values()), [row] * len(where), s=16, c=BLACK, marker="s", zorder=4)
    for label, x in where.items():
        panel.annotate(
            label, (x, row), (0, -5), textcoords="offset points", rotation=90,
            ha="center", va="top", fontsize=font_size, color=BLACK,
        )  # fmt: skip
    left, right = panel.get_xlim()
    panel.set_xlim(min([left, *(x - 0.9 for x in where.values())]),
                   max([right, *(x + 0.9 for x in where.values())]))  # fmt: skip
    return _handles(targets)


def _places(targets: DirectTargets, place: dict[str, int]) -> dict[str, float]:
    """Return the place of every square: near its targets, own ones first, and 1 apart."""
    ends: dict[str, list[tuple[bool, int]]] = {name: [] for name in targets.names}
    for label, gene, kind in zip(targets.perturbation, targets.gene, targets.kind, strict=True):
        ends[label].append((kind == OWN, place[gene]))
    middle = {}
    for label, found in ends.items():
        own = [x for is_own, x in found if is_own]
        middle[label] = float(np.mean(own or [x for _, x in found]))
    names = sorted(middle, key=lambda label: (middle[label], label))
    if not names:
        return {}
    rank = np.arange(len(names))
    spare = len(place) - len(names)  # squares that are more than the genes reach out on both sides
    low = min(0.0, spare / 2)
    free = isotonic_regression(np.array([middle[label] for label in names]) - rank).x
    x = np.clip(free, low, low + max(spare, 0)) + rank
    return dict(zip(names, x.tolist(), strict=True))


def _handles(targets: DirectTargets) -> list[Any]:
    from matplotlib.lines import Line2D

    square = Line2D([], [], color=BLACK, marker="s", ls="", markersize=4, label="perturbation")
    return [
        square,
        *(
            Line2D([], [], color=colour, linewidth=_WIDTHS[kind], label=kind)
            for kind, colour in _COLOURS.items()
            if kind in targets.kind
        ),
    ]
