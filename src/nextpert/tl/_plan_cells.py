"""``tl.plan_cells``: how many cells, guides and replicates a perturbation needs."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import above, between, checked, one_of
from nextpert._adata.environments import require_varying
from nextpert._adata.table import require_cells
from nextpert.core.design.power import (
    Budget,
    EffectPrecision,
    Layout,
    ScreenNoise,
    screen_noise,
    screens_within,
)
from nextpert.core.design.stopping import TOLERANCE
from nextpert.core.screen.departures import USUAL_VARIANCE
from nextpert.core.screen.guides import distinct
from nextpert.tl._cells import fit_environments, read_cells
from nextpert.tl._design_interventions.candidates import read_all
from nextpert.tl._design_interventions.target import read_target
from nextpert.tl._plan_screen.next_round import StoppingRule, advise
from nextpert.tl._plan_screen.pool import guides_of, usual

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.target import Target, Vector
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._cells import Cells

logger = logging.getLogger(__name__)

INTERVAL = 0.9  # coverage of intervals, the same level in the whole package
CELLS = (5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 5000)
GUIDES = (1, 2, 4, 8)
_MANY = 1e6  # more cells than anybody measures
FIRST_GUIDES = 4  # guides per perturbation of a screen that has not been done


@checked(effect=above(0), tolerance=above(0), power=between(0.5, 1), candidates=one_of("genes"))
def plan_cells(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target | None = None,
    *,
    posterior_key: str = "dag_blr",
    effect: float = 0.2,
    tolerance: float = TOLERANCE,
    power: float = 0.8,
    n_guides: int | None = None,
    n_cells: int | None = None,
    candidates: str | Sequence[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "plan_cells",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Compute how many cells, guides and replicates are needed, and advise what to do next.

    The mean of ``n`` cells in ``g`` guides and ``r`` replicates (batches) has the variance
    :math:`\sigma^2 (1/n + \tau_g^2/g + \tau_r^2/r)`, estimated from this screen. The power to
    detect an effect on a gene is that of Welch's test at level 0.05, which is conservative:
    shrunken effects (:func:`perturbation_effects`) need fewer cells for the same error. With a
    target, advice follows by the rule in :doc:`/guides/plan_a_plate`, with the tests of
    :func:`diagnose` if it was run on this fit. :func:`nextpert.pl.plan_cells` draws the curves.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`fit_dag_blr`. Before the first screen, log-normalised control
        cells without a fit, from another screen or :func:`nextpert.datasets.simulated_controls`.
    target
        The target state, as in :func:`design_interventions`; ``None`` plans for effects alone.
    posterior_key
        The ``key_added`` of the fit.
    effect
        Effect on a gene to detect, in units of the data: 0.2 is a change by about a fifth.
    tolerance
        Smallest gain that is worth another experiment, relative to the control's distance.
    power
        Probability of detecting the effect, above 0.5.
    n_guides
        Guides per perturbation; ``None`` (default): the median of the screen, or 4 without a fit.
    n_cells
        Usable cells of a screen, controls included, for which ``budget`` is computed.
    candidates
        Candidates for the advice, as in :func:`design_interventions`.
    rng
        Seed or generator for the advice.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all columns.
        Writes ``uns["plan_cells"]`` with:

        - ``verdict`` (text): all results in sentences.
        - ``genes`` (table): by gene, ``power`` with the present cells, and ``cells_needed``.
        - ``curves`` (table): ``power`` and ``half_width`` by ``n_guides`` and ``n_cells``.
        - ``budget`` (table): if ``n_cells`` is given, the power by number of perturbations.
        - ``advice`` (mapping): with a target, ``kind``, ``words`` (a sentence) and the numbers.
        - ``noise`` (mapping): variances of guides and replicates, relative to that of a cell.

    Raises
    ------
    ValueError
        If there is neither a fit nor control cells, a name is unknown, or a number is out of range.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.learn_dag(adata)
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_cells(adata, {"MYC": 1.0})
    >>> adata.uns["plan_cells"]["advice"]["best_known"]
    'MYC'

    Before the first screen:

    >>> controls = npt.datasets.simulated_screen(perturbed=0, n_control=500)
    >>> npt.tl.plan_cells(controls, effect=0.5, n_cells=20_000)
    >>> budget = controls.uns["plan_cells"]["budget"].query("power > 0.8")
    >>> int(budget["n_perturbations"].max())
    1499
    """
    require_cells(adata, "plan_cells")
    if n_guides is not None and n_guides > CELLS[-1]:
        message = (
            f"n_guides is {n_guides}, but the plan has at most {CELLS[-1]} cells per perturbation, "
            f"and each guide needs a cell: give a smaller n_guides."
        )
        raise ValueError(message)
    effect, tolerance = float(effect), float(tolerance)
    fit = goal = None
    if target is None and posterior_key == "dag_blr" and posterior_key not in adata.uns:
        panel, noise = _read_controls(adata)
        usual_guides = FIRST_GUIDES
    else:
        fit = _adata.posterior_from(adata, posterior_key)
        goal = None if target is None else read_target(adata, target, fit)
        panel, noise = fit.genes, _read_noise(adata, fit)
        usual_guides = guides_of(adata, fit)[1]
    layout = Layout(
        usual_guides if n_guides is None else n_guides, usual(noise.n_replicates[1:]),
        noise.guide_variance, noise.replicate_variance,
    )  # fmt: skip
    n_control = int(noise.pooled.n_cells[0])
    effects = noise.precision(layout, n_control)
    now = [_median(noise.pooled.n_cells[1:])]
    genes = pd.DataFrame(
        {
            "gene": _adata.strings(panel),
            "cell_sd": np.sqrt(noise.perturbed_variance),
            "half_width": effects.half_width(now, INTERVAL)[0],
            "power": effects.power(now, effect)[0],
            "cells_needed": effects.cells_for_power(effect, power),
        }
    )
    stored: dict[str, Any] = {
        "genes": genes,
        "curves": _curves_table(effects, effect),
        "noise": {
            "guide_variance": noise.guide_variance,
            "control_guide_variance": noise.control_guide_variance,
            "replicate_variance": noise.replicate_variance,
            "n_control_cells": n_control,
            "n_guides": _median(noise.n_guides[1:]),
            "n_replicates": _median(noise.n_replicates[1:]),
            "n_cells": now[0],
        },
    }
    sentences = [_effects_in_words(genes, layout, effect=effect, power=power)]
    if fit is None:
        sentences.insert(0, (
            f"There is no fit: the noise is that of {n_control:,} control cells (and as many "
            f"controls are assumed), and guides are assumed to vary as in two published screens."
        ))  # fmt: skip
    if n_cells is not None:
        budget = screens_within(n_cells, noise, layout, effect=effect, power=power)
        stored["budget"] = pd.DataFrame(budget._asdict()).drop(columns="most")
        sentences.append(_budget_in_words(budget, n_cells, effect=effect, power=power))
    params: dict[str, Any] = {
        "effect": effect,
        "power": power,
        "tolerance": tolerance,
        "n_guides": layout.n_guides,
        "n_cells": n_cells,
        "posterior_key": posterior_key,
        "rng": _adata.seed_of(rng),
    }
    if fit and goal:
        _, pool, bound, is_asked = read_all(candidates, fit, goal)
        params |= {
            "target": goal.name,
            "distance": goal.distance,
            "genes_left_out": bound.genes_in_words,
        }
        stored["advice"] = advise(
            adata, fit, pool, bound, is_asked, n_guides=layout.n_guides,
            rule=StoppingRule(tolerance=tolerance), rng=rng,
        )  # fmt: skip
        sentences.append(stored["advice"]["words"])
    origin = {} if fit is None else fit.origin
    stored |= {"verdict": "\n".join(sentences), **origin, "params": params}
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", stored["verdict"])
    return written


def _read_noise(adata: ad.AnnData, fit: FittedPosterior) -> ScreenNoise:
    """Read the noise of the cells of a fit in one pass: controls, then its perturbations.

    Raises
    ------
    ValueError
        If the fit has no perturbation, or one of its columns is no longer in ``adata.obs``.
    """
    if not fit.names:
        message = (
            "The fit has no perturbed cells, so their variance cannot be estimated: fit a screen "
            "with perturbed cells."
        )
        raise ValueError(message)
    roles = _adata.fitted_roles(adata, fit.params)
    environments = fit_environments(adata, roles, fit.names)
    return _noise_of(read_cells(adata, fit.columns, environments, fit.names), fit.names)


def _read_controls(adata: ad.AnnData) -> tuple[list[str], ScreenNoise]:
    """Return all genes, and the noise of the controls with guides that vary as usual.

    Raises
    ------
    ValueError
        If there are no controls, or their values are not log-normalised.
    """
    roles = _adata.read_roles(adata)
    try:
        environments = fit_environments(adata, roles, ())
    except ValueError as error:
        message = (
            f"adata.uns has no posterior 'dag_blr': run tl.fit_dag_blr first, or plan a first "
            f"screen from control cells (from another screen of the same kind of cells, or from "
            f"datasets.simulated_controls). {error}"
        )
        raise ValueError(message) from error
    genes, columns = _adata.resolve_panel(adata, None)
    is_control = environments.is_control[environments.codes]
    used = np.flatnonzero(is_control & (environments.codes >= 0))
    _adata.check_scale(adata, columns, used, roles)
    cells = read_cells(adata, columns, environments, ())
    require_varying(cells.fit_cells((), guided=False).control, genes)
    return genes, replace(_noise_of(cells, ()), guide_variance=USUAL_VARIANCE)


def _noise_of(cells: Cells, names: Sequence[str]) -> ScreenNoise:
    """Return the noise of controls and perturbations, by guide and batch."""
    known, sums = cells.fits[0]
    screen, keys, sd = known.without_batches(sums, names)
    # Conditions are ignored, because they would split guides.
    rows, place = distinct(*keys.T)
    group, guide, batch, _ = rows.T
    screen = screen.pool(place, len(rows))
    return screen_noise(screen, group, guide, batch, 1 + len(names), fixed_sd=sd)


def _median(counts: NDArray[np.int64]) -> float:
    return float(np.median(counts)) if len(counts) else np.nan


def _curves_table(effects: EffectPrecision, effect: float) -> pd.DataFrame:
    """Return one row per number of guides and cells: precision and power."""
    planned = effects.layout
    parts = []
    for g in sorted({planned.n_guides, *(GUIDES if planned.guide_variance > 0 else ())}):
        plan = replace(effects, layout=replace(planned, n_guides=g))
        cells = np.array([n for n in CELLS if n >= g])
        part = {
            "n_guides": np.full(len(cells), g, np.int64),
            "n_cells": cells.astype(np.int64),
            "half_width": np.median(plan.half_width(cells, INTERVAL), axis=1),
            "power": plan.power(cells, effect).mean(axis=1),
        }
        parts.append(pd.DataFrame(part))
    return pd.concat(parts, ignore_index=True)


def _effects_in_words(table: pd.DataFrame, layout: Layout, *, effect: float, power: float) -> str:
    """Return how many cells detect a change in one gene."""
    cells = table["cells_needed"].to_numpy(float)
    median, most = (float(np.quantile(cells, q, method="higher")) for q in (0.5, 0.9))
    parts = [
        f"{n} {what}{'s' * (n > 1)}"
        for n, what in ((layout.n_guides, "guide"), (layout.n_replicates, "replicate"))
    ]
    text = (
        f"Detecting a change of {effect:g} with {100 * power:g}% power takes {_cells(median)} per "
        f"perturbation ({' and '.join(parts)}) for the median gene and {_cells(most)} for 90% of "
        f"the genes."
    )
    if lacking := int((cells > _MANY).sum()):
        text += (
            f" {lacking} of {len(table)} genes need more guides, controls or replicates: more "
            f"cells do not suffice."
        )
    return text


def _budget_in_words(budget: Budget, total: int, *, effect: float, power: float) -> str:
    """Return for how many perturbations the cells suffice."""
    wanted = f"a change of {effect:g} with {100 * power:g}% power, averaged over genes"
    if not budget.most:
        return f"A screen of {_cells(total)} cannot detect {wanted}, in any perturbation."
    row = int(np.flatnonzero(budget.n_perturbations == budget.most)[0])
    return (
        f"A screen of {_cells(total)} detects {wanted}, in up to {budget.most:,} "
        f"perturbation{'s' * (budget.most > 1)}, with {_cells(budget.n_cells[row])} each and "
        f"{budget.n_controls[row]:,} controls."
    )


def _cells(number: float) -> str:
    if number > _MANY:
        return "more than 1,000,000 cells"
    return f"{number:,.0f} cell{'s' * (round(number) != 1)}"
