"""What is known of the shifts of perturbations, before and after their cells, graph by graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_numbers, require_finite
from nextpert.core._shown import Shown
from nextpert.core.model.dag_blr import DagBlr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]


def pair_shifts(
    posterior: DagBlr | Sequence[DagBlr], shifts: ShiftPosterior | Sequence[ShiftPosterior]
) -> list[tuple[DagBlr, ShiftPosterior]]:
    """Return the posterior on every graph with its shifts; those of weight 0 are left out.

    Parameters
    ----------
    posterior
        A posterior over weights, or one on each of several graphs.
    shifts
        What is known of the shifts; for several graphs the same for all, or one for each.

    Raises
    ------
    ValueError
        If they differ in number, nodes or perturbations, hold an impossible value, or no weight
        is above 0.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.model.shift_posterior import pair_shifts
    >>> from nextpert.core.model.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0)
    >>> len(pair_shifts([blr, blr], ShiftPosterior.exact([[1.0, 0.0]])))
    2
    """
    posteriors = [posterior] if isinstance(posterior, DagBlr) else list(posterior)
    shared = isinstance(shifts, ShiftPosterior)
    known = [shifts] if isinstance(shifts, ShiftPosterior) else list(shifts)
    sizes = sorted({each.n_nodes for each in posteriors})
    if len(sizes) != 1:
        message = f"Posteriors on the same nodes are needed, but they have {sizes} nodes."
        raise ValueError(message)
    if not shared and len(known) != len(posteriors):
        message = (
            f"Shifts are needed once, or once for each of {len(posteriors)} graphs, but "
            f"{len(known)} were given."
        )
        raise ValueError(message)
    for each in known:
        _check(each, (known[0].n_perturbations, sizes[0]))
    every = zip(posteriors, known * len(posteriors) if shared else known, strict=True)
    pairs = [(blr, each) for blr, each in every if each.weight > 0]
    if not pairs:
        message = "The shifts' weights are 0 on every graph: give one a weight above 0."
        raise ValueError(message)
    return pairs


def weights_of(pairs: Sequence[tuple[DagBlr, ShiftPosterior]]) -> NDArray[np.float64]:
    """Return what each of these counts for, of sum 1, shape ``(n_pairs,)``."""
    weights = np.array([known.weight for _, known in pairs], np.float64)
    return weights / weights.sum()


def _check(shifts: ShiftPosterior, wanted: tuple[int, int]) -> None:
    for name in ("mean", "prior", "share", "spare", "effect"):
        value = getattr(shifts, name)
        if value is None:
            continue
        if value.shape != wanted:
            message = f"The shifts' {name} has shape {value.shape}, but {wanted} is needed."
            raise ValueError(message)
        require_finite(value, f"The shifts' {name}")
    if ((shifts.share < 0) | (shifts.share > 1)).any():
        message = "The shifts' share of what cells say must lie between 0 and 1."
        raise ValueError(message)
    if not (np.isfinite(shifts.weight) and shifts.weight >= 0):
        message = f"The shifts' weight must be 0 or more, but it is {shifts.weight}."
        raise ValueError(message)
    if (shifts.spare < 0).any():
        message = "The shifts' spare variance must not be negative."
        raise ValueError(message)


@dataclass(frozen=True, repr=False)
class ShiftPosterior(Shown):
    """Random shifts of perturbations, given the weights of a graph.

    Perturbation ``j`` shifts node ``i`` by ``a_ij + u_ij``, where ``u_ij`` has mean 0. Given the
    weights, ``u_ij`` has the mean ``share_ij (x_ij - a_ij - c_i - B_i x_j)``, the difference of the
    cells' mean ``x_j`` from the expectation times a shrinkage weight, and the variance
    ``spare_ij sigma_i^2``.

    Parameters
    ----------
    n
        Cells of every perturbation that count (guides of one perturbation may count for fewer),
        0 where none was measured, shape ``(n_perturbations,)``.
    mean
        Their mean, shape ``(n_perturbations, n_nodes)``, units of the data; any finite number
        where there are no cells.
    prior
        Expected shift ``a``, same shape and units.
    share
        Shrinkage weight of the difference, 0 to 1, same shape; 0 without cells.
    spare
        Residual variance of ``u`` relative to the noise variance of the node, same shape: with a
        prior variance ``sigma^2 tau^2`` it is ``tau^2 / (1 + n tau^2)``.
    effect
        The part of the expectation that is an effect ``f`` on means, independent of the weights;
        same shape and units as ``mean``. The expected shift ``a`` includes ``(I - B) f`` at the
        posterior mean of the weights, and changes with them. ``None`` (default): 0.
    components
        Where ``u`` is not normal but a mixture of normals: given a generator and ``together``,
        yields share and spare variance of components drawn, one after the other and without end.
        ``share`` and ``spare`` then are those of the whole.
    loadings, rest
        Residual correlation of ``u``: in its draws nodes are correlated as in a
        covariance ``loadings loadings' + diag(rest)``, shapes ``(n_nodes, n_factors)`` and
        ``(n_nodes,)``, of which only the correlations count. ``None`` (default): they are not.
    together
        Correlation between nodes of the choice of components, 0 to 1: that of the normals that
        choose them.
    weight
        Weight of this posterior relative to those on other graphs.
    group
        Gaps are compared among posteriors of the same group: they are measured in shifts, which
        are different quantities without a graph.
    fixed
        Fixed columns of the posterior's regression (``DagBlr.n_fixed``), such as batches: their
        means over the cells, shape ``(n_perturbations, n_fixed)``. ``None`` (default): none, or 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.model.shift_posterior import ShiftPosterior
    >>> known = ShiftPosterior.exact([[1.0, 0.0]])
    >>> known.n_perturbations, known.spare.tolist()
    (1, [[0.0, 0.0]])
    """

    n: Array
    mean: Array
    prior: Array
    share: Array
    spare: Array
    effect: Array | None = None
    components: Callable[[np.random.Generator, float], Iterator[tuple[Array, Array]]] | None = None
    loadings: Array | None = None
    rest: Array | None = None
    together: float = 0.0
    weight: float = 1.0
    group: int = 0
    fixed: Array | None = None

    @classmethod
    def exact(cls, shifts: ArrayLike) -> ShiftPosterior:
        """Return shifts that are known exactly (the model of Zhang et al. 2023)."""
        given = np.atleast_2d(as_numbers(shifts, "shifts"))
        nothing = np.zeros_like(given)
        return cls(np.zeros(len(given)), nothing, given, nothing, nothing)

    @property
    def n_perturbations(self) -> int:
        """Number of perturbations."""
        return len(self.n)

    def about_effect(self, posterior: DagBlr) -> tuple[Array, Array, Array]:
        """Return cells' means and expected shifts, without the effects, and the effects.

        About its effect a perturbation is one whose expected shift does not move with the weights.
        Each of shape ``(n_perturbations, n_nodes)``, units of the data; the fixed columns come
        after the nodes of the means.
        """
        if self.effect is None:
            design = with_columns(self.mean, self.fixed)
            return design, self.prior, np.zeros_like(self.prior)
        moving = self.effect - (posterior.mean() @ self.effect.T).T
        design = with_columns(self.mean - self.effect, self.fixed)
        return design, self.prior - moving, self.effect

    def departure(self, posterior: DagBlr) -> Array:
        """Return the difference of the cells' mean from the expectation, ``x - a - c - B x``.

        At the posterior mean of the weights, fixed columns subtracted; shape
        ``(n_perturbations, n_nodes)``.
        """
        fitted = (posterior.mean() @ self.mean.T).T + self.explained(
            posterior.blocks["weights"], posterior
        )
        return self.mean - self.prior - posterior.intercept_mean - fitted

    def explained(self, design: Array, posterior: DagBlr) -> Array:
        """Return what fixed columns add to the means by flat design weights, same shape."""
        if self.fixed is None or not posterior.n_fixed:
            return np.zeros_like(self.mean)
        return self.fixed @ posterior.fixed_of(design).T

    def expected(self, posterior: DagBlr) -> Array:
        """Return the expected shifts, cells seen: ``a + E[u]``, same shape."""
        return self.prior + self.share * self.departure(posterior)

    def states(self, posterior: DagBlr) -> Array:
        """Return the expected means ``(I - B)^-1 (c + a + E[u])``, same shape."""
        return posterior.predict_mean(self.expected(posterior))


def with_columns(mean: Array, fixed: Array | None) -> Array:
    """Return means with fixed columns after the nodes, or the means where there are none."""
    return mean if fixed is None or not fixed.shape[1] else np.hstack([mean, fixed])
