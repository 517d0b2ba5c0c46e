"""Efficacy of perturbations on their target genes, and effects of known shifts on a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._blas import one_thread
from nextpert.core._checks import as_rng
from nextpert.core._codec import array
from nextpert.core.causal.weights import mean_draws

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.screen.guides import PooledGuides

    Array = NDArray[np.float64]
    Index = NDArray[np.int64]

# Weak priors: mean and SD of the screen's mean efficacy, and scale of the half-normal prior of the
# spread. Knockouts reduced messenger RNA by 0.38 in THP-1 (spread 0.25) and 0.14 in a shallow
# screen (0.14), CRISPRi by 0.65 in K562 (0.31); activation may double expression or raise it many
# times.
_PRIOR = {-1: (0.5, 0.3, 0.3), 1: (1.0, 1.0, 1.0)}
_LIMIT = 3.0  # prior standard deviations beyond which a single change has a larger error
_SPREADS = 512  # points of the quadrature over the spread, up to 5 scales of its prior
# Control means below this share of the standard deviation are uninformative about a knockout: they
# cannot be distinguished from 0 with the hundred or so cells of one perturbation.
_ABOUT_NOTHING = 0.1


@dataclass(frozen=True)
class Efficacy:
    """Efficacy of a screen's perturbations on their target genes (equation 10).

    A perturbation changes its target gene by ``direction * rho_j * mu``, where ``mu`` is the
    control mean (1 for activation), and ``rho_j`` is normally distributed in the screen.

    Parameters
    ----------
    mean
        Mean change of the target gene, divided by that of a full knockout or activation.
    sd
        Standard deviation for a new perturbation, including uncertainty about the mean.
    spread
        Standard deviation between the perturbations of the screen.
    n_measured
        Number of changes of target genes from which it was learned; with 0, it equals the prior.
    """

    mean: float = array()
    sd: float = array()
    spread: float = array()
    n_measured: int = array(dtype=np.int64)


def learn_efficacy(
    control_mean: ArrayLike,
    target_gene_change: ArrayLike,
    target_gene_se: ArrayLike,
    *,
    direction: int = -1,
) -> Efficacy:
    """Learn the efficacy of a screen from the changes of perturbed genes.

    The change of gene ``k`` under its perturbation ``j`` is ``direction * rho_j * mu_k`` plus an
    error of known size, with ``rho_j ~ N(rho, s^2)``. The priors are weak: ``rho ~ N(0.5, 0.3^2)``,
    and ``s`` is half-normal with scale 0.3 for knockouts (1, 1 and 1 for activation). Given ``s``
    all variables are normal; ``s`` is integrated out by quadrature. The error of a change beyond
    three standard deviations of the prior is increased by the excess, so that no single change
    determines the efficacy.

    ``control_mean`` is ``mu`` of the target gene of every perturbation, ``target_gene_change`` its
    measured change (NaN without cells) and ``target_gene_se`` its standard error, each of shape
    ``(n_perturbations,)``; ``direction`` is -1 for knockouts and knockdowns, 1 for activation.
    """
    # y_j = x_j rho_j + error, x_j the size of a full knockout (equation 10).
    x = direction * np.asarray(control_mean, np.float64)
    y, error = np.asarray(target_gene_change, np.float64), np.asarray(target_gene_se, np.float64)
    measured = np.isfinite(y)
    rho0, sd0, scale = _PRIOR[direction]
    variance = np.where(measured, error, 1.0) ** 2
    departure = np.abs(np.where(measured, y - x * rho0, 0.0))
    excess = departure - _LIMIT * np.sqrt(x**2 * (sd0**2 + scale**2) + variance)
    variance += np.maximum(excess, 0.0) ** 2
    x = np.where(measured, x, 0.0)
    y = np.where(measured, y, 0.0)

    # Midpoints of the spread s: at a spread of 0 and exact changes the density has no limit.
    s = (np.arange(_SPREADS)[:, None] + 0.5) * 5 * scale / _SPREADS  # (n_spreads, 1)
    # Given s, y_j ~ N(x_j rho, x_j^2 s^2 + variance_j): a regression on x with the prior of rho.
    total = np.maximum(x**2 * s**2 + variance, np.finfo(np.float64).tiny)
    precision = 1 / sd0**2 + (x**2 / total).sum(axis=1)
    rho = (rho0 / sd0**2 + (x * y / total).sum(axis=1)) / precision
    # The evidence of s, with rho integrated out, times its half-normal prior.
    quad = ((y - x * rho0) ** 2 / total).sum(axis=1) - precision * (rho - rho0) ** 2
    log = -0.5 * (np.log(total).sum(axis=1) + np.log(precision) + quad + (s[:, 0] / scale) ** 2)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = float(weight @ rho)
    # A new perturbation: its spread, and the uncertainty of rho.
    new = weight @ (s[:, 0] ** 2 + 1 / precision + (rho - mean) ** 2)
    spread = np.sqrt(float(weight @ s[:, 0] ** 2))
    return Efficacy(mean, float(np.sqrt(new)), float(spread), int(measured.sum()))


def screen_efficacy(
    cells: PooledGuides,
    rows: Index,
    genes: Index,
    full: Array,
    speaks: NDArray[np.bool_],
    *,
    direction: int,
) -> Efficacy:
    """Learn the efficacy of a screen from the cells of its controls (first) and perturbations.

    ``rows`` and ``genes`` are all pairs of a perturbation and a target gene, ``full`` the size of a
    full knockout or activation of the gene, and ``speaks`` whether the expression of the gene is
    informative (:func:`speaks_of_knockouts`), each of shape ``(n_pairs,)``.
    """
    # Standard error of a change: from the variance within perturbations, and effective cells.
    n_groups = int((cells.n_cells > 0).sum())
    within = cells.scatter.diagonal() / max(int(cells.n_cells.sum()) - n_groups, 1)
    change, error = (table[rows, genes] for table in cells.to_controls())
    measured = speaks & (cells.n_cells[1:][rows] > 0)
    return learn_efficacy(
        full,
        np.where(measured, change, np.nan),
        np.sqrt(within[genes] * error),
        direction=direction,
    )


def speaks_of_knockouts(control_mean: Array, control_sd: Array) -> NDArray[np.bool_]:
    """Return which genes are expressed enough in the controls for a knockout to be detectable."""
    return control_mean > _ABOUT_NOTHING * control_sd


_ROOM = 4_000_000  # maximum numbers of draws kept in memory


@dataclass(frozen=True)
class Effects:
    """Effects of perturbations on genes, all of shape ``(n_perturbations, n_nodes)``.

    Parameters
    ----------
    mean
        Expected effect: the mean of perturbed cells minus that of controls, units of the data.
    sd
        Its standard deviation.
    lower, upper
        Ends of its interval.
    lfsr
        Local false sign rate: the probability that the effect does not have the more probable sign
        (Stephens 2017). An effect of 0 has neither sign.
    direct
        The direct part of the effect: the expected shift of the gene itself on the main graph.
    data_weight
        Weight of the cells in the effect, 0 to 1; 0 for exact shifts.
    """

    mean: Array
    sd: Array
    lower: Array
    upper: Array
    lfsr: Array
    direct: Array
    data_weight: Array


@one_thread()
def exact_effects(
    posteriors: Sequence[DagBlr],
    shifts: ArrayLike,
    *,
    level: float = 0.9,
    n_samples: int = 400,
    rng: int | np.random.Generator | None = 0,
) -> Effects:
    """Return the effects of known shifts on a graph, ``(I - B)^-1 a``, from draws of ``B``.

    This is the model of Zhang et al. 2023: the shifts are assumed exact, so that only the weights
    are uncertain, and the cells of a perturbation do not change its effects further. Several
    ``posteriors``, such as those on bootstrap graphs, have equal weights; ``shifts`` have the shape
    ``(n_perturbations, n_nodes)``.
    """
    # The mean is exact, E[(I - B)^-1] a per graph; the other quantities come from draws of B.
    known_shifts = np.atleast_2d(np.asarray(shifts, np.float64))
    shift_columns = np.ascontiguousarray(known_shifts.T)
    mean = np.mean([blr.solve(shift_columns).T for blr in posteriors], axis=0)
    sd, lower, upper, lfsr = np.empty((4, *known_shifts.shape))
    # The same weights are drawn for every block.
    seed = int(as_rng(rng).integers(2**63))
    q = (1.0 - level) / 2.0
    size = max(_ROOM // (n_samples * known_shifts.shape[1]), 1)
    for first in range(0, len(known_shifts), size):
        rows = slice(first, first + size)
        # The last row of each draw holds the controls.
        drawn = mean_draws(posteriors, known_shifts[rows], n_samples=n_samples, rng=seed)
        draws = np.array([states[:-1] - states[-1] for states in drawn])
        sd[rows] = draws.std(axis=0)
        lower[rows], upper[rows] = np.quantile(draws, (q, 1.0 - q), axis=0)
        # Rounding errors about 0 have no sign.
        nil = 1e-9 * np.abs(known_shifts).max(initial=0.0)
        lfsr[rows] = np.minimum((draws <= nil).mean(axis=0), (draws >= -nil).mean(axis=0))
    return Effects(mean, sd, lower, upper, lfsr, known_shifts.copy(), np.zeros_like(known_shifts))
