"""What objects show of themselves in a notebook: names and facts, in the notebook's own colours."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Characters that turn the direction of what follows, beyond the label they stand in.
_TURNING = {
    code: f"\\u{code:04x}"
    for code in (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


def in_one_direction(text: str) -> str:
    r"""Return a text or page with the characters that would turn its direction as their codes.

    Examples
    --------
    >>> from nextpert._adata.html import in_one_direction
    >>> print(in_one_direction("MYC\u202e next"))
    MYC\u202e next
    """
    return text.translate(_TURNING)


def card(title: str, facts: Mapping[str, str], more: str = "") -> str:
    """Return a title with one line a fact, as HTML; empty facts are left out.

    No colour is set but by what surrounds it, so that it suits a dark notebook, too.

    Parameters
    ----------
    title, facts
        Plain text, escaped here.
    more
        HTML to stand below.

    Examples
    --------
    >>> from nextpert._adata.html import card
    >>> "<td>A &lt; B</td>" in card("Target", {"State": "A < B", "Shares": ""}).replace(
    ...     ' style="text-align:left"', ""
    ... )
    True
    """
    left = 'style="text-align:left"'
    rows = "".join(
        f'<tr><th scope="row" {left}>{escape(name)}</th><td {left}>{escape(said)}</td></tr>'
        for name, said in facts.items()
        if said
    )
    box = "border:1px solid;border-color:color-mix(in srgb,currentColor 25%,transparent)"
    return in_one_direction(
        f'<div style="{box};border-radius:6px;padding:.5em .9em;display:inline-block;'
        f'box-sizing:border-box;max-width:100%;overflow-x:auto"><strong>{escape(title)}</strong>'
        f"<table>{rows}</table>{more}</div>"
    )
