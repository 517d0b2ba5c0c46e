"""The choices that both ways of preparing a screen share, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert.core._checks import require_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

COMBINATIONS = ("drop", "keep", "panel_only")
OUTSIDE = ("drop", "keep")


@dataclass(frozen=True)
class ScreenOptions:
    """Choices of :func:`nextpert.pp.perturbation_screen`, under the same names.

    Parameters
    ----------
    kinds
        What the matrix may hold besides counts: ``"log_tpm"`` or ``"none"`` (as it is).
    """

    panel: str | Iterable[str] | None
    aliases: Mapping[str, str] | None
    min_cells: int
    combinations: str
    outside: str
    separator: str
    min_seen: float
    normalise: str
    target_sum: float | str
    depth_key: str | None
    min_depth: float
    layer: str | None
    kinds: str = "none"
    check_scale: bool = True
    gene_symbols: str | None = None

    def check(self) -> None:
        """Raise if a choice is unknown or out of range."""
        known = {
            "combinations": (self.combinations, COMBINATIONS),
            "outside": (self.outside, OUTSIDE),
            "normalise": (
                self.normalise,
                tuple(dict.fromkeys(["auto", "counts", self.kinds, "none"])),
            ),
        }
        for name, (value, allowed) in known.items():
            require_known(name, value, allowed)
        require_count(self.min_cells, "min_cells", least=0)
        if not self.separator or not isinstance(self.separator, str):
            message = f"separator must be a non-empty string, but is {self.separator!r}."
            raise ValueError(message)
        if not 0 <= self.min_seen <= 1:
            message = f"min_seen must be a share between 0 and 1, but is {self.min_seen!r}."
            raise ValueError(message)
        if isinstance(self.target_sum, str):
            require_known("target_sum", self.target_sum, ("median", "a number above 0"))
        elif not np.isfinite(self.target_sum) or self.target_sum <= 0:
            message = f"target_sum must be above 0, or 'median', but is {self.target_sum!r}."
            raise ValueError(message)
        if not np.isfinite(self.min_depth) or self.min_depth < 0:
            message = f"min_depth must be a number of 0 or more, but is {self.min_depth!r}."
            raise ValueError(message)

    def params(self) -> dict[str, Any]:
        """Return the choices as they are stored."""
        chosen: dict[str, Any] = {
            "panel": self.panel if isinstance(self.panel, str) else "genes seen",
            "min_cells": int(self.min_cells),
            "combinations": self.combinations,
            "outside": self.outside,
            "separator": self.separator,
            "min_depth": float(self.min_depth),
        }
        if self.panel is None:
            chosen["min_seen"] = float(self.min_seen)
        elif not isinstance(self.panel, str):
            chosen["panel"] = "list"
        if self.layer is not None:
            chosen["layer"] = self.layer
        if self.gene_symbols is not None:
            chosen["gene_symbols"] = self.gene_symbols
        return chosen


def require_known(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    """Raise unless an option is one of the words allowed."""
    if not isinstance(value, str) or value not in allowed:
        close = _adata.closest([str(value)], allowed)
        message = f"{name} must be one of {', '.join(allowed)}, but is {value!r}.{close}"
        raise ValueError(message)
