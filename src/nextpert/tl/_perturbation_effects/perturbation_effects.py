"""``tl.perturbation_effects``: the effect of every perturbation on every gene."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import between, checked, one_of
from nextpert.core._codec import table_type
from nextpert.tl._perturbation_effects.candidates import (
    outside_tables,
    panel_effects,
    read_wanted,
)
from nextpert.tl._perturbation_effects.programs import program_tables, programs_in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)


@checked(candidates=one_of("genes"), level=between(0, 1))
def perturbation_effects(
    adata: ad.AnnData,
    *,
    posterior_key: str = "dag_blr",
    candidates: str | Sequence[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    genes: str | Sequence[str] | None = None,
    condition: str | None = None,
    level: float = 0.9,
    key_added: str = "perturbation_effects",
    as_anndata: bool = False,
    copy: bool = False,
) -> ad.AnnData | None:
    """Estimate the effect of every perturbation on every gene, with intervals.

    The effect is the mean of perturbed cells minus that of the controls. Use it after
    :func:`fit_dag_blr`, before you rank: effects from few cells are shrunk towards what
    perturbations share, with many cells they are differences of means (:doc:`/model/mathematics`,
    equations 13 to 24). Perturbations without cells are predicted. *Programs* are sets of genes
    that two or more perturbations change together, as in GSFA (Zhou et al. 2023,
    doi:10.1038/s41592-023-02017-4) and FR-Perturb (Yao et al. 2023,
    doi:10.1038/s41587-023-01964-9). :doc:`/guides/read_a_ranking` shows how to read the results,
    and how often intervals cover large effects; plot them with
    :func:`nextpert.pl.perturbation_effects` and :func:`nextpert.pl.programs`.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`fit_dag_blr`.
    posterior_key
        The ``key_added`` of the fit.
    candidates
        The perturbations: ``None`` (default) for those of the fit, ``"genes"`` for these and every
        other gene of the panel, a list of labels, combinations included, or a table of shifts as
        in :func:`fit_dag_blr`. Those without cells have ``n_cells`` 0 and predicted effects.
    genes
        The genes: ``None`` (default) for those of the panel, ``"all"`` for every gene of ``adata``,
        or a list. Genes outside the panel are shrunk separately, without the graph.
    condition
        Condition of the effects, if ``condition_key`` is declared. ``None`` (default) gives the
        effects by the cells of all conditions.
    level
        Probability that an interval covers its effect.
    key_added
        Name of the results.
    as_anndata
        Whether to return an AnnData of perturbations x genes instead of writing to ``adata``: the
        mean in ``X``, the other tables in layers. It can be the ``features`` of another fit.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, the copy, or the AnnData. :doc:`/model/stored_results` lists all columns. Writes
        ``uns["perturbation_effects"]``, in units of log-normalised expression, with:

        - ``mean``, ``sd`` (arrays, ``(n_perturbations, n_genes)``): posterior mean and standard
          deviation.
        - ``lower``, ``upper`` (arrays, ``(n_perturbations, n_genes)``): bounds of the interval.
        - ``lfsr`` (array, ``(n_perturbations, n_genes)``): local false sign rate; below 0.05 the
          direction is significant. NaN without cells.
        - ``direct`` (array, ``(n_perturbations, n_genes)``): the mean minus what the graph predicts
          from the parents of the gene.
        - ``data_weight`` (array, ``(n_perturbations, n_genes)``): weight of the cells, 0 to 1.
        - ``raw_mean`` (array, ``(n_perturbations, n_genes)``): the difference of means.
        - ``perturbations``, ``genes`` (names): of rows and columns.
        - ``n_cells`` (numbers, ``(n_perturbations,)``): cells of each perturbation.
        - ``programs`` (mapping): the tables ``shares``, ``genes`` and ``scores`` of the programs.
        - ``alike`` (table): pairs of perturbations with correlated effects, and the probability.

    Raises
    ------
    ValueError
        If there is no posterior, a candidate, gene or condition is unknown, or genes outside the
        panel are combined with ``condition``. Nothing is written then.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    >>> effects.to_df("lfsr").lt(0.05).any(axis="columns").to_dict()  # significant on some gene
    {'FOS': True, 'MYC': True}
    """
    fit = _adata.posterior_from(adata, posterior_key)
    fit = fit if condition is None else fit.in_condition(condition)
    wanted = read_wanted(candidates, fit)
    symbols = str(fit.params.get("gene_symbols", ""))
    listed: Any = fit.genes if genes is None else genes
    if isinstance(listed, str):
        listed = None if listed == "all" else [listed]
    chosen, columns = _adata.resolve_panel(adata, listed, gene_symbols=symbols)
    shared = program_tables(fit)
    if shared:
        logger.info("%s", programs_in_words(shared))
    tables = vars(panel_effects(fit, wanted, level)) | {"raw_mean": wanted.raw_mean(fit)}
    in_graph = np.isin(chosen, fit.genes)
    outside, every = np.flatnonzero(~in_graph), list(fit.genes)
    if len(outside) and condition is not None:
        message = (
            f"Genes outside the panel have no effects by condition: leave out "
            f"{_adata.list_names([chosen[i] for i in outside])}, or condition."
        )
        raise ValueError(message)
    if len(outside):
        names = [chosen[i] for i in outside]
        more = outside_tables(adata, names, columns[outside], fit, wanted, level=level)
        tables = {name: np.hstack([table, more[name]]) for name, table in tables.items()}
        every += names
    place = {gene: i for i, gene in enumerate(every)}
    order = [place[gene] for gene in chosen]
    # Of very large screens in single precision, one table after the other.
    kind = table_type(len(wanted.names) * len(chosen))
    same = order == list(range(len(every)))
    for name in list(tables):
        table = tables.pop(name)
        tables[name] = np.ascontiguousarray(table if same else table[:, order], kind)
    params: dict[str, Any] = {
        "posterior_key": posterior_key,
        "level": float(level),
        "n_graphs": fit.n_graphs,
        "control": str(fit.params["control"]),
        "separator": str(fit.params["separator"]),
    }
    if symbols:
        params["gene_symbols"] = symbols
    if condition is not None:
        params["condition"] = condition
    if as_anndata:
        known = {"panel": _adata.strings(fit.genes), "fit_params": dict(fit.params)}
        obs = pd.DataFrame(
            {"n_cells": wanted.n_cells}, index=pd.Index(wanted.names, name="perturbation")
        )
        return ad.AnnData(
            tables.pop("mean"),
            obs if condition is None else obs.assign(condition=condition),
            pd.DataFrame({"in_graph": in_graph}, index=chosen),
            layers=tables,
            uns={"params": params, **shared, **fit.origin, **known},
        )
    stored = {
        **tables,
        "perturbations": _adata.strings(wanted.names),
        "genes": _adata.strings(chosen),
        "in_graph": in_graph,
        "n_cells": wanted.n_cells,
        **shared,
        **fit.origin,
        "params": params,
    }
    if condition is not None:
        stored["condition"] = _adata.strings([condition] * len(wanted.names))
    return _adata.write_results(adata, uns={key_added: stored}, copy=copy)
