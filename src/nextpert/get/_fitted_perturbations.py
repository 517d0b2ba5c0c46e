"""``get.fitted_perturbations``: the perturbations of a fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import checked
from nextpert.tl._plan_cells.distances import guides_of

if TYPE_CHECKING:
    import anndata as ad


@checked()
def fitted_perturbations(adata: ad.AnnData, posterior_key: str = "dag_blr") -> pd.DataFrame:
    """List the perturbations that a fit has seen cells of.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`nextpert.tl.fit_dag_blr`.
    posterior_key
        Posterior in ``adata.uns``.

    Returns
    -------
    ~pandas.DataFrame
        One row a perturbation, in the order of the fit: ``perturbation``, ``n_cells``,
        ``n_guides`` (if the fit knows a column of guides), ``target_genes`` and
        ``targets_on_panel``, whether all its targets are genes of the graph, so that its shift is
        expected as well as measured.

    Raises
    ------
    ValueError
        If there is no posterior, or the column of labels or guides is gone.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=40, perturbed=2, expected_degree=2
    ... )
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.get.fitted_perturbations(adata)
      perturbation  n_cells target_genes  targets_on_panel
    0         CD59       40         CD59              True
    1        CDH19       40        CDH19              True
    """
    fit = _adata.posterior_from(adata, posterior_key)
    table = fit.environments
    names = [str(name) for name in table["perturbation"]]
    guides, _ = guides_of(adata, fit)
    targets = [fit.naming.targets(name) for name in names]
    return pd.DataFrame(
        {
            "perturbation": names,
            "n_cells": table["n_cells"].to_numpy(),
            **({} if guides is None else {"n_guides": [len(guides[name]) for name in names]}),
            "target_genes": table["target_genes"].astype(str).to_numpy(),
            "targets_on_panel": [bool(inside) and not outside for inside, outside in targets],
        }
    )
