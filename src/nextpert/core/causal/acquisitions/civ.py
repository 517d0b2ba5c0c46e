"""CIV, the causal integrated variance, and its output-weighted variant CIV-OW."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core._checks import as_nodes, as_vector, require_positive
from nextpert.core.causal.base import LookaheadAcquisition, project, reduction
from nextpert.core.causal.domains import Pool, Sphere
from nextpert.core.causal.registry import acquisition
from nextpert.core.screen.moments import Moments

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.base import CandidateStates
    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.causal.domains import Domain

    Vector = NDArray[np.float64]
    Index = NDArray[np.int64]


@acquisition("civ")
class Civ(LookaheadAcquisition):
    """Causal integrated variance: remaining variance of the optimality gap, averaged over shifts.

    CIV is the posterior variance of ``g(a) = |a + mean noise - (I - B) mu*|^2`` after ``n_cells``
    hypothetical cells, averaged over the shifts ``a`` in ``domain``: the sum over nodes of
    ``kappa_i s_i^2 + 4 s_i e_i E[(a_i - b_i)^2]``, where ``s_i = 1/n_cells + w_i``. The ideal shift
    ``(I - B) mu*`` has the posterior mean ``b`` and variances ``e_i w_i``; ``e_i`` and ``kappa_i``
    are from :meth:`DagBlr.spread`. Zhang et al. 2023 derive it for known noise variances and the
    unit sphere (eqs. 12 and 13). It needs exact shifts and a single target state; the criterion by
    draws for all others is ``"remaining_variance"``.

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The target state, shape ``(n_nodes,)``, units of the data.
    domain
        The set of possible interventions, over which the average is taken; by default the unit
        sphere, as in the paper.
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether to include the information in the scatter of the hypothetical cells (see
        :class:`LookaheadAcquisition`).

    Raises
    ------
    ValueError
        If the target has the wrong length, or the shape parameter of the noise variances after the
        hypothetical cells is at most 2.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Civ, Dag, DagBlr, Sphere
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> civ = Civ(blr, np.array([1.0, 0.0]))
    >>> Sphere(1.0).minimise(civ, rng=0).shift.round(3).tolist()
    [1.0, 0.0]
    """

    in_words = "the information expected from their cells (causal integrated variance)"

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        domain: Domain | None = None,
        n_cells: float = 1,
        noise_aware: bool = False,
    ) -> None:
        self.domain = Sphere(1.0) if domain is None else domain
        super().__init__(posterior, target_mean, n_cells=n_cells, noise_aware=noise_aware)

    def mean_square(self) -> Vector:
        """Return ``E(a_i - b_i)^2`` over the domain, shape ``(n_nodes,)``."""
        # (a_i - a*_i)^2 of equation 4, averaged over the domain.
        return self.domain.mean_square(self.ideal_shift)

    def coefficients(self) -> tuple[Vector, Vector]:
        """Return ``kappa`` and ``4 e E(a - b)^2``, both 0 where a shift holds the node."""
        return self._factors(*self.spread_ahead())

    def _factors(self, e: Vector, kappa: Vector) -> tuple[Vector, Vector]:
        return kappa * self.domain.free(self.n_nodes), 4 * e * self.mean_square()

    def values(self, shifts: ArrayLike, do: NDArray[np.bool_] | None = None) -> Vector:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``.

        Where ``do`` is true, the cells' node is held at its entry of ``shifts``: its regression
        learns nothing from them, neither weights nor noise variance.
        """
        if do is None:
            return super().values(shifts)
        if self.noise_aware:
            message = "Hard interventions have no noise-aware look-ahead: use noise_aware=False."
            raise ValueError(message)
        s = 1 / self.n_cells + self.left(self._pool(shifts), do)
        ahead = self.problem.quad, self.problem.lin
        current = self._factors(*self.posterior.spread()) if do.any() else ahead
        quad, lin = (
            np.where(do.T, intervened[:, None], free[:, None])
            for intervened, free in zip(current, ahead, strict=True)
        )
        return np.asarray((quad * s**2 + lin * s).sum(axis=0))

    @classmethod
    def _require_exact(cls, candidates: CandidateStates) -> None:
        super()._require_exact(candidates)
        if not candidates.goal.is_plain:
            message = (
                f"Acquisition {cls.name!r} has a closed form for a single target state only: for "
                f"signatures, bounds, several states or other distances choose "
                f"'remaining_variance', which is computed from draws."
            )
            raise ValueError(message)

    @classmethod
    def _over_graphs(
        cls, candidates: CandidateStates, graphs: Sequence[DagBlr], *, noise_aware: bool
    ) -> tuple[Vector, Vector]:
        """Return the values over equally weighted graphs, and the reductions within graphs.

        A value is the mean over graphs plus the variance between graphs of the expected gaps.
        """
        pool = Pool(candidates.shifts)
        parts: list[Any] = [
            cls.build(
                blr,
                candidates.target_mean,
                domain=pool,
                n_cells=candidates.n_cells,
                noise_aware=noise_aware,
            )
            for blr in graphs
        ]
        remaining = np.mean([part.excess(pool.shifts) for part in parts], axis=0)
        before = float(np.mean([part.current() - part.floor for part in parts]))
        # The expected gap of j after cells of l is moved[l] + gaps[j].
        e = [part.spread_ahead()[0] for part in parts]
        moved = np.array([e_k @ part.left(pool.shifts) for e_k, part in zip(e, parts, strict=True)])
        level = [e_k.sum() / candidates.n_cells for e_k in e]
        gaps = [((pool.shifts - part.ideal_shift) ** 2).sum(axis=1) for part in parts]
        gaps = np.array(gaps) + np.array(level)[:, None]
        # Var over graphs of moved + gaps: both variances, and twice their covariance.
        mean = gaps.mean(axis=1)
        between = moved.var(axis=0) + gaps.var(axis=0).mean()
        between += 2.0 * (mean - mean.mean()) @ (moved - moved.mean(axis=0)) / len(parts)
        values = np.mean([part.floor for part in parts]) + remaining + between
        return values, reduction(before, remaining)

    @classmethod
    def plate(cls, candidates: CandidateStates, allowed: Index, size: int) -> Index:
        """Return the best candidates in ``allowed``, given the cells of those chosen before."""
        cls._require_exact(candidates)
        # Greedy: each candidate is scored after the hypothetical cells of those already chosen.
        chosen: list[int] = []
        graphs = list(candidates.graphs)
        for _ in range(min(size, len(allowed))):
            values, _ = cls._over_graphs(candidates, graphs, noise_aware=candidates.noise_aware)
            remaining = allowed[~np.isin(allowed, chosen)]
            chosen.append(int(remaining[values[remaining].argmin()]))
            graphs = [_after(blr, candidates, chosen[-1]) for blr in graphs]
        return np.array(chosen, np.int64)


def _after(blr: DagBlr, candidates: CandidateStates, k: int) -> DagBlr:
    """Return the posterior after hypothetical cells of a candidate with their expected moments."""
    # n cells at their expected mean and, if noise_aware, with their expected scatter.
    n = round(candidates.n_cells)
    shift = candidates.shifts[k]
    reached = blr.solve(np.eye(blr.n_nodes))
    scatter = n * (reached * blr.noise_var) @ reached.T if candidates.noise_aware else 0.0 * reached
    return blr.update(Moments(n, blr.predict_mean(shift[None])[0], scatter), shift)


@acquisition("civ_ow")
class CivOw(Civ):
    """Output-weighted CIV, which gives more weight to shifts with rare outcomes.

    It differs from :class:`Civ` only in the average over shifts, which uses the paper's output
    weights (Zhang et al. 2023, eq. 8). On a sphere of radius R, ``t = a'b/|b|`` is then uniform on
    ``[-R, R]`` and, with ``bhat = b/|b|``,
    ``E(a_i - b_i)^2 = b_i^2 + R^2 (tau bhat_i^2 + (1 - tau)(1 - bhat_i^2)/(p - 1))``, tau = 1/3.
    On a finite pool, the weights make the gap ``|a - b|^2`` uniform over its range.

    Parameters
    ----------
    posterior, target_mean, n_cells, noise_aware
        As for :class:`Civ`.
    domain
        A sphere (by default the unit sphere) or a pool.

    Raises
    ------
    ValueError
        As for :class:`Civ`.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import CivOw, Dag, DagBlr
    >>> blr = DagBlr(Dag.from_edges(4, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> CivOw(blr, np.array([1.0, 0, 0, 0])).mean_square().round(3).tolist()
    [1.333, 0.222, 0.222, 0.222]
    """

    in_words = (
        "the information expected from their cells (output-weighted causal integrated variance)"
    )

    def mean_square(self) -> Vector:
        """Return ``E(a_i - b_i)^2`` under the output weights, shape ``(n_nodes,)``."""
        if (self.domain.free(self.n_nodes) < 1).any():
            message = "CIV-OW has no output weights for hard interventions: use 'civ'."
            raise ValueError(message)
        return self.domain.output_weighted_square(self.ideal_shift)


def gap_variance(
    posterior: DagBlr,
    shift: ArrayLike,
    target_mean: ArrayLike,
    *,
    n_cells: float = 1,
    do: Iterable[int] = (),
) -> float:
    """Return the variance of the optimality gap of a shift (equation 4).

    The gap is ``g(a) = |a + mean of n noise vectors - (I - B) mu*|^2``; its variance is
    ``sum_i kappa_i s_i^2 + 4 s_i e_i (a_i - b_i)^2`` with ``s_i = 1/n + w_i``
    (Zhang et al. 2023, eq. 12, for known noise variances).

    Parameters
    ----------
    posterior
        The posterior over the weights.
    shift
        The shift, shape ``(n_nodes,)``, units of the data.
    target_mean
        The target state, shape ``(n_nodes,)``, units of the data.
    n_cells
        Number of cells whose mean is compared with the target.
    do
        Nodes that the intervention holds at their entries of ``shift``. The gap of a held node is
        ``(a_i - mu*_i)^2``, which has no variance.

    Returns
    -------
    float
        The variance, in the fourth power of the units of the data.

    Raises
    ------
    ValueError
        If ``shift`` or ``target_mean`` has the wrong length, or the variance is infinite because
        the shape parameter of the noise variances is at most 2.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import Dag, DagBlr, gap_variance
    >>> blr = DagBlr(Dag.from_edges(2, [(0, 1)]), noise_var=1.0, intercept=False, prior_scale=1.0)
    >>> gap_variance(blr, [1.0, 0.0], [1.0, 0.0])
    10.0
    """
    posterior = posterior.without_fixed()
    target = as_vector(target_mean, posterior.n_nodes, "target_mean")
    offset = as_vector(shift, posterior.n_nodes, "shift") - posterior.ideal_shift(target)
    # Equations 4 and 5.
    s = 1 / require_positive(n_cells, "n_cells") + project(posterior, target)[1]
    e, kappa = posterior.spread()
    terms = kappa * s**2 + 4 * e * offset**2 * s
    terms[as_nodes(do, posterior.n_nodes, "do")] = 0.0
    return float(terms.sum())
