"""A network known before, from names of genes, and what is stored of the belief in it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import list_names, real_values
from nextpert.core import PriorKnowledge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core import Dag

logger = logging.getLogger(__name__)


def read_network(table: Any, genes: Sequence[str]) -> NDArray[np.float64] | None:
    """Return the size of the weights of arcs between genes of the panel, row = parent.

    Parameters
    ----------
    table
        As ``prior_network`` of :func:`nextpert.tl.learn_dag`, or ``None``.
    genes
        The panel.

    Raises
    ------
    TypeError
        If it is no table.
    ValueError
        If a column is absent, an arc stands in it twice, a name or weight is missing or no number,
        or no arc joins two genes of the panel.
    """
    if table is None:
        return None
    rows = _checked(table)
    place = {gene: i for i, gene in enumerate(genes)}
    inside = rows["source"].isin(place) & rows["target"].isin(place)
    used = rows[inside & (rows["source"] != rows["target"]) & (rows["weight"] > 0)]
    absent = (set(rows["source"]) | set(rows["target"])) - set(genes)
    if used.empty:
        message = (
            f"prior_network has {len(rows)} arcs, but none between two genes of the panel, such as "
            f"{list_names(genes[:3])}: give one whose genes are named as these, or leave it out."
        )
        raise ValueError(message)
    logger.info(
        "Prior network: %d of %d arcs are between two genes of the panel; %d genes are not in it.",
        len(used), len(rows), len(absent),
    )  # fmt: skip
    weights = np.zeros((len(genes), len(genes)))
    parents, children = used["source"].map(place), used["target"].map(place)
    weights[parents.to_numpy(int), children.to_numpy(int)] = used["weight"]
    return weights


def _checked(table: Any) -> pd.DataFrame:
    """Return source, target and size of the weight, 1 where the table has none."""
    absent = [name for name in ("source", "target") if name not in table]
    if absent:
        message = (
            f"prior_network has no column {list_names(absent)}, but "
            f"{list_names(table.columns) or 'none at all'}: it needs source and target, and may "
            f"have weight."
        )
        raise ValueError(message)
    names = table[["source", "target"]]
    lost = np.flatnonzero(names.isna().any(axis=1))
    if len(lost):
        message = f"prior_network has no source or target in row {lost[0]}: leave out such rows."
        raise ValueError(message)
    rows = names.astype(str).reset_index(drop=True)
    given = table["weight"] if "weight" in table else pd.Series(1.0, index=table.index)
    numbers = pd.to_numeric(given, errors="coerce")
    rows["weight"] = np.abs(real_values(numbers, "The column weight of prior_network"))
    bad = np.flatnonzero(~np.isfinite(rows["weight"]))
    if len(bad):
        message = (
            f"prior_network has a weight that is no finite number at {_arc(rows, bad[0])}: give "
            f"one, or leave out the arc."
        )
        raise ValueError(message)
    twice = np.flatnonzero(rows.duplicated(["source", "target"]))
    if len(twice):
        message = f"prior_network has the arc {_arc(rows, twice[0])} twice: keep one of them."
        raise ValueError(message)
    return rows


def _arc(rows: pd.DataFrame, k: int) -> str:
    return f"{rows['source'].iloc[k]} -> {rows['target'].iloc[k]}"


def with_leanings(
    prior: PriorKnowledge | None, dag: Dag, log_odds: NDArray[np.float64] | None
) -> PriorKnowledge | None:
    """Return prior knowledge that also bars turning arcs of the graph that log-odds speak for."""
    if log_odds is None:
        return prior
    known = PriorKnowledge(dag.n_nodes) if prior is None else prior
    barred = known.forbidden.copy()
    for x, y in dag.edges():
        barred[y, x] |= log_odds[x, y] > log_odds[y, x]
    return PriorKnowledge(
        dag.n_nodes,
        before=np.argwhere(known.before).tolist(),
        required=np.argwhere(known.required).tolist(),
        forbidden=np.argwhere(barred).tolist(),
    )
