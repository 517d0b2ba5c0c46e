"""Context nodes (perturbations, conditions, covariates), and the search for their joint graph.

Their edges into genes help to orient the edges between genes.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from joblib import parallel_config

from nextpert.core._checks import list_names
from nextpert.core.screen.guides import context_moments, spread_within
from nextpert.core.screen.moments import Moments
from nextpert.core.screen.screen import ScreenMoments
from nextpert.core.search.registry import searches

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from nextpert.core.search.registry import Found, SearchOptions


_LEAST = 1e-8  # minimum share of a node's variance that earlier nodes do not explain
_NONE = 1e-12  # variance below which a node is the same in all cells
# Maximum number of context nodes: with 200 genes and 157,494 cells, a search from one order takes
# 51 s of processor time with 1,000 context nodes, and 24 s with the strongest 300.
_MAX_CONTEXT_NODES = 300


@dataclass(frozen=True)
class ContextNodes:
    """Context nodes (numeric covariates, perturbations, conditions), and batches.

    ``indicators``, ``(n_environments, n_indicators)``, are the nodes that have one value per
    environment (all but the numeric covariates), and ``batches`` are indicators of batches.
    ``group`` is the index of the perturbation of every environment, ``control_guide`` that of the
    controls' guide (-1 for none). ``targets`` are the genes of the panel on which a node is known
    to act, by the index of the node.
    """

    names: list[str]
    indicators: NDArray[np.bool_]
    batches: NDArray[np.float64]
    group: NDArray[np.int64]
    control_guide: NDArray[np.int64]
    targets: dict[int, list[int]]

    def guide_variance(self, screen: ScreenMoments, n_genes: int) -> float:
        """Return the variance between control guides beyond sampling, batches subtracted."""
        n_guides = int(self.control_guide.max(initial=-1)) + 1
        if n_guides < 3:
            return 0.0
        genes = screen.subset(np.arange(n_genes))
        if self.batches.shape[1]:
            genes = genes.without_fixed(self.batches, self.group)
        is_control = self.control_guide >= 0
        nothing = np.zeros_like(genes.scatter)
        controls = ScreenMoments(
            genes.n[is_control], genes.mean[is_control], genes.squares[is_control], nothing
        )
        pooled = controls.pool(self.control_guide[is_control], n_guides)
        return spread_within(pooled, np.zeros(n_guides, np.int64))


class Joint(NamedTuple):
    """Moments of the genes and, after them, the context nodes that are in the search."""

    moments: Moments
    present: NDArray[np.int64]  # indices of the context nodes in the search
    names: list[str]  # their names
    targets: dict[int, list[int]]  # known targets: indices of genes by position in ``present``
    others: NDArray[np.int64]  # indices of context nodes beyond the strongest, at fixed values

    @classmethod
    def of(cls, screen: ScreenMoments, n_genes: int, context: ContextNodes) -> Joint:
        """Return the moments without batches, and without nodes that earlier nodes explain."""
        variance = context.guide_variance(screen, n_genes)
        batches = context.batches if context.batches.shape[1] else None

        def moments_of(columns_used: NDArray[np.int64], fixed: Any) -> Moments:
            columns = context.indicators[:, columns_used]
            return context_moments(screen, columns, fixed=fixed, guide_variance=variance)

        kept, p = np.arange(context.indicators.shape[1]), screen.n_nodes
        fixed, others = batches, kept[:0]
        if len(kept) > _MAX_CONTEXT_NODES:
            blocks = np.array_split(kept, -(-len(kept) // _MAX_CONTEXT_NODES))
            each = (moments_of(some, batches) for some in blocks)
            share = np.concatenate([_explained(joint, n_genes, p) for joint in each])
            order = np.argsort(-share, kind="stable")
            kept, others = np.sort(order[:_MAX_CONTEXT_NODES]), np.sort(order[_MAX_CONTEXT_NODES:])
            others = others[share[others] >= 0]
            # At fixed values of the others (Frisch, Waugh, Lovell), the cells of a perturbation
            # without a node have their own mean. They inform the covariance of genes, but not the
            # direction of edges.
            weak = sp.csr_array(context.indicators[:, others], dtype=np.float64)
            fixed = sp.hstack([sp.csr_array(context.batches), weak])
        joint = moments_of(kept, fixed)
        # Numeric covariates are nodes of the screen, and the first context nodes.
        nodes = np.append(np.arange(p - n_genes), p - n_genes + kept)
        spread = np.diag(joint.scatter)[n_genes:]
        present = np.flatnonzero(spread > _NONE * max(joint.n, 1))
        scale = np.sqrt(spread[present])
        scatter = joint.scatter[np.ix_(present + n_genes, present + n_genes)]
        present = present[_independent(scatter / np.outer(scale, scale))]
        moments = joint.subset([*range(n_genes), *(present + n_genes)])
        present, known = nodes[present], context.targets
        targets = {place: known[k] for place, k in enumerate(present.tolist()) if k in known}
        names = [context.names[k] for k in present]
        return cls(moments, present, names, targets, p - n_genes + others)

    def isolated(self, lost: Sequence[int]) -> Joint:
        """Return the moments with some genes independent of all other nodes."""
        if not len(lost):
            return self
        # Their variance is above 0 and their correlations are 0, so no test finds an edge.
        moments, genes = self.moments, list(lost)
        scatter = moments.scatter.copy()
        scatter[genes] = scatter[:, genes] = 0.0
        scatter[genes, genes] = moments.n * (1 + moments.mean[genes] ** 2)
        return self._replace(moments=Moments(moments.n, moments.mean, scatter))

    def dependent(self, columns: Sequence[int], n_genes: int) -> list[int]:
        """Return those genes among some nodes that the context and earlier genes determine.

        If there are none beyond rounding, it is the last gene.
        """
        constant = [i for i in self.moments.constant_nodes().tolist() if i < n_genes]
        nodes = sorted(set(columns) - set(constant), key=lambda k: (k < n_genes, k))
        scatter = self.moments.scatter[np.ix_(nodes, nodes)]
        scale = np.sqrt(scatter.diagonal())
        free = {nodes[k] for k in _independent(scatter / np.outer(scale, scale)).tolist()}
        genes = [k for k in nodes if k < n_genes]
        return constant or [k for k in genes if k not in free] or genes[-1:]


def _explained(joint: Moments, n_genes: int, n_nodes: int) -> NDArray[np.float64]:
    """Return the share of the genes' variance that each node after ``n_nodes`` explains alone.

    Shares are summed over the genes. The value is -1 for a node that is the same in all cells.
    """
    variance = np.maximum(joint.scatter.diagonal(), np.finfo(float).tiny)
    share = joint.scatter[n_nodes:, :n_genes] ** 2 / variance[:n_genes]
    total = variance[n_nodes:]
    return np.where(total > _NONE * max(joint.n, 1), share.sum(axis=1) / total, -1.0)


def _given_others(moments: Moments, stay: NDArray[np.int64]) -> Moments:
    """Return the moments of some nodes at fixed values of all others."""
    conditioned = np.setdiff1d(np.arange(moments.n_nodes), stay)
    # S_kk - S_kd S_dd^-1 S_dk
    root = np.linalg.cholesky(moments.scatter[np.ix_(conditioned, conditioned)])
    explained = np.linalg.solve(root, moments.scatter[np.ix_(conditioned, stay)])
    scatter = moments.scatter[np.ix_(stay, stay)] - explained.T @ explained
    return Moments(moments.n, moments.mean[stay], scatter)


def _independent(correlation: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the nodes whose variance is not explained by the earlier nodes.

    In the usual case, in which no node is explained, this costs one Cholesky decomposition.
    """
    try:
        if not len(correlation) or np.linalg.cholesky(correlation).diagonal().min() ** 2 > _LEAST:
            return np.arange(len(correlation))
    except np.linalg.LinAlgError:
        pass
    remainder, independent = correlation.copy(), []
    for k in range(len(remainder)):
        if remainder[k, k] > _LEAST:
            independent.append(k)
            remainder[k + 1 :, k + 1 :] -= (
                np.outer(remainder[k + 1 :, k], remainder[k, k + 1 :]) / remainder[k, k]
            )
    return np.array(independent, np.int64)


def search(
    joint: Joint,
    genes: Sequence[str],
    options: SearchOptions,
    rng: np.random.Generator,
    where: str,
    *,
    n_jobs: int | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Found:
    """Return the best graph found, with the genes first and the context nodes after them.

    A search method that does not accept context nodes gets the moments at their fixed values.
    ``where`` says which cells these are, for an error about linearly dependent genes. Without
    ``n_jobs`` this is one of several concurrent searches, and gets no workers of its own.
    """
    method, p, cells = searches()[options.method], len(genes), joint.moments
    n_context = cells.n_nodes - p
    if n_context and not method.context:
        cells = _given_others(cells, np.arange(p))
    targets_of_nodes = {"targets": joint.targets} if joint.targets else {}
    try:
        with parallel_config("sequential") if n_jobs is None else nullcontext():
            best = method.learn(
                cells,
                options,
                n_context=cells.n_nodes - p,
                rng=rng,
                n_jobs=n_jobs or 1,
                progress=progress,
                **targets_of_nodes,
            )
    except ValueError as error:
        columns = getattr(error, "columns", None)
        if columns is None:
            raise
        named = [*genes, *(f"{name} (of the experiment)" for name in joint.names)]
        message = (
            f"{list_names([named[int(i)] for i in columns])} are copies of each other or linearly "
            f"dependent {where}, so partial correlations are undefined: leave one of them out of "
            f"the panel, or use more cells."
        )
        raised = ValueError(message)
        raised.columns = np.asarray(columns)  # type: ignore[attr-defined]
        raise raised from error
    if method.context:
        return best
    return replace(best, context_edges=np.zeros((n_context, p), np.bool_))
