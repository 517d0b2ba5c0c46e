"""CIV after the cells of a plate, any number of each candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_vector, require_positive
from nextpert.core.acquisition.uncertain_civ import CivAfter, UncertainCiv

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]


class PlateCiv(UncertainCiv):
    """CIV, above its floor of noise alone, as a function of the cells of every candidate.

    The criterion of :class:`~nextpert.core.acquisition.uncertain_civ.UncertainCiv`, noise-aware,
    after any cells of any candidates. Over several graphs it is the mean of theirs by their
    weights; what lies between graphs is not convex in the cells and is left out.

    Parameters
    ----------
    posterior, shifts, target, weights
        As in :class:`~nextpert.core.acquisition.uncertain_civ.UncertainCiv`.
    gap_cells
        Cells of the mean whose gap counts, those of a well.
    pending
        Cells under way, shape ``(n_candidates,)``, counted as if measured.

    Raises
    ------
    ValueError
        If posteriors, shifts and target do not fit together, or a number is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.plan.plate_civ import PlateCiv
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> known = ShiftPosterior.exact([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> civ = PlateCiv(blr, known, [1.0, 0.0], gap_cells=20)
    >>> civ.removed_by_wells([0, 2], [15, 5]).round(3).tolist()
    [0.99, 0.991]
    """

    def __init__(
        self,
        posterior: DagBlr | Sequence[DagBlr],
        shifts: ShiftPosterior | Sequence[ShiftPosterior],
        target: ArrayLike | Goal,
        *,
        gap_cells: float,
        weights: ArrayLike | None = None,
        pending: ArrayLike | None = None,
    ) -> None:
        require_positive(gap_cells, "gap_cells")
        super().__init__(
            posterior, shifts, target, n_cells=gap_cells, noise_aware=True, weights=weights, rng=0
        )
        self.pending = np.zeros(self.size)
        if pending is not None:
            self.pending = as_vector(pending, self.size, "pending")
            if self.pending.min() < 0:
                message = "Cells under way (pending) must be 0 or more."
                raise ValueError(message)

    def after(self, cells: ArrayLike, total: float | None = None) -> CivAfter:
        """Return the criterion after ``cells`` of every candidate, and those under way.

        The scatter of ``total`` cells is counted, by default of as many as there are.
        """
        given = as_vector(cells, self.size, "cells")
        n_cells = given.sum() if total is None else total
        return super().after(given + self.pending, float(n_cells + self.pending.sum()))

    def gain(self, chosen: Sequence[int], each: float) -> Callable[[Index], Vector]:
        """Return what ``each`` cells of any candidate take from the criterion, those chosen given.

        A function of the indices of candidates, as :func:`greedy_plate` asks for it.
        """
        cells = np.zeros(self.size)
        cells[list(chosen)] = each
        found = self.after(cells, each * (len(chosen) + 1))
        return lambda candidates: -found.changes(candidates, each)

    def removed_by_wells(self, chosen: Sequence[int], cells: ArrayLike) -> Vector:
        """Return the share of the criterion that the first well removes, the first two and so on.

        What cells under way remove is counted too.
        """
        on_plate, removed = np.zeros(self.size), []
        for j, n in zip(chosen, as_vector(cells, len(chosen), "cells"), strict=True):
            on_plate[j] += n
            removed.append(self.after(on_plate).removed)
        return np.array(removed)
