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
    r"""Compute how many cells, guides and replicates are needed, and advise what to do next.

    The mean of ``n`` cells in ``g`` guides and ``r`` replicates (batches) has the variance
    :math:`\sigma^2 (1/n + \tau_g^2/g + \tau_r^2/r)`, estimated from this screen. From it follow the
    power to detect an effect on a gene by Welch's test, the precision of the squared distance to a
    target, and the probability that the nearest perturbation is also measured nearer than another.
    These numbers are conservative: shrunken effects (:func:`perturbation_effects`) need fewer cells
    for the same error. With a target there is also an advice: the target does not differ from the
    control, no perturbation differs from the others, confirm what you have, measure more cells, or
    order this plan (of the size in ``uns["plan"]``, if there is one). It uses the tests of a
    :func:`diagnose` of this fit. :doc:`/guides/plan_a_plate` has the rule, and
    :func:`nextpert.pl.plan_cells` draws the curves.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`fit_dag_blr`, whose panel, labels, guides and batches are used.
    target
        The target state, as in :func:`design_interventions`; ``None`` plans for effects alone. A
        :class:`nextpert.Target` that is more than one state gets the advice alone.
    posterior_key
        The ``key_added`` of the fit.
    effect
        Effect on a gene to detect, in units of the data: with natural logarithms, 0.2 is a change
        by a fifth.
    tolerance
        Precision needed of a distance (half the width of its interval), relative to the control's
        distance. For the advice: the gain that is not worth another experiment.
    power
        Probability of detecting the effect, above 0.5; 0.8 is the usual choice.
    confidence
        One minus the level of each test; for ``m`` tests together, ``1 - 0.05 / m``.
    n_guides, n_replicates
        Guides and replicates per perturbation to plan for; ``None``: the median of the screen.
    candidates, target_is_candidate
        Candidates for the advice, as in :func:`design_interventions`.
    n_samples, rng
        Draws of the distances (1,000 give probabilities a standard error of at most 0.016), and
        seed or generator.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. :doc:`/model/stored_results` lists all columns. Writes
        ``uns["plan_cells"]`` with:

        - ``verdict`` (text): all results in sentences.
        - ``genes`` (table): by gene, ``power`` with the present cells, and ``cells_needed``.
        - ``curves`` (table): ``power`` and ``half_width`` by ``n_guides`` and ``n_cells``.
        - ``distances`` (table): with a target, the ``distance`` of every perturbation, nearest
          first, and ``cells_to_distinguish`` it from the nearest.
        - ``advice`` (mapping): with a target, ``kind``, ``words`` (a sentence), ``best_known``,
          ``good_enough``, ``perturbations``, ``n_perturbations``, ``n_cells`` and others.
        - ``noise`` (mapping): variances between guides and replicates, relative to that of a cell.

    Raises
    ------
    ValueError
        If there is no fit, it has no perturbed cells, a name is unknown, or a number is out of
        range. TypeError if ``target`` has none of its forms. Nothing is written then.

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
    fit = _adata.posterior_from(adata, posterior_key)
    goal = None
    if target is not None:
        goal = read_target(adata, target, fit, str(fit.params["perturbation_key"]))
    measured = read_measured(adata, fit, n_guides, n_replicates)
    noise, layout = measured.noise, measured.layout
    distances = None
    # Of a goal that is not one state the precision has no closed form.
    if goal is not None and goal.goal.is_states and len(goal.goal.states) == 1:
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
