"""The tables of a design: the ranking, and the trace with its one row a round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import eager, list_names, panel_of, read_stored, strings

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert.core.design.distances import RankedDistance
    from nextpert.core.model.shift_posterior import ShiftPosterior
    from nextpert.tl._design_interventions.candidates import CandidateSet
    from nextpert.tl._design_interventions.target import Wanted

    Vector = NDArray[np.float64]

FLAT = 0.01
_TRACE_COLUMNS = (
    "round",
    "chosen",
    "criterion",
    "value",
    "target",
    "predicted_distance",
    "predicted_distance_sd",
    "n_control_cells",
    "n_perturbed_cells",
    "n_perturbations",
    "n_cells",
)


def ranking_table(
    pool: CandidateSet,
    values: Vector,
    removed: Vector,
    distance: RankedDistance,
    known: Sequence[ShiftPosterior],
    target: Wanted,
    fit: FittedPosterior,
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the ranking, best first, and the positions of its rows in the pool.

    The last row, beyond those of the pool, is that of doing nothing.
    """
    mean, centre = distance.mean[:-1], np.maximum(distance.centre[:-1], 0.0)
    # Equals go by the distance of the expected state, by which a state is found more often than by
    # the mean distance; and all of them where the acquisition tells none apart.
    order = np.lexsort((values, centre) if is_flat(removed) else (centre, values))
    seen = {
        str(name): int(n)
        for name, n in zip(
            fit.environments["perturbation"], fit.environments["n_cells"], strict=True
        )
    }
    given = pool.interventions
    readable = given.readable(fit.genes)
    shares = np.average(
        [each.share.mean(axis=1) for each in known], axis=0, weights=[each.weight for each in known]
    )
    table = pd.DataFrame(
        {
            "rank": np.arange(1, len(order) + 1),
            "perturbation": strings(given.names[i] for i in order),
            "target_genes": strings(", ".join(given.targets[i]) for i in order),
            "shift": strings(readable[i] for i in order),
            "shift_source": strings(given.sources[i] for i in order),
            "acquisition": values[order],
            "uncertainty_removed": removed[order],
            "state_distance": centre[order],
            "predicted_distance": np.maximum(mean, 0.0)[order],
            "predicted_distance_sd": distance.sd[order],
            "predicted_low": distance.low[order],
            "predicted_high": distance.high[order],
            "relative_distance": share_of(np.maximum(mean, 0.0)[order], distance.mean[-1]),
            "probability_best": distance.nearest[order],
            "probability_better": distance.nearer[order],
            "expected_gap": distance.gap[:-1][order],
            "measured_distance": _measured(pool, known[0], target, fit)[order],
            "share_from_cells": shares[order],
            "n_cells_seen": np.array([seen.get(given.names[i], 0) for i in order], np.int64),
            "is_control": np.zeros(len(order), bool),
        },
        index=pd.Index(np.arange(len(order))),
    )
    return pd.concat([table, _nothing(distance, target, fit)], ignore_index=True), order


def candidates_of(ranking: pd.DataFrame) -> pd.DataFrame:
    """Return the ranking without the row of doing nothing, which is no candidate."""
    return ranking[~ranking["is_control"].to_numpy(dtype=bool)]


def nothing_of(ranking: pd.DataFrame) -> pd.Series:
    """Return the row of doing nothing."""
    return ranking[ranking["is_control"].to_numpy(dtype=bool)].iloc[0]


def _nothing(distance: RankedDistance, target: Wanted, fit: FittedPosterior) -> pd.DataFrame:
    """Return the row of doing nothing, for reference; what has no meaning there is NaN."""
    apart = float(target.goal.distance(fit.control_mean[None])[0]) - target.goal.floor
    if fit.expectation is not None:
        apart -= target.goal.excess(_sampled(fit, 0))
    row = {
        "rank": 0,
        "perturbation": str(fit.params["control"]),
        "target_genes": "",
        "shift": "",
        "shift_source": "none",
        "state_distance": max(float(distance.centre[-1]), 0.0),
        "predicted_distance": max(float(distance.mean[-1]), 0.0),
        "predicted_distance_sd": float(distance.sd[-1]),
        "predicted_low": float(distance.low[-1]),
        "predicted_high": float(distance.high[-1]),
        "relative_distance": float(share_of(distance.mean[-1], distance.mean[-1])),
        "measured_distance": max(apart, 0.0),
        "n_cells_seen": fit.n_control_cells,
        "is_control": True,
    }
    return pd.DataFrame([row])


def _measured(
    pool: CandidateSet, known: ShiftPosterior, target: Wanted, fit: FittedPosterior
) -> Vector:
    """Return squared distances of the cells' own means, less what sampling adds; else NaN."""
    apart = target.goal.distance(known.mean)
    sampled = np.array(
        [target.goal.excess(_sampling(name, fit)) for name in pool.interventions.names]
    )
    measured = np.maximum(apart - target.goal.floor - sampled, 0.0)
    return np.where(known.n > 0, measured, np.nan)


def _sampling(name: str, fit: FittedPosterior) -> Vector:
    """Return the sampling variance of the mean of a perturbation's cells, ``(n_genes,)``."""
    names = fit.environments["perturbation"].astype(str).tolist()
    if fit.expectation is None or name not in names:
        return np.zeros(len(fit.genes))
    return _sampled(fit, 1 + names.index(name))


def _sampled(fit: FittedPosterior, row: int) -> Vector:
    assert fit.expectation is not None
    screen = fit.expectation.screen
    n = int(screen.n[row])
    return screen.squares[row] / max(n * (n - 1), 1)


def share_of(distance: Vector, nothing: float) -> Vector:
    """Return distances over that of the control; NaN where the control's is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.tl._design_interventions.tables import share_of
    >>> share_of(np.array([1.0, 3.0]), 2.0).tolist(), share_of(np.array([1.0, 3.0]), -0.1).tolist()
    ([0.5, 1.5], [nan, nan])
    """
    return np.asarray(distance / nothing if nothing > 0 else np.full_like(distance, np.nan))


def is_flat(removed: Vector) -> bool:
    """Whether the shares of uncertainty that candidates would remove differ by less than 1 %."""
    return len(removed) > 1 and bool(np.ptp(removed) < FLAT)


def farther_in_words(ranking: pd.DataFrame, target: str) -> str:
    """Return a sentence where the first of a ranking is no nearer than the control, else ``""``."""
    ranking = candidates_of(ranking)
    share = ranking["relative_distance"].to_numpy(dtype=float)
    if np.isnan(share).all():
        return (
            f"The control is as near to {target} as the data can resolve (its predicted distance "
            f"is 0), so no candidate can be nearer, and relative_distance is not defined (NaN)."
        )
    if not share[0] > 1:
        return ""
    nearest = int(np.argmin(share))
    names = ranking["perturbation"].astype(str)
    if share[nearest] > 1:
        return (
            f"No candidate is predicted to be nearer to {target} than the control: the nearest, "
            f"{names.iloc[nearest]}, has {100 * share[nearest]:.0f}% of the control's distance."
        )
    return (
        f"{names.iloc[0]}, the first of the ranking, is predicted farther from {target} than the "
        f"control ({100 * share[0]:.0f}% of the control's distance); the nearest is "
        f"{names.iloc[nearest]} ({100 * share[nearest]:.0f}%)."
    )


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
        message = f"adata.uns[{key!r}] is no design: choose another key_added."
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
    """Return the number of this round: that of the last one if it saw the same cells."""
    if trace is None or not len(trace):
        return 1
    same = bool(cells) and str(eager(adata.uns[key]).get("cells", "")) == cells
    return int(trace["round"].max()) + (not same)


def extend_trace(trace: pd.DataFrame | None, row: dict[str, Any]) -> pd.DataFrame:
    """Return the trace with one more row, last, in place of one that asked the same."""
    rows = [] if trace is None else trace[list(_TRACE_COLUMNS)].to_dict("records")
    asked = ("round", "target", "criterion")
    rows = [earlier for earlier in rows if any(earlier[name] != row[name] for name in asked)]
    columns: dict[str, Any] = {}
    for name in _TRACE_COLUMNS:
        column = [*(earlier[name] for earlier in rows), row[name]]
        columns[name] = strings(column) if isinstance(row[name], str) else np.array(column)
    return pd.DataFrame(columns, index=pd.Index(np.arange(len(rows) + 1)))
