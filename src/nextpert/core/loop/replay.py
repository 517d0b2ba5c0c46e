"""Campaigns over the real cells of a screen: a finite pool of perturbations, drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, as_vector, require_count, require_finite
from nextpert.core.acquisition.build_acquisition import build_acquisition
from nextpert.core.acquisition.domain.pool import Pool
from nextpert.core.cells.moments import Moments
from nextpert.core.cells.sample import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

NO_MODEL = "no_model"


@dataclass(frozen=True)
class Deal:
    """The order in which the cells of a :class:`CellPool` come up in one repeat.

    Parameters
    ----------
    warmup
        Rows of the control cells for the warm-up, shape ``(n_warmup,)``.
    orders
        For every perturbation, all of its rows in random order.
    """

    warmup: Index
    orders: list[Index]


class CellPool:
    """Real cells: controls, and those of every perturbation that may be proposed.

    Parameters
    ----------
    control
        Control cells, shape ``(n_control, n_nodes)``, units of the data.
    perturbed
        Cells of each perturbation, arrays of shape ``(n_cells_j, n_nodes)``.
    shifts
        The shift that stands for each perturbation, shape ``(n_perturbations, n_nodes)``.

    Raises
    ------
    ValueError
        If shapes do not fit, a perturbation has no cell, or a value is NaN or infinite.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.loop.replay import CellPool
    >>> rng = np.random.default_rng(0)
    >>> pool = CellPool(rng.normal(size=(50, 2)), [np.ones((9, 2)), np.zeros((5, 2))], np.eye(2))
    >>> pool.n_cells.tolist(), pool.means[0].tolist()
    ([9, 5], [1.0, 1.0])
    """

    def __init__(
        self, control: ArrayLike, perturbed: Sequence[ArrayLike], shifts: ArrayLike
    ) -> None:
        self.control = _cells(control, "The control cells")
        groups = [_cells(x, f"The cells of perturbation {j}") for j, x in enumerate(perturbed)]
        self.shifts = np.array(shifts, dtype=np.float64)
        widths = {self.control.shape[1], *(x.shape[1] for x in groups), *self.shifts.shape[1:]}
        if self.shifts.ndim != 2 or len(self.shifts) != len(groups) or len(widths) != 1:
            message = (
                f"{len(groups)} perturbations and controls of {self.control.shape[1]} nodes need "
                f"as many shifts, all of the same nodes, but theirs have shape {self.shifts.shape}."
            )
            raise ValueError(message)
        require_finite(self.shifts, "shifts")
        # One array rather than a list: workers then share its pages.
        self.cells = np.concatenate([np.empty((0, self.control.shape[1])), *groups])
        self.n_cells = np.array([len(x) for x in groups], dtype=np.int64)
        self.start = np.concatenate([[0], np.cumsum(self.n_cells)])
        self.means = np.array([x.mean(axis=0) for x in groups])
        self.control_mean = self.control.mean(axis=0)

    def deal(self, n_warmup: int, rng: int | np.random.Generator | None = None) -> Deal:
        """Shuffle the controls and the cells of every perturbation, each once.

        Raises
        ------
        ValueError
            If there are fewer than ``n_warmup`` control cells.
        """
        wanted = require_count(n_warmup, "n_warmup")
        if wanted > len(self.control):
            message = f"n_warmup is {wanted}, but there are {len(self.control)} control cells."
            raise ValueError(message)
        generator = as_rng(rng)
        warmup = generator.choice(len(self.control), wanted, replace=False)
        orders = [self.start[j] + generator.permutation(int(n)) for j, n in enumerate(self.n_cells)]
        return Deal(warmup, orders)


@dataclass(frozen=True)
class ReplayResult:
    """What one campaign over real cells did, round by round.

    Parameters
    ----------
    chosen
        Perturbation whose cells were drawn in each round, shape ``(n_rounds,)``; -1 where no
        candidate had cells left.
    recommended
        Perturbation recommended after 0, 1, ... rounds, shape ``(n_rounds + 1,)``.
    distance
        Squared distance of the mean of all cells of the recommended one to the target, shape
        ``(n_rounds + 1,)``, squared units of the data.
    """

    chosen: Index
    recommended: Index
    distance: Vector


def replay(
    pool: CellPool,
    posterior: DagBlr,
    target_mean: ArrayLike,
    criterion: str = "civ",
    *,
    deal: Deal,
    candidates: ArrayLike | None = None,
    n_rounds: int = 10,
    n_cells: int = 10,
    noise_aware: bool = False,
    rng: int | np.random.Generator | None = None,
) -> ReplayResult:
    """Run a campaign on real cells: propose a perturbation, draw cells of it, update.

    After each round the candidate is recommended whose mean is predicted nearest to the target,
    ``|(I - B)^-1 (c + a) - mu*|^2`` at the posterior mean, whatever the criterion that proposed
    (the replay of Zhang et al. 2023, Fig. 6c). The k-th cell drawn of a perturbation is fixed by
    ``deal``, so that criteria given the same deal see the same cells.

    Parameters
    ----------
    pool
        The cells.
    posterior
        The posterior after the warm-up cells of ``deal``; it is left as it is.
    target_mean
        The wanted mean, shape ``(n_nodes,)``, units of the data.
    criterion
        Name of the criterion, see :func:`build_acquisition`. Or ``"no_model"``, a baseline
        without a graph: the candidates are tried in random order, and the one is recommended
        whose mean is nearest: that of its cells seen so far, or else of the warm-up cells plus
        its shift (less what sampling adds to the distance).
    deal
        The order of the cells, from :meth:`CellPool.deal`.
    candidates
        Perturbations that may be proposed and recommended; all by default.
    n_rounds, n_cells
        Number of rounds, and of cells a round. A perturbation gives the cells it has left; with
        none left it is proposed no more.
    noise_aware
        Whether the look ahead counts the scatter of the cells to come; the paper's does not.
    rng
        Seed or generator of the criterion.

    Returns
    -------
    ReplayResult

    Raises
    ------
    ValueError
        For an unknown criterion, no candidate, or a target of the wrong length.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import DagBlr, Moments, random_scm
    >>> from nextpert.core.loop.replay import CellPool, replay
    >>> scm, rng = random_scm(4, rng=0), np.random.default_rng(0)
    >>> shifts = np.eye(4)
    >>> cells = [scm.sample(50, shift, rng=rng) for shift in shifts]
    >>> pool = CellPool(scm.sample(200, rng=rng), cells, shifts)
    >>> deal = pool.deal(100, rng=0)
    >>> warm = DagBlr(scm.dag).update(Moments.from_array(pool.control[deal.warmup]))
    >>> result = replay(pool, warm, pool.means[2], "civ", deal=deal, n_rounds=3)
    >>> result.recommended.shape, int(result.recommended[-1]), float(result.distance[-1])
    ((4,), 2, 0.0)
    """
    rounds, batch = require_count(n_rounds, "n_rounds", least=0), require_count(n_cells, "n_cells")
    target = as_vector(target_mean, posterior.n_nodes, "target_mean")
    may = _candidates(pool, candidates)
    generator = as_rng(rng)
    options = {"n_cells": batch, "noise_aware": noise_aware, "rng": generator}
    run: _NoModel | _Modelled
    if criterion == NO_MODEL:
        warmup = Sample.of(pool.control[deal.warmup])
        run = _NoModel(pool.shifts[may], warmup, target, generator)
    else:
        run = _Modelled(criterion, pool.shifts[may], posterior, target, options)
    left = pool.n_cells[may].copy()
    chosen, recommended = np.full(rounds, -1), np.empty(rounds + 1, dtype=np.int64)
    recommended[0] = may[run.recommend()]
    for t in range(rounds):
        ready = np.flatnonzero(left > 0)
        if len(ready):
            best = run.propose(ready)
            order, seen = deal.orders[may[best]], pool.n_cells[may[best]] - left[best]
            rows = order[seen : seen + batch]
            run.observe(best, pool.cells[rows])
            left[best] -= len(rows)
            chosen[t] = may[best]
        recommended[t + 1] = may[run.recommend()]
    distance = ((pool.means - target) ** 2).sum(axis=1)
    return ReplayResult(chosen, recommended, distance[recommended])


class _Modelled:
    """Propose by a criterion on the posterior, recommend by its predicted distance.

    Expected improvement has to beat the nearest mean of any earlier round's cells.
    """

    def __init__(
        self, criterion: str, shifts: Vector, posterior: DagBlr, target: Vector, options: dict
    ) -> None:
        self.criterion, self.domain, self.options = criterion, Pool(shifts), options
        self.posterior, self.target, self.is_own = posterior, target, False
        self.nearest = np.inf

    def propose(self, ready: Index) -> int:
        acquisition = build_acquisition(
            self.criterion, self.posterior, self.target,
            domain=self.domain, best=self.nearest, **self.options,
        )  # fmt: skip
        values = acquisition.values(self.domain.shifts[ready])
        return int(ready[np.argmin(values)])

    def observe(self, index: int, cells: Vector) -> None:
        shift, moments = self.domain.shifts[index], Moments.from_array(cells)
        self.posterior = self.posterior.update(moments, shift, inplace=self.is_own)
        self.is_own = True
        self.nearest = min(self.nearest, float(((moments.mean - self.target) ** 2).sum()))

    def recommend(self) -> int:
        reached = self.posterior.predict_mean(self.domain.shifts)
        return int(np.argmin(((reached - self.target) ** 2).sum(axis=1)))


class _NoModel:
    """Try the candidates in random order, recommend the nearest mean, seen or assumed."""

    def __init__(
        self, shifts: Vector, control: Sample, target: Vector, rng: np.random.Generator
    ) -> None:
        self.target, self.rng = target, rng
        self.seen = [Sample.of(np.empty((0, len(target)))) for _ in shifts]
        # Until it is tried, a candidate moves the control cells by its shift and no more.
        self.assumed = [control.distance(target - shift) for shift in shifts]

    def propose(self, ready: Index) -> int:
        counts = np.array([self.seen[j].n for j in ready])
        return int(self.rng.choice(ready[counts == counts.min()]))

    def observe(self, index: int, cells: Vector) -> None:
        self.seen[index] = self.seen[index] + Sample.of(cells)

    def recommend(self) -> int:
        distance = [
            cells.distance(self.target) if cells.n > 1 else assumed
            for cells, assumed in zip(self.seen, self.assumed, strict=True)
        ]
        return int(np.argmin(distance))


def _candidates(pool: CellPool, candidates: ArrayLike | None) -> Index:
    every = np.arange(len(pool.shifts))
    may = every if candidates is None else np.asarray(candidates, dtype=np.int64)
    if may.ndim != 1 or len(may) == 0 or len(np.unique(may)) < len(may) or np.any(may < 0):
        message = "candidates must name at least one perturbation, each once, by its number."
        raise ValueError(message)
    if may.max() >= len(every):
        message = f"candidates holds {int(may.max())}, but the pool has {len(every)} perturbations."
        raise ValueError(message)
    return may


def _cells(value: ArrayLike, what: str) -> Vector:
    cells = np.asarray(value, dtype=np.float64)
    if cells.ndim != 2 or len(cells) == 0:
        message = f"{what} must be a matrix with at least one row, but have shape {cells.shape}."
        raise ValueError(message)
    require_finite(cells, what)
    return cells
