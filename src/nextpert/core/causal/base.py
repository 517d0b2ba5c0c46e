"""What every acquisition shares: a value, a gradient, and values over a pool; lower is better."""

from __future__ import annotations

from functools import cached_property
from inspect import signature
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from scipy.optimize import minimize_scalar

from nextpert.core._blas import one_thread
from nextpert.core._checks import as_numbers, as_vector, require_finite, require_positive
from nextpert.core._shown import Shown
from nextpert.core.causal import _lookahead as lookahead
from nextpert.core.causal.domains import Pool

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.causal.dag_blr import DagBlr
    from nextpert.core.causal.domains import Domain

    Vector = NDArray[np.float64]

_STRIP = 128  # shifts of a pool at a time, so that the states they reach stay in the cache


class Ranked(NamedTuple):
    """An acquisition of every candidate.

    Parameters
    ----------
    values
        The acquisition, lower is better, shape ``(n_perturbations,)``.
    variance_reduction
        Fraction of the uncertainty that cells of each are expected to resolve, same shape;
        ``None`` for an acquisition without look-ahead.
    """

    values: Vector
    variance_reduction: Vector | None = None


class Asked(Protocol):
    """What an acquisition may ask of candidates and target: :class:`~nextpert.core.Candidates`."""

    graphs: list[DagBlr]
    main: DagBlr
    goal: Any  # ``Goal``
    states: Any  # ``States``: joint draws of candidates and control
    n_cells: float
    noise_aware: bool
    measured: NDArray[np.bool_]
    rng: np.random.Generator

    @property
    def size(self) -> int:
        """Number of candidates."""

    @property
    def exact(self) -> bool:
        """Whether shifts are exact."""

    @property
    def shifts(self) -> Vector:
        """Exact shifts, shape ``(n_candidates, n_nodes)``."""

    @property
    def target_mean(self) -> Vector:
        """The target state, shape ``(n_nodes,)``."""

    @property
    def noise(self) -> Any:
        """Variance of the distance that cells measure, ``NoiseTerms``."""

    @property
    def remaining(self) -> Any:
        """The variance of distances, ``RemainingVariance``."""

    @property
    def distances(self) -> Any:
        """Distances by draws, ``RankedDistance``."""

    def draw(self, n_samples: int) -> Any:
        """Return the distances by other draws."""

    def first_order(self, n_samples: int) -> tuple[Vector, Vector]:
        """Return expected distances and draws to first order."""


class Acquisition(Shown):
    """Base class: how useful it is to test a shift next. Lower values are better.

    A subclass that is registered (``nextpert.core.causal.registry``) answers two questions:
    where in a domain of exact shifts its minimum is (:meth:`build`), and which of a number of
    candidates with uncertain shifts is the best (:meth:`of_candidates`).
    """

    _shown = ("n_nodes", "n_cells")
    name = ""
    n_nodes: int
    ideal_shift: Vector  # the current estimate of it, where a target counts
    on_domain = True  # whether it has values at any shift, so that a domain can be searched by it
    exact_only = True  # whether it needs exact shifts, so that no uncertain fit can rank by it
    in_words = ""  # what it ranks by, for reports; its name where this is empty

    def __init__(self, posterior: DagBlr, target_mean: ArrayLike, *, n_cells: float = 1) -> None:
        self.posterior = posterior.without_fixed()
        self.n_nodes = posterior.n_nodes
        self.target_mean = as_vector(target_mean, self.n_nodes, "target_mean")
        self.n_cells = require_positive(n_cells, "n_cells")
        self.ideal_shift = self.posterior.ideal_shift(self.target_mean)

    @classmethod
    def build(cls, posterior: DagBlr, target_mean: ArrayLike, **options: Any) -> Acquisition:
        """Return the acquisition on a posterior, with those of the options that its class takes."""
        made: Any = cls
        taken = signature(cls).parameters
        return made(posterior, target_mean, **{k: options[k] for k in options if k in taken})

    @classmethod
    def of_candidates(cls, asked: Asked) -> Ranked:
        """Return it of every candidate; here at their exact shifts and on one graph.

        Raises
        ------
        ValueError
            If shifts are uncertain.
        """
        cls._require_exact(asked)
        pool = Pool(asked.shifts)

        def build(noise_aware: bool) -> Any:
            return cls.build(
                asked.main, asked.target_mean, domain=pool, n_cells=asked.n_cells,
                noise_aware=noise_aware, rng=asked.rng,
            )  # fmt: skip

        found = build(asked.noise_aware)
        if not isinstance(found, LookaheadAcquisition):
            return Ranked(found.values(pool.shifts))
        # What is reported as removed is what is expected, by the cells' scatter too.
        aware = found if found.noise_aware else build(True)
        return Ranked(found.values(pool.shifts), aware.variance_reduction(pool.shifts))

    @classmethod
    def _require_exact(cls, asked: Asked) -> None:
        if cls.exact_only and not asked.exact:
            message = (
                f"Acquisition {cls.name!r} needs exact shifts: fit with "
                f"tl.fit_dag_blr(shift_sd=0), use nextpert.core, or choose 'probability', 'ei', "
                f"'thompson', 'greedy', 'civ' or 'random'."
            )
            raise ValueError(message)

    @classmethod
    def plate(cls, asked: Asked, ready: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Return the best ``size`` of the candidates ``ready``, given by their indices."""
        values = cls.of_candidates(asked).values
        return ready[np.argsort(values[ready], kind="stable")[:size]]

    def value(self, shift: ArrayLike) -> float:
        """Return the acquisition at one shift, shape ``(n_nodes,)``."""
        return self.value_and_grad(shift)[0]

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        raise NotImplementedError

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``."""
        raise NotImplementedError

    def closed_form(self, domain: Domain, rng: np.random.Generator) -> Vector | None:
        """Return the best shift of ``domain`` where it is known without a search, else ``None``."""
        return None

    def starts(self) -> list[Vector]:
        """Return the current estimate of the ideal shift, one of the paper's two starts."""
        return [self.ideal_shift] if hasattr(self, "ideal_shift") else []

    @property
    def floor(self) -> float:
        """The part of the acquisition that no shift can change."""
        return 0.0

    def _pool(self, shifts: ArrayLike) -> NDArray[np.float64]:
        matrix = as_numbers(shifts, "The pool", copy=False)
        if matrix.ndim != 2 or matrix.shape[1] != self.n_nodes:
            message = f"A pool must be (n_shifts, {self.n_nodes}), but its shape is {matrix.shape}."
            raise ValueError(message)
        require_finite(matrix, "The pool")
        return matrix


class LookaheadAcquisition(Acquisition):
    """An acquisition on the posterior after ``n_cells`` hypothetical cells.

    Parameters
    ----------
    posterior
        The posterior over the weights.
    target_mean
        The target mean, shape ``(n_nodes,)``, units of the data.
    n_cells
        Number of hypothetical cells (the next batch).
    noise_aware
        The paper's look-ahead (``False``, default) sets all cells to their mean. ``True`` includes
        the information in their scatter: use it to report what is expected to remain.
    """

    kind = lookahead.SUM

    def __init__(
        self,
        posterior: DagBlr,
        target_mean: ArrayLike,
        *,
        n_cells: float = 1,
        noise_aware: bool = False,
    ) -> None:
        super().__init__(posterior, target_mean, n_cells=n_cells)
        self.noise_aware, posterior = bool(noise_aware), self.posterior
        dag, self.cov = posterior.dag, posterior.blocks["cov"]
        if self.noise_aware:
            self.w_now = project(posterior, self.target_mean)[1]
            self.cov = settle_by_noise(posterior, self.n_cells)
        root, root_q = self._shared_root()
        if len(root):  # q' M q of one node after the other; M q is not needed
            u, w0 = np.zeros(0), np.zeros(self.n_nodes)
            w0[dag.order[1 - int(posterior.intercept) :]] = np.cumsum(root_q**2)
        else:
            u, w0 = project(posterior, self.target_mean, self.cov)
        if not self.noise_aware:
            self.w_now = w0
        quad, lin = self.coefficients()
        eigval, eigvec = self._eigen()
        self.problem = lookahead.Problem(
            self.kind, 1.0 / self.n_cells, int(posterior.intercept),
            dag.indptr, dag.indices, dag.order,
            posterior.vptr, posterior.mptr, posterior.blocks["weights"][:, None], self.cov,
            np.ascontiguousarray(posterior.intercept_mean)[:, None], u, w0, quad, lin,
            eigval, eigvec, root, root_q,
        )  # fmt: skip

    def _shared_root(self) -> tuple[NDArray[np.float64], Vector]:
        """Return ``L^-1``, ``L^-1 q`` if the precisions of all nodes are blocks of one, ``L L'``.

        They are on a complete graph whose nodes have the same prior: that of a node is the leading
        block of the last node's, in the order of the graph. Else both are empty.
        """
        posterior, dag, k = self.posterior, self.posterior.dag, int(self.posterior.intercept)
        p, order = self.n_nodes, dag.order
        if self.kind != lookahead.SUM or dag.n_edges < max(p * (p - 1) // 2, 3):
            return np.zeros((0, 0)), np.zeros(0)
        last = int(order[-1])
        block = slice(posterior.vptr[last], posterior.vptr[last + 1])
        is_weight = np.ones(posterior.vptr[-1], bool)
        is_weight[posterior.vptr[:-1][: k * p]] = False
        precision, alike = posterior.blocks["precision"], np.ones(p)
        alike[dag.parents(last)] = precision[block][k:]
        alike = alike[dag.indices]
        if (np.abs(precision[is_weight] - alike) > 1e-12 * alike).any():
            return np.zeros((0, 0)), np.zeros(0)
        place = np.append(np.arange(k), k + np.searchsorted(dag.parents(last), order[:-1]))
        size = len(place)
        cov = self.cov[posterior.mptr[last] : posterior.mptr[last + 1]].reshape(size, size)
        # M = R'R with R = L^-1 lower triangular: the Cholesky factor from the other end.
        back = place[::-1]
        ends = np.linalg.cholesky(cov[np.ix_(back, back)])
        root = np.ascontiguousarray(ends[::-1, ::-1].T)
        return root, root @ np.append(np.ones(k), self.target_mean[order[:-1]])

    def coefficients(self) -> tuple[Vector, Vector]:
        """Return the coefficients ``(quadratic, linear)`` of ``s_i = 1/n + w_i`` in the sum."""
        raise NotImplementedError

    def spread_ahead(self) -> tuple[Vector, Vector]:
        """Return ``e`` and ``kappa`` of every node after the hypothetical cells.

        They are the expected noise variance, and the factor of ``s^2`` in CIV, as
        :meth:`~nextpert.core.DagBlr.spread` defines them; each of shape ``(n_nodes,)``.
        """
        return self.posterior.spread(self.n_cells, expected=self.noise_aware)

    def _eigen(self) -> tuple[Vector, Vector]:
        return np.empty(0), np.empty(0)

    def value_and_grad(self, shift: ArrayLike) -> tuple[float, Vector]:
        """Return the acquisition and its gradient at one shift, shape ``(n_nodes,)``."""
        grad = np.empty(self.n_nodes)
        vector = as_vector(shift, self.n_nodes, "shift")
        return self.floor + float(lookahead.evaluate(self.problem, vector, grad)), grad

    def values(self, shifts: ArrayLike) -> Vector:
        """Return the acquisition at every shift of a pool, ``(n_shifts, n_nodes)``."""
        matrix = self._pool(shifts)
        return self.floor + self.excess(matrix)

    def excess(self, shifts: NDArray[np.float64]) -> Vector:
        """Return the part of the acquisition due to uncertain weights, ``values - floor``."""
        problem, out = self.problem, np.empty(len(shifts))
        if self.kind == lookahead.NORM:
            lookahead.evaluate_each(problem, np.ascontiguousarray(shifts), out)
            return out
        for begin in range(0, len(shifts), _STRIP):
            w = self.left(shifts[begin : begin + _STRIP])
            if self.kind == lookahead.MAX:
                out[begin : begin + _STRIP] = (problem.lin[:, None] * w).max(axis=0, initial=0.0)
            else:
                linear = problem.lin + 2 * problem.inv_n * problem.quad
                out[begin : begin + _STRIP] = problem.quad @ (w * w) + linear @ w
        return out

    def left(self, shifts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``w_i`` after the cells of each shift (equation 6), ``(n_nodes, n_shifts)``."""
        reached = np.ascontiguousarray(self.posterior.predict_mean(shifts).T)
        problem = self.problem
        if len(problem.root):  # as in the compiled sum, many shifts at a time
            order, k = self.posterior.dag.order, problem.intercept
            z = problem.root @ np.vstack([np.ones((k, len(shifts))), reached[order[:-1]]])
            d1 = np.cumsum(problem.root_q[:, None] * z, axis=0)
            w = np.repeat(problem.w0[:, None], len(shifts), axis=1)
            w[order[1 - k :]] -= d1**2 / (problem.inv_n + np.cumsum(z**2, axis=0))
            return w
        w = np.empty_like(reached)
        lookahead.w_of_states(self.problem, reached, w)
        return w

    @property
    def floor(self) -> float:
        """The part of the acquisition due to noise alone: its value for known weights."""
        if self.kind != lookahead.SUM:
            return 0.0
        return float(((self.problem.quad / self.n_cells + self.problem.lin) / self.n_cells).sum())

    def current(self) -> float:
        """Return the acquisition now, before any further cell (noise terms as for ``n_cells``)."""
        return self._combine(self.w_now)

    def variance_reduction(self, shifts: ArrayLike) -> Vector:
        """Return the variance reduction by the cells of each shift, relative to the weights' part.

        Between 0 (nothing learned) and 1 (the acquisition falls to its floor), for every shift of a
        pool, ``(n_shifts, n_nodes)``. Expected with ``noise_aware``, else as the paper looks
        ahead.
        """
        matrix = self._pool(shifts)
        before = self.current() - self.floor
        if before <= 0:
            return np.zeros(len(matrix))
        return 1 - self.excess(matrix) / before

    def lower_bound(self, radius: float) -> float:
        """Return a bound no shift of norm up to ``radius`` can beat; a certificate for a search.

        Each node's ``w_i`` is bounded on its own (a generalised Rayleigh quotient), so the bound
        need not be attained; value and bound close together prove a search done.
        """
        problem, u = self.problem, self.problem.u
        if not len(u):
            u = project(self.posterior, self.target_mean, self.cov)[0]
        bound = np.zeros(self.n_nodes)
        for i, (first, last) in enumerate(pairwise(problem.vptr)):
            if first < last:
                gain = self._largest_gain(i, radius, u[first:last])
                bound[i] = max(problem.w0[i] - gain, 0.0)
        return self._combine(bound)

    def _combine(self, w: Vector) -> float:
        quad, lin = self.problem.quad, self.problem.lin
        if self.kind == lookahead.MAX:
            return float((lin * w).max(initial=0.0))
        return self.floor + float(((quad * (w + 2 / self.n_cells) + lin) * w).sum())

    def _largest_gain(self, i: int, radius: float, u: Vector) -> float:
        """Return how much ``v'Mv`` of node ``i`` falls at most, ``u = Mv``.

        With ``x'_P = G (1, a)`` and ``D = diag(t, (1 - t)/radius^2 I)/n``, for any t in (0, 1)
        ``1/n >= (1, a)' D (1, a)``, so ``d1^2/d2 <= u' G (D + G' M G)^-1 G' u``: the least over t.
        """
        problem, d = self.problem, len(u)
        cov = problem.cov[problem.mptr[i] : problem.mptr[i + 1]].reshape(d, d)
        parents, n = self.posterior.dag.parents(i), self.n_cells
        rows = self._effects[parents]
        gram = n * radius**2 * (rows @ rows.T)

        def gain(reach: NDArray[np.float64]) -> float:
            return float(u @ reach @ np.linalg.solve(np.eye(d) + cov @ reach, u))

        if not self.posterior.intercept:
            return gain(gram)
        rest = np.concatenate([[1.0], rows @ problem.offset[:, 0]])
        fixed, free = n * np.outer(rest, rest), np.zeros((d, d))
        if d == 1:
            return gain(fixed)
        free[1:, 1:] = gram
        found = minimize_scalar(
            lambda t: gain(fixed / t + free / (1 - t)), bounds=(0.0, 1.0), method="bounded"
        )
        return float(found.fun)

    @cached_property
    def _effects(self) -> NDArray[np.float64]:
        return self.posterior.solve(np.eye(self.n_nodes))


def project(posterior: DagBlr, target: Vector, cov: Vector | None = None) -> tuple[Vector, Vector]:
    """Return ``u = M q`` of every node, flat as its weights, and ``w = q' M q``, ``(n_nodes,)``.

    ``q = (1, mu*_P)`` of the target ``mu*``, ``(n_nodes,)``; ``M`` as in the posterior, or ``cov``.
    """
    dag, u, w = posterior.dag, np.zeros(posterior.vptr[-1]), np.empty(posterior.n_nodes)
    layout = (dag.indptr, dag.indices, posterior.vptr, posterior.mptr)
    cov = posterior.blocks["cov"] if cov is None else cov
    lookahead.project_target(layout, cov, np.ascontiguousarray(target[:, None]), u, w)
    return u, w


@one_thread()
def settle_by_noise(posterior: DagBlr, n_cells: float) -> Vector:
    """Return ``(M^-1 + n Cov_P)^-1`` of every node, flat as the posterior's ``cov``.

    ``Cov = A diag(E sigma^2) A'`` is the cells' covariance: n cells teach about the weights by
    their scatter too, whatever the shift. What a shift adds is then the usual rank-one step.
    """
    dag, blocks = posterior.dag, posterior.blocks
    if not dag.n_edges:  # there are no weights to learn about
        return blocks["cov"].copy()
    effects = posterior.solve(np.eye(posterior.n_nodes))
    # The variances as they are estimated now: the cells are not yet observed.
    spread = (effects * posterior.noise_var) @ effects.T
    ahead = np.empty_like(blocks["cov"])
    for i in range(posterior.n_nodes):
        d = int(posterior.vptr[i + 1] - posterior.vptr[i])
        place = slice(posterior.mptr[i], posterior.mptr[i + 1])
        cov = blocks["cov"][place].reshape(d, d)
        parents = dag.parents(i)
        noise = np.zeros((d, d))  # the intercept's column does not vary
        noise[d - len(parents) :, d - len(parents) :] = n_cells * spread[np.ix_(parents, parents)]
        block = np.linalg.solve(np.eye(d) + cov @ noise, cov)
        ahead[place] = ((block + block.T) / 2).ravel()
    return ahead
