"""Effects in several conditions, such as cell lines, by a fit to each that uses the others (24).

The fit to a condition is that of its own cells and controls. The cells of every other condition
count there with a weight from 0 to 1, for each perturbation and gene: the probability that its
effect is the same in both, up to the error of sampling. That follows from the difference of the
effects, and from how many effects are the same among other genes that the perturbation changes, and
among other perturbations. Effects in another screen enter in the same way.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import softmax

from nextpert.core._blas import in_blocks, one_thread
from nextpert.core._checks import as_rng
from nextpert.core.model.effect_draws import Condition
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.sampler import NO_PRIOR, Chain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.hierarchical import Hierarchical
    from nextpert.core.model.sampler import Prior
    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]

# Variances of departures, in units of that within cells: none, and up to four standard deviations.
DEPARTURES = np.append(0.0, 2.0 ** np.arange(-7.0, 5.0))
# Genes that the prior of a screen counts for, of which conditions agree in half; and genes that the
# screen counts for in a perturbation.
_PRIOR_COUNT, _OF_SCREEN = 2.0, 1.0
# Departures of at most so many times the sampling variance are taken for more of it. Where lines
# agree the error is 1.06 times that of pooling (1.23 by 1, 1.14 by 4); by 16 effects of one line
# are lost more often (three screens each).
_BELOW = 8.0
_ROUNDS = 30  # of estimating how often there are departures
_NO_CELLS = 1e-6  # cells that count of a perturbation that has none
_SHORT = Chain(50, 100, 1)  # tells which genes change


@one_thread()
def fit_each(
    parts: Sequence[PooledGuides],
    prior: Prior = NO_PRIOR,
    which: Sequence[int] | None = None,
    *,
    chain: Chain | None = None,
    rng: int | np.random.Generator | None = None,
    n_jobs: int = 1,
    progress: Callable[[int, int], object] | None = None,
) -> list[Hierarchical]:
    """Sample the effects of perturbations in each of several conditions (equation 24).

    Parameters
    ----------
    parts
        The controls and perturbations of each condition. Perturbations may lack cells in some, not
        the controls.
    which
        Numbers of the conditions that are fitted; all by default.
    prior, chain, rng, n_jobs, progress
        As in :func:`~nextpert.core.model.hierarchical.fit_hierarchical`.
    """
    generator = as_rng(rng)
    n, p = len(parts[0].n) - 1, parts[0].mean.shape[1]
    length = chain or Chain.of_size((1 + len(parts)) * n * p)

    def fit(cells: PooledGuides, within: PooledGuides, length: Chain) -> Hierarchical:
        return fit_hierarchical(
            cells, prior, within=within, chain=length, rng=generator, n_jobs=n_jobs,
            progress=progress,
        )  # fmt: skip

    # A gene counts as changed where a short fit of any condition puts it a sd from 0.
    whole, changes = [_with_all(part) for part in parts], np.zeros((n, p))
    short = min(length, _SHORT, key=lambda each: each.keep)
    for part in whole:
        effects = fit(part, part, short).effects
        changes = np.maximum(changes, np.abs(effects.posterior_mean()) > effects.sd())
    asked = range(len(parts)) if which is None else which
    return [fit(joined(whole, k, changes), whole[k], length) for k in asked]


def as_condition(
    fit: Hierarchical, cells: PooledGuides, name: str, control: ArrayLike
) -> Condition:
    """Return what a fit says of a condition; states start from ``control`` in all of them."""
    effects, measured = fit.effects, cells.n[1:, None] > 0
    every = effects.centres(np.arange(len(effects.expected)))
    return Condition(
        name, replace(effects, centre=every, cells=None),
        np.asarray(control) + fit.control - cells.mean[0], cells.n_cells[1:],
        np.where(measured, cells.mean[1:] - cells.mean[0], 0.0),
    )  # fmt: skip


def joined(parts: Sequence[PooledGuides], here: int, changes: Array) -> PooledGuides:
    """Return the cells of condition ``here``, to which those of others add as far as they agree.

    ``changes`` are the genes that count as changed, 0 or 1, shape ``(n_perturbations, n_genes)``.
    """
    # In units of the variance within the cells of this condition.
    own = parts[here]
    varies = own.covariance.diagonal()
    unit = np.where(varies > 0, varies, np.median(varies[varies > 0]))
    precision, apart = [], [part.mean[1:] - part.mean[0] for part in parts]
    for part, change in zip(parts, apart, strict=True):
        if part is own:
            precision.append(own.counted[1:])
            continue
        # A gene that is not expressed there does not change there, and says nothing of it here.
        there = part.covariance.diagonal()
        significance = np.where(varies > 0, np.minimum(1.0, 2.0 * there / unit), 0.0)
        # Noise of their cells in units of this condition, at least its own; and of the controls.
        noise = np.maximum(there / unit, 1.0) / part.counted[1:]
        of_control = 1.0 / own.counted[0] + np.maximum(there / unit, 1.0) / part.counted[0]
        both = noise + 1.0 / own.counted[1:] + of_control
        square = (change - apart[here]) ** 2 / unit
        weight = np.empty(noise.shape)
        for rows, chance in departures(square, both, changes * significance):
            # Small departures are more of sampling. Without cells here nothing tells whether there
            # are others: all enter, each with its chance.
            total = noise[rows, :, None] + DEPARTURES
            least = np.minimum(noise[rows], 1.0 / own.counted[1:][rows])
            small = _BELOW * least[:, :, None] >= DEPARTURES
            counts = small | (own.n[1:][rows, None, None] <= _NO_CELLS)
            weight[rows] = (chance * counts / total).sum(axis=2)
        precision.append(significance * weight)
    # Means weighted by precision: own cells, and those of others as far as they agree.
    total = np.sum(precision, axis=0)
    fraction = [each / total for each in precision]
    n = total.mean(axis=1)
    # Controls count with their cells; what a perturbation has more or less of those of a condition
    # is a column, as of batches: their errors are common to the perturbations.
    controls = np.array([part.n[0] for part in parts])
    less = np.array([each.mean(axis=1) for each in fraction]).T
    of_batches = np.sum(
        [a[:, None] * (b.fixed[1:] - b.fixed[:1]) for a, b in zip(less.T, parts, strict=True)],
        axis=0,
    )
    columns = np.hstack([less - controls / controls.sum(), of_batches])
    change = np.sum([s * a for s, a in zip(fraction, apart, strict=True)], axis=0)
    return replace(
        own, mean=np.vstack([own.mean[:1], own.mean[0] + change]), n=np.append(controls.sum(), n),
        variance_ratio=np.vstack([own.variance_ratio[:1], n[:, None] / total]),
        fixed=np.vstack([0.0 * columns[:1], columns]),
        fixed_sd=np.append(1.0 / np.sqrt(controls), own.fixed_sd),
    )  # fmt: skip


def departures(square: Array, variance: Array, changes: Array) -> Iterator[tuple[slice, Array]]:
    """Yield the probabilities of variances by which the effects of two conditions depart.

    Those of :data:`DEPARTURES` for some perturbations, shape ``(n_some, n_genes, n_departures)``.
    How often there is each is estimated from genes that change (``changes``, 0 to 1), as all agree
    where nothing happens; in a perturbation without the gene itself. ``square`` and ``variance``
    are squared differences of effects and their sampling variances.
    """
    (n, p), size = square.shape, len(DEPARTURES)
    blocks = list(in_blocks(n, p * size))

    def logs(rows: slice) -> Array:
        total = variance[rows, :, None] + DEPARTURES
        return np.asarray(-0.5 * (np.log(total) + square[rows, :, None] / total))

    # EM: P(departure) of (24), often_j = (screen + sum_g changed_g P_jg) / (1 + sum_g changed_g).
    prior = np.append(0.5, np.full(size - 1, 0.5 / (size - 1)))
    often, of_each = np.tile(prior, (n, 1)), np.empty((n, size))
    for _ in range(_ROUNDS):
        for rows in blocks:
            chance = softmax(logs(rows) + np.log(often[rows, None]), axis=2)
            of_each[rows] = np.einsum("jg,jgd->jd", changes[rows], chance)
        screen = (_PRIOR_COUNT * prior + of_each.sum(axis=0)) / (_PRIOR_COUNT + changes.sum())
        before = often
        often = (_OF_SCREEN * screen + of_each) / (_OF_SCREEN + changes.sum(axis=1))[:, None]
    for rows in blocks:
        chance = softmax(logs(rows) + np.log(before[rows, None]), axis=2)
        # Of the gene itself nothing: its own share is taken off before it is judged.
        left = _OF_SCREEN * screen + of_each[rows, None] - changes[rows, :, None] * chance
        yield rows, softmax(logs(rows) + np.log(left), axis=2)


def _with_all(cells: PooledGuides) -> PooledGuides:
    """Return the cells, where perturbations without any count for next to none at no effect."""
    mean = np.where(cells.n[:, None] > 0, cells.mean, cells.mean[0])
    return replace(cells, n=np.maximum(cells.n, _NO_CELLS), mean=mean)


def of_table(cells: PooledGuides, effects: ArrayLike, precision: ArrayLike) -> PooledGuides:
    """Return effects in another screen as controls and perturbations of a condition.

    ``precision`` is one over their sampling variance, the error of its controls included; 0 where
    unknown.
    """
    there, known = np.asarray(effects, np.float64), np.asarray(precision, np.float64)
    within = np.maximum(cells.covariance.diagonal(), np.finfo(np.float64).tiny)
    # The error of the controls is in all effects: as if these were as many cells as the most of a
    # perturbation, it is half of the smallest variance.
    of_control = 0.5 / np.where(known.any(axis=0), known.max(axis=0), 0.5 / within)
    # The sampling variance there, controls included.
    variance = np.divide(1.0, known, out=np.full(known.shape, np.inf), where=known > 0)
    # Cells of this screen whose mean would have that variance.
    counted = np.maximum(within / np.vstack([of_control, variance - of_control]), _NO_CELLS)
    n = counted.mean(axis=1)
    return replace(
        cells, n=n, mean=np.vstack([0.0 * within, there]), variance_ratio=n[:, None] / counted,
        fixed=0.0 * cells.fixed, freedom=0.0 * n, prior_freedom=0.0,
    )  # fmt: skip
