"""From what the cells carry to a screen of one panel, with the books kept."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata import join
from nextpert._adata.effects import hardly_expressed_message
from nextpert._adata.panel import MODULE_OF, PROGRAM_OF
from nextpert._adata.read import require_finite
from nextpert._adata.roles import KEY, screen_record
from nextpert._adata.scale import overruled_by, read_scale
from nextpert._adata.screen import read_environments
from nextpert._adata.stored import with_format
from nextpert._warn import warn
from nextpert.core.model.effects import speaks_of_knockouts
from nextpert.pp._steps import expression
from nextpert.pp._steps.genes import choose_panel, gene_names
from nextpert.pp._steps.guides import CONTROL, label_cells, perturbation_table

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.roles import Roles
    from nextpert._adata.scale import Scale
    from nextpert.pp._steps.bookkeeping import Bookkeeping, ScreenOptions
    from nextpert.pp._steps.guides import CellTargets

logger = logging.getLogger(__name__)

LABELS = "perturbation"


@dataclass(frozen=True)
class Matrix:
    """What the matrix holds, and every cell's counts where they are known or needed.

    ``scale`` is what its values say, where they were looked at.
    """

    kind: str
    depth: NDArray[np.float64] | None
    scale: Scale | None = None


def prepare(
    adata: ad.AnnData, carried: CellTargets, book: Bookkeeping, options: ScreenOptions, roles: Roles
) -> tuple[ad.AnnData, dict[str, Any], list[str]]:
    """Choose cells and genes, normalise and label them; ``adata`` stays as it is.

    Return the new screen, the tables of what was done, and the warnings.

    Raises
    ------
    ValueError
        If no control cell or gene is left, values cannot be normalised, or a cell lacks a batch or
        covariate.
    """
    _adata.require_layer(adata, options.layer)
    matrix = _read_matrix(adata, book, options)
    if matrix.depth is not None and (options.counts.min_depth > 0 or matrix.kind == "counts"):
        least = options.counts.min_depth
        why = f"total counts below {least:g}" if least > 0 else "no counts"
        book.keep("depth", (matrix.depth >= least) & (matrix.depth > 0), why)
    _require_controls(carried, book)
    names = gene_names(adata, options.labels.aliases, options.gene_symbols)
    controls = np.flatnonzero(book.kept & carried.have("control"))
    counted = matrix.depth if matrix.kind == "counts" else None
    panel = choose_panel(adata, controls, names, counted, options)
    named = label_cells(carried, panel.genes, names, options)
    n_found = np.bincount(carried.codes[book.kept], minlength=len(carried.table))
    _drop_by_targets(carried, named, book, options)
    n_kept = np.bincount(carried.codes[book.kept], minlength=len(carried.table))
    table = perturbation_table(named, n_found, n_kept, panel.reasons)
    cells = np.flatnonzero(book.kept)
    new = join.take(adata, cells, panel.columns)
    target_sum = _normalise(new, panel.genes, matrix, cells, options)
    codes, others = carried.codes[cells], named["others"].map(options.separator.join)
    new.obs[LABELS] = pd.Categorical(named["label"].to_numpy(object)[codes])
    new.obs["n_targets"] = named["n_targets"].to_numpy()[codes]
    new.obs["other_targets"] = pd.Categorical(others.to_numpy(object)[codes])
    weak = _write_genes(new, panel.genes, options)
    targets = dict(zip(named["label"], named["shown"], strict=True))
    table["hardly_expressed"] = [
        bool(kept) and not weak.isdisjoint(targets[label])
        for kept, label in zip(table["kept"], table["perturbation"], strict=True)
    ]
    tables: dict[str, Any] = {
        "steps": book.table(),
        "genes": panel.book.table(),
        "perturbations": table,
        "n_control_cells": int((new.obs[LABELS] == CONTROL).sum()),
        "params": options.params() | {"values": matrix.kind},
    }
    if target_sum is not None:
        tables["params"]["target_sum"] = target_sum
    if names.used:
        tables["aliases"] = names.table()
        logger.info("Aliases: %s.", ", ".join(f"{a} -> {b}" for a, b in names.used.items()))
    messages = _messages(table, targets, weak, names.measured, options)
    if panel.constant and options.panel is not None:  # genes that were asked for
        messages.append(
            f"Genes constant among the {len(controls)} control cells, left out: "
            f"{_adata.list_names(panel.constant, limit=30)}."
        )
    scale = matrix.scale
    if scale is None or matrix.kind != "none":
        scale = read_scale(new, np.arange(new.n_vars), np.arange(new.n_obs), None)
    if scale.doubt and options.counts.check_scale:
        messages.append(scale.doubt)
    if target_sum is not None and counted is not None:
        messages += expression.blown_up_messages(counted[cells], target_sum)
    roles = replace(roles, perturbation_key=LABELS, control=CONTROL, layer=None)
    if roles.columns[1:]:
        read_environments(new, roles)  # raises
    record = screen_record(roles, scale.stored(checked=options.counts.check_scale))
    new.uns[KEY] = with_format(record)
    return new, tables, messages


def finish(
    adata: ad.AnnData, new: ad.AnnData, warnings: list[str], *, copy: bool
) -> ad.AnnData | None:
    """Warn, and put the new screen in the place of ``adata``, or return it."""
    for message in warnings:
        warn(message)
    if copy:
        return new
    join.replace(adata, new)
    return None


def _read_matrix(adata: ad.AnnData, book: Bookkeeping, options: ScreenOptions) -> Matrix:
    kind = options.counts.normalise
    cells = np.flatnonzero(book.kept)
    scale = None
    if kind != "counts":
        scale = read_scale(adata, np.arange(adata.n_vars), cells, options.layer)
    if kind == "auto" and scale is not None:
        kind = "counts" if scale.whole else options.kinds
        what = {"none": "log-normalised expression", "log_tpm": "ln(1 + TPM)"}.get(kind, kind)
        logger.info("The values are interpreted as %s.", what)
    if kind != "counts" and scale is not None and scale.fault and options.counts.check_scale:
        raise ValueError(overruled_by(scale, "count_options={'check_scale': False}"))
    if options.counts.depth_key is not None:
        return Matrix(kind, expression.read_depth(adata, options.counts.depth_key), scale)
    if kind == "counts":
        return Matrix(kind, expression.total_counts(adata, cells, options.layer), scale)
    if options.counts.min_depth > 0 or (
        kind == "log_tpm" and options.counts.target_sum == "median"
    ):
        message = (
            "The depth of the cells is needed (min_depth, or target_sum='median'), but the matrix "
            "holds no counts: name the column of every cell's total counts with depth_key."
        )
        raise ValueError(message)
    return Matrix(kind, None, scale)


def _require_controls(carried: CellTargets, book: Bookkeeping) -> None:
    if not (book.kept & carried.have("control")).any():
        steps = book.table()
        at = steps.loc[steps["n_cells_dropped"] > 0, "step"]
        message = (
            f"No control cells are left (after the steps {_adata.list_names(at) or 'none'}): name "
            f"other controls, or relax these steps."
        )
        raise ValueError(message)


def _drop_by_targets(
    carried: CellTargets, named: pd.DataFrame, book: Bookkeeping, options: ScreenOptions
) -> None:
    n_targets, labels, usable = (
        named[name].to_numpy(kind)[carried.codes]
        for name, kind in (("n_targets", int), ("label", object), ("usable", bool))
    )
    if options.combinations == "drop":
        names = np.array([f"{n} targets" for n in named["n_targets"]], dtype=object)[carried.codes]
        book.keep("combinations", n_targets <= 1, "more than one target: ", names)
    book.keep("panel", usable, "targets outside the panel or not measured: ", labels)
    number, names = pd.factorize(labels)
    n_cells = np.bincount(number[book.kept], minlength=len(names))
    enough = ((n_cells >= options.min_cells) | (names == CONTROL))[number]
    book.keep("min_cells", enough, f"fewer than {options.min_cells} cells: ", labels)


def _normalise(
    new: ad.AnnData,
    genes: list[str],
    matrix: Matrix,
    cells: NDArray[np.int64],
    options: ScreenOptions,
) -> float | None:
    """Put log-normalised expression in X and what it came from in a layer.

    Return the counts a cell is scaled to; ``None`` where the values are left as they are.
    """
    values = new.X if options.layer is None else new.layers[options.layer]
    if sp.issparse(values):
        values.sum_duplicates()  # the logarithm is that of the sum, not of its parts
    try:
        require_finite(values)
    except ValueError as error:
        raise _adata.named(error, np.array(genes), np.arange(len(genes))) from error
    depth = None if matrix.depth is None else matrix.depth[cells]
    if matrix.kind == "none":
        new.X = values
        return None
    if matrix.kind == "counts":
        expression.check_counts(values)
    else:
        expression.check_log_tpm(values, depth)
    target_sum, counted = options.counts.target_sum, depth if matrix.kind == "counts" else None
    if target_sum == "median" and depth is not None:
        target_sum = np.median(depth)
    target_sum = float(target_sum)
    new.X = expression.log_normalise(values, matrix.kind, counted, target_sum)
    if new.X is not values and matrix.kind not in new.layers:
        new.layers[matrix.kind] = values
    logger.info("Expression: ln(1 + counts per %g), from %s.", target_sum, matrix.kind)
    return target_sum


def _write_genes(new: ad.AnnData, genes: list[str], options: ScreenOptions) -> set[str]:
    """Describe the genes in var; return those hardly expressed in controls."""
    controls = new.X[(new.obs[LABELS] == CONTROL).to_numpy()]
    n = controls.shape[0]
    mean = np.asarray(controls.mean(axis=0, dtype=np.float64)).ravel()
    squares = controls.multiply(controls) if sp.issparse(controls) else controls * controls
    square = np.asarray(squares.mean(axis=0, dtype=np.float64)).ravel()
    sd = np.sqrt(np.maximum(square - mean**2, 0) * n / max(n - 1, 1))
    new.var["control_mean"] = mean
    new.var["control_sd"] = sd
    new.var["seen_in_control"] = np.asarray((controls != 0).sum(axis=0)).ravel() / n
    if options.panel == "zhang2023":
        for column, group in {"module": MODULE_OF, "program": PROGRAM_OF}.items():
            new.var[column] = pd.Categorical([group.get(gene) for gene in genes])
    names = np.array(genes, dtype=object)
    return set(names[~speaks_of_knockouts(np.abs(mean), sd)])


def _messages(
    table: pd.DataFrame,
    targets: dict[str, list[str]],
    weak: set[str],
    measured: frozenset[str],
    options: ScreenOptions,
) -> list[str]:
    """Return the warnings of a screen, and log what needs none."""
    out = []
    kept = table[table["kept"]]
    aimed_at = sorted({gene for label in kept["perturbation"] for gene in targets[label]})
    hardly = [gene for gene in aimed_at if gene in weak]
    if hardly:
        out.append(hardly_expressed_message(hardly))
    gone = table[~table["kept"]]
    named = [f"{row.perturbation} ({row.reason})" for row in gone.itertuples()]
    absent = gone.loc[gone["reason"] == "not measured", "perturbation"].to_list()
    if absent:
        message = (
            f"Perturbations left out because their targets are not measured: "
            f"{_adata.list_names(absent, limit=30)}.{_adata.closest(absent, measured)} "
            f"If a target has another name, give its gene in aliases."
            f"{_adata.guide_hint(absent, measured)}{_adata.id_hint(absent, measured)}"
        )
        # With a panel, genes may have been left out on purpose as the file was read.
        if options.panel is None:
            out.append(message)
        else:
            logger.warning(message)
    if named:
        logger.info("Perturbations left out: %s.", _adata.list_names(named, limit=30))
    unmeasured = [label for label in kept["perturbation"] if not measured & set(targets[label])]
    hint = _adata.guide_hint(unmeasured, measured) + _adata.id_hint(unmeasured, measured)
    if unmeasured and hint:  # a slip is likely; without one they are kept on purpose
        out.append(
            f"Perturbations kept although their targets are not among the genes: "
            f"{_adata.list_names(unmeasured, limit=10)}.{hint}"
        )
    if kept.empty:
        out.append("No perturbed cells are left: adata.uns lists the steps that dropped them.")
    return out
