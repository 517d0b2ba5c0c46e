"""Distances of measured perturbations to a target, and the genes left out of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core._codec import strings
from nextpert.core.design.goal import DISTANCES, Goal
from nextpert.core.screen.mean_distance import distance_difference, mean_distance
from nextpert.core.screen.moments import Moments
from nextpert.study.panel_target import Group, PanelTarget, bind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert._adata import LabelTable
    from nextpert.core.fit.naming import Naming
    from nextpert.study.target import Target, Vector


COLUMNS = (
    "perturbation",
    "n_cells",
    "distance",
    "sd",
    "low",
    "high",
    "genes_left_out",
    "plug_in_distance",
    "relative_distance",
    "difference",
    "difference_low",
    "difference_high",
)


class _RequestedTarget(NamedTuple):
    """The target, its states as groups of cells or known means, and the genes that count.

    ``is_cell`` says which cells define the target, ``(n_cells,)``; ``weights`` are above 0,
    ``(n_genes,)``.
    """

    target: Target
    states: list[Group | Vector]
    name: str
    genes: list[str]
    columns: NDArray[np.int64]
    weights: Vector
    is_cell: NDArray[np.bool_]

    @property
    def groups(self) -> list[Group]:
        """The states that are means of cells."""
        return [state for state in self.states if isinstance(state, Group)]


class _Cells(NamedTuple):
    """Moments of the rows and of the target states, and their errors of batch effects.

    Errors have the shape ``(n, n_columns)``; ``weights`` those of squared differences of genes.
    """

    rows: list[Moments]
    states: tuple[Moments | Vector, ...]
    errors: Vector
    state_errors: Vector
    weights: Vector


def _require_states(target: Target) -> None:
    """Raise unless a target is only of states, at squared distances."""
    parts = ("signature", "at_least", "at_most", "away_from")
    unusable = [name for name in parts if getattr(target, name) is not None]
    if DISTANCES[target.distance].of_changes is not None:
        unusable.append(f"distance={target.distance!r}")
    if unusable:
        message = (
            f"tl.target_distances takes no Target with {list_names(unusable)}, because the "
            f"sampling error of means cannot be subtracted from such distances. Give states and "
            f"distance='squared' or 'noise'; or call tl.fit_dag_blr and tl.design_interventions, "
            f"whose ranking has a measured_distance for all targets."
        )
        raise ValueError(message)


def _genes_of(target: Target, state: Mapping[str, float] | pd.Series) -> list[str]:
    """Return the genes of a state that is a mapping, the only ones that count."""
    genes = [str(gene) for gene, _ in state.items()]
    weights: Any = [] if target.weights is None else target.weights
    weighted = weights if isinstance(weights, list) else weights.keys()
    if absent := [str(gene) for gene in weighted if str(gene) not in genes]:
        message = (
            f"weights names {list_names(absent)}, but only the genes of a state that is a "
            f"mapping count: add their means to state, or leave them out of weights."
        )
        raise ValueError(message)
    return genes


def _as_mean(state: Mapping[str, float] | pd.Series, panel: Sequence[str]) -> Vector:
    """Return the means of the genes that count, or raise if there is none for a gene."""
    means = {str(gene): float(mean) for gene, mean in state.items()}
    if absent := [gene for gene in panel if gene not in means]:
        message = (
            f"A state names no mean of {list_names(absent)}: give all states of a list the "
            f"same genes, or list the genes that count in genes or weights."
        )
        raise ValueError(message)
    return np.array([means[gene] for gene in panel])


def _rows(
    labels: LabelTable, perturbations: Sequence[str] | None, control: str, target: _RequestedTarget
) -> tuple[list[str], list[str]]:
    """Return the labels to measure, without those of the target, and those with too few cells.

    The control comes first, unless it is the target.
    """
    chosen = labels.names
    if perturbations is not None:
        chosen = labels.spelled(map(str, perturbations))
        labels.require(chosen, "Perturbations")
    of_target = [group.label for group in target.groups]
    rows = [name for name in dict.fromkeys([control, *chosen]) if name not in of_target]
    if not rows:
        message = f"There is no label other than that of the target, {target.name!r}: label more "
        raise ValueError(message + "cells.")
    codes = np.where(target.is_cell, -1, labels.groups(rows))
    counts = dict(zip(rows, np.bincount(codes[codes >= 0], minlength=len(rows)), strict=True))
    short = [
        f"the target {group.name!r} has {n}"
        for group in target.groups
        if (n := int((group.codes == 0).sum())) < 2
    ]
    if counts.get(control, 2) < 2:
        short.append(f"control {control!r} has {counts[control]} outside the target")
    if short:
        message = f"At least 2 cells are needed to estimate the variance of a mean, but {short[0]}."
        raise ValueError(message)
    too_few = [name for name in rows if counts[name] < 2]
    if too_few:
        message = (
            f"Perturbations with fewer than 2 cells outside the target are left out: "
            f"{list_names(too_few)}."
        )
        warn(message)
    return [name for name in rows if name not in too_few], too_few


def _measure(
    cells: _Cells, target: _RequestedTarget, rows: list[str], naming: Naming, confidence: float
) -> tuple[pd.DataFrame, PanelTarget]:
    """Return the table of distances, nearest first, and the target with the genes left out."""
    n_controls = int(rows[0] == naming.control)
    bound, measured = _without_target_genes(cells, target, rows, naming)
    order = [*range(n_controls), *measured]
    # The control is the last row of the target.
    positions = [-1] * n_controls + list(range(len(measured)))
    left_out, of_control = bound.left_out_of(positions), np.nan
    records: list[tuple[Any, ...]] = []
    for i, j, genes in zip(order, positions, left_out, strict=True):
        weights = np.ravel(bound.goal.rows([j]).weigh(np.ones(len(target.genes))))
        options: dict[str, Any] = {"confidence": confidence, "weights": weights}
        errors = np.vstack([cells.errors[[i]], cells.state_errors])
        x = mean_distance(cells.rows[i], cells.states, errors=errors, **options)
        difference: Any = (np.nan,) * 3
        if n_controls and i == 0:
            of_control = x.estimate
        elif n_controls:
            errors = np.vstack([cells.errors[[i, 0]], cells.state_errors])
            difference = distance_difference(
                cells.rows[i], cells.rows[0], cells.states, errors=errors, **options
            )
        relative = x.estimate / of_control if of_control > 0 else np.nan
        estimates = (x.estimate, x.sd, x.low, x.high, genes, x.plug_in, relative)
        records.append((rows[i], int(cells.rows[i].n), *estimates, *difference))
    table = pd.DataFrame(records, columns=COLUMNS)
    for name in ("perturbation", "genes_left_out"):
        table[name] = strings(table[name])
    return table.sort_values("distance", kind="stable", ignore_index=True), bound


def _without_target_genes(
    cells: _Cells, requested: _RequestedTarget, rows: list[str], naming: Naming
) -> tuple[PanelTarget, NDArray[np.int64]]:
    """Return the target without target genes, as in a ranking, and the perturbations to measure."""
    means = [state.mean if isinstance(state, Moments) else state for state in cells.states]
    goal = Goal(np.zeros(len(requested.genes)), states=means, weights=cells.weights)
    labels = [group.label or "" for group in requested.groups]
    label = labels[0] if len(requested.states) == 1 and labels else None
    target = PanelTarget(requested.name, goal, goal, requested.target.distance, label)
    perturbations = np.arange(int(rows[0] == naming.control), len(rows))
    no_label = None, naming.control  # of perturbations alone, target genes can be left out
    are_labelled = all(isinstance(x, Group) and x.label not in no_label for x in requested.states)
    if requested.target.own_genes != "exclude" or not are_labelled:
        return target, perturbations
    of_labels = (gene for name in labels for gene in naming.targets(name)[0])
    common = tuple(dict.fromkeys(of_labels))
    target = replace(target, target_genes=common)
    names = [rows[i] for i in perturbations]
    targets = [naming.targets(name)[0] for name in names]
    control = np.zeros(len(requested.genes))
    weights = np.where(np.isin(requested.genes, common), 0.0, cells.weights)
    if weights.any():
        errors = np.vstack([cells.errors[:1], cells.state_errors])
        distance = mean_distance(
            cells.rows[0], cells.states, confidence=0.9, errors=errors, weights=weights
        )
        # Shares of a distance that is not significantly above 0 (one-sided, 5%) are noise.
        control = distance.by_node if distance.low > 0 else control
    measured, bound = bind(target, requested.genes, names, targets, control, "measured")
    return bound, perturbations[measured]
