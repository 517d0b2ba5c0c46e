"""``tl.design_interventions``: which perturbation to try next."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata, core
from nextpert._adata import effects as _shifts
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert.core._shown import percent
from nextpert.core.design.stopping import AT_TARGET, NO_DIFFERENCE
from nextpert.core.fit.candidates import as_asked
from nextpert.tl._advice import advise
from nextpert.tl._design_interventions import tables
from nextpert.tl._design_interventions.candidates import read_candidates
from nextpert.tl._design_interventions.combinations import admit
from nextpert.tl._design_interventions.own_genes import without_own_genes
from nextpert.tl._design_interventions.target import read_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import anndata as ad

    from nextpert._adata.target import Target, Vector


logger = logging.getLogger(__name__)


@checked(
    acquisition=one_of(lambda: ("auto", *core.acquisitions())), candidates=one_of("genes"),
    shift=one_of(*_shifts.KINDS), n_samples=at_least(2),
)  # fmt: skip
def design_interventions(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target,
    *,
    acquisition: str = "auto",
    candidates: str | Iterable[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    target_is_candidate: bool = False,
    shift: str | pd.DataFrame | Mapping[str, Mapping[str, float]] | None = None,
    n_cells: int = 100,
    noise_aware: bool = True,
    posterior_key: str = "dag_blr",
    perturbation_key: str | None = None,
    n_samples: int = 400,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "design",
    copy: bool = False,
) -> ad.AnnData | None:
    """Rank the perturbations to test next so that cells reach a target state.

    Use it to choose a single perturbation; :func:`plan_screen` chooses a plate. The table has
    candidates with and without cells, best first, with the predicted distance of each to the target
    and the probability that it is the nearest, from joint draws of the fit. See
    :doc:`/guides/read_a_ranking`, and :doc:`/model/mathematics` for the formulas. After an exact
    fit (``shift_sd=0``) the order is that of CIV, the causal integrated variance of Zhang et al.
    2023 (doi:10.1038/s42256-023-00719-0), which reduces uncertainty.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`fit_dag_blr`.
    target
        The target state: a label (its state by the fit); a pair ``(obs key, value)``; a mapping
        gene -> mean, log-normalised expression (other genes keep their control mean); a vector of
        means over the panel; or a :class:`nextpert.Target` for signatures, bounds or weights.
    acquisition
        ``"auto"`` (default): ``"civ"`` on an exact fit, otherwise ``"probability"``. One of:

        - to reach the target, ``"probability"`` (of being the nearest), ``"ei"`` (expected
          improvement), ``"thompson"`` (nearest in one draw) or ``"greedy"`` (expected distance);
        - to reduce uncertainty, ``"civ"``; as a baseline, ``"random"``;
        - with exact shifts also ``"civ_ow"`` (output-weighted CIV), ``"cv"``, ``"maxv"``,
          ``"mi"``, ``"target_mean_variance"`` and ``"ucb"``, as in the paper;
        - the name of an acquisition of your own (:doc:`/developer/acquisition`).
    candidates
        ``None`` (default): the perturbations of the fit. ``"genes"``: these and a knockout of
        every gene of the panel. Or a list of labels, which may be untested combinations such as
        ``"MYC+STK3"``, or a table of shifts as in :func:`fit_dag_blr`.
    target_is_candidate
        Whether a perturbation whose state is the target may be a candidate. By default it is
        excluded, because it would always be ranked first; combinations that contain it stay.
    shift
        Shift of the candidates: ``None`` (default) as fitted, or as in :func:`fit_dag_blr`.
    n_cells
        Cells of the next perturbation, for ``"civ"`` and other acquisitions that look ahead.
    noise_aware
        With exact shifts: whether the look-ahead uses the scatter of these cells (default), or
        treats them all as equal to their mean, as the paper does.
    posterior_key, perturbation_key
        Posterior in ``adata.uns``, and column of labels; ``None`` takes that of the fit.
    n_samples
        Posterior draws; 400 give probabilities a standard error of at most 0.025.
    rng
        Seed or generator. A seed is combined with the number of the round.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. :doc:`/model/stored_results` lists all columns. Writes
        ``uns["design"]`` with:

        - ``ranking`` (table): candidates, best first, and the control last: ``perturbation``,
          ``probability_best``, ``predicted_distance`` (squared units) and its 90% interval
          ``predicted_low`` to ``predicted_high``, ``relative_distance`` (to that of the control)
        - ``advice`` (mapping): what to do next, as in :func:`plan_cells`; ``words`` is a sentence.
        - ``not_ranked`` (table): candidates that were left out, and why.
        - ``trace`` (table): the choice of this and of all earlier rounds.

    Raises
    ------
    ValueError
        If there is no posterior, a name is unknown (close matches are suggested), or there are no
        candidates. Nothing is written then.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=10, n_control=600, n_perturbed=60, rng=7)
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.design_interventions(adata, "CDK4")  # which knockout is nearest to its state?
    >>> first = adata.uns["design"]["ranking"].iloc[0]
    >>> first["perturbation"], bool(first["probability_best"] > 0.9)
    ('CDH19', True)
    """
    fit = _adata.posterior_from(adata, posterior_key)
    trace = tables.read_trace(adata, key_added, fit.genes)
    key = str(fit.params["perturbation_key"]) if perturbation_key is None else perturbation_key
    wanted = read_target(adata, target, fit, key)
    pool = read_candidates(candidates, shift, fit, wanted, target_is_candidate=target_is_candidate)
    pool, wanted = without_own_genes(pool, wanted, fit)
    this_round = tables.round_of(adata, key_added, trace, fit.fingerprint)
    # A seed is joined with the number of the round, so that rounds differ.
    seeds = rng if rng is None or isinstance(rng, np.random.Generator) else [rng, this_round]
    asked = as_asked(
        fit, pool, wanted.goal, wanted.targets, n_cells=n_cells, noise_aware=noise_aware,
        n_samples=n_samples, rng=np.random.default_rng(seeds),
    )  # fmt: skip
    admission = admit(asked, pool, fit, wanted)
    if acquisition == "auto":  # that of the paper where the model is the paper's
        acquisition = "civ" if fit.is_exact else "probability"
    values, reduction = core.find_acquisition(acquisition).of_candidates(asked)
    # What their cells are expected to resolve, where the acquisition knows.
    removed = np.full(len(values), np.nan) if reduction is None else reduction
    distance = asked.distances
    ranking, order = tables.ranking_table(pool, values, removed, distance, admission, wanted, fit)
    best = ranking.iloc[0]
    row = {
        "round": this_round,
        "chosen": str(best["perturbation"]),
        "acquisition": acquisition,
        "value": float(best["acquisition"]),
        "target": wanted.name,
        "predicted_distance": float(best["predicted_distance"]),
        "predicted_low": float(best["predicted_low"]),
        "predicted_high": float(best["predicted_high"]),
        "n_control_cells": fit.n_control_cells,
        "n_perturbed_cells": int(fit.environments["n_cells"].sum()),
        "n_perturbations": len(fit.environments),
        "n_cells": n_cells,
    }
    stored = {
        "ranking": ranking,
        "not_ranked": pd.DataFrame(
            {
                "perturbation": _adata.strings(wanted.not_ranked),
                "why": _adata.strings(wanted.not_ranked.values()),
            }
        ),
        "trace": tables.extend_trace(trace, row),
        "targets": _adata.stored_lists(pool.interventions.targets[i] for i in order),
        "shifts": sp.csr_array(pool.interventions.shifts[order]),
        "advice": advise(adata, fit, pool, wanted),
        "floor": float(np.atleast_1d(wanted.cells.floor)[-1]),
        "target_mean": wanted.mean,
        "genes": _adata.strings(fit.genes),
        **fit.origin,
        "params": {
            "acquisition": acquisition,
            "n_graphs": fit.n_graphs,
            "target": wanted.name,
            "distance": wanted.distance,
            "genes_left_out": wanted.genes_in_words,
            "candidates": _word(candidates, "fitted"),
            "target_is_candidate": int(target_is_candidate),
            "shift": _word(shift, "fitted"),
            "n_cells": n_cells,
            "noise_aware": int(noise_aware),
            "n_samples": int(n_samples),
            "posterior_key": posterior_key,
            "perturbation_key": key,
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    advice = stored["advice"]
    severe = advice["kind"] in (AT_TARGET, NO_DIFFERENCE)  # no ranking can be followed
    logger.log(logging.WARNING if severe else logging.INFO, "%s", advice["words"])
    logger.info(
        "Round %d: of %d candidates towards %s, %s is the first by %s%s. It is "
        "the nearest with probability %s; its predicted distance is %.3g (%.3g to %.3g), "
        "the control's %.3g.",
        this_round, int(admission.admitted.sum()), wanted.name, best["perturbation"], acquisition,
        f" (shift of {best['target_genes']}: {best['shift']})" * bool(best["target_genes"]),
        percent(best["probability_best"]),
        best["predicted_distance"], best["predicted_low"], best["predicted_high"],
        tables.nothing_of(ranking)["predicted_distance"],
    )  # fmt: skip
    if tables.is_flat(removed):
        logger.warning(
            "The candidates differ by less than 1%% in variance reduction (%d cells of each are "
            "expected to resolve %.2g to %.2g%% of the remaining uncertainty, by %s), so they are "
            "ranked by state_distance.",
            n_cells, 100 * removed.min(), 100 * removed.max(), acquisition,
        )  # fmt: skip
    return written


def _word(option: Any, default: str) -> str:
    if option is None:
        return default
    if isinstance(option, str):
        return option
    return "table" if hasattr(option, "items") else "list"
