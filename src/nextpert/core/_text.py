"""Facts of a summary or a campaign, as printed lines or as a card in a notebook."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from html import escape

_WIDTH = 100  # of printed lines


# Characters that reverse the reading direction of the text after them, even beyond a label.
_TURNING = {
    code: f"\\u{code:04x}"
    for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def in_one_direction(text: str) -> str:
    r"""Return a text or page in which codes replace characters that reverse the reading direction.

    Examples
    --------
    >>> from nextpert.core._text import in_one_direction
    >>> print(in_one_direction("MYC\u202e next"))
    MYC\u202e next
    """
    return text.translate(_TURNING)


def lines(title: str, facts: Mapping[str, str], footer: str = "") -> str:
    """Return a title with one fact per line, as text to print; empty facts are left out.

    Examples
    --------
    >>> from nextpert.core._text import lines
    >>> print(lines("Campaign", {"Best so far": "MYC", "Failed": "", "Rounds": "2"}))
    Campaign
      Best so far  MYC
      Rounds       2
    """
    shown = {name: words for name, words in facts.items() if words}
    width = max(map(len, shown), default=0)
    rows = [
        textwrap.fill(
            words,
            _WIDTH,
            initial_indent=f"  {name:{width}}  ",
            subsequent_indent=" " * (width + 4),
            break_long_words=False,
            break_on_hyphens=False,
        )
        for name, words in shown.items()
    ]
    return in_one_direction("\n".join([title, *rows, *([footer] if footer else [])]))


def card(title: str, facts: Mapping[str, str], html: str = "") -> str:
    """Return a title with one line per fact, as HTML; empty facts are left out.

    The card inherits its colours, so that it is legible in dark notebooks, too.

    Parameters
    ----------
    title, facts
        Plain text, escaped here.
    html
        HTML to add below.

    Examples
    --------
    >>> from nextpert.core._text import card
    >>> "<td>A &lt; B</td>" in card("Target", {"State": "A < B", "Shares": ""}).replace(
    ...     ' style="text-align:left;vertical-align:top"', ""
    ... )
    True
    """
    style = 'style="text-align:left;vertical-align:top"'
    rows = "".join(
        f'<tr><th scope="row" {style}>{escape(name)}</th><td {style}>{escape(words)}</td></tr>'
        for name, words in facts.items()
        if words
    )
    box = "border:1px solid;border-color:color-mix(in srgb,currentColor 25%,transparent)"
    return in_one_direction(
        f'<div style="{box};border-radius:6px;padding:.5em .9em;display:inline-block;'
        f'box-sizing:border-box;max-width:100%;overflow-x:auto"><strong>{escape(title)}</strong>'
        f"<table>{rows}</table>{html}</div>"
    )


def percent(probability: float) -> str:
    """Return a probability in percent; an estimate from draws is never shown as 0% or 100%.

    Examples
    --------
    >>> from nextpert.core._text import percent
    >>> percent(0.004), percent(0.52), percent(1.0), percent(float("nan"))
    ('< 1%', '52%', '> 99%', '–')
    """
    if math.isnan(probability):
        return "–"
    if not 0.01 <= probability <= 0.99:
        return "< 1%" if probability < 0.01 else "> 99%"
    return f"{100 * probability:.0f}%"
