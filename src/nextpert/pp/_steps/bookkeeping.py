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
    from collections.abc import Iterable

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
    """Choices of :func:`nextpert.pp.perturbation_screen`, its options under the same names.

    Parameters
    ----------
    labels, counts
        Its ``label_options`` and ``count_options``.
    kinds
        What the matrix may hold besides counts: ``"log_tpm"`` or ``"none"`` (as it is).
    """

    panel: str | Iterable[str] | None
    min_cells: int
    combinations: str
    labels: Any
    counts: CountOptions
    layer: str | None
    kinds: str = "none"
    gene_symbols: str | None = None
    separator: str = "+"

    def params(self) -> dict[str, Any]:
        """Return the choices as they are stored."""
        panel = self.panel if isinstance(self.panel, str) else "list"
        chosen: dict[str, Any] = {
            "panel": "genes seen" if self.panel is None else panel,
            "min_cells": int(self.min_cells),
            "combinations": self.combinations,
            "outside": self.labels.outside,
            "separator": self.separator,
            "min_depth": float(self.counts.min_depth),
            "min_seen": float(self.counts.min_seen) if self.panel is None else None,
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

    def keep(
        self, step: str, keep: NDArray[np.bool_], why: str, names: NDArray[Any] | None = None
    ) -> None:
        """Keep those alone; ``why`` says why the others go, ``names`` what each is, to count."""
        gone = self.kept & ~keep
        self.kept = self.kept & keep
        if names is not None:
            why += tally(names[gone])
        self._note(step, int(gone.sum()), why if gone.any() else "")

    def table(self) -> pd.DataFrame:
        """Return one row per step: ``step``, ``n_cells_kept``, ``n_cells_dropped``, ``why``."""
        columns = ["step", f"n_{self._what}_kept", f"n_{self._what}_dropped", "why"]
        table = pd.DataFrame(self._rows, columns=columns, index=np.arange(len(self._rows)))
        return table.assign(step=strings(table["step"]), why=strings(table["why"]))

    def _note(self, step: str, n_dropped: int, why: str) -> None:
        n_kept = int(self.kept.sum())
        self._rows.append((step, n_kept, n_dropped, why))
        logger.info(
            "%s: %d %s kept, %d dropped%s",
            step, n_kept, self._what, n_dropped, why and f" ({why})",
        )  # fmt: skip


def tally(names: Any, limit: int = 6) -> str:
    """Return ``"multi 2255, unassigned 662"``: how often each name comes, the most first."""
    counts = pd.Series(names, dtype=object).value_counts(sort=True)
    shown = ", ".join(f"{name} {count}" for name, count in counts.iloc[:limit].items())
    return shown + (f" and {len(counts) - limit} more labels" if len(counts) > limit else "")
