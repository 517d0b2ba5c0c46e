"""The closed loop: propose a shift, observe its cells, update, propose again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from nextpert.core._checks import as_rng, as_vector, require_count
from nextpert.core.build_acquisition import build_acquisition
from nextpert.core.domain import Sphere
from nextpert.core.moments import Moments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.dag_blr import DagBlr
    from nextpert.core.domain import Domain

    Vector = NDArray[np.float64]


class Source(Protocol):
    """Where cells come from: a :class:`LinearScm`, or anything that answers alike."""

    def sample(
        self, n_cells: int, shift: ArrayLike, *, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Return cells under a shift, ``(n_cells, n_nodes)``."""

    def mean(self, shift: ArrayLike) -> Vector:
        """Return the true mean under a shift, ``(n_nodes,)``; for scoring only."""


@dataclass(frozen=True)
class CampaignResult:
    """What a campaign did, round by round.

    Parameters
    ----------
    shifts
        Shift tried in each round, shape ``(n_rounds, n_nodes)``.
    values
        The criterion at that shift, shape ``(n_rounds,)``.
    distance
        Relative squared distance ``|mu_t - mu*|^2 / |mu* - mu_0|^2`` of the mean reached by the
        recommended shift after 0, 1, ... rounds, shape ``(n_rounds + 1,)``; ``mu_0`` is the
        control mean.
    posterior
        The posterior after the last round.
    """

    shifts: NDArray[np.float64]
    values: Vector
    distance: Vector
    posterior: DagBlr


def campaign(
    source: Source,
    posterior: DagBlr,
    target_mean: ArrayLike,
    criterion: str = "civ",
    *,
    domain: Domain | None = None,
    n_rounds: int = 50,
    n_cells: int = 1,
    n_random: int = 0,
    rng: int | np.random.Generator | None = None,
) -> CampaignResult:
    """Run a campaign: propose, observe, update, for a number of rounds.

    Searches start, as in Zhang et al. 2023, from the last shift and the current estimate, plus
    ``n_random`` random points. The noise of the cells and the random starts come from separate
    streams, so that campaigns of different criteria with one seed see the same noise.

    Parameters
    ----------
    source
        Where cells come from, and the truth for scoring.
    posterior
        The posterior before the first round.
    target_mean
        The wanted mean, shape ``(n_nodes,)``, units of the data.
    criterion
        Name of the criterion, see :func:`build_acquisition`.
    domain
        Where shifts may lie; the unit sphere by default.
    n_rounds, n_cells
        Number of rounds, and of cells a round.
    n_random
        Number of random starts of each search.
    rng
        Seed or generator.

    Returns
    -------
    CampaignResult

    Raises
    ------
    ValueError
        For an unknown criterion, or a target of the wrong length.

    Examples
    --------
    >>> from nextpert.core import DagBlr, campaign, random_scm
    >>> scm = random_scm(5, rng=0)
    >>> blr = DagBlr(scm.dag, noise_var=scm.noise_var, intercept=False)
    >>> result = campaign(scm, blr, scm.mean([0, 0, 0, 0.6, 0.8]), n_rounds=20, rng=0)
    >>> bool(result.distance[-1] < result.distance[0])
    True
    """
    rounds, cells = require_count(n_rounds, "n_rounds", least=0), require_count(n_cells, "n_cells")
    target = as_vector(target_mean, posterior.n_nodes, "target_mean")
    where = Sphere(1.0) if domain is None else domain
    noise, search = as_rng(rng).spawn(2)
    origin = source.mean(np.zeros(posterior.n_nodes))
    scale = float(((target - origin) ** 2).sum()) or 1.0

    def score() -> float:
        reached = source.mean(posterior.ideal_shift(target))
        return float(((reached - target) ** 2).sum()) / scale

    shifts, values, distance = np.empty((rounds, posterior.n_nodes)), np.empty(rounds), [score()]
    last: list[Vector] = []
    for t in range(rounds):
        acquisition = build_acquisition(
            criterion, posterior, target, domain=where, n_cells=cells, rng=search
        )
        best = where.minimise(acquisition, starts=last, n_random=n_random, rng=search)
        seen = source.sample(cells, best.shift, rng=noise)
        posterior = posterior.update(Moments.from_array(seen), best.shift, inplace=t > 0)
        shifts[t], values[t], last = best.shift, best.value, [best.shift]
        distance.append(score())
    return CampaignResult(shifts, values, np.array(distance), posterior)
