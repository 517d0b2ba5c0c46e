"""What a section of the page is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextpert._report.plate import Plate
    from nextpert._report.tables import Table


@dataclass(frozen=True)
class Figure:
    """A picture in the page: the link that holds it, and what it shows in words."""

    link: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A section, from top to bottom: words, plate maps, figures, tables, plain text.

    Parameters
    ----------
    name, title
        Its identifier and heading.
    words
        Paragraphs.
    plates, legend
        Maps of plates, and sign and words of every aim on them.
    figures, tables
        Pictures and tables.
    code
        Text to show letter by letter, such as a command.
    """

    name: str
    title: str
    words: Sequence[str] = ()
    plates: Sequence[Plate] = ()
    legend: Sequence[tuple[str, str, str]] = ()
    figures: Sequence[Figure] = ()
    tables: Sequence[Table] = field(default_factory=list)
    code: str = ""
