"""The genes of a panel under all their names, and how often control cells show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.known_panels import ALIASES, PANELS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad


@dataclass(frozen=True)
class GeneNames:
    """Names to the genes of ``adata.var_names``.

    Parameters
    ----------
    measured
        The genes measured.
    given
        The user's aliases, name -> gene; they come first.
    used
        Names that stood for a gene of another name so far; grows as names are looked up.
    """

    measured: frozenset[str]
    given: dict[str, str]
    used: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> str:
        """Return the measured gene of a name, or the name itself where none is measured."""
        gene = self.given.get(name, name)
        if gene not in self.measured and ALIASES.get(name) in self.measured:
            gene = ALIASES[name]
        if gene != name:
            self.used[name] = gene
        return gene

    def table(self) -> pd.DataFrame:
        """Return one row a name that stood for a gene of another name."""
        names = sorted(self.used)
        genes = [self.used[name] for name in names]
        return pd.DataFrame(
            {"name": _adata.strings(names), "gene": _adata.strings(genes)},
            index=pd.Index(np.arange(len(names))),
        )


def gene_names(
    adata: ad.AnnData, aliases: Mapping[str, str] | None, gene_symbols: str | None = None
) -> GeneNames:
    """Return the names of the genes of ``adata``.

    Raises
    ------
    ValueError
        If an alias stands for a gene that is not measured.
    """
    if aliases is not None and not isinstance(aliases, Mapping):
        message = f"aliases must be a mapping {{name: gene}}, but is a {type(aliases).__name__}."
        raise TypeError(message)
    given = {str(name): str(gene) for name, gene in (aliases or {}).items()}
    measured = _adata.measured_genes(adata, gene_symbols)
    names = GeneNames(frozenset(measured), given)
    absent = sorted({gene for gene in given.values() if gene not in names.measured})
    if absent:
        message = (
            f"aliases names genes that are not in adata.var_names: {_adata.list_names(absent)}."
            f"{_adata.closest(absent, measured)}"
        )
        raise ValueError(message)
    return names


def read_panel(panel: str | Iterable[str] | None, names: GeneNames) -> list[str] | None:
    """Return the genes of a panel, aliases resolved; ``None`` for every gene that is seen."""
    if panel is None:
        return None
    if isinstance(panel, str):
        if panel not in PANELS:
            message = (
                f"panel must be a list of genes, or {' or '.join(map(repr, PANELS))}, but is "
                f"{panel!r}."
            )
            raise ValueError(message)
        panel = PANELS[panel]
    return [names.find(str(name)) for name in _adata.in_order(panel)]
