"""``tl.target_distances``: how far every perturbation's cells lie from a wanted state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import between, checked
from nextpert._adata.labels import say_left_out
from nextpert._adata.target import as_target, cell_variance, how_measured, parts_of
from nextpert._warn import warn
from nextpert.core.cells.distance_difference import distance_difference
from nextpert.core.cells.mean_distance import MeanDistance, mean_distance
from nextpert.core.cells.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import LabelTable
    from nextpert._adata.target import Target


@dataclass(frozen=True)
class _Goal:
    """The target: its name, genes, cells (a mask) or else mean, and label where it is one.

    ``weights`` of genes by name, ``None`` for all alike; ``distance``, how it is measured.
    """

    name: str
    genes: Iterable[str] | None
    cells: NDArray[np.bool_] | None = None
    mean: NDArray[np.float64] | None = None
    label: str | None = None
    weights: Mapping[str, float] | None = None
    distance: str = "squared"


@checked(confidence=between(0, 1))
def target_distances(
    adata: ad.AnnData,
    target: str | tuple[str, str] | Mapping[str, float] | pd.Series | Target,
    *,
    genes: Iterable[str] | None = None,
    gene_symbols: str | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    perturbations: Sequence[str] | None = None,
    confidence: float = 0.9,
    layer: str | None = None,
    key_added: str = "target_distances",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Measure the squared distance of every perturbation's mean to the mean of a target.

    As in Fig. 6b of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), of the cells that were
    measured (not predicted, as by :func:`design_interventions`). The squared distance of two
    sample means is too large by the variance of both, the more so the fewer the cells, so that
    rare perturbations would seem far from everything. That is taken off:

    .. math:: |\bar x - \bar x^*|^2 - \operatorname{tr} \Sigma / n
        - \operatorname{tr} \Sigma^* / n^*

    is unbiased, and has a score interval from the same moments; see
    :func:`nextpert.core.cells.mean_distance.mean_distance`. The difference to the control cells'
    distance has an interval of its own, in which the noise of the target's mean cancels; see
    :func:`nextpert.core.cells.distance_difference.distance_difference`. Draw them with
    :func:`nextpert.pl.target_distances`.

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression; dense or sparse, in memory or backed.
    target
        A perturbation label, a pair ``(obs key, value)``, or a mapping gene -> wanted mean, known
        without error; the distance is then over its genes. Cells of a group count as target
        only, not as cells of their perturbation. A :class:`nextpert.Target` of one state gives
        weights to genes, or measures in units of the variance of control cells.
    genes
        The genes to use; by default all.
    gene_symbols
        Column of ``adata.var`` with the names of genes, if not ``adata.var_names``.
    perturbation_key
        Column of ``adata.obs`` with the label of every cell; ``None`` stands for what
        :func:`nextpert.pp.setup_screen` was told, or ``"perturbation"``.
    control
        Label of the unperturbed cells; ``None`` as above, or ``"control"``.
    perturbations
        Labels to measure beside ``control``; by default all.
    confidence
        Coverage of the intervals, each on its own. Those of the distances share the noise of the
        target's mean: to compare with control cells, use the differences.
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    key_added
        Name of the results.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Fields written:

        - ``uns["target_distances"]``: ``table``, one row a perturbation, nearest first:
          ``perturbation``, ``n_cells``, ``distance`` (unbiased, so below 0 now and then where
          the truth is about 0), ``sd``, ``low`` and ``high`` (bounds of the interval),
          ``plug_in_distance`` (of the sample means, too large) in squared units of the data
          (or as the target measures),
          ``relative_distance`` (share of that of ``control``; NaN where that is not above 0),
          ``difference`` (to the distance of ``control``, below 0 where nearer; unbiased),
          ``difference_low`` and ``difference_high``, NaN for ``control`` itself.
          Also ``target``, ``n_target_cells`` (0 for a mapping), ``genes`` and ``params``.

    Warns
    -----
    UserWarning
        Of labels with fewer than 2 cells, which are left out.

    Raises
    ------
    ValueError
        If a label, gene or column is unknown, there are no control cells, the target has fewer
        than 2 cells or a mean that is not finite, ``genes`` is given beside a mapping, a value
        is NaN or infinite, or a :class:`nextpert.Target` asks for more than one state. Nothing is
        written then.
    TypeError
        If ``target`` is none of its forms.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(perturbed=["MYC", "FOS"], n_control=500)
    >>> npt.tl.target_distances(adata, "MYC")
    >>> table = adata.uns["target_distances"]["table"]
    >>> table[["perturbation", "n_cells"]].values.tolist()
    [['control', 500], ['FOS', 100]]
    """
    roles = _adata.read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer
    )
    perturbation_key, control, layer = roles.perturbation_key, roles.control, roles.layer
    perturbations = None if perturbations is None else _adata.in_order(perturbations)
    labels = _adata.read_perturbations(adata, roles, named=perturbations)
    _adata.require_control(labels, control)
    _adata.say_pooled(labels)
    if perturbations is None:
        say_left_out(labels.left_out, perturbation_key)
    goal = _read_goal(adata, as_target(target), genes, _adata.read_every_label(adata, roles))
    names, columns = _adata.resolve_panel(adata, goal.genes, gene_symbols=gene_symbols)
    rows = _rows(labels, perturbations, control, goal.label)
    codes = labels.groups(rows)
    if goal.cells is not None:
        codes[goal.cells] = len(rows)
    counts = np.bincount(codes[codes >= 0], minlength=len(rows) + 1)
    _require_cells(counts, rows, control, goal)
    _adata.check_scale(adata, columns, np.flatnonzero(codes >= 0), roles, only_warn=True)
    found, batches = _adata.read_groups(adata, columns, codes, len(rows) + 1, roles)
    errors = np.zeros((len(rows) + 1, 0))
    if batches is not None:
        errors = batches.errors(codes, len(rows) + 1)
    control_moments = found[rows.index(control)] if control in rows else None
    units = _units(goal, names, control_moments)
    found = [_in_units(each, units) for each in found]
    wanted: Any = found[-1] if goal.mean is None else units * goal.mean
    kept = [i for i in range(len(rows)) if counts[i] >= 2]
    distances = [
        mean_distance(found[i], wanted, confidence=confidence, errors=errors[[i, -1]]) for i in kept
    ]
    differences = np.full((len(kept), 3), np.nan)
    for row, i in enumerate(kept):
        if control in rows and rows[i] != control:
            other = rows.index(control)
            differences[row] = distance_difference(
                found[i], found[other], wanted, confidence=confidence, errors=errors[[i, other, -1]]
            )
    params: dict[str, Any] = {
        **roles.stored(),
        "confidence": float(confidence),
        "distance": goal.distance,
    }
    if gene_symbols is not None:
        params["gene_symbols"] = gene_symbols
    stored = {
        "table": _table([rows[i] for i in kept], counts[kept], distances, differences, control),
        "target": goal.name,
        "n_target_cells": int(counts[-1]),
        "genes": _adata.strings(names),
        "params": params,
    }
    _warn_left_out([rows[i] for i in range(len(rows)) if i not in set(kept)])
    return _adata.write_results(adata, uns={key_added: stored}, copy=copy)


def _read_goal(adata: ad.AnnData, target: Target, genes: Any, labels: LabelTable) -> _Goal:
    """Return the target, its state with weights and the way it is measured."""
    several = isinstance(target.state, list) or not {"state"} <= set(parts_of(target))
    beside = set(parts_of(target)) - {"state", "weights", "distance", "penalty"}
    if beside or several or target.distance == "cosine":
        message = (
            "tl.target_distances measures the squared distance to one state, which is known "
            "without bias: give a Target with state, weights and distance 'squared' or 'noise' "
            "alone."
        )
        raise ValueError(message)
    weights = target.weights
    if weights is not None and not hasattr(weights, "items"):
        weights = dict.fromkeys(weights, 1.0)
    read = _read_state(adata, target.state, genes, labels)
    if weights is not None:
        weights = {str(gene): float(weight) for gene, weight in weights.items()}
    name = "; ".join([read.name, *how_measured(target)])
    return replace(read, name=name, distance=target.distance, weights=weights)


def _units(goal: _Goal, names: list[str], control: Moments | None) -> NDArray[np.float64]:
    """Return what every gene is multiplied by, so that squared distances are as wanted."""
    weights = np.ones(len(names))
    if goal.weights is not None:
        weights = np.zeros(len(names))
        place = _adata.panel_index(goal.weights, names, "weights of target")
        weights[place] = list(goal.weights.values())
    if goal.distance == "noise":
        if control is None:
            message = "distance='noise' needs control cells that are not the target."
            raise ValueError(message)
        weights = weights / cell_variance(control, names, weights)
    return np.sqrt(weights)


def _in_units(moments: Moments, units: NDArray[np.float64]) -> Moments:
    if (units == 1).all():
        return moments
    return Moments(moments.n, units * moments.mean, np.outer(units, units) * moments.scatter)


def _read_state(adata: ad.AnnData, target: Any, genes: Any, labels: LabelTable) -> _Goal:
    if isinstance(target, str):
        (label,) = labels.spelled([target])
        return _Goal(label, genes, _cells(labels, label), label=label)
    if isinstance(target, tuple):
        key, value = map(str, target)
        if key != labels.key:
            found = _adata.read_labels(adata, key, argument="target or perturbation_key")
            return _Goal(f"{key}={value}", genes, _cells(found, value))
        (label,) = labels.spelled([value])
        return _Goal(f"{key}={label}", genes, _cells(labels, label), label=label)
    if genes is not None:
        message = "A mapping names the genes of the distance itself: leave out genes."
        raise ValueError(message)
    names = [str(gene) for gene, _ in target.items()]
    mean = np.array([float(value) for _, value in target.items()])
    bad = [gene for gene, value in zip(names, mean, strict=True) if not np.isfinite(value)]
    if bad:
        message = f"target holds NaN or infinite means for {_adata.list_names(bad)}."
        raise ValueError(message)
    shown = (f"{gene}={value:.3g}" for gene, value in zip(names, mean, strict=True))
    return _Goal(_adata.list_names(shown, limit=5), names, mean=mean)


def _cells(labels: LabelTable, value: str) -> NDArray[np.bool_]:
    labels.require([value], "Target")
    return labels.groups([value]) == 0


def _rows(
    labels: LabelTable, perturbations: Sequence[str] | None, control: str, label: str | None
) -> list[str]:
    """Return the labels to measure: control first, the target's own left out."""
    if perturbations is None:
        chosen = labels.names
    else:
        chosen = labels.spelled(str(name) for name in _adata.in_order(perturbations))
        labels.require(chosen, "Perturbations")
    rows = [name for name in dict.fromkeys([control, *chosen]) if name != label]
    if not rows:
        message = f"There is no label but that of the target, {label!r}: nothing to measure."
        raise ValueError(message)
    return rows


def _require_cells(counts: NDArray[np.int64], rows: list[str], control: str, goal: _Goal) -> None:
    short = []
    if goal.cells is not None and counts[-1] < 2:
        short.append(f"the target {goal.name!r} has {counts[-1]}")
    if control in rows and counts[rows.index(control)] < 2:
        short.append(f"control {control!r} has {counts[rows.index(control)]} outside the target")
    if short:
        message = f"At least 2 cells are needed for a mean with a variance, but {short[0]}."
        raise ValueError(message)


def _table(
    rows: list[str],
    n_cells: NDArray[np.int64],
    found: list[MeanDistance],
    differences: NDArray[np.float64],
    control: str,
) -> pd.DataFrame:
    of_control = found[rows.index(control)].estimate if control in rows else 0.0
    share = 1 / of_control if of_control > 0 else np.nan
    table = pd.DataFrame(
        {
            "perturbation": _adata.strings(rows),
            "n_cells": n_cells.astype(np.int64),
            "distance": np.array([f.estimate for f in found]),
            "sd": np.array([f.sd for f in found]),
            "low": np.array([f.low for f in found]),
            "high": np.array([f.high for f in found]),
            "plug_in_distance": np.array([f.plug_in for f in found]),
            "relative_distance": np.array([f.estimate * share for f in found]),
            "difference": differences[:, 0],
            "difference_low": differences[:, 1],
            "difference_high": differences[:, 2],
        }
    )
    table = table.sort_values("distance", kind="stable")
    return table.set_axis(pd.Index(np.arange(len(table))), axis=0)


def _warn_left_out(names: list[str]) -> None:
    if names:
        message = (
            "Perturbations left out, with fewer than 2 cells outside the target: "
            f"{_adata.list_names(names)}."
        )
        warn(message)
