"""Campaigns in plates over the real cells of a screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, require_count
from nextpert.core.cells.screen_moments import ScreenMoments
from nextpert.core.loop.strategies import build_strategy

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.graph.dag import Dag
    from nextpert.core.loop.cell_pool import CellPool, Deal

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
    dag: Dag,
    strategy: str = "best",
    *,
    candidates: ArrayLike | None = None,
    n_rounds: int = 10,
    n_perturbations: int = 4,
    n_cells: int = 10,
    rng: int | np.random.Generator | None = None,
) -> PlatesResult:
    """Run a campaign: fill a plate, see its cells, recommend, and so on.

    After every plate that candidate is recommended whose expected state is nearest to the target.
    The k-th cell drawn of a perturbation is fixed by ``deal``, so that strategies given the same
    deal see the same cells.

    Parameters
    ----------
    pool
        The cells.
    deal
        Target and order of the cells, from :meth:`CellPool.deal`.
    dag
        Graph of the model; one without arcs for shrinkage alone.
    strategy
        Name of the strategy, see :func:`~nextpert.core.loop.strategies.build_strategy`.
    candidates
        Perturbations that may be proposed and recommended; all by default.
    n_rounds
        Number of plates.
    n_perturbations, n_cells
        Different perturbations on a plate, and cells of each. A perturbation gives the cells it
        has left; with none left it is proposed no more.
    rng
        Seed or generator of the strategy.

    Raises
    ------
    ValueError
        For an unknown strategy or no candidate, or if a number is too small.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag
    >>> from nextpert.core.loop.cell_pool import CellPool
    >>> from nextpert.core.loop.plates import replay_plates
    >>> rng = np.random.default_rng(0)
    >>> cells = [rng.normal(mean, size=(80, 9)) for mean in (0.0, 1.0, -1.0, 2.0)]
    >>> pool = CellPool(rng.normal(size=(200, 9)), cells, np.zeros((4, 9)))
    >>> deal, empty = pool.deal(1, 100, rng=0), Dag.from_edges(9, [])
    >>> result = replay_plates(pool, deal, empty, n_rounds=3, n_perturbations=2, rng=0)
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
    run = build_strategy(strategy, deal.target, pool.full_shift[may], dag, batch, as_rng(rng))
    n_groups = len(may) + 1
    warmup = pool.control[deal.warmup]
    screen = ScreenMoments.from_array(warmup, np.zeros(len(warmup)), n_groups)
    drawn, available = np.zeros(len(may), np.int64), np.array([len(deal.orders[j]) for j in may])
    chosen, recommended = np.full((rounds, size), -1), np.empty(rounds + 1, dtype=np.int64)
    for t in range(rounds + 1):
        run.see(screen)
        recommended[t] = may[run.recommend()]
        ready = np.flatnonzero(drawn < available)
        if t == rounds or not len(ready):
            recommended[t:] = recommended[t]
            break
        plate = run.plate(ready, size)
        rows = [deal.orders[may[j]][drawn[j] : drawn[j] + batch] for j in plate]
        counts = [len(each) for each in rows]
        cells = pool.cells[np.concatenate(rows)]
        screen = screen + ScreenMoments.from_array(cells, np.repeat(plate + 1, counts), n_groups)
        drawn[plate] += counts
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
