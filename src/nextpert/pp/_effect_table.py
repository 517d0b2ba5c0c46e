"""``pp.effect_table``: a screen from effects and standard errors, or from the effects of cells."""

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
from nextpert._adata.panel import with_names
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
    SHARED,
    Rows,
    not_told,
    own_variances,
    scales,
    shrunk_correlation,
)
from nextpert.core._checks import MAX_VALUE, list_names
from nextpert.core._codec import table_type
from nextpert.core.model.within_cells import WITHOUT_CORRELATION, without_responses
from nextpert.core.screen.guides import distinct, pool_guides, spread_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

CONSERVATIVE = "conservative"  # the error of controls about which nothing is known
_MAX_CELLS = 1e12  # a thousand such numbers add up to an exact whole number
_MIN_SE = 1e-100  # smallest standard error, because its square is squared again
_TOO_LARGE = f"are above {MAX_VALUE:g}, too large for squared distances, for"
# If numbers of cells are not given, they only set a scale: an effect of 10 standard errors is one
# standard deviation of a gene, about as in screens with 100 cells per perturbation.
_ASSUMED_CELLS = 100
_MIN_RELATIVE_SE = 1e-9  # of the table's median standard error: smaller ones make matrices singular
# Control cells or samples that a correlation needs. Of the effects called significant on 100
# correlated genes, 15 of 918 were false with 20 cells (1.8 stated, 8 allowed), and 1 of 939 with 50
# cells (1.6 stated, 7 allowed).
_MIN_CORRELATION_ROWS = 50


class EffectInput(NamedTuple):
    """Effects and standard errors with rows named by label, and what else is known of them.

    ``obs`` and ``var`` describe the same rows and columns. The last four fields describe the cells,
    if cells were given instead of a table.
    """

    effects: pd.DataFrame
    se: pd.DataFrame
    obs: pd.DataFrame
    var: pd.DataFrame
    source: str = "table"
    roles: Roles = Roles()
    n_controls: float | None = None
    correlation: Array | None = None

    def rows(self, is_selected: NDArray[np.bool_]) -> EffectInput:
        """Return some of the rows."""
        parts = {name: getattr(self, name)[is_selected] for name in ("effects", "se", "obs")}
        return self._replace(**parts)


@checked(control_se=one_of(CONSERVATIVE))
def effect_table(
    adata: ad.AnnData | pd.DataFrame,
    se: pd.DataFrame | None = None,
    *,
    n_cells: float | Mapping[str, float] | None = None,
    n_controls: float | Mapping[str, float] | None = None,
    batch: Mapping[str, Any] | pd.Series | None = None,
    control_mean: Mapping[str, float] | None = None,
    control_se: str | Mapping[str, float] | None = None,
    correlation: pd.DataFrame | ad.AnnData | None = None,
) -> ad.AnnData:
    r"""Make a screen from effects and their standard errors, without cells.

    Use it for screens that are published or stored as tables of effects. The result has one row per
    perturbation and one for the controls; with batches, one of each per batch. It can be passed to
    :func:`~nextpert.tl.fit_dag_blr`, :func:`~nextpert.tl.plan_screen` and
    :class:`~nextpert.Campaign` like single cells. Functions that need cells, such as those
    that learn a graph, raise an error. The result contains a graph of all genes without edges. An
    effect with standard error ``s`` counts as :math:`\sigma^2 / s^2` cells
    (:doc:`/model/mathematics`, equation 25). For long tables, such as those of DESeq2, and for
    pseudo-bulk samples, see :doc:`/guides/prepare_a_screen`.

    Parameters
    ----------
    adata
        Effects (differences of natural logarithms, NaN if unknown): a table of perturbations x
        genes; an AnnData with effects in ``X``, standard errors in ``layers["se"]`` and labels in
        ``obs["perturbation"]`` (by default the row names); or a screen of cells or samples after
        :func:`setup_screen`, with the number of cells per sample, if known, in ``obs["n_cells"]``.
    se
        Standard errors, with the rows and columns of ``adata``, if that is a table.
    n_cells
        Number of cells per perturbation: a number or a mapping; by default ``obs["n_cells"]``, if
        present. Without it, numbers of cells in plans are only relative.
    n_controls
        Number of control cells, or a mapping from batches to numbers.
    batch
        Batch of each perturbation, a mapping; by default ``obs["batch"]``. Each batch has its own
        controls. A perturbation in several batches has a row in each; if these rows differ by more
        than their standard errors, all standard errors are increased by the same factor.
    control_mean, control_se
        Mean of the controls per gene, and its standard error; by default columns of ``var``. With
        means, efficacy is learned. The default standard error follows from ``n_controls``. If
        neither is known, ``"conservative"`` takes nine tenths of the gene's smallest squared error.
    correlation
        At least 50 control cells or samples x genes, from which the correlation between genes is
        estimated. Without them, no program is modelled for more than 30 perturbations. Not needed
        if ``adata`` is a screen of cells.

    Returns
    -------
    ~anndata.AnnData
        Rows of controls and perturbations x genes, with:

        - ``X``, ``layers["se"]`` (array, ``(n_rows, n_vars)``): effects plus the control mean (0 if
          not given), and standard errors, infinite if unknown.
        - ``obs["perturbation"]``, ``obs["batch"]`` (labels): label of each row; batch, if given.
        - ``obs["n_cells"]`` (number): cells of each row.
        - ``varp["correlation"]`` (array, ``(n_vars, n_vars)``): correlation of genes, if known.
        - ``varp["dag"]``, ``uns["dag"]`` (as of :func:`nextpert.tl.learn_dag`): no edges.
        - ``uns["screen"]`` (mapping): as of :func:`setup_screen`.
        - ``uns["effect_table"]`` (mapping): ``source`` (``"table"``, ``"cells"`` or ``"samples"``),
          ``n_missing`` (unknown entries), and, as 0 or 1, ``cells_given``, ``controls_given`` (0 if
          conservative) and ``means_given``.

    Raises
    ------
    ValueError
        If the error of the controls is not given, or a table or value is invalid.

    Examples
    --------
    >>> import nextpert as npt
    >>> screen = npt.datasets.simulated_screen(n_genes=12, n_control=500, n_perturbed=100, rng=0)
    >>> npt.pp.setup_screen(screen)
    >>> own = npt.pp.effect_table(screen)  # from cells; a published table has effects and errors:
    >>> effects = own.to_df().iloc[1:] - own.to_df().loc["control"]
    >>> table = npt.pp.effect_table(effects, own.to_df("se").iloc[1:], control_se="conservative")
    >>> table.shape
    (9, 12)
    """
    inputs = _of_anndata(adata) if isinstance(adata, ad.AnnData) else _of_tables(adata, se)
    if isinstance(adata, ad.AnnData) and se is not None:
        message = "se is only for tables: put the standard errors of an AnnData in its layer 'se'."
        raise ValueError(message)
    if not inputs.effects.size:
        message = "The table of effects has no rows or no columns: pass perturbations x genes."
        raise ValueError(message)
    control = inputs.roles.control
    batches = _values(batch, inputs.obs, [*map(str, inputs.effects.index)], "batch")
    if batches is not None:
        named = with_names(batches, "Rows by batch")
        inputs = inputs.rows(named)
        batches = [str(batches[j]) for j in np.flatnonzero(named)]
    labels, genes = ([*map(str, axis)] for axis in inputs.effects.axes)
    pairs = labels if batches is None else [*zip(labels, batches, strict=True)]
    _require_once(pd.Index(pairs, tupleize_cols=False), "Perturbations")
    _require_once(pd.Index(genes), "Genes")
    if control in labels:
        message = (
            f"The table has a row for the controls, {control!r}: remove it, and pass the means of "
            f"the controls, if known, as control_mean."
        )
        raise ValueError(message)
    effects = real_values(inputs.effects, "Effects")
    errors = real_values(inputs.se, "Standard errors")
    is_known = _known_entries(effects, errors, labels, genes)
    batch_names, block = np.unique(batches or [control] * len(labels), return_inverse=True)
    if batches is not None:
        _require_same_genes(is_known, labels)
        factor = _batch_factor(effects, errors, labels)
        errors = errors * factor
        logger.info(
            "Standard errors are multiplied by %.2f, the ratio of the observed to the expected "
            "differences between batches (at least 1).",
            factor,
        )
    cells = _counts(n_cells, inputs.obs, labels, "n_cells")
    of_batches = inputs.n_controls if n_controls is None else n_controls
    controls = _counts(of_batches, pd.DataFrame(), batch_names.tolist(), "n_controls")
    mean = _numbers(control_mean, inputs.var, genes, "control_mean")
    error = None
    if control_se != CONSERVATIVE:
        error = _numbers(control_se, inputs.var, genes, "control_se", _MIN_SE)
    has_error = controls is not None or error is not None
    if not (has_error or control_se == CONSERVATIVE) or (controls is not None and cells is None):
        message = (
            "The effects of a batch share the standard error of its controls, which is unknown: "
            "pass n_controls with n_cells, or control_se ('conservative' if neither is known)."
        )
        raise ValueError(message)
    variance = np.where(is_known, errors, np.inf) ** 2
    rows, of_controls = _controls_of(variance, block, cells, controls, error)
    values = np.vstack([np.zeros((len(batch_names), len(genes))), np.where(is_known, effects, 0.0)])
    kind = table_type(values.size)
    out = ad.AnnData(
        (values if mean is None else values + mean).astype(kind, copy=False),
        _obs(labels, batch_names, None if batches is None else block, rows, control),
        inputs.var,
        layers={SE: np.sqrt(np.vstack([of_controls, variance])).astype(kind, copy=False)},
    )
    roles = Roles(control=control, batch_key=() if batches is None else ("batch",))
    roles = replace(roles, separator=inputs.roles.separator)
    record = {
        "source": inputs.source,
        "n_missing": int((~is_known).sum()),
        "cells_given": int(cells is not None),
        "controls_given": int(has_error),
        "means_given": int(mean is not None),
    }
    graph = {"genes": _adata.strings(genes), "n_edges": 0, "order": _adata.strings(genes)}
    graph["params"] = {"method": "given"}
    varp = {"dag": sp.csr_array((len(genes), len(genes)))}
    gene_correlation = inputs.correlation
    if correlation is not None:
        gene_correlation = _correlation_of_controls(correlation, genes)
    if gene_correlation is not None:
        varp[CORRELATION] = gene_correlation.astype(np.float32)
    _adata.write_results(out, uns={KEY: record, "dag": graph}, varp=varp)
    scale = read_scale(out, np.arange(len(genes)), np.arange(out.n_obs), None)
    _adata.write_results(out, uns={SCREEN: screen_record(roles, scale.stored(checked=True))})
    if not_told(out):
        logger.warning("%s", not_told(out))
    if len(set(labels)) > WITHOUT_CORRELATION and gene_correlation is None:
        logger.warning(
            "No programs are modelled, because the table has more than %d perturbations and no "
            "correlation between genes: pass control cells or samples as correlation.",
            WITHOUT_CORRELATION,
        )
    return out


def _of_anndata(adata: ad.AnnData) -> EffectInput:
    """Return the effects of an AnnData with a layer of standard errors, or else of its cells."""
    if SE not in adata.layers:
        if SCREEN in adata.uns:
            return _of_cells(adata)
        message = (
            "adata has no layer 'se' (standard errors): add it or, if its rows are cells, call "
            "pp.setup_screen first."
        )
        raise ValueError(message)
    for layer in (None, SE):
        _adata.require_layer(adata, layer)
    labels = adata.obs.get("perturbation", adata.obs_names.to_series())
    effects, errors = (adata.to_df(layer).set_axis(labels) for layer in (None, SE))
    genes = with_names(adata.var_names, "Genes")
    inputs = EffectInput(effects.loc[:, genes], errors.loc[:, genes], adata.obs, adata.var[genes])
    return inputs.rows(with_names(labels, "Perturbations"))


def _of_tables(effects: pd.DataFrame, se: pd.DataFrame | None) -> EffectInput:
    """Return two tables, the second with the rows and columns of the first."""
    if se is None:
        message = "A table of effects needs a table of standard errors: pass it as se."
        raise ValueError(message)
    effects = effects.loc[
        with_names(effects.index, "Perturbations"), with_names(effects.columns, "Genes")
    ]
    se = se.loc[with_names(se.index), with_names(se.columns)]
    for one, other, noun in zip(effects.axes, se.axes, ("perturbations", "genes"), strict=True):
        _require_once(one, noun.capitalize())
        _require_once(other, noun.capitalize())
        if len(differ := one.symmetric_difference(other)):
            shown = list_names(map(str, differ))
            message = (
                f"Effects and standard errors differ in their {noun}: {shown}. Pass two tables "
                f"with the same rows and columns."
            )
            raise ValueError(message)
    obs, var = (pd.DataFrame(index=axis.astype(str)) for axis in effects.axes)
    return EffectInput(effects, se.loc[effects.index, effects.columns], obs, var)


def _of_cells(adata: ad.AnnData) -> EffectInput:
    """Return the differences of means of a screen of cells, and their standard errors.

    Batch effects are subtracted, and the variance between guides is added. Variances are moderated,
    as in a fit to the cells. Genes that do not vary are left out.
    """
    roles = _adata.read_roles(adata)
    names = _adata.read_perturbations(adata, roles).perturbations()
    environments = read_environments(adata, roles, named=names)
    coded = coding({"environment": environments.codes})
    (screen,) = read_screens(adata, np.arange(adata.n_vars), [coded], layer=roles.layer)
    clean, keys, sd = environments.without_batches(screen, names)
    pairs, pair_codes = distinct(keys[:, 0], keys[:, 1])
    moments = clean.pool(pair_codes, len(pairs))
    group = pairs[:, 0]
    spread = 0.0
    if roles.guide_key is not None:
        spread = spread_within(moments.subset(np.arange(adata.n_vars)), group)
    pooled = pool_guides(moments, group, 1 + len(names), guide_variance=spread, fixed_sd=sd)
    change, error = pooled.to_controls()
    within_cells = pooled.covariance.diagonal()
    genes = np.array(_adata.measured_genes(adata), dtype=object)
    varies = within_cells > 0
    index = pd.Index(genes[varies])
    effects = pd.DataFrame(change[:, varies], names, index)
    se = pd.DataFrame(np.sqrt(within_cells * error)[:, varies], names, index)
    cells: Array = pooled.n_cells.astype(np.float64)
    # Rows are samples, each with its number of cells.
    if "n_cells" in adata.obs:
        sample_cells = real_values(adata.obs["n_cells"], "n_cells")
        groups = np.append(environments.numbered(names), -1)
        sample = groups[environments.codes]
        cells = np.zeros(1 + len(names))
        np.add.at(cells, sample[sample >= 0], sample_cells[sample >= 0])
    obs = pd.DataFrame({"n_cells": cells[1:]}, index=effects.index)
    var = adata.var[[]].loc[varies].set_axis(index)
    var["control_mean"] = pooled.mean[0][varies]
    var["control_se"] = np.sqrt(within_cells / pooled.counted[0])[varies]
    gene_correlation = None
    if (freedom := float(pooled.freedom.sum())) >= _MIN_CORRELATION_ROWS:
        within = without_responses(pooled, np.sqrt(np.where(varies, within_cells, 1.0)))
        gene_correlation = shrunk_correlation(within[np.ix_(varies, varies)], freedom)
    source = SAMPLES if "n_cells" in adata.obs else "cells"
    return EffectInput(effects, se, obs, var, source, roles, float(cells[0]), gene_correlation)


def _require_once(names: pd.Index[Any], noun: str) -> None:
    twice = names[names.duplicated()].unique()
    if len(twice):
        message = f"{noun} given more than once: {list_names(map(str, twice))}. Keep one of each."
        raise ValueError(message)


def _known_entries(
    effects: Array, errors: Array, labels: Sequence[str], genes: Sequence[str]
) -> NDArray[np.bool_]:
    """Return which entries are known, ``(n_perturbations, n_genes)``, or raise."""
    is_known = ~np.isnan(effects) & ~np.isnan(errors) & (errors < np.inf)
    min_error = _MIN_RELATIVE_SE * np.median(errors[is_known]) if is_known.any() else 0.0
    is_low = is_known & ~(errors > max(min_error, 0.0))
    for is_bad, problem in (
        (is_low, "Standard errors must be above a billionth of their median, but are not for"),
        (np.isinf(effects), "Effects are infinite for"),
        (is_known & (np.abs(effects) > MAX_VALUE), f"Effects {_TOO_LARGE}"),
        (is_known & (errors > MAX_VALUE), f"Standard errors {_TOO_LARGE}"),
    ):
        if is_bad.any():
            pairs = zip(*np.nonzero(is_bad), strict=True)
            shown = list_names(f"{labels[j]} on {genes[i]}" for j, i in pairs)
            message = f"{problem} {shown}: set them to NaN if they are unknown."
            raise ValueError(message)
    for names, axis, noun in ((genes, 0, "genes"), (labels, 1, "perturbations")):
        empty = [names[int(k)] for k in np.flatnonzero(~is_known.any(axis=axis))]
        if empty:
            message = f"No effect is known for the {noun} {list_names(empty)}: leave them out."
            raise ValueError(message)
    return is_known


def _correlation_of_controls(controls: ad.AnnData | pd.DataFrame, genes: Sequence[str]) -> Array:
    """Return the correlation between genes in control cells or samples, ``(n_genes, n_genes)``."""
    table = controls.to_df() if isinstance(controls, ad.AnnData) else controls
    table = table.set_axis(table.columns.astype(str), axis=1)
    absent = sorted(set(genes) - set(table.columns))
    if absent or table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()]
        problem = "lacks these genes" if absent else "contains these genes more than once"
        message = f"The table correlation {problem}: {list_names(absent or twice)}."
        raise ValueError(message)
    values = real_values(table[list(genes)], "correlation")
    if len(values) < _MIN_CORRELATION_ROWS or not np.isfinite(values).all():
        message = (
            f"correlation needs at least {_MIN_CORRELATION_ROWS} rows (control cells or samples) "
            f"without NaN or infinite values; it has {len(values)} rows."
        )
        raise ValueError(message)
    centred = values - values.mean(axis=0)
    return shrunk_correlation(centred.T @ centred, len(values) - 1.0)


def _batch_factor(effects: Array, errors: Array, labels: Sequence[str]) -> float:
    """Return the factor by which rows of one perturbation in several batches exceed their errors.

    It is the root of the mean squared deviation of rows from their perturbation's mean, weighted by
    one over the squared standard errors, over its expectation; 1 if that is less, or without such
    rows. Standard errors within a batch do not include differences between clones and batches.
    """
    names, code, count = np.unique(labels, return_inverse=True, return_counts=True)
    total = freedom = 0.0
    for k in range(len(names)):
        if count[k] > 1:
            y, weight = effects[code == k], 1.0 / errors[code == k] ** 2
            is_known = np.isfinite(y) & np.isfinite(weight)
            y, weight = np.where(is_known, y, 0.0), np.where(is_known, weight, 0.0)
            middle = (weight * y).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
            total += float((weight * (y - middle) ** 2).sum())
            freedom += float(np.maximum(is_known.sum(axis=0) - 1, 0).sum())
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
    ``error`` the standard errors of the controls' means, if given. Without ``controls`` and
    ``error``, the standard errors of the controls are assumed to be large.
    """
    n = np.full(len(variance), _ASSUMED_CELLS) if cells is None else cells
    n_batches = int(block.max()) + 1
    removed = 1.0
    of_perturbations = Rows(n, block, np.zeros(len(n), bool), cells is not None)
    if error is not None:
        of_controls = np.tile(error**2, (n_batches, 1))
    elif controls is not None:
        inverse_cells = 1.0 / n + 1.0 / controls[block]
        of_controls = (
            scales(of_perturbations, variance / inverse_cells[:, None]) / controls[:, None]
        )
    else:
        min_variance = np.full((n_batches, variance.shape[1]), np.inf)
        np.minimum.at(min_variance, block, variance)
        of_controls = SHARED * np.where(
            np.isfinite(min_variance), min_variance, min_variance.min(axis=0)
        )
        removed = 0.0
    of_all = np.append(np.arange(n_batches), block)
    is_control = np.arange(len(of_all)) < n_batches
    first = np.ones(n_batches, np.int64) if controls is None else controls
    rows = Rows(np.append(first, n), of_all, is_control, cells is not None, removed)
    if controls is None:  # the number of cells that has this error
        own_variance = own_variances(rows, np.vstack([of_controls, variance]))[n_batches:]
        equivalent_cells = scales(of_perturbations, n[:, None] * own_variance) / of_controls
        rows.n[:n_batches] = np.maximum(np.round(np.median(equivalent_cells, axis=1)), 2)
    return rows, of_controls


def _require_same_genes(is_known: NDArray[np.bool_], labels: list[str]) -> None:
    """Raise if a perturbation in several batches has genes that are known in only some of them."""
    fraction = pd.DataFrame(is_known).groupby(labels).mean()
    part = fraction.index[((fraction > 0) & (fraction < 1)).any(axis=1)]
    if len(part):
        message = (
            f"Genes are missing in some, but not all, of the batches of {list_names(part)}: set "
            f"them to NaN in all of these batches."
        )
        raise ValueError(message)


def _values(option: Any, frame: pd.DataFrame, names: list[str], argument: str) -> list[Any] | None:
    """Return a value for each of ``names``, which are the rows of ``frame``, or ``None``.

    ``option`` is a mapping of names, one value for all, or ``None`` for the column with the
    argument's name, if there is one.
    """
    if option is None:
        return list(frame[argument]) if argument in frame else None
    if not isinstance(option, (Mapping, pd.Series)):
        return [option] * len(names)
    by_name = {str(name): value for name, value in option.items()}
    absent = sorted(set(names) - set(by_name))
    if absent:
        message = f"{argument} has no value for {list_names(absent)}: add one."
        raise ValueError(message)
    return [by_name[name] for name in names]


def _numbers(
    option: Any,
    frame: pd.DataFrame,
    names: list[str],
    argument: str,
    minimum: float = -MAX_VALUE,
    maximum: float = MAX_VALUE,
) -> Array | None:
    """Return :func:`_values` as numbers within bounds."""
    values = _values(option, frame, names, argument)
    if values is None:
        return None
    numbers = real_values(pd.Series(values, dtype=object), argument)
    wrong = numbers[~((numbers >= minimum) & (numbers <= maximum))]
    if len(wrong):
        message = (
            f"{argument} must be between {minimum:g} and {maximum:g}; one value is {wrong[0]:g}."
        )
        raise ValueError(message)
    return numbers


def _counts(
    option: Any, frame: pd.DataFrame, names: list[str], argument: str
) -> NDArray[np.int64] | None:
    """Return :func:`_values` as numbers of cells, at least two, so that there is a variance."""
    numbers = _numbers(option, frame, names, argument, 1.0, _MAX_CELLS)
    return None if numbers is None else np.maximum(np.round(numbers), 2).astype(np.int64)


def _obs(
    labels: list[str],
    batch_names: NDArray[np.str_],
    block: NDArray[np.int64] | None,
    rows: Rows,
    control: str,
) -> pd.DataFrame:
    """Return ``obs``, the controls of every batch first; ``block`` as in :func:`_controls_of`."""
    names = [control] * len(batch_names) + labels
    frame = pd.DataFrame({"perturbation": pd.Categorical(names), "n_cells": rows.n})
    if block is not None:
        batches = [*batch_names, *batch_names[block]]
        frame["batch"] = pd.Categorical(batches)
        names = [f"{name} ({batch})" for name, batch in zip(names, batches, strict=True)]
    frame.index = pd.Index(names)
    return frame
