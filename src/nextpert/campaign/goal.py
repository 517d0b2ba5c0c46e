"""The wanted state in the units of lined-up cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.target import Target

if TYPE_CHECKING:
    import anndata as ad


def lined_up(target: Any, cells: ad.AnnData, n_start: int) -> Any:
    """Return a target whose means are in the units that cells of all batches share.

    Means were given in the units of the cells that the campaign started from. What batches add is
    taken off such that on average over all cells it is nothing, so with every new batch these
    units move by what that of the start is said to add.

    Parameters
    ----------
    target
        As given.
    cells
        All cells, fitted; those of the start come first.
    n_start
        Number of labelled cells of the start.
    """
    fitted = cells.uns["dag_blr"]
    symbols = _adata.symbols_of(fitted)
    genes, columns = _adata.resolve_panel(cells, fitted["genes"], gene_symbols=symbols)
    roles = _adata.read_roles(cells)
    batches = _adata.read_batches(cells, columns, roles)
    if batches is None:
        return target
    labels = _adata.read_perturbations(cells, roles)
    start = np.flatnonzero(labels.codes >= 0)[:n_start]
    added = dict(zip(genes, batches.of_cells(start).mean(axis=0), strict=True))
    return _moved_target(target, added) if isinstance(target, Target) else _moved(target, added)


def _moved_target(target: Target, added: Mapping[str, float]) -> Target:
    names = ("state", "away_from", "at_least", "at_most")  # a signature is of changes
    return replace(target, **{name: _moved(getattr(target, name), added) for name in names})


def _moved(state: Any, added: Mapping[str, float]) -> Any:
    if isinstance(state, list):
        return [_moved(each, added) for each in state]
    if not isinstance(state, (Mapping, pd.Series)):
        return state
    return {str(gene): mean - added.get(str(gene), 0.0) for gene, mean in state.items()}
