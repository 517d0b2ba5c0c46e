"""Effects in several conditions, such as cell lines, with a fit to each that uses the others (24).

The fit to a condition uses its own cells and controls. The cells of every other condition are added
with a weight from 0 to 1 for each perturbation and gene: the probability that the effect is the
same in both conditions, up to sampling error. This probability depends on the difference of the
effects, and on the share of equal effects among other genes that the perturbation changes, and
among other perturbations. Effects in another screen are used in the same way.
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
from nextpert.core.model.within_cells import coexpression, filled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.model.hierarchical import Hierarchical
    from nextpert.core.model.sampler import Prior
    from nextpert.core.screen.departures import Coexpression
    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]

# Variances of departures, in units of that between cells: 0, and up to 16 (an SD of four).
DEPARTURES = np.append(0.0, 2.0 ** np.arange(-7.0, 5.0))
# Weight of the prior of a screen in genes, with agreement in half of them; and weight of the screen
# in a perturbation, in genes.
_PRIOR_COUNT, _OF_SCREEN = 2.0, 1.0
# Departures of at most this many times the sampling variance count as additional sampling error. If
# lines agree, the error is 1.06 times that of pooling (1.23 with 1, 1.14 with 4); with 16, effects
# in a single line are lost more often (three screens each).
_BELOW = 8.0
# Effects that are shared have at least this share of the squared size in common with another
# condition; prior frequency of perturbations whose effects a condition denies, and its weight.
_IN_COMMON, _DENIED, _DENIED_COUNT = 0.75, 0.1, 5.0
_ROUNDS = 30  # iterations of EM for the frequencies of departures
_NO_CELLS = 1e-6  # effective cells of a perturbation without cells
_SHORT = Chain(50, 100, 1)  # short chain that identifies the changed genes


@one_thread()
def fit_each(
    parts: Sequence[PooledGuides],
    prior: Prior = NO_PRIOR,
    returned: Sequence[int] | None = None,
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
        The controls and perturbations of each condition. Perturbations may lack cells in some
        conditions; controls may not.
    returned
        Numbers of the conditions to fit; all by default.
    prior, chain, rng, n_jobs, progress
        As in :func:`~nextpert.core.model.hierarchical.fit_hierarchical`.
    """
    generator = as_rng(rng)
    n, p = len(parts[0].n) - 1, parts[0].mean.shape[1]
    length = chain or Chain.of_size((1 + len(parts)) * n * p)

    def fit(cells: PooledGuides, within: PooledGuides, length: Chain) -> Hierarchical:
        return fit_hierarchical(
            cells,
            prior,
            within=within,
            chain=length,
            rng=generator,
            n_jobs=n_jobs,
            progress=progress,
        )

    # A gene counts as changed if its effect exceeds 1 SD in a short fit to any condition.
    complete, changes = [_with_all(part) for part in parts], np.zeros((n, p))
    short = min(length, _SHORT, key=lambda candidate: candidate.keep)
    for part in complete:
        effects = fit(part, part, short).effects
        changes = np.maximum(changes, np.abs(effects.posterior_mean()) > effects.sd())
    selected = range(len(parts)) if returned is None else returned
    return [fit(joined(complete, k, changes), complete[k], length) for k in selected]


def as_condition(
    fit: Hierarchical, cells: PooledGuides, name: str, control: ArrayLike
) -> Condition:
    """Return a fit as a condition, with ``control`` as the common mean of the controls."""
    effects, measured = fit.effects, cells.n[1:, None] > 0
    centres = effects.centres(np.arange(len(effects.expected)))
    return Condition(
        name,
        replace(effects, centre=centres, cells=None),
        np.asarray(control) + fit.control - cells.mean[0],
        cells.n_cells[1:],
        np.where(measured, cells.mean[1:] - cells.mean[0], 0.0),
    )


def joined(parts: Sequence[PooledGuides], number: int, changes: Array) -> PooledGuides:
    """Return the cells of condition ``number``, plus those of other conditions that agree with it.

    ``changes`` is 1 for genes that count as changed, else 0, ``(n_perturbations, n_genes)``.
    """
    # In units of the variance within the cells of this condition.
    part_here = parts[number]
    varies = part_here.covariance.diagonal()
    unit = filled(varies)
    precision, differences = [], [part.mean[1:] - part.mean[0] for part in parts]
    cells = coexpression(part_here)
    for part, change in zip(parts, differences, strict=True):
        if part is part_here:
            precision.append(part_here.counted[1:])
            continue
        # A gene that is not expressed there cannot change there, and is uninformative.
        there = part.covariance.diagonal()
        significance = np.where(varies > 0, np.minimum(1.0, 2.0 * there / unit), 0.0)
        # Noise of those cells in units of this condition, at least its own; then of the controls.
        noise = np.maximum(there / unit, 1.0) / part.counted[1:]
        of_control = 1.0 / part_here.counted[0] + np.maximum(there / unit, 1.0) / part.counted[0]
        difference_variance = noise + 1.0 / part_here.counted[1:] + of_control
        square = (change - differences[number]) ** 2 / unit
        weight = np.empty(noise.shape)
        for rows, chance in departures(square, difference_variance, changes * significance):
            # Small departures count as sampling error. Without cells here, departures cannot be
            # recognised: all are included with their probabilities.
            total = noise[rows, :, None] + DEPARTURES
            smaller_noise = np.minimum(noise[rows], 1.0 / part_here.counted[1:][rows])
            small = _BELOW * smaller_noise[:, :, None] >= DEPARTURES
            counts = small | (part_here.n[1:][rows, None, None] <= _NO_CELLS)
            weight[rows] = (chance * counts / total).sum(axis=2)
        of_here, of_there = (1.0 / x.counted[1:] + 1.0 / x.counted[0] for x in (part_here, part))
        used = np.sqrt(significance)
        agreement = shared_effects(
            used * differences[number], used * change, of_here, of_there, cells
        )
        precision.append(significance * weight * agreement[:, None])
    # Means weighted by precision: own cells, and those of conditions that agree.
    total = np.sum(precision, axis=0)
    fraction = [part_precision / total for part_precision in precision]
    n = total.mean(axis=1)
    # Controls are weighted by cells. Differences in weights between a perturbation and the controls
    # become columns, like those of batches, because errors of controls are common to perturbations.
    controls = np.array([part.n[0] for part in parts])
    less = np.array([weights.mean(axis=1) for weights in fraction]).T
    of_batches = np.sum(
        [a[:, None] * (b.fixed[1:] - b.fixed[:1]) for a, b in zip(less.T, parts, strict=True)],
        axis=0,
    )
    columns = np.hstack([less - controls / controls.sum(), of_batches])
    change = np.sum([s * a for s, a in zip(fraction, differences, strict=True)], axis=0)
    errors = part_here.errors
    if errors is not None:  # smaller by the cells of other conditions
        gain = part_here.counted[1:] / total
        errors = errors._replace(
            own=np.vstack([errors.own[:1], errors.own[1:] * gain]),
            along=np.vstack([errors.along[:1], errors.along[1:] * gain.mean(axis=1)[:, None]]),
        )
    return replace(
        part_here,
        mean=np.vstack([part_here.mean[:1], part_here.mean[0] + change]),
        n=np.append(controls.sum(), n),
        variance_ratio=np.vstack([part_here.variance_ratio[:1], n[:, None] / total]),
        fixed=np.vstack([0.0 * columns[:1], columns]),
        fixed_sd=np.append(1.0 / np.sqrt(controls), part_here.fixed_sd),
        errors=errors,
    )


def shared_effects(
    here: Array, there: Array, noise_here: Array, noise_there: Array, cells: Coexpression
) -> Array:
    """Return the weight of another condition for each perturbation: 0 if it denies the effect.

    If an effect is in one condition only, the inner product of its estimates in both has the
    expectation 0; if it is shared, at least three quarters of its squared size. The inner product
    of independent estimates is unbiased, and uses all genes, so that it recognises effects that are
    too small in each gene. It is taken off the factors of coexpression, where the noise of genes is
    independent. The frequency of denied effects is learned over perturbations.

    Parameters
    ----------
    here, there
        Differences from the controls in both conditions, shape ``(n_perturbations, n_genes)``.
    noise_here, noise_there
        Their sampling variances, relative to that of a cell, same shape.
    cells
        Coexpression of genes between cells.
    """
    units = np.sqrt(cells.psi)
    x, y = (
        (z - cells.scores_of(z) @ cells.factors.T) / units
        for z in (here / cells.unit, there / cells.unit)
    )
    p = x.shape[1] - cells.factors.shape[1]
    of_here, of_there = noise_here.mean(axis=1), noise_there.mean(axis=1)
    product = (x * y).sum(axis=1)
    sizes = []
    for residual, noise in ((x, of_here), (y, of_there)):
        square = (residual**2).sum(axis=1)
        # The squared size, less one standard error: 2 tr V^2 + 4 theta' V theta.
        error = np.sqrt(2.0 * p * noise**2 + 4.0 * np.maximum(square - p * noise, 0.0) * noise)
        sizes.append(square - p * noise - error)
    size = np.maximum(np.max(sizes, axis=0), 0.0)
    # Var(x'y) = tr(V_x V_y) + the variance of noise along the effects.
    variance = p * of_here * of_there + size * (of_here + of_there)
    # log N(x'y; 0, variance) / N(x'y; 3/4 size, variance); more in common is no evidence against.
    common = np.minimum(product, _IN_COMMON * size)
    logs = ((common - _IN_COMMON * size) ** 2 - common**2) / (2.0 * variance)
    often = _DENIED
    for _ in range(_ROUNDS):
        denied = 1.0 / (1.0 + np.exp(-np.clip(logs, -700, 700)) * (1.0 - often) / often)
        often = (_DENIED_COUNT * _DENIED + denied.sum()) / (_DENIED_COUNT + len(denied))
    # Without evidence, as for perturbations without effect, conditions are joined.
    return np.asarray(np.minimum((1.0 - denied) / (1.0 - often), 1.0))


def departures(square: Array, variance: Array, changes: Array) -> Iterator[tuple[slice, Array]]:
    """Yield the probabilities of variances of the departures between two conditions.

    They are those of :data:`DEPARTURES`, for some perturbations at a time, shape ``(n_some,
    n_genes, n_departures)``. Their frequencies are estimated from genes that change (``changes``, 0
    to 1), because unchanged genes always agree, and for each gene without the gene itself.
    ``square`` and ``variance`` are squared differences of effects and their sampling variances.
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
        # The contribution of the gene itself is subtracted first.
        other_genes = _OF_SCREEN * screen + of_each[rows, None] - changes[rows, :, None] * chance
        yield rows, softmax(logs(rows) + np.log(other_genes), axis=2)


def _with_all(cells: PooledGuides) -> PooledGuides:
    """Return the cells; perturbations without cells have no effect, with negligible weight."""
    mean = np.where(cells.n[:, None] > 0, cells.mean, cells.mean[0])
    return replace(cells, n=np.maximum(cells.n, _NO_CELLS), mean=mean)


def of_table(cells: PooledGuides, effects: ArrayLike, precision: ArrayLike) -> PooledGuides:
    """Return effects in another screen as controls and perturbations of a condition.

    ``precision`` is one over their sampling variance, which includes the error of the controls; 0
    if unknown.
    """
    there, precisions = np.asarray(effects, np.float64), np.asarray(precision, np.float64)
    within = np.maximum(cells.covariance.diagonal(), np.finfo(np.float64).tiny)
    # All effects contain the error of the controls. It is assumed to be half of the smallest
    # variance, as for as many controls as cells of the largest perturbation.
    of_control = 0.5 / np.where(precisions.any(axis=0), precisions.max(axis=0), 0.5 / within)
    # The sampling variance there, including controls.
    variance = np.divide(
        1.0, precisions, out=np.full(precisions.shape, np.inf), where=precisions > 0
    )
    # Cells of this screen whose mean would have that variance.
    counted = np.maximum(within / np.vstack([of_control, variance - of_control]), _NO_CELLS)
    n = counted.mean(axis=1)
    return replace(
        cells,
        n=n,
        mean=np.vstack([0.0 * within, there]),
        variance_ratio=n[:, None] / counted,
        fixed=0.0 * cells.fixed,
        freedom=0.0 * n,
        prior_freedom=0.0,
    )
