"""Gene panels: names to columns, with errors that name the gene and what may have been meant."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad
    from numpy.typing import NDArray


def list_names(names: Iterable[str], limit: int = 10) -> str:
    """Return ``"A, B, C"``, or ``"A, B, ... and 7 more"`` for more than ``limit`` names."""
    shown = [str(name) for name in names]
    more = len(shown) - limit
    return ", ".join(shown[:limit]) + (f" and {more} more" if more > 0 else "")


def closest(names: Iterable[str], options: Iterable[str], n: int = 3) -> str:
    """Return ``" Close matches: ..."`` for misspelt names, or an empty string."""
    by_lower = {str(option).lower(): str(option) for option in options}
    found: list[str] = []
    for name in list(names)[:10]:
        close = difflib.get_close_matches(str(name).lower(), list(by_lower), n=n, cutoff=0.6)
        found += [by_lower[match] for match in close if by_lower[match] not in found]
    return f" Close matches: {list_names(found)}." if found else ""


def in_order(values: Iterable[Any]) -> list[Any]:
    """Return values as a list, those of a set sorted: its own order hangs on the hash seed."""
    return sorted(values, key=str) if isinstance(values, (set, frozenset)) else list(values)


def resolve_panel(
    adata: ad.AnnData, genes: Iterable[str] | None, *, least: int = 1
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of a panel and their columns; ``None`` stands for every gene.

    Raises
    ------
    ValueError
        If genes are absent, given twice, not unique in ``adata.var_names``, or fewer than
        ``least``.
    """
    measured = [str(name) for name in adata.var_names]
    names = measured if genes is None else _as_names(genes)
    counts = Counter(measured)
    absent = [name for name in names if name not in counts]
    if absent:
        message = (
            f"Genes not in adata.var_names: {list_names(absent)}.{closest(absent, measured)} "
            f"Correct the names or leave these genes out."
        )
        raise ValueError(message)
    unclear = sorted({name for name in names if counts[name] > 1})
    if unclear:
        message = (
            f"adata.var_names holds these genes more than once: {list_names(unclear)}. "
            f"Drop the copies, or call adata.var_names_make_unique() first."
        )
        raise ValueError(message)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        message = f"Genes given more than once: {list_names(twice)}. Give every gene once."
        raise ValueError(message)
    if len(names) < least:
        message = f"The panel holds {len(names)} genes, but at least {least} are needed."
        raise ValueError(message)
    column = {name: j for j, name in enumerate(measured)}
    return names, np.array([column[name] for name in names], dtype=np.int64)


def panel_index(names: Iterable[str], genes: Sequence[str], what: str) -> list[int]:
    """Return the positions of ``names`` in the panel ``genes``, or raise naming the others."""
    position = {gene: i for i, gene in enumerate(genes)}
    wanted = [str(name) for name in names]
    outside = [name for name in wanted if name not in position]
    if outside:
        message = (
            f"{what} names genes outside the panel: {list_names(dict.fromkeys(outside))}."
            f"{closest(outside, genes)}"
        )
        raise ValueError(message)
    return [position[name] for name in wanted]


def _as_names(genes: Iterable[str]) -> list[str]:
    if isinstance(genes, str):
        message = (
            f"genes must be a list of gene names, but is the string {genes!r}: use [{genes!r}]."
        )
        raise TypeError(message)
    return [str(gene) for gene in in_order(genes)]
