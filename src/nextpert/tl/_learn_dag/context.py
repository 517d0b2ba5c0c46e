"""Context nodes (perturbations, conditions, covariates), and the search for their joint graph.

Their edges into genes help to orient the edges between genes.
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from joblib import parallel_config
from scipy.sparse.csgraph import connected_components

from nextpert._adata import list_names
from nextpert.core import Moments, ScreenMoments, context_moments
from nextpert.core.screen.guides import spread_within
from nextpert.core.search.registry import searches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.screen import Environments
    from nextpert.core.search.registry import Found, SearchOptions

logger = logging.getLogger(__name__)

_LEAST = 1e-8  # minimum share of a node's variance that earlier nodes do not explain
_NONE = 1e-12  # variance below which a node is the same in all cells
# Maximum number of context nodes: with 200 genes and 157,494 cells, a search from one order takes
# 51 s of processor time with 1,000 context nodes, and 24 s with the strongest 300.
_MOST = 300


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

    @classmethod
    def of(
        cls,
        environments: Environments,
        genes: Sequence[str],
        acts_on: Mapping[str, Sequence[str]] | None = None,
    ) -> ContextNodes:
        """Return the context nodes of some environments; a combination sets all its members.

        Members that are always set together are one node. If members cannot be distinguished
        (because there are more members than combinations), the combinations are nodes instead.
        ``acts_on`` has the known target genes of perturbations and conditions
        (:func:`~nextpert.tl._learn_dag.prior.read_targets`). A node of several members acts on the
        targets of all, if all are known.
        """
        naming = environments.naming_on(genes)
        sets: dict[str, list[str]] = {}
        for name in environments.perturbations():
            inside, outside = naming.targets(name)
            sets[name] = [*inside, *outside] or [name]
        sets = _distinguishable(sets)
        parts = sorted({part for each in sets.values() for part in each})
        column = {part: k for k, part in enumerate(parts)}
        label, roles = environments.perturbation, environments.roles
        rows = np.zeros((len(label), len(parts)), np.bool_)
        for row, name in enumerate(label):
            rows[row, [column[part] for part in sets.get(name, [])]] = True
        names, indicators = environments.indicators(environments.condition_names)
        groups, columns = _joined(parts + names, np.hstack([rows, indicators.astype(np.bool_)]))
        guide = np.full(len(label), -1)
        if roles.guide_key is not None:
            is_control = environments.is_control
            own = environments.table[roles.guide_key].to_numpy(dtype=object)[is_control]
            guide[is_control] = np.unique(own.astype(str), return_inverse=True)[1]
        group = np.unique(label.astype(str), return_inverse=True)[1]
        batches = environments.indicators(environments.roles.batch_key)[1]
        first, targets, acts_on = environments.covariate_names, {}, acts_on or {}
        place = {gene: i for i, gene in enumerate(genes)}
        merged = ["+".join(nodes) for nodes in groups]
        for k, (name, nodes) in enumerate(zip(merged, groups, strict=True), start=len(first)):
            # A node acts on its given targets, or else on the targets of all its members.
            parts = [part for x in nodes for part in ([x] if x in acts_on else naming.key(x))]
            parts = [name] if name in acts_on else parts
            if all(part in acts_on for part in parts):
                targets[k] = sorted({place[gene] for part in parts for gene in acts_on[part]})
        return cls(first + merged, columns, batches, group, guide, targets)

    def guide_variance(self, screen: ScreenMoments, n_genes: int) -> float:
        """Return the variance between control guides beyond sampling, batches subtracted."""
        n_guides = int(self.control_guide.max(initial=-1)) + 1
        if n_guides < 3:
            return 0.0
        genes = screen.subset(np.arange(n_genes))
        if self.batches.shape[1]:
            genes = genes.without_fixed(self.batches, self.group)
        own = self.control_guide >= 0
        nothing = np.zeros_like(genes.scatter)
        controls = ScreenMoments(genes.n[own], genes.mean[own], genes.squares[own], nothing)
        pooled = controls.pool(self.control_guide[own], n_guides)
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

        def moments_of(some: NDArray[np.int64], fixed: Any) -> Moments:
            columns = context.indicators[:, some]
            return context_moments(screen, columns, fixed=fixed, guide_variance=variance)

        kept, p = np.arange(context.indicators.shape[1]), screen.n_nodes
        fixed, others = batches, kept[:0]
        if len(kept) > _MOST:
            blocks = np.array_split(kept, -(-len(kept) // _MOST))
            each = (moments_of(some, batches) for some in blocks)
            share = np.concatenate([_explained(joint, n_genes, p) for joint in each])
            order = np.argsort(-share, kind="stable")
            kept, others = np.sort(order[:_MOST]), np.sort(order[_MOST:])
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
    own = variance[n_nodes:]
    return np.where(own > _NONE * max(joint.n, 1), share.sum(axis=1) / own, -1.0)


def _given_others(moments: Moments, stay: NDArray[np.int64]) -> Moments:
    """Return the moments of some nodes at fixed values of all others."""
    gone = np.setdiff1d(np.arange(moments.n_nodes), stay)
    # S_kk - S_kd S_dd^-1 S_dk
    root = np.linalg.cholesky(moments.scatter[np.ix_(gone, gone)])
    explained = np.linalg.solve(root, moments.scatter[np.ix_(gone, stay)])
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
    left, kept = correlation.copy(), []
    for k in range(len(left)):
        if left[k, k] > _LEAST:
            kept.append(k)
            left[k + 1 :, k + 1 :] -= np.outer(left[k + 1 :, k], left[k, k + 1 :]) / left[k, k]
    return np.array(kept, np.int64)


class Panel(NamedTuple):
    """The cells that are read, and the genes whose graph is learned."""

    adata: ad.AnnData
    columns: NDArray[np.int64]  # of the genes, (n_genes,)
    genes: list[str]  # their names
    environments: Environments  # of the cells
    targets: Mapping[str, Sequence[str]]  # genes on which perturbations are known to act, by name


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
    known = {"targets": joint.targets} if joint.targets else {}
    try:
        with parallel_config("sequential") if n_jobs is None else nullcontext():
            best = method.learn(
                cells, options, n_context=cells.n_nodes - p, rng=rng, n_jobs=n_jobs or 1,
                progress=progress, **known,
            )  # fmt: skip
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


def _distinguishable(sets: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the members of every label, or the label itself if they cannot be distinguished."""
    names = sorted({part for parts in sets.values() for part in parts})
    place = {name: k for k, name in enumerate(names)}
    pairs = [(r, place[part]) for r, parts in enumerate(sets.values()) for part in set(parts)]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    holds = sp.csc_array((np.ones(len(rows)), (rows, columns)), shape=(len(sets), len(names)))
    n_groups, group = connected_components(holds.T @ holds, directed=False)
    labels, out = list(sets), dict(sets)
    # For each group of members that share labels, directly or through others.
    for k in range(n_groups):
        members = np.flatnonzero(group == k)
        if len(members) < 2:
            continue
        part = holds[:, members]
        present = np.flatnonzero(part.sum(axis=1))
        # Members with equal columns become one node.
        distinct = np.unique(part.toarray()[present], axis=1)
        if np.linalg.matrix_rank(distinct.T @ distinct, hermitian=True) < distinct.shape[1]:
            out.update({labels[row]: [labels[row]] for row in present})
    return out


def _joined(
    names: list[str], columns: NDArray[np.bool_]
) -> tuple[list[list[str]], NDArray[np.bool_]]:
    """Return the names that share a column, and each distinct column once."""
    groups: dict[bytes, list[int]] = {}
    for k in range(len(names)):
        groups.setdefault(columns[:, k].tobytes(), []).append(k)
    first = [group[0] for group in groups.values()]
    return [[names[k] for k in group] for group in groups.values()], columns[:, first]
