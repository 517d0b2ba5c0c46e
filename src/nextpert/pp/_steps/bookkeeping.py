"""What every step of a preprocessing keeps and drops, and why."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata import strings

if TYPE_CHECKING:
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class Bookkeeping:
    """The cells that are still in, and one row a step.

    Parameters
    ----------
    n_cells
        Number of cells at the start.

    Attributes
    ----------
    kept
        Whether each cell is still in, shape ``(n_cells,)``.
    """

    def __init__(self, n_cells: int) -> None:
        self.kept: NDArray[np.bool_] = np.ones(n_cells, dtype=bool)
        self._rows: list[tuple[str, int, int, str]] = []
        self._note("all cells", 0, "")

    def dropping(self, keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which cells a step would drop."""
        return self.kept & ~keep

    def keep(self, step: str, keep: NDArray[np.bool_], why: str) -> None:
        """Keep those cells alone; ``why`` says why the others go."""
        n_dropped = int(self.dropping(keep).sum())
        self.kept = self.kept & keep
        self._note(step, n_dropped, why if n_dropped else "")

    def table(self) -> pd.DataFrame:
        """Return one row a step: ``step``, ``n_cells_kept``, ``n_cells_dropped``, ``why``."""
        step, kept, dropped, why = zip(*self._rows, strict=True)
        return pd.DataFrame(
            {
                "step": strings(step),
                "n_cells_kept": np.array(kept, dtype=np.int64),
                "n_cells_dropped": np.array(dropped, dtype=np.int64),
                "why": strings(why),
            },
            index=pd.Index(np.arange(len(step))),
        )

    def _note(self, step: str, n_dropped: int, why: str) -> None:
        n_kept = int(self.kept.sum())
        self._rows.append((step, n_kept, n_dropped, why))
        logger.info("%s: %d cells kept, %d dropped%s", step, n_kept, n_dropped, why and f" ({why})")


def tally(names: pd.Series | NDArray[np.object_] | list[str], limit: int = 6) -> str:
    """Return ``"multi 2255, unassigned 662"``: how often each name comes, the most first."""
    counts = pd.Series(names, dtype=object).value_counts(sort=True)
    shown = ", ".join(f"{name} {count}" for name, count in counts.iloc[:limit].items())
    more = len(counts) - limit
    return shown + (f" and {more} more labels" if more > 0 else "")
