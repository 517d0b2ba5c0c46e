"""``get.order_df``: what to make for the next round as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert._adata import read_result
from nextpert._adata.arguments import checked

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


@checked()
def order_df(adata: ad.AnnData, key: str = "plan") -> pd.DataFrame:
    """Return the constructs of a plan: which exist, which to clone, which to design.

    Parameters
    ----------
    adata
        Cells x genes with a result of :func:`nextpert.tl.plan_screen`.
    key
        Result in ``adata.uns``.

    Returns
    -------
    ~pandas.DataFrame
        One row per construct, those of a perturbation in a row, the controls last:
        ``perturbation``, ``construct`` (its number within the perturbation), ``kind`` (``"single
        guide"``, ``"dual guide"``, ``"control"``), ``status`` (``"existing"``: in the screen;
        ``"clone"``: to be cloned from guides of the screen; ``"design"``: with a guide to design),
        ``guides`` (identifiers of the guides that exist, if a column of guides was declared),
        ``new_guides_of`` (members for which a guide is to be designed), ``target_genes`` (of all
        members, also outside the panel) and ``n_cells`` (cells to profile, after filtering).

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
    >>> npt.tl.plan_screen(
    ...     adata, {"STAT1": 0.5}, candidates=["STAT1", "MYC"], n_perturbations=2, n_guides=2
    ... )
    >>> order = npt.get.order_df(adata)
    >>> order[["perturbation", "construct", "kind", "status", "n_cells"]]
      perturbation  construct          kind    status  n_cells
    0        STAT1          1  single guide    design      293
    1        STAT1          2  single guide    design      293
    2          MYC          1  single guide  existing      293
    3          MYC          2  single guide  existing      293
    4      control          1       control  existing      828
    """
    stored = read_result(adata, key, "tl.plan_screen", what="plan", part="plate")
    table: pd.DataFrame = stored["constructs"].copy()
    return table
