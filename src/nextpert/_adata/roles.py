"""The roles of a screen's columns: declared once, and stored as defaults of all later calls."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from nextpert._adata.panel import closest, in_order
from nextpert._adata.stored import read_stored
from nextpert._adata.table import require_cells
from nextpert.core._checks import list_names
from nextpert.core._codec import strings
from nextpert.core.fit.naming import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import anndata as ad
    import pandas as pd

logger = logging.getLogger(__name__)

KEY = "screen"
_SEVERAL = ("batch_key", "covariates")  # roles that several columns can have


class Kept(Enum):
    """The default of an argument that keeps the stored value; ``None`` clears the value instead."""

    KEPT = "kept"

    def __repr__(self) -> str:
        return "<as before>"


KEPT = Kept.KEPT


@dataclass(frozen=True)
class Roles:
    """The roles of columns in a screen; the fields are arguments of ``pp.setup_screen``."""

    perturbation_key: str = "perturbation"
    control: str = "control"
    guide_key: str | None = None
    condition_key: str | None = None  # also in batch_key
    layer: str | None = None
    batch_key: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    separator: str = SEPARATOR
    gene_symbols: str | None = None  # column of var
    # The scale that pp.setup_screen found in the layer; empty if it was not examined.
    values: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def stored(self) -> dict[str, Any]:
        """Return the roles in their stored form, without unused roles."""
        usual = Roles()
        return {
            name: strings(value) if name in _SEVERAL else value
            for name in ROLES
            if (value := getattr(self, name)) != getattr(usual, name)
            or name in ("perturbation_key", "control")
        }

    @property
    def checks_scale(self) -> bool:
        """Whether values that cannot be log-normalised raise an error."""
        return bool(self.values.get("checked", True))

    @property
    def columns(self) -> list[str]:
        """All columns of ``obs`` that have a role."""
        guide = [] if self.guide_key is None else [self.guide_key]
        return [self.perturbation_key, *guide, *self.batch_key, *self.covariates]


def declared(adata: ad.AnnData) -> dict[str, Any]:
    """Return the roles that ``pp.setup_screen`` has stored; empty if it was not called."""
    return read_stored(adata, KEY, "pp.setup_screen") if KEY in adata.uns else {}


ROLES = tuple(name for name in Roles.__dataclass_fields__ if name != "values")


def read_roles(
    adata: ad.AnnData, *, stored: bool = True, **named_roles: str | Iterable[str] | None
) -> Roles:
    """Return the given roles; for ``None``, those of ``uns["screen"]`` or else the defaults.

    ``given`` are fields of :class:`Roles`; ``stored=False`` ignores ``uns["screen"]``.
    """
    stored_roles = declared(adata) if stored else {}
    merged = {
        name: stored_roles.get(name) if named_roles.get(name) is None else named_roles[name]
        for name in ROLES
    }
    named: dict[str, Any] = {
        name: tuple(map(str, in_order([value] if isinstance(value, str) else value)))
        if name in _SEVERAL
        else str(value)
        for name, value in merged.items()
        if value is not None
    }
    condition = named.get("condition_key")
    if condition is not None and condition not in named.get("batch_key", ()):
        # Effects of conditions on all cells are subtracted like batch effects.
        named["batch_key"] = (*named.get("batch_key", ()), condition)
    roles = Roles(**named)
    for name in ("guide_key", "covariates", "layer"):
        if getattr(roles, name):
            require_cells(adata, f"The role {name}")
    if roles.layer == stored_roles.get("layer"):
        roles = replace(roles, values=stored_roles.get("values", {}))
    present = {str(column) for column in adata.obs.columns}
    absent = [name for name in roles.columns[1:] if name not in present]
    if absent:
        message = (
            f"adata.obs has no columns {list_names(absent)}.{closest(absent, present)} It holds "
            f"{list_names(sorted(present))}: name an existing column, or set the role to None."
        )
        raise ValueError(message)
    twice = sorted({name for name in roles.columns if roles.columns.count(name) > 1})
    if twice:
        message = f"Columns with more than one role: {list_names(twice)}. Give each column one "
        message += "role."
        raise ValueError(message)
    return roles


def renewed_roles(adata: ad.AnnData, **named_roles: Any) -> Roles:
    """Return the roles of ``uns["screen"]``, updated with those ``given``; ``None`` clears a role.

    ``given`` are arguments of ``pp.setup_screen``; ``KEPT`` keeps a role. Errors are those of
    :func:`read_roles`.
    """
    try:
        stored_roles = declared(adata)
    except ValueError as error:  # the remedy is the call in progress
        logger.warning("%s", error)
        stored_roles = {}
    merged = {
        name: stored_roles.get(name) if value is KEPT else value
        for name, value in named_roles.items()
    }
    roles = read_roles(adata, stored=False, **merged)
    is_same_layer = roles.layer == stored_roles.get("layer")
    return replace(roles, values=stored_roles.get("values", {})) if is_same_layer else roles


def screen_record(
    roles: Roles, values: Mapping[str, Any], left_out: pd.DataFrame | None = None
) -> dict[str, Any]:
    """Return ``uns["screen"]``: the roles, the scale of the layer, and labels left out."""
    out = {**roles.stored(), "values": dict(values)}
    return out if left_out is None or left_out.empty else out | {"left_out": left_out}


def fitted_roles(adata: ad.AnnData, params: Any) -> Roles:
    """Return the roles used for a stored result, from its ``params``."""
    return read_roles(adata, stored=False, **{x: params[x] for x in ROLES if x in params})


def role_texts(params: Mapping[str, Any]) -> dict[str, str]:
    """Return each role of ``params`` as text, ``""`` if no column has the role."""
    values = {**vars(Roles()), **params}
    return {
        name: ", ".join(map(str, values[name])) if name in _SEVERAL else str(values[name] or "")
        for name in ROLES
    }
