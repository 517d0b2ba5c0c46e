"""``tl.perturbation_effects``: the effect of every perturbation on every gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert.core.effects.effects import perturbation_effects as core_effects
from nextpert.tl._perturbation_effects.candidates import wanted_shifts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TABLES = ("mean", "sd", "lower", "upper", "lfsr", "direct", "share_from_cells")


def perturbation_effects(
    adata: ad.AnnData,
    *,
    posterior_key: str = "dag_blr",
    candidates: str | Sequence[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    level: float = 0.9,
    key_added: str = "perturbation_effects",
    as_anndata: bool = False,
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Estimate the effect of every perturbation on every gene of the panel, with intervals.

    The effect is the mean of perturbed cells less that of the controls. It is expected to be what
    follows on the graph from the perturbation's shift, and the cells correct that: the fewer they
    are, the more their differences are drawn to the expectation (adaptive shrinkage with heavy
    tails, Stephens 2017, doi:10.1093/biostatistics/kxw041, learned across the screen); where cells
    are many, the effects are the differences of their means. With the graphs of resamples in the
    fit, effects are averaged over them and intervals hold what they differ by.

    Draw them with :func:`nextpert.pl.perturbation_effects`.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`fit_dag_blr`. Cells are not read anew.
    posterior_key
        Its ``key_added``.
    candidates
        The perturbations: ``None`` (default) takes those of the fit, ``"genes"`` also every other
        gene of the panel, or a list of labels (``"+"`` joins the genes of a combination), or a
        table of shifts as in :func:`fit_dag_blr`. Those without cells have ``n_cells`` 0, and
        effects that are expected of the efficacy of the screen's perturbations.
    level
        Probability that an effect lies within its interval.
    key_added
        Name of the results.
    as_anndata
        Whether to return the effects as an AnnData of perturbations x genes, in place of writing
        them to ``adata``: ``X`` is the mean, the other tables are layers, ``obs`` has ``n_cells``.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, the copy, or the AnnData of the effects. Fields written:

        - ``uns["perturbation_effects"]``: tables of shape (perturbations, genes), log-normalised
          expression: ``mean``, ``sd``, ``lower`` and ``upper`` (the interval), ``lfsr`` (local
          false sign rate: the probability that the sign is another one; below .05 it is clear),
          ``direct`` (what of the effect is the perturbation's own shift of the gene, and does not
          come by way of other genes, as far as the graph is right), ``share_from_cells`` (0 to 1,
          what share of the cells' departure from the expectation is believed) and ``cells_mean``
          (plain difference of means; NaN without cells, and with exact shifts). Also
          ``perturbations``, ``genes``, ``n_cells`` and ``params``.

    Raises
    ------
    ValueError
        If there is no posterior, a candidate names a gene outside the panel, or ``level`` is not
        between 0 and 1. Nothing is written then.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.perturbation_effects(adata)
    >>> effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    >>> effects.obs_names.tolist(), effects.n_vars == adata.n_vars
    (['FOS', 'MYC'], True)
    """
    _adata.check_arguments(locals())
    _adata.check_key(key_added)
    if not as_anndata:
        _adata.check_writable(adata, copy=copy)
    fit = _adata.posterior_from(adata, posterior_key)
    efficacy = adata.uns[posterior_key].get("efficacy")
    names, n_cells, prior = wanted_shifts(candidates, fit, efficacy)
    found = core_effects(fit.ensemble or [fit.blr], prior, level=level, main=fit.blr)
    measured = (prior.n > 0)[:, None]
    tables = {name: getattr(found, name) for name in _TABLES}
    tables["cells_mean"] = np.where(measured, prior.mean - fit.control_mean, np.nan)
    params: dict[str, Any] = {
        "posterior_key": posterior_key,
        "level": float(level),
        "n_graphs": max(len(fit.ensemble), 1),
        "control": str(fit.params["control"]),
    }
    if fit.params.get("gene_symbols") is not None:
        params["gene_symbols"] = str(fit.params["gene_symbols"])
    if as_anndata:
        return _as_anndata(tables, names, fit.genes, n_cells, params)
    stored = {
        **tables,
        "perturbations": _adata.strings(names),
        "genes": _adata.strings(fit.genes),
        "n_cells": n_cells,
        "params": params,
    }
    return _adata.write_results(adata, uns={key_added: stored}, copy=copy)


def _as_anndata(
    tables: dict[str, np.ndarray],
    names: Sequence[str],
    genes: Sequence[str],
    n_cells: np.ndarray,
    params: dict[str, Any],
) -> ad.AnnData:
    """Return the effects as an AnnData of perturbations x genes."""
    obs = pd.DataFrame({"n_cells": n_cells}, index=pd.Index(list(names), name="perturbation"))
    return ad.AnnData(
        tables["mean"],
        obs,
        pd.DataFrame(index=list(genes)),
        layers={name: table for name, table in tables.items() if name != "mean"},
        uns={"params": params},
    )
