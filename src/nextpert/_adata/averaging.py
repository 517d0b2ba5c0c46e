"""The models that measured effects are averaged over, as a fit stored them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata.shift_prior import read_own
from nextpert.core import DagBlr
from nextpert.core.effects.averaged import Averaged, Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.effects.shift_prior import ShiftPrior

    Array = NDArray[np.float64]

GRAPH_AND_EXPERTS, GRAPH, EXPERTS, NEITHER = "graph and experts", "graph", "experts", "neither"


def read_averaging(
    stored: Any, posteriors: Sequence[DagBlr], prior: ShiftPrior, shifts: Array, where: str
) -> Averaged:
    """Return the models of a fit; those of weight 0 are left out, but the first, on the graph.

    Parameters
    ----------
    stored
        What the fit stored of them; ``None`` where there is one model.
    posteriors
        The posteriors on the graph, or on those of resamples.
    prior
        The prior of shifts on the graph, with what experts expect.
    shifts
        Expected shifts of own genes, shape ``(n_perturbations, n_genes)``.
    where
        Name of the entry, for errors.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    if stored is None:
        return Averaged((Model(posteriors, prior),))
    names = [str(name) for name in np.atleast_1d(stored["models"])]
    weights = np.asarray(stored["weights"], np.float64)
    mixtures = np.asarray(stored["mixtures"], np.float64)
    alone = DagBlr.from_dict(dict(stored["no_graph"]))
    # What members do together is an expert's word, and so is its variance.
    own = stored.get("own", sp.csr_array(shifts.shape))
    sound = (
        weights.shape == (len(names),)
        and mixtures.shape == (len(names), *prior.weights.shape)
        and set(names) <= {GRAPH_AND_EXPERTS, GRAPH, EXPERTS, NEITHER}
        and alone.n_nodes == shifts.shape[1]
        and sp.issparse(own)
        and own.shape == shifts.shape
    )
    if not sound or not all(
        (np.isfinite(x) & (x >= 0)).all() for x in (weights, mixtures, own.data)
    ):
        message = f"{where} is damaged: run tl.fit_dag_blr again."
        raise ValueError(message)
    without = replace(prior, shift=shifts, effect=np.zeros_like(shifts))
    if "own" in stored:
        without = replace(without, own=read_own(own))
    models = [Model(posteriors, prior, weights[0])]
    for name, weight, mixture in zip(names[1:], weights[1:], mixtures[1:], strict=True):
        if weight > 0:
            used = replace(prior if name == EXPERTS else without, weights=mixture)
            models.append(Model(posteriors if name == GRAPH else [alone], used, weight))
    return Averaged(tuple(models))
