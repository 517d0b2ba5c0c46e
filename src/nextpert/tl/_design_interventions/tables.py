"""The tables of a design: the ranking, and the trace with its one row a round."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import eager, list_names, panel_of, read_stored, strings

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert._adata.shifts import Interventions

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
    pool: Interventions,
    values: Vector,
    removed: Vector,
    distance: tuple[Vector, Vector],
    start: float,
    fit: FittedPosterior,
) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """Return the ranking, best first, and the positions of its rows in the pool."""
    # Equals by predicted distance; and all of them where the criterion tells none apart.
    order = np.lexsort((values, distance[0]) if is_flat(removed) else (distance[0], values))
    seen = {
        str(name): int(n)
        for name, n in zip(
            fit.environments["perturbation"], fit.environments["n_cells"], strict=True
        )
    }
    readable = pool.readable(fit.genes)
    table = pd.DataFrame(
        {
            "rank": np.arange(1, len(order) + 1),
            "perturbation": strings(pool.names[i] for i in order),
            "target_genes": strings(", ".join(pool.targets[i]) for i in order),
            "shift": strings(readable[i] for i in order),
            "shift_source": strings(pool.sources[i] for i in order),
            "acquisition": values[order],
            "uncertainty_removed": removed[order],
            "predicted_distance": distance[0][order],
            "predicted_distance_sd": distance[1][order],
            "relative_distance": distance[0][order] / start,
            "n_cells_seen": np.array([seen.get(pool.names[i], 0) for i in order], np.int64),
        },
        index=pd.Index(np.arange(len(order))),
    )
    return table, order


def is_flat(removed: Vector) -> bool:
    """Whether the shares of uncertainty that candidates would remove differ by less than 1 %."""
    return len(removed) > 1 and bool(np.ptp(removed) < FLAT)


def farther_in_words(ranking: pd.DataFrame, target: str) -> str:
    """Return a sentence where the best candidate is farther than doing nothing, else nothing."""
    share = ranking["relative_distance"].to_numpy(dtype=float)
    if not (share[0] > 1 and np.isfinite(share[0])):
        return ""
    nearest = int(np.argmin(share))
    names = ranking["perturbation"].astype(str)
    if share[nearest] > 1:
        return (
            f"No candidate is predicted to come nearer to {target} than doing nothing: the "
            f"nearest, {names.iloc[nearest]}, stays at {100 * share[nearest]:.0f} % of the control "
            f"cells' distance."
        )
    return (
        f"{names.iloc[0]}, the first of the ranking, is predicted farther from {target} than doing "
        f"nothing ({100 * share[0]:.0f} % of the control cells' distance); the nearest is "
        f"{names.iloc[nearest]} ({100 * share[nearest]:.0f} %)."
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
