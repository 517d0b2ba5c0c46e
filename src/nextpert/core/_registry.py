"""What is chosen by name: every file of a folder registers itself, once a name is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = TypeVar("Kind")


class Registry(Generic[Kind]):
    """Objects by name, each registered by a file of one folder.

    Parameters
    ----------
    folder
        The package whose files register themselves, such as
        ``"nextpert.core.causal.acquisitions"``.
    what
        The kind of object, with its article, for messages.

    Examples
    --------
    >>> from nextpert.core._registry import Registry
    >>> colours = Registry("nextpert.core.graph", "a colour")
    >>> colours.add("red", 1), colours.every()
    (1, {'red': 1})
    """

    def __init__(self, folder: str, what: str) -> None:
        self.folder, self.what = folder, what
        self._known: dict[str, Kind] = {}

    def add(self, name: str, kind: Kind) -> Kind:
        """Register something under a name, and return it.

        What is run again, as in a notebook, takes its own place.
        """
        if not str(getattr(kind, "__module__", "")).startswith(self.folder):
            # A name of the folder's is refused here, not where it is asked for first.
            self.every()
        before = self._known.get(name, kind)
        names = [getattr(each, "__qualname__", str(each)) for each in (before, kind)]
        if names[0] != names[1]:
            message = f"There is {self.what} {name!r} already ({names[0]}): choose another name."
            raise ValueError(message)
        self._known[name] = kind
        return kind

    def named(self, name: str) -> Callable[[Any], Any]:
        """Return a decorator that registers a class under a name, which the class then has."""

        def register(kind: Any) -> Any:
            self.add(name, kind)
            kind.name = name
            return kind

        return register

    def find(self, name: str) -> Kind | None:
        """Return what has a name; the folder is read only for one that is not known yet."""
        return self._known[name] if name in self._known else self.every().get(name)

    def every(self) -> dict[str, Kind]:
        """Return all that is registered by name, sorted, after every file of the folder has run."""
        for module in iter_modules(import_module(self.folder).__path__, f"{self.folder}."):
            if module.name not in sys.modules:  # also a file that was put there a moment ago
                import_module(module.name)
        return dict(sorted(self._known.items()))
