"""Numbers as the page shows them."""

from __future__ import annotations

import math
from typing import Any

NOTHING = "–"


def number(value: Any, digits: int = 3) -> str:
    """Return a number in a few digits; a dash where there is none.

    Examples
    --------
    >>> from nextpert._report.numbers import number
    >>> number(0.5), number(123.4), number(12345.6), number(float("nan")), number(0.0)
    ('0.500', '123', '12,346', '–', '0')
    """
    value = float(value)
    if math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if value else "0"


def count(value: Any) -> str:
    """Return a whole number with commas."""
    value = float(value)
    return f"{value:,.0f}" if math.isfinite(value) else number(value)


def share(value: Any) -> str:
    """Return a ratio of distances in per cent.

    Examples
    --------
    >>> from nextpert._report.numbers import share
    >>> share(0.004), share(0.99999), share(12.3)
    ('< 1 %', '100 %', '1,230 %')
    """
    value = 100 * float(value)
    if not math.isfinite(value):
        return number(value)
    return "< 1 %" if 0 < value < 1 else f"{value:,.0f} %"


def percent(value: Any) -> str:
    """Return a probability in per cent, for sentences: by draws, none is certain.

    Examples
    --------
    >>> from nextpert._report.numbers import percent
    >>> percent(0.004), percent(0.52), percent(1.0), percent(0.0)
    ('below 1 %', '52 %', 'above 99 %', 'below 1 %')
    """
    value = 100 * float(value)
    if not math.isfinite(value):
        return number(value)
    if value < 1:
        return "below 1 %"
    return "above 99 %" if value > 99 else f"{value:.0f} %"


def chance(value: Any) -> str:
    """Return the same for tables.

    Examples
    --------
    >>> from nextpert._report.numbers import chance
    >>> chance(0.004), chance(0.52), chance(1.0)
    ('< 1 %', '52 %', '> 99 %')
    """
    return percent(value).replace("below", "<").replace("above", ">")


def between(value: Any, low: Any, high: Any) -> str:
    """Return a number with its interval.

    Examples
    --------
    >>> from nextpert._report.numbers import between
    >>> between(0.5, 0.25, 1.0), between(float("nan"), 0.0, 1.0)
    ('0.500 (0.25 to 1.0)', '–')
    """
    if math.isnan(float(value)):
        return NOTHING
    return f"{number(value)} ({number(low, 2)} to {number(high, 2)})"


def rate(value: Any) -> str:
    """Return a small probability.

    Examples
    --------
    >>> from nextpert._report.numbers import rate
    >>> rate(1e-9), rate(0.0421)
    ('below 0.001', '0.042')
    """
    return "below 0.001" if float(value) < 0.001 else number(value, 2)
