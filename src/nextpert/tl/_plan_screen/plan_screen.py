"""``tl.plan_screen``: which perturbations share the next plate, and how many cells each gets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import at_least, checked, one_of, options
from nextpert.core import acquisitions
from nextpert.core._checks import as_rng
from nextpert.core._shown import percent
from nextpert.core.design.stopping import AT_TARGET, NO_DIFFERENCE, ORDER
from nextpert.tl._advice import ADDS_UP, advice_on, advise, log_advice
from nextpert.tl._design_interventions.combinations import not_admitted_in_words
from nextpert.tl._design_interventions.target import read_target
from nextpert.tl._plan_cells.distances import guides_of, usual_guides
from nextpert.tl._plan_screen.constructs import constructs_table
from nextpert.tl._plan_screen.pool import most_informative_combination, read_constraints, read_pool
from nextpert.tl._plan_screen.wells import (
    FORMATS,
    N_SAMPLES,
    STRATEGIES,
    Choice,
    plate_table,
    split_cells,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad

    from nextpert._adata.target import Target, Vector

logger = logging.getLogger(__name__)


@options(max_new=at_least(0), plate_format=one_of(*FORMATS))
@dataclass(frozen=True)
class _Constraints:
    """``constraints``: each is documented there."""

    include: Iterable[str] | None = None
    exclude: Iterable[str] | None = None
    max_combination: int = 1
    min_cells: int = 20
    max_new: int | None = None
    costs: Mapping[str, Any] | None = None
    plate_format: int | None = None


@checked(
    strategy=one_of(lambda: (*STRATEGIES, *acquisitions())), candidates=one_of("genes"),
    constraints=_Constraints, n_controls=at_least(0),
)  # fmt: skip
def plan_screen(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target,
    *,
    n_perturbations: int = 8,
    n_cells: int = 2000,
    strategy: str = "exploit",
    candidates: str | Iterable[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    target_is_candidate: bool = False,
    constraints: Mapping[str, Any] | None = None,
    pending: Iterable[str] | Mapping[str, int] | None = None,
    n_controls: int | None = None,
    n_guides: int | None = None,
    posterior_key: str = "dag_blr",
    rng: int | np.random.Generator | None = 0,
    key_added: str = "plan",
    copy: bool = False,
) -> ad.AnnData | None:
    """Plan the next plate: perturbations, cells of each and controls, within a budget.

    Each perturbation of the plate is chosen by one of two strategies.

    - ``"exploit"`` looks for the nearest candidate. Half of the perturbations (rounded up) are the
      candidates whose expected state is nearest to the target. The other half are, of the remaining
      candidates, those that are most likely the nearest. This rule did best in replays of screens.
      It chooses no candidate whose expected state is farther from the target than the control. If
      too few candidates are nearer, the rest of the plate is chosen by ``"explore"``, with a
      warning. An untested combination is a candidate only if it is nearer than all its members, and
      nearer than the best measured candidate, each with a probability above 0.5.
    - ``"explore"`` reduces uncertainty. It adds one candidate after the other: the one whose cells
      are expected to resolve most of the remaining uncertainty about the distances of all
      candidates that may be nearer than the control (causal integrated variance, Zhang et al. 2023,
      doi:10.1038/s42256-023-00719-0).

    ``strategy="both"`` chooses by ``"exploit"`` until the plate contains the nearest candidate with
    probability 0.95, and the others by ``"explore"``.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`fit_dag_blr`.
    target
        The target state, as in :func:`design_interventions`.
    n_perturbations
        Maximum number of perturbations on the plate. Set it to what your lab can make.
    n_cells
        Number of cells in all, controls included. Set it to what your lab can sequence.
    strategy
        ``"exploit"`` (default), ``"explore"`` or ``"both"``; or an acquisition of
        :func:`design_interventions`, such as ``"thompson"`` or ``"ei"``, which then fills all
        wells.
    candidates
        As in :func:`design_interventions`: ``None`` (default), every perturbation the fit used;
        ``"genes"``; a list of labels, combinations included; or a table of shifts.
    target_is_candidate
        As in :func:`design_interventions`: whether a target that is a label keeps its own
        perturbation among the candidates.
    constraints
        Limits of the lab, a mapping with some of:

        - ``"include"``: candidates that the plan has to contain.
        - ``"exclude"``: labels, or genes that no candidate may target. Combinations that contain
          such a perturbation are excluded as well. An excluded perturbation is not a candidate: it
          is part of no distance and no probability.
        - ``"max_combination"`` (1): maximum number of perturbations combined in one cell. Above 1,
          the 200 combinations of each size that are expected nearest to the target become
          candidates, tested or not. All pairs are compared; larger combinations are found by a
          beam search. They contain candidates only.
        - ``"min_cells"`` (20): minimum number of cells per perturbation. With
          ``strategy="explore"`` the cells are divided to reduce uncertainty most, else equally. If
          ``n_cells`` is too small, fewer perturbations are planned.
        - ``"max_new"``: maximum number of perturbations without cells so far, for which new guides
          have to be made; by default any number.
        - ``"costs"``: a mapping with ``"budget"``, ``"perturbation"`` (cost of one, or a mapping of
          candidates to costs) and ``"cell"``, in any currency: perturbations are then chosen by
          their gain per cost. By default only perturbations and cells are limited.
        - ``"plate_format"``: for an arrayed screen, the wells of a plate (8, 96 or 384): every
          perturbation is assigned to a well. By default the screen is pooled.
    pending
        Candidates under way or in the freezer, counted as if measured: labels (with as many cells
        as a well of this plate), or a mapping of labels to numbers of cells. They stay candidates,
        but are not chosen.
    n_controls
        Control cells on the plate, of ``n_cells``. ``None`` (default): as many as make the
        differences between ``k`` perturbations and their controls most precise, the square root
        of ``k`` times the cells of a perturbation (Dunnett 1955, doi:10.2307/2281208).
    n_guides
        Guides of a perturbation, which share its cells, so at most as many as these. ``None``
        (default): as many as one of the screen's has (the median), and of a measured one no more
        than it has; 1 where guides are not known.
    posterior_key
        Posterior in ``adata.uns``.
    rng
        Seed or generator.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Writes ``uns["plan"]`` with:

        - ``plate`` (table): one row per perturbation in the order chosen, controls last: ``well``
          (with a ``"plate_format"``), ``perturbation``, ``target_genes``, ``genes_left_out`` (of
          its distances, as in :func:`design_interventions`), ``n_guides``,
          ``n_cells``, ``n_cells_seen``, ``strategy`` (that chose it), ``why`` (a sentence),
          ``state_distance`` (of the expected state, as in :func:`design_interventions`; it chooses
          the first half of ``"exploit"``), ``probability_among_rest`` (of being the nearest of the
          candidates not chosen by ``state_distance``, to first order in the uncertainty; it chooses
          the second
          half, and is NaN for others), ``probability_best`` (of being the nearest of all
          candidates), ``probability_contains_best`` (that the nearest is among those up to this one
          or in progress), ``variance_reduction`` (expected, by the cells up to this one),
          ``predicted_distance`` with its 90% interval ``predicted_low`` to ``predicted_high`` (the
          median, as in :func:`design_interventions`), ``probability_nearer_than_members``,
          ``probability_nearer_than_measured`` and ``members_without_effect`` (of untested
          combinations, as in :func:`design_interventions`) and ``cost``.
        - ``constructs`` (table): what to make, one row per construct, the controls last:
          ``perturbation``, ``construct`` (its number within the perturbation), ``kind``
          (``"single guide"``, ``"dual guide"``, ``"control"``), ``status`` (``"existing"``: in the
          screen; ``"clone"``: to be cloned from guides of the screen; ``"design"``: with a guide to
          design), ``guides`` (identifiers of guides that exist, empty if not known),
          ``new_guides_of`` (members for which a guide is to be designed), ``target_genes`` (of all
          members, also outside the panel) and ``n_cells``.
        - ``summary`` (mapping): ``n_cells``, ``n_controls``, ``cost``,
          ``probability_contains_best`` and ``variance_reduction`` of the whole plate;
          ``probability_contains_better``, that one of the plate or in progress is nearer to the
          target than the control, which is no candidate: the nearest candidate may be farther;
          ``most_informative_combination``, the combination among the candidates whose cells are
          most informative about interactions, empty without one; ``n_not_admitted``, the untested
          combinations that are no candidates; and ``if_effects_add_up``, 1 if some are candidates
          and no measured combination tells of interactions: probabilities then hold only if effects
          add up.
        - ``advice`` (mapping): what to do next, as in :func:`plan_cells`, for this plan.
        - ``pending`` (table): the perturbations in progress.
        - ``target_mean`` (array, ``(n_genes,)``): the target state.
        - ``genes`` (names, ``(n_genes,)``): its genes.
        - ``cells``, ``fit`` (texts): the fingerprint of the fit's cells, and the digest of the fit.
        - ``params`` (mapping): the options of the call.

        :func:`nextpert.report` contains the plate as a csv file for the lab.

    Raises
    ------
    ValueError
        If there is no posterior, a name is unknown (close matches are suggested), constraints
        contradict each other, or cells or budget do not suffice for one perturbation. Nothing is
        written on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=40, perturbed=4, expected_degree=2
    ... )
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    >>> npt.tl.fit_dag_blr(adata)
    >>> target = adata.obs["perturbation"].unique()[1]
    >>> npt.tl.plan_screen(adata, target, n_perturbations=2, n_cells=200, candidates="genes")
    >>> plate = adata.uns["plan"]["plate"]
    >>> len(plate), int(plate["n_cells"].sum())
    (3, 200)
    """
    asked = _Constraints(**constraints or {})
    fit = _adata.posterior_from(adata, posterior_key, compare=False)
    label_key = str(fit.params["perturbation_key"])
    wanted = read_target(adata, target, fit, label_key, key=posterior_key)
    if pending is not None and not isinstance(pending, Mapping):
        pending = _adata.in_order(pending)
    read = read_pool(
        candidates, fit, wanted, exclude=asked.exclude, pending=pending,
        max_combination=asked.max_combination, target_is_candidate=target_is_candidate,
    )  # fmt: skip
    pool, wanted = read.candidates, read.wanted
    wells = split_cells(n_cells, n_perturbations, n_controls, asked.min_cells)
    limits = read_constraints(
        read, include=asked.include, pending=pending, costs=asked.costs, cells_each=wells.each
    )
    there = guides_of(adata, fit)
    usual = usual_guides(there) if n_guides is None else n_guides
    choice = Choice(
        fit, pool, wanted.goal, limits, wells, targets=wanted.targets, n_guides=usual,
        n_samples=N_SAMPLES, rng=as_rng(rng),
    )  # fmt: skip
    admission = choice.admit(pool, fit, wanted)
    found = choice.choose(strategy, max_new=asked.max_new, fixed_controls=n_controls)
    if n_guides is not None and n_guides > found.cells.min():
        message = (
            f"n_guides is {n_guides}, but a perturbation of this plate has {found.cells.min()} "
            f"cells, and each guide needs one: give fewer n_guides, or more n_cells."
        )
        raise ValueError(message)
    guides = np.minimum(usual, found.cells)
    names, under_way = pool.interventions.names, limits.under_way
    if n_guides is None and there is not None:  # measured ones keep those that they have
        own = [len(there.get(names[i], ())) or usual for i in found.candidates]
        guides = np.minimum(guides, own)
    plate = plate_table(pool, choice, found, admission, guides, asked.plate_format, wanted, fit)
    some = np.flatnonzero(admission.admitted)
    if 0 < len(some) < len(names):  # by the draws of candidates that no combination is among
        advice = advise(
            adata, fit, pool.rows(some), wanted.rows(some), wells=wells, n_controls=n_controls,
            n_guides=n_guides, are_admitted=True, rng=rng,
        )  # fmt: skip
    else:
        advice = advice_on(adata, fit, pool, wanted, choice, found)
    nearer = choice.distance.is_nearer[:, [*found.candidates, *under_way]].any(axis=1)
    stored = {
        "plate": plate,
        "constructs": constructs_table(plate, fit, there, [names[i] for i in under_way]),
        "summary": {
            "n_cells": int(plate["n_cells"].sum()),
            "n_controls": found.n_controls,
            "cost": float(plate["cost"].sum()),
            "probability_contains_best": float(plate["probability_contains_best"].iloc[-1]),
            "probability_contains_better": float(nearer.mean()),
            "variance_reduction": float(plate["variance_reduction"].iloc[-1]),
            "most_informative_combination": most_informative_combination(pool, fit, wells.each),
            "n_not_admitted": int((~admission.admitted).sum()),
            "if_effects_add_up": int(admission.adds_up),
        },
        "advice": advice,
        "pending": pd.DataFrame(
            {
                "perturbation": _adata.strings(names[i] for i in under_way),
                "n_cells": limits.pending[under_way],
            },
            index=pd.Index(np.arange(len(under_way))),
        ),
        "target_mean": wanted.mean,
        "genes": _adata.strings(fit.genes),
        **fit.origin,
        "params": {
            "target": wanted.name,
            "distance": wanted.distance,
            "genes_left_out": wanted.genes_in_words,
            "strategy": strategy,
            "n_perturbations": int(n_perturbations),
            "n_cells": int(n_cells),
            "max_combination": asked.max_combination,
            "target_is_candidate": int(target_is_candidate),
            "n_candidates": int(admission.admitted.sum()),
            "min_cells": asked.min_cells,
            "n_guides": int(guides.max()),
            "plate_format": asked.plate_format or 0,
            "n_samples": N_SAMPLES,
            "posterior_key": posterior_key,
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    _say(stored, len(found.candidates))
    return written


def _say(stored: dict[str, Any], n_chosen: int) -> None:
    table, summary, params = stored["plate"], stored["summary"], stored["params"]
    target, kind = params["target"], stored["advice"]["kind"]
    is_advised, can_advise = kind == ORDER, kind not in (AT_TARGET, NO_DIFFERENCE)
    n_learn = int((table["strategy"] == "explore").sum())
    if params["strategy"] == "exploit" and n_learn and can_advise:
        logger.warning(
            "%d of %d perturbations are chosen by strategy 'explore' instead of 'exploit': "
            "no other candidate allowed has an expected state nearer to %s than the control.",
            n_learn, n_chosen, target,
        )  # fmt: skip
    log_advice(stored["advice"])
    if summary["n_not_admitted"]:
        logger.info("%s", not_admitted_in_words(int(summary["n_not_admitted"])))
    logger.info(
        "%s of %d perturbations (%d cells, of which %d are controls) towards %s: %s. With "
        "probability %s it contains the nearest of %d candidates%s, and it is expected to resolve "
        "%.2g%% of the remaining uncertainty.",
        "Plate" if is_advised else "Not what is advised, but planned: a plate",
        n_chosen, summary["n_cells"], summary["n_controls"], target,
        _adata.list_names(table["perturbation"].head(n_chosen).astype(str), limit=8),
        percent(summary["probability_contains_best"]), params["n_candidates"],
        ADDS_UP * summary["if_effects_add_up"], 100 * summary["variance_reduction"],
    )  # fmt: skip
