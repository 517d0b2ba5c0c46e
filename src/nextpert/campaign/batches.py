"""The batch of new cells: lined up by its own controls, or said to be one that is known."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from nextpert import _adata

if TYPE_CHECKING:
    import anndata as ad

    from nextpert._adata import Roles

logger = logging.getLogger(__name__)

COLUMN = "campaign_batch"  # where the cells of the start have no column of batches
START, SAME = "start", "same"
_FEW_CONTROLS = 20


def with_batches(
    before: ad.AnnData, new: pd.DataFrame, roles: Roles, batch: str | None, this_time: int
) -> tuple[pd.DataFrame, pd.DataFrame, Roles]:
    """Return ``obs`` of the cells so far and of new ones, with batches, and the roles by now.

    Parameters
    ----------
    before
        The cells so far.
    new
        Columns of the new cells that have a role, as far as they are there.
    roles
        The roles so far.
    batch
        As in :meth:`nextpert.campaign.Campaign.observe`.
    this_time
        How often cells were observed, this time included.

    Raises
    ------
    ValueError
        If a new batch has no control cells, or a batch is not told.
    """
    old = before.obs.copy()
    keys = list(roles.batch_key)
    told = bool(keys) and all(key in new.columns for key in keys)
    if not keys:
        if batch == SAME:
            return old, new, roles
        keys, roles = [COLUMN], replace(roles, batch_key=(COLUMN,))
        old[COLUMN] = START
    if batch is not None or not told:
        if len(keys) > 1:
            message = (
                f"Batches are told by several columns, {_adata.list_names(keys)}: give the new "
                f"cells these columns of obs, and leave batch out."
            )
            raise ValueError(message)
        new = new.assign(**{keys[0]: _named(old[keys[0]], batch, this_time)})
    _require_controls(old, new, keys, roles)
    return old, new, roles


def _named(known: pd.Series, batch: str | None, this_time: int) -> str:
    if batch is None:
        return f"observed {this_time}"
    if batch != SAME:
        return batch
    names = sorted(set(known.dropna()))
    if len(names) == 1:
        return str(names[0])
    message = (
        f"batch='same' could be any of the batches {_adata.list_names(names)}: name the one "
        f"that the new cells are of."
    )
    raise ValueError(message)


def _require_controls(old: pd.DataFrame, new: pd.DataFrame, keys: list[str], roles: Roles) -> None:
    labels = new[roles.perturbation_key]
    known = set(old[old[roles.perturbation_key].notna()][keys].itertuples(index=False, name=None))
    controls = new[labels == roles.control].value_counts(keys)
    for batch in sorted(set(new[labels.notna()][keys].itertuples(index=False, name=None)) - known):
        name = ", ".join(map(str, batch))
        n = int(controls.get(batch, 0))
        if not n:
            message = (
                f"The new batch {name!r} has no control cells ({roles.perturbation_key} == "
                f"{roles.control!r}) to line it up by: add them, or say batch='same' (or the name "
                f"of a batch) if its cells were handled together with earlier ones."
            )
            raise ValueError(message)
        if n < _FEW_CONTROLS:
            logger.warning(
                "The new batch %r is lined up by %d control cells only: what it adds to every "
                "gene is known as badly as their mean.", name, n,
            )  # fmt: skip
