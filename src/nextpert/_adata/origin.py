"""What a result was computed from: cells, roles of columns and fit, compared with the present ones.

Results keep digests of their cells (``cells``) and of their fit (``fit``). All calls that compute
from a fit or show a result compare them here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp
from pandas.util import hash_array

from nextpert._adata.graph import panel_of, symbols_of
from nextpert._adata.labels import column_of, read_labels
from nextpert._adata.panel import resolve_panel
from nextpert._adata.read import read_blocks, require_layer, slot
from nextpert._adata.roles import KEY, Roles, declared, fitted_roles, role_texts
from nextpert._adata.sources import dense
from nextpert._adata.stored import read_stored
from nextpert._adata.table import SE, is_table
from nextpert._warn import warn
from nextpert.core._checks import list_names

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray


# Cells whose values are compared if the matrix is in a file: transformations of a matrix usually
# change all of its cells.
_SAMPLED = 16


def fingerprint(
    adata: ad.AnnData, roles: Roles, columns: NDArray[np.int64], *, only_controls: bool = False
) -> str:
    """Return digests of the names and roles of all labelled cells, and of the values of 16 cells.

    ``only_controls`` leaves out all cells but the controls.
    For a matrix in memory, a digest of all values follows after a colon. The digests depend neither
    on the order of cells nor on the format of the matrix; :func:`same_cells` compares them.
    """
    words = hash_array(np.array(adata.obs_names, dtype=object))
    for key in roles.columns:
        column = column_of(adata, key)
        if column.dtype.kind == "f":
            column_hash = hash_array(column.to_numpy(np.float64))
        else:
            labels = read_labels(adata, key)
            column_hash = np.append(hash_array(np.array(labels.names, dtype=object)), 0)[
                labels.codes
            ]
        words = hash_array(words + np.uint64(3) * column_hash)
    labels = read_labels(adata, roles.perturbation_key)
    codes = labels.groups([roles.control]) if only_controls else labels.codes
    labelled = np.flatnonzero(codes >= 0)
    cells = labelled[np.argsort(words[labelled], kind="stable")][:_SAMPLED]
    layers = [roles.layer, SE] if is_table(adata) else [roles.layer]
    matrices = [require_layer(adata, layer)[1] for layer in layers]
    in_memory = all(isinstance(matrix, np.ndarray) or sp.issparse(matrix) for matrix in matrices)
    values = np.zeros((len(layers), len(cells), len(columns)))
    sum_of_words = 0
    for k, layer in enumerate(layers):
        for block_cells, block in read_blocks(
            adata,
            columns,
            labelled if in_memory else cells,
            layer=layer,
            finite=False,
            of_table=True,
        ):
            sampled, row = np.nonzero(cells[:, None] == block_cells)
            values[k, sampled] = dense(block[row]) + 0.0  # no -0.0
            if in_memory:
                sum_of_words += int(
                    hash_array(words[block_cells] + _row_words(block)).sum(dtype=np.uint64)
                )
    total = int(words[labelled].sum(dtype=np.uint64))
    digest = f"{total:016x} {hashlib.sha256(values.tobytes()).hexdigest()[:16]}"
    return f"{digest}:{sum_of_words % 2**64:016x}" if in_memory else digest


def _row_words(block: Any) -> NDArray[np.uint64]:
    """Return a hash of the values of every row, which does not depend on stored zeros."""
    # The factors are odd, so that the product preserves every change of a value.
    factors = hash_array(np.arange(block.shape[1])) | np.uint64(1)
    is_sparse = sp.issparse(block)
    # The bits of 0 are 0, so that zeros add nothing; sums of integers are exact modulo 2^64.
    bits = (np.asarray(block.data if is_sparse else block, np.float64) + 0.0).view(np.uint64)
    if not is_sparse:
        return np.asarray((bits * factors).sum(axis=1, dtype=np.uint64))
    total = np.append(np.uint64(0), np.cumsum(bits * factors[block.indices], dtype=np.uint64))
    return np.asarray(total[block.indptr[1:]] - total[block.indptr[:-1]])


def same_cells(one: str, other: str) -> bool:
    """Return whether two fingerprints describe the same cells, by the digests that both have."""
    (a, _, x), (b, _, y) = one.partition(":"), other.partition(":")
    return a == b and (x == y or not (x and y))


class Origin(NamedTuple):
    """What a result was computed from: the panel, the roles of columns, and digests of the cells.

    ``cells`` is the fingerprint of the cells, empty if none was stored; ``params`` has the roles.
    """

    genes: list[str]
    params: Mapping[str, Any]
    cells: str
    only_controls: bool = False

    @classmethod
    def of_fit(cls, stored: Mapping[str, Any]) -> Origin:
        """Return the origin of a stored fit."""
        cells_of_fit: Any = stored.get("cells")
        cells = (
            " ".join(str(cells_of_fit[name]) for name in ("roles", "values"))
            if cells_of_fit
            else ""
        )
        return cls(panel_of(stored) or [], stored["params"], cells)

    @classmethod
    def of_result(cls, stored: Mapping[str, Any]) -> Origin:
        """Return the origin of a result that was computed from cells, without a fit."""
        cells, genes = str(stored.get("cells", "")), stored.get("genes")
        if isinstance(genes, pd.DataFrame):
            genes = genes["gene"].astype(str).to_numpy()
        only = str(stored.get("cells_read", "")) == CONTROLS
        return cls(panel_of({"genes": genes}) or [], stored.get("params", {}), cells, only)


CONTROLS = "controls"


def origin_of_cells(
    adata: ad.AnnData, roles: Roles, columns: NDArray[np.int64], *, only_controls: bool = False
) -> dict[str, str]:
    """Return the fields by which a result without a fit knows its cells."""
    cells = fingerprint(adata, roles, columns, only_controls=only_controls)
    return {"cells": cells, "cells_read": CONTROLS if only_controls else "all"}


def changed_roles(adata: ad.AnnData, params: Mapping[str, Any]) -> str:
    """Return the roles that ``pp.setup_screen`` has declared since, in words, or an empty string.

    ``params`` are those of the fit.
    """
    if KEY not in adata.uns:
        return ""
    roles, used = role_texts(declared(adata)), role_texts(params)
    return ", ".join(f"{name} {x!r}" for name, x in roles.items() if x != used[name])


def missing_roles(adata: ad.AnnData, params: Mapping[str, Any]) -> str:
    """Return the columns and the layer of a result that are no longer there, in words, or ``""``.

    ``params`` are those of the result, with the roles.
    """
    used = {**vars(Roles()), **params}
    names = [used["perturbation_key"], used["guide_key"], *used["batch_key"], *used["covariates"]]
    absent = [f"obs[{str(x)!r}]" for x in names if x is not None and str(x) not in adata.obs]
    if used["layer"] is not None and used["layer"] not in adata.layers:
        absent.append(f"layers[{used['layer']!r}]")
    return f"a column or layer of the fit is missing: {list_names(absent)}" if absent else ""


def changed_cells(adata: ad.AnnData, origin: Origin) -> str:
    """Return what has changed in the cells since, in words, or an empty string."""
    look = _LOOK.get()
    look = {} if look is None else look
    if not origin.cells or origin.cells in look:
        return look.get(origin.cells, "")
    words = ""
    symbols = symbols_of({"params": origin.params})
    try:
        roles = fitted_roles(adata, origin.params)
        is_there = roles.perturbation_key in adata.obs and (
            roles.layer is None or roles.layer in adata.layers
        )
    except ValueError:
        is_there = False
    if not is_there:
        words = missing_roles(adata, origin.params) or "roles of columns"
    if not words:
        try:
            _, columns = resolve_panel(adata, origin.genes, gene_symbols=symbols)
        except ValueError as error:
            words = f"genes are missing: {str(error).partition('. ')[0]}"
    if not words:
        present = fingerprint(adata, roles, columns, only_controls=origin.only_controls)
        if present.split()[0] != origin.cells.split()[0]:
            words = f"names, or columns {list_names(roles.columns)}"
        elif not same_cells(present, origin.cells):
            words = f"values of {slot(roles.layer)}"
    look[origin.cells] = words
    return words


def changes_of_fit(adata: ad.AnnData, fit: Mapping[str, Any]) -> str:
    """Return what has changed since a stored fit, in words, or an empty string."""
    origin = Origin.of_fit(fit)
    if not origin.cells:
        return ""
    if changed := changed_cells(adata, origin):
        return f"the cells have changed ({changed})"
    roles = changed_roles(adata, origin.params)
    return f"pp.setup_screen has declared {roles}" if roles else ""


def changes_since(adata: ad.AnnData, stored: Mapping[str, Any]) -> str:
    """Return what has changed since a result was computed, in words, or an empty string.

    These are its fit, the roles that were declared, and the cells: names, columns with a role, and
    values of the panel. Nothing is compared if the values of the cells are no longer there.
    """
    if adata.X is None and not len(adata.layers):
        return ""
    if "posterior" in stored:
        return changes_of_fit(adata, stored)
    of_fit = str(stored.get("fit", ""))
    params = stored.get("params", {})
    if not of_fit:
        changed = changed_cells(adata, Origin.of_result(stored))
        return f"the cells have changed ({changed})" if changed else ""
    key = str(params.get("posterior_key", "dag_blr"))
    if key not in adata.uns:
        return f"its fit, adata.uns[{key!r}], is no longer there to compare the cells with"
    try:
        fit = read_stored(adata, key, "tl.fit_dag_blr")
    except ValueError:
        return f"its fit, adata.uns[{key!r}], is damaged"
    if str(fit.get("digest", "")) != of_fit:
        return "it was computed from another fit"
    return changes_of_fit(adata, fit)


# What is known of changes while several results are shown at once: a banner says it, not warnings.
_LOOK: ContextVar[dict[str, str] | None] = ContextVar("_LOOK", default=None)


@contextmanager
def one_look() -> Iterator[None]:
    """Compare the cells once for all results that are shown within, and raise no warnings."""
    token = _LOOK.set({})
    try:
        yield
    finally:
        _LOOK.reset(token)


def say_changes(adata: ad.AnnData, key: str, stored: Mapping[str, Any], function: str) -> None:
    """Warn if cells, roles or fit have changed since the result in ``adata.uns[key]``."""
    if (changed := changes_since(adata, stored)) and _LOOK.get() is None:
        warn(f"{words_of(key, changed)}: {remedy_of(stored, function)}.")


def words_of(key: str, changed: str) -> str:
    """Return a sentence without its end on the changes since a result was computed."""
    return f"adata.uns[{key!r}] does not belong to the present screen: {changed}"


def remedy_of(stored: Mapping[str, Any], function: str) -> str:
    """Return what to run again."""
    first = "tl.fit_dag_blr (if the cells changed) and " if stored.get("fit") else ""
    return f"run {first}{function} again"


def read_result(
    adata: ad.AnnData, key: str, function: str, *, what: str, part: str, allow_stale: bool = True
) -> dict[str, Any]:
    """Return the result in ``adata.uns[key]``; warn if cells, roles or fit have changed since.

    Parameters
    ----------
    adata, key
        AnnData and key of the result.
    function
        The function that writes the result, such as ``"tl.plan_screen"``.
    what
        The name of the result in errors, such as ``"plan"``.
    part
        A part that every such result has.
    allow_stale
        Whether a result of changed cells is returned, with a warning, or raises an error.
    """
    stored = adata.uns.get(key)
    # What this package wrote has "contents": without its part, it is damaged.
    is_result = hasattr(stored, "keys") and bool({part, "contents"} & set(stored))
    result = read_stored(adata, key, function) if is_result else {}
    if part not in result:
        message = f"adata.uns has no {what} {key!r}: run {function} first."
        raise ValueError(message)
    if not allow_stale and (changed := changes_since(adata, result)):
        message = (
            f"{words_of(key, changed)}: {remedy_of(result, function)}, or pass allow_stale=True."
        )
        raise ValueError(message)
    say_changes(adata, key, result, function)
    return result
