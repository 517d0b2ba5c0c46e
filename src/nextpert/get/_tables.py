"""Stored results as tables, like :mod:`scanpy.get`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata import read_result
from nextpert._adata.arguments import checked
from nextpert.core.model.scores import SIGNIFICANCE
from nextpert.study.advice import is_advised
from nextpert.tl._read_plan import guides_of

if TYPE_CHECKING:
    import anndata as ad

logger = logging.getLogger(__name__)

COLUMNS = ("mean", "sd", "lower", "upper", "lfsr", "direct", "data_weight", "raw_mean")


@checked()
def diagnosis_df(adata: ad.AnnData, key: str = "diagnosis") -> pd.DataFrame:
    """Return the quantities of a diagnosis, part by part.

    Parameters
    ----------
    adata
        Cells x genes with a result of :func:`nextpert.tl.diagnose`.
    key
        Result in ``adata.uns``.

    Returns
    -------
    ~pandas.DataFrame
        One row per ``quantity`` of a ``part`` (explained in :doc:`/model/stored_results`): its
        ``value`` (a number, fraction or ratio without a unit), its ``standard_error``, ``n`` (the
        number of items behind it), the ``rule``, whether it ``passed`` (``"yes"``, ``"no"`` or
        empty), and the ``level`` of the part (``"trust"``, ``"care"``, ``"do not trust"``).

    Raises
    ------
    ValueError
        If there is no such result, or it is damaged.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=40, perturbed=4, expected_degree=2
    ... )
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.diagnose(adata)
    >>> npt.get.diagnosis_df(adata).loc[:1, ["part", "quantity", "value", "passed"]]
        part       quantity  value passed
    0  cells  n_significant    4.0    yes
    1  cells     n_distinct    4.0    yes
    """
    stored = read_result(adata, key, "tl.diagnose", what="diagnosis", part="parts")
    table = stored["summary"]
    parts = stored["parts"]
    levels = dict(zip(parts["part"].astype(str), parts["level"].astype(str), strict=True))
    return table.assign(level=[levels.get(part, "") for part in table["part"].astype(str)])


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
        One row per ``perturbation`` and ``gene``. Effects of significant direction (``lfsr`` below
        0.05) are first; both groups are ordered by absolute effect. In units of log-normalised
        expression: ``mean`` (the effect), its standard deviation ``sd`` and interval ``lower`` to
        ``upper``, ``direct`` (the part that no parent in the graph explains) and ``raw_mean``
        (difference of means). Without a unit, 0 to 1: ``lfsr`` (local false sign rate) and
        ``data_weight`` (weight of the cells). With a condition: ``condition``.

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
    is_significant = table["lfsr"].to_numpy() < SIGNIFICANCE
    order = np.lexsort((-table["mean"].abs().to_numpy(), ~is_significant))
    return table.iloc[order].reset_index(drop=True)


@checked()
def fitted_perturbations(adata: ad.AnnData, posterior_key: str = "dag_blr") -> pd.DataFrame:
    """List the perturbations that have cells in a fit.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`nextpert.tl.fit_dag_blr`.
    posterior_key
        Posterior in ``adata.uns``.

    Returns
    -------
    ~pandas.DataFrame
        One row per perturbation, in the order of the fit: ``perturbation``, ``n_cells``,
        ``n_guides`` (if a column of guides was declared), ``target_genes`` and
        ``targets_on_panel``: whether all targets are genes of the graph, so that the shift has a
        prior mean.

    Raises
    ------
    ValueError
        If there is no posterior, or the column of labels or guides is absent.

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


@checked()
def order_df(adata: ad.AnnData, key: str = "plan", *, allow_stale: bool = False) -> pd.DataFrame:
    """Return the guides or compounds of a plan: which exist, which to clone, which to design.

    Order them if the plan follows its advice, ``uns["plan"]["advice"]``; otherwise a warning
    is logged. An order for cells that have changed since the plan raises an error.

    Parameters
    ----------
    adata
        Cells x genes with a result of :func:`nextpert.tl.plan_screen`.
    key
        Result in ``adata.uns``.
    allow_stale
        Whether to return the order, with a warning, if cells, roles of columns or fit have changed
        since the plan was computed.

    Returns
    -------
    ~pandas.DataFrame
        One row per guide, vector or compound, ordered by perturbation, the controls last:
        ``perturbation``, ``construct`` (its number within the perturbation), ``kind`` (``"single
        guide"``, ``"dual-guide vector"``, ``"compound"``, ``"control"``, or ``"construct"`` if the
        screen does not say), ``status`` (``"existing"``: in the screen, where guides of one cell
        count as a construct even if they are on two vectors; ``"clone"``: to be cloned from guides
        of the screen; ``"design"``: with a guide to design), ``guides`` (identifiers of the guides
        that exist, if a column of guides was declared), ``new_guides_of`` (members for which a
        guide is to be designed), ``target_genes`` (of all members, also outside the panel)
        ``n_cells`` (cells to profile, after filtering) and ``is_advised`` (whether the advice names
        the perturbation), and further columns of ``uns["guides"]``, such as sequences. The table is
        empty if the advice is to stop.

    Raises
    ------
    ValueError
        If there is no such result, it is damaged, or what it was computed from has changed since.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC"])
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_screen(
    ...     adata, {"STAT1": 0.5}, candidates=["STAT1", "MYC"], n_perturbations=2
    ... )
    >>> order = npt.get.order_df(adata)
    >>> order[["perturbation", "construct", "kind", "status", "n_cells"]]
      perturbation  construct       kind    status  n_cells
    0        STAT1          1  construct    design      586
    1          MYC          1  construct  existing      586
    2      control          1    control  existing      828
    """
    plan = read_result(
        adata, key, "tl.plan_screen", what="plan", part="constructs", allow_stale=allow_stale
    )
    if not is_advised(plan) or not len(plan["constructs"]):
        reason = (
            "The order is empty" if is_advised(plan) else "The advice is not to order this plan"
        )
        logger.warning("%s: %s", reason, plan["advice"]["words"])
    table: pd.DataFrame = plan["constructs"]
    return table.copy()


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
        ``n_cells``, ``n_cells_seen`` and ``n_guides`` are numbers per perturbation. Distances are
        in squared units of log-normalised expression, summed over genes (or in the unit of the
        target's distance). Probabilities and ``variance_reduction`` are between 0 and 1.

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
    return _table(adata, key, "tl.plan_screen", "plan", "plate")


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
        :func:`nextpert.tl.design_interventions`; the control has rank 0. Distances are squared
        differences of log-normalised expression, summed over genes, unless the target defines
        another distance; ``relative_distance`` is the distance divided by the control's.
        Probabilities and ``variance_reduction`` are between 0 and 1; ``n_cells_seen`` counts cells.

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
    ['STAT1', 'MYC', 'B2M', 'control']
    """
    return _table(adata, key, "tl.design_interventions", "design", "ranking")


def _table(adata: ad.AnnData, key: str, function: str, noun: str, part: str) -> pd.DataFrame:
    """Return a copy of a table of a stored result."""
    stored = read_result(adata, key, function, what=noun, part=part)
    table: pd.DataFrame = stored[part]
    return table.copy()
