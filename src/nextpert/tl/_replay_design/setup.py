"""What a replay needs of a screen: its cells, the pool of perturbations, the states to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata import environments
from nextpert.core.cells.moments import Moments
from nextpert.core.cells.sample import Sample
from nextpert.core.loop.replay import CellPool

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import LabelTable, Roles
    from nextpert._adata.shifts import Interventions
    from nextpert.core import Dag

    Vector = NDArray[np.float64]
    Parts = tuple[str, ...]


@dataclass(frozen=True)
class Goal:
    """A state to reach: the mean of a perturbation's cells, or of a mixture of two, half each.

    ``apart`` and ``sampling`` belong to the candidates: the squared distance of each one's mean
    to the goal, and how much of it the sampling of cells adds on average; ``own`` are the
    candidates that make up the goal. ``control`` and ``control_sampling`` are the same two
    numbers for the control cells.
    """

    name: str
    mean: Vector
    own: list[int]
    apart: Vector
    sampling: Vector
    control: float
    control_sampling: float


@dataclass(frozen=True)
class Setup:
    """A screen made ready for replays."""

    genes: list[str]
    dag: Dag
    pool: CellPool
    used: Interventions
    plan: environments.Plan
    labels: LabelTable
    goals: list[Goal]


def read_setup(
    adata: ad.AnnData,
    targets: Sequence[str | tuple[str, str]] | None,
    candidates: Sequence[str] | None,
    shift: Any,
    *,
    dag_key: str,
    roles: Roles,
) -> Setup:
    """Read graph, labels and cells.

    Raises
    ------
    ValueError
        If a label is unknown or there are fewer than two candidates.
    """
    perturbation_key, control, layer = roles.perturbation_key, roles.control, roles.layer
    genes, columns, dag = _adata.read_graph(adata, dag_key)
    labels = _adata.read_labels(adata, perturbation_key)
    _adata.require_control(labels, control)
    plan = environments.plan_environments(
        labels,
        genes,
        measured=_adata.measured_genes(adata, _adata.symbols_of(adata.uns.get(dag_key))),
        perturbations=candidates,
        shift=shift,
        separator="+",
        control=control,
    )
    if len(plan.names) < 2:
        message = (
            f"A replay needs at least two candidates whose shift is known on the panel, but there "
            f"are {len(plan.names)} ({_adata.list_names(plan.names) or 'none'}): widen the panel "
            f"or the list of candidates.{plan.hint}"
        )
        raise ValueError(message)
    wanted = _wanted(targets, plan.names, labels, control)
    names = list(dict.fromkeys([control, *plan.names, *(label for g in wanted for label in g)]))
    cells = _read_cells(adata, columns, labels, names, roles)
    controls = Moments.from_array(cells[control])
    samples = {name: Sample.of(x) for name, x in cells.items()}
    environments.require_varying(controls, genes)
    used = environments.shift_environments(plan, shift, genes, controls)
    environments.warn_values(controls, layer, adata.uns.get(dag_key), stacklevel=4)
    environments.warn_left_out(plan)
    environments.warn_hardly_expressed(used, controls, genes)
    pool = CellPool(cells[control], [cells[name] for name in plan.names], used.shifts)
    goals = [_goal(parts, plan.names, control, samples) for parts in wanted]
    return Setup(genes, dag, pool, used, plan, labels, goals)


def _wanted(
    targets: Any, candidates: Sequence[str], labels: LabelTable, control: str
) -> list[Parts]:
    """Return the labels of every target: one, or the two of a mixture."""
    if isinstance(targets, str):
        message = f"targets must be a list of labels or of pairs of labels: use [{targets!r}]."
        raise TypeError(message)
    given = _adata.in_order(candidates if targets is None else targets)
    odd = [target for target in given if not _is_target(target)]
    if odd or not given:
        shown = f"{odd[0]!r} is neither" if odd else "there is none"
        message = f"A target is a label or a pair of two labels (a mixture), but {shown}."
        raise ValueError(message)
    wanted = [(t,) if isinstance(t, str) else tuple(map(str, t)) for t in given]
    labels.require(sorted({label for parts in wanted for label in parts}), "Targets")
    if any(control in parts for parts in wanted):
        message = f"targets holds {control!r}, the control state itself: leave it out."
        raise ValueError(message)
    unique: dict[frozenset[str], Parts] = {}
    for parts in wanted:
        unique.setdefault(frozenset(parts), parts)
    return list(unique.values())


def _is_target(target: Any) -> bool:
    """Whether it is a label, or a sequence of one label or two different ones."""
    if isinstance(target, str):
        return True
    is_sequence = isinstance(target, (tuple, list)) and len(target) in (1, 2)
    return (
        is_sequence and all(isinstance(t, str) for t in target) and len(set(target)) == len(target)
    )


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


def _goal(parts: Parts, candidates: list[str], control: str, samples: dict[str, Sample]) -> Goal:
    share = 1 / len(parts)
    mean = share * np.sum([samples[label].mean for label in parts], axis=0)
    apart, sampling = [], []
    for name in [control, *candidates]:
        apart.append(float(((samples[name].mean - mean) ** 2).sum()))
        weights = dict.fromkeys(parts, -share)
        weights[name] = weights.get(name, 0.0) + 1
        sampling.append(sum(w**2 * samples[k].variance_of_mean for k, w in weights.items()))
    own = [candidates.index(label) for label in parts if label in candidates]
    name, of = " & ".join(parts), (apart[0], sampling[0])
    return Goal(name, mean, own, np.array(apart[1:]), np.array(sampling[1:]), *of)
