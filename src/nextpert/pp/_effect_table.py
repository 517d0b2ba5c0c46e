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
from nextpert._adata.panel import closest, with_names
from nextpert._adata.roles import KEY as SCREEN
from nextpert._adata.roles import Roles, screen_record
from nextpert._adata.scale import read_scale
from nextpert._adata.screen import coding, read_environments, read_screens
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
from nextpert.core._checks import LARGEST, list_names
from nextpert.core._codec import table_type
from nextpert.core.model.within_cells import WITHOUT_CORRELATION, without_responses
from nextpert.core.screen.guides import distinct, pool_guides, spread_within
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
_LEAST = 1e-100  # of standard errors, whose squares are squared again


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

    For screens that are published, or kept, as tables of effects. The result has a row for the
    controls (of each batch) and one per perturbation, and goes through
    :func:`~nextpert.tl.fit_dag_blr`, :func:`~nextpert.tl.perturbation_effects`,
    :func:`~nextpert.tl.plan_screen` and :class:`~nextpert.Campaign` as cells do. What needs cells,
    such as learning a graph, raises an error; the panel is all genes, without edges
    (:func:`~nextpert.tl.learn_dag` with ``method="given"`` for others). An effect with the standard
    error ``s`` counts for :math:`\sigma^2 / s^2` cells (:doc:`/model/mathematics`, equation 25). A
    screen of cells or pseudo-bulk samples becomes the table of its differences of means. Bring the
    error of the controls, which all effects of a batch share, and above 30 perturbations the
    ``correlation`` of genes, without which no program is modelled.

    Parameters
    ----------
    adata
        Effects (natural logarithms): an AnnData (in ``X``) or table of perturbations x genes, NaN
        if unknown; a long table (``source``); or a screen of cells or samples with its roles, whose
        ``obs["n_cells"]``, if there, is the number of cells of each sample.
    se
        Their standard errors: the name of a layer (by default ``"se"``), or a table of the same
        rows and columns.
    source
        What wrote a long table, with a row for each perturbation and gene: ``"plain"`` (``gene``,
        ``effect``, ``se``), ``"deseq2"``, ``"edger"``, ``"glmgampoi"`` or ``"sceptre"``. A standard
        error that is not there follows from the statistic, or else from the p-value.
    base
        Base of the logarithms: ``"e"``, ``"2"`` or ``"10"``; by default that of the source.
    perturbation_key, gene_key
        Columns of perturbations (by default ``"perturbation"``, the row names, or that of the
        source) and, of a long table, of genes.
    n_cells
        Cells of each perturbation: a number, a mapping, or a column of ``obs`` (by default
        ``"n_cells"``, if there). Without them, numbers of cells are no more than a scale.
    n_controls
        Control cells (of each batch), in the same forms or as a mapping from batches.
    batch
        Batch of each perturbation, with controls of its own: a mapping, or a column of ``obs``. A
        perturbation of several has a row in each; if these differ by more than their standard
        errors, all standard errors are multiplied by the factor.
    control_mean, control_se
        Mean of the controls by gene, and its standard error: mappings, or columns of ``var``. Means
        let efficacy be learned. The error follows from ``n_controls`` by default;
        ``"conservative"``, if neither is known, is nine tenths of a gene's smallest squared error.
    correlation
        How genes are correlated within perturbations: genes x genes, or at least 50 control cells
        or samples x genes. That of a screen of cells is known.
    control
        Label of the rows of controls.

    Returns
    -------
    ~anndata.AnnData
        Rows of controls and perturbations x genes, with:

        - ``X`` (array, ``(n_rows, n_vars)``): effects plus the control mean (0 if not given).
        - ``layers["se"]`` (array, ``(n_rows, n_vars)``): standard errors; infinite if unknown.
        - ``obs["perturbation"]``, ``obs["batch"]`` (labels): of each row; batches if given.
        - ``obs["n_cells"]`` (number): cells of each row.
        - ``varp["correlation"]`` (array, ``(n_vars, n_vars)``): correlation of genes, if known.
        - ``varp["dag"]``, ``uns["dag"]`` (as of :func:`nextpert.tl.learn_dag`): no edges.
        - ``uns["screen"]`` (mapping): as of :func:`setup_screen`.
        - ``uns["effect_table"]`` (mapping): a record: ``source``, ``base``, ``n_missing`` entries,
          ``cells_given``, ``controls_given`` (0 if conservative) and ``means_given``.

    Raises
    ------
    ValueError
        If the error of the controls is not told, or tables, columns or values are none of these.

    Examples
    --------
    >>> import numpy as np, pandas as pd, nextpert as npt
    >>> rng, genes = np.random.default_rng(0), [f"g{i}" for i in range(20)]
    >>> effects = pd.DataFrame(rng.normal(size=(6, 20)), list("ABCDEF"), genes)
    >>> screen = npt.pp.effect_table(effects, effects * 0 + 0.1, n_cells=100, n_controls=500)
    >>> npt.tl.fit_dag_blr(screen)
    >>> npt.tl.perturbation_effects(screen)
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
    base = base or given.base or "e"
    pairs = labels if batches is None else [*zip(labels, batches, strict=True)]
    _require_once(pd.Index(pairs, tupleize_cols=False), "Perturbations")
    _require_once(pd.Index(genes), "Genes")
    if control in labels:
        message = (
            f"The table has a row of the controls, {control!r}, to which effects are relative: "
            f"leave it out, and give control_mean and control_se."
        )
        raise ValueError(message)
    effects, errors = (
        real_values(table, name) * _LOGARITHMS[base]
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
    cells = _counts(n_cells, given.obs, labels, "n_cells")
    controls = _of_controls(n_controls, given.obs, labels, each, block)
    mean = _numbers(control_mean, given.var, genes, "control_mean")
    is_conservative = isinstance(control_se, str) and control_se == CONSERVATIVE
    error = None
    if not is_conservative:
        error = _numbers(control_se, given.var, genes, "control_se", _LEAST)
    has_error = controls is not None or error is not None
    if not (has_error or is_conservative) or (controls is not None and cells is None):
        message = (
            "The table does not tell the error of the controls, which all effects of a batch "
            "share: give n_controls with n_cells, or control_se, or control_se='conservative' "
            "if neither is known."
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
        "base": base,
        "n_missing": int((~known).sum()),
        "cells_given": int(cells is not None),
        "controls_given": int(has_error),
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
        effects, errors, base, how = read_output(adata, source, perturbation_key, gene_key)
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
        (effects, errors), base, how = _aligned(*named), None, ""
    obs, var = (pd.DataFrame(index=each.astype(str)) for each in (effects.index, effects.columns))
    return _Given(effects, errors, obs.index.tolist(), obs, var, base, how)


def _of_cells(adata: ad.AnnData) -> _Given:
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
    if "n_cells" in adata.obs:  # rows are samples, of so many cells each
        each = real_values(adata.obs["n_cells"], "n_cells")
        groups = np.append(environments.groups([roles.control, *names]), -1)
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
    return _Given(effects, se, labels, obs, var, None, how, roles, alike, source)


def _require_once(names: pd.Index[Any], what: str) -> None:
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
        _require_once(other, what.capitalize())
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
    by_name = {str(name): value for name, value in asked.items()}
    absent = sorted(set(names) - set(by_name))
    if absent:
        message = f"{argument} has no value for {list_names(absent)}."
        raise ValueError(message)
    return [by_name[name] for name in names]


def _numbers(
    asked: Any,
    frame: pd.DataFrame,
    names: list[str],
    argument: str,
    least: float = -LARGEST,
    most: float = LARGEST,
) -> Array | None:
    """Return :func:`_values` as numbers within bounds."""
    values = _values(asked, frame, names, argument)
    if values is None:
        return None
    numbers = real_values(pd.Series(values, dtype=object), argument)
    wrong = numbers[~((numbers >= least) & (numbers <= most))]
    if len(wrong):
        message = f"{argument} must be {least:g} to {most:g}, but is {wrong[0]:g} in a row."
        raise ValueError(message)
    return numbers


def _counts(
    asked: Any, frame: pd.DataFrame, names: list[str], argument: str
) -> NDArray[np.int64] | None:
    """Return :func:`_values` as numbers of cells: two at least, which have a variance."""
    numbers = _numbers(asked, frame, names, argument, 1.0, _MOST_CELLS)
    return None if numbers is None else np.maximum(np.round(numbers), 2).astype(np.int64)


def _of_controls(
    asked: Any,
    obs: pd.DataFrame,
    labels: list[str],
    each: NDArray[np.str_],
    block: NDArray[np.int64],
) -> NDArray[np.int64] | None:
    """Return the number of controls of every batch in ``each``; ``block`` is that of every row."""
    if isinstance(asked, (Mapping, pd.Series)) and set(map(str, asked.keys())) >= set(each):
        return _counts(asked, obs, each.tolist(), "n_controls")
    of_rows = _counts(asked, obs, labels, "n_controls")
    if of_rows is None:
        return None
    of_batches = of_rows[np.unique(block, return_index=True)[1]]
    if (of_batches[block] != of_rows).any():
        message = "n_controls differs between perturbations of one batch, which share controls."
        raise ValueError(message)
    return of_batches


def _require_alike(known: NDArray[np.bool_], labels: list[str]) -> None:
    """Raise if a perturbation of several batches has genes that only some of them tell of."""
    fraction = pd.DataFrame(known).groupby(labels).mean()
    part = fraction.index[((fraction > 0) & (fraction < 1)).any(axis=1)]
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
