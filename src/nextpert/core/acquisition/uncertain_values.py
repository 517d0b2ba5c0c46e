"""Criteria by name over candidates whose shifts are uncertain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng
from nextpert.core.acquisition.uncertain_civ import UncertainCiv
from nextpert.core.posterior.pair_shifts import pair_shifts
from nextpert.core.predict.goal import Goal
from nextpert.core.predict.ranked_distance import expected_states, ranked_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior
    from nextpert.core.predict.ranked_distance import RankedDistance

    Vector = NDArray[np.float64]

UNCERTAIN_CRITERIA = ("random", "greedy", "civ", "civ_ow", "ei", "probability", "thompson")


def uncertain_values(
    criterion: str,
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    target: ArrayLike | Goal,
    *,
    n_cells: float = 1,
    noise_aware: bool = False,
    target_variance: ArrayLike | None = None,
    n_samples: int = 1000,
    rng: int | np.random.Generator | None = None,
) -> Vector:
    """Return a criterion of every candidate, cells seen or not; lower is better.

    Parameters
    ----------
    criterion
        ``"civ"`` or ``"civ_ow"``: see :class:`UncertainCiv`. ``"greedy"``: the expected squared
        distance to the ideal shift. On draws of the states (see
        :func:`~nextpert.core.ranked_distance`): ``"ei"``, the expected
        squared distance to the target if the better is kept of the candidate and the incumbent
        (see ``kept_distance``); ``"probability"``, minus the probability of being the nearest;
        ``"thompson"``, the squared distance under a single draw, so that the best of it is a
        candidate drawn by its probability of being the nearest. ``"random"``: uniform numbers.
    posterior
        The posterior over the weights; or one on each of several graphs, which count by the
        weight of their shifts.
    shifts
        The candidates; for several graphs the same for all, or one for each.
    target
        The wanted mean, shape ``(n_nodes,)``, units of the data; or a goal of any kind, which
        criteria on draws measure as it is, ``"greedy"`` by the distance of the expected state, and
        ``"civ"`` and ``"civ_ow"`` by a gap that stands in for it (see :class:`UncertainCiv`).
    n_cells, noise_aware
        Hypothetical cells of CIV, and whether their scatter teaches too.
    target_variance
        Sampling variance of a wanted mean, for criteria on draws.
    n_samples
        Number of draws, at least 2.
    rng
        Seed or generator.

    Returns
    -------
    ndarray
        Values, shape ``(n_perturbations,)``.

    Raises
    ------
    ValueError
        For an unknown name, or if posteriors, shifts and target do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.acquisition.uncertain_values import uncertain_values
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> known = ShiftPosterior.exact([[1.0, 2.0], [3.0, 0.0]])
    >>> uncertain_values("ei", blr, known, [0.0, 2.0]).tolist()
    [1.0, 4.0]
    """
    if criterion not in UNCERTAIN_CRITERIA:
        names = ", ".join(UNCERTAIN_CRITERIA)
        message = f"Unknown acquisition {criterion!r}: choose one of {names}."
        raise ValueError(message)
    generator = as_rng(rng)
    if criterion == "random":
        return generator.random(pair_shifts(posterior, shifts)[0][1].n_perturbations)
    if criterion == "greedy" and isinstance(target, Goal) and not target.is_plain:
        states = expected_states(pair_shifts(posterior, shifts))
        return target.distance(states[:-1], states[-1])
    if criterion in ("civ", "civ_ow", "greedy"):
        civ = UncertainCiv(
            posterior, shifts, target, n_cells=n_cells, noise_aware=noise_aware,
            output_weighted=criterion == "civ_ow", rng=generator,
        )  # fmt: skip
        return civ.gap_moments()[0] if criterion == "greedy" else civ.values()
    few = criterion == "thompson"
    found = ranked_distance(
        posterior, shifts, target, target_variance=target_variance,
        n_samples=2 if few else n_samples, rng=generator,
    )  # fmt: skip
    if criterion == "thompson":
        return found.draws[generator.integers(len(found.draws)), :-1]
    if criterion == "probability":
        return -found.nearest[:-1]
    known = pair_shifts(posterior, shifts)[0][1]
    return kept_distance(found, np.asarray(known.n) > 0)


def kept_distance(found: RankedDistance, measured: NDArray[np.bool_]) -> Vector:
    """Return the expected squared distance if the better is kept of candidate and incumbent.

    That of the incumbent, the measured candidate (or doing nothing) of the least mean distance,
    less the expected improvement on it. Both are taken from the same draws: what is unknown of
    both alike is no chance of an improvement.

    Parameters
    ----------
    found
        Distances by draws.
    measured
        Which candidates have cells, shape ``(n_perturbations,)``.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.acquisition.uncertain_values import kept_distance
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> from nextpert.core.predict.ranked_distance import ranked_distance
    >>> blr = DagBlr(Dag.from_edges(1, []), noise_var=1.0, intercept=False)
    >>> found = ranked_distance(blr, ShiftPosterior.exact([[1.0], [2.0]]), [0.0])
    >>> kept_distance(found, np.array([True, True])).tolist()
    [0.0, 0.0]
    """
    usable = np.append(measured, True)
    incumbent = int(np.where(usable, found.mean, np.inf).argmin())
    best = found.draws[:, incumbent, None]
    return np.minimum(found.draws[:, :-1], best).mean(axis=0)


def thompson_plate(
    draws: Vector, size: int, rng: int | np.random.Generator | None = None
) -> NDArray[np.int64]:
    """Return different candidates for one plate, each the nearest of a draw of its own.

    Parameters
    ----------
    draws
        Squared distances under draws, shape ``(n_draws, n_perturbations)``.
    size
        Number of candidates; where there are fewer, all.
    rng
        Seed or generator.

    Returns
    -------
    ndarray
        Indices in the order drawn: a draw in which a candidate chosen before is the nearest gives
        its nearest of the others.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.acquisition.uncertain_values import thompson_plate
    >>> thompson_plate(np.array([[3.0, 1.0, 2.0]]), 2, rng=0).tolist()
    [1, 2]
    """
    generator = as_rng(rng)
    left = np.ones(draws.shape[1], dtype=np.bool_)
    chosen: list[int] = []
    while len(chosen) < min(size, draws.shape[1]):
        row = draws[generator.integers(len(draws))]
        chosen.append(int(np.where(left, row, np.inf).argmin()))
        left[chosen[-1]] = False
    return np.array(chosen, dtype=np.int64)
