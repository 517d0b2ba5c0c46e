"""Targets read from the cells: the goal on the panel, and the genes that count per candidate."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import (
    fitted_roles,
    list_names,
    read_every_label,
    read_groupings,
    read_labels,
)
from nextpert.study.panel_target import Group, TargetState, given_state, on_panel, panel_target
from nextpert.study.target import (
    as_target,
    listed,
    named_genes,
)

if TYPE_CHECKING:
    import anndata as ad

    from nextpert._adata import Roles
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.screen.moments import Moments
    from nextpert.study.panel_target import PanelTarget
    from nextpert.study.target import (
        Target,
    )


logger = logging.getLogger(__name__)


def read_group(adata: ad.AnnData, state: Any, roles: Roles) -> Group:
    """Return the cells of a label, or of a pair (column, value), or raise if there are none."""
    label_key = roles.perturbation_key
    key, value = (label_key, state) if isinstance(state, str) else map(str, state)
    if is_label := key == label_key:
        labels = read_every_label(adata, roles)
    else:
        labels = read_labels(adata, key, argument="target")
    (value,) = labels.spelled([value])
    labels.require([value], "Target")
    name = value if isinstance(state, str) else f"{key}={value}"
    return Group(labels.groups([value]), name, value if is_label else None)


def read_target(adata: ad.AnnData, target: Any, fit: FittedPosterior) -> PanelTarget:
    """Return a target as a goal on the genes of the panel; cells are read in one pass.

    Raises
    ------
    ValueError
        If a label or group is unknown (close matches are suggested), a gene is outside the panel, a
        vector is not over the panel, a number is not finite, a group that is not in the fit has one
        cell, parts contradict each other, or control cells reach it already.
    TypeError
        If ``target`` is none of its forms.
    """
    requested = on_panel(as_target(target, fit.genes), fit.genes)
    states, avoided, control = _read_states(adata, requested, fit)
    return panel_target(requested, fit, states, avoided, control)


def _read_states(
    adata: ad.AnnData, target: Target, fit: FittedPosterior
) -> tuple[list[TargetState], list[TargetState], Moments | None]:
    """Return target states, states to avoid and, for distances by noise, moments of the controls.

    Cells are read in one pass, as in :func:`read_target`.
    """
    states = [*listed(target.state), *listed(target.away_from)]
    roles = fitted_roles(adata, fit.params)
    groups = [
        None  # given as numbers
        if isinstance(state, (Mapping, pd.Series))
        else read_group(adata, state, roles)
        for state in states
    ]
    if target.distance == "noise":
        groups.append(read_group(adata, str(fit.params["control"]), roles))
    codes = [(group.codes, 1) for group in groups if group is not None]
    moments: list[list[Moments]] = []
    batches = None
    if codes:
        moments, batches = read_groupings(adata, fit.columns, codes, roles)
    cells = (one for (one,) in moments)
    read = []
    for state, group in zip(states, groups, strict=False):
        if group is None:
            read.append(given_state(state, fit))
            if target.weights is None and named_genes(target) and len(state) < len(fit.genes):
                logger.info(
                    "The target names %d of %d genes, and only these count. To hold the others at "
                    "their mean in control cells, pass nextpert.Target(state=..., "
                    "others='control').",
                    len(state),
                    len(fit.genes),
                )
            continue
        _log_labelled(adata, group, roles)
        one, variance = next(cells), None
        if one.n > 1:
            error = 0.0 if batches is None else float((batches.errors(group.codes, 1) ** 2).sum())
            variance = one.scatter.diagonal() / (one.n - 1) * (1 / one.n + error)
        elif group.label not in fit.names:
            message = (
                f"The target {group.name!r} has 1 cell, so the sampling error of its mean is not "
                f"known: name a larger group, or give a mapping of genes to means, which are taken "
                f"as exact."
            )
            raise ValueError(message)
        read.append(TargetState(group.name, one.mean, variance, group.label, int(one.n)))
    n_states = len(listed(target.state))
    return read[:n_states], read[n_states:], next(cells, None)


def _log_labelled(adata: ad.AnnData, group: Group, roles: Roles) -> None:
    """Log how many cells of a group belong to perturbations, which are candidates too."""
    if group.label is not None:
        return
    labels = read_every_label(adata, roles)
    counts = np.bincount(labels.codes[(group.codes == 0) & (labels.codes >= 0)])
    names = [f"{labels.names[i]} ({counts[i]})" for i in np.argsort(-counts) if counts[i]]
    if names:
        logger.warning(
            "%d of %d cells of the target %s are labelled: %s. They define the target, and are "
            "also cells of candidates or controls.",
            counts.sum(),
            (group.codes == 0).sum(),
            group.name,
            list_names(names, limit=5),
        )
