"""How well a node is predicted from sets of parents, in cells that were held out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.moments import Moments

# Keeps the normal equations of parents that are constant, or copies of each other, solvable.
_RIDGE = 1e-10


def parent_fit(
    train: Sequence[Moments], test: Sequence[Moments], node: int, parents: ArrayLike
) -> NDArray[np.float64]:
    """Return the Pearson correlation of a node with its prediction from each set of parents.

    The node is regressed on its parents, with an intercept, in the cells of ``train[f]``, and
    predicted in those of ``test[f]``; covariances and variances are added up over the folds ``f``,
    each about its own mean. With the same cells on both sides the result is the multiple
    correlation, which never falls as parents are added: take other cells for ``test``. ``parents``
    has the shape ``(n_sets, n_parents)``; the result, ``(n_sets,)``, is 0 where the prediction is
    constant, and NaN where the node is.
    """
    sets = np.asarray(parents, dtype=np.int64)
    covariance, predicted = np.zeros((2, len(sets)))
    own = 0.0
    for known, held_out in zip(train, test, strict=True):
        # Least squares in units of each parent's scatter: (n_sets, n_parents) weights.
        scale = np.sqrt(np.diag(known.scatter))
        scale = np.where(scale > 0, scale, 1.0)[sets]
        gram = known.scatter[sets[:, :, None], sets[:, None, :]]
        gram = gram / (scale[:, :, None] * scale[:, None, :]) + _RIDGE * np.eye(sets.shape[1])
        moment = known.scatter[sets, node] / scale
        weights = np.linalg.solve(gram, moment[:, :, None])[:, :, 0] / scale
        scatter = held_out.scatter
        covariance += (weights * scatter[sets, node]).sum(axis=1)
        block = scatter[sets[:, :, None], sets[:, None, :]]
        predicted += np.einsum("sj,sjk,sk->s", weights, block, weights)
        own += scatter[node, node]
    if own <= 0:
        return np.full(len(sets), np.nan)
    scale = np.sqrt(np.maximum(predicted, 0.0) * own)
    return np.divide(covariance, scale, out=np.zeros(len(sets)), where=scale > 0)
