"""The options of preparing a screen, and what every step keeps and drops, and why."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import strings
from nextpert._adata.arguments import above, at_least, between, one_of, options

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray


COMBINATIONS = ("drop", "keep", "panel_only")
OUTSIDE = ("drop", "keep")


@options(
    min_seen=between(0, 1, inclusive=True), normalise=one_of("auto", "counts", "none"),
    target_sum=(one_of("median"), above(0)), min_depth=at_least(0),
)  # fmt: skip
@dataclass(frozen=True)
class CountOptions:
    """``count_options``: each is documented in :func:`nextpert.pp.perturbation_screen`."""

    min_seen: float = 0.1
    normalise: str = "auto"
    target_sum: float | str = "median"
    depth_key: str | None = None
    min_depth: float = 0.0
    check_scale: bool = True


@dataclass(frozen=True)
class ScreenOptions:
    """Choices of :func:`nextpert.pp.perturbation_screen`, all its options under the same names.

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
    unassigned: Sequence[str] = ()

    def params(self) -> dict[str, Any]:
        """Return the choices as they are stored."""
        panel = self.panel if isinstance(self.panel, str) else "list"
        chosen: dict[str, Any] = {
            "panel": "genes seen" if self.panel is None else panel,
            "min_cells": int(self.min_cells),
            "combinations": self.combinations,
            "outside": self.outside,
            "separator": self.separator,
            "min_depth": float(self.min_depth),
            "min_seen": float(self.min_seen) if self.panel is None else None,
            "layer": self.layer,
            "gene_symbols": self.gene_symbols,
        }
        return {name: value for name, value in chosen.items() if value is not None}


logger = logging.getLogger(__name__)


class Bookkeeping:
    """The cells, or genes, that are still in, and one row per step.

    Parameters
    ----------
    n
        Their number at the start.
    what
        ``"cells"`` or ``"genes"``.

    Attributes
    ----------
    kept
        Which are still in, shape ``(n,)``.
    """

    def __init__(self, n: int, what: str = "cells") -> None:
        self.kept: NDArray[np.bool_] = np.ones(n, dtype=bool)
        self._what = what
        self._rows: list[tuple[str, int, int, str]] = []
        self._note(f"all {what}", 0, "")

    def dropping(self, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which a step would drop."""
        return self.kept & ~keep

    def keep(self, step: str, keep: NDArray[np.bool_], why: str) -> None:
        """Keep those alone; ``why`` says why the others go."""
        n_dropped = int(self.dropping(keep).sum())
        self.kept = self.kept & keep
        self._note(step, n_dropped, why if n_dropped else "")

    def table(self) -> pd.DataFrame:
        """Return one row per step: ``step``, ``n_cells_kept``, ``n_cells_dropped``, ``why``."""
        step, kept, dropped, why = zip(*self._rows, strict=True)
        return pd.DataFrame(
            {
                "step": strings(step),
                f"n_{self._what}_kept": np.array(kept, dtype=np.int64),
                f"n_{self._what}_dropped": np.array(dropped, dtype=np.int64),
                "why": strings(why),
            },
            index=pd.Index(np.arange(len(step))),
        )

    def _note(self, step: str, n_dropped: int, why: str) -> None:
        n_kept = int(self.kept.sum())
        self._rows.append((step, n_kept, n_dropped, why))
        logger.info(
            "%s: %d %s kept, %d dropped%s",
            step, n_kept, self._what, n_dropped, why and f" ({why})",
        )  # fmt: skip


def tally(names: pd.Series | NDArray[np.object_] | list[str], limit: int = 6) -> str:
    """Return ``"multi 2255, unassigned 662"``: how often each name comes, the most first."""
    counts = pd.Series(names, dtype=object).value_counts(sort=True)
    shown = ", ".join(f"{name} {count}" for name, count in counts.iloc[:limit].items())
    more = len(counts) - limit
    return shown + (f" and {more} more labels" if more > 0 else "")
