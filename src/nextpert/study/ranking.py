"""The ranking of candidates, and which untested combinations are admitted to a plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert.core._codec import strings
from nextpert.core.design.candidates import Candidates
from nextpert.core.design.remaining_variance import CellNoise
from nextpert.core.fit.naming import places
from nextpert.study.panel_target import measured_goal
from nextpert.study.pool import can_be_candidate, read_candidates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.study.panel_target import PanelTarget
    from nextpert.study.pool import Pool
    from nextpert.study.target import Vector

    Admission = tuple[NDArray[np.bool_], dict[str, NDArray[Any]], bool]


MORE_LIKELY = 0.5  # a combination is admitted if it is nearer with a probability above this


@dataclass(frozen=True)
class Ranking:
    """The candidates of a pool ranked: draws, distances, probabilities, and which are admitted.

    ``draws`` are the candidates' states and the noise of their cells, from which distances follow.
    ``columns``, with the control last, are the probabilities that an untested combination is nearer
    than all its members, and than the best measured candidate. All candidates are ``admitted``
    except untested combinations for which one of the two is 0.5 or less. ``adds_up`` says that
    untested combinations are admitted although no measured combination shows interactions.
    """

    pool: Pool
    draws: Candidates
    admitted: NDArray[np.bool_]
    columns: Mapping[str, NDArray[Any]]
    adds_up: bool = False

    def rows(self, index: NDArray[np.int64], fit: FittedPosterior, **options: Any) -> Ranking:
        """Return the ranking of some candidates by new draws; ``options`` are of ``draws_of``."""
        columns = {name: column[[*index, -1]] for name, column in self.columns.items()}
        admission = self.admitted[index], columns, self.adds_up
        return rank(self.pool.rows(index), fit, admission, **options)


def draws_of(
    fit: FittedPosterior,
    candidates: CandidateSet,
    target: PanelTarget,
    *,
    n_guides: int = 1,
    **options: Any,
) -> Candidates:
    """Return the joint draws of candidates and a target; ``options`` are of ``Candidates``.

    Cells of a candidate are planned in ``n_guides`` guides.
    """
    model = fit.hierarchical
    shared = (fit.guide_variance or 0.0) / n_guides
    return Candidates(
        fit.posteriors,
        candidates.interventions.shifts if candidates.is_exact else None,
        target.goal,
        states=candidates.states(fit, target.rows_in_fit),
        measured=candidates.measured,
        main=fit.posterior,
        noise=None if model is None else CellNoise(*model.within_cells(), shared),
        **options,
    )


def rank(
    pool: Pool, fit: FittedPosterior, admission: Admission | None = None, **options: Any
) -> Ranking:
    """Rank and admit candidates; probabilities of being the nearest then count only those admitted.

    Combinations are compared with their members and the best measured candidate in the same draws.
    If some members are not candidates, new draws contain them. An ``admission``, made before of
    the same candidates, is taken as it is. ``options`` are of ``draws_of``.
    """
    draws = draws_of(fit, pool.candidates, pool.target, **options)
    admitted, columns, adds_up = admission or _admission(pool, draws, fit)
    if not admitted.all():
        draws.admit(admitted)
    return Ranking(pool, draws, admitted, columns, adds_up)


def _admission(pool: Pool, ranked: Candidates, fit: FittedPosterior) -> Admission:
    """Return which candidates are admitted, with the columns and ``adds_up`` of a ranking."""
    target, candidates = pool.target, pool.candidates
    names, key, members = candidates.names, fit.naming.key, fit.naming.members
    new = {
        i: members(name)
        for i, name in enumerate(names)
        if len(members(name)) > 1 and not candidates.is_exact and not candidates.measured[i]
    }
    admitted = np.ones(len(names), bool)
    over_members, over_best = np.full((2, len(names) + 1), np.nan)
    columns = {
        "probability_nearer_than_members": over_members,
        "probability_nearer_than_measured": over_best,
    }
    if not new:
        return admitted, columns, False
    position_of = {key(name): i for i, name in enumerate(names)}
    extra_members = dict.fromkeys(
        part
        for parts in new.values()
        for part in parts
        if key(part) not in position_of and can_be_candidate(part, fit)
    )
    all_names = [*names, *extra_members]
    draws, measured = ranked.distances.draws, candidates.measured
    if extra_members:
        extended, all_target = read_candidates(all_names, fit), target
        if target.all_genes_goal is not None and target.control is not None:
            *target_columns, common = places(
                [*extended.interventions.targets, target.left_out[-1]], fit.genes
            )
            goal = target.all_genes_goal.leave_out(common, target_columns, target.control)
            all_target = replace(target, goal=goal)
        by_all = draws_of(fit, extended, all_target, n_samples=ranked.n_samples, rng=0)
        draws = by_all.distances.draws
        measured = extended.measured
        position_of |= {key(name): len(names) + i for i, name in enumerate(extra_members)}
    comparable = [  # without the target's own perturbation, if it is a member but not a candidate
        int(j)
        for j in np.flatnonzero(measured)
        if j < len(names) or target.label is None or key(all_names[j]) != key(target.label)
    ]
    best = min(comparable, key=lambda j: float(draws[:, j].mean()), default=None)
    for i, parts in new.items():
        part_positions = [position_of[key(part)] for part in parts if key(part) in position_of]
        if part_positions:
            over_members[i] = (draws[:, [i]] < draws[:, part_positions]).all(axis=1).mean()
        if best is not None:
            over_best[i] = (draws[:, i] < draws[:, best]).mean()
        admitted[i] = not (over_members[i] <= MORE_LIKELY or over_best[i] <= MORE_LIKELY)
    joint = any(len(members(fit.names[j])) > 1 for j in np.flatnonzero(fit.is_measured))
    return admitted, columns, bool(admitted[[*new]].any()) and not joint


def not_admitted_in_words(n: int) -> str:
    """Return why some untested combinations are not candidates of a plan."""
    return (
        f"{n:,} untested combinations are not candidates: the probability that they are nearer "
        f"than their members, or than the best measured perturbation, is at most {MORE_LIKELY:g}."
    )


MAX_TOLERANCE = 50  # percent of the control's distance; beyond it, candidates hardly differ


def as_near_table(
    ranking: Ranking, order: NDArray[np.int64], tolerance: float
) -> dict[str, Vector]:
    """Return the probability of each candidate that none is nearer by more than a tolerance.

    ``tolerances``, shape ``(n_tolerances,)``, are 0, 1, 2, ... and 50% of the control's distance,
    and ``tolerance``, that of the advice. ``probabilities`` has the shape
    ``(n_candidates + 1, n_tolerances)``, in the rows of the ranking, the control last; candidates
    that are not admitted do not count and have 0.
    """
    tolerances = np.unique([*np.arange(MAX_TOLERANCE + 1) / 100, tolerance])
    probabilities = np.zeros((len(order) + 1, len(tolerances)))
    is_counted = np.append(ranking.admitted, True)
    among = replace(ranking.draws.distances, draws=ranking.draws.distances.draws[:, is_counted])
    probabilities[is_counted] = among.as_near(tolerances).T
    return {"tolerances": tolerances, "probabilities": probabilities[[*order, -1]]}


FLAT = 0.01  # if variance reductions differ by less, candidates are ranked by distance


def ranking_table(
    ranking: Ranking,
    values: Vector,
    removed: Vector,
    fit: FittedPosterior,
    *,
    flat: bool,
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the ranking, best first, and the positions of its rows in the pool.

    The last row, beyond those of the pool, is the control; columns that do not apply to it are NaN.

    ``values`` and ``removed`` are the acquisition and the variance reduction of each candidate, and
    ``flat`` says to rank by distance because they distinguish none.
    """
    distance, target = ranking.draws.distances, ranking.pool.target
    median, centre = distance.median, np.maximum(distance.centre, 0.0)
    # Ties are ordered by the distance of the expected state, which finds a state more often than
    # the mean distance does, and so are all candidates if the acquisition distinguishes none.
    order = np.lexsort((values, centre[:-1]) if flat else (centre[:-1], values))
    # The control comes last in distances.
    rows = [*order, -1]

    def column(of_candidates: ArrayLike, of_control: Any = np.nan) -> Any:
        return np.append(of_candidates, of_control)[rows]

    interventions = ranking.pool.candidates.interventions
    cells_seen = np.append(fit.n_cells, 0)[fit.rows_of(interventions.names)]
    table = pd.DataFrame(
        {
            "rank": np.append(np.arange(1, len(rows)), 0),
            "perturbation": strings(column(interventions.names, str(fit.params["control"]))),
            "target_genes": strings(column([*map(", ".join, interventions.targets)], "")),
            "genes_left_out": target.left_out_of(rows),
            "shift": strings(column(interventions.readable(fit.genes), "")),
            "shift_source": strings(column(interventions.sources, "none")),
            "acquisition": column(values),
            "variance_reduction": column(removed),
            "state_distance": centre[rows],
            "predicted_distance": median[rows],
            "predicted_low": distance.low[rows],
            "predicted_high": distance.high[rows],
            "mean_distance": np.maximum(distance.mean, 0.0)[rows],
            "relative_distance": share_of(median[rows], median[-1]),
            "probability_best": column(distance.nearest[:-1]),
            "probability_better": column(distance.nearer[:-1]),
            "measured_distance": _measured(ranking.pool.candidates, target, fit)[rows],
            "n_cells_seen": column(cells_seen, fit.n_control_cells),
            **{name: column[rows] for name, column in ranking.columns.items()},
            "is_control": column(np.zeros(len(order), bool), True),
        },
        index=pd.Index(np.arange(len(rows))),
    )
    first = ["rank", "perturbation", "predicted_distance"]
    last = ["relative_distance", "probability_best", "n_cells_seen"]
    # The main columns are at both ends, because print leaves out the middle.
    middle = [name for name in table if name not in first + last]
    return table[first + middle + last], order


def candidates_of(ranking: pd.DataFrame) -> pd.DataFrame:
    """Return the ranking without the row of the control, which is not a candidate."""
    return ranking[~ranking["is_control"].to_numpy(dtype=bool)]


def nothing_of(ranking: pd.DataFrame) -> pd.Series:
    """Return the row of the control."""
    return ranking[ranking["is_control"].to_numpy(dtype=bool)].iloc[0]


def _measured(pool: CandidateSet, target: PanelTarget, fit: FittedPosterior) -> Vector:
    """Return squared distances of the cells' means, sampling error subtracted; NaN without cells.

    The shape is ``(n_candidates + 1,)``, with the control cells last.
    """
    goal, has_cells = measured_goal(target, fit), np.append(pool.measured, True)
    mean = np.tile(fit.control_mean, (len(has_cells), 1))
    if fit.means is not None:
        mean[:-1][pool.measured] = fit.means.mean[pool.fit_rows[pool.measured]]
    distance = goal.distance(mean) - goal.floor
    if fit.expectation is not None:
        screen = fit.expectation.measured.moments
        environment_of = 1 + np.append(fit.rows_of(pool.names), -1)  # the controls are first
        for i in np.flatnonzero(has_cells):
            distance[i] -= np.sum(goal.rows([i]).excess(screen.mean_variance(environment_of[i])))
    return np.where(has_cells, np.maximum(distance, 0.0), np.nan)


def share_of(distance: Vector, nothing: float) -> Vector:
    """Return distances relative to that of the control; NaN if the control's is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.study.ranking import share_of
    >>> share_of(np.array([1.0, 3.0]), 2.0).tolist(), share_of(np.array([1.0, 3.0]), -0.1).tolist()
    ([0.5, 1.5], [nan, nan])
    """
    return np.asarray(distance / nothing if nothing > 0 else np.full_like(distance, np.nan))


def _extend_trace(trace: pd.DataFrame | None, row: dict[str, Any]) -> pd.DataFrame:
    """Return the trace with one more row, last; it replaces a row of the same call."""
    rows = [] if trace is None else trace[list(row)].to_dict("records")
    keys = ("round", "target", "acquisition")
    rows = [earlier for earlier in rows if any(earlier[name] != row[name] for name in keys)]
    table = pd.DataFrame([*rows, row], index=pd.Index(np.arange(len(rows) + 1)))
    for name, value in row.items():
        if isinstance(value, str):
            table[name] = strings(table[name])
    return table
