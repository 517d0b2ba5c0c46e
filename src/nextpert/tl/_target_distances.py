"""``tl.target_distances``: the distance of every perturbation's cells to a target state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import between, checked
from nextpert._adata.labels import say_left_out
from nextpert._adata.table import require_cells
from nextpert._warn import warn
from nextpert.core.design.goal import DISTANCES, Goal
from nextpert.core.fit.naming import Naming
from nextpert.core.screen.mean_distance import distance_difference, mean_distance
from nextpert.core.screen.moments import Moments
from nextpert.study.target import (
    as_target,
    cell_variance,
    listed,
    numbers_in_words,
    target_in_words,
)
from nextpert.tl._design_interventions.target import (
    Group,
    PanelTarget,
    bind,
    read_group,
    weights_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import LabelTable, Roles
    from nextpert.study.target import Target, Vector


COLUMNS = (
    "perturbation", "n_cells", "distance", "sd", "low", "high", "genes_left_out",
    "plug_in_distance", "relative_distance", "difference", "difference_low", "difference_high",
)  # fmt: skip


@checked(confidence=between(0, 1))
def target_distances(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Vector | Target,
    *,
    genes: Iterable[str] | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    perturbations: Sequence[str] | None = None,
    confidence: float = 0.9,
    layer: str | None = None,
    key_added: str = "target_distances",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Measure the squared distance of every perturbation's mean to a target state.

    It describes measured cells, as in Fig. 6b of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0); :func:`design_interventions` predicts distances. The squared
    distance of two sample means is biased upwards by their variance, which is subtracted:

    .. math:: |\bar x - \bar x^*|^2 - \operatorname{tr} \Sigma / n
        - \operatorname{tr} \Sigma^* / n^*

    Intervals are score intervals (:func:`nextpert.core.screen.mean_distance.mean_distance`). As in
    :func:`design_interventions`, the genes that a target perturbation and each perturbation target
    do not count, and distances are scaled to the control's distance (its ``measured_distance``).
    :func:`nextpert.pl.target_distances` plots the table.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    target
        A label, a pair ``(obs key, value)``, a mapping gene -> mean (only these genes then count),
        a vector of means of ``genes``, or a :class:`nextpert.Target` with any of these, weights,
        ``own_genes``, and ``distance="squared"`` or ``"noise"``. Cells of a target group count only
        as target.
    genes
        The genes to use; by default all.
    perturbation_key, control, layer
        Column of labels, label of the controls, and layer; ``None`` takes the declared ones, or
        ``"perturbation"``, ``"control"`` and ``adata.X``.
    perturbations
        Labels to measure in addition to ``control``; by default all.
    confidence
        Coverage of each interval. Distances share the error of the target's mean: to compare with
        the controls, use ``difference``.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. :doc:`/model/stored_results` lists all columns.
        Writes ``uns["target_distances"]`` with:

        - ``table`` (table): one row per perturbation, nearest first: ``distance`` (squared units of
          the data) with its interval, and ``difference`` from the control's distance.
        - ``not_measured`` (table): perturbations that were left out, and why.
        - ``target`` (text): the name of the target.
        - ``n_target_cells`` (number): its cells; 0 for a mapping.
        - ``genes`` (names, ``(n_genes,)``): the genes with a weight.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If a name is unknown, the target or the controls have fewer than 2 cells, a value is not
        finite, or a ``Target`` has a signature, bounds or another distance; TypeError if ``target``
        is of another kind. Nothing is written on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.target_distances(adata, "UBR5")
    >>> table = adata.uns["target_distances"]["table"]
    >>> table[["perturbation", "distance", "low", "high"]].head(3).round(2)
      perturbation  distance   low  high
    0        DSCC1      0.53  0.26  1.04
    1          MYC      0.76  0.44  1.28
    2         OXR1      0.85  0.52  1.39
    """
    require_cells(adata, "target_distances")
    roles = _adata.read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer
    )
    perturbations = None if perturbations is None else _adata.in_order(perturbations)
    labels = _adata.read_perturbations(adata, roles, named=perturbations)
    _adata.require_control(labels, roles.control)
    _adata.say_pooled(labels)
    if perturbations is None:
        say_left_out(labels.left_out, roles.perturbation_key)
    asked = _read_target(adata, as_target(target), genes, roles)
    rows, few = _rows(labels, perturbations, roles.control, asked)
    codes = np.where(asked.is_cell, -1, labels.groups(rows))
    cells = _read_cells(adata, asked, codes, rows, roles)
    naming = labels.naming or Naming(control=roles.control)
    table, bound = _measure(cells, asked, rows, naming, confidence)
    why = dict.fromkeys(few, "fewer than 2 cells outside the target") | {**bound.not_ranked}
    stored = {
        "table": table,
        "not_measured": pd.DataFrame(
            {"perturbation": _adata.strings(why), "why": _adata.strings(why.values())}
        ),
        "target": bound.name,
        "n_target_cells": int(asked.is_cell.sum()),
        "genes": _adata.strings(asked.genes),
        **_adata.origin_of_cells(adata, roles, asked.columns),
        "params": {
            **roles.stored(),
            "confidence": float(confidence),
            "distance": bound.distance,
            "genes_left_out": bound.genes_in_words,
        },
    }
    return _adata.write_results(adata, uns={key_added: stored}, copy=copy)


class _Asked(NamedTuple):
    """The target, its states as groups of cells or known means, and the genes that count.

    ``is_cell`` says which cells define the target, ``(n_cells,)``; ``weights`` are above 0,
    ``(n_genes,)``.
    """

    given: Target
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

    def are_perturbations(self, control: str) -> bool:
        """Whether all states are perturbations, whose target genes can be left out."""
        return all(isinstance(x, Group) and x.label not in (None, control) for x in self.states)


class _Cells(NamedTuple):
    """Moments of the rows and of the target states, and their errors of batch effects.

    Errors have the shape ``(n, n_columns)``; ``weights`` those of squared differences of genes.
    """

    rows: list[Moments]
    states: tuple[Moments | Vector, ...]
    errors: Vector
    state_errors: Vector
    weights: Vector


def _read_target(
    adata: ad.AnnData, given: Target, genes: Iterable[str] | None, roles: Roles
) -> _Asked:
    _require_states(given)
    states = listed(given.state)
    if len(states) == 1 and isinstance(states[0], (Mapping, pd.Series)):
        if genes is not None:
            message = "A target that is a mapping already names the genes: do not pass genes."
            raise ValueError(message)
        genes = _genes_of(given, states[0])
    panel, columns = _adata.resolve_panel(adata, genes, gene_symbols=roles.gene_symbols)
    given = as_target(given, panel)  # vectors become mappings
    weights = weights_of(given, panel)
    counted = np.flatnonzero(weights > 0)
    panel = [panel[int(i)] for i in counted]
    read: list[Group | Vector] = []
    names, is_cell = [], np.zeros(adata.n_obs, bool)
    for state in listed(given.state):
        if isinstance(state, (Mapping, pd.Series)):
            read.append(_as_mean(state, panel))
            names.append(numbers_in_words(state, "="))
        else:
            group = read_group(adata, state, roles)
            read.append(group)
            names.append(group.name)
            is_cell |= group.codes == 0
    name = target_in_words(given, names)
    return _Asked(given, read, name, panel, columns[counted], weights[counted], is_cell)


def _require_states(given: Target) -> None:
    """Raise unless a target is only of states, at squared distances."""
    parts = ("signature", "at_least", "at_most", "away_from")
    unusable = [name for name in parts if getattr(given, name) is not None]
    if DISTANCES[given.distance].of_changes is not None:
        unusable.append(f"distance={given.distance!r}")
    if unusable:
        message = (
            f"tl.target_distances takes no Target with {_adata.list_names(unusable)}, because the "
            f"sampling error of means cannot be subtracted from such distances. Give states and "
            f"distance='squared' or 'noise'; or call tl.fit_dag_blr and tl.design_interventions, "
            f"whose ranking has a measured_distance for all targets."
        )
        raise ValueError(message)


def _genes_of(given: Target, state: Mapping[str, float] | pd.Series) -> list[str]:
    """Return the genes of a state that is a mapping, the only ones that count."""
    genes = [str(gene) for gene, _ in state.items()]
    weights: Any = [] if given.weights is None else given.weights
    weighted = weights if isinstance(weights, list) else weights.keys()
    if absent := [str(gene) for gene in weighted if str(gene) not in genes]:
        message = (
            f"weights names {_adata.list_names(absent)}, but only the genes of a state that is a "
            f"mapping count: add their means to state, or leave them out of weights."
        )
        raise ValueError(message)
    return genes


def _as_mean(state: Mapping[str, float] | pd.Series, panel: Sequence[str]) -> Vector:
    """Return the means of the genes that count, or raise if there is none for a gene."""
    means = {str(gene): float(mean) for gene, mean in state.items()}
    if absent := [gene for gene in panel if gene not in means]:
        message = (
            f"A state names no mean of {_adata.list_names(absent)}: give all states of a list the "
            f"same genes, or list the genes that count in genes or weights."
        )
        raise ValueError(message)
    return np.array([means[gene] for gene in panel])


def _rows(
    labels: LabelTable, perturbations: Sequence[str] | None, control: str, asked: _Asked
) -> tuple[list[str], list[str]]:
    """Return the labels to measure, without those of the target, and those with too few cells.

    The control comes first, unless it is the target.
    """
    chosen = labels.names
    if perturbations is not None:
        chosen = labels.spelled(map(str, perturbations))
        labels.require(chosen, "Perturbations")
    of_target = [group.label for group in asked.groups]
    rows = [name for name in dict.fromkeys([control, *chosen]) if name not in of_target]
    if not rows:
        message = f"There is no label other than that of the target, {asked.name!r}: label more "
        raise ValueError(message + "cells.")
    codes = np.where(asked.is_cell, -1, labels.groups(rows))
    counts = dict(zip(rows, np.bincount(codes[codes >= 0], minlength=len(rows)), strict=True))
    short = [
        f"the target {group.name!r} has {n}"
        for group in asked.groups
        if (n := int((group.codes == 0).sum())) < 2
    ]
    if counts.get(control, 2) < 2:
        short.append(f"control {control!r} has {counts[control]} outside the target")
    if short:
        message = f"At least 2 cells are needed to estimate the variance of a mean, but {short[0]}."
        raise ValueError(message)
    few = [name for name in rows if counts[name] < 2]
    if few:
        message = (
            f"Perturbations with fewer than 2 cells outside the target are left out: "
            f"{_adata.list_names(few)}."
        )
        warn(message)
    return [name for name in rows if name not in few], few


def _read_cells(
    adata: ad.AnnData, asked: _Asked, codes: NDArray[np.int64], rows: list[str], roles: Roles
) -> _Cells:
    """Read the moments of all groups in one pass over the cells."""
    used = np.flatnonzero((codes >= 0) | asked.is_cell)
    _adata.check_scale(adata, asked.columns, used, roles, only_warn=True)
    groupings = [(codes, len(rows)), *((group.codes, 1) for group in asked.groups)]
    if asked.given.distance == "noise":
        groupings.append((read_group(adata, roles.control, roles).codes, 1))
    (of_rows, *others), batches = _adata.read_groupings(adata, asked.columns, groupings, roles)
    weights = asked.weights
    if asked.given.distance == "noise":
        (controls,) = others.pop()
        weights = weights / cell_variance(controls, asked.genes, weights)
    of_groups = iter(others)
    states = tuple(
        next(of_groups)[0] if isinstance(state, Group) else state for state in asked.states
    )
    errors, state_errors = np.zeros((len(rows), 0)), np.zeros((len(states), 0))
    # Errors of the means of batches; known means have none.
    if batches is not None:
        errors = batches.errors(codes, len(rows))
        state_errors = np.zeros((len(states), errors.shape[1]))
        for k, state in enumerate(asked.states):
            if isinstance(state, Group):
                state_errors[k] = batches.errors(state.codes, 1)[0]
    return _Cells(of_rows, states, errors, state_errors, weights)


def _measure(
    cells: _Cells, asked: _Asked, rows: list[str], naming: Naming, confidence: float
) -> tuple[pd.DataFrame, PanelTarget]:
    """Return the table of distances, nearest first, and the target with the genes left out."""
    n_controls = int(rows[0] == naming.control)
    bound, kept = _without_target_genes(cells, asked, rows, naming)
    order = [*range(n_controls), *kept]
    # The control is the last row of the target.
    place = [-1] * n_controls + list(range(len(kept)))
    left_out, of_control = bound.left_out_of(place), np.nan
    records: list[tuple[Any, ...]] = []
    for i, j, genes in zip(order, place, left_out, strict=True):
        weights = np.ravel(bound.goal.rows([j]).weigh(np.ones(len(asked.genes))))
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
        known = (x.estimate, x.sd, x.low, x.high, genes, x.plug_in, relative)
        records.append((rows[i], int(cells.rows[i].n), *known, *difference))
    table = pd.DataFrame(records, columns=COLUMNS)
    for name in ("perturbation", "genes_left_out"):
        table[name] = _adata.strings(table[name])
    return table.sort_values("distance", kind="stable", ignore_index=True), bound


def _without_target_genes(
    cells: _Cells, asked: _Asked, rows: list[str], naming: Naming
) -> tuple[PanelTarget, NDArray[np.int64]]:
    """Return the target without target genes, as in a ranking, and the perturbations to measure."""
    means = [state.mean if isinstance(state, Moments) else state for state in cells.states]
    goal = Goal(np.zeros(len(asked.genes)), states=means, weights=cells.weights)
    labels = [group.label or "" for group in asked.groups]
    label = labels[0] if len(asked.states) == 1 and labels else None
    target = PanelTarget(asked.name, goal, goal, asked.given.distance, label)
    every = np.arange(int(rows[0] == naming.control), len(rows))
    if asked.given.own_genes != "exclude" or not asked.are_perturbations(naming.control):
        return target, every
    of_labels = (gene for name in labels for gene in naming.targets(name)[0])
    common = tuple(dict.fromkeys(of_labels))
    target = replace(target, target_genes=common)
    names = [rows[i] for i in every]
    targets = [naming.targets(name)[0] for name in names]
    control = np.zeros(len(asked.genes))
    weights = np.where(np.isin(asked.genes, common), 0.0, cells.weights)
    if weights.any():
        errors = np.vstack([cells.errors[:1], cells.state_errors])
        found = mean_distance(
            cells.rows[0], cells.states, confidence=0.9, errors=errors, weights=weights
        )
        # Shares of a distance that is not significantly above 0 (one-sided, 5%) are noise.
        control = found.by_node if found.low > 0 else control
    kept, bound = bind(target, asked.genes, names, targets, control, "measured")
    return bound, every[kept]
