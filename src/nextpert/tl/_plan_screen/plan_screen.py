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
from nextpert.tl._design_interventions.target import read_target
from nextpert.tl._plan_cells.distances import usual_guides
from nextpert.tl._plan_screen.pool import read_constraints, read_pool, teaches_interactions
from nextpert.tl._plan_screen.wells import (
    AIMS,
    FORMATS,
    N_SAMPLES,
    Choice,
    best_known,
    plate_table,
    split_cells,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad

    from nextpert._adata.target import Target

logger = logging.getLogger(__name__)


@options(most_new=at_least(0), plate_format=one_of(*FORMATS))
@dataclass(frozen=True)
class _Constraints:
    """``constraints``: each is documented there."""

    must: Iterable[str] | None = None
    never: Iterable[str] | None = None
    most_combined: int = 1
    least_cells: int = 20
    most_new: int | None = None
    costs: Mapping[str, Any] | None = None
    plate_format: int | None = None


@checked(
    aim=one_of(lambda: (*AIMS, *acquisitions())), candidates=one_of("genes"),
    constraints=_Constraints, n_controls=at_least(0),
)  # fmt: skip
def plan_screen(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Target,
    *,
    n_perturbations: int = 8,
    n_cells: int = 2000,
    aim: str = "best",
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

    A well has one of two aims. To find the best: half of these wells (rounded up) take the
    candidates whose expected state is nearest to the target, and the others take, of the remaining
    candidates, those that are most likely the nearest. Replays of screens favour this rule. No
    candidate whose expected state is farther from the target than the control is chosen to find
    the best; where too few candidates are nearer, the wells that are left go to learning, with a
    warning. To learn: one by one the candidate whose cells are expected to resolve most, beyond
    the wells before, of the uncertainty about the distances of all candidates that may be nearer
    than the control (causal integrated variance, Zhang et al. 2023,
    doi:10.1038/s42256-023-00719-0). ``aim="both"`` gives wells to finding the best until the plate
    holds it with probability 0.95, as far as is known now, and the others to learning.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`fit_dag_blr`.
    target
        The wanted state, as in :func:`design_interventions`.
    n_perturbations
        Most perturbations on the plate.
    n_cells
        Cells in all, controls included.
    aim
        ``"best"`` (default), ``"learn"`` or ``"both"``; or an acquisition of
        :func:`design_interventions`, such as ``"thompson"`` or ``"ei"``, which then fills all
        wells.
    candidates
        As in :func:`design_interventions`: ``None`` (default), every perturbation the fit used;
        ``"genes"``; a list of labels, combinations included; or a table of shifts.
    target_is_candidate
        As in :func:`design_interventions`: whether a target that is a label keeps its own
        perturbation among the candidates.
    constraints
        What the lab can do, wants or excludes, a mapping with some of:

        - ``"must"``: candidates that have to be on the plate.
        - ``"never"``: what the lab cannot do: labels, or genes that no candidate may target.
          Combinations that hold such a perturbation are excluded too. What is excluded is no
          candidate: it enters no distance and no probability.
        - ``"most_combined"`` (1): most perturbations combined in one well. Above 1 those
          combinations of the candidates join them that are expected nearest to the target (200 of
          each size), tried before or not: all pairs are looked at, and of three and more those that
          a beam search reaches. A perturbation that is no candidate is in none of these
          combinations.
        - ``"least_cells"`` (20): least cells of a perturbation. With ``aim="learn"`` cells go where
          they teach most, else all wells have as many. There are fewer perturbations where cells do
          not suffice.
        - ``"most_new"``: most perturbations on the plate of which no cell was seen (new guides to
          be made); by default any number.
        - ``"costs"``: a mapping with ``"budget"``, ``"perturbation"`` (cost of one, or a mapping of
          candidates to costs) and ``"cell"``, in any currency: the wells are then chosen by what
          they gain per cost. By default wells and cells are what is counted.
        - ``"plate_format"``: wells of a plate, 8, 96 or 384, for an arrayed screen: every
          perturbation gets a well then. By default a pooled screen.
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
        (default): as many as one of the screen's has (the median), or 1 where guides are not known.
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

        - ``plate``: a table, one row a perturbation in the order chosen, controls last: ``well``
          (with a ``"plate_format"``), ``perturbation``, ``target_genes``, ``n_guides``,
          ``n_cells``, ``n_cells_seen``, ``aim`` (that chose it), ``why`` (in words),
          ``state_distance`` (of the expected state, as in :func:`design_interventions`; it chooses
          the first half of those
          that find the best), ``probability_among_rest`` (of being the nearest of the candidates
          not chosen by ``state_distance``, to first order in what is unknown; it chooses the second
          half, and is NaN for others), ``probability_best`` (of being the nearest of all
          candidates), ``probability_covered`` (that the nearest is among those up to this one or
          under way), ``uncertainty_removed`` (expected, by the cells up to this one),
          ``predicted_distance`` with its 90% interval ``predicted_low`` to ``predicted_high``
          (as in :func:`design_interventions`) and ``cost``.
        - ``summary``: ``n_cells``, ``n_controls``, ``cost``, ``probability_covered`` and
          ``uncertainty_removed`` of the whole plate; ``teaches_interactions``, the combination
          among the candidates whose cells would tell most of how far effects add up and of what
          members do in company, empty without one; and ``best_known``, the measured candidate (of
          at least ``"least_cells"`` cells) that most probably is the nearest of all, with its
          ``probability_known``: 1 says that no plate is needed to find the best.
        - ``pending``: a table of what was counted as under way; ``genes`` and the ``target_mean``
          that stands for the target; ``cells``, the fingerprint of the fit's cells; ``params``.

        The plate goes to the bench as the csv file that :func:`nextpert.report` holds.

    Raises
    ------
    ValueError
        If there is no posterior, a name is unknown (close matches are given), constraints
        contradict each other, or cells or budget do not suffice for one perturbation. Nothing is
        written then.

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
        candidates, fit, wanted, never=asked.never, pending=pending,
        most_combined=asked.most_combined, target_is_candidate=target_is_candidate,
    )  # fmt: skip
    pool = read.candidates
    wells = split_cells(n_cells, n_perturbations, n_controls, asked.least_cells)
    limits = read_constraints(
        read, must=asked.must, pending=pending, costs=asked.costs, cells_each=wells.each
    )
    choice = Choice(
        fit, pool.prior, wanted.goal, limits, wells, n_samples=N_SAMPLES, rng=as_rng(rng)
    )
    found = choice.choose(aim, most_new=asked.most_new, fixed_controls=n_controls)
    if n_guides is not None and n_guides > found.cells.min():
        message = (
            f"n_guides is {n_guides}, but a perturbation of this plate has {found.cells.min()} "
            f"cells: give fewer n_guides, or more n_cells."
        )
        raise ValueError(message)
    guides = np.minimum(usual_guides(adata, fit) if n_guides is None else n_guides, found.cells)
    plate = plate_table(pool, choice, found, guides, asked.plate_format, fit)
    names, under_way = pool.interventions.names, limits.under_way
    stored = {
        "plate": plate,
        "summary": {
            "n_cells": int(plate["n_cells"].sum()),
            "n_controls": found.n_controls,
            "cost": float(plate["cost"].sum()),
            "probability_covered": float(plate["probability_covered"].iloc[-1]),
            "uncertainty_removed": float(plate["uncertainty_removed"].iloc[-1]),
            "teaches_interactions": teaches_interactions(pool, fit, wells.each),
            **best_known(names, choice.distance, pool.on_graph.n, asked.least_cells),
        },
        "pending": pd.DataFrame(
            {
                "perturbation": _adata.strings(names[i] for i in under_way),
                "n_cells": limits.pending[under_way],
            },
            index=pd.Index(np.arange(len(under_way))),
        ),
        "target_mean": wanted.mean,
        "genes": _adata.strings(fit.genes),
        "cells": fit.fingerprint,
        "params": {
            "target": wanted.name,
            "distance": wanted.distance,
            "aim": aim,
            "n_perturbations": int(n_perturbations),
            "n_cells": int(n_cells),
            "most_combined": asked.most_combined,
            "target_is_candidate": int(target_is_candidate),
            "n_candidates": len(names),
            "least_cells": asked.least_cells,
            "n_guides": int(guides.max()),
            "plate_format": asked.plate_format or 0,
            "n_samples": N_SAMPLES,
            "posterior_key": posterior_key,
            "spec": str(fit.params["spec"]),
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    _say(stored, len(found.candidates))
    return written


def _say(stored: dict[str, Any], n_chosen: int) -> None:
    table, summary, params = stored["plate"], stored["summary"], stored["params"]
    target = params["target"]
    n_learn = int((table["aim"] == "learn").sum())
    if params["aim"] == "best" and n_learn:
        logger.warning(
            "%d of %d perturbations are chosen to learn, not to find the best: no other candidate "
            "that may be chosen has an expected state nearer to %s than the control.",
            n_learn, n_chosen, target,
        )  # fmt: skip
    known, chance = summary["best_known"], summary["probability_known"]
    best = f" Best measured so far: {known} (nearest with probability {chance:.2f})."
    logger.info(
        "Plate of %d perturbations (%d cells, of which %d are controls) towards %s: %s. With "
        "probability %.2f it holds the nearest of %d candidates, and it is expected to resolve "
        "%.2g%% of the remaining uncertainty (fit of spec %s).%s",
        n_chosen, summary["n_cells"], summary["n_controls"], target,
        _adata.list_names(table["perturbation"].head(n_chosen).astype(str), limit=8),
        summary["probability_covered"], params["n_candidates"],
        100 * summary["uncertainty_removed"], params["spec"], best if known else "",
    )  # fmt: skip
