"""``get.ranking_df``: the ranking of the candidates as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert._adata import read_result
from nextpert._adata.arguments import checked

if TYPE_CHECKING:
    import anndata as ad
    import pandas as pd


@checked()
def ranking_df(adata: ad.AnnData, key: str = "design") -> pd.DataFrame:
    """Return the candidates of a ranking, best first, and the control last.

    Parameters
    ----------
    adata
        Cells x genes with a result of :func:`nextpert.tl.design_interventions`.
    key
        Result in ``adata.uns``.

    Returns
    -------
    ~pandas.DataFrame
        One row per candidate, with the columns of ``ranking`` in
        :func:`nextpert.tl.design_interventions`; the control has rank 0. Columns of distances are
        in squared units of log-normalised expression, sums over genes (or in the unit of the
        target's distance); ``relative_distance`` is a fraction of the control's distance;
        probabilities and ``variance_reduction`` are 0 to 1; ``n_cells_seen`` counts cells.

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
    >>> npt.tl.design_interventions(adata, {"STAT1": 0.5}, candidates="genes")
    >>> npt.get.ranking_df(adata)["perturbation"].tolist()
    ['STAT1', 'B2M', 'MYC', 'control']
    """
    stored = read_result(adata, key, "tl.design_interventions", what="design", part="ranking")
    table: pd.DataFrame = stored["ranking"].copy()
    return table
