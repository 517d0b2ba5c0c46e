"""Campaigns of a replay: a screen as a pool, strategies as users run them, all in parallel."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nextpert import _adata, core
from nextpert._adata.progress import progress, without_bars
from nextpert._adata.screen import read_environments
from nextpert._adata.sources import dense
from nextpert.core import ScreenMoments
from nextpert.core.causal.design_loop import run_tasks
from nextpert.core.design.joint_draws import Joined
from nextpert.core.evaluate import BY_MEANS, CellPool, PoolEnvironments, replay_plates
from nextpert.core.fit.candidates import as_asked, as_fitted, fitted_candidates
from nextpert.core.fit.cells import pool_cells
from nextpert.core.fit.interventions import shift_environments
from nextpert.core.fit.learn import Graphs, Model
from nextpert.tl._design_interventions.target import given_by_numbers
from nextpert.tl._fit_dag_blr import record_of, spec_of
from nextpert.tl._plan_screen.pool import Constraints
from nextpert.tl._plan_screen.wells import STRATEGIES, Choice, Wells

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.core.evaluate import Strategy, Task, Truth
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.fit.learn import Spec

    Index = NDArray[np.int64]

EXACT = "exact_"  # in front of a strategy whose model takes shifts as exact
N_SAMPLES = 100  # draws of distances, for a plate and for a recommendation
N_WARMUP = 100  # control cells that a campaign starts from, as in the paper
FEWEST = 4  # cells of a perturbation: half of a target's are held back
_CLEAR = 3.0  # standard errors that a target lies off the controls, unless it was asked for


class Replayed(NamedTuple):
    """What is to be reached, and how far all perturbations truly are from it."""

    name: str
    target: int  # a perturbation, by its number in the pool
    truth: Truth
    candidates: Index  # by their numbers in the pool


class Setting(NamedTuple):
    """What a user knows before the first cell, the same for all campaigns."""

    spec: Spec  # all perturbations of the pool, in its order, and how they are modelled
    graphs: Graphs
    guided: bool  # whether guides are known


def strategies(setting: Setting) -> dict[str, Strategy]:
    """Return all ways to fill a plate, by name; a prefix says that shifts are exact.

    Acquisitions that need exact shifts are there with the prefix only.
    """
    return {
        prefix + name: partial(by_model, setting=setting, exact=bool(prefix), strategy=name)
        for prefix in ("", EXACT)
        for name in (*STRATEGIES, *core.acquisitions(exact=bool(prefix)))
    } | BY_MEANS


def by_model(
    task: Task,
    screen: ScreenMoments,
    ready: Index,
    size: int,
    *,
    setting: Setting,
    exact: bool,
    strategy: str,
) -> tuple[int, Index]:
    """Recommend and fill a plate as a user does: by a fit to all cells seen.

    Recommended is the smallest ``predicted_distance`` in the table of ``tl.design_interventions``.
    The probability of being the nearest, by which that table is sorted, is right for what to try
    next; as an answer it favours what is least known. On TAP-seq (3 repeats) states recommended by
    it were 0.44 as far as the control's in the pool and 1.75 held out, over plates 1 to 10; by the
    predicted distance 0.21 and 1.20. The plate is that of ``tl.plan_screen``, with as many cells of
    each and no controls.
    """
    spec = replace(setting.spec, exact=exact)
    its, has = task.environments, np.flatnonzero(screen.n)
    group = its.group[has]
    # With exact shifts a perturbation without a known shift takes no part.
    taken = [
        j - 1 for j in np.unique(group[group > 0]).tolist()
        if not exact or spec.plan.targets[j - 1]
    ]  # fmt: skip
    place = np.full(len(spec.plan.names) + 1, -1)
    place[[0, *(j + 1 for j in taken)]] = np.arange(len(taken) + 1)
    used = has[place[group] >= 0]
    seen = ScreenMoments(screen.n[used], screen.mean[used], screen.squares[used], screen.scatter)
    clean, sd = seen.without_batches(its.fixed[used], its.condition[used])
    guide = its.guide[used] if setting.guided and not exact else None
    cells = pool_cells(
        clean, place[its.group[used]], len(taken) + 1, guide=guide, fixed_sd=sd
    )  # fmt: skip
    naming, shift = spec.naming, spec.plan.shift
    params = {
        "separator": naming.separator, "control": naming.control,
        "shift": shift if isinstance(shift, str) else "table",
        "shift_sd": 0.0 if exact else "learned",
    }  # fmt: skip
    model = Model.fit(spec.rows(taken), cells, setting.graphs)
    fit = record_of(model, params, left_out=pd.DataFrame())
    fit = replace(fit, columns=np.arange(len(spec.genes)))
    plan = spec.rows(task.candidates.tolist()).plan
    if isinstance(shift, str):
        shifts = as_fitted(plan.names, plan.targets, fit)
    else:
        shifts = shift_environments(plan, spec.genes, cells.control)
    numbers = given_by_numbers(task.goal.states[0], fit)  # they have a part in the draws
    asked = partial(
        as_asked, fit, fitted_candidates(shifts, fit), task.goal, Joined(numbers=numbers),
        n_samples=N_SAMPLES,
    )  # fmt: skip
    best = int(asked(rng=task.rng.spawn(1)[0]).distances.mean[:-1].argmin())
    if not size:
        return best, ready[:0]
    n_cells, candidates = task.n_cells, asked(n_cells=task.n_cells, rng=task.rng.spawn(1)[0])
    limits = Constraints(np.isin(np.arange(candidates.size), ready))
    wells = Wells(size, n_cells, size * n_cells, n_cells, n_controls=0)
    choice = Choice(candidates, limits, wells, np.ones(candidates.size, bool))
    return best, np.array(choice.choose(strategy).candidates, np.int64)


def run_all(
    pool: CellPool,
    strategies: list[Strategy],
    goals: list[Replayed],
    n_repeats: int,
    rng: np.random.Generator,
    *,
    n_jobs: int | None,
    **plates: int,
) -> Index:
    """Return the candidates recommended, ``(n_targets, n_strategies, n_repeats, n_rounds + 1)``.

    A target and repeat has one stream of random numbers, fixed before the first campaign
    starts: its strategies share the half of the target's cells that are held back, the warm-up
    cells, the order in which the cells of every perturbation come up, and the seed.
    """
    jobs = [
        (pool, goal, strategies, stream, plates)
        for goal, own in zip(goals, rng.spawn(len(goals)), strict=True)
        for stream in own.spawn(n_repeats)
    ]
    done = {}
    with progress(len(jobs), "Replayed campaigns") as bar:
        for i, result in run_tasks(_one, jobs, n_jobs=n_jobs):
            done[i] = result
            bar.update()
    every = np.array([done[i] for i in range(len(jobs))])
    return every.reshape(len(goals), n_repeats, *every.shape[1:]).swapaxes(1, 2)


def _one(
    pool: CellPool,
    goal: Replayed,
    strategies: list[Strategy],
    stream: np.random.Generator,
    plates: dict[str, int],
) -> Index:
    """Run all strategies on one target and repeat."""
    order, search = stream.spawn(2)
    # Small matrices: threads would only wait for each other, and could change the last bits.
    with threadpool_limits(1), without_bars():
        deal = pool.deal(goal.target, min(N_WARMUP, len(pool.control)), order)
        recommended = []
        for strategy in strategies:
            rng = deepcopy(search)  # the same for every strategy
            result = replay_plates(pool, deal, strategy, rng, candidates=goal.candidates, **plates)
            recommended.append(result.recommended)
    return np.array(recommended)


def read_pool(adata: ad.AnnData, fit: FittedPosterior) -> tuple[CellPool, Setting]:
    """Return the perturbations of a fit that have enough cells as a pool, and their model.

    What batches add, by all cells, is taken off, so that states of any cells are at the same
    batch. A campaign estimates it once more from the cells it has seen.
    """
    roles = _adata.fitted_roles(adata, fit.params)
    every = read_environments(adata, roles, named=fit.names)
    n_cells = every.table["n_cells"].groupby(every.groups(fit.names)).sum()
    enough = n_cells.reindex(range(len(fit.names)), fill_value=0) >= FEWEST
    spec = spec_of(fit).rows(np.flatnonzero(enough).tolist())
    groups = [roles.control, *spec.plan.names]
    every = every.only(sorted(set(every.perturbation[every.groups(groups) >= 0])))
    group = every.groups(groups)
    of_cell = np.append(group, -1)[every.codes]
    rows = np.flatnonzero(of_cell >= 0)
    cells, place = np.empty((len(rows), len(fit.genes))), np.cumsum(of_cell >= 0) - 1
    batches = _adata.read_batches(adata, fit.columns, roles)
    for which, values in _adata.read_blocks(adata, fit.columns, rows, layer=roles.layer):
        cells[place[which]] = dense(values)
        if batches is not None:
            cells[place[which]] -= batches.of_cells(which)
    order = np.argsort(of_cell[rows], kind="stable")
    control, *perturbed = np.split(order, np.cumsum(np.bincount(of_cell[rows]))[:-1])
    codes = every.codes[rows]
    environments = PoolEnvironments(
        group, every.levels(roles.perturbation_key, *every.condition_names),
        every.levels(*([] if roles.guide_key is None else [roles.guide_key])),
        every.indicators(roles.batch_key)[1], codes[control], codes[np.concatenate(perturbed)],
    )  # fmt: skip
    pool = CellPool(cells[control], [cells[some] for some in perturbed], environments)
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
    """Return what is to be reached; ``names`` are those of the pool.

    Raises
    ------
    ValueError
        If a label is unknown or has too few cells, or there is no target.
    """
    roles = _adata.fitted_roles(adata, fit.params)
    labels = _adata.read_every_label(adata, roles)
    requested = names if targets is None else labels.spelled(_adata.in_order(targets))
    labels.require(requested, "Targets")
    if few := [name for name in requested if name not in names]:
        message = (
            f"Targets of fewer than {FEWEST} cells, or not perturbations of the fit: "
            f"{_adata.list_names(few)}."
        )
        raise ValueError(message)
    every, goals = np.arange(len(names)), []
    for name in dict.fromkeys(requested):
        goal = names.index(name)
        truth = pool.truth(goal)
        if targets is not None or truth.control > _CLEAR * truth.control_sd:
            goals.append(Replayed(name, goal, truth, every[(every != goal) | (not held_out)]))
    if not goals:
        message = (
            f"There is no target: name some, or widen the panel until a perturbation lies "
            f"{_CLEAR:g} standard errors from the controls."
        )
        raise ValueError(message)
    return goals
