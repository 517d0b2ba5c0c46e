"""How the cells of a plate are split among its wells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from nextpert.core._checks import require_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.acquisition.uncertain_civ import CivAfter
    from nextpert.core.plan.plate_civ import PlateCiv

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]


def allocate_cells(civ: PlateCiv, chosen: Sequence[int], n_cells: int, *, least: int = 1) -> Index:
    """Split the cells of a plate among the candidates chosen such that CIV is least.

    Parameters
    ----------
    civ
        The criterion.
    chosen
        Indices of candidates.
    n_cells
        Cells in all.
    least
        Least cells of a candidate.

    Returns
    -------
    ndarray
        Whole numbers of cells, shape ``(n_chosen,)``.

    Raises
    ------
    ValueError
        If the cells do not suffice.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.plan.allocation import allocate_cells
    >>> from nextpert.core.plan.plate_civ import PlateCiv
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> known = ShiftPosterior.exact([[2.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    >>> civ = PlateCiv(blr, known, [1.0, 0.0], gap_cells=20)
    >>> allocate_cells(civ, [0, 2], 20, least=5).tolist()
    [15, 5]
    """
    k = len(chosen)
    if require_count(least, "least") * k > require_count(n_cells, "n_cells"):
        message = f"{n_cells} cells do not suffice for {k} wells of {least}: give more cells."
        raise ValueError(message)
    cells = best_split(civ, chosen, n_cells, np.full(k, float(least)), np.full(k, float(n_cells)))
    # Whole numbers of the same total: the largest rests are rounded up.
    whole = np.floor(cells + 1e-9)
    whole[np.argsort(whole - cells, kind="stable")[: n_cells - int(whole.sum())]] += 1
    return whole.astype(np.int64)


def best_split(
    civ: PlateCiv, chosen: Sequence[int], n_cells: float, low: Vector, high: Vector
) -> Vector:
    """Return the cells, fractions allowed, that make CIV least within bounds, all (n_chosen,).

    CIV is convex in the cells, so sequential quadratic programming finds its one least value.
    """
    place = np.asarray(chosen, np.int64)

    def after(shares: Vector) -> CivAfter:
        cells = np.zeros(civ.size)
        cells[place] = n_cells * np.maximum(shares, 0.0)
        return civ.after(cells, n_cells)

    low, high = low / n_cells, np.minimum(high, n_cells) / n_cells
    start = low + (1 - low.sum()) * (high - low) / max((high - low).sum(), 1e-300)
    if len(place) < 2 or (low == high).all():
        return n_cells * start
    scale = after(start).value
    if not scale > 0:  # nothing to learn
        return n_cells * start
    found = minimize(
        lambda x: after(x).value / scale, start,
        jac=lambda x: after(x).slopes(place) * n_cells / scale,
        bounds=np.column_stack([low, high]), method="SLSQP",
        constraints={"type": "eq", "fun": lambda x: x.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-12, "maxiter": 200},
    ).x  # fmt: skip
    found = np.clip(found, low, high)
    # What rounding left of the total goes where there is room.
    room = high - found if found.sum() < 1 else found - low
    found = found + (1 - found.sum()) * room / max(room.sum(), 1e-300)
    return n_cells * (found if after(found).value < scale else start)
