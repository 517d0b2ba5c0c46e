"""``get.effects_df``: effects of perturbations on genes as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert._adata.effects import CLEAR_SIGN

if TYPE_CHECKING:
    import anndata as ad

COLUMNS = ("mean", "sd", "lower", "upper", "lfsr", "direct", "data_weight", "raw_mean")


@checked()
def effects_df(adata: ad.AnnData, key: str = "perturbation_effects") -> pd.DataFrame:
    """Return the effect of every perturbation on every gene, significant ones first.

    Parameters
    ----------
    adata
        Cells x genes with a result of :func:`nextpert.tl.perturbation_effects`.
    key
        Result in ``adata.uns``.

    Returns
    -------
    ~pandas.DataFrame
        One row per ``perturbation`` and ``gene``: effects of significant direction (``lfsr`` below
        0.05) first, and among these and among the others the largest first. In units of
        log-normalised expression: ``mean`` (the effect), its standard deviation ``sd`` and
        interval ``lower`` to ``upper``, ``direct`` (the part that no parent in the graph explains)
        and ``raw_mean`` (difference of means). Without a unit, 0 to 1: ``lfsr`` (local false sign
        rate) and ``data_weight`` (weight of the cells). ``condition``, if one was given.

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
    >>> npt.tl.perturbation_effects(adata)
    >>> effects = npt.get.effects_df(adata)
    >>> effects.loc[effects["lfsr"] < 0.05, ["perturbation", "gene"]].values.tolist()
    [['MYC', 'MYC'], ['MYC', 'STAT1']]
    """
    stored = read_result(adata, key, "tl.perturbation_effects", what="effects", part="lfsr")
    names, genes = (np.asarray(stored[x]).astype(str) for x in ("perturbations", "genes"))
    of_pairs = {"perturbation": np.repeat(names, len(genes)), "gene": np.tile(genes, len(names))}
    if "condition" in stored:
        of_pairs["condition"] = np.repeat(np.asarray(stored["condition"]).astype(str), len(genes))
    numbers = {name: np.asarray(stored[name], float).ravel() for name in COLUMNS if name in stored}
    table = pd.DataFrame(of_pairs | numbers)
    is_significant = table["lfsr"].to_numpy() < CLEAR_SIGN
    order = np.lexsort((-table["mean"].abs().to_numpy(), ~is_significant))
    return table.iloc[order].reset_index(drop=True)
