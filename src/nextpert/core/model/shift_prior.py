"""The prior of shifts, and how cells correct it: random shifts on any graph."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from nextpert.core._codec import array, sparse
from nextpert.core._compile import lean
from nextpert.core._shown import Shown
from nextpert.core.model._kernels import fill_row
from nextpert.core.model._mixture import draw_components, fill_chances, fill_weights
from nextpert.core.model.shift_posterior import ShiftPosterior, with_columns

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.dag_blr import DagBlr

    Array = NDArray[np.float64]

_SMALL = 1e-250  # a sum of chances below this is not exact


@lean
def add_means(indptr, indices, vptr, mptr, mean, shift, count, xtx, xty, yty, design):
    """Add means of environments to the sums of equation 5 in place.

    Environment j counts for ``count[j, i]`` cells at node i. ``mean`` is (n_environments, p + n),
    with the n fixed columns after the nodes; ``design`` is room for the longest design row.
    """
    for j in range(len(mean)):
        for i in range(len(indptr) - 1):
            k = count[j, i]
            if k == 0.0:
                continue
            d = fill_row(indptr, indices, vptr, i, mean[j], design)
            response = mean[j, i] - shift[j, i]
            for a in range(d):
                xty[vptr[i] + a] += k * design[a] * response
                line = mptr[i] + a * d
                for b in range(d):
                    xtx[line + b] += k * design[a] * design[b]
            yty[i] += k * response * response


@lean
def departures(indptr, indices, vptr, mptr, weights, cov, mean, shift, away, leverage, design):
    """Fill ``away = x_i - a_i - z'm`` and ``leverage = z'M z`` of equation 6.

    Both, as ``shift``, are (n_environments, p); ``design`` is room for the longest design row z.
    """
    for j in range(len(mean)):
        for i in range(len(indptr) - 1):
            d = fill_row(indptr, indices, vptr, i, mean[j], design)
            away[j, i] = mean[j, i] - shift[j, i]
            leverage[j, i] = 0.0
            for a in range(d):
                away[j, i] -= design[a] * weights[vptr[i] + a]
                line = mptr[i] + a * d
                s = 0.0
                for b in range(d):
                    s += cov[line + b] * design[b]
                leverage[j, i] += design[a] * s


@lean
def mixture_step(square, n, tau2, weights, own, share, spare, counts, work):
    """Fill shares ``w`` (equation 6) under the mixture of equation 8; return its part of the bound.

    ``share`` is the mean over the components; ``spare`` holds the variance within and between them.
    ``square`` is ``E[r^2 / sigma^2]``. ``own`` is the prior variance over ``sigma^2`` of those
    whose prior is not the mixture, nan elsewhere; they do not enter ``counts``. ``work`` is room
    for two numbers a component, (2, n_components).
    """
    n_components = len(tau2)
    chance, part = work[0], work[1]
    bound = 0.0
    for j in range(square.shape[0]):
        for i in range(square.shape[1]):
            cells = n[j, i]
            if not np.isnan(own[j, i]):
                grown = 1.0 + cells * own[j, i]
                share[j, i] = cells * own[j, i] / grown
                spare[j, i] = own[j, i] / grown
                bound -= 0.5 * np.log(grown) + 0.5 * square[j, i] * cells / grown
                continue
            # The widest component has the least negative exponent: over it none is above 0.
            half = 0.5 * square[j, i] * cells
            least = 1.0 / (1.0 + cells * tau2[n_components - 1])
            top, total = -half * least, 0.0
            for k in range(n_components):
                part[k] = 1.0 / (1.0 + cells * tau2[k])
                chance[k] = weights[j, k] * np.sqrt(part[k]) * np.exp(-half * (part[k] - least))
                total += chance[k]
            if total < _SMALL:  # the widest has next to no weight: by logarithms
                top, total = fill_weights(square[j, i], cells, tau2, weights[j], chance)
            w, ww, s = 0.0, 0.0, 0.0
            for k in range(n_components):
                r = chance[k] / total
                left = tau2[k] * part[k]
                w += r * cells * left
                ww += r * (cells * left) ** 2
                s += r * left
                counts[j, k] += r
            share[j, i], spare[j, i] = w, s + max(ww - w * w, 0.0) * square[j, i]
            bound += top + np.log(total)
    return bound


@lean
def add_within(indptr, indices, vptr, mptr, scatter, fixed, xtx, xty, yty, place):
    """Add the scatter within environments, W of equation 5: nothing for the intercept.

    ``scatter`` is (p, p) of the nodes; ``fixed`` (n, p + n) that of n fixed columns with the nodes
    and then with one another. ``place`` is room for the numbers of a design row's columns.
    """
    p = len(indptr) - 1
    for i in range(p):
        first, last = indptr[i], indptr[i + 1]
        d = vptr[i + 1] - vptr[i]
        k = d - (last - first)
        for a in range(1, k):
            place[a] = p + a - 1
        for a in range(last - first):
            place[k + a] = indices[first + a]
        for a in range(min(k, 1), d):
            j = place[a]
            xty[vptr[i] + a] += scatter[j, i] if j < p else fixed[j - p, i]
            row = mptr[i] + a * d
            for b in range(min(k, 1), d):
                other = place[b]
                if j >= p:
                    xtx[row + b] += fixed[j - p, other]
                else:
                    xtx[row + b] += scatter[j, other] if other < p else fixed[other - p, j]
        yty[i] += scatter[i, i]


# Prior variances of a shift over the noise variance (Stephens 2017, doi:10.1093/biostatistics/
# kxw041), apart by a factor of 2.
TAU2: Array = np.concatenate([[0.0], 2.0 ** np.arange(-13, 6)])
# Their weights where no perturbation was seen yet: even up to an eighth of the noise variance, with
# half as much for each doubling beyond. The mean is a tenth; screens show .02 (TAP-seq) to .06
# (Norman), where even weights say 3.2 and hide what own genes tell.
UNSEEN_WEIGHTS: Array = np.minimum(1.0, 0.125 / np.maximum(TAU2, 0.125))
UNSEEN_WEIGHTS /= UNSEEN_WEIGHTS.sum()


@dataclass(frozen=True, repr=False)
class ShiftPrior(Shown):
    r"""Expected effects of perturbations, their prior variance, and the means of their cells.

    The expected effect of perturbation ``j`` is ``effect[j]``, independent of the graph, plus the
    effect of ``shift[j]`` on the graph. With weights ``B`` its shift is
    ``shift[j] + (I - B) effect[j] + u``,
    :math:`u_{ij} \sim \sum_k \pi_{jk} N(0, \sigma_i^2 \tau_k^2)`, or of the given variance.

    Parameters
    ----------
    n
        Cells of every perturbation that count, 0 where there are none, shape
        ``(n_perturbations,)``.
    mean
        Means of its cells, shape ``(n_perturbations, n_nodes)``, units of the data.
    ratio
        Variance of its cells over that of all cells, same shape.
    shift, effect
        Expected shift, and additional expected effect (mean minus that of the controls), same
        shape and units as ``mean``.
    own
        Prior variance of ``u`` where it is not the mixture (the target gene, by the spread of
        efficacies), squared units of the data; nan elsewhere; same shape.
    weights
        Weights of the prior variances ``TAU2``, shape ``(n_perturbations, n_components)``.
    fixed
        Fixed columns of the regression, such as batches: their means over the cells of every
        perturbation, shape ``(n_perturbations, n_fixed)``. Their coefficients are estimated from
        few cells, and that error is in every departure. By default there are none.
    scale
        What the variances of departures of perturbations without cells are multiplied by, those
        of what is shared and of own parts (equation 33), shape ``(n_perturbations, 2)``; 1 by
        default.
    """

    stored_beside = (("tau2", TAU2),)  # which the weights are those of

    n: Array = array("n_perturbations", least=0)
    mean: Array = array("n_perturbations", "n_nodes", is_table=True)
    ratio: Array = array("n_perturbations", "n_nodes", above=0, is_table=True)
    shift: Array = sparse("n_perturbations", "n_nodes")
    effect: Array = array("n_perturbations", "n_nodes", is_table=True)
    own: Array = sparse("n_perturbations", "n_nodes", least=0, fill=np.nan)
    weights: Array = array("n_perturbations", len(TAU2), least=0)
    fixed: Array = array("n_perturbations", "n_fixed", optional=True)
    scale: Array = array("n_perturbations", 2, above=0, optional=True)

    def __post_init__(self) -> None:
        if self.scale is None:
            object.__setattr__(self, "scale", np.ones((len(self.n), 2)))
        given = np.zeros((0, 0)) if self.fixed is None else self.fixed
        if not given.size:
            object.__setattr__(self, "fixed", np.zeros((len(self.n), given.shape[1])))

    @classmethod
    def exact(cls, shifts: ArrayLike) -> ShiftPrior:
        """Return shifts that are known exactly (the model of Zhang et al. 2023)."""
        given = np.atleast_2d(np.asarray(shifts, np.float64))
        nothing, n = np.zeros_like(given), len(given)
        weights = np.zeros((n, len(TAU2)))
        weights[:, 0] = 1.0
        unknown = np.full(given.shape, np.nan)
        return cls(np.zeros(n), nothing, nothing + 1, given, nothing, unknown, weights)

    @property
    def is_exact(self) -> bool:
        """Whether all shifts are known exactly."""
        return bool((self.weights[:, 0] == 1).all() and np.isnan(self.own).all())

    def rows(self, index: ArrayLike) -> ShiftPrior:
        """Return some perturbations, in the order given."""
        which = np.asarray(index, np.int64)
        if np.array_equal(which, np.arange(len(self.n))):
            return self
        return ShiftPrior(*(getattr(self, field)[which] for field in self.__dataclass_fields__))

    def subset(self, nodes: ArrayLike) -> ShiftPrior:
        """Return some nodes, in the order given, as on a graph without edges."""
        index = np.asarray(nodes, np.int64)
        names = ("mean", "ratio", "shift", "effect", "own")
        return replace(self, **{name: getattr(self, name)[:, index] for name in names})

    def joined(self, other: ShiftPrior) -> ShiftPrior:
        """Return these perturbations and then those of another prior on the same nodes."""
        if not len(other.n):
            return self
        n_fixed = max(self.fixed.shape[1], other.fixed.shape[1])
        pair = [
            replace(each, fixed=np.pad(each.fixed, ((0, 0), (0, n_fixed - each.fixed.shape[1]))))
            for each in (self, other)
        ]
        return ShiftPrior(
            *(np.concatenate([getattr(each, f) for each in pair]) for f in vars(self))
        )

    @property
    def n_perturbations(self) -> int:
        """Number of perturbations."""
        return len(self.n)

    @property
    def design(self) -> Array:
        """Means of the cells with the fixed columns after the nodes, ``(n, n_nodes + n_fixed)``."""
        return with_columns(self.mean, self.fixed)

    def shifts(self, posterior: DagBlr) -> Array:
        """Return the expected shifts ``shift + (I - B) effect`` on a graph, as ``mean``."""
        return self.shift + self.effect - (posterior.mean() @ self.effect.T).T

    def counted(self) -> Array:
        """Return the cells that count, at the pooled variance of every node, as ``mean``."""
        return self.n[:, None] / self.ratio

    def given(self, posterior: DagBlr) -> ShiftPosterior:
        """Return the posterior of the shifts given the weights of a graph (equation 6)."""
        prior = self.shifts(posterior)
        square = departure_squares(posterior, self.design, prior)
        share, spare = np.empty((2, *self.mean.shape))
        counts = np.zeros_like(self.weights)
        own = self.own / posterior.noise_var
        mixture_step(
            square, self.counted(), TAU2, self.weights, own, share, spare, counts,
            np.empty((2, len(TAU2))),
        )  # fmt: skip
        effect = self.effect if self.effect.any() else None
        draw = partial(_draw_components, square, self.counted(), self.weights, own)
        components = None if self.is_exact else draw
        return ShiftPosterior(
            self.n, self.mean, prior, share, spare, effect, components, fixed=self.fixed
        )


def _draw_components(
    square: Array,
    counted: Array,
    weights: Array,
    own: Array,
    rng: np.random.Generator,
    together: float,
) -> Iterator[tuple[Array, Array]]:
    """Yield draws of share and spare variance of every shift, one component each (equation 8).

    Arrays are ``(n_perturbations, n_nodes)``: ``E[r^2 / sigma^2]``, cells that count, and prior
    variances over the noise where they are not the mixture; ``weights`` has a column per component.
    ``together`` is the correlation of sizes within a perturbation.
    """
    below = np.empty((*square.shape, len(TAU2)), np.float32)
    fill_chances(square, counted, TAU2, weights, own, below, np.empty(len(TAU2)))
    while True:
        share, spare = np.empty((2, *square.shape))
        # If shifts of a perturbation are larger than was thought, they are larger together, as far
        # as they go together at all. Each gene's own mixture is what it was.
        common = np.sqrt(together) * rng.standard_normal((len(square), 1))
        uniform = ndtr(common + np.sqrt(1.0 - together) * rng.standard_normal(square.shape))
        draw_components(below, counted, TAU2, own, uniform, share, spare)
        yield share, spare


def as_effects(prior: ShiftPrior, posteriors: Sequence[DagBlr]) -> ShiftPrior:
    """Return the prior with what shifts do on graphs, which count alike, told as an effect."""
    follows = prior.shift
    if any(blr.dag.n_edges for blr in posteriors):
        shift = np.ascontiguousarray(prior.shift.T)
        follows = np.mean([blr.solve(shift).T for blr in posteriors], axis=0)
    return replace(prior, shift=np.zeros_like(prior.shift), effect=prior.effect + follows)


def departure_squares(posterior: DagBlr, mean: Array, shifts: Array) -> Array:
    """Return ``E[r^2 / sigma^2]`` of what means depart by from a graph, as ``shifts``.

    ``mean`` holds the fixed columns after the nodes.
    """
    away, leverage = np.empty((2, *shifts.shape))
    departures(
        *posterior.place, posterior.blocks["weights"], posterior.blocks["cov"],
        np.ascontiguousarray(mean), np.ascontiguousarray(shifts), away, leverage,
        np.empty(posterior._layout.longest_row),
    )  # fmt: skip
    return away**2 * posterior.noise_precision + leverage
