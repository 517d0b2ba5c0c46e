"""Campaigns in plates over the real cells of a screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_count
from nextpert.core.cells.screen_moments import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.loop.cell_pool import CellPool, Deal
    from nextpert.core.loop.strategies import Strategy

    Index = NDArray[np.int64]


@dataclass(frozen=True)
class PlatesResult:
    """What one campaign in plates did, round by round.

    Parameters
    ----------
    chosen
        Perturbations on the plate of each round, shape ``(n_rounds, n_perturbations)``; -1 where
        too few have cells left.
    recommended
        Perturbation recommended after 0, 1, ... plates, shape ``(n_rounds + 1,)``.
    """

    chosen: Index
    recommended: Index


def replay_plates(
    pool: CellPool,
    deal: Deal,
    build: Callable[[Index], Strategy],
    *,
    candidates: ArrayLike | None = None,
    n_rounds: int = 10,
    n_perturbations: int = 4,
    n_cells: int = 10,
) -> PlatesResult:
    """Run a campaign: fill a plate, see its cells, recommend, and so on.

    The k-th cell drawn of a perturbation is fixed by ``deal``, so that strategies given the same
    deal see the same cells.

    Parameters
    ----------
    pool
        The cells.
    deal
        Order of the cells, from :meth:`CellPool.deal`.
    build
        Returns a strategy for candidates, given by their numbers in the pool.
    candidates
        Perturbations that may be proposed and recommended; all by default.
    n_rounds
        Number of plates.
    n_perturbations, n_cells
        Different perturbations on a plate, and cells of each. A perturbation gives the cells it
        has left; with none left it is proposed no more.

    Raises
    ------
    ValueError
        If there is no candidate, or a number is too small.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.loop.cell_pool import CellPool
    >>> from nextpert.core.loop.plates import replay_plates
    >>> from nextpert.core.loop.strategies import Means
    >>> rng = np.random.default_rng(0)
    >>> cells = [rng.normal(mean, size=(80, 9)) for mean in (0.0, 1.0, -1.0, 2.0)]
    >>> pool = CellPool(rng.normal(size=(200, 9)), cells)
    >>> deal = pool.deal(1, 100, rng=0)
    >>> def build(candidates):
    ...     return Means("means_in_turn", deal.target, pool.environments, candidates, rng)
    >>> result = replay_plates(pool, deal, build, n_rounds=3, n_perturbations=2)
    >>> result.chosen.shape, int(result.recommended[-1])
    ((3, 2), 1)
    """
    rounds = require_count(n_rounds, "n_rounds", least=0)
    size, batch = (
        require_count(n_perturbations, "n_perturbations"),
        require_count(n_cells, "n_cells"),
    )
    # In the order of the deal, so that the first of those that are alike is a random one.
    may = deal.first[np.isin(deal.first, _candidates(pool.n_perturbations, candidates))]
    run, told = build(may), pool.environments
    n_environments = len(told.group)
    screen = ScreenMoments.from_array(
        pool.control[deal.warmup], told.control[deal.warmup], n_environments
    )
    drawn, available = np.zeros(len(may), np.int64), np.array([len(deal.orders[j]) for j in may])
    chosen, recommended = np.full((rounds, size), -1), np.empty(rounds + 1, dtype=np.int64)
    for t in range(rounds + 1):
        run.see(screen)
        recommended[t] = may[run.recommend()]
        ready = np.flatnonzero(drawn < available)
        if t == rounds or not len(ready):
            recommended[t:] = recommended[t]
            break
        plate = run.plate(ready, min(size, len(ready)), batch)
        rows = [deal.orders[may[j]][drawn[j] : drawn[j] + batch] for j in plate]
        new = np.concatenate(rows)
        screen = screen + ScreenMoments.from_array(pool.cells[new], told.cells[new], n_environments)
        drawn[plate] += [len(each) for each in rows]
        chosen[t, : len(plate)] = may[plate]
    return PlatesResult(chosen, recommended)


def _candidates(n: int, candidates: ArrayLike | None) -> Index:
    may = np.arange(n) if candidates is None else np.asarray(candidates, dtype=np.int64)
    if may.ndim != 1 or len(may) == 0 or len(np.unique(may)) < len(may) or np.any(may < 0):
        message = "candidates must name at least one perturbation, each once, by its number."
        raise ValueError(message)
    if may.max() >= n:
        message = f"candidates holds {int(may.max())}, but the pool has {n} perturbations."
        raise ValueError(message)
    return may
