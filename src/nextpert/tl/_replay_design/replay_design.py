"""``tl.replay_design``: campaigns over the real cells of a screen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata import environments
from nextpert._adata import shifts as _shifts
from nextpert.core._checks import as_rng, require_count
from nextpert.core.acquisition.build_acquisition import CRITERIA
from nextpert.core.loop.replay import NO_MODEL
from nextpert.tl._replay_design import run as running
from nextpert.tl._replay_design import tables, words
from nextpert.tl._replay_design.setup import Goal, Setup, read_setup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad
    import pandas as pd

logger = logging.getLogger(__name__)


def replay_design(
    adata: ad.AnnData,
    targets: Sequence[str | tuple[str, str]] | None = None,
    *,
    candidates: Sequence[str] | None = None,
    criteria: Sequence[str] = ("civ", "civ_ow", "cv", "maxv", "greedy", "random"),
    held_out: bool | str = False,
    n_warmup: int = 100,
    n_rounds: int = 10,
    n_cells: int = 10,
    n_repeats: int = 50,
    shift: str | pd.DataFrame | Mapping[str, Mapping[str, float]] = "knockout",
    dag_key: str = "dag",
    perturbation_key: str | None = None,
    control: str | None = None,
    layer: str | None = None,
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = 1,
    key_added: str = "replay",
    copy: bool = False,
) -> ad.AnnData | None:
    """Replay a screen as campaigns, to see whether a criterion beats random on it.

    The cells of the screen stand in for the lab (Zhang et al. 2023,
    doi:10.1038/s42256-023-00719-0, Fig. 6c): a campaign warms up on a few control cells, then in
    each round proposes a perturbation, draws cells of it without replacement, and updates the
    posterior. After each round it recommends the candidate whose mean is predicted nearest to the
    target; only the proposals differ between criteria. The score is the squared distance
    ``|mu_r - mu*|^2`` of the mean ``mu_r`` of *all* cells of the recommended perturbation to the
    target ``mu*``, as it stands after that round, not the best so far.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression, with a graph from :func:`learn_dag`. The cells
        replayed are held in memory, dense, on the panel.
    targets
        States to reach: labels (the mean of all cells of that perturbation), or pairs of labels
        (a mixture, half each; ``itertools.combinations(labels, 2)`` gives every pair). ``None``
        (default): every candidate in turn.
    candidates
        Labels that may be proposed; ``None`` (default) takes all whose shift is known on the
        panel.
    criteria
        Names as in :func:`design_interventions`. Two baselines are added where they are absent:
        ``"random"``, which the others are compared with, and ``"empty_graph"``, which draws the
        same cells as random and recommends by the same model with the same shifts on a graph
        without arcs, so that it says what the graph adds. ``"no_model"`` does without a model:
        it tries the candidates in random order and recommends the one with the nearest mean,
        that of its cells seen so far or, until there are some, of the control cells plus its
        shift.
    held_out
        ``False`` (default): the target's own perturbation is in the pool, as in the paper.
        ``True``: it is not (of a mixture, neither is), so that the best of the others must be
        found. ``"both"``: one after the other, on the same cells.
    n_warmup
        Number of control cells of the warm-up, drawn anew in each repeat.
    n_rounds, n_cells
        Number of rounds, and of cells a round. A perturbation gives the cells it has left; with
        none left it is proposed no more.
    n_repeats
        Number of repeats, at least 2.
    shift
        What is known of a perturbation before it is tried. ``"knockout"`` (default): minus the
        mean of its targets in all control cells, those the graph was learned from, too.
        ``"activation"``: one unit up. Or a table as in :func:`fit_dag_blr`, say from a pilot, or
        for labels that join their targets by something else than ``"+"``.
    dag_key
        Graph in ``adata.varp`` (row = parent).
    perturbation_key
        Column of ``adata.obs`` with the label of every cell; ``None`` stands for what
        :func:`nextpert.pp.setup_screen` was told, or ``"perturbation"``.
    control
        Label of the unperturbed cells; ``None`` as above, or ``"control"``.
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    rng
        Seed or generator. Each target and repeat has its own stream; within it all criteria see
        the same warm-up cells, and the same cells of a perturbation in the same order.
    n_jobs
        Number of processes; the results are the same to the bit for any, and if one is killed
        its share is done by the calling one. ``None`` leaves it to joblib's context.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Writes ``uns["replay"]`` with tables:

        - ``table``: one row a target, ``held_out``, criterion and round (0 is after the
          warm-up): ``n_cells`` drawn so far, ``mean`` and ``sem`` (standard error over repeats) of
          the squared distance (squared log-normalised expression), the same as a share of the
          control mean's distance (``relative_mean``, ``relative_sem``), and ``share_best``, the
          share of repeats in which the best candidate (or one as good) is recommended.
        - ``comparison``: one row a target and criterion: the paired difference to random
          averaged over rounds 1 to the last (``difference``, below 0 is nearer; with ``_sem``,
          and ``relative_`` as above), that after the last round (``last_difference``),
          ``p_value`` (paired t test), ``p_adjusted`` (Holm, over targets) and ``verdict`` at
          level 0.05.
        - ``overall``: one row a criterion, over all targets, with standard errors over targets
          (mixtures share their parts, so theirs are too small): ``relative_first`` after the
          warm-up, ``relative_last`` after the last round, ``relative_difference`` to random with
          ``p_value`` (t test over targets; of a single target, over repeats), ``p_adjusted``
          (Holm, over criteria) and ``verdict``, on how many targets it is better or worse; the
          same for the difference to the empty graph (``difference_to_empty``,
          ``p_to_empty``, ``p_to_empty_adjusted``; NaN for what has no graph).
        - ``targets``: distance of the best candidate, of control cells (doing nothing) and, on
          average, of the pool (picking blindly). ``candidates``: ``distance`` of each one's mean
          to each target. The screen is taken for the whole population; where its cells are
          taken for a sample, ``control_sampling`` and ``sampling`` say how much of a distance
          sampling adds on average. ``environments`` and ``left_out`` as in :func:`fit_dag_blr`.

        Further ``summary`` (what the tables say, in words, and whether the graph adds anything),
        ``runs`` (``distance``, ``recommended`` and ``chosen`` of every campaign, shape
        ``(n_targets, n_readings, n_criteria, n_repeats, n_rounds + 1)``, numbers as in
        ``environments``), ``genes`` and
        ``params``.

    Raises
    ------
    ValueError
        If there is no graph, a label or criterion is unknown, there are fewer than two
        candidates (once the target's own is held out: none), too few control cells, or a number
        is too small. Nothing is written then.
    TypeError
        If ``targets``, ``candidates`` or ``criteria`` is a string.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=60, perturbed=4, expected_degree=3
    ... )
    >>> npt.tl.learn_dag(adata, n_runs=2)
    >>> npt.tl.replay_design(adata, criteria=["greedy"], n_rounds=3, n_repeats=4)
    >>> table = adata.uns["replay"]["table"]
    >>> len(table), sorted(set(table["criterion"]))  # 4 targets x 3 criteria x (1 + 3) rounds
    (48, ['empty_graph', 'greedy', 'random'])
    """
    _adata.check_arguments(locals())
    _adata.check_key(key_added)
    _adata.check_writable(adata, copy=copy)
    roles = _adata.read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer
    )
    perturbation_key, control, layer = roles.perturbation_key, roles.control, roles.layer
    _shifts.check_shift(shift)
    options = running.Options(
        criteria=_criteria(criteria),
        n_warmup=require_count(n_warmup, "n_warmup", least=2),
        n_rounds=require_count(n_rounds, "n_rounds"),
        n_cells=require_count(n_cells, "n_cells"),
        n_repeats=require_count(n_repeats, "n_repeats", least=2),
    )
    readings = _readings(held_out)
    setup = read_setup(adata, targets, candidates, shift, dag_key=dag_key, roles=roles)
    tasks = [_task(goal, readings, setup) for goal in setup.goals]
    if options.n_warmup > len(setup.pool.control):
        message = (
            f"n_warmup is {options.n_warmup}, but only {len(setup.pool.control)} cells are "
            f"labelled {control!r}: lower n_warmup."
        )
        raise ValueError(message)
    runs = running.run_all(setup.pool, setup.dag, tasks, options, as_rng(rng), n_jobs=n_jobs)
    params: dict[str, Any] = {
        "criteria": _adata.strings(options.criteria),
        "held_out": np.array(readings),
        "shift": shift if isinstance(shift, str) else "table",
        "dag_key": dag_key,
        **roles.stored(),
    }
    params |= {n: getattr(options, n) for n in ("n_warmup", "n_rounds", "n_cells", "n_repeats")}
    stored = _results(setup, readings, tasks, options, runs) | {"params": params}
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", stored["summary"])
    return written


def _criteria(criteria: Sequence[str]) -> tuple[str, ...]:
    if isinstance(criteria, str):
        message = f"criteria must be a list of names: use [{criteria!r}]."
        raise TypeError(message)
    names = list(dict.fromkeys(map(str, _adata.in_order(criteria))))
    known = (*CRITERIA, NO_MODEL, running.EMPTY)
    unknown = [name for name in names if name not in known]
    if unknown:
        message = (
            f"Unknown criteria: {_adata.list_names(unknown)}.{_adata.closest(unknown, known)} "
            f"Choose from {', '.join(known)}."
        )
        raise ValueError(message)
    baselines = (tables.BASELINE, running.EMPTY)
    return (*names, *(name for name in baselines if name not in names))


def _readings(held_out: Any) -> list[bool]:
    if isinstance(held_out, (bool, np.bool_)):
        return [bool(held_out)]
    if held_out != "both":
        message = f"held_out must be True, False or 'both', but is {held_out!r}."
        raise ValueError(message)
    return [False, True]


def _task(goal: Goal, readings: list[bool], setup: Setup) -> running.Task:
    every = np.arange(len(setup.plan.names))
    pools = [np.setdiff1d(every, goal.own) if held_out else every for held_out in readings]
    if any(len(may) == 0 for may in pools):
        message = (
            f"With its own perturbations held out, no candidate is left for the target "
            f"{goal.name!r}: widen the list of candidates, or use held_out=False."
        )
        raise ValueError(message)
    return running.Task(goal.mean, pools)


def _results(
    setup: Setup,
    readings: list[bool],
    tasks: list[running.Task],
    options: running.Options,
    runs: running.Runs,
) -> dict[str, Any]:
    names, pool = setup.plan.names, setup.pool
    targets = tables.targets_table(
        setup.goals, readings, [task.candidates for task in tasks], names
    )
    distance = runs.distance.reshape(-1, *runs.distance.shape[2:])
    table = tables.rounds_table(distance, targets, options.criteria, options.n_cells)
    comparison = tables.comparison_table(distance, targets, options.criteria)
    overall = tables.overall_table(table, comparison, distance, targets, options.criteria)
    n_cells = [int(n) for n in pool.n_cells]
    return {
        "table": table,
        "comparison": comparison,
        "overall": overall,
        "targets": targets,
        "candidates": tables.candidates_table(setup.goals, names),
        "environments": environments.environment_table(setup.used, setup.genes, n_cells),
        "left_out": environments.left_out_table(setup.plan, setup.labels),
        "summary": words.in_words(overall, targets, options.n_rounds),
        "runs": {
            "distance": runs.distance,
            "recommended": runs.recommended,
            "chosen": runs.chosen,
        },
        "genes": _adata.strings(setup.genes),
    }
