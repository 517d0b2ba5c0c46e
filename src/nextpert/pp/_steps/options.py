"""The choices that both ways of preparing a screen share, and their checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
