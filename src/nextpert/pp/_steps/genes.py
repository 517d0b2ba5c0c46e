"""The genes of a panel under all their names, and how often control cells show them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.panel import ALIASES, PANELS
from nextpert.pp._steps.bookkeeping import Bookkeeping

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert.pp._steps.bookkeeping import ScreenOptions


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
        """Return one row per name that stood for a gene of another name."""
        names = dict(sorted(self.used.items()))
        columns = {"name": _adata.strings(names), "gene": _adata.strings(names.values())}
        return pd.DataFrame(columns, index=np.arange(len(names)))


@dataclass(frozen=True)
class Panel:
    """The genes of the analysis.

    ``reasons`` says why a target is not among them, ``book`` counts genes step by step, and
    ``constant`` are those left out as they do not vary among the control cells.
    """

    genes: list[str]
    columns: NDArray[np.int64]
    reasons: Mapping[str, str]
    book: Bookkeeping
    constant: list[str]


def gene_names(
    adata: ad.AnnData, aliases: Mapping[str, str] | None, gene_symbols: str | None = None
) -> GeneNames:
    """Return the names of the genes of ``adata``.

    Raises
    ------
    ValueError
        If an alias stands for a gene that is not measured.
    """
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


def choose_panel(
    adata: ad.AnnData,
    controls: NDArray[np.int64],
    names: GeneNames,
    depth: NDArray[np.float64] | None,
    options: ScreenOptions,
) -> Panel:
    """Return those genes of the panel that are seen in, and vary among, the control cells.

    Parameters
    ----------
    adata
        Cells x genes.
    controls
        Rows of the control cells.
    names
        Its genes.
    depth
        Total counts of every cell, where the matrix holds counts.
    options
        ``panel``, ``counts``, ``layer`` and ``gene_symbols`` are looked at.

    Raises
    ------
    ValueError
        If no gene is left.
    """
    genes, columns = _adata.resolve_panel(
        adata, read_panel(options.panel, names), gene_symbols=options.gene_symbols
    )
    seen, constant = _adata.seen_and_constant(adata, columns, controls, options.layer, depth)
    book, n = Bookkeeping(adata.n_vars, "genes"), len(controls)
    reasons = dict.fromkeys(names.measured, "outside the panel")
    keep = np.ones(len(genes), dtype=bool)
    if options.panel is not None:
        book.keep("panel", np.isin(np.arange(adata.n_vars), columns), "outside the panel")
    else:
        least = options.counts.min_seen
        keep = seen >= max(least, 1e-12)
        book.keep("seen", keep, f"seen in less than {least:.0%} of {n} control cells")
        for gene, part in zip(genes, seen.tolist(), strict=True):
            reasons[gene] = f"outside the panel: seen in {part:.1%} of control cells"
        if not keep.any():
            message = (
                f"No gene is seen in {least:.0%} of the {n} control cells: lower min_seen, or name "
                f"the genes with panel."
            )
            raise ValueError(message)
    # A gene that does not vary has no noise to compare an effect with, and no place in a graph.
    every = np.array(genes, dtype=object)
    same = every[keep & constant].tolist()
    why = f"constant among {n} control cells: {_adata.list_names(same)}"
    book.keep("varying", ~np.isin(np.arange(adata.n_vars), columns[constant]), why)
    reasons |= dict.fromkeys(same, "outside the panel: constant among control cells")
    keep &= ~constant
    if not keep.any():
        message = (
            f"All genes of the panel are constant among the {n} control cells: name other genes "
            f"with panel, or check the cells that control names."
        )
        raise ValueError(message)
    return Panel(every[keep].tolist(), columns[keep], reasons, book, same)
