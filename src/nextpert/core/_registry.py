"""A registry of objects by name; the files of a folder register theirs when a name is needed."""

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

    def __init__(self, folder: str, noun: str) -> None:
        self.folder, self.noun = folder, noun
        self._known: dict[str, Kind] = {}

    def add(self, name: str, kind: Kind) -> Kind:
        """Register an object under a name, and return it.

        A definition that runs again, as in a notebook, replaces the earlier one.
        """
        if not str(getattr(kind, "__module__", "")).startswith(self.folder):
            # Read the folder first, so that a name in use raises here and not at its first use.
            self.every()
        before = self._known.get(name, kind)
        names = [getattr(item, "__qualname__", str(item)) for item in (before, kind)]
        if names[0] != names[1]:
            message = f"There is {self.noun} {name!r} already ({names[0]}): choose another name."
            raise ValueError(message)
        self._known[name] = kind
        return kind

    def named(self, name: str) -> Callable[[Any], Any]:
        """Return a decorator that registers a class and sets its attribute ``name``."""

        def register(kind: Any) -> Any:
            self.add(name, kind)
            kind.name = name
            return kind

        return register

    def find(self, name: str) -> Kind | None:
        """Return the object with a name or None; the folder is read only for unknown names."""
        return self._known[name] if name in self._known else self.every().get(name)

    def every(self) -> dict[str, Kind]:
        """Import every file of the folder; return all registered objects, sorted by name."""
        for module in iter_modules(import_module(self.folder).__path__, f"{self.folder}."):
            if module.name not in sys.modules:  # also files that were added during the session
                import_module(module.name)
        return dict(sorted(self._known.items()))
