"""Base classes of acquisitions: a value, a gradient, and values over a pool; lower is better."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from nextpert.core._blas import one_thread
from nextpert.core._checks import (
    as_numbers,
    as_rng,
    as_vector,
    require_count,
    require_finite,
    require_positive,
)
from nextpert.core.causal import _lookahead as lookahead
from nextpert.core.causal._lookahead import adjoint_by_draws, reach_by_draws
from nextpert.core.causal._shared_factor import factor_of
from nextpert.core.causal.domains import Pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.causal.domains import Domain

    Vector = NDArray[np.float64]

_STRIP = 128  # shifts of a pool per block: the states that they reach fit in the cache


class Ranked(NamedTuple):
    """Values of an acquisition for all candidates.

    Parameters
    ----------
    values
        Value of each candidate, shape ``(n_perturbations,)``; lower is better.
    variance_reduction
        Fraction of the uncertainty that cells of each candidate are expected to resolve, same
        shape; ``None`` for an acquisition without look-ahead.
    """

    values: Vector
    variance_reduction: Vector | None = None


# ``nextpert.core.Candidates``, candidates and target, which a higher layer defines.
CandidateStates: TypeAlias = Any


class Acquisition:
    """Base class: how useful it is to test a shift next. Lower values are better.

    A registered subclass (``nextpert.core.causal.registry``) has two uses: :meth:`build` returns a
    function to minimise over a domain of exact shifts, and :meth:`of_candidates` ranks candidates,
    whose shifts may be uncertain.
    """

    name = ""
    n_nodes: int
    ideal_shift: Vector  # its current estimate, if the acquisition has a target
    on_domain = True  # whether it has a value at every shift, and can be minimised over a domain
    exact_only = True  # whether it cannot rank candidates whose shifts are uncertain
    in_words = ""  # what candidates are ranked by, for reports; its name if empty

    def __init__(self, posterior: DagBlr, target_mean: ArrayLike, *, n_cells: float = 1) -> None:
        self.posterior = posterior.without_fixed()
        self.n_nodes = posterior.n_nodes
        self.target_mean = as_vector(target_mean, self.n_nodes, "target_mean")
        self.n_cells = require_positive(n_cells, "n_cells")
        self.ideal_shift = self.posterior.ideal_shift(self.target_mean)

    @classmethod
    def build(cls, posterior: DagBlr, target_mean: ArrayLike, **options: Any) -> Acquisition:
        """Return the acquisition for a posterior; the class uses those options that it accepts."""
        kind: Any = cls
        # Each class accepts what it needs: greedy no domain, a mean over draws a generator.
        accepted = signature(cls).parameters
        return kind(posterior, target_mean, **{k: options[k] for k in options if k in accepted})

    @classmethod
    def of_candidates(cls, candidates: CandidateStates) -> Ranked:
        """Return the acquisition for every candidate; here at exact shifts and for one graph.

        Raises
        ------
        ValueError
            If shifts are uncertain and the acquisition needs exact ones.
        """
        cls._require_exact(candidates)
        of_main = cls.build(
            candidates.main, candidates.target_mean, n_cells=candidates.n_cells, rng=candidates.rng
        )
        return Ranked(of_main.values(candidates.shifts))

    @classmethod
    def _require_exact(cls, candidates: CandidateStates) -> None:
        if cls.exact_only and not candidates.exact:
            message = (
                f"Acquisition {cls.name!r} needs exact shifts: fit with "
                f"tl.fit_dag_blr(shift_sd=0), use nextpert.core, or choose 'remaining_variance' "
                f"(to reduce uncertainty), 'probability', 'ei', 'thompson', 'greedy' or 'random'."
            )
            raise ValueError(message)

    @classmethod
    def plate(
        cls, candidates: CandidateStates, allowed: NDArray[np.int64], size: int
    ) -> NDArray[np.int64]:
        """Return the indices of the best ``size`` candidates among those in ``allowed``."""
        values = cls.of_candidates(candidates).values
        return allowed[np.argsort(values[allowed], kind="stable")[:size]]

    def value(self, shift: ArrayLike) -> float:
        """Return the acquisition at one shift, shape ``(n_nodes,)``."""
        return self.value_and_grad(shift)[0]

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        raise NotImplementedError

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``."""
        raise NotImplementedError

    def closed_form(self, domain: Domain) -> Vector | None:
        """Return the best shift of ``domain`` if there is a closed form for it, else ``None``."""
        return None

    def starts(self) -> list[Vector]:
        """Return the current estimate of the ideal shift, one of the paper's two starts."""
        return [self.ideal_shift] if hasattr(self, "ideal_shift") else []

    @property
    def floor(self) -> float:
        """The part of the acquisition that does not depend on the shift."""
        return 0.0

    def _pool(self, shifts: ArrayLike) -> NDArray[np.float64]:
        matrix = as_numbers(shifts, "The pool", copy=False)
        if matrix.ndim != 2 or matrix.shape[1] != self.n_nodes:
            message = (
                f"A pool must have the shape (n_shifts, {self.n_nodes}), but has {matrix.shape}."
            )
            raise ValueError(message)
        require_finite(matrix, "The pool")
        return matrix


class LookaheadAcquisition(Acquisition):
    """An acquisition evaluated on the posterior after ``n_cells`` hypothetical cells.

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The target mean, shape ``(n_nodes,)``, units of the data.
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        Whether to include the information in the scatter of the hypothetical cells. The paper's
        look-ahead (``False``, default) sets all cells to their mean; use ``True`` to report the
        variance that is expected to remain.
    """

    is_sum = True  # a sum of ``a s^2 + b s`` over nodes, which the compiled search minimises

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        n_cells: float = 1,
        noise_aware: bool = False,
    ) -> None:
        super().__init__(posterior, target_mean, n_cells=n_cells)
        self.noise_aware = bool(noise_aware)
        posterior = self.posterior
        dag = posterior.dag
        self._settled = None
        if self.noise_aware:
            self.w_now = project(posterior, self.target_mean)[1]
            self._settled = settle_by_noise(posterior, self.n_cells)
        root, root_q = self._shared_root()
        # q' M q of every node; neither M q nor M itself is needed.
        if len(root):
            cov, u, w0 = np.zeros(0), np.zeros(0), np.zeros(self.n_nodes)
            w0[dag.order[1 - int(posterior.intercept) :]] = np.cumsum(root_q**2)
        else:
            cov = self.cov
            u, w0 = project(posterior, self.target_mean, cov)
        if not self.noise_aware:
            self.w_now = w0
        # The coefficients use the noise variances after these cells.
        quad, lin = self.coefficients()
        self.problem = lookahead.Problem(
            1.0 / self.n_cells,
            int(posterior.intercept),
            dag.indptr,
            dag.indices,
            dag.order,
            posterior.vptr,
            posterior.mptr,
            posterior.estimates["weights"],
            cov,
            np.ascontiguousarray(posterior.intercept_mean),
            u,
            w0,
            quad,
            lin,
            root,
            root_q,
        )

    @property
    def cov(self) -> Vector:
        """M of every node, laid out as the posterior's; ``noise_aware``, after the scatter."""
        return self.posterior.blocks["cov"] if self._settled is None else self._settled

    def _shared_root(self) -> tuple[NDArray[np.float64], Vector]:
        """Return ``L^-1``, ``L^-1 q`` if all nodes' precisions are blocks of one matrix, ``L L'``.

        Otherwise both results are empty.
        """
        posterior, order = self.posterior, self.posterior.dag.order
        if self._settled is None:
            factor = posterior.shared_factor()
        else:
            factor = factor_of(posterior, self._settled, posterior.estimates["precision"])
        if factor is None:
            return np.zeros((0, 0)), np.zeros(0)
        q = np.append(np.ones(int(posterior.intercept)), self.target_mean[order[:-1]])
        return factor.root, factor.root @ q

    def coefficients(self) -> tuple[Vector, Vector]:
        """Return the coefficients ``(quadratic, linear)`` of ``s_i = 1/n + w_i``."""
        raise NotImplementedError

    def spread_ahead(self) -> tuple[Vector, Vector]:
        """Return ``e`` and ``kappa`` of every node after the hypothetical cells.

        They are the expected noise variance and the factor of ``s^2`` in CIV, each of shape
        ``(n_nodes,)``; :meth:`~nextpert.core.DagBlr.spread` defines them.
        """
        return self.posterior.spread(self.n_cells, expected=self.noise_aware)

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        grad = np.empty(self.n_nodes)
        vector = as_vector(shift, self.n_nodes, "shift")
        return self.floor + float(lookahead.evaluate(self.problem, vector, grad)), grad

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``."""
        return self.floor + self.excess(self._pool(shifts))

    def excess(self, shifts: NDArray[np.float64]) -> Vector:
        """Return the part of the acquisition due to uncertain weights, ``values - floor``."""
        out = np.empty(len(shifts))
        for begin in range(0, len(shifts), _STRIP):
            strip = slice(begin, begin + _STRIP)
            out[strip] = self._excess(shifts[strip])
        return out

    def _excess(self, shifts: NDArray[np.float64]) -> Vector:
        return np.asarray(self._combine(self.left(shifts)))

    def left(
        self, shifts: NDArray[np.float64], do: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float64]:
        """Return ``w_i`` after the cells of each shift (equation 6), ``(n_nodes, n_shifts)``.

        Where ``do`` is true, the node is held at its entry of ``shifts``, and learns nothing.
        """
        problem, order, k = self.problem, self.posterior.dag.order, self.problem.intercept
        reached = np.ascontiguousarray(self.posterior.predict_mean(shifts, do).T)
        w = np.repeat(problem.w0[:, None], len(shifts), axis=1)
        if len(problem.root):  # as in the compiled sum, for many shifts at once
            z = problem.root @ np.vstack([np.ones((k, len(shifts))), reached[order[:-1]]])
            d1 = np.cumsum(problem.root_q[:, None] * z, axis=0)
            w[order[1 - k :]] -= d1**2 / (problem.inv_n + np.cumsum(z**2, axis=0))
        else:
            lookahead.take_off(problem, reached, w)
        return w if do is None else np.where(do.T, problem.w0[:, None], w)

    def _combine(self, w: NDArray[np.float64]) -> Any:
        """Return the acquisition minus its floor, from ``w`` of every node, ``(n_nodes, ...)``."""
        quad, lin = self.problem.quad, self.problem.lin
        # a s^2 + b s minus its value at w = 0, with s = 1/n + w (equation 5).
        return quad @ (w * w) + (lin + 2 * self.problem.inv_n * quad) @ w

    @property
    def floor(self) -> float:
        """The part of the acquisition due to noise alone: its value for known weights."""
        return float(((self.problem.quad / self.n_cells + self.problem.lin) / self.n_cells).sum())

    def current(self) -> float:
        """Return the acquisition of the current posterior (noise terms as for ``n_cells``)."""
        return self.floor + float(self._combine(self.w_now))

    @classmethod
    def of_candidates(cls, candidates: CandidateStates) -> Ranked:
        """Return the acquisition after cells of each candidate, whose shifts must be exact."""
        cls._require_exact(candidates)
        # The ranking uses the look-ahead of the call.
        values, removed = cls._over_graphs(
            candidates, candidates.graphs, noise_aware=candidates.noise_aware
        )
        if not candidates.noise_aware:
            # The reported reduction includes what the scatter of the cells is expected to resolve.
            _, removed = cls._over_graphs(candidates, candidates.graphs, noise_aware=True)
        return Ranked(values, removed)

    @classmethod
    def _over_graphs(
        cls, candidates: CandidateStates, graphs: Sequence[DagBlr], *, noise_aware: bool
    ) -> tuple[Vector, Vector]:
        """Return values and variance reductions over graphs; here for the main graph only."""
        of_main: Any = cls.build(
            candidates.main,
            candidates.target_mean,
            domain=Pool(candidates.shifts),
            n_cells=candidates.n_cells,
            noise_aware=noise_aware,
        )
        # The reduction is relative to the current variance due to the weights, without noise.
        excess = of_main.excess(candidates.shifts)
        return of_main.floor + excess, reduction(of_main.current() - of_main.floor, excess)


def reduction(before: float, remaining: Vector) -> Vector:
    """Return the fraction by which a variance falls; 0 if it was 0 before."""
    return 1 - remaining / before if before > 0 else np.zeros_like(remaining)


def project(posterior: DagBlr, target: Vector, cov: Vector | None = None) -> tuple[Vector, Vector]:
    """Return ``u = M q``, laid out as the weights, and ``w = q' M q``, ``(n_nodes,)``.

    ``q`` is ``(1, mu*_P)`` of the target ``mu*``, ``(n_nodes,)``; ``M`` is the posterior's, or
    ``cov``.
    """
    u, w = np.zeros(posterior.vptr[-1]), np.empty(posterior.n_nodes)
    cov = posterior.blocks["cov"] if cov is None else cov
    lookahead.project_target(posterior.place, int(posterior.intercept), cov, target, u, w)
    return u, w


@one_thread()
def settle_by_noise(posterior: DagBlr, n_cells: float) -> Vector:
    """Return ``(M^-1 + n Cov_P)^-1`` of every node, laid out as the posterior's ``cov``.

    ``Cov = A diag(E sigma^2) A'`` is the cells' covariance: the scatter of n cells also informs
    the weights, whatever the shift. A shift then adds the usual rank-one term.
    """
    dag, blocks = posterior.dag, posterior.blocks
    if not dag.n_edges:  # there are no weights to learn
        return blocks["cov"].copy()
    effects = posterior.solve(np.eye(posterior.n_nodes))
    # With the current estimates of the variances: the cells are not yet observed.
    spread = (effects * posterior.noise_var) @ effects.T
    ahead = np.empty_like(blocks["cov"])
    pairs = zip(posterior.squares(blocks["cov"]), posterior.squares(ahead), strict=True)
    for i, (cov, later) in enumerate(pairs):
        parents = dag.parents(i)
        noise = np.zeros_like(cov)
        # The intercept's column is constant.
        k = len(cov) - len(parents)
        noise[k:, k:] = n_cells * spread[np.ix_(parents, parents)]
        # (M^-1 + n Cov)^-1 = (I + M n Cov)^-1 M, without an inverse of M.
        block = np.linalg.solve(np.eye(len(cov)) + cov @ noise, cov)
        later[:] = (block + block.T) / 2
    return ahead


class DrawnAcquisition(Acquisition):
    """A mean over draws of the weights, the same for every shift: a smooth, repeatable function.

    Draws are ``B_iP | sigma_i^2 ~ N(m, sigma_i^2 M)``; with ``noisy``, each includes the noise of
    the mean of ``n_cells`` cells.
    """

    noisy = False

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        n_cells: float = 1,
        n_samples: int,
        rng: int | np.random.Generator | None,
    ) -> None:
        super().__init__(posterior, target_mean, n_cells=n_cells)
        posterior = self.posterior
        p = self.n_nodes
        count = require_count(n_samples, "n_samples")
        generator = as_rng(rng)
        weights, noise_var = posterior.sample(count, generator)
        # One column per draw: weights (vptr[-1], n_samples), and c plus noise, (p, n_samples).
        weights = np.ascontiguousarray(weights.T)
        self.offset = weights[posterior.vptr[:-1]] if posterior.intercept else np.zeros((p, count))
        if self.noisy:
            sd = np.sqrt(noise_var / self.n_cells)
            self.offset = self.offset + (sd * generator.standard_normal((count, p))).T
        self._draws = (posterior.place, posterior.dag.order, weights)

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        vector = as_vector(shift, self.n_nodes, "shift")
        # (I - B)^-1 (c + a + noise) for every draw, and the gradient back through (I - B)^-1'.
        x = np.ascontiguousarray(self.offset + vector[:, None])
        reach_by_draws(*self._draws, x)
        value, slopes = self.at_means(x)
        adjoint_by_draws(*self._draws, slopes)
        return value, slopes.sum(axis=1)

    def at_means(self, x: Vector) -> tuple[float, Vector]:
        """Return the acquisition and its gradient at the draws' means, ``(n_nodes, n_samples)``."""
        raise NotImplementedError

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``."""
        return np.array([self.value(row) for row in self._pool(shifts)], dtype=np.float64)
