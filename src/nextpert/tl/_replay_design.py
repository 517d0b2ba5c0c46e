"""``tl.replay_design``: campaigns replayed on the cells of a finished screen, and their tables."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata.arguments import WORKERS, at_least, checked
from nextpert._adata.screen import read_environments
from nextpert._adata.sources import dense
from nextpert._adata.table import require_cells
from nextpert.core._checks import as_rng
from nextpert.core.evaluate import CellPool, PoolEnvironments
from nextpert.core.fit.learn import Graphs
from nextpert.study.pool import excluder
from nextpert.study.record import spec_of
from nextpert.study.replay import (
    _MIN_TARGET_Z,
    MIN_CELLS,
    Replayed,
    Setting,
    _names,
    in_words,
    judged,
    known_strategies,
    overall_table,
    rounds_table,
    run_all,
    targets_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad

    from nextpert.core.fit.fitted import FittedPosterior


logger = logging.getLogger(__name__)


@checked(n_repeats=at_least(2), n_jobs=WORKERS)
def replay_design(
    adata: ad.AnnData,
    targets: Sequence[str] | None = None,
    *,
    strategies: Sequence[str] = ("exploit", "random", "thompson_means", "round_robin_means"),
    held_out: bool = False,
    n_rounds: int = 10,
    n_perturbations: int = 4,
    n_cells: int = 10,
    n_repeats: int = 20,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = 1,
    key_added: str = "replay",
    copy: bool = False,
) -> ad.AnnData | None:
    """Replay a screen as campaigns, to compare how many rounds strategies need to find a state.

    Use it on a finished screen, before you choose a strategy for the next screen. The measured
    cells replace the experiments, as in Fig. 6c of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0): a campaign starts from 100 control cells, draws the cells of a
    plan in each round, fits the model again with the graph and options of ``uns["dag_blr"]``, and
    recommends a perturbation. The recommendation is scored by the squared distance of the mean of
    all its cells to the target, sampling error subtracted. :func:`nextpert.pl.replay` draws the
    result.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression, after :func:`fit_dag_blr`. Perturbations with 4
        cells or more can be proposed.
    targets
        Labels; the state of each is the mean of half of its cells. ``None`` (default): those more
        than three standard errors from the controls.
    strategies
        How rounds are chosen: a ``strategy`` of :func:`plan_screen` (``"exploit"``, ``"explore"``,
        ``"both"``, or an acquisition such as ``"thompson"`` or ``"random"``); ``"exact_greedy"`` or
        ``"exact_civ"`` (known shifts, as in the paper); or, without a model, ``"thompson_means"``
        or ``"round_robin_means"``. The last is the baseline, and is always added.
    held_out
        Whether to exclude the target's own perturbation and combinations that contain it, and find
        the best of the others.
    n_rounds, n_perturbations, n_cells
        Rounds of a campaign, perturbations per round, and cells per perturbation.
    n_repeats
        Number of repeats, at least 2. All strategies draw from the same cells in each repeat.
    rng
        Seed or generator.
    n_jobs
        Number of processes; the results do not depend on it.
    key_added, copy
        Name of the results, and whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all columns.
        Writes ``uns["replay"]`` with:

        - ``summary`` (text): the results in sentences.
        - ``overall`` (table): means over targets by ``strategy``: ``plates`` needed,
          ``relative_last`` (last distance, relative to the control's), differences from the
          baseline, paired by target, with intervals over targets, and a ``verdict``.
        - ``table`` (table): distances after every ``round``, by target and strategy.
        - ``targets`` (table): distances of the best candidate, the control and a random candidate.

    Raises
    ------
    ValueError
        If there is no fit, a name is unknown, there are too few cells or perturbations, or no
        target differs from the controls; TypeError if a string is given for a list. Nothing is
        written on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=6, n_control=300, n_perturbed=60, perturbed=4)
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    >>> npt.tl.fit_dag_blr(adata)
    >>> plates = {"n_perturbations": 2, "n_rounds": 2, "n_repeats": 2}
    >>> npt.tl.replay_design(adata, strategies=["exploit"], **plates)
    >>> adata.uns["replay"]["overall"]["strategy"].tolist()
    ['exploit', 'round_robin_means']
    """
    require_cells(adata, "replay_design")
    fit = _adata.posterior_from(adata)
    pool, setting = read_pool(adata, fit)
    available, labels = known_strategies(setting), setting.spec.plan.names
    names = _names(strategies, list(available))
    if n_rounds > len(pool.cells):
        message = (
            f"n_rounds is {n_rounds}, but {len(pool.cells)} cells fill fewer rounds: give fewer "
            f"rounds."
        )
        raise ValueError(message)
    goals = read_goals(adata, targets, fit, pool, labels, held_out=held_out)
    plates = {
        "n_rounds": n_rounds,
        "n_perturbations": min(n_perturbations, len(pool.n_cells)),
        "n_cells": n_cells,
    }
    recommended = run_all(
        pool,
        [available[name] for name in names],
        goals,
        n_repeats,
        as_rng(rng),
        n_jobs=n_jobs,
        **plates,
    )
    relative, is_good = judged(recommended, goals)
    heads, overall = targets_table(goals, labels), overall_table(relative, is_good, names)
    stored = {
        "summary": in_words(overall, heads, n_rounds, held_out=held_out),
        "overall": overall,
        "table": rounds_table(relative, [g.name for g in goals], names),
        "targets": heads,
        **fit.origin,
        "params": {
            **plates,
            "n_repeats": n_repeats,
            "strategies": _adata.strings(names),
            "held_out": held_out,
            "rng": _adata.seed_of(rng),
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", stored["summary"])
    return written


def read_pool(adata: ad.AnnData, fit: FittedPosterior) -> tuple[CellPool, Setting]:
    """Return the perturbations of a fit that have enough cells as a pool, and their model.

    Batch effects, estimated from all cells, are subtracted from the cells. A campaign estimates
    batch effects again from the cells that it has seen.

    Raises
    ------
    ValueError
        If fewer than two perturbations have enough cells.
    """
    roles = _adata.fitted_roles(adata, fit.params)
    all_environments = read_environments(adata, roles, named=fit.names)
    n_cells = all_environments.table["n_cells"].groupby(all_environments.groups(fit.names)).sum()
    enough = n_cells.reindex(range(len(fit.names)), fill_value=0) >= MIN_CELLS
    if enough.sum() < 2:
        message = (
            f"A replay needs at least two perturbations with {MIN_CELLS} cells or more, but the "
            f"fit has {enough.sum()}: fit more perturbations."
        )
        raise ValueError(message)
    spec = spec_of(fit).rows(np.flatnonzero(enough).tolist())
    groups = [roles.control, *spec.plan.names]
    all_environments = all_environments.only(
        sorted(set(all_environments.perturbation[all_environments.groups(groups) >= 0]))
    )
    group = all_environments.groups(groups)
    of_cell = np.append(group, -1)[all_environments.codes]
    rows = np.flatnonzero(of_cell >= 0)
    cells, row_in_pool = np.empty((len(rows), len(fit.genes))), np.cumsum(of_cell >= 0) - 1
    batches = _adata.read_batches(adata, fit.columns, roles)
    for block, values in _adata.read_blocks(adata, fit.columns, rows, layer=roles.layer):
        cells[row_in_pool[block]] = dense(values)
        if batches is not None:
            cells[row_in_pool[block]] -= batches.of_cells(block)
    order = np.argsort(of_cell[rows], kind="stable")
    control, *perturbed = np.split(order, np.cumsum(np.bincount(of_cell[rows]))[:-1])
    codes = all_environments.codes[rows]
    environments = PoolEnvironments(
        group,
        all_environments.levels(roles.perturbation_key, *all_environments.condition_names),
        all_environments.levels(*([] if roles.guide_key is None else [roles.guide_key])),
        all_environments.indicators(roles.batch_key)[1],
        codes[control],
        codes[np.concatenate(perturbed)],
    )
    pool = CellPool(cells[control], [cells[rows_of] for rows_of in perturbed], environments)
    graphs = Graphs.single(fit.posterior.dag)
    return pool, Setting(spec, graphs, guided=roles.guide_key is not None)


def read_goals(
    adata: ad.AnnData,
    targets: Any,
    fit: FittedPosterior,
    pool: CellPool,
    names: list[str],
    *,
    held_out: bool,
) -> list[Replayed]:
    """Return the targets; ``names`` are the perturbations of the pool.

    Raises
    ------
    ValueError
        If a label is unknown or has too few cells, or there is no target.
    """
    roles = _adata.fitted_roles(adata, fit.params)
    labels = _adata.read_every_label(adata, roles)
    requested = names if targets is None else labels.spelled(_adata.in_order(targets))
    labels.require(requested, "Targets")
    if too_few := [name for name in requested if name not in names]:
        message = (
            f"Targets must be perturbations of the fit with {MIN_CELLS} cells or more (under known "
            f"shifts, with a target gene on the panel): leave out {_adata.list_names(too_few)}."
        )
        raise ValueError(message)
    all_candidates, goals = np.arange(len(names)), []
    for name in dict.fromkeys(requested):
        goal = names.index(name)
        truth = pool.truth(goal)
        if targets is not None or truth.control > _MIN_TARGET_Z * truth.control_sd:
            contains = excluder([name], fit)
            is_candidate = [not (held_out and contains(other)) for other in names]
            goals.append(Replayed(name, goal, truth, all_candidates[is_candidate]))
    if not goals:
        message = (
            f"There is no target: name some perturbations (the default are those more than "
            f"{_MIN_TARGET_Z:g} standard errors from the controls)."
        )
        raise ValueError(message)
    return goals
