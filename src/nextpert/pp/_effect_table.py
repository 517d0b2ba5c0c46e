"""``pp.effect_table``: a screen from effects and their standard errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata.arguments import checked, one_of
from nextpert._adata.labels import column_of
from nextpert._adata.panel import closest, list_names, with_names
from nextpert._adata.roles import KEY as SCREEN
from nextpert._adata.roles import Roles, screen_record
from nextpert._adata.scale import read_scale
from nextpert._adata.screen import coding, distinct, read_environments, read_screens
from nextpert._adata.sources import real_values
from nextpert._adata.table import (
    CORRELATION,
    KEY,
    SAMPLES,
    SE,
    Rows,
    not_told,
    shrunk_correlation,
)
from nextpert.core._checks import require_small
from nextpert.core._codec import table_type
from nextpert.core.model.within_cells import WITHOUT_CORRELATION, without_responses
from nextpert.core.screen.guides import pool_guides, spread_within
from nextpert.pp._steps.outputs import NAMES, read_output
from nextpert.pp._steps.table_errors import (
    FEWEST,
    batch_factor,
    controls_of,
    known_entries,
    read_correlation,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

_LOGARITHMS = {"e": 1.0, "2": float(np.log(2)), "10": float(np.log(10))}
CONSERVATIVE = "conservative"  # the error of controls of whom nothing is known
_MOST_CELLS = 1e12  # sums of a thousand times as many are whole numbers still


@checked(source=one_of(*NAMES), base=one_of(*_LOGARITHMS))
def effect_table(
    adata: ad.AnnData | pd.DataFrame,
    se: pd.DataFrame | str | None = None,
    *,
    source: str | None = None,
    base: str | None = None,
    perturbation_key: str | None = None,
    gene_key: str | None = None,
    n_cells: str | float | Mapping[str, float] | None = None,
    n_controls: str | float | Mapping[str, float] | None = None,
    batch: str | Mapping[str, Any] | pd.Series | None = None,
    control_mean: str | Mapping[str, float] | None = None,
    control_se: str | Mapping[str, float] | None = None,
    correlation: pd.DataFrame | ad.AnnData | None = None,
    control: str = "control",
) -> ad.AnnData:
    r"""Return a screen made of effects and their standard errors, without cells.

    Many screens are published, or kept in a lab, as tables of effects alone. The result is an
    AnnData with a row for the controls (of each batch) and one per perturbation, which
    :func:`~nextpert.tl.fit_dag_blr`, :func:`~nextpert.tl.perturbation_effects`,
    :func:`~nextpert.tl.design_interventions`, :func:`~nextpert.tl.plan_screen` and
    :class:`~nextpert.Campaign` take as they take cells. An effect with the standard error ``s``
    counts for :math:`\sigma^2 / s^2` cells, where :math:`\sigma^2` is the variance of the gene
    (:doc:`/model/mathematics`, equation 25), and a missing one for none. What needs cells, such as
    learning a graph, raises an error. The panel is all genes, on a graph without edges: call
    :func:`~nextpert.tl.learn_dag` with ``method="given"`` for a graph of your own, or for fewer
    genes.

    A screen of cells, after :func:`setup_screen`, becomes the table of its differences of means:
    batches are taken off, variances are pooled over perturbations and moderated, and the variance
    between guides is included. So do log-normalised samples of summed counts (pseudo-bulk), whose
    replicates then give the standard errors. Use it where cells meet tables, as in a campaign;
    else keep the cells.

    A table says less than cells do. Two things it has to bring. The error of the controls is common
    to all effects of a batch: taken as independent it is a false effect of every perturbation.
    And errors of coexpressed genes go together, which many perturbations show as a program: give
    the ``correlation`` of genes, or above 30 perturbations no program is modelled, and an effect
    that perturbations share is not recognised as such. Without the control means, target genes are
    effects like all others, and no efficacy is learned. Effects are differences of natural
    logarithms; those of other logarithms are converted, and the log says so.

    Parameters
    ----------
    adata
        Effects, as an AnnData of perturbations x genes (in ``X``), as such a table, or as a long
        table with a row for each perturbation and gene (``source``). Missing entries are NaN. Or a
        screen of cells or samples, with its roles (:func:`setup_screen`) and without
        ``layers["se"]``; ``obs["n_cells"]``, if it is there, has the number of cells of each
        sample.
    se
        Their standard errors: the name of a layer (``None`` (default): ``"se"``), or a table with
        the same rows and columns. Not of a long table, which holds them.
    source
        What wrote a long table; it needs a column of perturbations, as outputs of all of them one
        below the other have. ``"plain"`` (``gene``, ``effect``, ``se``), ``"deseq2"`` (``gene``,
        ``log2FoldChange``, ``lfcSE``), ``"edger"`` (``gene``, ``logFC``; ``F``, ``LR`` or
        ``PValue``), ``"glmgampoi"`` (``name``, ``lfc``; ``f_statistic`` or ``pval``) or
        ``"sceptre"`` (``response_id``, ``grna_target``, ``log_2_fold_change`` and ``p_value``, or
        ``fold_change`` and ``se_fold_change``). A standard error that is not there follows from
        the statistic, or from the p-value, which must be above 0 and below 1.
    base
        Base of the logarithms: ``"e"``, ``"2"`` or ``"10"``. ``None`` (default): that of the
        source, else ``"e"``.
    perturbation_key
        Column of perturbations: of ``adata.obs`` (``None`` (default): ``"perturbation"`` if it is
        there, else the row names), or of a long table (``None``: ``"perturbation"``, or that of the
        source).
    gene_key
        Column of genes of a long table, if it is none of these.
    n_cells
        Cells of each perturbation: a number for all, a mapping, or a column of ``obs`` (by default
        ``"n_cells"``, if it is there). Without them, numbers of cells, as in plans, are no more
        than a scale: 100 for each.
    n_controls
        Control cells (of each batch), in the same forms, or as a mapping from batches. They tell
        how large the error is that all effects of a batch share; these or ``control_se`` are
        required. By default the column ``"n_controls"``, if it is there.
    batch
        Batch of each perturbation, whose effects are relative to controls of its own: a mapping, or
        a column of ``obs`` (by default ``"batch"``, if it is there). A perturbation of several
        batches has a row in each; if these differ by more than their standard errors, all standard
        errors of the table are multiplied by the factor, as all lack what batches differ by.
    control_mean
        Mean of the controls by gene, log-normalised expression: a mapping, or a column of ``var``
        (by default ``"control_mean"``, if it is there). Knockouts are expected to remove a part of
        it, which is learned, and targets may be given as means. Without it, means are relative to
        the controls.
    control_se
        Its standard error, in the same forms (``"control_se"``). By default it follows from
        ``n_controls``. If neither is known, ``"conservative"`` takes nine tenths of the smallest
        squared standard error of a gene's effects as that of the controls, and leaves the others
        as they are: few false effects, and fewer true ones.
    correlation
        How genes are correlated within perturbations: a table of genes x genes, or control cells
        (or samples) x genes, log-normalised, at least 50. That of a screen of cells is known.
    control
        Label of the rows of controls; that of the roles, of a screen of cells.

    Returns
    -------
    ~anndata.AnnData
        Rows of controls and perturbations x genes, with:

        - ``X`` (array, ``(n_rows, n_vars)``): means, which are effects plus the control mean (0 if
          not given). More than 10 million are in single precision, as the standard errors.
        - ``layers["se"]`` (array, ``(n_rows, n_vars)``): standard errors of the effects, and in
          rows of controls those of their means; infinite where nothing is known.
        - ``obs["perturbation"]``, ``obs["batch"]`` (labels): of each row; batches if given.
        - ``obs["n_cells"]`` (number): cells of each row.
        - ``varp["correlation"]`` (array, ``(n_vars, n_vars)``): correlation of genes, if known.
        - ``varp["dag"]``, ``uns["dag"]`` (as of :func:`nextpert.tl.learn_dag`): a graph without
          edges.
        - ``uns["screen"]`` (mapping): as of :func:`setup_screen`.
        - ``uns["effect_table"]`` (mapping): a record: ``source``, ``base``, ``n_missing`` entries,
          ``cells_given``, ``controls_given`` (0 if conservative) and ``means_given``.

    Raises
    ------
    ValueError
        If the error of the controls is not told, columns are absent, ``correlation`` is none of
        these genes, an AnnData has neither standard errors nor roles, genes or
        perturbations are given twice or differ between effects and standard errors, a standard
        error is zero or negative, an effect is infinite, nothing is known of a gene or
        perturbation, a p-value of 0 or 1 stands alone, or the output has no effects.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextpert as npt
    >>> rng, genes = np.random.default_rng(0), [f"g{i}" for i in range(20)]
    >>> effects = pd.DataFrame(rng.normal(size=(6, 20)), list("ABCDEF"), genes)
    >>> screen = npt.pp.effect_table(effects, effects * 0 + 0.1, n_cells=100, n_controls=500)
    >>> npt.tl.fit_dag_blr(screen)
    >>> npt.tl.design_interventions(screen, "A", acquisition="greedy")
    >>> len(screen.uns["design"]["ranking"])
    6
    """
    given = _read(adata, se, source, perturbation_key, gene_key)
    if not given.effects.size:
        message = "The table has no row, or no column, of effects: give it some."
        raise ValueError(message)
    control = control if given.roles is None else given.roles.control
    batches = _values(batch, given.obs, given.labels, "batch")
    if batches is not None:
        named = with_names(batches, "Rows by batch")
        given, batches = given.rows(named), [str(batches[j]) for j in np.flatnonzero(named)]
    labels, genes = given.labels, [str(gene) for gene in given.effects.columns]
    if given.base is not None and base not in (None, given.base):
        message = f"The output of {source} holds logarithms of base {given.base}: leave base out."
        raise ValueError(message)
    found = base or given.base or "e"
    _require_once(labels, batches, genes, control)
    effects, errors = (
        real_values(table, name) * _LOGARITHMS[found]
        for table, name in ((given.effects, "Effects"), (given.se, "Standard errors"))
    )
    known = known_entries(effects, errors, labels, genes)
    each, block = (np.array([""]), np.zeros(len(labels), np.int64))
    if batches is not None:
        each, block = np.unique(batches, return_inverse=True)
        _require_alike(known, labels)
        factor = batch_factor(effects, errors, labels)
        errors = errors * factor
        if factor > 1.0:
            logger.info(
                "Perturbations in several batches differ by %.2f times their standard errors: all "
                "standard errors are multiplied by this.", factor,
            )  # fmt: skip
    cells = _counts(_values(n_cells, given.obs, labels, "n_cells"), "n_cells")
    controls = _counts(_of_controls(n_controls, given.obs, labels, each, block), "n_controls")
    mean = _numbers(_values(control_mean, given.var, genes, "control_mean"), "control_mean")
    error = None
    if control_se != CONSERVATIVE:
        error = _numbers(_values(control_se, given.var, genes, "control_se"), "control_se")
    if error is not None and not (error > 0).all():
        message = "control_se must be above 0 for every gene."
        raise ValueError(message)
    if controls is None and error is None and control_se != CONSERVATIVE:
        message = (
            "The table does not tell the error of the controls, which all effects of a batch "
            "share: give n_controls (with n_cells) or control_se, or control_se='conservative' "
            "if neither is known."
        )
        raise ValueError(message)
    if controls is not None and cells is None:
        message = (
            "n_controls tells how large the error of the controls is only beside n_cells: give "
            "n_cells as well, or control_se in its place."
        )
        raise ValueError(message)
    variance = np.where(known, errors, np.inf) ** 2
    rows, of_controls = controls_of(variance, block, cells, controls, error)
    alike = given.correlation
    if correlation is not None or alike is None:
        alike = read_correlation(correlation, genes)
    values = np.vstack([np.zeros((len(each), len(genes))), np.where(known, effects, 0.0)])
    kind = table_type(values.size)
    out = ad.AnnData(
        (values if mean is None else values + mean).astype(kind, copy=False),
        _obs(labels, each, None if batches is None else block, rows, control),
        given.var,
        layers={SE: np.sqrt(np.vstack([of_controls, variance])).astype(kind, copy=False)},
    )
    roles = Roles(control=control, batch_key=() if batches is None else ("batch",))
    if given.roles is not None:
        roles = replace(roles, separator=given.roles.separator)
    record = {
        "source": source or given.source,
        "base": found,
        "n_missing": int((~known).sum()),
        "cells_given": int(cells is not None),
        "controls_given": int(controls is not None or error is not None),
        "means_given": int(mean is not None),
    }
    graph = {"genes": _adata.strings(genes), "n_edges": 0, "order": _adata.strings(genes)}
    graph["params"] = {"method": "given"}
    empty = sp.csr_array((len(genes), len(genes)))
    varp = {"dag": empty}
    if alike is not None:
        varp[CORRELATION] = alike.astype(np.float32)
    _adata.write_results(out, uns={KEY: record, "dag": graph}, varp=varp)
    scale = read_scale(out, np.arange(len(genes)), np.arange(out.n_obs), None)
    _adata.write_results(out, uns={SCREEN: screen_record(roles, scale.stored(checked=True))})
    _say(out, known.shape, given.how)
    return out


class _Given(NamedTuple):
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

    def rows(self, kept: NDArray[np.bool_]) -> _Given:
        """Return some of the rows."""
        labels = [self.labels[j] for j in np.flatnonzero(kept)]
        return self._replace(
            effects=self.effects[kept], se=self.se[kept], labels=labels, obs=self.obs[kept]
        )


def _read(
    adata: ad.AnnData | pd.DataFrame,
    se: pd.DataFrame | str | None,
    source: str | None,
    perturbation_key: str | None,
    gene_key: str | None,
) -> _Given:
    """Return what was given; the arguments are those of :func:`effect_table`."""
    if isinstance(adata, ad.AnnData):
        if isinstance(se, pd.DataFrame) or source is not None:
            message = "Of an AnnData, se is the name of a layer, and source is left out."
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
        given = _Given(effects, errors, labels.astype(str).tolist(), obs, adata.var[genes], None)
        return given.rows(with_names(labels, "Perturbations"))
    if source is not None:
        if se is not None:
            message = "A long table holds its standard errors: leave se out, or leave source out."
            raise ValueError(message)
        found = read_output(adata, source, perturbation_key, gene_key)
        tables, base, how = found[:2], found.base, found.how
    else:
        if not isinstance(se, pd.DataFrame):
            message = (
                "A table of effects needs one of their standard errors: give it as se, or name "
                f"what wrote a long table with source: {', '.join(NAMES)}."
            )
            raise ValueError(message)
        named = (
            table.loc[with_names(table.index, rows), with_names(table.columns, columns)]
            for table, rows, columns in ((adata, "Perturbations", "Genes"), (se, "", ""))
        )
        tables, base, how = _aligned(*named), None, ""
    labels = tables[0].index.astype(str)
    var = pd.DataFrame(index=tables[0].columns.astype(str))
    return _Given(*tables, labels.tolist(), pd.DataFrame(index=labels), var, base, how)


def _of_cells(adata: ad.AnnData) -> _Given:
    """Return the differences of means of a screen of cells, and their standard errors.

    Batches are taken off, and the variance between guides is added. Variances are moderated, as
    those of a fit to the cells. Genes that do not vary are left out.
    """
    roles = _adata.read_roles(adata)
    names = _adata.read_perturbations(adata, roles).perturbations()
    found = read_environments(adata, roles, named=names)
    coded = coding({"environment": found.codes})
    ((screen,), _) = read_screens(adata, np.arange(adata.n_vars), [coded], layer=roles.layer)
    clean, keys, sd = found.without_batches(screen, names)
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
    if "n_cells" in adata.obs:  # rows are samples, of so many cells each
        each = real_values(adata.obs["n_cells"], "n_cells")
        sample = np.append(found.groups([roles.control, *names]), -1)[found.codes]
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
    return _Given(effects, se, labels, obs, var, None, how, roles, alike, source)


def _aligned(effects: pd.DataFrame, se: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both tables with the rows and columns of the first."""
    for one, other, what in (
        (effects.index, se.index, "perturbations"),
        (effects.columns, se.columns, "genes"),
    ):
        twice = one[one.duplicated()].union(other[other.duplicated()])
        if len(twice):
            message = f"Tables with {what} given more than once: {list_names(map(str, twice))}."
            raise ValueError(message)
        differ = one.symmetric_difference(other)
        if len(differ):
            message = (
                f"Effects and standard errors differ in their {what}: "
                f"{list_names(map(str, differ))}. Give both tables the same rows and columns."
            )
            raise ValueError(message)
    return effects, se.loc[effects.index, effects.columns]


def _values(asked: Any, frame: pd.DataFrame, names: list[str], argument: str) -> list[Any] | None:
    """Return a value for each of ``names``, which are the rows of ``frame``, or ``None``.

    ``asked`` is a column, a mapping of names, one value for all, or ``None`` for the column of the
    argument's name, if it is there.
    """
    if asked is None:
        if argument not in frame:
            return None
        logger.info("%s is read from the column of that name.", argument)
        asked = argument
    if isinstance(asked, str):
        if asked not in frame:
            columns = [str(column) for column in frame]
            message = (
                f"{argument}: no column {asked!r}.{closest([asked], columns)} There are "
                f"{list_names(columns) or 'no columns'}."
            )
            raise ValueError(message)
        return list(frame[asked])
    if not isinstance(asked, (Mapping, pd.Series)):
        return [asked] * len(names)
    told = {str(name): value for name, value in asked.items()}
    absent = sorted(set(names) - set(told))
    if absent:
        message = f"{argument} has no value for {list_names(absent)}."
        raise ValueError(message)
    return [told[name] for name in names]


def _numbers(values: list[Any] | None, argument: str) -> Array | None:
    """Return values as finite numbers."""
    if values is None:
        return None
    found = real_values(pd.Series(values, dtype=object), argument)
    if not np.isfinite(found).all():
        message = f"{argument} is missing or infinite for {int((~np.isfinite(found)).sum())} rows."
        raise ValueError(message)
    require_small(found, argument)
    return found


def _counts(values: list[Any] | None, argument: str) -> NDArray[np.int64] | None:
    """Return values as numbers of cells: two at least, which have a variance."""
    found = _numbers(values, argument)
    if found is None:
        return None
    wrong = found[(found < 1) | (found > _MOST_CELLS)]
    if len(wrong):
        message = f"{argument} must be 1 to {_MOST_CELLS:g}, but is {wrong[0]:g} in a row."
        raise ValueError(message)
    return np.maximum(np.round(found), 2).astype(np.int64)


def _of_controls(
    asked: Any,
    obs: pd.DataFrame,
    labels: list[str],
    each: NDArray[np.str_],
    block: NDArray[np.int64],
) -> list[Any] | None:
    """Return the number of controls of every batch; arguments as of :func:`_values`.

    ``each`` are the batches, and ``block`` that of every row.
    """
    if isinstance(asked, (Mapping, pd.Series)) and set(map(str, asked.keys())) >= set(each):
        return _values(asked, obs, each.tolist(), "n_controls")
    found = _values(asked, obs, labels, "n_controls")
    if found is None:
        return None
    first = pd.Series(found).groupby(block).first()
    if any(value != first[k] for value, k in zip(found, block, strict=True)):
        message = "n_controls differs between perturbations of one batch, which share controls."
        raise ValueError(message)
    return list(first)


def _require_once(
    labels: list[str], batches: list[str] | None, genes: list[str], control: str
) -> None:
    rows = pd.Series(labels if batches is None else zip(labels, batches, strict=True))
    for names, what in ((rows, "Perturbations"), (pd.Series(genes), "Genes")):
        twice = names[names.duplicated()].unique()
        if len(twice):
            message = f"{what} given more than once: {list_names(map(str, twice))}."
            raise ValueError(message)
    if control in labels:
        message = (
            f"The table has a row of the controls, {control!r}, to which effects are relative: "
            f"leave it out, and give control_mean and control_se."
        )
        raise ValueError(message)


def _require_alike(known: NDArray[np.bool_], labels: list[str]) -> None:
    """Raise if a perturbation of several batches has genes that only some of them tell of."""
    share = pd.DataFrame(known).groupby(labels).mean()
    part = share.index[((share > 0) & (share < 1)).any(axis=1)]
    if len(part):
        message = (
            f"Perturbations with genes that are missing in some of their batches only: "
            f"{list_names(part)}. Combine their batches first, or leave these genes out."
        )
        raise ValueError(message)


def _obs(
    labels: list[str],
    each: NDArray[np.str_],
    block: NDArray[np.int64] | None,
    rows: Rows,
    control: str,
) -> pd.DataFrame:
    """Return the table of rows, controls of every batch first; ``block`` as of perturbations."""
    names = [control] * len(each) + labels
    frame = pd.DataFrame({"perturbation": pd.Categorical(names), "n_cells": rows.n})
    if block is not None:
        batches = [*each, *each[block]]
        frame["batch"] = pd.Categorical(batches)
        names = [f"{name} ({batch})" for name, batch in zip(names, batches, strict=True)]
    frame.index = pd.Index(names)
    return frame


def _say(table: ad.AnnData, shape: tuple[int, ...], how: str) -> None:
    """Log what was read, what was converted, and what is not known."""
    record = table.uns[KEY]
    converted = f" Logarithms of base {record['base']} were converted to natural ones."
    logger.info(
        "A table of %d perturbations x %d genes%s, %d entries missing.%s", *shape,
        f" ({record['source']}; standard errors by {how})" if how else "", record["n_missing"],
        "" if record["base"] == "e" else converted,
    )  # fmt: skip
    if not_told(table):
        logger.warning("%s", not_told(table))
    if table.obs["perturbation"].nunique() - 1 > WITHOUT_CORRELATION and (
        CORRELATION not in table.varp
    ):
        logger.warning(
            "The table does not tell how genes are correlated, and has more than %d perturbations: "
            "no program is modelled, as correlated errors would pass for one. Effects that all "
            "perturbations share are not recognised. Give correlation: control cells or samples, "
            "or genes x genes.", WITHOUT_CORRELATION,
        )  # fmt: skip
