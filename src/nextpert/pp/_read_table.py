"""Effects and standard errors in all their forms: two tables, an AnnData, a long table, cells."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.labels import column_of
from nextpert._adata.panel import closest, with_names
from nextpert._adata.roles import KEY as SCREEN
from nextpert._adata.screen import coding, read_environments, read_screens
from nextpert._adata.sources import real_values
from nextpert._adata.table import SAMPLES, SE, shrunk_correlation
from nextpert.core._checks import list_names
from nextpert.core.model.within_cells import without_responses
from nextpert.core.screen.guides import distinct, pool_guides, spread_within

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

# Control cells or samples that a correlation needs. Of effects called on 100 correlated genes, 15
# of 918 were false with 20 (1.8 stated, 8 allowed), and 1 of 939 with 50 (1.6 stated, 7 allowed).
FEWEST = 50


class Output(NamedTuple):
    """Columns of what a method writes, in the order in which they are looked for.

    ``base`` is that of the logarithm of ``effect``, ``""`` for a ratio. ``squared`` are statistics
    that are the square of effect over standard error (a likelihood ratio, or F of one degree of
    freedom).
    """

    genes: tuple[str, ...]
    effect: str
    base: str = "2"
    se: tuple[str, ...] = ()
    signed: tuple[str, ...] = ()
    squared: tuple[str, ...] = ()
    perturbations: tuple[str, ...] = ("perturbation",)


OUTPUTS = {
    "plain": Output(("gene",), "effect", "e", ("se",)),
    "deseq2": Output(("gene", "gene_id"), "log2FoldChange", se=("lfcSE",), signed=("stat",)),
    "edger": Output(("gene", "genes"), "logFC", squared=("F", "LR")),
    "sceptre": Output(
        ("response_id",), "fold_change", "", ("se_fold_change",),
        perturbations=("perturbation", "grna_target"),
    ),
}  # fmt: skip


class Given(NamedTuple):
    """Effects and standard errors as given, and the tables that may say more of them.

    ``labels`` are those of the rows, ``how`` says where standard errors came from, and ``roles``
    and ``correlation`` are those of the cells that were given in place of a table.
    """

    effects: pd.DataFrame
    se: pd.DataFrame
    labels: list[str]
    obs: pd.DataFrame
    var: pd.DataFrame
    base: str | None
    how: str = ""
    roles: Roles | None = None
    correlation: Array | None = None
    source: str = "table"

    def rows(self, kept: NDArray[np.bool_]) -> Given:
        """Return some of the rows."""
        labels = [self.labels[j] for j in np.flatnonzero(kept)]
        return self._replace(
            effects=self.effects[kept], se=self.se[kept], labels=labels, obs=self.obs[kept]
        )


def read_table(
    adata: ad.AnnData | pd.DataFrame,
    se: pd.DataFrame | str | None,
    source: str | None,
    perturbation_key: str | None,
) -> Given:
    """Return what was given; the arguments are those of :func:`effect_table`."""
    if isinstance(adata, ad.AnnData):
        if isinstance(se, pd.DataFrame) or source is not None:
            message = "With an AnnData, se is the name of a layer, and source is left out."
            raise ValueError(message)
        name = se or SE
        if se is None and SE not in adata.layers:
            if SCREEN in adata.uns:
                return _of_cells(adata)
            message = (
                "adata has no layer 'se' of standard errors: name the layer with se. If its rows "
                "are cells or samples, declare their roles with pp.setup_screen first."
            )
            raise ValueError(message)
        _adata.require_layer(adata, None)
        _adata.require_layer(adata, name)
        obs = adata.obs
        labels = adata.obs_names.to_series()
        if perturbation_key is not None or "perturbation" in obs:
            labels = column_of(adata, perturbation_key or "perturbation")
        genes = with_names(adata.var_names, "Genes")
        effects, errors = (adata.to_df(layer=each).loc[:, genes] for each in (None, name))
        given = Given(effects, errors, labels.astype(str).tolist(), obs, adata.var[genes], None)
        return given.rows(with_names(labels, "Perturbations"))
    if source is not None:
        if se is not None:
            message = "A long table holds its standard errors: leave se out, or leave source out."
            raise ValueError(message)
        effects, errors, base, how = _read_output(adata, source, perturbation_key)
    else:
        if not isinstance(se, pd.DataFrame):
            message = (
                "A table of effects needs a table of standard errors: give it as se, or name "
                f"what wrote a long table with source: {', '.join(OUTPUTS)}."
            )
            raise ValueError(message)
        named = (
            table.loc[with_names(table.index, rows), with_names(table.columns, columns)]
            for table, rows, columns in ((adata, "Perturbations", "Genes"), (se, "", ""))
        )
        (effects, errors), base, how = _aligned(*named), None, ""
    obs, var = (pd.DataFrame(index=each.astype(str)) for each in (effects.index, effects.columns))
    return Given(effects, errors, obs.index.tolist(), obs, var, base, how)


def _of_cells(adata: ad.AnnData) -> Given:
    """Return the differences of means of a screen of cells, and their standard errors.

    Batches are taken off, and the variance between guides is added. Variances are moderated, as
    those of a fit to the cells. Genes that do not vary are left out.
    """
    roles = _adata.read_roles(adata)
    names = _adata.read_perturbations(adata, roles).perturbations()
    environments = read_environments(adata, roles, named=names)
    coded = coding({"environment": environments.codes})
    (screen,) = read_screens(adata, np.arange(adata.n_vars), [coded], layer=roles.layer)
    clean, keys, sd = environments.without_batches(screen, names)
    pairs, place = distinct(keys[:, 0], keys[:, 1])
    moments, group = clean.pool(place, len(pairs)), pairs[:, 0]
    spread = 0.0
    if roles.guide_key is not None:
        spread = spread_within(moments.subset(np.arange(adata.n_vars)), group)
    pooled = pool_guides(moments, group, 1 + len(names), guide_variance=spread, fixed_sd=sd)
    change, error = pooled.to_controls()
    within_cells = pooled.covariance.diagonal()
    genes = np.array(_adata.measured_genes(adata), dtype=object)
    if gone := genes[~(within_cells > 0)].tolist():
        logger.info("Left out, as they do not vary: genes %s.", list_names(gone))
    kept = within_cells > 0
    index = pd.Index(genes[kept])
    effects = pd.DataFrame(change[:, kept], names, index)
    se = pd.DataFrame(np.sqrt(within_cells * error)[:, kept], names, index)
    cells: Array = pooled.n_cells.astype(np.float64)
    # Rows are samples, of so many cells each.
    if "n_cells" in adata.obs:
        each = real_values(adata.obs["n_cells"], "n_cells")
        groups = np.append(environments.numbered(names), -1)
        sample = groups[environments.codes]
        cells = np.zeros(1 + len(names))
        np.add.at(cells, sample[sample >= 0], each[sample >= 0])
    obs = pd.DataFrame({"n_cells": cells[1:], "n_controls": cells[0]}, index=effects.index)
    var = adata.var[[]].loc[kept].set_axis(index)
    var["control_mean"] = pooled.mean[0][kept]
    var["control_se"] = np.sqrt(within_cells / pooled.counted[0])[kept]
    how = "the variance of the cells"
    alike = None
    if (freedom := float(pooled.freedom.sum())) >= FEWEST:
        within = without_responses(pooled, np.sqrt(np.where(kept, within_cells, 1.0)))
        alike = shrunk_correlation(within[np.ix_(kept, kept)], freedom)
    labels = [str(name) for name in names]
    source = SAMPLES if "n_cells" in adata.obs else "cells"
    return Given(effects, se, labels, obs, var, None, how, roles, alike, source)


def _read_output(
    table: pd.DataFrame, source: str, perturbation_key: str | None
) -> tuple[pd.DataFrame, pd.DataFrame, str, str]:
    """Return effects and standard errors of a long table of ``source``, one of :data:`OUTPUTS`.

    Also the base of logarithms, and the column that the standard errors came from, in words.
    """
    columns, output = [str(column) for column in table.columns], OUTPUTS[source]
    require_once(pd.Index(columns), "Columns")
    if output.effect not in columns:
        message = (
            f"The output of {source} has no column {output.effect!r} of effects. It holds "
            f"{list_names(columns)}: name the method with source, or give effects and standard "
            f"errors as two tables."
        )
        raise ValueError(message)
    gene = _column(columns, output.genes, "genes")
    asked = output.perturbations if perturbation_key is None else (perturbation_key,)
    label = _column(columns, asked, "perturbations")
    for name, what in ((label, "Rows by perturbation"), (gene, "Rows by gene")):
        table = table[with_names(table[name], what)]
    effect = real_values(table[output.effect], f"The column {output.effect!r}")
    se, how = _standard_errors(table, output, effect)
    if not output.base:
        # The delta method; a ratio of 0 has no logarithm.
        with np.errstate(all="ignore"):
            seen = effect > 0
            se = np.where(seen, se / effect, np.nan)
            effect = np.where(seen, np.log(effect), np.nan)
    pairs = pd.MultiIndex.from_arrays([table[label].astype(str), table[gene].astype(str)])
    require_once(pairs, "Perturbation and gene")
    (rows, labels), (places, genes) = (
        pd.factorize(pairs.get_level_values(level)) for level in (0, 1)
    )
    wide = np.full((2, len(labels), len(genes)), np.nan)
    wide[:, rows, places] = effect, se
    one, two = (pd.DataFrame(each, index=labels, columns=genes) for each in wide)
    return one, two, output.base or "e", how


def _column(columns: list[str], candidates: tuple[str, ...], what: str) -> str:
    for name in candidates:
        if name in columns:
            return name
    message = (
        f"The table has no column {' or '.join(map(repr, candidates))} of {what}."
        f"{closest(list(candidates), columns)} It holds {list_names(columns)}: rename the column "
        f"of {what}."
    )
    raise ValueError(message)


def _standard_errors(table: pd.DataFrame, output: Output, effect: Array) -> tuple[Array, str]:
    """Return standard errors of effects, ``(n_rows,)``, and the column that they follow from."""
    kinds = {n: k for k in ("se", "signed", "squared") for n in getattr(output, k)}
    name = next((name for name in kinds if name in table), None)
    if name is None:
        message = (
            f"No standard error follows from the columns {list_names(map(str, table.columns))}: "
            f"give {' or '.join(kinds)} beside {output.effect}."
        )
        raise ValueError(message)
    values = real_values(table[name], f"The column {name!r}")
    if kinds[name] != "se":
        # A square below 0 and a statistic of 0 say nothing.
        with np.errstate(all="ignore"):
            statistic = np.sqrt(values) if kinds[name] == "squared" else np.abs(values)
            values = np.where(statistic > 0, np.abs(effect) / statistic, np.nan)
    return values, f"column {name}"


def require_once(names: pd.Index[Any], what: str) -> None:
    twice = names[names.duplicated()].unique()
    if len(twice):
        message = f"{what} given more than once: {list_names(map(str, twice))}."
        raise ValueError(message)


def _aligned(effects: pd.DataFrame, se: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both tables with the rows and columns of the first."""
    for one, other, what in (
        (effects.index, se.index, "perturbations"),
        (effects.columns, se.columns, "genes"),
    ):
        require_once(other, what.capitalize())
        differ = one.symmetric_difference(other)
        if len(differ):
            message = (
                f"Effects and standard errors differ in their {what}: "
                f"{list_names(map(str, differ))}. Give both tables the same rows and columns."
            )
            raise ValueError(message)
    return effects, se.loc[effects.index, effects.columns]
