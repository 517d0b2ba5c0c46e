"""``tl.plan_screen``: the perturbations of the next plate, and how many cells each gets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import checked, one_of, options
from nextpert._adata.labels import parts_of
from nextpert.core import acquisitions
from nextpert.core._checks import as_rng
from nextpert.core.design.stopping import AT_TARGET, NO_DIFFERENCE
from nextpert.core.fit.candidates import as_asked
from nextpert.tl._advice import advice_on, advise, is_advised, name_of
from nextpert.tl._advice import logger as of_advice
from nextpert.tl._design_interventions.candidates import admit
from nextpert.tl._design_interventions.target import read_target
from nextpert.tl._diagnose.controls import stored_null
from nextpert.tl._plan_screen.pool import guides_of, read_pool
from nextpert.tl._plan_screen.wells import (
    N_SAMPLES,
    STRATEGIES,
    Choice,
    constructs_table,
    plate_table,
    split_cells,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad

    from nextpert._adata.target import Target, Vector

logger = logging.getLogger(__name__)


@options(max_combination=one_of(1, 2))
@dataclass(frozen=True)
class _Constraints:
    """``constraints``: each is documented there."""

    include: Iterable[str] | None = None
    exclude: Iterable[str] | None = None
    max_combination: int = 1
    min_cells: int = 20


@checked(
    strategy=one_of(lambda: (*STRATEGIES, *acquisitions())), candidates=one_of("genes"),
    constraints=_Constraints,
)  # fmt: skip
def plan_screen(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target,
    *,
    n_perturbations: int = 8,
    n_cells: int = 2000,
    strategy: str = "exploit",
    candidates: str | Iterable[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    constraints: Mapping[str, Any] | None = None,
    pending: Iterable[str] | Mapping[str, int] | None = None,
    posterior_key: str = "dag_blr",
    rng: int | np.random.Generator | None = 0,
    key_added: str = "plan",
    copy: bool = False,
) -> ad.AnnData | None:
    """Plan the next plate: perturbations, cells of each and controls, within a budget.

    ``strategy="exploit"`` (default) fills half of the plate with the candidates whose expected
    state is nearest to the target, and half with the other candidates that are most probably the
    nearest. ``"explore"`` reduces uncertainty about the distances of all candidates (causal
    integrated variance, Zhang et al. 2023, doi:10.1038/s42256-023-00719-0). ``"both"`` chooses by
    ``"exploit"`` until the plate contains the nearest candidate with probability 0.95, and then by
    ``"explore"``. See :doc:`/guides/plan_a_plate`; run :func:`diagnose` before.

    Parameters
    ----------
    adata
        Cells x genes with a posterior from :func:`fit_dag_blr`.
    target
        The target state, as in :func:`design_interventions`.
    n_perturbations
        Maximum number of perturbations in the next round.
    n_cells
        Total number of cells. Controls get the square root of the number of perturbations times
        the cells of one perturbation (Dunnett 1955, doi:10.2307/2281208).
    strategy
        ``"exploit"``, ``"explore"``, ``"both"``, or an acquisition of :func:`design_interventions`.
    candidates
        As in :func:`design_interventions`.
    constraints
        Limits of the lab, a mapping with some of:

        - ``"include"``: candidates that the plan has to contain.
        - ``"exclude"``: labels, or genes that no candidate may target.
        - ``"max_combination"`` (1): 2 adds the 200 pairs of candidates that are expected nearest.
        - ``"min_cells"`` (20): minimum per perturbation; fewer are planned if cells do not suffice.
    pending
        Labels in progress, or labels -> cells: counted as if measured, and not chosen.
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
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all columns.
        Writes ``uns["plan"]`` with:

        - ``plate`` (table): perturbations in the order chosen, then the controls, with
          ``n_cells``, ``n_guides``, ``why`` and ``probability_best``.
        - ``constructs`` (table): guides to use, to clone or to design.
        - ``summary`` (mapping): properties of the plate, such as ``probability_contains_best``.
        - ``advice`` (mapping): what to do next, as in :func:`plan_cells`.

    Raises
    ------
    ValueError
        If there is no posterior, a name is unknown, constraints contradict each other, or
        ``n_cells`` is too small for one perturbation. Nothing is written on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_screen(adata, "UBR5", n_perturbations=4, n_cells=2000)
    >>> npt.get.plan_df(adata)[["perturbation", "n_cells", "n_cells_seen"]]
      perturbation  n_cells  n_cells_seen
    0        DSCC1      334           537
    1          MYC      333           841
    2         OXR1      333          1057
    3        RIPK2      333           921
    4      control      667          7760
    >>> adata.uns["plan"]["advice"]["kind"]
    'measure more cells of these first'
    """
    asked = _Constraints(**constraints or {})
    fit = _adata.posterior_from(adata, posterior_key)
    requested = read_target(adata, target, fit)
    wells = split_cells(n_cells, n_perturbations, asked.min_cells)
    pool, requested, limits = read_pool(
        candidates, fit, requested, include=asked.include, exclude=asked.exclude, pending=pending,
        pairs=asked.max_combination > 1, cells_each=wells.each,
    )  # fmt: skip
    existing, usual = guides_of(adata, fit)
    if existing and (weak := stored_null(adata, fit).weak):  # these are not ordered
        existing = {
            name: [guide for guide in some if weak.isdisjoint(parts_of(guide))]
            for name, some in existing.items()
        }
    ranked = as_asked(
        fit, pool, requested.goal, requested.targets, n_guides=usual, n_cells=wells.each,
        n_samples=N_SAMPLES, rng=as_rng(rng),
    )  # fmt: skip
    admission = admit(ranked, pool, fit, requested)
    choice = Choice(ranked, limits, wells, admission.admitted)
    chosen = choice.choose(strategy)
    # Measured perturbations keep their guides, the others get the usual number.
    names = pool.interventions.names
    own = [len((existing or {}).get(names[i], ())) or usual for i in chosen.candidates]
    guides = np.minimum(np.minimum(own, usual), chosen.cells)
    plate = plate_table(pool, choice, chosen, admission, guides, requested, fit)
    under_way = [names[i] for i in limits.under_way]
    some = np.flatnonzero(admission.admitted)
    if 0 < len(some) < len(names):  # from draws of the admitted candidates alone
        advice = advise(
            adata, fit, pool.rows(some), requested.rows(some), wells=wells, are_admitted=True,
            rng=rng,
        )  # fmt: skip
    else:
        advice = advice_on(adata, fit, pool, requested, choice, chosen, usual)
    stored = {
        "plate": plate,
        "constructs": constructs_table(plate, fit, existing, under_way),
        "summary": {
            "n_cells": int(plate["n_cells"].sum()),
            "n_controls": chosen.n_controls,
            "probability_contains_best": float(plate["probability_contains_best"].iloc[-1]),
            "variance_reduction": float(plate["variance_reduction"].iloc[-1]),
            "n_not_admitted": int((~admission.admitted).sum()),
            "if_effects_add_up": int(admission.adds_up),
        },
        "advice": advice,
        "pending": pd.DataFrame(
            {
                "perturbation": _adata.strings(under_way),
                "n_cells": np.array(limits.pending, np.float64),
            }
        ),
        "target_mean": requested.mean,
        "genes": _adata.strings(fit.genes),
        **fit.origin,
        "params": {
            "target": requested.name,
            "distance": requested.distance,
            "genes_left_out": requested.genes_in_words,
            "strategy": strategy,
            "n_perturbations": int(n_perturbations),
            "n_cells": int(n_cells),
            "max_combination": asked.max_combination,
            "n_candidates": int(admission.admitted.sum()),
            "min_cells": asked.min_cells,
            "n_guides": int(guides.max()),
            "n_samples": N_SAMPLES,
            "posterior_key": posterior_key,
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    _say(stored, len(chosen.candidates))
    return written


def _say(stored: dict[str, Any], n_chosen: int) -> None:
    table, summary, params = stored["plate"], stored["summary"], stored["params"]
    target, kind = name_of(params["target"]), stored["advice"]["kind"]
    follows, can_advise = is_advised(stored), kind not in (AT_TARGET, NO_DIFFERENCE)
    n_learn = int((table["strategy"] == "explore").sum())
    if params["strategy"] == "exploit" and n_learn and can_advise:
        logger.warning(
            "%d of %d perturbations %s chosen to reduce uncertainty (strategy 'explore'), because "
            "no other candidate has an expected state nearer to %s than the control.",
            n_learn, n_chosen, "is" if n_learn == 1 else "are", target,
        )  # fmt: skip
    against = not can_advise or (params["strategy"] == "exploit" and not follows)
    of_advice.log(logging.WARNING if against else logging.INFO, "%s", stored["advice"]["words"])
    logger.info(
        "%s of %d perturbation%s (%d cells, of which %d are controls) towards %s: %s.",
        "Plate" if follows else "Planned, but not advised: a plate",
        n_chosen, "s" * (n_chosen != 1), summary["n_cells"], summary["n_controls"], target,
        _adata.list_names(table["perturbation"].head(n_chosen).astype(str), limit=8),
    )  # fmt: skip
