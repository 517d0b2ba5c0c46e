"""Conversion of the cells that a plan needs into the cells to load (equations 37 to 40)."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammainc

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)  # quadrature over a normal variable
_MAX_SEARCHED_CELLS = 1e12  # upper end of the search for a number of cells
_MAX_CELLS = 1e9  # more than all published screens together


def share_single(moi: float) -> float:
    """Return the fraction of transduced cells with one construct (equation 37).

    Constructs per cell are Poisson with mean ``moi``, and cells without a construct are removed by
    selection.

    Examples
    --------
    >>> from nextpert.core.design.loading import share_single
    >>> round(share_single(0.3), 3)
    0.857
    """
    return float(moi / np.expm1(moi))


def abundance_cv(n_cells: ArrayLike) -> float:
    """Return the coefficient of variation of the abundance of constructs in a library.

    It is the standard deviation of the counts beyond Poisson sampling, divided by their mean; 0 if
    the counts vary no more than Poisson counts.

    Examples
    --------
    >>> from nextpert.core.design.loading import abundance_cv
    >>> abundance_cv([100, 100, 100]), round(abundance_cv([50, 100, 150]), 2)
    (0.0, 0.49)
    """
    counts = np.asarray(n_cells, np.float64)
    if len(counts) < 2 or counts.mean() <= 0:
        return 0.0
    beyond = counts.var(ddof=1) - counts.mean()
    return float(np.sqrt(max(beyond, 0.0)) / counts.mean())


def share_reached(n_cells: float, share: ArrayLike, min_cells: ArrayLike, cv: ArrayLike) -> float:
    """Return the expected share of perturbations with enough of ``n_cells`` cells (equation 38).

    ``share`` is the intended share of the assigned cells for each perturbation, ``(n,)``;
    ``min_cells`` is the number of cells that it needs, and ``cv`` the coefficient of variation of
    its (log-normal) abundance, each a number or an array over perturbations.
    """
    sd = np.sqrt(np.log1p(np.square(np.asarray(cv, np.float64))))[..., None]
    mean = n_cells * np.asarray(share, np.float64)[:, None] * np.exp(sd * _NODES - sd**2 / 2)
    # The probability that a Poisson variable is at least a number is an incomplete gamma function.
    reached = gammainc(np.broadcast_to(np.asarray(min_cells, np.float64), len(mean))[:, None], mean)
    return float((reached @ _WEIGHTS).mean() / _WEIGHTS.sum())


def cells_to_reach(reach: float, share: ArrayLike, min_cells: ArrayLike, cv: ArrayLike) -> float:
    """Return the assigned cells with which a share ``reach`` of perturbations has enough cells.

    The other parameters are those of :func:`share_reached`.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.design.loading import cells_to_reach
    >>> share = np.full(10, 0.1)
    >>> [round(cells_to_reach(0.9, share, 20, cv)) for cv in (0.0, 0.5)]
    [259, 426]
    """

    def short(log_cells: float) -> float:
        return share_reached(np.exp(log_cells), share, min_cells, cv) - reach

    return float(np.exp(brentq(short, 0.0, np.log(_MAX_SEARCHED_CELLS), xtol=1e-6)))


class Lanes(NamedTuple):
    """Equally loaded lanes of a droplet instrument.

    ``n`` is the number of lanes. Per lane, ``captured`` is the number of cells in droplets,
    ``barcodes`` that of droplets with cells (which software counts as cells), and ``singles`` that
    of droplets with exactly one cell.
    """

    n: int
    captured: float
    barcodes: float
    singles: float


def lanes_for(
    n_cells: float, usable: float, *, droplets: float, max_captured: float, of_barcodes: bool
) -> Lanes:
    """Return the smallest number of lanes for ``n_cells`` usable cells, and the load of each.

    See equation 39 of :doc:`/model/mathematics`.

    Cells fall into droplets at random: with ``x`` cells per droplet on average, a share ``1 -
    exp(-x)`` of ``droplets`` has cells and ``x exp(-x)`` has one. ``usable`` is the share of usable
    cells among droplets with one cell; or, with ``of_barcodes``, among all droplets with cells,
    doublets included, as measured in a screen. At most ``max_captured`` cells are captured in a
    lane.

    Examples
    --------
    >>> from nextpert.core.design.loading import lanes_for
    >>> lanes = lanes_for(7_000, 0.7, droplets=57_000, max_captured=10_000, of_barcodes=False)
    >>> lanes.n, round(lanes.captured), round(float(1 - lanes.singles / lanes.barcodes), 3)
    (2, 5507, 0.048)
    """

    def lane(captured: float) -> tuple[float, float]:
        x = captured / droplets
        return -droplets * np.expm1(-x), captured * np.exp(-x)

    def found(captured: float) -> float:
        return usable * lane(captured)[0 if of_barcodes else 1]

    # Above one cell per droplet, more cells give fewer singles.
    max_captured = min(max_captured, droplets)
    n = max(int(np.ceil(n_cells / found(max_captured) - 1e-9)), 1)
    captured = (
        brentq(lambda x: found(x) - n_cells / n, 0.0, max_captured)
        if found(max_captured) * n > n_cells
        else max_captured
    )
    return Lanes(n, captured, *lane(captured))


def most_within(budget: float, cost: Callable[[int], float]) -> int:
    """Return the largest number of cells that a budget pays for, 0 if it pays for none.

    The function ``cost`` must not decrease with the number of cells, and must exceed the budget for
    some number.

    Examples
    --------
    >>> from nextpert.core.design.loading import most_within
    >>> most_within(100, lambda n: 30 + 2 * n), most_within(100, lambda n: 101 + n)
    (35, 0)

    Raises
    ------
    ValueError
        If the budget pays for more than a billion cells.
    """
    upper = 1
    while cost(upper) <= budget:
        upper *= 2
        if upper > _MAX_CELLS:
            message = (
                f"{budget:,g} pays for more than {_MAX_CELLS:,.0f} cells at these prices: check "
                f"prices and budget."
            )
            raise ValueError(message)
    # The budget is known to cover half of ``upper``.
    return bisect_left(range(1, upper), True, lo=upper // 2, key=lambda n: cost(n) > budget)
