"""Types of options: text of the command line as numbers and words, or an error that says why."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def number(text: str) -> float:
    """Return a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        message = f"must be a number, but is {text!r}"
        raise argparse.ArgumentTypeError(message)
    return value


def share(text: str) -> float:
    """Return a number of at least 0, below 1."""
    value = number(text)
    if not 0 <= value < 1:
        message = f"must lie between 0 and 1, but is {text}"
        raise argparse.ArgumentTypeError(message)
    return value


def level(text: str) -> float:
    """Return a number between 0 and 1, both excluded."""
    value = number(text)
    if not 0 < value < 1:
        message = f"must lie between 0 and 1, both excluded, but is {text}"
        raise argparse.ArgumentTypeError(message)
    return value


def positive(text: str) -> float:
    """Return a number above 0."""
    value = number(text)
    if value <= 0:
        message = f"must be above 0, but is {text}"
        raise argparse.ArgumentTypeError(message)
    return value


def scale(text: str) -> str | float:
    """Return a scale, or the word that learns it."""
    return text if text == "evidence" else positive(text)


def shift(text: str) -> str:
    """Return a word for a shift, or the name of a table."""
    if text not in ("knockout", "activation") and not text.endswith(".csv"):
        message = f"must be knockout, activation or a FILE.csv, but is {text!r}"
        raise argparse.ArgumentTypeError(message)
    return text


def shift_sd(text: str) -> str | float:
    """Return the word that learns how far shifts are believed, or 0."""
    if text == "learned":
        return text
    if number(text) != 0:
        message = f"must be learned or 0, but is {text!r}"
        raise argparse.ArgumentTypeError(message)
    return 0.0


def jobs(text: str) -> int:
    """Return a number of workers."""
    value = whole(-1)(text)
    if value == 0:
        message = "must be a number of threads, or -1 for all processors, but is 0"
        raise argparse.ArgumentTypeError(message)
    return value


def whole(least: int) -> Callable[[str], int]:
    """Return what reads a whole number of at least ``least``."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            message = f"must be a whole number of at least {least}, but is {text!r}"
            raise argparse.ArgumentTypeError(message)
        return value

    return read
