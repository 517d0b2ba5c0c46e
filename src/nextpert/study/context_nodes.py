"""Context nodes of a screen, and the table of their edges into genes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from nextpert._adata import list_names, strings
from nextpert.core.search.context import ContextNodes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert._adata.screen import Environments
    from nextpert.core.search.context import Joint

logger = logging.getLogger(__name__)


def context_nodes(
    environments: Environments,
    genes: Sequence[str],
    acts_on: Mapping[str, Sequence[str]] | None = None,
) -> ContextNodes:
    """Return the context nodes of some environments; a combination sets all its members.

    Members that are always set together are one node. If members cannot be distinguished
    (because there are more members than combinations), the combinations are nodes instead.
    ``acts_on`` has the known target genes of perturbations and conditions
    (:func:`~nextpert.study.prior.read_targets`). A node of several members acts on the
    targets of all, if all are known.
    """
    naming = environments.naming_on(genes)
    sets: dict[str, list[str]] = {}
    for name in environments.perturbations():
        inside, outside = naming.targets(name)
        sets[name] = [*inside, *outside] or [name]
    sets = _distinguishable(sets)
    parts = sorted({part for members in sets.values() for part in members})
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
        control_guides = environments.table[roles.guide_key].to_numpy(dtype=object)[is_control]
        guide[is_control] = np.unique(control_guides.astype(str), return_inverse=True)[1]
    group = np.unique(label.astype(str), return_inverse=True)[1]
    batches = environments.indicators(environments.roles.batch_key)[1]
    first, targets, acts_on = environments.covariate_names, {}, acts_on or {}
    column_of = {gene: i for i, gene in enumerate(genes)}
    merged = ["+".join(nodes) for nodes in groups]
    for k, (name, nodes) in enumerate(zip(merged, groups, strict=True), start=len(first)):
        # A node acts on its given targets, or else on the targets of all its members.
        parts = [part for x in nodes for part in ([x] if x in acts_on else naming.key(x))]
        parts = [name] if name in acts_on else parts
        if all(part in acts_on for part in parts):
            targets[k] = sorted({column_of[gene] for part in parts for gene in acts_on[part]})
    return ContextNodes(first + merged, columns, batches, group, guide, targets)


def _distinguishable(sets: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the members of every label, or the label itself if they cannot be distinguished."""
    names = sorted({part for parts in sets.values() for part in parts})
    column_of = {name: k for k, name in enumerate(names)}
    pairs = [(r, column_of[part]) for r, parts in enumerate(sets.values()) for part in set(parts)]
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


def log_explained(joint: Joint, context: ContextNodes) -> None:
    """Warn of context nodes that are not in the search because others explain them."""
    nodes = {*joint.present.tolist(), *joint.others.tolist()}
    explained = sorted(set(range(len(context.names))) - nodes)
    # For example, in a plate without controls one perturbation cannot be separated from the plate.
    if explained:
        logger.warning(
            "Left out of the search: %s. Their effects cannot be separated from those of batches "
            "and other perturbations.",
            list_names([context.names[k] for k in explained]),
        )


def target_table(
    names: Sequence[str],
    genes: Sequence[str],
    edges: NDArray[np.bool_],
    frequency: NDArray[np.float64] | None,
) -> pd.DataFrame:
    """Return one row per edge from a context node into a gene.

    ``edges`` and their ``frequency`` in resamples have one row per name, ``(n_context, n_genes)``.
    The table has the edges of the graph, and those in at least half of the resamples.
    """
    shown = edges if frequency is None else edges | (frequency >= 0.5)
    rows, columns = (index.tolist() for index in np.nonzero(shown))
    table = pd.DataFrame(
        {
            "perturbation": strings(names[k] for k in rows),
            "gene": strings(genes[i] for i in columns),
        }
    )
    if frequency is not None:
        table["frequency"] = frequency[rows, columns]
    return table
