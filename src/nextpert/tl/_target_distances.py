"""``tl.target_distances``: the distance of every perturbation's cells to a target state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import between, checked
from nextpert._adata.labels import say_left_out
from nextpert._adata.table import require_cells
from nextpert.core.fit.naming import Naming
from nextpert.study.measured_distances import (
    _as_mean,
    _Cells,
    _genes_of,
    _measure,
    _RequestedTarget,
    _require_states,
    _rows,
)
from nextpert.study.panel_target import Group, weights_of
from nextpert.study.target import (
    as_target,
    cell_variance,
    listed,
    numbers_in_words,
    target_in_words,
)
from nextpert.tl._read_target import read_group

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert.study.target import Target, Vector


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
    requested = _read_target(adata, as_target(target), genes, roles)
    rows, too_few = _rows(labels, perturbations, roles.control, requested)
    codes = np.where(requested.is_cell, -1, labels.groups(rows))
    cells = _read_cells(adata, requested, codes, rows, roles)
    naming = labels.naming or Naming(control=roles.control)
    table, bound = _measure(cells, requested, rows, naming, confidence)
    why = dict.fromkeys(too_few, "fewer than 2 cells outside the target") | {**bound.not_ranked}
    stored = {
        "table": table,
        "not_measured": pd.DataFrame(
            {"perturbation": _adata.strings(why), "why": _adata.strings(why.values())}
        ),
        "target": bound.name,
        "n_target_cells": int(requested.is_cell.sum()),
        "genes": _adata.strings(requested.genes),
        **_adata.origin_of_cells(adata, roles, requested.columns),
        "params": {
            **roles.stored(),
            "confidence": float(confidence),
            "distance": bound.distance,
            "genes_left_out": bound.genes_in_words,
        },
    }
    return _adata.write_results(adata, uns={key_added: stored}, copy=copy)


def _read_target(
    adata: ad.AnnData, target: Target, genes: Iterable[str] | None, roles: Roles
) -> _RequestedTarget:
    _require_states(target)
    states = listed(target.state)
    if len(states) == 1 and isinstance(states[0], (Mapping, pd.Series)):
        if genes is not None:
            message = "A target that is a mapping already names the genes: do not pass genes."
            raise ValueError(message)
        genes = _genes_of(target, states[0])
    panel, columns = _adata.resolve_panel(adata, genes, gene_symbols=roles.gene_symbols)
    target = as_target(target, panel)  # vectors become mappings
    weights = weights_of(target, panel)
    counted = np.flatnonzero(weights > 0)
    panel = [panel[int(i)] for i in counted]
    read: list[Group | Vector] = []
    names, is_cell = [], np.zeros(adata.n_obs, bool)
    for state in listed(target.state):
        if isinstance(state, (Mapping, pd.Series)):
            read.append(_as_mean(state, panel))
            names.append(numbers_in_words(state, "="))
        else:
            group = read_group(adata, state, roles)
            read.append(group)
            names.append(group.name)
            is_cell |= group.codes == 0
    name = target_in_words(target, names)
    return _RequestedTarget(target, read, name, panel, columns[counted], weights[counted], is_cell)


def _read_cells(
    adata: ad.AnnData,
    target: _RequestedTarget,
    codes: NDArray[np.int64],
    rows: list[str],
    roles: Roles,
) -> _Cells:
    """Read the moments of all groups in one pass over the cells."""
    used = np.flatnonzero((codes >= 0) | target.is_cell)
    _adata.check_scale(adata, target.columns, used, roles, only_warn=True)
    groupings = [(codes, len(rows)), *((group.codes, 1) for group in target.groups)]
    if target.target.distance == "noise":
        groupings.append((read_group(adata, roles.control, roles).codes, 1))
    (of_rows, *state_codes), batches = _adata.read_groupings(
        adata, target.columns, groupings, roles
    )
    weights = target.weights
    if target.target.distance == "noise":
        (controls,) = state_codes.pop()
        weights = weights / cell_variance(controls, target.genes, weights)
    of_groups = iter(state_codes)
    states = tuple(
        next(of_groups)[0] if isinstance(state, Group) else state for state in target.states
    )
    errors, state_errors = np.zeros((len(rows), 0)), np.zeros((len(states), 0))
    # Errors of the means of batches; known means have none.
    if batches is not None:
        errors = batches.errors(codes, len(rows))
        state_errors = np.zeros((len(states), errors.shape[1]))
        for k, state in enumerate(target.states):
            if isinstance(state, Group):
                state_errors[k] = batches.errors(state.codes, 1)[0]
    return _Cells(of_rows, states, errors, state_errors, weights)
