"""What a row of the table is: its work, its peer, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Work:
    """What a row runs. ``ours`` and ``peer`` take the number of the run and return a result.

    ``report`` gets the results of both sides and returns a remark and whether they agree with
    what the row demands. ``setup_peer`` makes what only the peer holds; ``peer_once`` stands for
    ``peer`` where its memory is measured and one whole run takes too long.
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
class Goal:
    """What a row is to reach; ``None``: nothing is asked."""

    faster: float | None = None  # times, peer over ours
    seconds: float | None = None
    megabytes: float | None = None  # in all
    also: str = ""  # what the row's own report checks

    def __str__(self) -> str:
        parts = []
        if self.faster is not None:
            parts.append(
                f"≥ {self.faster:,.0f}x" if self.faster >= 1 else f"within {1 / self.faster:.0f}x"
            )
        if self.seconds is not None:
            unit = (1e3, "ms") if self.seconds < 1 else (1, "s")
            parts.append(f"< {self.seconds * unit[0]:g} {unit[1]}")
        if self.megabytes is not None:
            parts.append(f"< {self.megabytes:g} MB")
        return ", ".join([*parts, *([self.also] if self.also else [])])


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
    file: bool = False  # works on a file in the scratch folder
    goal: Goal = field(default_factory=Goal)

    @property
    def absent(self) -> bool:
        """Whether the peer is not installed."""
        return bool(self.module) and find_spec(self.module) is None

    def work(self, *, quick: bool, scratch: str) -> Work:
        """Set the work up."""
        module, function = self.make.split(":")
        return getattr(import_module(f"benchmarks.{module}"), function)(
            **self._arguments(quick, scratch)
        )

    def prepare(self, *, quick: bool, scratch: str) -> None:
        """Write the files the row works on, at its size and at the size of the warm-up."""
        module = import_module(f"benchmarks.{self.make.split(':')[0]}")
        for size in {quick, True}:
            module.screen_file(**self._arguments(size, scratch))

    def _arguments(self, quick: bool, scratch: str) -> dict[str, Any]:
        return (self.quick if quick else self.full) | ({"scratch": scratch} if self.file else {})
