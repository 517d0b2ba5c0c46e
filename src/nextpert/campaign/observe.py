"""New cells beside those so far, with the roles that both have."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from nextpert import _adata
from nextpert._adata.join import joined_cells, kept_cells, require_genes
from nextpert._adata.roles import Roles, read_roles
from nextpert._adata.target import columns_of
from nextpert.campaign.batches import with_batches

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad

logger = logging.getLogger(__name__)


def roles_of(adata: ad.AnnData, options: Mapping[str, Mapping[str, Any]]) -> Roles:
    """Return the roles of the cells of a campaign; what joins members is said for the fit."""
    return read_roles(adata, separator=options["fit"].get("separator"))


def first_cells(adata: ad.AnnData, target: Any, roles: Roles) -> ad.AnnData:
    """Return a copy of what a campaign needs of the cells it starts from."""
    _adata.require_layer(adata, roles.layer)
    _adata.require_control(_adata.read_labels(adata, roles.perturbation_key), roles.control)
    columns = roles.columns
    for column in columns_of(target):
        if column not in columns:
            _adata.read_labels(adata, column, argument="target")
            columns = [*columns, column]
    return kept_cells(adata, columns, roles.layer, numbers=roles.covariates)


def with_new_cells(
    before: ad.AnnData,
    cells: ad.AnnData,
    roles: Roles,
    panel: Sequence[str],
    batch: str | None,
    this_time: int,
) -> tuple[ad.AnnData, ad.AnnData, Roles]:
    """Return all cells, the new ones alone, and the roles by now.

    Raises
    ------
    ValueError
        If genes of the panel, a column with a role, the layer, labels or controls are absent.
    """
    genes = require_genes(cells, panel, [str(gene) for gene in before.var_names])
    _adata.require_layer(cells, roles.layer)
    there = {str(column) for column in cells.obs.columns}
    wanted = [str(name) for name in before.obs.columns]
    needed = [name for name in roles.columns if name not in roles.batch_key]
    absent = [name for name in needed if name not in there]
    if absent:
        message = (
            f"obs of the new cells has no columns {_adata.list_names(absent)}, which have a role "
            f"in this campaign.{_adata.closest(absent, there)} It holds "
            f"{_adata.list_names(sorted(there)) or 'no column'}."
        )
        raise ValueError(message)
    new = kept_cells(
        cells, [name for name in wanted if name in there], roles.layer,
        numbers=roles.covariates, genes=genes,
    )  # fmt: skip
    if not new.obs[roles.perturbation_key].notna().any():
        message = f"No new cell has a label in obs[{roles.perturbation_key!r}]: nothing to observe."
        raise ValueError(message)
    old, told, roles = with_batches(before, new.obs, roles, batch, this_time)
    before = before.copy()
    before.obs, new.obs = old, told
    return joined_cells(before, new, roles.layer, f"-{this_time}"), new, roles


def labels_and_cells(adata: ad.AnnData, roles: Roles) -> dict[str, int]:
    """Return how many cells there are of every perturbation."""
    labels = _adata.read_perturbations(adata, roles)
    return {name: labels.n_cells(name) for name in labels.names}


def panel_of(adata: ad.AnnData) -> list[str]:
    """Return the genes of the graph by their names in ``adata.var_names``."""
    stored = adata.uns["dag"]
    symbols = _adata.symbols_of(stored)
    _, columns = _adata.resolve_panel(adata, stored["genes"], gene_symbols=symbols)
    return [str(adata.var_names[i]) for i in columns]


def digest(adata: ad.AnnData, roles: Roles, panel: Sequence[str]) -> str:
    """Return a fingerprint of labelled cells, by which the same ones are known again."""
    _, columns = _adata.resolve_panel(adata, list(panel))
    labels = _adata.read_labels(adata, roles.perturbation_key)
    return " ".join(_adata.fingerprint(adata, labels, columns, roles.layer).values())
