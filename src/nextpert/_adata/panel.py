"""Gene panels: columns of gene names, hints for unknown names, and the panel of the paper."""

from __future__ import annotations

import difflib
import logging
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert.core._checks import list_names

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Mapping, Sequence, Set

    import anndata as ad
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

# The 36 genes of the Perturb-CITE-seq analysis of Zhang et al. 2023,
# doi:10.1038/s42256-023-00719-0.
ZHANG2023 = (
    "B2M", "CCR10", "CD58", "CD59", "CDH19", "CDK4", "CDK6", "CTSA", "CTSB", "CTSD", "CXCR4",
    "DNMT1", "EIF3K", "FOS", "HLA-A", "HLA-B", "HLA-C", "HLA-E", "IFNGR1", "IFNGR2", "IRF3",
    "LAMP2", "MYC", "NGFR", "NPC1", "NPC2", "RB1", "SAT1", "SEC11C", "SERPINE2", "SMAD4", "SOX4",
    "SP100", "STAT1", "STAT3", "TGFB1",
)  # fmt: skip

PANELS: Mapping[str, tuple[str, ...]] = {"zhang2023": ZHANG2023}

# Regulatory modules (genes perturbed together) of Frangieh et al. 2021,
# doi:10.1038/s41588-021-00779-1, as in its figure. No gene of the panel belongs to two modules.
_MODULES = {
    "m1": "CD59 CDH19 IRF3 RB1 SOX4 SP100",
    "m2": "CD58 CTSD CXCR4 HLA-C SMAD4",
    "m3": "CDK4 CTSA FOS HLA-A HLA-E",
    "m5": "EIF3K LAMP2 NPC1 NPC2 SAT1 SEC11C",
    "m6": "B2M CCR10 HLA-B NGFR TGFB1",
}
MODULE_OF = {gene: name for name, genes in _MODULES.items() for gene in genes.split()}


_ENSEMBL = re.compile(r"ENS[A-Z]*G\d{8,}")
# Names of guides and perturbations that contain the gene: sgMYC, MYC_2, MYCg2, MYC-sg1, MYC_KO.
_PREFIX = re.compile(r"^sg(RNA)?[-_.]?", re.IGNORECASE)
_SUFFIXES = (
    re.compile(r"$"),
    re.compile(r"[-_.]?(sg|g|gRNA|sgRNA|guide|grna)?[-_.]?\d+$"),
    re.compile(r"[-_. ]?(ko|kd|oe|null|del|crispri|crispra|knockout|knockdown)$", re.IGNORECASE),
)


def closest(names: Iterable[str], options: Iterable[str], n: int = 3) -> str:
    """Return ``" Close matches: ..."`` for misspelt names, or an empty string."""
    by_lower = {str(option).lower(): str(option) for option in options}
    matches: list[str] = []
    for name in list(names)[:10]:
        close = difflib.get_close_matches(str(name).lower(), list(by_lower), n=n, cutoff=0.6)
        matches += [by_lower[match] for match in close if by_lower[match] not in matches]
    return f" Close matches: {list_names(matches)}." if matches else ""


def in_order(values: Iterable[Any]) -> list[Any]:
    """Return values as a list; a set is sorted, because its order depends on the hash seed."""
    return sorted(values, key=str) if isinstance(values, (set, frozenset)) else list(values)


def with_names(names: Any, what: str = "") -> NDArray[np.bool_]:
    """Return which names are neither missing nor blank, shape ``(n_names,)``.

    If ``what`` is given, the number of all other names, which the caller leaves out, is logged
    under this heading.
    """
    if isinstance(names, pd.MultiIndex):
        message = f"{what} have names of several levels: join the levels (index.map('_'.join))."
        raise ValueError(message)
    code, values = pd.factorize(np.array(pd.Series(names, dtype=object)))
    without = np.array([not str(value).strip() for value in values] + [True])[code]
    if what and without.any():
        n = int(without.sum())
        logger.warning("%s: %d without a name (missing or empty) are left out.", what, n)
    return ~without


def measured_genes(adata: ad.AnnData, gene_symbols: str | None = None) -> list[str]:
    """Return the names of all genes: those of ``adata.var_names``, or a column of ``adata.var``.

    ``None`` stands for the column declared by ``pp.setup_screen``, if there is one, and ``""`` for
    ``adata.var_names``. A gene without a symbol keeps its name from ``adata.var_names``; genes that
    share a symbol are named by symbol and name, as in ``TBCE_ENSG00000284770``.
    """
    names = [str(name) for name in adata.var_names]
    gene_symbols = _column_of_symbols(adata, gene_symbols)
    if not gene_symbols:
        return names
    if gene_symbols not in adata.var.columns:
        columns = [str(column) for column in adata.var.columns]
        message = f"adata.var has no column {gene_symbols!r}.{closest([gene_symbols], columns)}"
        shown = list_names(columns) or "no column"
        raise ValueError(f"{message} It holds {shown}: pass an existing column as gene_symbols.")
    column = adata.var[gene_symbols]
    # Columns of anndata.experimental.read_lazy are lazy.
    if hasattr(column, "to_series"):
        column = column.to_series()
    there = with_names(column)
    symbols = column.astype(str)
    times = Counter(symbols)
    return [
        name if not named else symbol if times[symbol] == 1 else f"{symbol}_{name}"
        for name, symbol, named in zip(names, symbols, there, strict=True)
    ]


def _column_of_symbols(adata: ad.AnnData, given: str | None) -> str:
    screen: Any = adata.uns.get("screen") if given is None else {"gene_symbols": given}
    return str(screen.get("gene_symbols", "")) if hasattr(screen, "get") else ""


def resolve_panel(
    adata: ad.AnnData,
    genes: Iterable[str] | None,
    *,
    least: int = 1,
    gene_symbols: str | None = None,
    written: tuple[str, str] | None = None,
) -> tuple[list[str], NDArray[np.int64]]:
    """Return the names of a panel and their columns; ``None`` stands for every gene.

    ``gene_symbols`` is as in :func:`measured_genes`. If the genes come from a stored result,
    ``written`` holds its slot and the function that wrote it.
    """
    measured = measured_genes(adata, gene_symbols)
    names = measured if genes is None else [str(gene) for gene in in_order(genes)]
    counts = Counter(measured)
    absent = [name for name in names if name not in counts]
    unclear = sorted({name for name in names if counts[name] > 1})
    if absent or unclear:
        symbols = _column_of_symbols(adata, gene_symbols)
        where = f"adata.var[{symbols!r}]" if symbols else "adata.var_names"
    if absent and written is not None:
        message = f"adata lacks genes of adata.{written[0]}: {list_names(absent)}."
        message += f" Restore these genes, or run {written[1]} again without them."
        raise ValueError(message)
    if absent:
        message = (
            f"Genes not in {where}: {list_names(absent)}.{closest(absent, measured)} "
            f"Correct the names or leave these genes out.{id_hint(absent, measured)}"
        )
        raise ValueError(message)
    if unclear:
        message = f"{where} holds genes more than once: {list_names(unclear)}. Drop the "
        message += "duplicates, or call adata.var_names_make_unique() first."
        raise ValueError(message)
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        message = f"Genes given more than once: {list_names(twice)}. Give each gene once."
        raise ValueError(message)
    if len(names) < least:
        message = f"The panel has {len(names)} genes, but at least {least} are needed: add genes."
        raise ValueError(message)
    column = {name: j for j, name in enumerate(measured)}
    return names, np.array([column[name] for name in names], dtype=np.int64)


def id_hint(names: Iterable[str], measured: Collection[str]) -> str:
    """Return a hint if most measured genes have Ensembl ids, but not all ``names`` are ids."""
    ids = sum(_ENSEMBL.match(name) is not None for name in measured)
    if 2 * ids <= len(measured) or all(_ENSEMBL.match(name) for name in names):
        return ""
    return (
        " The genes are named by Ensembl ids: pass the column of adata.var that holds their "
        "symbols as gene_symbols."
    )


def guide_hint(names: Iterable[str], measured: Set[str]) -> str:
    """Return a hint about labels that name guides, types of perturbation, or several genes."""
    genes = {name: _gene_of_guide(name, measured) for name in names}
    of_guides = [f"{name} (of {gene})" for name, gene in genes.items() if gene]
    joined = (
        f" {name} names several genes: declare separator={mark!r} with pp.setup_screen."
        for name in genes
        for mark in ";,|/&_"
        if len(parts := {part.strip() for part in name.split(mark)}) > 1 and parts <= measured
    )
    hint = next(joined, "")
    if of_guides:
        hint += (
            f" These labels name guides, or have a suffix: {list_names(of_guides, limit=5)}. Label "
            f"cells by gene first (pp.assign_guides)."
        )
    return hint


def _gene_of_guide(name: str, measured: Container[str]) -> str | None:
    stripped = _PREFIX.sub("", name)
    for pattern in _SUFFIXES:
        gene = pattern.sub("", stripped)
        if gene != name and gene in measured:
            return gene
    return None


def panel_index(names: Iterable[str], genes: Sequence[str], what: str) -> list[int]:
    """Return the positions of ``names`` in the panel ``genes``; an error lists the absent ones."""
    position = {gene: i for i, gene in enumerate(genes)}
    asked = [str(name) for name in names]
    outside = [name for name in asked if name not in position]
    if outside:
        message = (
            f"{what} names genes outside the panel: {list_names(dict.fromkeys(outside))}."
            f"{closest(outside, genes)} Name only genes of the panel, as it names them "
            f"({list_names(genes, limit=3)})."
        )
        raise ValueError(message)
    return [position[name] for name in asked]
