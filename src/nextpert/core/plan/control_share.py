"""How many of a plate's cells should be controls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._checks import as_nodes, require_positive
from nextpert.core.acquisition._uncertain_between import average_weights
from nextpert.core.plan._plate_criterion import PlateCriterion
from nextpert.core.plan.allocation import allocate, read_limits
from nextpert.core.posterior.pair_shifts import pair_shifts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.goal import Goal


class ControlShare(NamedTuple):
    """Shares of control cells that are best, and what cells are expected to remove with each.

    ``learning`` is best for learning the way, ``differences`` for differences to the controls.
    ``removed`` is the share of CIV that the plate is expected to remove with the first of them,
    ``removed_without`` with no controls, ``removed_differences`` with the second.
    """

    learning: float
    differences: float
    removed: float
    removed_without: float
    removed_differences: float


def control_share(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    n_cells: float,
    chosen: Iterable[int],
    *,
    seen: float = 0.0,
    weights: ArrayLike | None = None,
    gap_cells: float | None = None,
) -> ControlShare:
    """Return which share of a plate's cells should be controls, for two ends.

    To learn the way, controls are one more candidate: its shift is known to be nothing, so that its
    cells teach intercepts and weights alone, and it counts for nothing in the average. Its cells
    and those of the candidates chosen are split together (:func:`allocate_cells`).

    Where effects are read as differences between the means of perturbed cells and of controls, the
    error of the controls is in each of them. ``k`` perturbations of ``n`` cells each and ``m``
    controls have the variance ``1/n + 1/m`` in units of a cell's, which is least for
    ``m = sqrt(k) n`` (Dunnett 1955, doi:10.2307/2281208), control cells seen before included.
    The model itself takes no differences: where cells of a perturbation are many, it believes
    their mean.

    Parameters
    ----------
    posterior, shifts, target, n_cells, weights, gap_cells
        As in :func:`allocate_cells`; controls are none of the shifts.
    chosen
        Indices of the candidates on the plate.
    seen
        Control cells seen before with which cells of this plate may be compared; 0 where batches
        differ.

    Raises
    ------
    ValueError
        If no candidate is chosen, or posteriors, shifts and target do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.plan.control_share import control_share
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0)
    >>> known = ShiftPosterior.exact(np.zeros((5, 2)))
    >>> known = ShiftPosterior(known.n, known.mean, known.prior, known.share, known.spare + 1)
    >>> share = control_share(blr, known, [1.0, 1.0], 100, [0, 1, 2, 3])
    >>> round(share.differences, 3)
    0.333
    """
    pairs = pair_shifts(posterior, shifts)
    size = pairs[0][1].n_perturbations
    place = as_nodes(chosen, size, "chosen")
    if not place or len(set(place)) < len(place):
        message = "Candidates on the plate must be at least one, each named once (chosen)."
        raise ValueError(message)
    total = require_positive(n_cells, "n_cells")
    criterion = PlateCriterion(
        [blr for blr, _ in pairs], [_with_controls(known) for _, known in pairs], target,
        total, gap_cells=gap_cells, weights=np.append(average_weights(weights, size), 0.0),
    )  # fmt: skip

    def split(least: float, most: float) -> tuple[float, float]:
        low, high = np.zeros(size + 1), np.zeros(size + 1)
        high[place], low[-1], high[-1] = total, least, most
        found = allocate(criterion, read_limits(size + 1, total, None, low, high), 1e-6)
        return float(found.cells[-1]) / total, found.removed

    differences = dunnett_controls(total, len(place), seen)
    learning, removed = split(0.0, total)
    _, without = split(0.0, 0.0)
    _, between = split(differences, differences)
    return ControlShare(learning, differences / total, removed, without, between)


def dunnett_controls(total: float, k: int, seen: float = 0.0) -> float:
    """Return the control cells beside those seen that make ``k`` differences most precise.

    Each mean is of ``n`` cells and that of the controls of ``sqrt(k) n`` (Dunnett 1955).

    Examples
    --------
    >>> from nextpert.core.plan.control_share import dunnett_controls
    >>> dunnett_controls(1200, 4)
    400.0
    """
    return float(max((total + seen) * k**0.5 / (k + k**0.5) - seen, 0.0))


def _with_controls(known: ShiftPosterior) -> ShiftPosterior:
    """Return the candidates and, as the last of them, the controls: no shift, for sure."""

    def longer(values: ArrayLike) -> np.ndarray:
        rows = np.asarray(values, dtype=np.float64)
        return np.concatenate([rows, np.zeros_like(rows[:1])])

    return replace(
        known,
        n=longer(known.n),
        mean=longer(known.mean),
        prior=longer(known.prior),
        share=longer(known.share),
        spare=longer(known.spare),
        effect=None if known.effect is None else longer(known.effect),
        components=None,
        fixed=None if known.fixed is None else longer(known.fixed),
    )
