"""Cells of a screen as arrays, and parts of them as AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from nextpert.core import ScreenMoments

if TYPE_CHECKING:
    from benchmarks._screens import Screen


class Cells(NamedTuple):
    """Cells of a screen: values, and the perturbation of each (0 the control)."""

    x: np.ndarray
    code: np.ndarray
    names: list[str]
    own: list[int]  # column of the gene each perturbation targets, -1 where it has none
    activation: bool


def read_cells(screen: Screen) -> Cells:
    """Return the cells of a screen."""
    label = screen.labels()
    names = [screen.control, *sorted(set(label) - {screen.control})]
    code = np.array([names.index(name) for name in label])
    own = [screen.targets.get(name, -1) for name in names]
    return Cells(np.asarray(screen.cells.X), code, names, own, screen.name == "norman")


def moments(cells: Cells, kept: np.ndarray) -> ScreenMoments:
    """Return the moments of the perturbations, of some cells."""
    return ScreenMoments.from_array(cells.x[kept], cells.code[kept], len(cells.names))


def fitted(cells: Cells, kept: np.ndarray, *, graph: str = "none") -> ad.AnnData:
    """Return some cells after the public calls, on an empty graph or one learned from them.

    Genes that do not vary within perturbations cannot be fitted, and are left out.
    """
    part = moments(cells, kept)
    varies = np.flatnonzero(part.scatter.diagonal() > 0)
    genes = np.array([f"gene {i}" for i in range(cells.x.shape[1])], object)
    for name, gene in zip(cells.names, cells.own, strict=True):
        if gene >= 0:
            genes[gene] = name
    obs = pd.DataFrame({"perturbation": np.array(cells.names, object)[cells.code[kept]]})
    obs.index = obs.index.astype(str)
    var = pd.DataFrame(index=genes[varies].astype(str))
    adata = ad.AnnData(cells.x[np.ix_(kept, varies)].astype(np.float64), obs, var)
    npt.pp.setup_screen(adata, control=cells.names[0], check_scale=False)
    if graph == "none":
        npt.tl.learn_dag(adata, method="given", dag=[], genes=list(adata.var_names))
    else:
        npt.tl.learn_dag(adata, method="boss", environments="all", genes=list(adata.var_names))
    npt.tl.fit_dag_blr(adata, shift="activation" if cells.activation else "knockout")
    adata.uns["columns"] = varies
    return adata
