"""Sums as a tree whose shape only the number of parts fixes, part after part or by tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


class PairwiseSum(Generic[T]):
    """Parts added one after the other, as a tree; ``log2`` of their number are held at a time.

    Parameters
    ----------
    empty
        The sum of no parts.
    add
        Adds two sums, the earlier first.
    """

    def __init__(self, empty: T, add: Callable[[T, T], T]) -> None:
        self._levels: list[T | None] = []
        self._empty, self._add = empty, add

    def add(self, part: T) -> None:
        """Add the next part."""
        for level, held in enumerate(self._levels):
            if held is None:
                self._levels[level] = part
                return
            part = self._add(held, part)
            self._levels[level] = None
        self._levels.append(part)

    def total(self) -> T:
        """Return the sum of all parts added."""
        total: T | None = None
        for held in self._levels:  # the later parts lie at the lower levels
            if held is not None:
                total = held if total is None else self._add(held, total)
        return self._empty if total is None else total


def tree(parts: Sequence[T], add: Callable[[T, T], T]) -> T:
    """Return the sum of some parts, at least one, in the shape of :class:`PairwiseSum`."""
    level = list(parts)
    while len(level) > 1:
        pairs = [add(level[k], level[k + 1]) for k in range(0, len(level) - 1, 2)]
        level = pairs + level[len(pairs) * 2 :]
    return level[0]
