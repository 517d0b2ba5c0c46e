"""``pp.effect_table``: a screen from effects and their standard errors."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata.arguments import checked, one_of
from nextpert._adata.panel import closest, with_names
from nextpert._adata.roles import KEY as SCREEN
from nextpert._adata.roles import Roles, screen_record
from nextpert._adata.scale import read_scale
from nextpert._adata.sources import real_values
from nextpert._adata.table import (
    CORRELATION,
    KEY,
    SE,
    SHARED,
    Rows,
    not_told,
    own_variances,
    scales,
    shrunk_correlation,
)
from nextpert.core._checks import LARGEST, list_names, require_small
from nextpert.core._codec import table_type
from nextpert.core.model.within_cells import WITHOUT_CORRELATION
from nextpert.pp._read_table import FEWEST, OUTPUTS, read_table, require_once

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

_LOGARITHMS = {"e": 1.0, "2": float(np.log(2)), "10": float(np.log(10))}
CONSERVATIVE = "conservative"  # the error of controls of whom nothing is known
_MOST_CELLS = 1e12  # sums of a thousand times as many are whole numbers still
_LEAST = 1e-100  # of standard errors, whose squares are squared again
# Where numbers of cells are not given they are no more than a scale: an effect of 10 standard
# errors is one standard deviation of a gene, about as in screens of 100 cells per perturbation.
_CELLS = 100
_LEAST_ERROR = 1e-9  # of the table's median standard error: beside it, matrices are singular


@checked(source=one_of(*OUTPUTS), base=one_of(*_LOGARITHMS))
def effect_table(
    adata: ad.AnnData | pd.DataFrame,
    se: pd.DataFrame | str | None = None,
    *,
    source: str | None = None,
    base: str | None = None,
    perturbation_key: str | None = None,
    n_cells: str | float | Mapping[str, float] | None = None,
    n_controls: str | float | Mapping[str, float] | None = None,
    batch: str | Mapping[str, Any] | pd.Series | None = None,
    control_mean: str | Mapping[str, float] | None = None,
    control_se: str | Mapping[str, float] | None = None,
    correlation: pd.DataFrame | ad.AnnData | None = None,
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
        ``effect``, ``se``), ``"deseq2"``, ``"edger"`` or ``"sceptre"``. A missing standard error is
        computed from the statistic.
    base
        Base of the logarithms: ``"e"``, ``"2"`` or ``"10"``; by default that of the source.
    perturbation_key
        Column of perturbations; by default ``"perturbation"``, the row names, or that of the
        source.
    n_cells
        Cells of each perturbation: a number, a mapping, or a column of ``obs`` (by default
        ``"n_cells"``, if there). Without them, numbers of cells only set a scale.
    n_controls
        Control cells (of each batch), in the same forms or as a mapping from batches.
    batch
        Batch of each perturbation, with its own controls: a mapping, or a column of ``obs``. A
        perturbation of several has a row in each; if these differ by more than their standard
        errors, all standard errors are multiplied by the factor.
    control_mean, control_se
        Mean of the controls by gene, and its standard error: mappings, or columns of ``var``. Means
        let efficacy be learned. The error follows from ``n_controls`` by default;
        ``"conservative"``, if neither is known, is nine tenths of a gene's smallest squared error.
    correlation
        How genes are correlated within perturbations: genes x genes, or at least 50 control cells
        or samples x genes. That of a screen of cells is known.

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
        If the error of the controls is not given, or tables, columns or values have another form.

    Examples
    --------
    >>> import nextpert as npt
    >>> screen = npt.datasets.simulated_screen(n_genes=12, n_control=500, n_perturbed=100, rng=0)
    >>> npt.pp.setup_screen(screen)
    >>> own = npt.pp.effect_table(screen)  # of cells; a published table has effects and errors:
    >>> effects = own.to_df().iloc[1:] - own.to_df().loc["control"]
    >>> se = own.to_df("se").iloc[1:]
    >>> table = npt.pp.effect_table(effects, se, n_cells=100, n_controls=500)
    >>> npt.tl.fit_dag_blr(table)
    >>> npt.tl.perturbation_effects(table)
    >>> npt.get.effects_df(table)["gene"].head(3).tolist()
    ['B2M', 'CTSA', 'CD59']
    """
    given = read_table(adata, se, source, perturbation_key)
    if not given.effects.size:
        message = "The table has no row, or no column, of effects: give it some."
        raise ValueError(message)
    control = "control" if given.roles is None else given.roles.control
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
    require_once(pd.Index(pairs, tupleize_cols=False), "Perturbations")
    require_once(pd.Index(genes), "Genes")
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
    known = _known_entries(effects, errors, labels, genes)
    in_batch = [""] * len(labels) if batches is None else batches
    each, block = np.unique(in_batch, return_inverse=True)
    if batches is not None:
        _require_alike(known, labels)
        factor = _batch_factor(effects, errors, labels)
        errors = errors * factor
        if factor > 1.0:
            logger.info(
                "Perturbations in several batches differ by %.2f times their standard errors: all "
                "standard errors are multiplied by this factor.", factor,
            )  # fmt: skip
    cells = _counts(n_cells, given.obs, labels, "n_cells")
    controls = _of_controls(n_controls, given.obs, labels, in_batch)
    mean = _numbers(control_mean, given.var, genes, "control_mean")
    is_conservative = isinstance(control_se, str) and control_se == CONSERVATIVE
    error = None
    if not is_conservative:
        error = _numbers(control_se, given.var, genes, "control_se", _LEAST)
    has_error = controls is not None or error is not None
    if not (has_error or is_conservative) or (controls is not None and cells is None):
        message = (
            "The table does not state the error of the controls, which all effects of a batch "
            "share: give n_controls with n_cells, or control_se, or control_se='conservative' "
            "if neither is known."
        )
        raise ValueError(message)
    variance = np.where(known, errors, np.inf) ** 2
    rows, of_controls = _controls_of(variance, block, cells, controls, error)
    alike = given.correlation
    if correlation is not None or alike is None:
        alike = _read_correlation(correlation, genes)
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


def _known_entries(
    effects: Array, errors: Array, labels: Sequence[str], genes: Sequence[str]
) -> NDArray[np.bool_]:
    """Return which entries say something, ``(n_perturbations, n_genes)``, or raise."""
    known = ~np.isnan(effects) & ~np.isnan(errors) & (errors < np.inf)
    least = _LEAST_ERROR * np.median(errors[known]) if known.any() else 0.0
    for bad, what in (
        (
            known & ~(errors > max(least, 0.0)),
            "Standard errors must be above 0 (and a billionth of their median), but are not for",
        ),
        (np.isinf(effects), "Effects are infinite for"),
    ):
        if bad.any():
            pairs = zip(*np.nonzero(bad), strict=True)
            shown = list_names(f"{labels[j]} on {genes[i]}" for j, i in pairs)
            message = f"{what} {shown}: make them NaN if nothing is known."
            raise ValueError(message)
    for names, axis, what in ((genes, 0, "genes"), (labels, 1, "perturbations")):
        empty = [names[int(k)] for k in np.flatnonzero(~known.any(axis=axis))]
        if empty:
            message = (
                f"No effect has a standard error in the {what} {list_names(empty)}. Leave them out."
            )
            raise ValueError(message)
    require_small(effects[known], "Effects")
    require_small(errors[known], "Standard errors")
    return known


def _read_correlation(
    given: ad.AnnData | pd.DataFrame | None, genes: Sequence[str]
) -> Array | None:
    """Return the correlation of genes, ``(n_genes, n_genes)``, or raise; ``None`` if none is given.

    ``given`` is a table of genes x genes, or cells or samples of the controls x genes, whose
    correlations are shrunk as their number calls for.
    """
    if given is None:
        return None
    table = given.to_df() if isinstance(given, ad.AnnData) else given
    table = table.set_axis(table.columns.astype(str), axis=1)
    absent = sorted(set(genes) - set(table.columns))
    if absent or table.columns.has_duplicates:
        message = (
            f"correlation has no column, or several, for {list_names(absent or table.columns)}: "
            f"give every gene of the table once."
        )
        raise ValueError(message)
    table = table[list(genes)]
    labels = table.index.astype(str)
    if set(genes) <= set(labels):
        rows = labels.get_indexer_for(pd.Index(genes))
        matrix = real_values(table.iloc[rows], "correlation")
        if (
            matrix.shape != (len(genes), len(genes))
            or not np.allclose(matrix, matrix.T, atol=1e-6)  # nor NaN
            or not np.allclose(matrix.diagonal(), 1.0)
            or np.linalg.eigvalsh(matrix)[0] < -1e-6
        ):
            message = (
                "correlation must have each gene once, be symmetric, with a diagonal of 1 and no "
                "negative eigenvalue: give that of samples without missing values, or these "
                "samples."
            )
            raise ValueError(message)
        return matrix
    values = real_values(table, "correlation")
    if len(values) < FEWEST or not np.isfinite(values).all():
        message = (
            f"correlation must have {FEWEST} rows of finite values or more, of control cells or "
            f"samples, but has {len(values)}: leave it out, or give more."
        )
        raise ValueError(message)
    centred = values - values.mean(axis=0)
    return shrunk_correlation(centred.T @ centred, len(values) - 1.0)


def _batch_factor(effects: Array, errors: Array, labels: Sequence[str]) -> float:
    """Return by how much the rows of a perturbation in several batches exceed their errors.

    With weights of one over the squared standard errors, the root of the mean squared deviation of
    rows from their perturbation's mean, over its expectation; 1 if that is less, or without such
    rows. Standard errors within a batch do not include differences between clones and batches.
    """
    names, code, count = np.unique(labels, return_inverse=True, return_counts=True)
    total = freedom = 0.0
    for k in range(len(names)):
        if count[k] > 1:
            y, weight = effects[code == k], 1.0 / errors[code == k] ** 2
            known = np.isfinite(y) & np.isfinite(weight)
            y, weight = np.where(known, y, 0.0), np.where(known, weight, 0.0)
            middle = (weight * y).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
            total += float((weight * (y - middle) ** 2).sum())
            freedom += float(np.maximum(known.sum(axis=0) - 1, 0).sum())
    return max(float(np.sqrt(total / freedom)), 1.0) if freedom else 1.0


def _controls_of(
    variance: Array,
    block: NDArray[np.int64],
    cells: NDArray[np.int64] | None,
    controls: NDArray[np.int64] | None,
    error: Array | None,
) -> tuple[Rows, Array]:
    """Return the rows of a table, controls first, and the variance of the controls' means.

    ``variance`` are squared standard errors of effects, infinite if unknown, ``block`` the batch of
    every perturbation, ``cells`` and ``controls`` the cells of perturbations and of batches, and
    ``error`` the standard errors of the controls' means, if given; without the last two these are
    assumed to be large.
    """
    n = np.full(len(variance), _CELLS) if cells is None else cells
    n_batches, removed = int(block.max()) + 1, 1.0
    of_perturbations = Rows(n, block, np.zeros(len(n), bool), cells is not None)
    if error is not None:
        of_controls = np.tile(error**2, (n_batches, 1))
    elif controls is not None:
        both = 1.0 / n + 1.0 / controls[block]
        of_controls = scales(of_perturbations, variance / both[:, None]) / controls[:, None]
    else:
        least = np.full((n_batches, variance.shape[1]), np.inf)
        np.minimum.at(least, block, variance)
        of_controls = SHARED * np.where(np.isfinite(least), least, least.min(axis=0))
        removed = 0.0
    of_all = np.append(np.arange(n_batches), block)
    is_control = np.arange(len(of_all)) < n_batches
    first = np.ones(n_batches, np.int64) if controls is None else controls
    rows = Rows(np.append(first, n), of_all, is_control, cells is not None, removed)
    if controls is None:  # as many as have that error
        own = own_variances(rows, np.vstack([of_controls, variance]))[n_batches:]
        few = scales(of_perturbations, n[:, None] * own) / of_controls
        rows.n[:n_batches] = np.maximum(np.round(np.median(few, axis=1)), 2)
    return rows, of_controls


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
    asked: Any, obs: pd.DataFrame, labels: list[str], batches: list[str]
) -> NDArray[np.int64] | None:
    """Return the number of controls of every batch, sorted; ``batches`` is that of every row."""
    by_batch = isinstance(asked, (Mapping, pd.Series)) and {*batches} <= {*map(str, asked.keys())}
    of_rows = _counts(asked, obs, batches if by_batch else labels, "n_controls")
    if of_rows is None:
        return None
    _, first, block = np.unique(batches, return_index=True, return_inverse=True)
    if (of_rows[first][block] != of_rows).any():
        message = "n_controls differs between perturbations of one batch, which share controls."
        raise ValueError(message)
    return of_rows[first]


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
            "The table does not state how genes are correlated, and has more than %d "
            "perturbations. No programs are modelled, because correlated errors would look like "
            "programs, and effects that all perturbations share are not recognised. Give "
            "correlation: control cells or samples, or genes x genes.", WITHOUT_CORRELATION,
        )  # fmt: skip
