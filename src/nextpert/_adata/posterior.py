"""A stored fit: reading it, and a fingerprint of the cells behind it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.graph import panel_of, read_graph, symbols_of
from nextpert._adata.labels import column_of, read_labels
from nextpert._adata.panel import resolve_panel
from nextpert._adata.read import Checksum, mixed_words, read_screens, stirred
from nextpert._adata.roles import KEY, declared, fitted_roles, role_texts
from nextpert._adata.stored import eager, read_stored
from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core._codec import unpack
from nextpert.core.fit.fitted import FittedPosterior

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

# Of more labelled cells, only every second (third, ...) run of cells is read.
_MOST_CELLS, _RUN = 100_000, 1000
_ODD = np.uint64(0x9E3779B97F4A7C15)


def fingerprint(adata: ad.AnnData, roles: Roles, columns: NDArray[np.int64]) -> str:
    """Return a fingerprint of all labelled cells: columns with a role, and values of the panel.

    It does not depend on how the cells are stored, nor on the order of up to 100,000 cells.
    """
    weights = fingerprint_weights(adata, roles, len(columns))
    _, number = read_screens(adata, columns, [], checksum=weights, layer=roles.layer)
    return f"{weights.roles} {number:016x}"


def require_other_cells(adata: ad.AnnData, features: Any) -> None:
    """Raise if side information is the effects of these same cells, which would count twice.

    It is compared by roles and panel of the fit that it came from, whatever those are now.
    """
    for one in features.values() if isinstance(features, Mapping) else [features]:
        origin = eager(getattr(one, "uns", {}))
        if not isinstance(origin, Mapping) or not {"cells", "panel", "fit_params"} <= set(origin):
            continue
        params = origin["fit_params"]
        try:
            roles = fitted_roles(adata, params)
            genes = list(map(str, origin["panel"]))
            symbols = symbols_of({"params": params})
            _, columns = resolve_panel(adata, genes, gene_symbols=symbols)
            same = fingerprint(adata, roles, columns) == origin["cells"]
        except ValueError:  # without its columns, genes or layer: other cells
            continue
        if same:
            message = (
                "features has effects of these same cells: give effects in another screen, or "
                "leave features out, as the fit learns from these cells anyway."
            )
            raise ValueError(message)


def fingerprint_weights(adata: ad.AnnData, roles: Roles, n_columns: int) -> Checksum:
    """Return the weights of the checksum that a fingerprint of the labelled cells is made from."""
    # An odd number for every labelled cell, equal where all roles are; 0 for others.
    words = np.zeros(adata.n_obs, np.uint64)
    own = read_labels(adata, roles.perturbation_key)
    for key in roles.columns:
        column = column_of(adata, key)
        if column.dtype.kind == "f":
            bits = mixed_words(column.to_numpy()[:, None], np.ones(1, np.uint64))
        else:
            labels = own if key == roles.perturbation_key else read_labels(adata, key)
            each = [hashlib.sha256(name.encode()).digest()[:8] for name in labels.names]
            bits = np.frombuffer(b"".join([*each, bytes(8)]), "<u8")[labels.codes]
        words = stirred(words * _ODD + bits)
    words = np.where(own.codes >= 0, words | np.uint64(1), np.uint64(0))
    of_roles = int(stirred(words).sum(dtype=np.uint64)) + int(np.count_nonzero(words))
    cells = np.flatnonzero(words)
    step = -(-len(cells) // _MOST_CELLS)
    if step > 1:
        words[cells[np.arange(len(cells)) // _RUN % step > 0]] = 0
    # Odd numbers, another for every column.
    spread = (np.arange(n_columns).astype(np.uint64) + np.uint64(1)) * _ODD
    return Checksum(words, stirred(spread) | np.uint64(1), f"{of_roles % 2**64:016x}")


def posterior_from(
    adata: ad.AnnData, key: str = "dag_blr", *, compare: bool = True
) -> FittedPosterior:
    """Return the posterior in ``adata.uns[key]``; with ``compare`` warn if cells have changed.

    Calls that read all cells anyway compare them on the way (:func:`warn_of_changed_cells`).

    Raises
    ------
    ValueError
        If there is none, or if it belongs to another gene panel than ``adata``, or than the
        graph it was fitted on has by now; the genes are named.
    """
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
    # A graph put in by hand, or since deleted, has no panel to compare with.
    if panel_of(of_graph) is not None and dag_key in adata.varp:
        names, _, dag = read_graph(adata, dag_key, symbols)
        if differ := sorted(set(names) ^ set(genes)):
            message = (
                f"adata.uns[{key!r}] was fitted on another gene panel than that of the graph in "
                f"adata.uns[{dag_key!r}]; genes in only one of them: {list_names(differ)}. "
                f"Run tl.fit_dag_blr again."
            )
            raise ValueError(message)
        edges = {(genes[k], genes[i]) for k, i in fit.posterior.dag.edges()}
        if edges != {(names[k], names[i]) for k, i in dag.edges()}:
            message = (
                f"The graph in adata.varp[{dag_key!r}] has changed since adata.uns[{key!r}] was "
                f"fitted: run tl.fit_dag_blr again to use the new one."
            )
            warn(message)
    # Roles that were declared since, and are neither those before nor those of the fit.
    if KEY in adata.uns and fit.fingerprint:
        roles, used = role_texts(declared(adata)), role_texts(fit.params)
        before = json.loads(str((fit.cells or {})["declared"]))
        other = [
            f"{name} {x!r}" for name, x in roles.items() if x not in (before[name], used[name])
        ]
        if other:
            message = (
                f"pp.setup_screen has declared {', '.join(other)} since adata.uns[{key!r}] was "
                f"fitted with other roles: run tl.fit_dag_blr again to use them."
            )
            warn(message)
    if compare:
        weights = checksum_of_cells(adata, fit)
        number = 0
        if weights is not None:
            layer = fit.params.get("layer")
            _, number = read_screens(adata, columns, [], checksum=weights, layer=layer)
        warn_of_changed_cells(adata, fit, key, number)
    return fit


def checksum_of_cells(adata: ad.AnnData, fit: FittedPosterior) -> Checksum | None:
    """Return the weights of the checksum by which the cells of a fit are compared with those now.

    ``None`` where there is nothing to compare.
    """
    layer = fit.params.get("layer")
    gone = str(fit.params["perturbation_key"]) not in adata.obs.columns or not (
        layer is None or layer in adata.layers
    )
    if not fit.fingerprint or gone:
        return None
    return fingerprint_weights(adata, fitted_roles(adata, fit.params), len(fit.columns))


def warn_of_changed_cells(adata: ad.AnnData, fit: FittedPosterior, key: str, checksum: int) -> None:
    """Warn if labels or values of cells are not those that the fit in ``uns[key]`` was made from.

    ``checksum`` is that of the values now, by the weights of :func:`checksum_of_cells`.
    """
    if not fit.fingerprint:
        return
    label_key, layer = str(fit.params["perturbation_key"]), fit.params.get("layer")
    changed = [] if label_key in adata.obs.columns else ["labels"]
    changed += [] if layer is None or layer in adata.layers else ["values"]
    if not changed:
        roles, before = fitted_roles(adata, fit.params), fit.cells or {}
        others = len(roles.columns) > 1
        if fingerprint_weights(adata, roles, 0).roles != before["roles"]:
            changed = [f"columns {list_names(roles.columns)}" if others else "labels"]
        elif f"{checksum:016x}" != before["values"]:
            changed = ["values, or which cells have which labels"]
    if changed:
        message = (
            f"The cells ({' and '.join(changed)}) have changed since adata.uns[{key!r}] was fitted "
            f"to adata.obs[{label_key!r}] and {'adata.X' if layer is None else f'layer {layer!r}'}"
            f": run tl.fit_dag_blr again to use them."
        )
        warn(message)
