"""``tl.plan_cells``: how many cells, guides and replicates a perturbation needs."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata.arguments import above, at_least, between, checked, one_of
from nextpert._adata.table import require_cells
from nextpert.tl._advice import TOLERANCE, advise
from nextpert.tl._design_interventions.candidates import read_candidates
from nextpert.tl._design_interventions.own_genes import without_own_genes
from nextpert.tl._design_interventions.target import read_target
from nextpert.tl._plan_cells.distances import distances_table, read_distances, read_measured
from nextpert.tl._plan_cells.tables import (
    CELLS,
    curves_table,
    distances_in_words,
    effects_in_words,
    genes_table,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad
    import pandas as pd

    from nextpert._adata.target import Target, Vector

logger = logging.getLogger(__name__)


@checked(
    effect=above(0), tolerance=above(0), power=between(0.5, 1), confidence=between(0, 1),
    candidates=one_of("genes"), n_samples=at_least(2),
)  # fmt: skip
def plan_cells(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target | None = None,
    *,
    posterior_key: str = "dag_blr",
    effect: float = 0.2,
    tolerance: float = TOLERANCE,
    power: float = 0.8,
    confidence: float = 0.95,
    n_guides: int | None = None,
    n_replicates: int | None = None,
    candidates: str | Sequence[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    target_is_candidate: bool = False,
    n_samples: int = 1000,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "plan_cells",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Compute how many cells, guides and replicates per perturbation are needed, and what to do.

    The mean of ``n`` cells in ``g`` guides and ``r`` replicates has the variance
    :math:`\sigma^2 (1/n + \tau_g^2/g + \tau_r^2/r)`. The variances of cells, guides and replicates
    (batches, after their effect on all cells is subtracted) are estimated from this screen. If
    guides differ, more cells cannot reduce the variance below :math:`\sigma^2 \tau_g^2/g`, and the
    plan states how many guides are needed. From these variances follow:

    - the power to detect an effect on a gene, by Welch's test against the existing controls;
    - the precision of the squared distance to a target
      (:func:`~nextpert.core.screen.mean_distance.mean_distance`);
    - the probability that the nearest perturbation is also measured nearer than another
      (:class:`~nextpert.core.design.power.NearerChance`, by draws of the errors of means).

    With a target it also gives the advice on what to do next, by one rule that
    :func:`design_interventions`, :func:`plan_screen` and :func:`nextpert.report` share
    (:doc:`/guides/plan_a_plate` has its table): the target does not differ from the control; no
    perturbation differs from the others, at a false discovery rate of 0.1%; confirm what you have,
    if with probability 0.95 or more no candidate is closer than the best known by more than
    ``tolerance``; measure more cells of these first, if that gains as much as the best plan of as
    many cells (:func:`~nextpert.core.design.stopping.stopping`); else order this plan.
    If ``uns["diagnosis"]`` is the :func:`diagnose` of this fit, its tests are used, and nothing is
    said to differ if its negative controls are not trusted.
    The plan has the size of that in ``uns["plan"]``, if there is one, else the default size of
    :func:`plan_screen`.

    The power is that of a two-sided test, averaged over increases and decreases. With few cells the
    power for one of the two is higher, because counts are skewed.

    Power and precision are those of means of cells. Shrinkage (:func:`perturbation_effects`) needs
    fewer cells for the same error, so these numbers are conservative. Plot the curves with
    :func:`nextpert.pl.plan_cells`.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`fit_dag_blr`, whose panel, labels, guides and batches are used.
    target
        A perturbation label, a pair ``(obs key, value)``, a mapping gene -> target mean, a NumPy
        vector of means over the panel, or a :class:`nextpert.Target`, as in
        :func:`design_interventions`. For a :class:`nextpert.Target` that is not a single state,
        only the advice is given. ``None`` (default) plans for effects alone.
    posterior_key
        The ``key_added`` of the fit.
    effect
        Size of the effect on a gene to detect, in units of the data: with natural logarithms, 0.2
        is a change of a well expressed gene by a fifth.
    tolerance
        Precision needed of distances, relative to the control's distance: half the width of the
        interval. For the advice, what need not be gained any more.
    power
        Probability needed of detecting the effect, and of distinguishing the nearest perturbation
        from another, above 0.5. 0.8 is the usual choice.
    confidence
        One minus the level of each single test; for ``m`` tests together, ``1 - 0.05 / m``.
        Intervals cover 90% whatever it is, as everywhere in the package.
    n_guides, n_replicates
        Number of guides and of replicates per perturbation to plan for. ``None`` (default): the
        median of the screen.
    candidates
        Candidates for the advice, as in :func:`design_interventions`: ``None`` (default)
        for the perturbations of the fit, ``"genes"`` for these and all genes of the panel.
    target_is_candidate
        As in :func:`design_interventions`, for the advice.
    n_samples, rng
        Number of draws of the distances for the advice; and seed or generator, of these and
        of the draws that compare the nearest with another. With 1,000 draws the standard error of a
        probability is at most 0.016.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Writes ``uns["plan_cells"]`` with:

        - ``genes`` (table): one row per gene: ``cell_sd`` (of a perturbed cell), ``half_width`` and
          ``power`` (with the current median number of cells), ``cells_needed`` (infinite if guides,
          replicates or controls do not allow it), ``guides_needed`` (the minimum with which some
          number of cells suffices), ``highest_power`` (for infinitely many cells),
          ``cells_for_half`` (for an interval of ± half the effect).
        - ``curves`` (table): by ``n_guides`` and ``n_cells``, ``half_width`` of the median gene and
          ``power``, the fraction of genes in which the effect is detected; with a target
          ``distance_half_width`` of the nearest (relative to the control's distance) and
          ``right_choice``, the probability that it is measured nearer than the second.
        - ``distances`` (table): with a target, one row per perturbation, nearest first:
          ``distance`` (unbiased, squared units), ``sd``, ``relative_distance``, ``cells_needed``
          and ``guides_needed`` for ``tolerance``, ``difference`` to the nearest (of the nearest: to
          the second) and ``cells_to_distinguish``, ``guides_to_distinguish``: the numbers per
          perturbation that distinguish the two, if the difference is as measured. Values relative
          to the control's distance, and the cells needed for them, are NaN if that distance is
          estimated as 0.
        - ``advice`` (mapping): with a target: ``kind``, one of the five above, and ``words``, the
          sentence; ``best_known`` (the measured candidate of the smallest expected distance, or no
          perturbation), ``probability_best_known`` (of being the nearest of all candidates) and its
          ``relative_distance`` (predicted, a share of the control's); ``good_enough``, the
          probability that no candidate is closer than the best known by more than ``tolerance``;
          ``gain``, the squared distance by which the best known is expected to be closer after the
          best plan, ``relative_gain``, that as a share of the control's distance, and
          ``relative_gain_of_more``, by as many more cells of measured candidates;
          ``perturbations``, those to confirm or to measure; ``cells_needed``, the cells of each of
          them that estimate its distance within ``tolerance`` (else 0); ``n_perturbations``
          and ``n_cells`` (of each) of the plan, and ``n_new_guides`` for more cells of measured
          perturbations, 0 if guides do not differ; ``n_distinct`` and ``n_untested``, the
          candidates that differ and those without cells; ``controls_trusted``, 0 if a diagnosis of
          this fit does not trust its negative controls; ``tolerance`` and ``confidence``; and
          ``candidates``. Shares and ``good_enough`` are NaN if the control cannot be distinguished
          from the target.
        - ``noise`` (mapping): ``guide_variance`` and ``replicate_variance`` (relative to that of a
          cell), ``control_guide_variance``, ``n_guides``, ``n_replicates``, ``n_cells`` (medians),
          ``n_control_cells``.
        - ``verdict`` (text): all results in sentences, a subject on each line.
        - ``cells``, ``fit`` (texts): the fingerprint of the fit's cells, and the digest of the fit.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If there is no fit, it has no perturbed cells, the target or a candidate is unknown, or a
        number is out of range. Nothing is written on error.
    TypeError
        If ``target`` has none of its forms.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_cells(adata, {"MYC": 1.0})
    >>> plan = adata.uns["plan_cells"]
    >>> bool(plan["genes"]["cells_needed"].median() < 100)
    True
    >>> plan["distances"]["perturbation"].tolist()
    ['MYC', 'FOS']
    """
    require_cells(adata, "plan_cells")
    if n_guides is not None and n_guides > CELLS[-1]:
        message = (
            f"n_guides is {n_guides}, but the plan has up to {CELLS[-1]} cells per perturbation, "
            f"and each guide needs one: give fewer n_guides."
        )
        raise ValueError(message)
    effect, confidence, tolerance = float(effect), float(confidence), float(tolerance)
    fit = _adata.posterior_from(adata, posterior_key, compare=False)
    goal = None
    if target is not None:
        goal = read_target(adata, target, fit, str(fit.params["perturbation_key"]))
    measured = read_measured(adata, fit, posterior_key, n_guides, n_replicates)
    noise, layout = measured.noise, measured.layout
    distances = None
    if goal is not None and goal.goal.is_state:  # of others the precision has no closed form
        distances = read_distances(measured, goal, fit, rng)
    genes = genes_table(fit.genes, measured, effect=effect, power=power, confidence=confidence)
    stored: dict[str, Any] = {
        "genes": genes,
        "curves": curves_table(measured, distances, effect=effect, confidence=confidence),
        "noise": {
            "guide_variance": noise.guide_variance,
            "control_guide_variance": noise.control_guide_variance,
            "replicate_variance": noise.replicate_variance,
            "n_control_cells": int(noise.pooled.n_cells[0]),
            "n_guides": float(np.median(noise.n_guides[1:])),
            "n_replicates": float(np.median(noise.n_replicates[1:])),
            "n_cells": float(np.median(measured.n_cells)),
        },
    }
    sentences = [effects_in_words(genes, layout, effect=effect, power=power)]
    params: dict[str, Any] = {
        "effect": effect,
        "power": power,
        "confidence": confidence,
        "tolerance": tolerance,
        "n_guides": layout.n_guides,
        "n_replicates": layout.n_replicates,
        "posterior_key": posterior_key,
        "rng": _adata.seed_of(rng),
    }
    if distances is not None and goal is not None:
        options = {"tolerance": tolerance, "power": power}
        stored["distances"] = distances_table(distances, **options)
        sentences.append(distances_in_words(stored["distances"], goal.name, layout, **options))
    if goal is not None:
        params |= {
            "target": goal.name,
            "distance": goal.distance,
            "target_is_candidate": int(target_is_candidate),
        }
        pool = read_candidates(candidates, None, fit, goal, target_is_candidate=target_is_candidate)
        pool, goal_without_own = without_own_genes(pool, goal, fit)
        params["genes_left_out"] = goal_without_own.genes_in_words
        stored["advice"] = advise(
            adata, fit, pool, goal_without_own, n_guides=n_guides, tolerance=tolerance,
            n_samples=n_samples, rng=rng,
        )  # fmt: skip
        sentences.append(stored["advice"]["words"])
    stored |= {"verdict": "\n".join(sentences), **fit.origin, "params": params}
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", stored["verdict"])
    return written
