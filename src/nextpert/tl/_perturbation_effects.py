"""``tl.perturbation_effects``: the effect of every perturbation on every gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import between, checked, one_of
from nextpert._adata.progress import progress
from nextpert.core._codec import table_type
from nextpert.core.model.effects import Effects
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.sampler import Chain, Prior, threads
from nextpert.study.effects import _own_genes, panel_effects, program_tables, read_requested
from nextpert.tl._cells import fit_environments, read_cells

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.study.effects import Requested

    Array = NDArray[np.float64]


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

    The effect is the mean of perturbed cells minus that of the controls. With few cells it is
    shrunk towards effects that perturbations share, with many cells it approaches the difference of
    means (:doc:`/model/mathematics`, equations 13 to 24), and without cells it is predicted.
    *Programs* are sets of genes that two or more perturbations change together, as in GSFA (Zhou et
    al. 2023, doi:10.1038/s41592-023-02017-4) and FR-Perturb (Yao et al. 2023,
    doi:10.1038/s41587-023-01964-9); plot them with :func:`nextpert.pl.programs`. See
    :doc:`/guides/read_a_ranking`.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`fit_dag_blr`.
    posterior_key
        The ``key_added`` of the fit.
    candidates
        The perturbations: ``None`` (default) for those of the fit, ``"genes"`` for these and every
        other gene of the panel, a list of labels, combinations included, or a table of shifts as
        in :func:`fit_dag_blr`.
    genes
        ``None`` (default) for the panel, ``"all"`` for every gene of ``adata``, or a list. Genes
        outside the panel are shrunk separately, without the graph.
    condition
        Condition of the effects, if ``condition_key`` is declared. ``None`` (default) uses the
        cells of all conditions.
    level
        Probability that an interval covers its effect.
    key_added
        Name of the results.
    as_anndata
        Whether to return an AnnData (perturbations x genes; mean in ``X``, other tables in layers)
        instead of writing to ``adata``. It can be the ``features`` of another fit.
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
        - ``lfsr`` (array, ``(n_perturbations, n_genes)``): local false sign rate (NaN without
          cells); below 0.05 the direction is significant.
        - ``direct`` (array, ``(n_perturbations, n_genes)``): the mean minus the graph's prediction
          from the parents of the gene.
        - ``data_weight`` (array, ``(n_perturbations, n_genes)``): weight of the cells, 0 to 1.
        - ``raw_mean`` (array, ``(n_perturbations, n_genes)``): the difference of means.
        - ``perturbations``, ``genes`` (names): names of rows and columns.
        - ``n_cells`` (numbers, ``(n_perturbations,)``): cells of each perturbation.
        - ``programs`` (mapping): the tables ``shares``, ``genes`` and ``scores`` of the programs.

    Raises
    ------
    ValueError
        If there is no posterior, a candidate, gene or condition is unknown, or genes outside the
        panel are combined with ``condition``. Nothing is written on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.perturbation_effects(adata)
    >>> effects = npt.get.effects_df(adata).query("perturbation == 'GATA1' and lfsr < 0.05")
    >>> effects[["gene", "mean", "sd", "raw_mean"]].head(3).round(2)  # the strongest
           gene  mean    sd  raw_mean
    6   LAPTM4B  0.35  0.06      0.39
    21    GATA1 -0.29  0.04     -0.27
    39     HBE1 -0.22  0.07     -0.25
    """
    fit = _adata.posterior_from(adata, posterior_key)
    fit = fit if condition is None else fit.in_condition(condition)
    perturbations = read_requested(candidates, fit)
    symbols = str(fit.params.get("gene_symbols", ""))
    listed: Any = fit.genes if genes is None else genes
    if isinstance(listed, str):
        listed = None if listed == "all" else [listed]
    chosen, columns = _adata.resolve_panel(adata, listed, gene_symbols=symbols)
    shared = program_tables(fit)
    tables = vars(panel_effects(fit, perturbations, level)) | {
        "raw_mean": perturbations.raw_mean(fit)
    }
    in_graph = np.isin(chosen, fit.genes)
    outside, all_genes = np.flatnonzero(~in_graph), list(fit.genes)
    if len(outside) and condition is not None:
        message = (
            f"Effects per condition are computed only for genes of the panel: leave out "
            f"{_adata.list_names([chosen[i] for i in outside])}, or condition."
        )
        raise ValueError(message)
    if len(outside):
        names = [chosen[i] for i in outside]
        outside_values = outside_tables(
            adata, names, columns[outside], fit, perturbations, level=level
        )
        tables = {
            name: np.hstack([table, outside_values.pop(name)]) for name, table in tables.items()
        }
        all_genes += names
    column_of = {gene: i for i, gene in enumerate(all_genes)}
    order = [column_of[gene] for gene in chosen]
    # Tables of very large screens are stored in single precision, and converted one by one.
    kind = table_type(len(perturbations.pool.names) * len(chosen))
    is_in_order = order == list(range(len(all_genes)))
    for name in list(tables):
        table = tables.pop(name)
        tables[name] = np.ascontiguousarray(table if is_in_order else table[:, order], kind)
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
        stored_panel = {"panel": _adata.strings(fit.genes), "fit_params": dict(fit.params)}
        obs = pd.DataFrame(
            {"n_cells": perturbations.n_cells},
            index=pd.Index(perturbations.pool.names, name="perturbation"),
        )
        return ad.AnnData(
            tables.pop("mean"),
            obs if condition is None else obs.assign(condition=condition),
            pd.DataFrame({"in_graph": in_graph}, index=chosen),
            layers=tables,
            uns={"params": params, **shared, **fit.origin, **stored_panel},
        )
    stored = {
        **tables,
        "perturbations": _adata.strings(perturbations.pool.names),
        "genes": _adata.strings(chosen),
        "in_graph": in_graph,
        "n_cells": perturbations.n_cells,
        **shared,
        **fit.origin,
        "params": params,
    }
    if condition is not None:
        stored["condition"] = _adata.strings([condition] * len(perturbations.pool.names))
    return _adata.write_results(adata, uns={key_added: stored}, copy=copy)


_AT_ONCE = 500  # genes whose correlations within cells are read together


def outside_tables(
    adata: ad.AnnData,
    genes: Sequence[str],
    columns: NDArray[np.int64],
    fit: FittedPosterior,
    perturbations: Requested,
    *,
    level: float,
) -> dict[str, Array]:
    """Return the tables of genes outside the panel, ``(n_perturbations, n_genes)`` each.

    These genes are fitted like the panel, 500 at a time. A perturbation that targets such a gene is
    expected to change it by the efficacy of the screen. ``direct`` is NaN without a graph.
    """
    shape = (len(perturbations.pool.names), len(genes))
    kind = table_type(shape[0] * shape[1])
    tables = {name: np.zeros(shape, kind) for name in (*Effects.__dataclass_fields__, "raw_mean")}
    tables["lfsr"][:] = 1.0
    tables["direct"][:] = tables["raw_mean"][:] = np.nan
    roles, names = _adata.fitted_roles(adata, fit.params), fit.names
    environments, guided = fit_environments(adata, roles, names), roles.guide_key is not None
    fit_rows = np.where(perturbations.n_cells > 0, fit.rows_of(perturbations.pool.names), -1)
    raw = fit_rows >= 0
    # Lengths of chains are those of the whole, so that a block takes no more sweeps than a panel.
    chain = Chain.of_size(len(names) * len(columns)).unthinned()
    blocks = range(0, len(columns), _AT_ONCE)
    for first in progress(len(blocks), "Genes outside the panel", iterable=blocks):
        block = np.arange(first, min(first + _AT_ONCE, len(columns)))
        cells = read_cells(adata, columns[block], environments, names)
        pooled = cells.fit_cells(names, guided=guided, spread=fit.guide_spread).pooled
        tables["raw_mean"][np.ix_(raw, block)] = (pooled.mean[1:] - pooled.mean[0])[fit_rows[raw]]
        varies = np.flatnonzero(pooled.scatter.diagonal() > 0)
        has = pooled.n_cells[1:] > 0
        measured = np.flatnonzero(has)
        if not len(varies) or not len(measured):
            continue
        number = np.append(np.where(has, np.cumsum(has) - 1, -1), -1)[fit_rows]
        new = np.flatnonzero(number < 0)
        number[new] = len(measured) + np.arange(len(new))
        pooled_block = pooled.subset(varies).rows(np.append(0, 1 + measured))
        labels = [*(names[j] for j in measured), *(perturbations.pool.names[j] for j in new)]
        expected_shifts = _own_genes(
            [genes[int(i)] for i in block[varies]], labels, fit, pooled_block
        )
        (shift, expected), (variance, of_new) = (
            np.split(table, [len(measured)]) for table in expected_shifts
        )
        n_jobs = threads(shift.size)
        prior = Prior(shift, own_variance=variance)
        model = fit_hierarchical(pooled_block, prior, chain=chain, rng=0, n_jobs=n_jobs)
        unseen = model.predict(expected, own_variance=of_new, rng=0)
        draws = model.effects.joined(unseen).rows(number)
        for name, table in draws.summary(level, n_jobs=n_jobs)._asdict().items():
            tables[name][:, block[varies]] = table
        counted = np.vstack([pooled_block.counted[1:], np.zeros((len(new), len(varies)))])[number]
        weight = np.minimum(counted * (draws.sd() / draws.unit) ** 2, 1.0)
        tables["data_weight"][:, block[varies]] = weight
    tables["lfsr"][perturbations.unseen] = np.nan
    return tables
