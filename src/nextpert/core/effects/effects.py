"""Effects of perturbations: what graph and cells say together, with intervals and signs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.special import ndtri

from nextpert.core._blas import one_thread
from nextpert.core.effects import _mixture_kernels as kernels
from nextpert.core.effects.random_shifts import RandomShifts, fit_random_shifts
from nextpert.core.effects.shift_prior import TAU2, ShiftPrior
from nextpert.core.graph.dag import Dag
from nextpert.core.posterior.dag_blr import DagBlr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.cells.pool_guides import PooledGuides
    from nextpert.core.posterior.shift_posterior import ShiftPosterior

    Array = NDArray[np.float64]

_BLOCK = 2_000_000  # numbers in a table of components, of which a block of perturbations needs 6


@dataclass(frozen=True)
class Effects:
    """Effects of perturbations on genes, all of shape ``(n_perturbations, n_nodes)``.

    Parameters
    ----------
    mean
        Expected effect: the mean of perturbed cells less that of controls, units of the data.
    sd
        Its standard deviation.
    lower, upper
        Ends of its interval.
    lfsr
        Local false sign rate: the probability that its sign is not that of most of its
        distribution (Stephens 2017). An effect of 0 has neither sign, and one that is too small
        for the cells to tell from 0 counts against both signs as far as that is so.
    direct
        What of it is direct: the expected shift of the gene itself on the main graph.
    share_from_cells
        Share of what the cells differ by from the expectation that is believed, 0 to 1.
    """

    mean: Array
    sd: Array
    lower: Array
    upper: Array
    lfsr: Array
    direct: Array
    share_from_cells: Array


@one_thread()
def perturbation_effects(
    posteriors: Sequence[DagBlr],
    prior: ShiftPrior | Sequence[ShiftPrior],
    *,
    weights: ArrayLike | None = None,
    level: float = 0.9,
    main: DagBlr | None = None,
) -> Effects:
    r"""Return the effects of perturbations, cells seen, and how sure they are.

    The effect is ``T (a + u)`` with ``T = (I - B)^-1``. To first order about the posterior mean,
    the equation of node ``i`` adds ``T_gi^2 sigma_i^2 ((d - w z)' M (d - w z) + tau^2/(1 + n
    tau^2))`` to its variance on gene ``g``: ``d`` the effect on the parents, ``z`` their means in
    cells (both less what was told as an effect, which no weight moves), ``w`` the share of the
    departure that is believed (weights and shifts are correlated).
    The distribution of an effect is a mixture over the prior variances of the gene's own shift,
    with what comes from other genes as a normal; over several graphs, each component has the mean
    and variance of all of them (law of total variance).

    Parameters
    ----------
    posteriors
        Posteriors over the weights of one graph or several, such as those of resamples.
    prior
        What is expected of the shifts, and the cells; the same for all graphs, or one for each.
        Rows without cells keep the expectation.
    weights
        What each posterior counts for, shape ``(n_posteriors,)``; by default all alike.
    level
        Probability inside ``lower`` to ``upper``.
    main
        Posterior on the graph that says what is direct, with the first prior; by default the first
        posterior.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, ScreenMoments
    >>> from nextpert.core.cells.pool_guides import pool_guides
    >>> from nextpert.core.effects.effects import perturbation_effects
    >>> from nextpert.core.effects.random_shifts import RandomShifts, fit_random_shifts
    >>> rng, group = np.random.default_rng(0), np.repeat([0, 1], [500, 50])
    >>> x = rng.normal(size=(550, 8)) + 2.0 * (group == 1)[:, None] * (np.arange(8) < 2)
    >>> cells = pool_guides(ScreenMoments.from_array(x, group, 2), [0, 1], 2)
    >>> fit = fit_random_shifts(DagBlr(Dag.from_edges(8, [])), cells, np.zeros((1, 8)))
    >>> found = perturbation_effects([fit.posterior], fit.prior)
    >>> (found.lfsr < 0.05).tolist()[0]
    [True, True, False, False, False, False, False, False]
    """
    priors = [prior] * len(posteriors) if isinstance(prior, ShiftPrior) else prior
    shares = np.ones(len(posteriors)) if weights is None else np.asarray(weights, np.float64)
    shape = (priors[0].n_perturbations, posteriors[0].n_nodes)
    main = posteriors[0] if main is None else main
    tables = {name: np.empty(shape) for name in Effects.__dataclass_fields__}
    members = [
        _Member(blr, _squares_of_total_effects(blr), each, share)
        for blr, each, share in zip(posteriors, priors, shares / shares.sum(), strict=True)
        if share > 0
    ]
    step = max(1, _BLOCK // (shape[1] * len(TAU2)))
    for first in range(0, shape[0], step):
        rows = np.arange(first, min(first + step, shape[0]))
        block = {name: table[first : first + step] for name, table in tables.items()}
        block["direct"][:] = priors[0].rows(rows).given(main).expected(main)
        _fill([each._replace(prior=each.prior.rows(rows)) for each in members], level, block)
    return Effects(**tables)


def fit_without_graph(
    cells: PooledGuides, shift: Array | None = None, own: Array | None = None
) -> RandomShifts:
    """Fit the same shrinkage where there is no graph, each gene by itself.

    Of the scatter only the diagonal is read, so ``np.broadcast_to(squares, (p, p))`` will do.

    Parameters
    ----------
    cells
        The controls, and then the perturbations.
    shift, own
        As in :func:`~nextpert.core.effects.random_shifts.fit_random_shifts`; by default no shift
        is expected of any.
    """
    expected = np.zeros_like(cells.mean[1:]) if shift is None else shift
    empty = DagBlr(Dag.from_edges(cells.mean.shape[1], []))
    return fit_random_shifts(empty, cells, expected, own=own)


def _squares_of_total_effects(posterior: DagBlr) -> Array | sp.csr_array:
    """Return the squares of ``(I - B)^-1``, column = child, without a gene's effect on itself."""
    if posterior.dag.n_edges == 0:
        return sp.csr_array((posterior.n_nodes, posterior.n_nodes))
    total = posterior.solve(np.eye(posterior.n_nodes))
    np.fill_diagonal(total, 0.0)
    return total.T**2


class _Member(NamedTuple):
    posterior: DagBlr
    squares: Array | sp.csr_array
    prior: ShiftPrior
    weight: float


def _fill(members: Sequence[_Member], level: float, out: dict[str, Array]) -> None:
    """Fill the effects of a block of perturbations."""
    shape = out["mean"].shape
    sums = np.zeros((3, *shape, len(TAU2)))
    chance, centre, spread = np.empty_like(sums)
    own_variance, sampling = np.empty(shape), np.zeros(shape)
    # The same cells for all members; a shift with a prior of its own is no part of the mixture.
    cells = members[0].prior.counted()
    in_mixture = np.isnan(members[0].prior.own) & (cells > 0)
    out["share_from_cells"][:] = 0.0
    for posterior, squares, prior, weight in members:
        known = prior.given(posterior)
        shifts = known.expected(posterior)
        out["share_from_cells"] += weight * known.share
        effect = np.ascontiguousarray(posterior.solve(np.ascontiguousarray(shifts.T)).T)
        _terms(posterior, prior, known, effect, (chance, centre, spread, own_variance))
        noise = np.sqrt(posterior.noise_var / np.where(in_mixture, cells, 1.0))
        sampling += np.where(in_mixture, weight * noise, 0.0)
        chance *= weight
        rest = np.ascontiguousarray(own_variance @ squares)
        kernels.add_mixture(chance, centre, spread, effect, rest, *sums)
    names = ("mean", "sd", "lower", "upper", "lfsr")
    q = (1.0 - level) / 2.0
    kernels.summarise(
        *sums, TAU2, cells, sampling, q, float(ndtri(q)), *(out[name] for name in names),
        np.empty((4, len(TAU2))),
    )  # fmt: skip


def _terms(
    posterior: DagBlr,
    prior: ShiftPrior,
    shifts: ShiftPosterior,
    effect: Array,
    out: tuple[Array, ...],
) -> None:
    """Fill ``out`` with the chances, centres, spreads and totals of the kernel ``own_terms``.

    ``effect`` are the expected effects, shape ``(n_perturbations, n_nodes)``, units of the data.
    """
    mean, shift, told = shifts.about_effect(posterior)
    dag, blocks, known = posterior.dag, posterior.blocks, posterior.known_noise_var
    precision = posterior.shape / posterior.rate if known is None else 1.0 / known
    kernels.own_terms(
        dag.indptr, dag.indices, posterior.vptr, posterior.mptr, blocks["weights"], blocks["cov"],
        posterior.noise_var, precision, TAU2, prior.weights, prior.own, prior.counted(),
        *map(np.ascontiguousarray, (mean, shift, effect - told)), *out,
        np.empty((2, posterior._layout.longest_row)),
    )  # fmt: skip
