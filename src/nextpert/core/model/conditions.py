"""Effects in each of several conditions, such as cell lines, with sharing learned (equation 28).

The effect of perturbation j in condition c is a common effect, of the hierarchical model, and a
departure,

    theta_jc = theta_j + d_jc,    d_jci ~ N(0, T_jci),

whose variances have grids and weights of their own: as the own parts of the hierarchical model, a
scale for every pair of a perturbation and a condition, and a tail for every gene. Where conditions
agree, all variances go to the smallest of the grid, and the cells of all conditions estimate one
effect; where one of them differs, in all genes or in some, it does not count for the common one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._blas import one_thread
from nextpert.core._checks import as_rng
from nextpert.core.model._sweep import Sampler
from nextpert.core.model.chain import Chain
from nextpert.core.model.effect_draws import SCALES, TAILS, VARIANCE, Condition, EffectDraws
from nextpert.core.model.hierarchical import Hierarchical, Weights
from nextpert.core.model.within_cells import responses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.chain import Workers
    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]

# Most perturbations do the same in all conditions: the prior of the weights of departures counts
# for so many at the smallest scale and tail, and for few at all others. If it counted for all
# alike, as that of effects, departures that cells cannot tell from 0 would keep some of what is
# shared.
_AGREE, _DEPART = 5.0, 0.05
_NO_CELLS = 1e-6  # cells that count of a perturbation that has none in a condition


@one_thread()
def fit_conditions(
    cells: PooledGuides,
    names: Sequence[str],
    *,
    control: ArrayLike | None = None,
    expected: ArrayLike | None = None,
    own_variance: ArrayLike | None = None,
    chain: Chain | None = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> Hierarchical:
    """Sample the effects of the perturbations of a screen in each of several conditions.

    Parameters
    ----------
    cells
        The controls of the first condition and its perturbations, then those of the next. Means
        are compared within a condition. Perturbations may lack cells in some of them.
    names
        Names of the conditions.
    control
        Means of the controls' cells that states start from in all conditions, shape ``(n_genes,)``,
        units of the data; by default their average over conditions.
    expected, own_variance
        Of the common effects, as in :func:`~nextpert.core.model.hierarchical.fit_hierarchical`.
    chain, rng, n_jobs, progress
        As there; a chain is by default as long as for all effects that are kept, also averages.

    Returns
    -------
    Hierarchical
        Of the averages over the cells of all conditions, with its ``conditions``. Scores, program
        and weights are those of the common effects.

    Raises
    ------
    ValueError
        If a condition has no controls, or as in ``fit_hierarchical``.

    Examples
    --------
    Two lines; the second perturbation acts in the second line alone.

    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.model.conditions import fit_conditions
    >>> from nextpert.core.screen.guides import pool_guides
    >>> rng = np.random.default_rng(0)
    >>> code = np.repeat(np.arange(8), [300, 50, 50, 50, 300, 50, 50, 50])
    >>> size = np.array([0, 1, 0, 0, 0, 1, 1, 0])[code]
    >>> x = np.outer(size, np.arange(6) < 2) + rng.normal(size=(len(code), 6))
    >>> cells = pool_guides(ScreenMoments.from_array(x, code, 8), range(8), 8)
    >>> fit = fit_conditions(cells, ["A375", "K562"], rng=0)
    >>> [(each.effects.summary().lfsr[1] < 0.05).astype(int).tolist() for each in fit.conditions]
    [[0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]
    """
    n_conditions = len(names)
    sampler = _Conditions(cells, n_conditions, expected, own_variance, as_rng(rng))
    n_pairs, p = sampler.low.means.x.shape
    length = chain or Chain.of_size((n_pairs + n_pairs // n_conditions) * p)
    sampler.top.warm = sampler.low.warm = 2 * length.warm  # each has every other visit
    shape = (1 + n_conditions, n_pairs // n_conditions, p, length.keep)
    centre, variance = np.empty(shape, np.float32), np.empty(shape, np.float32)
    place = np.empty(shape[1:], np.int8)
    kept: list[tuple[Array, ...]] = []
    for k in length.run(sampler.sweep, n_jobs, progress):
        kept.append((*sampler.top.parameters(), sampler.level()))
        centre[..., k], variance[..., k] = sampler.effects()
        place[..., k] = sampler.top.state.place
    mean, program, scores, along, _, _, *weights, squares, level = (
        np.array(x) for x in zip(*kept, strict=True)
    )
    top, unit, rng = sampler.top, sampler.top.unit, sampler.top.rng
    made = []
    for k, part in enumerate((sampler.pooled, *sampler.parts)):
        # Cells of a condition may vary more than those of others: what counts is by how much more
        # they vary than its controls.
        excess = replace(part, variance_ratio=part.variance_ratio / part.variance_ratio[0])
        origin, drawn = top.expected / unit, centre[k]
        square = (origin + drawn.mean(axis=2)) ** 2
        response = responses(excess, square.__getitem__, length.keep, rng)
        drawn += (origin[:, :, None] + drawn) * response[:, None]
        made.append(_as_draws(unit, top.expected, centre[k], variance[k], place, rng))
    base = sampler.control if control is None else np.asarray(control, np.float64)
    conditions = [
        Condition(
            names[k], made[1 + k], base + level[:, k] * unit, part.n_cells[1:],
            part.mean[1:],
        )
        for k, part in enumerate(sampler.parts)
    ]  # fmt: skip
    return Hierarchical(
        made[0], base + mean * unit, program, scores, along, top.means.design[1:].T.copy(),
        Weights(*weights), squares, conditions,
    )  # fmt: skip


def beside(cells: PooledGuides, effects: ArrayLike, precision: ArrayLike) -> PooledGuides:
    """Return a screen, and then effects of its perturbations in another as a second condition.

    Parameters
    ----------
    cells
        The controls of the screen, and its perturbations.
    effects, precision
        Effects in the other screen, and one over their sampling variances, the error of its
        controls included; shape ``(n_perturbations, n_genes)``, 0 where unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import ScreenMoments
    >>> from nextpert.core.model.conditions import beside
    >>> from nextpert.core.screen.guides import pool_guides
    >>> x = np.random.default_rng(0).normal(size=(300, 2))
    >>> cells = pool_guides(ScreenMoments.from_array(x, np.repeat([0, 1, 2], 100), 3), range(3), 3)
    >>> both = beside(cells, [[1.0, 0.5], [0.0, 2.0]], [[50.0, 50.0], [0.0, 25.0]])
    >>> (1 / both.counted[4] + 1 / both.counted[3]).round(2).tolist()
    [0.02, 0.02]
    """
    there, known = np.asarray(effects, np.float64), np.asarray(precision, np.float64)
    within = np.maximum(cells.covariance.diagonal(), np.finfo(np.float64).tiny)
    # The error of the controls is in all effects: as if these were as many cells as the most of a
    # perturbation, it is half of the smallest variance.
    of_control = 0.5 / np.where(known.any(axis=0), known.max(axis=0), 0.5 / within)
    variance = np.divide(1.0, known, out=np.full(known.shape, np.inf), where=known > 0)
    # Cells of this screen whose mean would have that variance.
    counted = np.maximum(within / np.vstack([of_control, variance - of_control]), _NO_CELLS)
    n, rows = counted.mean(axis=1), len(counted)
    return replace(
        cells,
        n_cells=np.append(cells.n_cells, np.zeros(rows, np.int64)),
        n=np.append(cells.n, n),
        mean=np.vstack([cells.mean, 0.0 * within, there]),
        variance_ratio=np.vstack([cells.variance_ratio, n[:, None] / counted]),
        fixed=np.vstack([cells.fixed, np.zeros((rows, cells.fixed.shape[1]))]),
        freedom=np.append(cells.freedom, np.zeros(rows)),
    )


def _as_draws(
    unit: Array,
    expected: Array,
    centre: NDArray[np.float32],
    variance: NDArray[np.float32],
    place: NDArray[np.int8],
    rng: np.random.Generator,
) -> EffectDraws:
    """Return draws of effects each of which has a variance of its own.

    A draw's own part has the prior variance of the common effect, and one precision in all draws:
    that with which no variance is too large. What a draw lacks is added to its ``centre``.

    Parameters
    ----------
    unit, expected
        As of :class:`EffectDraws`.
    centre, variance, place
        Means of effects given the rest of a draw, their variances, and prior variances of own
        parts of common effects, shape ``(n_perturbations, n_genes, n_draws)``; ``centre`` is
        written.
    rng
        Generator.
    """
    precision = np.zeros(centre.shape[:2], np.float32)
    for k in range(centre.shape[2]):
        np.maximum(
            precision, 1.0 / variance[:, :, k] - 1.0 / VARIANCE[place[:, :, k]], out=precision
        )
    for k in range(centre.shape[2]):
        held = 1.0 / (precision + 1.0 / VARIANCE[place[:, :, k]])
        lacks = np.sqrt(np.maximum(variance[:, :, k] - held, 0.0))
        centre[:, :, k] += lacks * rng.standard_normal(lacks.shape)
    return EffectDraws(unit, expected, precision, place, centre)


class _Departures(Sampler):
    """Departures of conditions: of the parts of an effect the own one alone."""

    def start(self, design: Array, error: Array) -> None:
        """Take noise and factors, and let no scores depart (at the smallest variance)."""
        self.means = self.means._replace(design=design)
        self.means.error[:] = error
        self.means.along[:] = 1.0 / error.mean(axis=1)
        self.control[:] = 0.0
        self.state.size[:] = 0
        self.score_weights[:] = 1e-300
        self.score_weights[:, 0] = 1.0

    def draw_weights(self, number: int) -> None:
        """Draw the weights of scales and tails (equation 23)."""
        prior = np.full(len(SCALES), _DEPART)
        prior[0] = _AGREE
        counts = np.bincount(self.state.scale, minlength=len(SCALES))
        self.scale_weights = self.rng.dirichlet(counts + prior) + 1e-300
        self.tail_weights = self.rng.dirichlet(self.count + prior[: len(TAILS)]) + 1e-300
        if number < self.warm:
            self.tail_weights = self.likely_tails(prior[: len(TAILS)])


class _Common(Sampler):
    """Common effects, of means of all conditions that are weighted anew in every sweep."""

    def draw(self, number: int, workers: Workers, mean: Array, precision: Array) -> Array:
        """Draw all, and return common effects less what was expected.

        ``mean`` and ``precision`` of their own parts and the noise that is the genes' own, by all
        conditions, both of shape ``(n_perturbations, n_genes)``.
        """
        self.means.x[:] = mean - self.expected / self.unit
        self.means.error[:] = 1.0 / (self.means.psi * precision)
        self.means.along[:] = (self.means.psi * precision).mean(axis=1)
        if self.sums is not None:
            self._move_common()
        self._draw_program(self.visit_all(number, workers))
        self._draw_weights(number)
        noise = self.state.scores[:, len(self.means.design) :] @ self.means.design[1:]
        left = self.means.x - self.control - self.shared() - noise
        whole = precision + 1.0 / self.prior()
        chance = self.rng.standard_normal(whole.shape)
        return self.shared() + left * precision / whole + chance / np.sqrt(whole)

    def shared(self) -> Array:
        """Return what is along program and factors, ``(n_perturbations, n_genes)``."""
        design = self.means.design
        return self.state.scores[:, : len(design)] @ design

    def prior(self) -> Array:
        """Return the prior variances of own parts, ``(n_perturbations, n_genes)``."""
        prior, told = VARIANCE[self.state.place], self.means.told
        return np.where(np.isnan(told), prior, told) if told.size else prior


class _Conditions:
    """The state of a chain of common effects and departures, and one sweep of it.

    Parameters as in :func:`fit_conditions`, with the number of conditions. Means are relative to
    those of the controls' cells of their condition, in units of the standard deviation within
    cells.
    """

    def __init__(
        self,
        cells: PooledGuides,
        n_conditions: int,
        expected: ArrayLike | None,
        own_variance: ArrayLike | None,
        rng: np.random.Generator,
    ) -> None:
        size = len(cells.n) // n_conditions
        first = size * np.arange(n_conditions)
        if not (cells.n[first] > 0).all():
            message = "Every condition needs controls: leave out the conditions without."
            raise ValueError(message)
        rows = [cells.rows(k + np.arange(size)) for k in first]
        left = np.concatenate([part.fixed_error()[1:] for part in rows])  # by batches within them
        none = np.zeros((size, 0))
        self.parts = [
            replace(
                part, mean=np.where(part.n[:, None] > 0, part.mean - part.mean[0], 0.0),
                fixed=none, fixed_sd=none[0],
            )
            for part in rows
        ]  # fmt: skip
        weight = cells.counted[first]
        self.control = (weight * cells.mean[first]).sum(axis=0) / weight.sum(axis=0)
        n = np.maximum([part.n for part in self.parts], _NO_CELLS)
        counted = n[:, :, None] / np.array([part.variance_ratio for part in self.parts])
        total = counted.sum(axis=0)
        mean = (counted * np.array([part.mean for part in self.parts])).sum(axis=0) / total
        n_cells, freedom = (
            np.array([getattr(part, name) for part in self.parts])
            for name in ("n_cells", "freedom")
        )
        self.pooled = replace(
            self.parts[0], n=np.sum([part.n for part in self.parts], axis=0), mean=mean,
            n_cells=n_cells.sum(axis=0), freedom=freedom.sum(axis=0),
            variance_ratio=n.sum(axis=0)[:, None] / total,
        )  # fmt: skip
        both = self.pooled  # its controls, and every pair
        every = replace(
            both, n=np.append(both.n[0], n[:, 1:]),
            n_cells=np.append(both.n_cells[0], n_cells[:, 1:]),
            freedom=np.append(both.freedom[0], freedom[:, 1:]),
            mean=np.vstack([mean[:1], *(part.mean[1:] for part in self.parts)]),
            variance_ratio=np.vstack(
                [both.variance_ratio[:1], *(part.variance_ratio[1:] for part in self.parts)]
            ),
            fixed=np.zeros((1 + n_conditions * (size - 1), 0)),
        )  # fmt: skip
        self.top = _Common(self.pooled, expected, own_variance, rng)
        self.low = _Departures(every, None, None, rng)
        self.low.start(self.top.means.design, 1.0 / every.counted[1:] + left[:, None])
        means = self.low.means
        self.shape = (n_conditions, size - 1, len(self.top.unit))
        self.y = (every.mean[1:] / self.top.unit).reshape(self.shape)
        self.noise = (means.psi * means.error).reshape(self.shape)
        # Precision of the controls' own noise, and covariance of their scores along the factors.
        self.weight = weight / means.psi
        gamma = means.design[1:].T
        precision = [
            gamma.T @ (gamma / noise[:, None]) + np.eye(gamma.shape[1]) / np.mean(noise / means.psi)
            for noise in 1.0 / self.weight
        ]
        self.cov = np.linalg.inv(precision)
        self.offset = np.zeros((n_conditions, self.shape[2]))
        # What each condition counts for in an average: its share of the cells.
        shares = np.array([part.n[1:] for part in self.parts])
        self.share = (shares / shares.sum(axis=0))[:, :, None]

    def sweep(self, number: int, workers: Workers) -> None:
        """Draw everything once, given the rest."""
        top, low = self.top, self.low
        weight = self._weight()
        total = weight.sum(axis=0)
        mean = (weight * (self.y - self.offset[:, None] - self._shared())).sum(axis=0) / total
        common = top.draw(2 * number, workers, mean, total) + top.expected / top.unit
        low.means.x.reshape(self.shape)[:] = self.y - self.offset[:, None] - top.control - common
        low.visit_all(2 * number + 1, workers)
        low.draw_weights(2 * number + 1)
        self._draw_offsets()

    def _weight(self) -> Array:
        """Return the precision of common effects by every condition, departures integrated out."""
        return 1.0 / (self.noise + VARIANCE[self.low.state.place].reshape(self.shape))

    def _shared(self) -> Array:
        """Return what departs along program and factors."""
        design = self.low.means.design
        return (self.low.state.scores[:, : len(design)] @ design).reshape(self.shape)

    def _along(self) -> Array:
        """Return the noise along the factors."""
        design = self.low.means.design
        return (self.low.state.scores[:, len(design) :] @ design[1:]).reshape(self.shape)

    def _draw_offsets(self) -> None:
        """Draw what the means of the controls of each condition differ by from the common one.

        By regression gene by gene as in equation 22; their average, weighted by the controls'
        cells, belongs to the common one.
        """
        top, weight = self.top, self._weight()
        left = self.low.means.x.reshape(self.shape) + self.offset[:, None]
        left = left - self._shared() - self._along()
        gamma, rng = top.means.design[1:].T, top.rng
        for k, cov in enumerate(self.cov):
            level = top.control + self.offset[k]
            chance = np.linalg.cholesky(cov) @ rng.standard_normal(len(cov))
            along = gamma @ (chance - cov @ (gamma.T @ (level * self.weight[k])))
            precision = weight[k].sum(axis=0) + self.weight[k]
            right = (weight[k] * left[k]).sum(axis=0) - self.weight[k] * (top.control + along)
            self.offset[k] = right / precision
            self.offset[k] += rng.standard_normal(len(right)) / np.sqrt(precision)
        moved = (self.weight * self.offset).sum(axis=0) / self.weight.sum(axis=0)
        self.offset -= moved
        top.control += moved

    def level(self) -> Array:
        """Return the controls' means of all conditions relative to those of their cells."""
        return self.top.control + self.offset

    def effects(self) -> tuple[Array, Array]:
        """Return means of effects given the rest of a draw, less what was expected, and variances.

        Of the averages over conditions, and then of every condition: common own parts and
        departures are integrated out together. Shape ``(1 + n_conditions, n_perturbations,
        n_genes)``.
        """
        top, weight = self.top, self._weight()
        total, prior = weight.sum(axis=0), VARIANCE[self.low.state.place].reshape(self.shape)
        departs = prior * weight  # of what is left, this share
        shared = top.shared() + self._shared()
        left = self.y - self.offset[:, None] - self._along() - shared - top.control
        left -= top.expected / top.unit
        whole = total + 1.0 / top.prior()
        own = (weight * left).sum(axis=0) / whole
        rest, variance = departs * (left - own), departs * self.noise
        each = shared + own + rest
        of_each = (1.0 - departs) ** 2 / whole + variance
        mean = (self.share * each).sum(axis=0)
        of_mean = (1.0 - (self.share * departs).sum(axis=0)) ** 2 / whole
        of_mean += (self.share**2 * variance).sum(axis=0)
        return np.concatenate([mean[None], each]), np.concatenate([of_mean[None], of_each])
