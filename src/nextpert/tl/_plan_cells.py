"""``tl.plan_cells``: how many cells, guides, replicates and reads a perturbation needs."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata.arguments import above, checked, one_of
from nextpert._adata.counts import read_counts
from nextpert._adata.table import require_cells
from nextpert.core.design.detection import RULES
from nextpert.core.design.effect_sizes import USUAL_SD
from nextpert.core.design.power import Layout
from nextpert.core.design.reads import noise_of_reads
from nextpert.core.screen.departures import USUAL_VARIANCE
from nextpert.study.environments import require_varying
from nextpert.study.next_round import StoppingRule
from nextpert.study.pool import read_all, usual
from nextpert.study.sample_size import (
    READS,
    RULES_IN_WORDS,
    SIZE,
    SampleSizes,
    _Budget,
    _check,
    _Effect,
    _genes_table,
    _noise_of,
    _plans_of,
    _screens_table,
    _sizes_of,
    in_words,
)
from nextpert.tl._cells import fit_environments, read_cells
from nextpert.tl._read_plan import advise_on, guides_of
from nextpert.tl._read_target import read_target

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    import pandas as pd
    from numpy.typing import NDArray

    from nextpert.core.design.power import ScreenNoise
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.study.target import Target, Vector


logger = logging.getLogger(__name__)
FIRST_GUIDES = 4  # guides per perturbation of a screen that has not been done
FIRST_PERTURBATIONS = 20  # its perturbations, if no budget determines them


@checked(
    effect=(above(0), _Effect),
    budget=(above(0), _Budget),
    stopping=StoppingRule,
    rule=one_of(*RULES),
    candidates=one_of("genes"),
)
def plan_cells(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target | None = None,
    *,
    posterior_key: str = "dag_blr",
    effect: float | Mapping[str, Any] = 0.2,
    rule: str = "lfsr",
    n_guides: int | None = None,
    budget: float | Mapping[str, Any] | None = None,
    stopping: Mapping[str, Any] | None = None,
    candidates: str | Sequence[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "plan_cells",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Compute how many cells, guides and reads are needed, and advise what to do next.

    Power is the probability that an effect of a given size is detected by the stated ``rule``. It
    depends on how many effects are not zero, which is learned from the fit; without a fit, it is
    assumed as on four published screens (equations 35, 41 and 42 of :doc:`/model/mathematics`).
    With a target, advice follows by the rule in :doc:`/guides/plan_a_plate`.
    :func:`nextpert.pl.plan_cells` draws the table.

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
        Effect to detect, in units of the data (0.2 is a change by about a fifth), or a mapping of
        ``"size"`` (0.2), ``"power"`` (0.8), and ``"share"`` and ``"sd"``: the share of effects that
        are not zero and their SD, relative to that of a gene between cells, if not learned.
    rule
        ``"lfsr"``: local false sign rate below 0.05, as in :func:`perturbation_effects`. ``"fdr"``:
        Welch's tests of all effects at a false discovery rate of 5% (Benjamini-Hochberg).
    n_guides
        Guides per perturbation; ``None`` (default): the median of the screen, or 4 without a fit.
    budget
        Number of usable cells of a screen, controls included; or a mapping of ``"total"``, prices
        (``"construct"``, ``"cell"``, ``"million_reads"``), present ``"reads"`` per cell (25,000),
        and the maximum ``"n_perturbations"``.
    stopping
        When to stop, for the advice, as in :func:`plan_screen`.
    candidates
        Candidates for the advice, as in :func:`design_interventions`.
    rng
        Seed or generator.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. :doc:`/model/stored_results` lists all columns. Writes
        ``uns["plan_cells"]`` with ``verdict`` (text), ``genes`` and ``screens`` (tables: by gene;
        by guides, cells and reads), ``effects``, ``noise`` and, with a target, ``advice``
        (mappings).

    Raises
    ------
    ValueError
        If there is neither a fit nor control cells, a name is unknown, or a number is out of range.

    Examples
    --------
    >>> import nextpert as npt
    >>> controls = npt.datasets.simulated_screen(perturbed=0, n_control=500)
    >>> npt.tl.plan_cells(controls, effect={"size": 0.5, "share": 0.05}, budget=20_000)
    >>> screens = controls.uns["plan_cells"]["screens"]
    >>> int(screens.loc[screens["is_best"], "n_cells"].iloc[0])
    50
    """
    require_cells(adata, "plan_cells")
    chosen_effect = (
        _Effect(**effect) if isinstance(effect, Mapping) else _Effect(size=float(effect))
    )
    if isinstance(budget, Mapping):
        limits = _Budget(**budget)
    else:
        limits = _Budget(total=None if budget is None else float(budget))
    prices = limits.prices()
    _check(chosen_effect, n_guides)
    fit = goal = None
    if target is None and posterior_key == "dag_blr" and posterior_key not in adata.uns:
        panel, columns, noise, roles = _read_controls(adata)
        usual_guides, n_perturbations = FIRST_GUIDES, limits.n_perturbations or FIRST_PERTURBATIONS
    else:
        fit = _adata.posterior_from(adata, posterior_key)
        goal = None if target is None else read_target(adata, target, fit)
        panel, columns, noise = fit.genes, fit.columns, _read_noise(adata, fit)
        roles = _adata.fitted_roles(adata, fit.params)
        usual_guides, n_perturbations = guides_of(adata, fit)[1], len(fit.names)
    layout = Layout(
        usual_guides if n_guides is None else n_guides,
        usual(noise.n_replicates[1:]),
        noise.guide_variance,
        noise.replicate_variance,
    )
    sizes, source = _sizes_of(fit, chosen_effect)
    reads, missing = _read_depths(adata, columns, roles, noise)
    plans = _plans_of(noise, sizes, rule, chosen_effect.size, n_perturbations, reads)
    counts = noise.pooled.n_cells[1:], noise.n_guides[1:], noise.n_replicates[1:]
    n_cells, guides, replicates = (float(np.median(n)) if len(n) else np.nan for n in counts)
    genes = _genes_table(panel, plans, layout, n_cells, chosen_effect.power)
    screens = _screens_table(plans, layout, prices, limits)
    result = SampleSizes(
        genes,
        screens,
        layout,
        RULES_IN_WORDS[rule],
        chosen_effect.size,
        chosen_effect.power,
        sizes.share(SIZE),
        None
        if chosen_effect.share is None
        else (chosen_effect.share, chosen_effect.sd or USUAL_SD),
        source,
        missing,
        limits.total,
        prices,
        None if fit else plans.n_control,
    )
    stored: dict[str, Any] = {
        "genes": genes,
        "screens": screens,
        "effects": {"source": source, "size": SIZE, "share": sizes.share(SIZE)},
        "noise": {
            "guide_variance": noise.guide_variance,
            "control_guide_variance": noise.control_guide_variance,
            "replicate_variance": noise.replicate_variance,
            "n_control_cells": plans.n_control,
            "n_guides": guides,
            "n_replicates": replicates,
            "n_cells": n_cells,
        },
    }
    sentences = in_words(result)
    params: dict[str, Any] = {
        "effect": chosen_effect.size,
        "power": chosen_effect.power,
        "share": chosen_effect.share,
        "sd": chosen_effect.sd,
        "rule": rule,
        "n_guides": layout.n_guides,
        "budget": limits.total,
        **{f"cost_{name}": price for name, price in prices._asdict().items() if name != "reads"},
        "reads": prices.reads,
        "n_perturbations": limits.n_perturbations,
        "posterior_key": posterior_key,
        "rng": _adata.seed_of(rng),
    }
    if fit and goal:
        pool = read_all(candidates, fit, goal)
        params |= {
            "target": goal.name,
            "distance": goal.distance,
            "genes_left_out": pool.target.genes_in_words,
        }
        stored["advice"] = advise_on(
            adata,
            fit,
            pool,
            n_guides=layout.n_guides,
            rule=StoppingRule(**stopping or {}),
            rng=rng,
        )
        sentences.append(stored["advice"]["words"])
    if fit is None:
        origin = _adata.origin_of_cells(adata, roles, columns, only_controls=True)
        params |= roles.stored()
    else:
        origin = fit.origin
    stored |= {"verdict": "\n".join(sentences), **origin, "params": params}
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", stored["verdict"])
    return written


def _read_depths(
    adata: ad.AnnData, columns: NDArray[np.int64], roles: _adata.Roles, noise: ScreenNoise
) -> tuple[dict[float, NDArray[np.float64]], str]:
    """Return the noise of a cell by share of the reads, and why there is only one share."""
    variances = {1.0: np.ones(len(columns))}
    labels = _adata.read_every_label(adata, roles)
    controls = np.flatnonzero(labels.groups([roles.control]) == 0)
    counts, value, missing = read_counts(adata, columns, controls, roles.layer)
    if missing:
        return variances, missing
    return variances | {f: noise_of_reads(counts, value, f) for f in READS[1:]}, ""


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


def _read_controls(
    adata: ad.AnnData,
) -> tuple[list[str], NDArray[np.int64], ScreenNoise, _adata.Roles]:
    """Return genes, their columns, the noise of the controls with the usual guides, and roles.

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
    return genes, columns, replace(_noise_of(cells, ()), guide_variance=USUAL_VARIANCE), roles
