"""Reading of a stored fit, and a fingerprint of its cells."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from pandas.util import hash_array

from nextpert._adata.graph import panel_of, read_graph, symbols_of
from nextpert._adata.labels import column_of, read_labels
from nextpert._adata.panel import resolve_panel
from nextpert._adata.read import read_blocks, require_layer, slot
from nextpert._adata.roles import KEY, declared, fitted_roles, role_texts
from nextpert._adata.sources import dense
from nextpert._adata.stored import eager, read_stored
from nextpert._adata.table import SE, is_table
from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core._codec import unpack
from nextpert.core.fit.fitted import FittedPosterior

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

# Cells whose values are compared if the matrix is in a file: transformations of a matrix usually
# change all of its cells.
_SAMPLED = 16


def fingerprint(adata: ad.AnnData, roles: Roles, columns: NDArray[np.int64]) -> str:
    """Return digests of the names and roles of all labelled cells, and of the values of 16 cells.

    For a matrix in memory, a digest of all values follows after a colon. The digests depend neither
    on the order of cells nor on the format of the matrix; :func:`same_cells` compares them.
    """
    words = hash_array(np.array(adata.obs_names, dtype=object))
    for key in roles.columns:
        column = column_of(adata, key)
        if column.dtype.kind == "f":
            own = hash_array(column.to_numpy(np.float64))
        else:
            labels = read_labels(adata, key)
            own = np.append(hash_array(np.array(labels.names, dtype=object)), 0)[labels.codes]
        words = hash_array(words + np.uint64(3) * own)
    labelled = np.flatnonzero(read_labels(adata, roles.perturbation_key).codes >= 0)
    cells = labelled[np.argsort(words[labelled], kind="stable")][:_SAMPLED]
    layers = [roles.layer, SE] if is_table(adata) else [roles.layer]
    matrices = [require_layer(adata, layer)[1] for layer in layers]
    in_memory = all(isinstance(each, np.ndarray) or sp.issparse(each) for each in matrices)
    values, every = np.zeros((len(layers), len(cells), len(columns))), 0
    for k, layer in enumerate(layers):
        for some, block in read_blocks(
            adata, columns, labelled if in_memory else cells, layer=layer, finite=False,
            of_table=True,
        ):  # fmt: skip
            sampled, row = np.nonzero(cells[:, None] == some)
            values[k, sampled] = dense(block[row]) + 0.0  # no -0.0
            if in_memory:
                every += int(hash_array(words[some] + _row_words(block)).sum(dtype=np.uint64))
    total = int(words[labelled].sum(dtype=np.uint64))
    found = f"{total:016x} {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"
    return f"{found}:{every % 2**64:016x}" if in_memory else found


def _row_words(block: Any) -> NDArray[np.uint64]:
    """Return a hash of the values of every row, which does not depend on stored zeros."""
    # The factors are odd, so that the product preserves every change of a value.
    factors = hash_array(np.arange(block.shape[1])) | np.uint64(1)
    is_sparse = sp.issparse(block)
    # The bits of 0 are 0, so that zeros add nothing; sums of integers are exact modulo 2^64.
    bits = (np.asarray(block.data if is_sparse else block, np.float64) + 0.0).view(np.uint64)
    if not is_sparse:
        return np.asarray((bits * factors).sum(axis=1, dtype=np.uint64))
    total = np.append(np.uint64(0), np.cumsum(bits * factors[block.indices], dtype=np.uint64))
    return np.asarray(total[block.indptr[1:]] - total[block.indptr[:-1]])


def same_cells(one: str, other: str) -> bool:
    """Return whether two fingerprints describe the same cells, by the digests that both have."""
    (a, _, x), (b, _, y) = one.partition(":"), other.partition(":")
    return a == b and (x == y or not (x and y))


def require_other_cells(adata: ad.AnnData, features: Any) -> None:
    """Raise if side information holds effects from the cells of ``adata``, which would count twice.

    The comparison uses the roles and panel of the fit behind the side information, whether or not
    they have changed since.
    """
    origin = eager(getattr(features, "uns", {}))
    if not isinstance(origin, Mapping) or not {"cells", "panel", "fit_params"} <= set(origin):
        return
    params = origin["fit_params"]
    try:
        symbols = symbols_of({"params": params})
        _, columns = resolve_panel(adata, map(str, origin["panel"]), gene_symbols=symbols)
        now = fingerprint(adata, fitted_roles(adata, params), columns)
        same = same_cells(now, str(origin["cells"]))
    except ValueError:  # columns, genes or layer are missing: these are other cells
        return
    if same:
        message = "features has effects from the cells of adata: give effects from another screen."
        raise ValueError(message)


def posterior_from(adata: ad.AnnData, key: str = "dag_blr") -> FittedPosterior:
    """Return the posterior in ``adata.uns[key]``, and warn if cells or graph have changed."""
    if not hasattr(adata.uns.get(key), "keys") or "posterior" not in adata.uns[key]:
        message = f"adata.uns has no posterior {key!r}: run tl.fit_dag_blr first."
        raise ValueError(message)
    stored = read_stored(adata, key, "tl.fit_dag_blr")
    where, remedy = f"adata.uns[{key!r}]", "run tl.fit_dag_blr again"
    fit = unpack(FittedPosterior, stored, where, remedy)
    symbols, written = symbols_of(stored), (f"uns[{key!r}]", "tl.fit_dag_blr")
    genes, columns = resolve_panel(adata, fit.genes, gene_symbols=symbols, written=written)
    fit = replace(fit, columns=columns)
    dag_key = str(fit.params["dag_key"])
    of_graph = adata.uns.get(dag_key, {})
    # A graph written by a user, or deleted since, has no panel to compare with.
    if panel_of(of_graph) is not None and dag_key in adata.varp:
        names, _, dag = read_graph(adata, dag_key, symbols)
        if differ := sorted(set(names) ^ set(genes)):
            message = (
                f"adata.uns[{key!r}] and the graph {dag_key!r} have different gene panels "
                f"({list_names(differ)}): run tl.fit_dag_blr again."
            )
            raise ValueError(message)
        edges = {(genes[k], genes[i]) for k, i in fit.posterior.dag.edges()}
        if edges != {(names[k], names[i]) for k, i in dag.edges()}:
            warn(f"The graph {dag_key!r} has changed since the fit: run tl.fit_dag_blr again.")
    if KEY in adata.uns and fit.fingerprint:
        roles, used = role_texts(declared(adata)), role_texts(fit.params)
        if other := [f"{name} {x!r}" for name, x in roles.items() if x != used[name]]:
            roles_now = f"pp.setup_screen has declared {', '.join(other)} since the fit"
            warn(f"{roles_now}: run tl.fit_dag_blr again to use them.")
    if fit.fingerprint and (changed := _changed(adata, fit)):
        warn(f"The cells ({changed}) have changed since the fit: run tl.fit_dag_blr again.")
    return fit


def _changed(adata: ad.AnnData, fit: FittedPosterior) -> str:
    """Return what has changed in the cells since the fit, or an empty string."""
    try:
        roles = fitted_roles(adata, fit.params)
        column_of(adata, roles.perturbation_key)
        is_there = roles.layer is None or roles.layer in adata.layers
    except ValueError:
        is_there = False
    if not is_there:
        return "a column or layer of the fit is missing"
    now = fingerprint(adata, roles, fit.columns)
    if now.split()[0] != fit.fingerprint.split()[0]:
        return f"names, or columns {list_names(roles.columns)}"
    return "" if same_cells(now, fit.fingerprint) else f"values of {slot(roles.layer)}"
