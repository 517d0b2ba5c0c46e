"""Reading of a stored fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nextpert._adata.graph import panel_of, read_graph, symbols_of
from nextpert._adata.origin import (
    Origin,
    changed_cells,
    changed_roles,
    fingerprint,
    same_cells,
)
from nextpert._adata.panel import resolve_panel
from nextpert._adata.roles import fitted_roles
from nextpert._adata.stored import eager, read_stored
from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core._codec import unpack
from nextpert.core.fit.fitted import FittedPosterior

if TYPE_CHECKING:
    import anndata as ad


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
    symbols = symbols_of(stored)
    written = (f"uns[{key!r}]", "tl.fit_dag_blr")
    genes, columns = resolve_panel(adata, fit.genes, gene_symbols=symbols, written=written)
    fit = replace(fit, columns=columns)
    dag_key = str(fit.params["dag_key"])
    # A graph written by a user has no record; its panel is every gene.
    had_record = len(genes) < adata.n_vars or "graph_record" in fit.params
    is_gone = had_record and panel_of(adata.uns.get(dag_key)) is None
    if is_gone or dag_key not in adata.varp:
        warn(
            f"adata.uns[{dag_key!r}] or adata.varp[{dag_key!r}], the graph of the fit in "
            f"adata.uns[{key!r}], is no longer there: run tl.learn_dag and tl.fit_dag_blr again."
        )
    else:
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
    if fit.fingerprint and (roles := changed_roles(adata, fit.params)):
        roles_now = f"pp.setup_screen has declared {roles} since the fit"
        warn(f"{roles_now}: run tl.fit_dag_blr again to use them.")
    if fit.fingerprint and (
        changed := changed_cells(adata, Origin(genes, fit.params, fit.fingerprint))
    ):
        warn(f"The cells ({changed}) have changed since the fit: run tl.fit_dag_blr again.")
    return fit
