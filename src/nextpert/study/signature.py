"""Signatures as people have them: lists of genes, gene sets, columns of tables, as changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nextpert._adata.panel import in_order
from nextpert.core._checks import list_names

# Columns of DESeq2, edgeR and limma, and of MAGeCK, with logarithms to base 2.
_LOG2 = ("log2FoldChange", "logFC", "log2FC", "LFC")
_ADJUSTED = ("padj", "FDR", "adj.P.Val", "fdr")
_GENES = ("gene", "gene_name", "gene_symbol", "symbol")
_LEVEL = 0.05  # false discovery rate below which genes of a table count
_SIDES = {"up": 1.0, "down": -1.0}


def as_signature(signature: Any) -> Any:
    """Return a signature as a mapping gene -> change; other values stay as they are.

    ``{"up": genes, "down": genes}`` and lists of genes become changes by 1 and -1, a table of
    differential expression its significant changes, and ``"FILE.gmt"`` or ``"FILE.gmt:SET"`` the
    genes of a set. Logarithms to base 2 become natural logarithms.

    Raises
    ------
    ValueError
        If a gene is both up and down, a table has no column of changes, or a file does not hold
        the set.

    Examples
    --------
    >>> from nextpert.study.signature import as_signature
    >>> as_signature({"up": ["STAT1"], "down": ["MYC"]})
    {'STAT1': 1.0, 'MYC': -1.0}
    >>> import pandas as pd
    >>> as_signature(pd.Series({"STAT1": 2.0}, name="log2FoldChange")).round(2).to_dict()
    {'STAT1': 1.39}
    """
    if isinstance(signature, pd.DataFrame):
        return _of_table(signature)
    if isinstance(signature, pd.Series):
        values = signature.dropna()
        return _natural(values) if signature.name in _LOG2 else values
    if isinstance(signature, Mapping):
        if (
            signature
            and {*signature} <= {*_SIDES}
            and not any(isinstance(x, int | float | np.number) for x in signature.values())
        ):
            return _of_sides(signature)
        return signature
    if isinstance(signature, str | Path):
        return dict.fromkeys(_of_file(str(signature)), 1.0)
    if isinstance(signature, Iterable) and not isinstance(signature, bytes):
        genes = [*in_order(signature)]
        if all(isinstance(gene, str) for gene in genes):
            return dict.fromkeys(genes, 1.0)
    return signature


def _of_sides(sides: Mapping[str, Any]) -> dict[str, float]:
    genes = {side: [str(gene) for gene in in_order(members)] for side, members in sides.items()}
    if conflicting := {*genes.get("up", ())} & {*genes.get("down", ())}:
        message = (
            f"signature has {list_names(sorted(conflicting))} both up and down: name each once."
        )
        raise ValueError(message)
    return {gene: _SIDES[side] for side, members in genes.items() for gene in members}


def _of_table(table: pd.DataFrame) -> pd.Series:
    """Return the significant changes of a table of differential expression."""
    change = next((name for name in _LOG2 if name in table), None)
    if change is None:
        message = (
            f"signature is a table without a column of changes: name one of {list_names(_LOG2)}, "
            f"or pass one column, or a mapping of genes to changes."
        )
        raise ValueError(message)
    genes = next((name for name in _GENES if name in table), None)
    values = table[change] if genes is None else table.set_index(genes)[change]
    adjusted = next((name for name in _ADJUSTED if name in table), None)
    if adjusted is not None:
        values = values[(table[adjusted] < _LEVEL).to_numpy()]
    if not len(values := values.dropna()):
        message = (
            f"signature is a table without a significant gene ({adjusted} below {_LEVEL:g}): pass "
            f"the changes to use, as a mapping of genes to changes."
        )
        raise ValueError(message)
    return _natural(values)


def _natural(values: pd.Series) -> pd.Series:
    """Return natural logarithms, under a name by which they are not converted again."""
    return (values.astype(float) * np.log(2)).rename("change")


def _of_file(address: str) -> list[str]:
    """Return the genes of a set in a gmt file, ``"FILE.gmt"`` or ``"FILE.gmt:SET"``."""
    from nextpert._adata.features import read_gmt

    name, ending, chosen = address.rpartition(".gmt")
    path = Path(f"{name}.gmt")
    if not ending or (chosen and chosen[0] != ":") or not path.is_file():
        message = (
            f"signature is {address!r}, but no such gmt file exists: give 'FILE.gmt:SET', a list "
            f"of genes, {{'up': [...], 'down': [...]}}, or a mapping of genes to changes."
        )
        raise ValueError(message)
    sets, chosen = read_gmt(path), chosen[1:]
    if not chosen and len(sets) == 1:
        (chosen,) = sets
    if chosen not in sets:
        message = (
            f"{str(path)!r} has {len(sets)} gene sets, none of which is {chosen!r}: name one as "
            f"'{path.name}:SET', such as {list_names(sets, limit=3)}."
        )
        raise ValueError(message)
    return sets[chosen]
