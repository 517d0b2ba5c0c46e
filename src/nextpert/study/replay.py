"""Campaigns replayed on the cells of a finished screen, and their tables."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nextpert._adata.panel import closest, in_order
from nextpert._adata.progress import progress, without_bars
from nextpert.core import ScreenMoments
from nextpert.core._checks import list_names
from nextpert.core._codec import strings
from nextpert.core._tasks import run_tasks
from nextpert.core.causal.registry import acquisitions
from nextpert.core.evaluate import BY_MEANS, replay_plates
from nextpert.core.fit.candidates import as_fitted, fitted_candidates
from nextpert.core.fit.cells import pool_cells
from nextpert.core.fit.interventions import shift_environments
from nextpert.core.fit.learn import Model
from nextpert.study.next_round import next_plate
from nextpert.study.paired import LEVEL, MIN_UNITS, differences_from
from nextpert.study.panel_target import PanelTarget
from nextpert.study.plate import STRATEGIES, PlateSize
from nextpert.study.pool import Pool, usual
from nextpert.study.ranking import draws_of
from nextpert.study.record import record_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.evaluate import CellPool, Strategy, Task, Truth
    from nextpert.core.fit.learn import Graphs, Spec

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]


BASELINE = "round_robin_means"
_ENDS = 0.05, 0.95  # quantiles at the ends of the middle 90% of campaigns
# Verdicts by the sign of the difference to the baseline, and how the sentence of each starts.
_VERDICTS = {-1: "nearer", 0: "no difference seen", 1: "further"}
_HEADS = ("nearer than", "not significantly different from", "further than")


def _names(strategies: Sequence[str], available: list[str]) -> list[str]:
    names = list(dict.fromkeys(map(str, in_order(strategies))))
    unknown = [name for name in names if name not in available]
    inexact = [name for name in unknown if EXACT + name in available]
    if inexact:
        message = (
            f"Strategies {list_names(inexact)} need exact shifts: write "
            f"{list_names([EXACT + name for name in inexact])}, or choose "
            f"'remaining_variance' to reduce uncertainty under uncertain shifts."
        )
        raise ValueError(message)
    if unknown:
        message = (
            f"Unknown strategies: {list_names(unknown)}."
            f"{closest(unknown, available)} Choose from {', '.join(available)}."
        )
        raise ValueError(message)
    return list(dict.fromkeys([*names, BASELINE]))


def judged(recommended: Index, goals: Sequence[Replayed]) -> tuple[Array, NDArray[np.bool_]]:
    """Return the distance of each recommendation, and whether it is as good as the best.

    Distances are relative to the control's. All arrays have the shape ``(n_targets, n_strategies,
    n_repeats, n_rounds + 1)``.
    """
    relative = np.array(
        [g.truth.distance[x] / g.truth.control for g, x in zip(goals, recommended, strict=True)]
    )
    good = [g.candidates[g.truth.as_good(g.candidates)] for g in goals]
    return relative, np.array([np.isin(x, y) for x, y in zip(recommended, good, strict=True)])


def targets_table(goals: Sequence[Replayed], names: Sequence[str]) -> pd.DataFrame:
    """Return one row per target: the best candidate, and distances in squared units of the data."""
    distances = [goal.truth.distance[goal.candidates] for goal in goals]
    best = [
        goal.candidates[distance.argmin()] for goal, distance in zip(goals, distances, strict=True)
    ]
    columns = {
        "target": strings(goal.name for goal in goals),
        "best": strings(names[j] for j in best),
        "best_distance": [distance.min() for distance in distances],
        "control_distance": [goal.truth.control for goal in goals],
        "pool_distance": [distance.mean() for distance in distances],
    }
    return pd.DataFrame(columns)


def rounds_table(
    relative: Array, targets: Sequence[str], strategies: Sequence[str]
) -> pd.DataFrame:
    """Return one row per target, strategy and round; ``relative`` is as in ``overall_table``."""
    low, median, high = np.quantile(relative, [_ENDS[0], 0.5, _ENDS[1]], axis=2)
    index = pd.MultiIndex.from_product(
        [targets, strategies, range(relative.shape[-1])], names=["target", "strategy", "round"]
    )
    columns = {"median": median.ravel(), "low": low.ravel(), "high": high.ravel()}
    table = pd.DataFrame(columns, index).reset_index()
    return table.assign(**{x: strings(table[x]) for x in ("target", "strategy")})


def plates_until_good(is_good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the rounds after which recommendations stay good; one more than all if never."""
    stays = np.logical_and.accumulate(is_good[..., ::-1], axis=-1)
    return np.asarray(is_good.shape[-1] - stays.sum(axis=-1), np.int64)


def overall_table(
    relative: Array, is_good: NDArray[np.bool_], strategies: Sequence[str]
) -> pd.DataFrame:
    """Return one row per strategy: the mean over all targets, each counted once.

    Differences are from the baseline, paired by target: repeats are averaged before, and intervals
    and p-values are over targets. ``relative`` (distances over the control's) and ``is_good`` have
    the shape ``(n_targets, n_strategies, n_repeats, n_rounds + 1)``.
    """
    baseline = list(strategies).index(BASELINE)
    mean, plates = relative.mean(axis=2), plates_until_good(is_good).mean(axis=2)
    by_target = {"plates": plates, "relative": mean[..., 1:].mean(axis=-1)}
    columns: dict[str, dict[str, list[float]]] = {}
    for name, values in by_target.items():
        mean_difference, low, high, p = zip(*differences_from(values, baseline), strict=True)
        columns[name] = {
            f"{name}_difference": list(mean_difference),
            f"{name}_low": list(low),
            f"{name}_high": list(high),
            f"{name}_p_adjusted": list(p),
        }
    gap, p_adjusted = (columns["relative"][f"relative_{x}"] for x in ("difference", "p_adjusted"))
    sign = np.where(np.array(p_adjusted) < LEVEL, np.sign(gap), 0)
    table = {
        "strategy": strings(strategies),
        "plates": plates.mean(axis=0),
        **columns["plates"],
        "share_good_last": is_good[..., -1].mean(axis=(0, 2)),
        "relative_last": mean[..., -1].mean(axis=0),
        **columns["relative"],
        "verdict": strings(_VERDICTS[int(s)] for s in sign),
    }
    return pd.DataFrame(table)


def _difference(row: pd.Series, name: str, digits: int) -> str:
    """Return a difference from the baseline with its interval and p-value."""
    mean, low, high, p = (
        row[f"{name}_{part}"] for part in ("difference", "low", "high", "p_adjusted")
    )
    interval = f"{low:+.{digits}f} to {high:+.{digits}f}, " if np.isfinite(high - low) else ""
    return f"{row.name} {mean:+.{digits}f} ({interval}p = {p:.2g})"


def in_words(overall: pd.DataFrame, targets: pd.DataFrame, n_rounds: int, *, held_out: bool) -> str:
    """Return how many rounds each strategy needs, and which strategy comes nearer."""
    rows, n = overall.set_index("strategy"), len(targets)
    needed = ", ".join(
        f"{name} {row['plates']:.1f} (good at the end in {row['share_good_last']:.0%})"
        for name, row in rows.sort_values("plates").iterrows()
    )
    compared = rows.drop(index=BASELINE)
    fewer = ", ".join(
        _difference(row, "plates", 1)
        for _, row in compared.sort_values("plates_difference").iterrows()
    )
    words, compared = [], compared.sort_values("relative_difference")
    for verdict, head in zip(_VERDICTS.values(), _HEADS, strict=True):
        differences = [
            _difference(row, "relative", 3)
            for _, row in compared[compared["verdict"] == verdict].iterrows()
        ]
        if differences:
            words.append(f"{head} {BASELINE}: {list_names(differences, limit=len(differences))}")
    distances = targets[["best_distance", "pool_distance"]]
    best, blind = distances.div(targets["control_distance"], axis=0).mean()
    ends = ", ".join(f"{name} {last:.2f}" for name, last in rows["relative_last"].items())
    unit = "95% intervals and p-values (by Holm over strategies) are over targets, not repeats"
    if n < MIN_UNITS:
        unit = (
            f"p-values (by Holm over strategies) are over targets, not repeats; with fewer than "
            f"{MIN_UNITS} targets, no difference is significant and there are no 95% intervals"
        )
    return (
        f"Target {'held out' if held_out else 'among the candidates'} ({n} target{'s' * (n > 1)}): "
        f"rounds until the recommendation is as good as the best and stays so ({n_rounds + 1} "
        f"stands for never): {needed}. Difference from {BASELINE} in rounds: "
        f"{fewer or 'nothing to compare'}. Distance over all rounds relative to the control's: "
        f"{'; '.join(words) or 'nothing to compare'}. Differences are paired by target; {unit}. "
        f"Distance of the recommendation after round {n_rounds}: {ends}; of the best candidate "
        f"{best:.2f}, of the control 1, of a random candidate {blind:.2f}."
    )


EXACT = "exact_"  # in front of a strategy whose model takes shifts as exact
N_SAMPLES = 100  # draws of distances, for a round and for a recommendation
N_WARMUP = 100  # control cells that a campaign starts from, as in the paper
MIN_CELLS = 4  # cells of a perturbation: half of a target's cells are held back
_MIN_TARGET_Z = 3.0  # minimum standard errors between a target and the controls, unless it is named


class Replayed(NamedTuple):
    """A target, and the true distances of all perturbations to it."""

    name: str
    target: int  # index of a perturbation in the pool
    truth: Truth
    candidates: Index  # indices in the pool


class Setting(NamedTuple):
    """What a user knows before the first experiment, the same for all campaigns."""

    spec: Spec  # all perturbations of the pool, in its order, and how they are modelled
    graphs: Graphs
    guided: bool  # whether guides are known


def known_strategies(setting: Setting) -> dict[str, Strategy]:
    """Return all strategies by name; with the prefix ``"exact_"``, shifts are exact.

    Acquisitions that need exact shifts are available only with the prefix.
    """
    return {
        prefix + name: partial(by_model, setting=setting, exact=bool(prefix), strategy=name)
        for prefix in ("", EXACT)
        for name in (*STRATEGIES, *acquisitions(exact=bool(prefix)))
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
    """Recommend a candidate and fill a round as a user does: by a fit to all cells seen.

    The recommendation is the candidate with the smallest mean distance. The probability of being
    the nearest, by which ``tl.design_interventions`` ranks, suits the choice of the next test, but
    as a recommendation it favours uncertain candidates. On TAP-seq (3 repeats, rounds 1 to 10) the
    distance of the recommended state, relative to the control's, was 0.44 in the pool and 1.75 held
    out by this probability, and 0.21 and 1.20 by the distance. The plan is that of
    ``tl.plan_screen``, with equal numbers of cells and no controls.
    """
    spec = replace(setting.spec, exact=exact)
    environments, nonempty = task.environments, np.flatnonzero(screen.n)
    group = environments.group[nonempty]
    # With exact shifts, perturbations without a known shift are left out.
    modelled = [
        j - 1 for j in np.unique(group[group > 0]).tolist() if not exact or spec.plan.targets[j - 1]
    ]
    row_of = np.full(len(spec.plan.names) + 1, -1)
    row_of[[0, *(j + 1 for j in modelled)]] = np.arange(len(modelled) + 1)
    used = nonempty[row_of[group] >= 0]
    measured = ScreenMoments(
        screen.n[used], screen.mean[used], screen.squares[used], screen.scatter
    )
    clean, sd = measured.without_batches(environments.fixed[used], environments.condition[used])
    guide = environments.guide[used] if setting.guided and not exact else None
    cells = pool_cells(
        clean,
        row_of[environments.group[used]],
        len(modelled) + 1,
        guide=guide,
        fixed_sd=sd,
        are_replicates=len(np.unique(environments.condition)) == len(np.unique(environments.group)),
    )
    naming, shift = spec.naming, spec.plan.shift
    params = {
        "separator": naming.separator,
        "control": naming.control,
        "shift": shift if isinstance(shift, str) else "table",
        "shift_sd": 0.0 if exact else "learned",
    }
    model = Model.fit(spec.rows(modelled), cells, setting.graphs)
    fit = record_of(model, params, left_out=pd.DataFrame())
    fit = replace(fit, columns=np.arange(len(spec.genes)))
    plan = spec.rows(task.candidates.tolist()).plan
    if isinstance(shift, str):
        shifts = as_fitted(plan.names, plan.targets, fit)
    else:
        shifts = shift_environments(plan, spec.genes, cells.control)
    target = PanelTarget("target", task.goal, task.goal)
    is_ready = np.isin(np.arange(len(plan.names)), ready)
    pool = Pool(fitted_candidates(shifts, fit), target, is_ready)
    stream = task.rng.spawn(1)[0]
    draws = draws_of(fit, pool.candidates, target, n_samples=N_SAMPLES, rng=stream)
    best = int(draws.distances.mean[:-1].argmin())
    if not size:
        return best, ready[:0]
    n_guides = 1
    if setting.guided:  # as many as the cells so far have, the median over perturbations
        pairs = np.unique(
            np.column_stack([row_of[environments.group[used]], environments.guide[used]]), axis=0
        )
        n_guides = usual(np.bincount(pairs[:, 0], minlength=len(modelled) + 1)[1:])
    n_cells = task.n_cells
    plate = next_plate(
        fit,
        pool,
        PlateSize(size, n_cells, size * n_cells, n_cells, n_controls=0),
        null=None,
        strategy=strategy,
        n_guides=n_guides,
        n_samples=N_SAMPLES,
        rng=task.rng.spawn(1)[0],
    )
    return best, np.array(plate.chosen.candidates, np.int64)


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

    Each target and repeat has one stream of random numbers, fixed before the first campaign
    starts: its strategies share the half of the target's cells that is held back, the warm-up
    cells, the order in which the cells of every perturbation are drawn, and the seed.
    """
    jobs = [
        (pool, goal, strategies, stream, plates)
        for goal, target_rng in zip(goals, rng.spawn(len(goals)), strict=True)
        for stream in target_rng.spawn(n_repeats)
    ]
    done = {}
    with progress(len(jobs), "Replayed campaigns") as bar:
        for i, result in run_tasks(_one, jobs, n_jobs=n_jobs):
            done[i] = result
            bar.update()
    recommended = np.array([done[i] for i in range(len(jobs))])
    return recommended.reshape(len(goals), n_repeats, *recommended.shape[1:]).swapaxes(1, 2)


def _one(
    pool: CellPool,
    goal: Replayed,
    strategies: list[Strategy],
    stream: np.random.Generator,
    plates: dict[str, int],
) -> Index:
    """Run all strategies on one target and repeat."""
    order, search = stream.spawn(2)
    # The matrices are small: threads would only wait for each other, and could change last bits.
    with threadpool_limits(1), without_bars():
        deal = pool.deal(goal.target, min(N_WARMUP, len(pool.control)), order)
        recommended = []
        for strategy in strategies:
            rng = deepcopy(search)  # the same for every strategy
            result = replay_plates(pool, deal, strategy, rng, candidates=goal.candidates, **plates)
            recommended.append(result.recommended)
    return np.array(recommended)
