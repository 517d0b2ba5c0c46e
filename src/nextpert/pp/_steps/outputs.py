"""Outputs of differential expression, a row for each perturbation and gene, as tables."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import ndtri

from nextpert._adata.panel import closest, with_names
from nextpert._adata.sources import real_values
from nextpert.core._checks import list_names

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """Columns of what a method writes.

    Parameters
    ----------
    genes, perturbations
        Columns of genes and perturbations, in the order in which they are looked for; an output
        that has genes as row names is asked for a column.
    effect, base
        Column of the effect, and the base of its logarithm, ``""`` for a ratio.
    se
        Columns of its standard error.
    squared, signed
        Columns of statistics: a square of effect over standard error (a likelihood ratio, or F of
        one degree of freedom), and effect over standard error.
    p
        Columns of two-sided p-values, which are not adjusted.
    largest
        What the method writes for all larger effects.
    """

    genes: tuple[str, ...]
    effect: str
    base: str = "2"
    se: tuple[str, ...] = ()
    squared: tuple[str, ...] = ()
    signed: tuple[str, ...] = ()
    p: tuple[str, ...] = ()
    perturbations: tuple[str, ...] = ()
    largest: float | None = None


OUTPUTS = {
    "plain": Output(("gene",), "effect", "e", ("se",)),
    "deseq2": Output(
        ("gene", "gene_id"), "log2FoldChange", se=("lfcSE",), signed=("stat",), p=("pvalue",)
    ),
    "edger": Output(("gene", "genes"), "logFC", squared=("F", "LR"), p=("PValue",)),
    "glmgampoi": Output(
        ("name", "gene"), "lfc", squared=("f_statistic",), p=("pval",), largest=10.0
    ),
    "sceptre": Output(
        ("response_id",), "log_2_fold_change", p=("p_value",), perturbations=("grna_target",)
    ),
    # As later versions write it: the ratio and its standard error.
    "sceptre ratio": Output(
        ("response_id",), "fold_change", "", ("se_fold_change",), perturbations=("grna_target",)
    ),
}
NAMES = tuple(name for name in OUTPUTS if " " not in name)
# Rank statistics, which show whether there is a difference, but not how large it is.
_OF_RANKS = ("auc", "statistic", "U", "W", "u_statistic", "scores")


def source_of(columns: list[str]) -> str | None:
    """Return what wrote a long table, by its columns; ``None`` where these do not tell.

    Examples
    --------
    >>> from nextpert.pp._steps.outputs import source_of
    >>> source_of(["gene", "log2FoldChange", "lfcSE"]), source_of(["gene", "score"])
    ('deseq2', None)
    """
    names = (name for name, output in OUTPUTS.items() if output.effect in columns)
    return next((name.split()[0] for name in names), None)


def read_output(
    table: pd.DataFrame, source: str, perturbation_key: str | None, gene_key: str | None
) -> tuple[pd.DataFrame, pd.DataFrame, str, str]:
    """Return effects and standard errors of an output of ``source``, one of :data:`NAMES`.

    Also the base of logarithms, and where the standard errors came from, in words.

    Raises
    ------
    ValueError
        If a column is absent, a pair of perturbation and gene is given twice, or no standard error
        follows from what is given.
    """
    columns = [str(column) for column in table.columns]
    if same := sorted({name for name in columns if columns.count(name) > 1}):
        message = f"The table has columns of the same name: {list_names(same)}. Keep one of each."
        raise ValueError(message)
    asked = OUTPUTS[source]
    if asked.effect not in columns and source == "sceptre":
        asked = OUTPUTS["sceptre ratio"]
    if asked.effect not in columns:
        ranks = [name for name in _OF_RANKS if name in columns]
        why = f" {list_names(ranks)} of a rank test is no effect." if ranks else ""
        message = (
            f"The output of {source} has no column {OUTPUTS[source].effect!r} of effects.{why} It "
            f"holds {list_names(columns)}: name the method with source, or give effects and "
            f"standard errors as two tables."
        )
        raise ValueError(message)
    gene = _column(columns, (gene_key,) if gene_key else asked.genes, "genes", "gene_key")
    usual = ("perturbation", *asked.perturbations)
    candidates = (perturbation_key,) if perturbation_key else usual
    label = _column(columns, candidates, "perturbations", "perturbation_key")
    for name, what in ((label, "Rows by perturbation"), (gene, "Rows by gene")):
        table = table[with_names(table[name], what)]
    effect = real_values(table[asked.effect], f"The column {asked.effect!r}")
    if asked.largest is not None:
        capped = np.abs(effect) == asked.largest
        effect = _missing(effect, capped, f"effects are {asked.largest:g} or -{asked.largest:g}")
    se, how = _standard_errors(table, asked, effect)
    if not asked.base:
        with np.errstate(all="ignore"):  # the delta method; a ratio of 0 has no logarithm
            seen = effect > 0
            se = np.where(seen, se / effect, np.nan)
            effect = np.where(seen, np.log(effect), np.nan)
    names = pd.MultiIndex.from_arrays([table[label].astype(str), table[gene].astype(str)])
    if names.has_duplicates:
        twice = names[names.duplicated()].unique()
        shown = list_names(f"{one} on {other}" for one, other in twice)
        message = f"Effects given more than once: {shown}. Keep one row of each."
        raise ValueError(message)
    (rows, labels), (places, genes) = (
        pd.factorize(names.get_level_values(level)) for level in (0, 1)
    )
    wide = np.full((2, len(labels), len(genes)), np.nan)
    wide[:, rows, places] = effect, se
    one, two = (pd.DataFrame(each, index=labels, columns=genes) for each in wide)
    return one, two, asked.base or "e", how


def _column(columns: list[str], candidates: tuple[str, ...], what: str, argument: str) -> str:
    for name in candidates:
        if name in columns:
            return name
    message = (
        f"The table has no column {' or '.join(map(repr, candidates))} of {what}."
        f"{closest(list(candidates), columns)} It holds {list_names(columns)}: name the column "
        f"with {argument}."
    )
    raise ValueError(message)


def _missing(values: np.ndarray, bad: np.ndarray, what: str) -> np.ndarray:
    """Return values as NaN where they are ``bad``, and log their number if there are any."""
    if bad.any():
        logger.warning("%d %s, which says nothing: they are missing.", int(bad.sum()), what)
    return np.where(bad, np.nan, values)


def _standard_errors(
    table: pd.DataFrame, asked: Output, effect: np.ndarray
) -> tuple[np.ndarray, str]:
    """Return standard errors of effects, and the column that they follow from, in words.

    ``effect`` has the shape ``(n_rows,)``, as what is returned; NaN where nothing is known.
    """
    kinds = {n: k for k in ("se", "signed", "squared", "p") for n in getattr(asked, k)}
    name = next((name for name in kinds if name in table), None)
    if name is None:
        message = (
            f"No standard error follows from the columns {list_names(map(str, table.columns))}: "
            f"give {' or '.join(kinds)} beside {asked.effect}."
        )
        raise ValueError(message)
    values = real_values(table[name], f"The column {name!r}")
    if kinds[name] == "se":
        return values, f"column {name}"
    if kinds[name] == "p":
        bad = np.isfinite(effect) & ((values <= 0) | (values >= 1))
        if bad.any():
            message = (
                f"{int(bad.sum())} p-values in {name!r} are not between 0 and 1, so that no "
                f"standard error follows: give the statistic or the standard error as well, or "
                f"leave these rows out."
            )
            raise ValueError(message)
        values = -ndtri(values / 2)
    elif kinds[name] == "squared":
        values = np.sqrt(_missing(values, values < 0, f"values of {name!r} are below 0"))
    with np.errstate(all="ignore"):
        se = np.abs(effect) / np.abs(values)
    # Where statistic or effect are 0, p-values and statistics say nothing of the error.
    known = se > 0 if kinds[name] == "p" else np.abs(values) > 0
    how = f"p-values in column {name}" if kinds[name] == "p" else f"column {name}"
    return np.where(known, se, np.nan), how
