"""The wanted state: mean expression of the panel under a label, in a group, or as given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import fitted_roles, group_moments, list_names, panel_index, read_labels

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior


@dataclass(frozen=True)
class Target:
    """A wanted state: how the user called it, its mean, and the sampling variance of that.

    Both of shape ``(n_genes,)``; no variance where the mean was given.
    """

    name: str
    mean: NDArray[np.float64]
    variance: NDArray[np.float64] | None = None


def read_target(
    adata: ad.AnnData, target: Any, fit: FittedPosterior, perturbation_key: str
) -> Target:
    """Return the wanted mean of every gene of the panel.

    Raises
    ------
    ValueError
        If the label or group is unknown (close matches are given), a gene is outside the panel,
        a wanted mean is not finite, or the target is the control state itself.
    TypeError
        If ``target`` is none of the three.
    """
    if isinstance(target, str):
        found = Target(target, *_group_mean(adata, fit, perturbation_key, target))
    elif isinstance(target, (Mapping, pd.Series)):
        found = _as_given(target, fit)
    elif isinstance(target, tuple) and len(target) == 2:
        key, value = map(str, target)
        found = Target(f"{key}={value}", *_group_mean(adata, fit, key, value))
    else:
        message = (
            "target must be a perturbation label, a pair (obs key, value), or a mapping "
            f"{{gene: wanted mean}}, but is of type {type(target).__name__}."
        )
        raise TypeError(message)
    if np.array_equal(found.mean, fit.control_mean):
        message = f"The target {found.name!r} is the control state itself: nothing to reach."
        raise ValueError(message)
    return found


def _group_mean(
    adata: ad.AnnData, fit: FittedPosterior, key: str, value: str
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    labels = read_labels(adata, key, argument="target or perturbation_key")
    labels.require([value], "Target")
    (moments,) = group_moments(
        adata, fit.columns, labels.groups([value]), 1, fitted_roles(adata, fit.params)
    )
    if moments.n < 2:
        return moments.mean, None
    return moments.mean, moments.scatter.diagonal() / (moments.n * (moments.n - 1))


def _as_given(target: Mapping[str, float] | pd.Series, fit: FittedPosterior) -> Target:
    genes = [str(gene) for gene, _ in target.items()]
    if not genes or len(set(genes)) < len(genes):
        message = "target must name at least one gene, and every gene once."
        raise ValueError(message)
    place = panel_index(genes, fit.genes, "target")
    values = np.array([float(value) for _, value in target.items()])
    bad = [gene for gene, value in zip(genes, values, strict=True) if not np.isfinite(value)]
    if bad:
        message = f"target holds NaN or infinite means for {list_names(bad)}: give numbers."
        raise ValueError(message)
    mean = fit.control_mean.copy()
    mean[place] = values
    shown = list_names((f"{g}={v:.3g}" for g, v in zip(genes, values, strict=True)), limit=5)
    return Target(shown, mean)
