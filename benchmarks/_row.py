"""Rows of the table: the work of each, and its peer."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Work:
    """What a row runs. ``ours`` and ``peer`` take the number of the run and return a result.

    ``report`` gets the results of both sides and returns a remark, and whether ours is no worse.
    ``setup_peer`` makes what only the peer holds; ``peer_once`` stands for ``peer`` where its
    memory is measured and one whole run takes too long.
    """

    ours: Callable[[int], Any]
    peer: Callable[[int], Any] | None = None
    report: Callable[[list[Any], list[Any]], tuple[str, bool]] = lambda ours, peers: ("", True)
    setup_peer: Callable[[], object] = lambda: None
    peer_once: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Timed:
    """A result that brings its own time, where that is not the time of the call."""

    seconds: float
    result: Any


@dataclass(frozen=True)
class Row:
    """One piece of work: ``make`` (module:function) called with the arguments of its size."""

    name: str
    title: str
    make: str
    full: dict[str, Any]
    quick: dict[str, Any]
    peer: str = ""
    needs: str = ""  # distribution to install for the peer
    module: str = ""  # by which it is found
    repeats: int = 5
    peer_repeats: int = 5
    memory: bool = True

    @property
    def absent(self) -> bool:
        """Whether the peer is not installed."""
        return bool(self.module) and find_spec(self.module) is None

    def work(self, *, quick: bool) -> Work:
        """Set the work up."""
        module, function = self.make.split(":")
        make = getattr(import_module(f"benchmarks.{module}"), function)
        work: Work = make(**(self.quick if quick else self.full))
        return work
