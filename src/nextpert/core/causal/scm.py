"""Linear structural causal models, random graphs and random targets, for simulations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert.core._blas import one_thread
from nextpert.core._checks import (
    as_nodes,
    as_numbers,
    as_rng,
    as_vector,
    require_count,
    require_finite,
)
from nextpert.core.graph.dag import Dag
from nextpert.core.graph.random_dag import random_dag
from nextpert.core.screen.moments import require_numbers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    Vector = NDArray[np.float64]


class LinearScm:
    """Linear SCM ``x = B x + c + a + noise`` over a directed acyclic graph.

    Parameters
    ----------
    weights
        B, shape ``(n_nodes, n_nodes)``, dense or sparse; row = child, column = parent.
    noise_var
        Noise variances, shape ``(n_nodes,)``, squared units of the data.
    intercept
        c, shape ``(n_nodes,)``; zero by default.

    Raises
    ------
    CycleError
        If the non-zero weights form a cycle.
    ValueError
        If shapes do not agree, a weight is not finite, or a variance is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core import LinearScm
    >>> scm = LinearScm(np.array([[0.0, 0.0], [0.5, 0.0]]), np.ones(2))
    >>> scm.mean(shift=[2.0, 0.0]).tolist()
    [2.0, 1.0]
    >>> scm.optimal_shift([2.0, 1.0]).tolist()
    [2.0, 0.0]
    """

    def __init__(
        self,
        weights: ArrayLike | sp.sparray,
        noise_var: ArrayLike,
        intercept: ArrayLike | None = None,
    ) -> None:
        values = weights if sp.issparse(weights) else as_numbers(weights, "weights")
        require_numbers(values, "weights")
        matrix = sp.csr_array(values, dtype=np.float64)
        require_finite(matrix.data, "weights")
        self.dag = Dag.from_matrix(matrix.T)
        self.weights = matrix.toarray()
        self.n_nodes = self.dag.n_nodes
        self.noise_var = as_vector(noise_var, self.n_nodes, "noise_var")
        if (self.noise_var <= 0).any():
            message = "noise_var must be above 0 for every node."
            raise ValueError(message)
        intercepts = np.zeros(self.n_nodes) if intercept is None else intercept
        self.intercept = as_vector(intercepts, self.n_nodes, "intercept")

    @one_thread()
    def _propagate(
        self, source: NDArray[np.float64], do: Mapping[int, float] | None = None
    ) -> Vector:
        # Substitution along the topological order (equation 1); columns are cells.
        interventions = {} if do is None else dict(do)
        nodes = as_nodes(interventions, self.n_nodes, "do")
        value = dict(
            zip(
                nodes,
                as_vector(list(interventions.values()), len(interventions), "do"),
                strict=True,
            )
        )
        x = source.copy()
        for i in self.dag.order.tolist():
            parents = self.dag.parents(i)
            if i in value:
                x[i] = value[i]
            elif len(parents):
                x[i] += self.weights[i, parents] @ x[parents]
        return x

    def _source(self, shift: ArrayLike | None) -> Vector:
        extra = 0.0 if shift is None else as_vector(shift, self.n_nodes, "shift")
        return self.intercept + extra

    def sample(
        self,
        n_cells: int,
        shift: ArrayLike | None = None,
        *,
        do: Mapping[int, float] | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> NDArray[np.float64]:
        """Draw cells under a shift and a hard intervention, shape ``(n_cells, n_nodes)``.

        ``do`` maps nodes to the values at which they are held, whatever their parents.
        """
        count = require_count(n_cells, "n_cells", minimum=0)
        # x = (I - B)^-1 (c + a + noise), by substitution.
        noise = as_rng(rng).standard_normal((count, self.n_nodes)) * np.sqrt(self.noise_var)
        return self._propagate((noise + self._source(shift)).T, do).T

    def mean(
        self, shift: ArrayLike | None = None, *, do: Mapping[int, float] | None = None
    ) -> Vector:
        """Return the mean under a shift and a hard intervention ``do``, shape ``(n_nodes,)``."""
        return self._propagate(self._source(shift), do)

    @one_thread()
    def covariance(self) -> NDArray[np.float64]:
        """Return the covariance of control cells (shifts do not change it)."""
        # A = (I - B)^-1, column by column; the covariance is A diag(sigma^2) A'.
        effects = self._propagate(np.eye(self.n_nodes))
        return (effects * self.noise_var) @ effects.T

    @one_thread()
    def optimal_shift(self, target_mean: ArrayLike) -> Vector:
        """Return the shift ``(I - B) mu* - c``, which leads to the mean ``target_mean``."""
        target = as_vector(target_mean, self.n_nodes, "target_mean")
        return target - self.weights @ target - self.intercept

    def standardised(self) -> LinearScm:
        """Return the same model in units in which every node has a variance of one."""
        # x / sd: B_ij sd_j / sd_i, sigma_i^2 / sd_i^2 and c_i / sd_i.
        scale = 1 / np.sqrt(np.diag(self.covariance()))
        weights = scale[:, None] * self.weights / scale
        return LinearScm(weights, self.noise_var * scale**2, self.intercept * scale)


def random_scm(
    n_nodes: int,
    graph: str | Dag = "complete",
    *,
    expected_degree: float = 4.0,
    low: float = 0.25,
    high: float = 1.0,
    noise_var: ArrayLike = 1.0,
    standardise: bool = True,
    rng: int | np.random.Generator | None = None,
) -> LinearScm:
    """Draw a linear SCM with weights uniform on ``[-high, -low]`` and ``[low, high]``.

    As in Zhang et al. 2023, Methods (simulations), noise variances are equal by default and, with
    ``standardise``, every node is then rescaled to a variance of one.

    Parameters
    ----------
    n_nodes
        Number of nodes.
    graph
        A :class:`Dag`, or the name of a family (see :func:`random_dag`).
    expected_degree
        Expected number of neighbours of a node, for the families that :func:`random_dag` names.
    low, high
        Smallest and largest absolute weight before standardisation.
    noise_var
        Noise variance before standardisation, in squared units of the data: one number for all
        nodes (the paper's noise level), which has no effect with ``standardise``, or an array of
        shape ``(n_nodes,)``.
    standardise
        Whether to rescale every node to a variance of one.
    rng
        Seed or generator.

    Raises
    ------
    ValueError
        If the family is unknown, ``graph`` or ``noise_var`` has another size, or ``low > high``.

    Examples
    --------
    >>> from nextpert.core import random_scm
    >>> scm = random_scm(5, "erdos_renyi", expected_degree=2, rng=0)
    >>> bool(abs(scm.covariance().diagonal() - 1).max() < 1e-12)
    True
    """
    count = require_count(n_nodes, "n_nodes")
    generator = as_rng(rng)
    if not 0 <= low <= high:
        message = f"Weights need 0 <= low <= high, but low is {low} and high is {high}."
        raise ValueError(message)
    if np.shape(noise_var) not in ((), (count,)):
        shape = np.shape(noise_var)
        message = f"noise_var must be a number or have shape ({count},), but has shape {shape}."
        raise ValueError(message)
    dag: Any = graph
    if isinstance(graph, str):
        dag = random_dag(count, graph, expected_degree=expected_degree, rng=generator)
    if dag.n_nodes != count:
        message = (
            f"The graph has {dag.n_nodes} nodes, but n_nodes is {count}: use n_nodes={dag.n_nodes}."
        )
        raise ValueError(message)
    weights = np.zeros((count, count))
    # Uniform on [-high, -low] and [low, high].
    for parent, child in dag.edges():
        sign = 1 if generator.random() < 0.5 else -1
        weights[child, parent] = sign * generator.uniform(low, high)
    scm = LinearScm(weights, np.broadcast_to(noise_var, count))
    return scm.standardised() if standardise else scm


def random_target(
    scm: LinearScm,
    n_targets: int,
    *,
    where: str = "random",
    rng: int | np.random.Generator | None = None,
) -> tuple[Vector, Vector]:
    """Draw an ideal shift of a few nodes, and return it with the mean that it reaches.

    As in Zhang et al. 2023, Methods (simulations, doi:10.1038/s42256-023-00719-0), entries are
    uniform on ``[0.25, 1]`` with random signs, and are then scaled to norm one.

    Parameters
    ----------
    scm
        The model.
    n_targets
        Number of shifted nodes.
    where
        ``"random"`` nodes, or ``"downstream"``, the last nodes of the topological order.
    rng
        Seed or generator.

    Returns
    -------
    shift, target_mean
        The ideal shift, of norm one, and the mean under it, each ``(n_nodes,)``, units of the data.

    Raises
    ------
    ValueError
        If ``where`` is unknown, or there are more targets than nodes.

    Examples
    --------
    >>> from nextpert.core import random_scm, random_target
    >>> scm = random_scm(5, "path", rng=0)
    >>> shift, target_mean = random_target(scm, 2, where="downstream", rng=0)
    >>> (shift != 0).tolist(), bool(abs(scm.optimal_shift(target_mean) - shift).max() < 1e-12)
    ([False, False, False, True, True], True)
    """
    count = require_count(n_targets, "n_targets")
    generator = as_rng(rng)
    if count > scm.n_nodes:
        message = f"n_targets must be at most {scm.n_nodes}, the number of nodes, but is {count}."
        raise ValueError(message)
    if where not in ("random", "downstream"):
        message = f"where must be 'random' or 'downstream', but is {where!r}."
        raise ValueError(message)
    # Entries before scaling to norm 1, as in the paper's simulations.
    entries = generator.uniform(0.25, 1, count) * generator.choice([-1, 1], count)
    # Downstream: the last nodes of the topological order.
    nodes = scm.dag.order[-count:]
    if where == "random":
        nodes = generator.choice(scm.n_nodes, count, replace=False)
    shift = np.zeros(scm.n_nodes)
    shift[nodes] = entries / np.linalg.norm(entries)
    return shift, scm.mean(shift)


def matched_random_dag(
    in_degree: ArrayLike, *, rng: int | np.random.Generator | None = None
) -> Dag:
    """Draw a random acyclic graph with a given number of parents of each node.

    An order is drawn uniformly from those in which enough nodes precede each node. The parents of
    each node are then drawn uniformly from the nodes before it.

    Examples
    --------
    >>> from nextpert.core.causal.scm import matched_random_dag
    >>> matched_random_dag([2, 0, 1], rng=0).in_degree.tolist()
    [2, 0, 1]
    """
    degree = np.asarray(in_degree, dtype=np.int64)
    generator = as_rng(rng)
    p = len(degree)
    if (degree < 0).any() or (np.sort(degree) > np.arange(p)).any():
        message = (
            f"No acyclic graph has these numbers of parents, {np.sort(degree).tolist()}: in "
            f"ascending order, they must not exceed 0, 1, 2, ..."
        )
        raise ValueError(message)
    # A node with d parents stands at place d or later. If nodes are placed in descending order of
    # d, the number of free places does not depend on earlier choices, so orders are uniform.
    order = np.full(p, -1, dtype=np.int64)
    for node in np.argsort(-degree, kind="stable"):
        free = degree[node] + np.flatnonzero(order[degree[node] :] < 0)
        order[free[generator.integers(len(free))]] = node
    parents: list[list[int]] = [[] for _ in range(p)]
    for position, node in enumerate(order):
        if degree[node]:
            parents[node] = generator.permutation(order[:position])[: degree[node]].tolist()
    return Dag.from_parents(parents)
