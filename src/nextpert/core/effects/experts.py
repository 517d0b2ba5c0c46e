"""What several experts expect of a perturbation whose own cells they have not seen.

The own genes of a perturbation are the matter of its efficacy: every expert leaves them at 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_nodes
from nextpert.core.cells.screen_moments import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

COEXPRESSION = "coexpression"
MEAN = "mean perturbation"
_POOLED_CELLS = 10  # the pooled variance counts as so many cells in a perturbation's own
_SINGLY = 100  # up to so many perturbations each is left out by itself
_BLOCKS = 20  # more of them are left out in so many blocks, each of which costs one pass


@dataclass(frozen=True)
class Expert:
    """Effects that one expert expects.

    Parameters
    ----------
    name
        Such as ``"graph"``.
    effects
        Expected effect of every perturbation on every gene, its own cells left out, shape
        ``(n_perturbations, n_genes)``, units of the data; 0 for the perturbation's own genes, and
        where the expert has nothing to say.
    shared
        Covariance of these numbers with the sampling error of the observed effects, same shape:
        the controls are common to all effects, and an own change that was measured errs together
        with the genes coexpressed with it. Unless it is taken off, an expert is believed for
        predicting noise. ``None`` for none.
    settled
        Whether the effects are believed as they are (weight 1), where others are silent.
    """

    name: str
    effects: Array
    shared: Array | None = None
    settled: bool = False


@dataclass(frozen=True)
class Perturbations:
    """Perturbations of a screen, measured or only planned, and their own genes.

    Parameters
    ----------
    moments
        One environment for each perturbation and one for the controls, batches taken off
        (:meth:`nextpert.core.ScreenMoments.without_fixed`, then ``pool``).
    control
        Environment of the controls.
    members
        Environment of every perturbation, -1 where it has no cells, shape
        ``(n_perturbations,)``.
    targets
        Measured own genes of every perturbation; none for enhancers, drugs and genes outside the
        panel.
    change
        Change of the own genes that experts start from, shape ``(n_perturbations, n_genes)``, of
        which other genes are not read; NaN, or ``None`` for all, stands for the observed one. Give
        the change expected from the efficacy where there are no cells.
    batches
        Errors that batches leave in the means, over a gene's standard deviation, shape
        ``(n_environments, n_columns)``
        (:attr:`~nextpert.core.cells.pool_guides.PooledGuides.fixed_errors`); ``None`` (default):
        none.

    Raises
    ------
    ValueError
        If lengths differ, an environment or a gene does not exist, or there are no controls.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.effects.experts import Perturbations, coexpression_expert
    >>> rng, knocked = np.random.default_rng(0), np.repeat([0, 1, 2], 500)
    >>> x = rng.normal(size=(1500, 3)) - 3 * np.outer(knocked == 1, [1, 0, 0])
    >>> x[:, 1] += x[:, 0]
    >>> screen = ScreenMoments.from_array(x, knocked, 3)
    >>> found = Perturbations(screen, 0, [1, 2], [[0], []])
    >>> coexpression_expert(found, found).effects.round(0) + 0.0
    array([[ 0., -3.,  0.],
           [ 0.,  0.,  0.]])
    """

    moments: ScreenMoments
    control: int
    members: ArrayLike
    targets: Sequence[Sequence[int]]
    change: ArrayLike | None = None
    batches: ArrayLike | None = None

    def __post_init__(self) -> None:
        rows, total = self.rows, self.moments.n_environments
        if rows.shape != (len(self.targets),):
            message = f"There are {len(rows)} perturbations with {len(self.targets)} targets."
            raise ValueError(message)
        if len(rows) and not (rows.min() >= -1 and rows.max() < total):
            message = f"members must lie between -1 and {total - 1}, the last environment."
            raise ValueError(message)
        if not 0 <= self.control < total or self.moments.n[self.control] < 2:
            message = "control must be an environment with two cells or more."
            raise ValueError(message)
        for genes in self.targets:
            as_nodes(genes, self.moments.n_nodes, "targets")
        shape = (len(rows), self.moments.n_nodes)
        if self.change is not None and np.shape(self.change) != shape:
            message = f"change has shape {np.shape(self.change)}, but {shape} is needed."
            raise ValueError(message)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Environment of every perturbation, -1 for none."""
        return np.asarray(self.members, np.int64)

    @property
    def n(self) -> NDArray[np.int64]:
        """Cells of every perturbation."""
        return np.where(self.rows >= 0, self.moments.n[self.rows], 0)

    @property
    def observed(self) -> Array:
        """Means less the controls' mean, ``(n_perturbations, n_genes)``; 0 without cells."""
        effects = self.moments.mean[self.rows] - self.moments.mean[self.control]
        return np.where(self.n[:, None] > 0, effects, 0.0)

    @property
    def variance(self) -> Array:
        """Sampling variance of :attr:`observed`, the controls' included; infinite without cells."""
        shared = self.sd**2 * (self.batch_errors**2).sum(axis=1)[:, None]
        return self.own_variance() + self.control_variance + shared

    @property
    def batch_errors(self) -> Array:
        """Errors of batches in :attr:`observed`, ``(n_perturbations, n_columns)``; 0 for none."""
        if self.batches is None:
            return np.zeros((len(self.rows), 0))
        every = np.asarray(self.batches, np.float64)
        return np.where(self.rows[:, None] >= 0, every[self.rows] - every[self.control], 0.0)

    @property
    def control_variance(self) -> Array:
        """Sampling variance of the controls' mean, ``(n_genes,)``, common to all effects."""
        return self.sd**2 / self.moments.n[self.control]

    @property
    def sd(self) -> Array:
        """Standard deviation of every gene among the controls, ``(n_genes,)``."""
        return np.sqrt(self.moments.variance[self.control])

    def some(self, index: ArrayLike) -> Perturbations:
        """Return some of the perturbations, in the order given."""
        which = np.asarray(index, np.int64)
        targets = [self.targets[j] for j in which.tolist()]
        change = None if self.change is None else np.asarray(self.change, np.float64)[which]
        return replace(self, members=self.rows[which], targets=targets, change=change)

    def without(self, index: ArrayLike) -> Perturbations:
        """Return the other perturbations of the screen, on moments that lack these cells.

        Of the pooled scatter the share of the cells that stay is left: it is not known by
        environment.
        """
        left_out = np.zeros(len(self.rows), bool)
        left_out[np.asarray(index, np.int64)] = True
        gone = np.unique(self.rows[left_out & (self.rows >= 0)])
        kept = np.setdiff1d(np.arange(self.moments.n_environments), gone)
        n = self.moments.n[kept]
        scatter = self.moments.scatter * (n.sum() / max(int(self.moments.n.sum()), 1))
        moments = ScreenMoments(n, self.moments.mean[kept], self.moments.squares[kept], scatter)
        place = np.full(self.moments.n_environments + 1, -1)
        place[kept] = np.arange(len(kept))
        others = self.some(np.flatnonzero(~left_out))
        batches = None if self.batches is None else np.asarray(self.batches, np.float64)[kept]
        return replace(
            others, moments=moments, control=int(place[self.control]), members=place[others.rows],
            batches=batches,
        )  # fmt: skip

    def own_variance(self) -> Array:
        """Return the sampling variance of the perturbations' own means.

        From the cells' own scatter, drawn to the pooled one by ten cells' worth.
        """
        n = self.n[:, None]
        pooled = np.diag(self.covariance())
        freedom = np.maximum(n - 1, 0) + _POOLED_CELLS
        spread = (self.moments.squares[self.rows] + _POOLED_CELLS * pooled) / freedom
        return np.where(n > 0, spread / np.maximum(n, 1), np.inf)

    def covariance(self) -> Array:
        """Return the covariance within environments, ``(n_genes, n_genes)``."""
        freedom = self.moments.n.sum() - np.count_nonzero(self.moments.n)
        return self.moments.scatter / max(int(freedom), 1)

    def own(self) -> NDArray[np.bool_]:
        """Whether a gene is the perturbation's own, ``(n_perturbations, n_genes)``."""
        return own_genes(self.targets, self.moments.n_nodes)

    def scored(self) -> NDArray[np.bool_]:
        """Whether a stack learns from an effect: measured, the gene neither own nor constant."""
        return (self.n[:, None] > 0) & ~self.own() & (self.sd > 0)


def own_genes(targets: Sequence[Sequence[int]], n_genes: int) -> NDArray[np.bool_]:
    """Return whether a gene is a perturbation's own, ``(n_perturbations, n_genes)``."""
    mask = np.zeros((len(targets), n_genes), bool)
    for row, genes in zip(mask, targets, strict=True):
        row[list(genes)] = True
    return mask


def graph_expert(perturbations: Perturbations, weights: Array | Sequence[Array]) -> Expert:
    """Return the effects that a graph transmits: total effects of own genes times own changes.

    Parameters
    ----------
    perturbations
        The perturbations.
    weights
        ``B``, row = child, shape ``(n_genes, n_genes)``; or one such matrix a perturbation,
        learned without its cells. With a single one that has seen them nothing is left out, and
        a stack believes it too much.

    Raises
    ------
    ValueError
        If the shape is another.
    """
    n, p = len(perturbations.targets), perturbations.moments.n_nodes
    single = np.ndim(weights[0]) == 1
    if not single and len(weights) != n:
        message = f"{len(weights)} weights were given for {n} perturbations."
        raise ValueError(message)
    slopes, known = [], {}
    if single:
        every = sorted({k for genes in perturbations.targets for k in genes})
        known = dict(zip(every, _total_effects(weights, every, p).T, strict=True))
    for j, genes in enumerate(perturbations.targets):
        if not genes:
            slopes.append(np.zeros((p, 0)))
        elif single:
            slopes.append(np.array([known[k] for k in genes]).T)
        else:
            slopes.append(_total_effects(weights[j], list(genes), p))
    return _by_slopes(perturbations, "graph", slopes)


def _total_effects(weights: ArrayLike, genes: list[int], p: int) -> Array:
    """Return the effects of a unit change of some genes on all, ``(p, n)``."""
    matrix = np.asarray(weights, np.float64)
    if matrix.shape != (p, p):
        message = f"weights have shape {matrix.shape}, but {(p, p)} is needed."
        raise ValueError(message)
    total = np.linalg.solve(np.eye(p) - matrix, np.eye(p)[:, genes])
    return np.asarray(total / total[genes, np.arange(len(genes))])


def coexpression_expert(asked: Perturbations, seen: Perturbations) -> Expert:
    """Return effects by coexpression: every gene regressed on the target gene, over a screen.

    The means of the screen's perturbations and of its controls join the scatter within
    environments in the regression.

    Parameters
    ----------
    asked
        The perturbations whose effects are asked for.
    seen
        The perturbations that the regression is learned from.
    """
    moments = seen.moments
    n = moments.n.astype(np.float64)
    away = moments.mean - n @ moments.mean / n.sum()
    every = sorted({k for genes in asked.targets for k in genes})
    place = {k: i for i, k in enumerate(every)}
    scatter = moments.scatter[:, every] + (n[:, None] * away).T @ away[:, every]
    largest = (moments.mean[:, every] ** 2).max(axis=0, initial=0.0)
    slopes = []
    for genes in asked.targets:
        index = [place[k] for k in genes]
        columns = scatter[:, index]
        spread = columns[list(genes), np.arange(len(genes))]
        varies = spread > 1e-12 * n.sum() * largest[index]  # else it is rounding alone
        slopes.append(np.where(varies, columns / np.where(varies, spread, 1.0), 0.0))
    return _by_slopes(asked, COEXPRESSION, slopes)


def mean_expert(asked: Perturbations, seen: Perturbations) -> Expert:
    """Return the mean effect of a screen's perturbations, whatever the perturbation asked for.

    They are weighted by ``1 / (t^2 + v)``, ``v`` the sampling variance of a mean and ``t^2`` the
    variance of effects about their mean beyond sampling, in units of a gene's variance, one number
    for the screen (a random-effects mean): perturbations of few cells count for less. Their own
    target genes are left out.

    Parameters
    ----------
    asked
        The perturbations whose effects are asked for.
    seen
        The perturbations that the mean is taken over.
    """
    sd = np.where(seen.sd > 0, seen.sd, 1.0)
    used = seen.scored()
    effects = np.where(used, seen.observed / sd, 0.0)
    noise = np.where(used, seen.own_variance() / sd**2, 0.0)
    count = used.sum(axis=0)
    centre = effects.sum(axis=0) / np.maximum(count, 1)
    spread = np.where(used, (effects - centre) ** 2, 0.0).sum()
    many = np.where(count > 1, count - 1, 0).sum()
    share = np.where(count > 1, (count - 1) / np.maximum(count, 1), 0.0)
    between = max((spread - (noise * share).sum()) / max(many, 1), 0.0)
    weight = np.where(used, 1 / np.maximum(between + noise, 1e-12), 0.0)
    weight /= np.maximum(weight.sum(axis=0), 1e-300)
    mean = sd * (weight * effects).sum(axis=0)
    shared = asked.control_variance + asked.sd**2 * (
        asked.batch_errors @ (seen.batch_errors.T @ weight)
    )
    says = (count > 0) & ~asked.own()
    return Expert(MEAN, np.where(says, mean, 0.0), np.where(says, shared, 0.0))


def left_out(
    perturbations: Perturbations, expert: Callable[[Perturbations, Perturbations], Expert]
) -> Expert:
    """Return what an expert says of a screen's perturbations, each without its own cells.

    Each is left out by itself, and more than 100 in blocks. It is asked as any candidate is, so
    what is scored here is what is handed out.
    """
    n = len(perturbations.targets)
    n_blocks = n if n <= _SINGLY else _BLOCKS
    effects, shared = np.zeros((2, n, perturbations.moments.n_nodes))
    name = ""
    for block in np.array_split(np.arange(n), max(n_blocks, 1)):
        found = expert(perturbations.some(block), perturbations.without(block))
        name, effects[block] = found.name, found.effects
        if found.shared is not None:
            shared[block] = found.shared
    return Expert(name, effects, shared)


def given_expert(perturbations: Perturbations, effects: ArrayLike, name: str) -> Expert:
    """Return effects that are known from elsewhere, such as another screen of these perturbations.

    Parameters
    ----------
    perturbations
        The perturbations.
    effects
        Effects on every gene, shape ``(n_perturbations, n_genes)``, units of the data; NaN where
        nothing is known.
    name
        Name of the expert.

    Raises
    ------
    ValueError
        If the shape is another, or an effect is infinite.
    """
    known = np.array(effects, dtype=np.float64)
    own = perturbations.own()
    if known.shape != own.shape or np.isinf(known).any():
        message = (
            f"The effects of {name!r} must be finite or NaN and of shape {own.shape}, but their "
            f"shape is {known.shape}."
        )
        raise ValueError(message)
    return Expert(name, np.where(own | np.isnan(known), 0.0, known))


def _by_slopes(perturbations: Perturbations, name: str, slopes: Sequence[Array]) -> Expert:
    """Return slopes times own changes, summed over own genes; ``slopes[j]`` is genes x own."""
    change, n = perturbations.observed, perturbations.n
    error = np.broadcast_to(n[:, None] > 0, change.shape)  # whether a change was measured
    if perturbations.change is not None:
        given = np.asarray(perturbations.change, np.float64)
        error = error & np.isnan(given)
        change = np.where(np.isnan(given), change, given)
    effects, shared = np.zeros((2, *change.shape))
    within = perturbations.covariance()
    of_control = 1 / perturbations.moments.n[perturbations.control]
    batches = (perturbations.batch_errors**2).sum(axis=1)
    for j, (genes, slope) in enumerate(zip(perturbations.targets, slopes, strict=True)):
        k = list(genes)
        effects[j] = slope @ change[j, k]
        each = np.where(error[j, k], 1 / max(int(n[j]), 1) + of_control + batches[j], 0.0)
        shared[j] = np.einsum("ik,ik->i", slope, each * within[:, k])
    own = perturbations.own()
    effects[own] = shared[own] = 0.0
    return Expert(name, effects, shared)
