"""The weights of a graph given a screen, means under known shifts, and the fit of nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_numbers, as_rng, require_count, require_finite
from nextpert.core.causal import _kernels as kernels
from nextpert.core.causal.dag_blr import DagBlr, require_squares

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]
    from nextpert.core.screen.moments import Moments

# Cells at a mean that counts as exact: more than any screen has, and few enough that the inverse of
# a precision keeps ten digits.
_EXACT = 1e8


def fit_weights(posterior: DagBlr, cells: PooledGuides, shifts: ArrayLike | None = None) -> DagBlr:
    """Return the posterior over the weights of a graph given the cells of a screen.

    If shifts are known, as in Zhang et al. 2023, the means of perturbations inform the weights
    (Lemma 1). If they are unknown, every perturbation can shift every gene. This is a regression
    with one intercept per environment: the scatter within environments determines the weights, and
    the mean of the controls determines the intercept of each node (equation 9).

    ``posterior`` contains the graph and the priors, before any cells. ``cells`` are the controls,
    which have no shift, followed by the perturbations of the screen. If nodes have an intercept,
    the fixed columns of ``cells``, such as batches, are included in every regression, and are
    integrated out at the end. ``shifts``, ``(n_perturbations, n_nodes)``, are the known shifts in
    units of the data, or ``None`` if they are unknown.
    """
    exact = np.zeros((1, posterior.n_nodes))  # for the controls, whose shift is known
    if shifts is not None:
        exact = np.vstack([exact, np.asarray(shifts, np.float64)])
    n_known = len(exact)
    n_fixed = cells.fixed.shape[1] if posterior.intercept else 0
    of_perturbations = exact[1:] if n_known > 1 else exact
    require_squares(cells.n_cells[1:, None], cells.mean[1:], cells.scatter, of_perturbations)
    # The effects of batches have their own columns.
    if n_fixed != posterior.n_fixed:
        posterior = DagBlr(posterior.dag, n_fixed=n_fixed, **posterior.options)
    blr = posterior._copied(with_blocks=False)
    scatter = cells.scatter
    if n_fixed:  # the columns of batches follow the nodes
        cross = cells.fixed_scatter[:, : blr.n_nodes]
        scatter = np.vstack([np.hstack([scatter, cross.T]), cells.fixed_scatter])
    blr.add_scatter(scatter)
    # Means inform the weights only if the shift is known, as it is for the controls.
    design = np.hstack([cells.mean[:n_known], cells.fixed[:n_known, :n_fixed]])
    counted = np.ascontiguousarray(cells.counted[:n_known])
    blr.add_means(design, exact, counted)
    # Every unknown shift costs one degree of freedom of the noise.
    free = 0 if shifts is not None else np.count_nonzero(cells.n_cells[1:])
    blr.cells += float(cells.n_cells.sum() - free)
    # Data that cannot be fitted raise an error here.
    blr._blocks = blr._fitted()
    return blr.without_fixed()


def centred_on(posterior: DagBlr, control_mean: Array) -> DagBlr:
    """Return the posterior for cells that are centred on a mean without error, as in the paper.

    Each regression then passes through ``control_mean``, ``(n_nodes,)``: as after very many cells
    at exactly this mean, which inform the intercept given the weights and have no scatter.
    """
    new = posterior._copied(with_blocks=False)
    n_cells = np.full((1, new.n_nodes), _EXACT)
    new.add_means(control_mean[None], np.zeros((1, new.n_nodes)), n_cells)
    new._blocks = new._fitted()
    return new


def downstream(posteriors: Sequence[DagBlr], changes: Array) -> Array:
    """Return the downstream effects ``((I - B)^-1 - I) a`` of changes ``a``, averaged over graphs.

    ``changes`` and the result have the shape ``(n_perturbations, n_nodes)``, units of the data.
    """
    if not any(blr.dag.n_edges for blr in posteriors):
        return np.zeros_like(changes)
    # (I - B)^-1 a - a, by one substitution per graph.
    columns = np.ascontiguousarray(changes.T)
    reached = np.zeros_like(changes)
    for blr in posteriors:
        reached += blr.solve(columns).T
    return reached / len(posteriors) - changes


def known_shifts(posteriors: Sequence[DagBlr], shifts: ArrayLike) -> Array:
    """Return known shifts as an array of floats, ``(n_shifts, n_nodes)``.

    Raises
    ------
    ValueError
        If there are no posteriors, their numbers of nodes differ, or a shift is not finite.
    """
    sizes = sorted({blr.n_nodes for blr in posteriors})
    if len(sizes) != 1:
        message = (
            f"Give at least one posterior, all with the same nodes; their numbers of nodes are "
            f"{sizes}."
        )
        raise ValueError(message)
    values = np.atleast_2d(as_numbers(shifts, "shifts"))
    if values.ndim != 2 or values.shape[1] != sizes[0]:
        message = f"shifts must have the shape (n_shifts, {sizes[0]}), but have {values.shape}."
        raise ValueError(message)
    require_finite(values, "shifts")
    return values


def mean_draws(
    posteriors: Sequence[DagBlr],
    shifts: ArrayLike,
    *,
    n_samples: int = 400,
    rng: int | np.random.Generator | None = None,
) -> Iterator[Array]:
    """Yield draws of the means ``(I - B)^-1 (c + a)`` that known shifts reach, one at a time.

    Several posteriors, one per graph, have equal weight: ``n_samples`` is rounded up to give the
    same number of draws from each. The drawn weights do not depend on ``shifts``, which has the
    shape ``(n_shifts, n_nodes)``. A draw has the shape ``(n_shifts + 1, n_nodes)``, in units of the
    data; its last row is the mean under no shift.
    """
    count = require_count(n_samples, "n_samples")
    generator = as_rng(rng)
    exact = known_shifts(posteriors, shifts)
    # One column per shift, so that the kernel's inner loops access contiguous memory.
    source = np.ascontiguousarray(np.vstack([exact, np.zeros((1, exact.shape[1]))]).T)
    # Graphs have equal weight: the same number of draws from each.
    for blr in posteriors:
        dag = blr.dag
        weights, _ = blr.sample(-(-count // len(posteriors)), generator)
        for b in weights:
            x = source.copy()
            if blr.intercept:
                x += b[blr.vptr[:-1], None]
            kernels.solve_forward(dag.indptr, dag.indices, dag.order, blr.vptr, b, x)
            yield x.T


# Keeps the normal equations solvable if parents are constant or copies of each other.
_RIDGE = 1e-10


def parent_fit(
    train: Sequence[Moments], test: Sequence[Moments], node: int, parents: ArrayLike
) -> NDArray[np.float64]:
    """Return the Pearson correlation of a node with its prediction from each set of parents.

    The node is regressed on its parents, with an intercept, in the cells of ``train[f]``, and is
    predicted in those of ``test[f]``; covariances and variances about the mean of each fold ``f``
    are summed over folds. If both are the same cells, the result is the multiple correlation, which
    never decreases as parents are added: use other cells for ``test``. ``parents`` has the shape
    ``(n_sets, n_parents)``; the result, ``(n_sets,)``, is 0 if the prediction is constant, and NaN
    if the node is.
    """
    sets = np.asarray(parents, dtype=np.int64)
    covariance, predicted = np.zeros((2, len(sets)))
    node_scatter = 0.0
    for training, held_out in zip(train, test, strict=True):
        # Least squares in units of each parent's scatter: (n_sets, n_parents) weights.
        scale = np.sqrt(np.diag(training.scatter))
        scale = np.where(scale > 0, scale, 1.0)[sets]
        gram = training.scatter[sets[:, :, None], sets[:, None, :]]
        gram = gram / (scale[:, :, None] * scale[:, None, :]) + _RIDGE * np.eye(sets.shape[1])
        moment = training.scatter[sets, node] / scale
        weights = np.linalg.solve(gram, moment[:, :, None])[:, :, 0] / scale
        scatter = held_out.scatter
        covariance += (weights * scatter[sets, node]).sum(axis=1)
        block = scatter[sets[:, :, None], sets[:, None, :]]
        predicted += np.einsum("sj,sjk,sk->s", weights, block, weights)
        node_scatter += scatter[node, node]
    if node_scatter <= 0:
        return np.full(len(sets), np.nan)
    scale = np.sqrt(np.maximum(predicted, 0.0) * node_scatter)
    return np.divide(covariance, scale, out=np.zeros(len(sets)), where=scale > 0)
