"""``tl.design_interventions``: which perturbation to test next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata, core
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert._adata.presets import PRESETS
from nextpert.study.advice import logger as of_advice
from nextpert.study.advice import warns
from nextpert.study.next_round import StoppingRule
from nextpert.study.panel_target import measured_goal
from nextpert.study.pool import read_all
from nextpert.study.ranking import FLAT, _extend_trace, as_near_table, rank, ranking_table
from nextpert.tl._read_plan import advise_on
from nextpert.tl._read_target import read_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import anndata as ad

    from nextpert.study.target import Target, Vector


logger = logging.getLogger(__name__)


@checked(
    acquisition=one_of(lambda: ("auto", *core.acquisitions())),
    candidates=one_of("genes"),
    n_samples=at_least(2),
    stopping=StoppingRule,
    preset=one_of(*PRESETS),
)
def design_interventions(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target,
    *,
    acquisition: str = "auto",
    candidates: str | Iterable[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    n_cells: int = 100,
    noise_aware: bool = True,
    preset: str | None = None,
    stopping: Mapping[str, Any] | None = None,
    posterior_key: str = "dag_blr",
    n_samples: int = 400,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "design",
    copy: bool = False,
) -> ad.AnnData | None:
    """Rank the perturbations to test next so that cells reach a target state.

    Use :func:`plan_screen` to choose several perturbations at once. Tested and untested candidates
    are ranked by the probability of being the nearest to the target state, from draws of the joint
    posterior; after an exact fit (``shift_sd=0``) by the causal integrated variance (CIV) of Zhang
    et al. 2023 (doi:10.1038/s42256-023-00719-0), which favours perturbations that reduce
    uncertainty. See :doc:`/guides/read_a_ranking`.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`fit_dag_blr`.
    target
        The target state: a label (the estimated state of that perturbation); a pair
        ``(obs key, value)``; a mapping gene -> mean, log-normalised (only these genes count); a
        vector of means over the panel; or a :class:`nextpert.Target` for signatures, bounds or
        weights.
    acquisition
        ``"auto"`` (default): with exact shifts ``"civ"``, or ``"remaining_variance"`` unless the
        target is a single state; otherwise ``"probability"``. Or:

        - to reach the target, ``"probability"``, ``"ei"`` (expected improvement), ``"thompson"``
          (nearest in one posterior draw) or ``"greedy"`` (smallest expected distance);
        - to reduce uncertainty, ``"remaining_variance"`` (of distances); or ``"random"``;
        - with exact shifts, also ``"civ"``, the criterion of the paper in closed form
          (:doc:`/guides/read_a_ranking` compares the two), ``"civ_ow"`` (output-weighted),
          ``"cv"``, ``"maxv"``, ``"mi"``, ``"target_mean_variance"`` and ``"ucb"``;
        - the name of your own acquisition (:doc:`/developer/acquisition`).
    candidates
        ``None`` (default): the perturbations of the fit. ``"genes"``: these and every gene of the
        panel. Or a list of labels, also untested combinations such as ``"MYC+STK3"``; or a table of
        shifts as in :func:`fit_dag_blr`. The perturbation that defines the target, and combinations
        that contain it, are candidates only if a list or table names them.
    n_cells
        Cells of the next perturbation, for ``"civ"`` and others that look ahead.
    noise_aware
        With exact shifts: whether the look-ahead uses the scatter of these cells. If not, as in
        the paper, small differences in the acquisition also count in the ranking.
    preset
        ``"zhang2023"``: ``"civ"``, ``n_cells=10``, ``noise_aware=False``; do not contradict it.
    stopping, posterior_key
        When to stop, for the advice, as in :func:`plan_screen`; and the posterior in ``adata.uns``.
    n_samples
        Posterior draws; with 400, standard errors of probabilities are at most 0.025.
    rng
        Seed or generator. A seed is combined with the number of the round.
    key_added, copy
        Name of the results, and whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all columns.
        Writes ``uns["design"]`` with:

        - ``ranking`` (table): candidates, best first, and the control last: ``perturbation``,
          ``probability_best``, ``predicted_distance`` (squared units), its 90% interval, and
          ``relative_distance`` (divided by that of the control).
        - ``advice`` (mapping): what to do next, as in :func:`plan_cells`.
        - ``not_ranked`` (table): candidates that were left out, and why.
        - ``trace`` (table): the choice of this round and of all earlier ones.

    Raises
    ------
    ValueError
        If there is no posterior, a name is unknown, or there are no candidates. Nothing is written
        on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.design_interventions(adata, "UBR5")  # which is nearest to the state of UBR5?
    >>> npt.get.ranking_df(adata)[["perturbation", "probability_best"]].head(2).round(2)
      perturbation  probability_best
    0        DSCC1              0.72
    1          MYC              0.17
    """
    fit = _adata.posterior_from(adata, posterior_key)
    trace = _read_trace(adata, key_added, fit.genes)
    requested = read_target(adata, target, fit)
    candidates_and_measured = read_all(candidates, fit, requested)
    pool = candidates_and_measured.rows(np.flatnonzero(candidates_and_measured.allowed))
    requested = pool.target
    this_round = 1
    # A call on the same cells repeats the last round.
    if trace is not None and len(trace):
        before = str(_adata.eager(adata.uns[key_added]).get("cells", ""))
        are_same_cells = bool(fit.fingerprint) and _adata.same_cells(before, fit.fingerprint)
        this_round = int(trace["round"].max()) + (not are_same_cells)
    # A seed is combined with the number of the round, so that rounds differ.
    seeds = rng if rng is None or isinstance(rng, np.random.Generator) else [rng, this_round]
    ranking = rank(
        pool,
        fit,
        n_cells=n_cells,
        noise_aware=noise_aware,
        n_samples=n_samples,
        rng=np.random.default_rng(seeds),
    )
    if acquisition == "auto":  # that of the paper where the model is the paper's
        of_exact = "civ" if requested.goal.is_plain else "remaining_variance"
        acquisition = of_exact if fit.is_exact else "probability"
    values, reduction = core.find_acquisition(acquisition).of_candidates(ranking.draws)
    # The uncertainty that their cells are expected to resolve, if the acquisition computes it.
    removed = np.full(len(values), np.nan) if reduction is None else reduction
    # The paper ranks by CIV in all cases.
    flat = len(removed) > 1 and bool(np.ptp(removed) < FLAT) and (noise_aware or not fit.is_exact)
    table, order = ranking_table(ranking, values, removed, fit, flat=flat)
    floor = measured_goal(requested, fit).floor
    rule = StoppingRule(**stopping or {})
    best = table.iloc[0]
    row = {
        "round": this_round,
        "chosen": str(best["perturbation"]),
        "acquisition": acquisition,
        "value": float(best["acquisition"]),
        "target": requested.name,
        "predicted_distance": float(best["predicted_distance"]),
        "predicted_low": float(best["predicted_low"]),
        "predicted_high": float(best["predicted_high"]),
        "n_control_cells": fit.n_control_cells,
        "n_perturbed_cells": int(fit.environments["n_cells"].sum()),
        "n_perturbations": len(fit.environments),
        "n_cells": n_cells,
    }
    stored = {
        "ranking": table,
        "not_ranked": pd.DataFrame(
            {
                "perturbation": _adata.strings(requested.not_ranked),
                "why": _adata.strings(requested.not_ranked.values()),
            }
        ),
        "trace": _extend_trace(trace, row),
        "targets": _adata.stored_lists(pool.candidates.interventions.targets[i] for i in order),
        "shifts": sp.csr_array(pool.candidates.interventions.shifts[order]),
        "as_near": as_near_table(ranking, order, rule.tolerance),
        "advice": advise_on(adata, fit, candidates_and_measured, rule=rule),
        "floor": float(np.atleast_1d(floor)[-1]),
        "target_mean": requested.mean,
        "genes": _adata.strings(fit.genes),
        **fit.origin,
        "params": {
            "acquisition": acquisition,
            "n_graphs": fit.n_graphs,
            "target": requested.name,
            "distance": requested.distance,
            "genes_left_out": requested.genes_in_words,
            "candidates": _word(candidates, "fitted"),
            "n_cells": n_cells,
            "noise_aware": int(noise_aware),
            "n_samples": int(n_samples),
            "posterior_key": posterior_key,
            "perturbation_key": str(fit.params["perturbation_key"]),
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    advice = stored["advice"]
    of_advice.log(logging.WARNING if warns(advice) else logging.INFO, "%s", advice["words"])
    logger.info(
        "Round %d, target %s: %s ranks first of %d candidates by %s.",
        this_round,
        requested.name,
        row["chosen"],
        int(ranking.admitted.sum()),
        acquisition,
    )
    if flat:
        logger.warning(
            "The candidates differ by less than 1%% in variance reduction (%d cells of each are "
            "expected to resolve %.2g to %.2g%% of the remaining uncertainty, by %s), so they are "
            "ranked by state_distance.",
            n_cells,
            100 * removed.min(),
            100 * removed.max(),
            acquisition,
        )
    return written


def _word(option: Any, default: str) -> str:
    if option is None:
        return default
    if isinstance(option, str):
        return option
    return "table" if hasattr(option, "items") else "list"


def _read_trace(adata: ad.AnnData, key: str, genes: list[str]) -> pd.DataFrame | None:
    """Return the trace of earlier rounds, or ``None`` if there are none.

    Raises
    ------
    ValueError
        If ``adata.uns[key]`` is not a design, or a design on another gene panel.
    """
    if key not in adata.uns:
        return None
    stored = _adata.read_stored(adata, key, "tl.design_interventions with another key_added")
    if "trace" not in stored or {str(gene) for gene in stored["genes"]} != set(genes):
        message = (
            f"adata.uns[{key!r}] is not a design on this gene panel: choose another key_added, or "
            f"delete that entry."
        )
        raise ValueError(message)
    trace: pd.DataFrame = stored["trace"]
    return trace
