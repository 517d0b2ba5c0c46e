"""``get.plan_df``: the next round as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert._adata import read_result
from nextpert._adata.arguments import checked

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


@checked()
def plan_df(adata: ad.AnnData, key: str = "plan") -> pd.DataFrame:
    """Return the perturbations of a plan in the order chosen, and the controls last.

    Parameters
    ----------
    adata
        Cells x genes with a result of :func:`nextpert.tl.plan_screen`.
    key
        Result in ``adata.uns``.

    Returns
    -------
    ~pandas.DataFrame
        One row per perturbation, with the columns of ``plate`` in :func:`nextpert.tl.plan_screen`.
        ``n_cells`` and ``n_cells_seen`` count cells, ``n_guides`` guides per perturbation; columns
        of distances are in squared units of log-normalised expression, sums over genes (or in the
        unit of the target's distance); probabilities and ``variance_reduction`` are 0 to 1;
        ``cost`` is in the currency of ``constraints["costs"]``.

    Raises
    ------
    ValueError
        If there is no such result, or it is damaged.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC"])
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_screen(adata, {"STAT1": 0.5}, candidates="genes", n_perturbations=1)
    >>> npt.get.plan_df(adata)[["perturbation", "n_cells", "n_cells_seen"]]
      perturbation  n_cells  n_cells_seen
    0        STAT1     1000             0
    1      control     1000           200
    """
    stored = read_result(adata, key, "tl.plan_screen", what="plan", part="plate")
    table: pd.DataFrame = stored["plate"].copy()
    return table
