"""What a replay needs of a screen: its cells, the pool of perturbations, the states to reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nextpert import _adata
from nextpert._adata import environments
from nextpert._adata.labels import left_out_table
from nextpert._adata.screen import read_environments
from nextpert._adata.sources import dense
from nextpert._adata.target import Target, listed, parts_of
from nextpert.core import DagBlr
from nextpert.core.evaluate.cell_pool import (
    CellPool,
    PoolEnvironments,
    PoolGoal,
    goal_truth,
)
from nextpert.core.fit.interventions import shift_environments
from nextpert.core.fit.learn import Graphs, Spec
from nextpert.core.fit.naming import Naming
from nextpert.core.screen.moments import Moments
from nextpert.tl._design_interventions.target import read_target
from nextpert.tl._replay_design.modelled import Replayed, Setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    import pandas as pd
    from numpy.typing import NDArray

    from nextpert._adata import LabelTable, Roles

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]

FEWEST = 4  # cells of a perturbation: half of a target's are held back
_CLEAR = 3.0  # standard errors that a target lies off the controls, unless it was asked for


class Panel(NamedTuple):
    """What :func:`read_target` needs of a fit."""

    genes: list[str]
    columns: NDArray[np.int64]
    control_mean: NDArray[np.float64]
    params: dict[str, Any]
    names: tuple[str, ...] = ()  # of perturbations in the fit
    hierarchical: None = None  # cells of a target are held back from every fit of a replay


@dataclass(frozen=True)
class Setup:
    """A screen made ready for replays; the first ``n_candidates`` of the pool may be proposed."""

    setting: Setting
    pool: CellPool
    goals: list[Replayed]
    n_candidates: int
    environments: pd.DataFrame
    left_out: pd.DataFrame


def read_setup(
    adata: ad.AnnData,
    targets: Sequence[str | Target] | None,
    candidates: Sequence[str] | None,
    shift: Any,
    *,
    dag_key: str,
    roles: Roles,
    held_out: Sequence[bool] = (False,),
) -> Setup:
    """Read graph, labels and cells.

    ``held_out`` says for each reading whether the target itself is no candidate.

    Raises
    ------
    ValueError
        If a label is unknown, there are fewer than two candidates, or no target.
    """
    genes, columns, dag = _adata.read_graph(adata, dag_key)
    known = _adata.read_every_label(adata, roles)
    _adata.require_control(known, roles.control)
    requested = _read_targets(targets, known, roles.control)
    named = [
        label
        for each in requested
        for states in ([each] if isinstance(each, str) else [each.state, each.away_from])
        for label in _labels(states, known, roles)
        if label
    ]
    chosen = [] if candidates is None else map(str, _adata.in_order(candidates))
    chosen = list(dict.fromkeys(known.spelled(chosen)))
    labels = _adata.read_perturbations(adata, roles, named=[*chosen, *named])
    plan = environments.plan_environments(
        labels,
        genes,
        measured=_adata.measured_genes(adata, _adata.symbols_of(adata.uns.get(dag_key))),
        perturbations=None if candidates is None else [*chosen, *named],
        what="candidates",
        shift=shift,
        every=True,
    )
    read = np.flatnonzero(labels.groups([roles.control, *plan.names]) >= 0)
    _adata.check_scale(adata, columns, read, roles, only_warn=True)
    cells, rows = _read_cells(adata, columns, labels, [roles.control, *plan.names], roles)
    # Perturbations with too few cells are left out; candidates come first.
    few = [(name, f"fewer than {FEWEST} cells") for name in plan.names if len(cells[name]) < FEWEST]
    plan = replace(plan, left_out=[*plan.left_out, *few])
    chosen = plan.names if candidates is None else chosen
    kept = [j for j, name in enumerate(plan.names) if len(cells[name]) >= FEWEST]
    naming = Naming(frozenset(genes), roles.separator, roles.control)
    spec = Spec(genes, plan, DagBlr, naming)
    spec = spec.rows(sorted(kept, key=lambda j: plan.names[j] not in chosen))
    plan = spec.plan
    n_candidates = sum(name in chosen for name in plan.names)
    if n_candidates < 2:
        message = (
            f"A replay needs at least two candidates of {FEWEST} cells or more, but there are "
            f"{n_candidates} ({_adata.list_names(plan.names[:n_candidates]) or 'none'}): widen the "
            f"list of candidates."
        )
        raise ValueError(message)
    controls = Moments.from_array(cells[roles.control])
    environments.require_varying(controls, genes)
    environments.warn_other_layer(roles.layer, adata.uns.get(dag_key))
    environments.report(plan)
    shared = _environments(adata, roles, [roles.control, *plan.names], rows)
    pool = CellPool(cells[roles.control], [cells[name] for name in plan.names], shared)
    setting = Setting(spec, Graphs.single(dag), shared, roles.guide_key is not None)
    place = {name: j for j, name in enumerate(plan.names)}
    absent = [name for name in named if name not in place]
    if absent:
        message = f"Targets of fewer than {FEWEST} cells: {_adata.list_names(absent)}."
        raise ValueError(message)
    panel: Any = Panel(genes, columns, controls.mean, roles.stored())
    every, goals = np.arange(n_candidates), []
    goal: int | PoolGoal
    for each in requested or plan.names:
        if isinstance(each, str):
            own = [place[each]]
            name, goal, truth = each, own[0], pool.truth(own[0])
            if not requested and not truth.control > _CLEAR * truth.control_sd:
                continue
        else:
            asked = read_target(adata, each, panel, roles.perturbation_key)
            states, away = (
                tuple(place.get(label, -1) for label in _labels(part, labels, roles))
                for part in (each.state, each.away_from)
            )
            several = PoolGoal(asked.goal, states, away)
            name, goal, truth, own = asked.name, several, goal_truth(pool, several), several.own
        may = [every[~(held & np.isin(every, own))] for held in held_out]
        goals.append(Replayed(name, goal, truth, may))
    if not goals:
        message = (
            f"No perturbation lies {_CLEAR:g} standard errors off the controls, so there is no "
            f"state to find: name targets yourself, or widen the panel."
        )
        raise ValueError(message)
    table = environments.environment_table(
        shift_environments(plan, genes, controls), genes, pool.n_cells.tolist()
    )
    left_out = left_out_table(
        {name: labels.n_cells(name) for name, _ in plan.left_out},
        [reason for _, reason in plan.left_out],
    )
    return Setup(setting, pool, goals, n_candidates, table, left_out)


def _read_targets(targets: Any, labels: LabelTable, control: str) -> list[str | Target]:
    """Return targets as labels, where they are states of perturbations alone, or as they are.

    Raises
    ------
    ValueError
        If there are none, or a label is unknown or that of the controls.
    """
    if targets is None:
        return []
    goals: list[str | Target] = []
    for each in targets if isinstance(targets, (list, tuple)) else _adata.in_order(targets):
        if isinstance(each, Target) and set(parts_of(each)) == {"state"}:
            each = each.state if isinstance(each.state, str) else each
        goals += [each] if isinstance(each, Target) else labels.spelled([str(each)])
    goals = list(dict.fromkeys(goals))
    if not goals:
        message = "targets is empty: name a label, or leave it at None for all clear ones."
        raise ValueError(message)
    names = [each for each in goals if isinstance(each, str)]
    labels.require(names, "Targets")
    if control in names:
        message = f"targets holds {control!r}, the control state itself: leave it out."
        raise ValueError(message)
    return goals


def _labels(states: Any, labels: LabelTable, roles: Roles) -> list[str]:
    """Return the perturbation of each state, empty for those that are none."""
    names = []
    for state in listed(states):
        own = isinstance(state, tuple) and state[0] == roles.perturbation_key
        label = str(state[1]) if own else state if isinstance(state, str) else ""
        names.append("" if label == roles.control else label)
    return labels.spelled(names)


def _read_cells(
    adata: ad.AnnData, columns: Any, labels: LabelTable, names: list[str], roles: Roles
) -> tuple[dict[str, Vector], dict[str, Index]]:
    """Return the cells of every label, dense, each in the order of ``adata``, and their rows.

    What batches add, by all cells, is taken off, so that states of any cells are at the same
    batch. A campaign estimates it once more from the cells it has seen.
    """
    codes = labels.groups(names)
    rows = np.flatnonzero(codes >= 0)
    place = np.full(len(codes), -1)
    place[rows] = np.arange(len(rows))
    cells = np.empty((len(rows), len(columns)))
    batches = _adata.read_batches(adata, columns, roles)
    for which, values in _adata.read_blocks(adata, columns, rows, layer=roles.layer):
        cells[place[which]] = dense(values)
        if batches is not None:
            cells[place[which]] -= batches.of_cells(which)
    of_name = [codes[rows] == i for i in range(len(names))]
    each = list(zip(names, of_name, strict=True))
    return {name: cells[mine] for name, mine in each}, {name: rows[mine] for name, mine in each}


def _environments(
    adata: ad.AnnData, roles: Roles, names: list[str], rows: dict[str, Index]
) -> PoolEnvironments:
    """Return perturbation, guide, batch and condition of the cells, the controls named first."""
    every = read_environments(adata, roles, named=names[1:]).only(names)
    place = {name: k for k, name in enumerate(names)}
    return PoolEnvironments(
        np.array([place[name] for name in every.perturbation], np.int64),
        every.levels(roles.perturbation_key, *every.condition_names),
        every.levels(*([] if roles.guide_key is None else [roles.guide_key])),
        every.indicators(roles.batch_key)[1], every.codes[rows[names[0]]],
        every.codes[np.concatenate([rows[name] for name in names[1:]])],
    )  # fmt: skip
