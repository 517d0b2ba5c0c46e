"""How objects show themselves: a line where they are printed, a card in a notebook.

A class that inherits from :class:`Shown` has a line of its facts. A summary and a campaign use
:func:`card` and :func:`lines` with facts of their own.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from html import escape
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np

_WIDTH = 100  # of printed lines
_FEW = 4  # numbers that are shown one by one

# Characters that turn the direction of what follows, beyond the label they stand in.
_TURNING = {
    code: f"\\u{code:04x}"
    for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class Shown:
    """Base class of objects that are printed by their main facts, not by all of their numbers.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr, Optimum
    >>> DagBlr(Dag.from_edges(3, [(0, 1)]))
    DagBlr(dag=Dag(n_nodes=3, n_edges=1), n_cells=0)
    >>> Optimum(np.zeros(36), value=0.25, index=7)
    Optimum(shift=36 values, value=0.25, index=7)
    """

    # Attributes to show; by default the fields of a dataclass.
    _shown: ClassVar[tuple[str, ...]] = ()

    def _facts(self) -> dict[str, Any]:
        names = self._shown
        if is_dataclass(self) and not names:
            names = tuple(field.name for field in fields(self) if field.init)
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def __repr__(self) -> str:
        words = {name: brief(value) for name, value in self._facts().items()}
        facts = ", ".join(f"{name}={value}" for name, value in words.items() if value)
        return f"{type(self).__name__}({facts})"


def brief(value: Any) -> str:
    """Return a number in four digits, an array by its shape, a collection by its size.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core._shown import brief
    >>> brief(1 / 3), brief(np.ones((12, 36))), brief(None)
    ('0.3333', '12 x 36 values', '')
    """
    if shape := getattr(value, "shape", ()):
        return f"{' x '.join(map(str, shape))} values"
    if isinstance(value, list | tuple | Mapping):
        return f"{len(value)} items"
    if isinstance(value, Real) and not isinstance(value, bool | np.bool_ | Integral):
        return f"{float(value):.4g}"
    return "" if value is None else str(value)


def in_one_direction(text: str) -> str:
    r"""Return a text or page in which characters that reverse text are written as codes.

    Examples
    --------
    >>> from nextpert.core._shown import in_one_direction
    >>> print(in_one_direction("MYC\u202e next"))
    MYC\u202e next
    """
    return text.translate(_TURNING)


def lines(title: str, facts: Mapping[str, str], more: str = "") -> str:
    """Return a title with one fact per line, as text to print; empty facts are left out.

    Examples
    --------
    >>> from nextpert.core._shown import lines
    >>> print(lines("Campaign", {"Best so far": "MYC", "Failed": "", "Plates": "2"}))
    Campaign
      Best so far  MYC
      Plates       2
    """
    held = {name: words for name, words in facts.items() if words}
    width = max(map(len, held), default=0)
    rows = [
        textwrap.fill(
            words,
            _WIDTH,
            initial_indent=f"  {name:{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, words in held.items()
    ]
    return in_one_direction("\n".join([title, *rows, *([more] if more else [])]))


def card(title: str, facts: Mapping[str, str], more: str = "") -> str:
    """Return a title with one line per fact, as HTML; empty facts are left out.

    It takes its colours from what surrounds it, and so suits dark notebooks, too.

    Parameters
    ----------
    title, facts
        Plain text, escaped here.
    more
        HTML to add below.

    Examples
    --------
    >>> from nextpert.core._shown import card
    >>> "<td>A &lt; B</td>" in card("Target", {"State": "A < B", "Shares": ""}).replace(
    ...     ' style="text-align:left;vertical-align:top"', ""
    ... )
    True
    """
    left = 'style="text-align:left;vertical-align:top"'
    rows = "".join(
        f'<tr><th scope="row" {left}>{escape(name)}</th><td {left}>{escape(words)}</td></tr>'
        for name, words in facts.items()
        if words
    )
    box = "border:1px solid;border-color:color-mix(in srgb,currentColor 25%,transparent)"
    return in_one_direction(
        f'<div style="{box};border-radius:6px;padding:.5em .9em;display:inline-block;'
        f'box-sizing:border-box;max-width:100%;overflow-x:auto"><strong>{escape(title)}</strong>'
        f"<table>{rows}</table>{more}</div>"
    )


def percent(probability: float) -> str:
    """Return a probability in percent; an estimate from draws is never shown as 0% or 100%.

    Examples
    --------
    >>> from nextpert.core._shown import percent
    >>> percent(0.004), percent(0.52), percent(1.0), percent(float("nan"))
    ('< 1%', '52%', '> 99%', '–')
    """
    if math.isnan(probability):
        return "–"
    if not 0.01 <= probability <= 0.99:
        return "< 1%" if probability < 0.01 else "> 99%"
    return f"{100 * probability:.0f}%"
