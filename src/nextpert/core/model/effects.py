"""Effects of perturbations from graph and cells, with intervals and signs; efficacy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.special import ndtri

from nextpert.core._blas import one_thread
from nextpert.core.graph.dag import Dag
from nextpert.core.model import _mixture as kernels
from nextpert.core.model.dag_blr import DagBlr
from nextpert.core.model.random_shifts import RandomShifts, fit_random_shifts
from nextpert.core.model.shift_prior import TAU2, ShiftPrior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

# Weak priors: mean and sd of the screen's mean efficacy, and scale of the half-normal of the
# spread. Of the messenger, knockouts took .38 off in THP-1 (spread .25) and .14 in a shallow screen
# (.14), CRISPRi .65 in K562 (.31); activation may double a gene or raise it many times.
_PRIOR = {-1: (0.5, 0.3, 0.3), 1: (1.0, 1.0, 1.0)}
_LIMIT = 3.0  # standard deviations of the prior that a single change may speak with
_SPREADS = 512  # points of the quadrature over the spread, up to 5 scales of its prior
# Below this share of its standard deviation a control mean says nothing of a knockout's size: it
# cannot be distinguished from 0 with the hundred or so cells of one perturbation.
_ABOUT_NOTHING = 0.1


@dataclass(frozen=True)
class Efficacy:
    """Efficacy of a screen's perturbations on their target genes (equation 10).

    A perturbation changes its own gene by ``direction * rho_j * mu``, ``mu`` the control mean,
    and ``rho_j`` is normal across the screen.

    Parameters
    ----------
    mean
        Mean of ``rho_j`` across the screen, no unit: 1 is a full knockout.
    spread
        Standard deviation of ``rho_j`` across the screen (root mean square of its posterior).
    sd
        Standard deviation of the efficacy of a perturbation that was not measured: the spread,
        and what is not known of the mean and the spread.
    n_measured
        Number of changes it was learned from; 0 leaves the prior.
    direction
        -1 for knockouts and knockdowns, 1 for activation.
    posterior_mean, posterior_sd
        Of ``rho_j`` of every perturbation, its own change seen, shape ``(n_perturbations,)``.
    """

    mean: float
    spread: float
    sd: float
    n_measured: int
    direction: int
    posterior_mean: Array
    posterior_sd: Array

    def expected_change(self, control_mean: ArrayLike) -> tuple[Array, Array]:
        """Return mean and standard deviation of own changes that were not measured.

        ``control_mean`` of the own genes, any shape, in the units of the result.
        """
        mu = np.asarray(control_mean, np.float64)
        return self.direction * self.mean * mu, self.sd * np.abs(mu)


def learn_efficacy(
    control_mean: ArrayLike,
    target_gene_change: ArrayLike,
    target_gene_se: ArrayLike,
    *,
    direction: int = -1,
) -> Efficacy:
    """Learn the efficacy of a screen from the changes of perturbed genes.

    The change of gene ``k`` under its perturbation ``j`` is ``direction * rho_j * mu_k`` and an
    error of known size, with ``rho_j ~ N(rho, s^2)``. Weak priors speak where few changes are
    measured: ``rho ~ N(.5, .3^2)`` and ``s`` half-normal with scale .3 for knockouts (1, 1 and 1
    for activation). Given ``s`` everything is normal; ``s`` is summed out by quadrature.

    A gene that is hardly there in the controls tells nothing of ``rho``, whatever its change. A
    change beyond three standard deviations of the prior counts as measured worse by the excess,
    so that no single one (a gene that rises when it is knocked out) sets the efficacy.

    Parameters
    ----------
    control_mean
        Control mean ``mu`` of the own gene of every perturbation, shape ``(n_perturbations,)``,
        units of the data. For activation it may be any scale in which ``rho`` is alike.
    target_gene_change
        Measured change of that gene (perturbed less control), same shape and units; NaN where
        there are no cells.
    target_gene_se
        Its standard error, same shape and units.
    direction
        -1 for knockouts and knockdowns, 1 for activation.

    Examples
    --------
    >>> from nextpert.core.model.effects import learn_efficacy
    >>> found = learn_efficacy([2.0, 1.0, 3.0], [-1.6, -0.8, -2.5], [0.1, 0.1, 0.1])
    >>> round(found.mean, 1), found.n_measured
    (0.8, 3)
    >>> round(learn_efficacy([2.0], [float("nan")], [1.0]).mean, 1)
    0.5
    """
    x = direction * np.asarray(control_mean, np.float64)
    y, error = np.asarray(target_gene_change, np.float64), np.asarray(target_gene_se, np.float64)
    seen = np.isfinite(y)
    rho0, sd0, scale = _PRIOR[direction]
    variance = np.where(seen, error, 1.0) ** 2
    away = np.abs(np.where(seen, y - x * rho0, 0.0))
    excess = away - _LIMIT * np.sqrt(x**2 * (sd0**2 + scale**2) + variance)
    variance += np.maximum(excess, 0.0) ** 2
    x = np.where(seen, x, 0.0)
    y = np.where(seen, y, 0.0)

    # Midpoints: at a spread of 0 and exact changes the density has no limit.
    s = (np.arange(_SPREADS)[:, None] + 0.5) * 5 * scale / _SPREADS  # (n_spreads, 1)
    total = np.maximum(x**2 * s**2 + variance, np.finfo(np.float64).tiny)
    precision = 1 / sd0**2 + (x**2 / total).sum(axis=1)
    rho = (rho0 / sd0**2 + (x * y / total).sum(axis=1)) / precision
    quad = ((y - x * rho0) ** 2 / total).sum(axis=1) - precision * (rho - rho0) ** 2
    log = -0.5 * (np.log(total).sum(axis=1) + np.log(precision) + quad + (s[:, 0] / scale) ** 2)
    weight = np.exp(log - log.max())
    weight /= weight.sum()

    mean = float(weight @ rho)
    spread2 = float(weight @ s[:, 0] ** 2)
    new = weight @ (s[:, 0] ** 2 + 1 / precision + (rho - mean) ** 2)
    # rho_j given s and rho has the mean (1 - k x) rho + k y: of its spread, that of rho joins in.
    k = x * s**2 / total  # (n_spreads, n_perturbations)
    each = (1 - k * x) * rho[:, None] + k * y
    within = s**2 * (1 - k * x) + (1 - k * x) ** 2 / precision[:, None]
    posterior = weight @ each
    posterior_var = weight @ (within + (each - posterior) ** 2)
    return Efficacy(
        mean, float(np.sqrt(spread2)), float(np.sqrt(new)), int(seen.sum()), direction,
        posterior, np.sqrt(posterior_var),
    )  # fmt: skip


def screen_efficacy(
    cells: PooledGuides,
    rows: Index,
    genes: Index,
    full: Array,
    speaks: NDArray[np.bool_],
    *,
    direction: int,
) -> Efficacy:
    """Learn the efficacy of a screen from the cells of its perturbations.

    Parameters
    ----------
    cells
        The controls, and then the perturbations of the screen.
    rows, genes
        Perturbation and own gene of every pair of them, shape ``(n_pairs,)``; ``rows`` count from
        the first perturbation.
    full
        Size of a full knockout or activation of the own gene, same shape, units of the data.
    speaks
        Whether the own gene says anything of the efficacy (see :func:`speaks_of_knockouts`), same
        shape.
    direction
        -1 for knockouts and knockdowns, 1 for activation.
    """
    n_groups = int((cells.n_cells > 0).sum())
    within = cells.scatter.diagonal() / max(int(cells.n_cells.sum()) - n_groups, 1)
    change, error = (table[rows, genes] for table in cells.to_controls())
    seen = speaks & (cells.n_cells[1:][rows] > 0)
    return learn_efficacy(
        full, np.where(seen, change, np.nan), np.sqrt(within[genes] * error), direction=direction
    )


def speaks_of_knockouts(control_mean: Array, control_sd: Array) -> NDArray[np.bool_]:
    """Return which genes are there enough in the controls for a knockout to show.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.model.effects import speaks_of_knockouts
    >>> speaks_of_knockouts(np.array([2.0, 0.01]), np.array([0.5, 0.3])).tolist()
    [True, False]
    """
    return control_mean > _ABOUT_NOTHING * control_sd


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
    data_weight
        Share of what the cells differ by from the expectation that is believed, 0 to 1.
    """

    mean: Array
    sd: Array
    lower: Array
    upper: Array
    lfsr: Array
    direct: Array
    data_weight: Array


@one_thread()
def estimate_effects(
    posteriors: Sequence[DagBlr],
    prior: ShiftPrior | Sequence[ShiftPrior],
    *,
    weights: ArrayLike | None = None,
    level: float = 0.9,
    main: DagBlr | None = None,
) -> Effects:
    r"""Return the effects of perturbations given their cells, and their uncertainty.

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
    >>> from nextpert.core.screen.guides import pool_guides
    >>> from nextpert.core.model.effects import estimate_effects
    >>> from nextpert.core.model.random_shifts import RandomShifts, fit_random_shifts
    >>> rng, group = np.random.default_rng(0), np.repeat([0, 1], [500, 50])
    >>> x = rng.normal(size=(550, 8)) + 2.0 * (group == 1)[:, None] * (np.arange(8) < 2)
    >>> cells = pool_guides(ScreenMoments.from_array(x, group, 2), [0, 1], 2)
    >>> fit = fit_random_shifts(DagBlr(Dag.from_edges(8, [])), cells, np.zeros((1, 8)))
    >>> found = estimate_effects([fit.posterior], fit.prior)
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
        As in :func:`~nextpert.core.model.random_shifts.fit_random_shifts`; by default no shift
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
    out["data_weight"][:] = 0.0
    for posterior, squares, prior, weight in members:
        known = prior.given(posterior)
        shifts = known.expected(posterior)
        out["data_weight"] += weight * known.share
        effect = np.ascontiguousarray(posterior.solve(np.ascontiguousarray(shifts.T)).T)
        mean, shift, told = known.about_effect(posterior)
        kernels.own_terms(
            *posterior.place, posterior.blocks["weights"], posterior.blocks["cov"],
            posterior.noise_var, posterior.noise_precision, TAU2, prior.weights, prior.own, cells,
            *map(np.ascontiguousarray, (mean, shift, effect - told)),
            chance, centre, spread, own_variance, np.empty((2, posterior._layout.longest_row)),
        )  # fmt: skip
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
