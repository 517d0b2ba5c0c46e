"""The tables of a design: the ranking, and the trace with one row per round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import (
    eager,
    list_names,
    main_columns_outside,
    panel_of,
    read_stored,
    strings,
)

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.design.distances import RankedDistance
    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._design_interventions.combinations import Admission
    from nextpert.tl._design_interventions.target import Wanted

    Vector = NDArray[np.float64]

FLAT = 0.01


def ranking_table(
    pool: CandidateSet,
    values: Vector,
    removed: Vector,
    distance: RankedDistance,
    admission: Admission,
    target: Wanted,
    fit: FittedPosterior,
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the ranking, best first, and the positions of its rows in the pool.

    The last row, beyond those of the pool, is the control; columns that do not apply to it are NaN.

    Parameters
    ----------
    pool
        The candidates.
    values, removed
        The acquisition, and the variance reduction, of each, ``(n_candidates,)``.
    distance
        Distances of the candidates and the control.
    admission
        Which untested combinations are candidates.
    target, fit
        The target, and the fit.
    """
    mean, centre = np.maximum(distance.mean, 0.0), np.maximum(distance.centre, 0.0)
    median = distance.median
    # Ties are ordered by the distance of the expected state, which finds a state more often than
    # the mean distance does; so are all candidates if the acquisition distinguishes none.
    order = np.lexsort((values, centre[:-1]) if is_flat(removed) else (centre[:-1], values))
    rows = [*order, -1]  # the control comes last in distances

    def column(of_candidates: ArrayLike, of_control: Any = np.nan) -> Any:
        return np.append(of_candidates, of_control)[rows]

    given = pool.interventions
    seen = np.append(fit.n_cells, 0)[fit.rows_of(given.names)]
    table = pd.DataFrame(
        {
            "rank": np.append(np.arange(1, len(rows)), 0),
            "perturbation": strings(column(given.names, str(fit.params["control"]))),
            "target_genes": strings(column([*map(", ".join, given.targets)], "")),
            "genes_left_out": target.left_out_of(rows),
            "shift": strings(column(given.readable(fit.genes), "")),
            "shift_source": strings(column(given.sources, "none")),
            "acquisition": column(values),
            "variance_reduction": column(removed),
            "state_distance": centre[rows],
            "predicted_distance": median[rows],
            "predicted_low": distance.low[rows],
            "predicted_high": distance.high[rows],
            "mean_distance": mean[rows],
            "predicted_distance_sd": distance.sd[rows],
            "relative_distance": share_of(median[rows], median[-1]),
            "probability_best": column(distance.nearest[:-1]),
            "probability_better": column(distance.nearer[:-1]),
            "measured_distance": _measured(pool, target, fit)[rows],
            "n_cells_seen": column(seen, fit.n_control_cells),
            **{name: column[rows] for name, column in admission.columns.items()},
            "is_control": column(np.zeros(len(order), bool), True),
        },
        index=pd.Index(np.arange(len(rows))),
    )
    first = ["rank", "perturbation", "predicted_distance"]
    last = ["relative_distance", "probability_best", "n_cells_seen"]
    return main_columns_outside(table, first, last), order


def candidates_of(ranking: pd.DataFrame) -> pd.DataFrame:
    """Return the ranking without the row of the control, which is no candidate."""
    return ranking[~ranking["is_control"].to_numpy(dtype=bool)]


def nothing_of(ranking: pd.DataFrame) -> pd.Series:
    """Return the row of the control."""
    return ranking[ranking["is_control"].to_numpy(dtype=bool)].iloc[0]


def _measured(pool: CandidateSet, target: Wanted, fit: FittedPosterior) -> Vector:
    """Return squared distances of the cells' means, sampling error subtracted; NaN without cells.

    Shape ``(n_candidates + 1,)``, that of the control cells last.
    """
    goal, has_cells = target.cells, np.append(pool.measured, True)
    mean = np.tile(fit.control_mean, (len(has_cells), 1))
    if fit.means is not None:
        mean[:-1][pool.measured] = fit.means.mean[pool.place[pool.measured]]
    apart = goal.distance(mean) - goal.floor
    if fit.expectation is not None:
        screen = fit.expectation.seen.moments
        place = 1 + np.append(fit.rows_of(pool.interventions.names), -1)  # the controls are first
        for i in np.flatnonzero(has_cells):
            apart[i] -= np.sum(goal.rows([i]).excess(screen.mean_variance(place[i])))
    return np.where(has_cells, np.maximum(apart, 0.0), np.nan)


def share_of(distance: Vector, nothing: float) -> Vector:
    """Return distances relative to that of the control; NaN if the control's is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.tl._design_interventions.tables import share_of
    >>> share_of(np.array([1.0, 3.0]), 2.0).tolist(), share_of(np.array([1.0, 3.0]), -0.1).tolist()
    ([0.5, 1.5], [nan, nan])
    """
    return np.asarray(distance / nothing if nothing > 0 else np.full_like(distance, np.nan))


def is_flat(removed: Vector) -> bool:
    """Whether the variance reductions of the candidates differ by less than 1%."""
    return len(removed) > 1 and bool(np.ptp(removed) < FLAT)


def read_trace(adata: ad.AnnData, key: str, genes: list[str]) -> pd.DataFrame | None:
    """Return the trace of earlier rounds, or ``None`` where there is none.

    Raises
    ------
    ValueError
        If ``adata.uns[key]`` is not a design, or is one of another gene panel.
    """
    if key not in adata.uns:
        return None
    stored = eager(adata.uns[key])
    before = panel_of(stored)
    trace = stored.get("trace") if hasattr(stored, "get") else None
    if before is None or not isinstance(trace, pd.DataFrame):
        message = (
            f"adata.uns[{key!r}] is not a result of tl.design_interventions: choose another "
            f"key_added."
        )
        raise ValueError(message)
    read_stored(adata, key, "tl.design_interventions with another key_added")
    differ = sorted(set(before) ^ set(genes))
    if differ:
        message = (
            f"adata.uns[{key!r}] holds the rounds of another gene panel; genes in only one of "
            f"them: {list_names(differ)}. Choose another key_added, or delete that entry."
        )
        raise ValueError(message)
    return trace


def round_of(adata: ad.AnnData, key: str, trace: pd.DataFrame | None, cells: str) -> int:
    """Return the number of this round: that of the last one if it used the same cells."""
    if trace is None or not len(trace):
        return 1
    same = bool(cells) and str(eager(adata.uns[key]).get("cells", "")) == cells
    return int(trace["round"].max()) + (not same)


def extend_trace(trace: pd.DataFrame | None, row: dict[str, Any]) -> pd.DataFrame:
    """Return the trace with one more row, last; it replaces a row of the same call."""
    rows = [] if trace is None else trace[list(row)].to_dict("records")
    asked = ("round", "target", "acquisition")
    rows = [earlier for earlier in rows if any(earlier[name] != row[name] for name in asked)]
    table = pd.DataFrame([*rows, row], index=pd.Index(np.arange(len(rows) + 1)))
    for name, value in row.items():
        if isinstance(value, str):
            table[name] = strings(table[name])
    return table
