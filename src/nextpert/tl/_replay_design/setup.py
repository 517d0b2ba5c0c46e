"""What a replay needs of a screen: its cells, the pool of perturbations, the states to reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata import environments
from nextpert.core.cells.moments import Moments
from nextpert.core.loop.cell_pool import CellPool
from nextpert.tl._replay_design.simulated import simulate_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import LabelTable, Roles
    from nextpert._adata.shifts import Interventions
    from nextpert.core import Dag
    from nextpert.core.loop.cell_pool import Truth

    Vector = NDArray[np.float64]

_FEWEST = 4  # cells of a perturbation: half of a target's are held back
_CLEAR = 3.0  # standard errors that a target lies off the controls, unless it was asked for


@dataclass(frozen=True)
class Goal:
    """A state to reach: that of a perturbation, by its number in the pool."""

    name: str
    index: int
    truth: Truth


@dataclass(frozen=True)
class Setup:
    """A screen made ready for replays; the first ``n_candidates`` of the pool may be proposed."""

    genes: list[str]
    dag: Dag
    pool: CellPool
    used: Interventions
    plan: environments.Plan
    labels: LabelTable
    goals: list[Goal]
    n_candidates: int


def read_setup(
    adata: ad.AnnData,
    targets: Sequence[str] | None,
    candidates: Sequence[str] | None,
    shift: Any,
    *,
    dag_key: str,
    roles: Roles,
    simulation: np.random.Generator | None,
) -> Setup:
    """Read graph, labels and cells; with ``simulation`` draw cells that copy these.

    Raises
    ------
    ValueError
        If a label is unknown, there are fewer than two candidates, or no target.
    """
    genes, columns, dag = _adata.read_graph(adata, dag_key)
    labels = _adata.read_labels(adata, roles.perturbation_key)
    _adata.require_control(labels, roles.control)
    wanted = _wanted(targets, labels, roles.control)
    plan = environments.plan_environments(
        labels,
        genes,
        measured=_adata.measured_genes(adata, _adata.symbols_of(adata.uns.get(dag_key))),
        perturbations=None if candidates is None else [*_chosen(candidates), *wanted],
        shift=shift,
        separator="+",
        control=roles.control,
        every=True,
    )
    cells = _read_cells(adata, columns, labels, [roles.control, *plan.names], roles)
    plan = _with_cells(plan, cells)
    chosen = plan.names if candidates is None else _chosen(candidates)
    order = sorted(range(len(plan.names)), key=lambda j: plan.names[j] not in chosen)
    plan = _rows(plan, order)
    n_candidates = sum(name in chosen for name in plan.names)
    if n_candidates < 2:
        message = (
            f"A replay needs at least two candidates of {_FEWEST} cells or more, but there are "
            f"{n_candidates} ({_adata.list_names(plan.names[:n_candidates]) or 'none'}): widen the "
            f"list of candidates."
        )
        raise ValueError(message)
    controls = Moments.from_array(cells[roles.control])
    environments.require_varying(controls, genes)
    used = environments.shift_environments(plan, shift, genes, controls)
    environments.warn_values(controls, roles.layer, adata.uns.get(dag_key), stacklevel=4)
    environments.warn_left_out(plan)
    if simulation is not None:
        own = {name: cells[name] for name in (roles.control, *plan.names)}
        cells = simulate_like(own, dag, used.shifts, simulation)
    pool = CellPool(cells[roles.control], [cells[name] for name in plan.names], used.shifts)
    goals = _goals(wanted, plan.names, pool)
    return Setup(genes, dag, pool, used, plan, labels, goals, n_candidates)


def _chosen(candidates: Sequence[str]) -> list[str]:
    if isinstance(candidates, str):
        message = f"candidates must be a list of labels: use [{candidates!r}]."
        raise TypeError(message)
    return list(dict.fromkeys(map(str, _adata.in_order(candidates))))


def _wanted(targets: Any, labels: LabelTable, control: str) -> list[str]:
    if targets is None:
        return []
    if isinstance(targets, str):
        message = f"targets must be a list of labels: use [{targets!r}]."
        raise TypeError(message)
    wanted = list(dict.fromkeys(map(str, _adata.in_order(targets))))
    if not wanted:
        message = "targets is empty: name a label, or leave it at None for all clear ones."
        raise ValueError(message)
    labels.require(wanted, "Targets")
    if control in wanted:
        message = f"targets holds {control!r}, the control state itself: leave it out."
        raise ValueError(message)
    return wanted


def _with_cells(plan: environments.Plan, cells: dict[str, Vector]) -> environments.Plan:
    """Leave out what has too few cells to be told from anything."""
    few = [name for name in plan.names if len(cells[name]) < _FEWEST]
    kept = [j for j, name in enumerate(plan.names) if name not in few]
    reasons = [*plan.left_out, *((name, f"fewer than {_FEWEST} cells") for name in few)]
    return replace(_rows(plan, kept), left_out=reasons)


def _rows(plan: environments.Plan, order: list[int]) -> environments.Plan:
    names = [plan.names[j] for j in order]
    return replace(plan, names=names, targets=[plan.targets[j] for j in order])


def _goals(wanted: list[str], names: list[str], pool: CellPool) -> list[Goal]:
    absent = [name for name in wanted if name not in names]
    if absent:
        message = f"Targets of fewer than {_FEWEST} cells: {_adata.list_names(absent)}."
        raise ValueError(message)
    every = [
        Goal(name, names.index(name), pool.truth(names.index(name))) for name in wanted or names
    ]
    if wanted:
        return every
    clear = [goal for goal in every if goal.truth.control > _CLEAR * goal.truth.control_sd]
    if not clear:
        message = (
            f"No perturbation lies {_CLEAR:g} standard errors off the controls, so there is no "
            f"state to find: name targets yourself, or widen the panel."
        )
        raise ValueError(message)
    return clear


def _read_cells(
    adata: ad.AnnData, columns: Any, labels: LabelTable, names: list[str], roles: Roles
) -> dict[str, Vector]:
    """Return the cells of every label, without batches, dense, each in the order of ``adata``."""
    codes = labels.groups(names)
    rows = np.flatnonzero(codes >= 0)
    place = np.full(len(codes), -1)
    place[rows] = np.arange(len(rows))
    cells = np.empty((len(rows), len(columns)))
    batches = _adata.read_batches(adata, columns, roles)
    for which, values in _adata.read_blocks(adata, columns, rows, layer=roles.layer):
        dense: Any = values.toarray() if isinstance(values, sp.csr_array) else values
        cells[place[which]] = dense if batches is None else dense - batches.of_cells(which)
    return {name: cells[codes[rows] == i] for i, name in enumerate(names)}
