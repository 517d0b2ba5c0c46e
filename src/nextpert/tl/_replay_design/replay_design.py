"""``tl.replay_design``: campaigns in plates over the real cells of a screen."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata import arguments, environments
from nextpert._adata import effects as _shifts
from nextpert._adata.arguments import WORKERS, at_least, checked, one_of
from nextpert._adata.labels import left_out_table
from nextpert._adata.table import require_cells
from nextpert.core._checks import as_rng
from nextpert.tl._replay_design import modelled, tables
from nextpert.tl._replay_design.setup import read_setup

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    import pandas as pd
    from numpy.typing import NDArray

    from nextpert._adata.target import Target
    from nextpert.tl._replay_design.setup import Setup

logger = logging.getLogger(__name__)


@arguments.options(n_warmup=at_least(2), shift=one_of(*_shifts.KINDS))
@dataclass(frozen=True)
class _CampaignOptions:
    """``campaign_options``: each is documented there."""

    n_warmup: int = 100
    shift: str | pd.DataFrame | Mapping[str, Mapping[str, float]] = "knockout"
    simulated: bool = False


@checked(
    held_out=one_of("both"), n_repeats=at_least(2), campaign_options=_CampaignOptions,
    n_jobs=WORKERS,
)  # fmt: skip
def replay_design(
    adata: ad.AnnData,
    targets: Sequence[str | Target] | None = None,
    *,
    candidates: Sequence[str] | None = None,
    strategies: Sequence[str] = ("exploit", "random", "thompson_means", "round_robin_means"),
    held_out: bool | str = False,
    n_rounds: int = 10,
    n_perturbations: int = 4,
    n_cells: int = 10,
    n_repeats: int = 20,
    campaign_options: Mapping[str, Any] | None = None,
    dag_key: str = "dag",
    rng: int | np.random.Generator | None = 0,
    n_jobs: int | None = 1,
    key_added: str = "replay",
    copy: bool = False,
) -> ad.AnnData | None:
    """Replay a screen as campaigns, to compare how many plates strategies need to find a state.

    The cells of the screen replace the experiments (Zhang et al. 2023,
    doi:10.1038/s42256-023-00719-0, Fig. 6c). A campaign starts from a few control cells. In each
    round it draws cells of a few perturbations without replacement (a plate), and fits its model
    again. It makes the calls that users make: a fit, a plan of the next plate without controls, a
    ranking. After each plate it recommends a perturbation. The target state is the mean of half of
    the cells of a target, drawn anew in each repeat; the other half are in the pool. The score is
    the squared distance of the mean of *all* cells of the recommended perturbation to that of all
    cells of the target, with the sampling error subtracted. It is that of the current
    recommendation, not of the best so far.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression, with a graph from :func:`learn_dag`. The cells
        replayed are held in memory, dense, on the panel.
    targets
        What is to be reached: perturbations, as labels, for the state of each; or
        :class:`nextpert.Target` of any kind (cells of other groups, signatures, bounds, what to
        stay away from). States of perturbations in it are those of half of their cells, too, and
        all cells tell the truth. ``None`` (default): every candidate that lies three standard
        errors or more off the control cells.
    candidates
        Labels that may be proposed; ``None`` (default) takes all perturbations of 4 cells or more,
        their targets measured or not.
    strategies
        How plates are chosen. By a model that is fitted after every plate to all cells seen so
        far, as :func:`fit_dag_blr` does, and asked as :func:`plan_screen` asks it for the next
        plate: a ``strategy`` of it, so ``"exploit"`` (half of a plate those expected nearest, half
        the most probably nearest of the others), ``"explore"``, ``"both"``, or an acquisition such
        as ``"thompson"`` (each perturbation the nearest under a draw of the posterior), ``"ei"``
        (expected improvement), ``"civ"`` (causal integrated variance) and ``"random"``.
        ``"exact_greedy"`` and ``"exact_civ"`` take shifts as known and full, as in the paper
        (``shift_sd=0``). What is recommended is the
        candidate with the smallest ``mean_distance`` in the table of
        :func:`design_interventions`.
        Without a model: ``"round_robin_means"``, one perturbation after the other, recommending the
        nearest mean of cells, less what sampling adds; it is added where it is absent, and the
        others are compared with it. ``"thompson_means"``, Thompson sampling on those means.
    held_out
        ``False`` (default): the target itself is in the pool. ``True``: it is not, so that the
        best of the others must be found. ``"both"``: one after the other, on the same cells.
    n_rounds
        Number of plates.
    n_perturbations, n_cells
        Different perturbations on a plate, and cells of each. A perturbation gives the cells it
        has left; with none left it is proposed no more.
    n_repeats
        Number of repeats, at least 2.
    campaign_options
        Rarely needed options of a campaign, a mapping with some of:

        - ``"n_warmup"`` (100): number of control cells that it starts from, drawn anew in each
          repeat.
        - ``"shift"``: what a full perturbation does to its targets: ``"knockout"`` (default) minus
          their mean in the control cells seen, ``"activation"`` one unit up; or a table as in
          :func:`fit_dag_blr`. What part of it perturbations achieve is learned, but by
          ``"exact_"``.
        - ``"simulated"`` (``False``): whether cells are drawn from a fit to the screen (its graph,
          noise, learned shifts and number of cells a perturbation) in place of its own. There the
          model holds, so that what it gains on the screen's own cells beside is what can be
          believed.
    dag_key
        Graph in ``adata.varp`` (row = parent), with the label of every cell, the controls and the
        layer as :func:`learn_dag` took them; of a graph that was given, as
        :func:`nextpert.pp.setup_screen` was told. It may have been learned from the very cells that
        are replayed, and is taken as it is in every fit; graphs of resamples take no part. One
        without edges (``method="given"``, ``dag=[]``, and ``genes``) leaves shrinkage alone.
    rng
        Seed or generator. Each target and repeat has its own stream; within it all strategies see
        the same control cells, and the same cells of a perturbation in the same order.
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
        ``None``, or the copy. Writes ``uns["replay"]`` with:

        - ``overall`` (table): one row per ``held_out`` and strategy, means over all targets:
          ``plates`` until the recommendation is as good as the best and stays so, with
          ``plates_sem`` (over repeats). A recommendation is as good as the best if all cells cannot
          distinguish the two at 95% confidence; one plate more than all stands for never.
          ``share_good_last``; ``relative_last``, the distance after the last plate relative to
          that of the controls; ``relative_difference`` to ``"round_robin_means"``, averaged over
          plates 1 to the last (below 0 is nearer), and ``plates_difference``, with standard errors
          over repeats, p-values of paired t tests and the same adjusted over strategies by Holm's
          method; ``verdict`` at level 0.05.
        - ``table`` (table): one row per target, ``held_out``, strategy and round (0 is before any
          plate): ``n_cells`` drawn so far, ``mean`` and ``sem`` (standard error over repeats) of
          the squared distance (squared log-normalised expression), the same relative to the
          distance of the controls, and ``share_good``.
        - ``targets`` (table): distance of the ``best`` candidate, of the control and, on average,
          of the pool (a random choice); the number of candidates.
        - ``environments``, ``left_out`` (tables): as in :func:`fit_dag_blr`.
        - ``summary`` (text): the results in sentences.
        - ``runs`` (mapping): ``distance``, ``recommended``, ``chosen`` of every campaign, shape
          ``(n_targets, n_readings, n_strategies, n_repeats, n_rounds + 1)``; ``chosen`` has one
          round less and one more axis for the plate, -1 for none; numbers as in ``environments``.
        - ``genes`` (names, ``(n_genes,)``): the panel.
        - ``params`` (mapping): the options of the call, with the ``shift_sd`` of every strategy
          (empty without a model).

    Raises
    ------
    ValueError
        If there is no graph, a label or strategy is unknown, there are fewer than two
        candidates, no target stands out from the controls, there are too few control cells, or a
        number is too small. Nothing is written on error.
    TypeError
        If ``targets``, ``candidates`` or ``strategies`` is a string.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(
    ...     n_genes=6, n_control=300, n_perturbed=60, perturbed=4, expected_degree=3
    ... )
    >>> npt.tl.learn_dag(adata, search_options={"n_runs": 2})
    >>> npt.tl.replay_design(
    ...     adata, strategies=["exploit"], n_perturbations=2, n_rounds=3, n_repeats=4
    ... )
    >>> table = adata.uns["replay"]["table"]
    >>> len(table), sorted(set(table["strategy"]))  # 4 targets x 2 strategies x (1 + 3) rounds
    (32, ['exploit', 'round_robin_means'])
    """
    require_cells(adata, "replay_design")
    chosen = _CampaignOptions(**campaign_options or {})
    learned = _adata.eager(adata.uns.get(dag_key))
    of_graph = learned.get("params", {}) if isinstance(learned, Mapping) else {}
    roles = _adata.read_roles(
        adata, perturbation_key=of_graph.get("perturbation_key"),
        control=of_graph.get("control"), layer=of_graph.get("layer"),
    )  # fmt: skip
    options = modelled.Options(
        strategies=_strategies(strategies),
        n_warmup=chosen.n_warmup,
        n_rounds=n_rounds,
        n_perturbations=n_perturbations,
        n_cells=n_cells,
        n_repeats=n_repeats,
    )
    readings = [False, True] if held_out == "both" else [bool(held_out)]
    generator = as_rng(rng)
    setup = read_setup(
        adata, targets, candidates, chosen.shift, dag_key=dag_key, roles=roles,
        simulation=generator.spawn(1)[0] if chosen.simulated else None, held_out=readings,
    )  # fmt: skip
    if options.n_warmup > len(setup.pool.control):
        message = (
            f"n_warmup is {options.n_warmup}, but only {len(setup.pool.control)} cells are "
            f"labelled {roles.control!r}: lower n_warmup."
        )
        raise ValueError(message)
    n_cells = int(setup.pool.n_cells[: setup.n_candidates].sum())
    if options.n_rounds > n_cells:
        message = (
            f"n_rounds is {options.n_rounds}, but the candidates have only {n_cells} cells, which "
            f"last for at most as many rounds: lower n_rounds."
        )
        raise ValueError(message)
    most = min(options.n_perturbations, setup.n_candidates)
    options = replace(options, n_perturbations=most)
    runs = modelled.run_all(
        setup.pool, setup.setting, setup.goals, options, generator, n_jobs=n_jobs
    )
    params: dict[str, Any] = {
        **asdict(options),
        "strategies": _adata.strings(options.strategies),
        "shift_sd": _adata.strings(map(modelled.shift_sd_of, options.strategies)),
        "held_out": np.array(readings),
        "shift": chosen.shift if isinstance(chosen.shift, str) else "table",
        "simulated": bool(chosen.simulated),
        "dag_key": dag_key,
        **roles.stored(),
        "rng": _adata.seed_of(rng),
    }
    stored = _results(setup, readings, options, runs) | {"params": params}
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", stored["summary"])
    return written


def _strategies(strategies: Sequence[str]) -> tuple[str, ...]:
    names = list(dict.fromkeys(map(str, _adata.in_order(strategies))))
    known = modelled.strategies()
    unknown = [name for name in names if name not in known]
    if unknown:
        message = (
            f"Unknown strategies: {_adata.list_names(unknown)}."
            f"{_adata.closest(unknown, known)} Choose from {', '.join(known)}."
        )
        raise ValueError(message)
    return (*names, *(name for name in [tables.BASELINE] if name not in names))


def _results(
    setup: Setup,
    readings: list[bool],
    options: modelled.Options,
    runs: tuple[NDArray[np.int64], NDArray[np.int64]],
) -> dict[str, Any]:
    """Return the tables of the campaigns; ``runs`` as of ``run_all``."""
    recommended, chosen = runs
    names, goals = setup.plan.names, setup.goals
    targets, good = tables.targets_table(goals, readings, names)
    distance = np.stack([g.truth.distance[x] for g, x in zip(goals, recommended, strict=True)])
    shape = (len(targets), *distance.shape[2:])
    is_good = np.take_along_axis(good, recommended.reshape(len(targets), -1), axis=1).reshape(shape)
    flat = distance.reshape(shape)
    per_plate = options.n_cells * options.n_perturbations
    overall = tables.overall_table(flat, is_good, targets, options.strategies)
    return {
        "table": tables.rounds_table(flat, is_good, targets, options.strategies, per_plate),
        "overall": overall,
        "targets": targets,
        "environments": environments.environment_table(
            setup.used, setup.genes, setup.pool.n_cells.tolist()
        ),
        "left_out": left_out_table(
            {name: setup.labels.n_cells(name) for name, _ in setup.plan.left_out},
            [reason for _, reason in setup.plan.left_out],
        ),
        "summary": tables.in_words(overall, targets, options.n_rounds),
        "runs": {"distance": distance, "recommended": recommended, "chosen": chosen},
        "genes": _adata.strings(setup.genes),
    }
