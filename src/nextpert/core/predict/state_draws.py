"""Draws of the mean that every perturbation reaches: weights, graphs and shifts uncertain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from nextpert.core._checks import as_rng, require_count
from nextpert.core.posterior._kernels import solve_forward
from nextpert.core.posterior.pair_shifts import pair_shifts, weights_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior

    Array = NDArray[np.float64]


def state_draws(
    posterior: DagBlr | Sequence[DagBlr],
    shifts: ShiftPosterior | Sequence[ShiftPosterior],
    *,
    n_samples: int = 400,
    nothing: bool = False,
    rng: int | np.random.Generator | None = None,
) -> Iterator[Array]:
    """Yield draws of the mean reached by every perturbation, one draw after the other.

    The mean is ``(I - B)^-1 (c + a + u)``. Weights and noise variances are drawn from the
    posterior, the same for every perturbation; given them ``u`` is drawn, its nodes going together
    as the shifts say, from components where it is a mixture. So where cells are believed whole the
    draws scatter about the cells' mean, and where there are none about the graph's prediction.
    Only one draw is held at a time.

    Parameters
    ----------
    posterior
        The posterior over the weights; or one on each of several graphs, which count by the
        weight of their shifts.
    shifts
        What is known of the shifts; for several graphs the same for all, or one for each.
    n_samples
        Number of draws; from graphs of the same weight as many of each, so up to one a graph more.
    nothing
        Whether the mean reached by no shift comes as a last row.
    rng
        Seed or generator. The weights drawn do not depend on the shifts.

    Yields
    ------
    ndarray
        Means, shape ``(n_perturbations, n_nodes)`` (one row more with ``nothing``), units of the
        data.

    Raises
    ------
    ValueError
        If posteriors and shifts do not fit together, or hold an impossible value.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> from nextpert.core.predict.state_draws import state_draws
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0, intercept=False)
    >>> [x.tolist() for x in state_draws(blr, ShiftPosterior.exact([[1.0, 2.0]]), n_samples=1)]
    [[[1.0, 2.0]]]
    """
    count, generator = require_count(n_samples, "n_samples"), as_rng(rng)
    pairs = pair_shifts(posterior, shifts)
    counts = _counts(weights_of(pairs), count, generator)
    own = generator.spawn(1)[0]  # of the shifts, so that the weights do not depend on them
    return (
        state
        for (blr, known), n in zip(pairs, counts, strict=True)
        for state in _draws_of_one(blr, known, n, nothing, generator, own)
    )


def _counts(weights: Array, count: int, rng: np.random.Generator) -> list[int]:
    """Return how many draws are taken of each graph, in expectation by its weight."""
    if (weights == weights[0]).all():
        return [-(-count // len(weights))] * len(weights)
    ends = np.floor(np.cumsum(weights)[:-1] * count + rng.random()).astype(int)
    return np.diff(np.concatenate([[0], ends, [count]])).tolist()


def _draws_of_one(
    posterior: DagBlr,
    shifts: ShiftPosterior,
    count: int,
    nothing: bool,
    rng: np.random.Generator,
    own: np.random.Generator,
) -> Iterator[Array]:
    """Yield ``count`` draws of the states on one graph, each ``(n_perturbations, n_nodes)``.

    With ``nothing`` the controls' state is the last row. ``own`` draws what is left of shifts.
    """
    # One column a perturbation, so that the kernel's inner loops run along memory.
    told = shifts.about_effect(posterior)
    mean, prior, effect, share, spare = (
        _columns(value, nothing) for value in (*told, shifts.share, shifts.spare)
    )
    mean = mean[: posterior.n_nodes]  # fixed columns come after the nodes
    uncertain = bool(spare.any())
    if not count:
        return
    weights, noise_var = posterior.sample(count, rng)
    dag, rest, is_weight = posterior.dag, np.zeros_like(spare), posterior.is_weight
    drawn = None if shifts.components is None else shifts.components(own, shifts.together)
    for draw, variance in zip(weights, noise_var, strict=True):
        if drawn is not None:
            share, spare = (_columns(value, nothing) for value in next(drawn))
        if uncertain:
            rest = np.sqrt(spare * variance[:, None]) * _alike(shifts, spare.shape, own)
        left = rest
        if posterior.n_fixed:  # of the cells' means what the draw's batches, say, account for
            left = rest - share * _columns(shifts.explained(draw, posterior), nothing)
        # x = B x + source, where the shares believed of the cells leave the weights no say.
        source = prior + draw[posterior.vptr[:-1], None] if posterior.intercept else prior
        b = csr_array((draw[is_weight], dag.indices, dag.indptr), shape=(len(prior), len(prior)))
        x = source + share * (mean - source - b @ mean) + left
        solve_forward(dag.indptr, dag.indices, dag.order, posterior.vptr, draw, x)
        yield (x + effect).T


def _alike(shifts: ShiftPosterior, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return standard normals, one column a perturbation, correlated as its shifts are."""
    drawn = rng.standard_normal(shape)
    if shifts.loadings is None or shifts.rest is None:
        return drawn
    common = rng.standard_normal((shifts.loadings.shape[1], shape[1]))
    variance = (shifts.loadings**2).sum(axis=1) + shifts.rest
    own, shared = np.sqrt(shifts.rest / variance), shifts.loadings / np.sqrt(variance)[:, None]
    return own[:, None] * drawn + shared @ common


def _columns(value: Array, nothing: bool) -> Array:
    rows = np.vstack([value, np.zeros((1, value.shape[1]))]) if nothing else value
    return np.ascontiguousarray(rows.T, dtype=np.float64)
