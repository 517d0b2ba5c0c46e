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
    r"""Estimate the effect of every perturbation on every gene, with intervals.

    The effect is the mean of perturbed cells minus that of the controls. Effects of perturbations
    with cells are those of the hierarchical model of :func:`fit_dag_blr`, which is learned from all
    perturbations together: the fewer cells there are, the more a difference of means is shrunk
    towards the program that perturbations share, the coexpression of genes and the expected change
    of the target gene. With many cells, the effects are the differences of means. They depend on
    the graph only as far as it predicts the other perturbations. Perturbations without cells are
    predicted from the graph and the other predictors; with bootstrap graphs, what shifts do is
    averaged over them.

    With exact shifts (``shift_sd=0``, as in the paper) effects are those of the shifts on the
    graph, and the weights of the graph alone are uncertain.

    90% intervals cover about 90% of all effects, but on real screens less of those that are truly
    large: of effects above 4 standard errors 77 to 81% on Papalexi, 59 to 75% on TAP-seq and 65 to
    84% on Norman, with 10 to 50 cells.

    *Programs* are sets of genes that two or more perturbations change together, as in GSFA (Zhou et
    al. 2023, doi:10.1038/s41592-023-02017-4) and FR-Perturb (Yao et al. 2023,
    doi:10.1038/s41587-023-01964-9): each effect is about the sum over programs of the score of the
    perturbation times the effect of the program on the gene. Perturbations are *alike* if the
    correlation of their effects over at least 10 genes is above 0.5 with a probability above 0.9.
    What perturbations do to their own target genes is left out of both. They are read from the
    joint posterior of all perturbations with cells, whatever the candidates, each time this
    function is called (within 0.1 s on Papalexi and TAP-seq). If all perturbed cells differ from
    the controls for a technical reason, they are alike.

    Plot them with :func:`nextpert.pl.perturbation_effects` and :func:`nextpert.pl.programs`.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`fit_dag_blr`.
    posterior_key
        Its ``key_added``.
    candidates
        The perturbations: ``None`` (default) for those of the fit, ``"genes"`` for these and every
        other gene of the panel, a list of labels (``"+"`` joins the genes of a combination), or a
        table of shifts as in :func:`fit_dag_blr`. Those without cells have ``n_cells`` 0, and
        predicted effects: of a gene from the efficacy of the screen's perturbations and the
        predictors, of a combination from the effects of its members alone and in other
        combinations, and of a label outside the panel from the combinations that contain it, from
        ``features`` of :func:`fit_dag_blr`, or, where fewer than half of the perturbations have a
        target on the panel, as the mean perturbation (with a warning).
    genes
        The genes: ``None`` (default) for those of the panel, ``"all"`` for every gene of ``adata``,
        or a list. Genes outside the panel get adaptive shrinkage, each separately, without a graph
        and without what the panel shows; their values are read from the cells.
    condition
        The condition in which the effects are wanted, if ``condition_key`` is declared: one of its
        values. ``None`` (default) for the effects by the cells of all conditions. Of a
        perturbation without cells in the condition, ``n_cells`` is 0, and its effects are
        estimated from the other conditions. Genes outside the panel have no effects by condition.
    level
        Probability that an interval covers its effect; 0.9 as everywhere in the package.
    key_added
        Name of the results.
    as_anndata
        Whether to return the effects as an AnnData of perturbations x genes instead of writing
        them to ``adata``: ``X`` has the mean, layers have the other tables, ``obs`` has
        ``n_cells`` and, if one is given, ``condition``; ``uns`` has ``programs``, ``alike``, and
        the fingerprint of the cells, by which :func:`fit_dag_blr` refuses them as ``features`` of
        a fit to the same cells.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, the copy, or the AnnData of the effects. Writes ``uns["perturbation_effects"]``,
        in units of log-normalised expression, with:

        - ``mean``, ``sd`` (arrays, ``(n_perturbations, n_genes)``): posterior mean and standard
          deviation of every effect.
        - ``lower``, ``upper`` (arrays, ``(n_perturbations, n_genes)``): bounds of its interval.
        - ``lfsr`` (array, ``(n_perturbations, n_genes)``): local false sign rate; below 0.05 the
          direction is significant. Twice the probability of the less likely sign, as no effect is
          exactly 0 in the hierarchical model, so that 1 means that both signs are equally likely;
          draws in which the effect is expected to be below the standard error of the cells count
          half for either sign. With exact shifts, the probability that the effect does not have
          the sign of ``mean``. NaN without cells: a prediction has an
          interval, but no direction of it is called significant.
        - ``direct`` (array, ``(n_perturbations, n_genes)``): ``mean`` less what the weights of the
          graph predict from the effects on the parents of the gene; NaN outside the panel.
        - ``data_weight`` (array, ``(n_perturbations, n_genes)``): 0 to 1, the weight of the cells:
          the posterior variance over the sampling variance of the cells' mean, at most 1; 0 without
          cells.
        - ``raw_mean`` (array, ``(n_perturbations, n_genes)``): the difference of means; NaN without
          cells, and with exact shifts.
        - ``perturbations``, ``genes`` (names): of the rows and columns.
        - ``condition`` (labels): of each perturbation, if one is given.
        - ``in_graph`` (yes or no, ``(n_genes,)``): whether a gene belongs to the panel.
        - ``n_cells`` (numbers, ``(n_perturbations,)``): cells of each perturbation.
        - ``programs`` (mapping of three tables), unless shifts are exact:
          ``shares`` (``program``, a number from 1; ``share`` of the squared differences of means to
          the controls that it accounts for, 0 to 1; ``n_perturbations`` on it), ``genes``
          (``program``, ``gene``, ``effect`` on it of a score of 1, and its ``sd``; the largest
          first) and ``scores`` (``program``, ``perturbation``, ``score``, of which the largest is
          1, its ``sd``, and ``takes_part``: whether it is more than 3 standard deviations from 0
          and a quarter of the largest). There are no rows if perturbations share no program. Of
          more than 1,000 perturbations, programs are learned from the 1,000 with the largest
          effects.
        - ``alike`` (table), under the same conditions: the pairs that are alike (of these 1,000):
          ``perturbation``, ``other``, the ``probability`` and the expected ``correlation`` of
          effects.
        - ``cells``, ``fit`` (texts): the fingerprint of the fit's cells, and the digest of the fit.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If there is no posterior, a candidate names a gene outside the panel, a gene is unknown,
        the fit has no such ``condition``, genes outside the panel are asked for in one, or
        ``level`` is not between 0 and 1. Nothing is written on error.

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
    >>> programs = adata.uns["perturbation_effects"]["programs"]
    >>> programs["scores"].columns.tolist()
    ['program', 'perturbation', 'score', 'sd', 'takes_part']
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
