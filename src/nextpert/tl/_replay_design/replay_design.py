"""``tl.replay_design``: campaigns in plates over the real cells of a screen, and their tables."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import t as student

from nextpert import _adata
from nextpert._adata.arguments import WORKERS, at_least, checked
from nextpert._adata.table import require_cells
from nextpert.core._checks import as_rng
from nextpert.tl._replay_design import campaigns
from nextpert.tl._replay_design.campaigns import FEWEST, read_goals, read_pool, run_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.tl._replay_design.campaigns import Replayed

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

LEVEL = 0.05
BASELINE = "round_robin_means"
_ENDS = 0.05, 0.95  # of the middle of campaigns, as quantiles
# Verdicts by the sign of the difference to the baseline, and how a sentence of each starts.
_VERDICTS = {-1: "nearer", 0: "no difference seen", 1: "further"}
_HEADS = ("nearer than", "not significantly different from", "further than")


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
    """Replay a screen as campaigns, to compare how many plates strategies need to find a state.

    Use it on a finished screen, before you choose a strategy for the next one. Its cells replace
    the experiments, as in Fig. 6c of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0): a campaign
    starts from 100 control cells, draws a plate in each round, fits the model again with the graph
    and options of ``uns["dag_blr"]``, and recommends a perturbation. It is scored by the squared
    distance of the mean of all its cells to the target, minus the sampling error.
    :doc:`/guides/plan_a_plate` shows an example; :func:`nextpert.pl.replay` draws the result.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression, after :func:`fit_dag_blr`. Its perturbations of 4
        cells or more may be proposed.
    targets
        Labels; the state of each is the mean of half of its cells. ``None`` (default): those three
        standard errors or more from the controls.
    strategies
        How plates are chosen: a ``strategy`` of :func:`plan_screen` (``"exploit"``, ``"explore"``,
        ``"both"``, or an acquisition such as ``"thompson"``), ``"random"``, ``"exact_greedy"`` and
        ``"exact_civ"`` (known shifts, as in the paper), or, without a model,
        ``"thompson_means"`` and ``"round_robin_means"``, the baseline that is always added.
    held_out
        Whether to find the best of the others, without the target's own perturbation.
    n_rounds, n_perturbations, n_cells
        Plates of a campaign, perturbations per plate, and cells per perturbation.
    n_repeats
        Number of repeats, at least 2.
    rng, n_jobs
        Seed or generator, and number of processes, on which the results do not depend. All
        strategies see the same cells in each repeat.
    key_added, copy
        Name of the results, and whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. :doc:`/model/stored_results` lists all columns. Writes
        ``uns["replay"]`` with:

        - ``summary`` (text): the results in sentences.
        - ``overall`` (table): by ``strategy``, over targets: ``plates`` needed, ``relative_last``
          (last distance, relative to the control's) and ``verdict``, compared with the baseline.
        - ``table`` (table): distances after every ``round``, by target and strategy.
        - ``targets`` (table): distances of the best, the control and the pool.

    Raises
    ------
    ValueError
        If there is no fit, a name is unknown, there are too few cells or perturbations, or no
        target differs from the controls; TypeError if a list is a string. Nothing is written then.

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
    known, labels = campaigns.strategies(setting), setting.spec.plan.names
    names = _names(strategies, list(known))
    if pool.n_perturbations < 2:
        message = (
            f"A replay needs at least two perturbations of {FEWEST} cells or more, but the fit has "
            f"{pool.n_perturbations}: fit more of them."
        )
        raise ValueError(message)
    goals = read_goals(adata, targets, fit, pool, labels, held_out=held_out)
    plates = {
        "n_rounds": n_rounds, "n_perturbations": min(n_perturbations, pool.n_perturbations),
        "n_cells": n_cells,
    }  # fmt: skip
    recommended = run_all(
        pool, [known[name] for name in names], goals, n_repeats, as_rng(rng), n_jobs=n_jobs,
        **plates,
    )  # fmt: skip
    # Of the recommended: the distance relative to the control's, and whether it is as good as the
    # best; shape (n_targets, n_strategies, n_repeats, n_rounds + 1).
    relative = np.array([
        g.truth.distance[x] / g.truth.control for g, x in zip(goals, recommended, strict=True)
    ])  # fmt: skip
    good = [g.candidates[g.truth.as_good(g.candidates)] for g in goals]
    is_good = np.array([np.isin(x, some) for x, some in zip(recommended, good, strict=True)])
    heads, overall = targets_table(goals, labels), overall_table(relative, is_good, names)
    stored = {
        "summary": in_words(overall, heads, n_rounds, held_out=held_out),
        "overall": overall,
        "table": rounds_table(relative, [g.name for g in goals], names),
        "targets": heads,
        **fit.origin,
        "params": {
            **plates, "n_repeats": n_repeats, "strategies": _adata.strings(names),
            "held_out": held_out, "rng": _adata.seed_of(rng),
        },
    }  # fmt: skip
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", stored["summary"])
    return written


def _names(strategies: Sequence[str], known: list[str]) -> list[str]:
    names = list(dict.fromkeys(map(str, _adata.in_order(strategies))))
    unknown = [name for name in names if name not in known]
    if unknown:
        message = (
            f"Unknown strategies: {_adata.list_names(unknown)}."
            f"{_adata.closest(unknown, known)} Choose from {', '.join(known)}."
        )
        raise ValueError(message)
    return list(dict.fromkeys([*names, BASELINE]))


def targets_table(goals: Sequence[Replayed], names: Sequence[str]) -> pd.DataFrame:
    """Return one row per target: the best candidate, and distances in squared units of the data."""
    distances = [goal.truth.distance[goal.candidates] for goal in goals]
    best = [goal.candidates[each.argmin()] for goal, each in zip(goals, distances, strict=True)]
    columns = {
        "target": _adata.strings(goal.name for goal in goals),
        "best": _adata.strings(names[j] for j in best),
        "best_distance": [each.min() for each in distances],
        "control_distance": [goal.truth.control for goal in goals],
        "pool_distance": [each.mean() for each in distances],
    }
    return pd.DataFrame(columns)


def rounds_table(
    relative: Array, targets: Sequence[str], strategies: Sequence[str]
) -> pd.DataFrame:
    """Return one row per target, strategy and round; ``relative`` is that of overall_table."""
    low, median, high = np.quantile(relative, [_ENDS[0], 0.5, _ENDS[1]], axis=2)
    every = pd.MultiIndex.from_product(
        [targets, strategies, range(relative.shape[-1])], names=["target", "strategy", "round"]
    )
    columns = {"median": median.ravel(), "low": low.ravel(), "high": high.ravel()}
    table = pd.DataFrame(columns, every).reset_index()
    return table.assign(**{x: _adata.strings(table[x]) for x in ("target", "strategy")})


def plates_until_good(is_good: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the plates after which recommendations stay good; one more than all if never."""
    stays = np.logical_and.accumulate(is_good[..., ::-1], axis=-1)
    return np.asarray(is_good.shape[-1] - stays.sum(axis=-1), np.int64)


def overall_table(
    relative: Array, is_good: NDArray[np.bool_], strategies: Sequence[str]
) -> pd.DataFrame:
    """Return one row per strategy: the mean over all targets, each counted once.

    Standard errors and paired t tests are over repeats; p-values are adjusted over the strategies
    by Holm's method. ``relative`` (distances over the control's) and ``is_good`` have the shape
    ``(n_targets, n_strategies, n_repeats, n_rounds + 1)``.
    """
    baseline = list(strategies).index(BASELINE)
    mean, plates = relative.mean(axis=0), plates_until_good(is_good).mean(axis=0)
    gap, sem, p_value = _paired((mean - mean[baseline])[..., 1:].mean(axis=-1))
    p_value[baseline] = np.nan  # no comparison
    p_adjusted = holm(p_value)
    sign = np.where(p_adjusted < LEVEL, np.sign(gap), 0)
    columns = {
        "strategy": _adata.strings(strategies),
        "plates": plates.mean(axis=-1),
        "plates_sem": _paired(plates)[1],
        "share_good_last": is_good[..., -1].mean(axis=(0, 2)),
        "relative_last": mean[..., -1].mean(axis=-1),
        "relative_difference": gap,
        "relative_difference_sem": sem,
        "p_adjusted": p_adjusted,
        "verdict": _adata.strings(_VERDICTS[int(s)] for s in sign),
    }
    return pd.DataFrame(columns)


def holm(p_values: Array) -> Array:
    """Return p-values adjusted by Holm's step-down method, in the order given; NaN are none."""
    out = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    out[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1.0)
    return out


def _paired(gap: Array) -> tuple[Array, Array, Array]:
    """Return mean, standard error and two-sided p-value of differences, over the last axis."""
    gap, n = np.round(gap, 12), gap.shape[-1]  # equal campaigns end up equal but for rounding
    mean, sem = gap.mean(axis=-1), gap.std(axis=-1, ddof=1) / np.sqrt(n)
    return mean, sem, 2 * student.sf(np.abs(mean) / np.maximum(sem, 1e-300), n - 1)


def in_words(overall: pd.DataFrame, targets: pd.DataFrame, n_rounds: int, *, held_out: bool) -> str:
    """Return how many plates each strategy needs, and which comes nearer."""
    rows, n = overall.set_index("strategy"), len(targets)
    needed = ", ".join(
        f"{name} {row['plates']:.1f} (good at the end in {row['share_good_last']:.0%})"
        for name, row in rows.sort_values("plates").iterrows()
    )
    others, words = rows.drop(index=BASELINE).sort_values("relative_difference"), []
    for verdict, head in zip(_VERDICTS.values(), _HEADS, strict=True):
        each = [
            f"{name} {row['relative_difference']:+.3f} ± {row['relative_difference_sem']:.3f}"
            for name, row in others[others["verdict"] == verdict].iterrows()
        ]
        if each:
            words.append(f"{head} {BASELINE}: {_adata.list_names(each, limit=len(each))}")
    distances = targets[["best_distance", "pool_distance"]]
    best, blind = distances.div(targets["control_distance"], axis=0).mean()
    ends = ", ".join(f"{name} {last:.2f}" for name, last in rows["relative_last"].items())
    return (
        f"Target {'held out' if held_out else 'in the pool'} ({n} target{'s' * (n > 1)}): "
        f"plates until the recommendation is as good as the best and stays so ({n_rounds + 1} "
        f"stands for never): {needed}. Distance over all plates relative to the control's, ± "
        f"one standard error, p-values by Holm: {'; '.join(words) or 'nothing to compare'}. "
        f"Distance of the recommendation after plate {n_rounds}: {ends}; of the best candidate "
        f"{best:.2f}, of the control 1, of a random candidate {blind:.2f}."
    )
