"""Side information about perturbations: tables, networks, gene sets, effects in another screen."""

from __future__ import annotations

import gzip
import logging
import os
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from nextpert._adata.panel import with_names
from nextpert._adata.sources import dense, real_values
from nextpert._warn import warn
from nextpert.core._checks import list_names, require_small
from nextpert.core.model.predictors.base import SideInformation
from nextpert.core.screen.moments import require_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata.labels import LabelTable

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

# Components that are kept: all of 200 perturbations, of more as many as their number times the
# square of the components allows, 1,000 of 1,000, 707 of 2,000 and 316 of 10,000. What of
# similarities they lack counts as a perturbation's own. With 200 of 2,000 perturbations, the error
# of perturbations without cells was 0.85 of that without sets, with 700 or more 0.55.
_RANK, _WORK = 200, 1e9
_SMALL = 3000  # rows or columns up to which all components are computed
_EDGES = " The columns of an edge list are source, target and, if edges have one, weight."
_TABLES = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


class _Part(NamedTuple):
    """One table: a row per perturbation, of length 0 to 1, and effects in another screen.

    These are shrunk, and as they were observed, with their precisions.
    """

    names: list[str]
    rows: Any
    effects: Array | None = None
    observed: Array | None = None
    precision: Array | None = None


def load_features(features: Any, what: str = "features") -> Any:
    """Return side information with the files that it names read, as ``tl.fit_dag_blr`` takes it.

    ``what`` names it in errors.

    Raises
    ------
    ValueError
        If a file is absent, or of no kind that is read.
    """
    if isinstance(features, Mapping):
        paths = [name for name, one in features.items() if isinstance(one, (str, os.PathLike))]
        return {**features, **{p: load_features(features[p], f"{what}[{p!r}]") for p in paths}}
    if not isinstance(features, (str, os.PathLike)):
        return features
    path = Path(features)
    kind = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    known = (".gmt", *_TABLES, ".h5ad", ".zarr")
    exists = os.path.exists(path)  # of a name that is too long, a Path raises an error
    if not exists or kind not in known:
        wrong = "is of no kind that can be read" if exists else "is no file"
        message = f"{what}: {str(path)!r} {wrong}. Give a file of the kind {list_names(known)}."
        raise ValueError(message)
    try:
        if kind in (".h5ad", ".zarr"):
            return ad.read_zarr(path) if kind == ".zarr" else ad.read_h5ad(path)
        if kind == ".gmt":
            opened = gzip.open if path.suffix == ".gz" else open
            with opened(path, "rt", encoding="utf-8") as file:
                lines = file.read().splitlines()
            cells = [line.rstrip().split("\t") for line in lines if line.strip()]
            _require_distinct([name for name, *_ in cells], "sets", what)
            return {name: genes for name, _, *genes in cells}
        table = pd.read_csv(path, sep=_TABLES[kind])
    except (OSError, EOFError, ValueError, KeyError, zlib.error) as error:
        message = f"{what}: {str(path)!r} cannot be read as {kind} ({error})."
        raise ValueError(message) from error
    if _is_edges(table):
        return table
    table = table.set_index(table.columns[0])
    real_values(table, f"{what}: {str(path)!r}", _EDGES)
    return table


def read_features(
    features: Any, genes: Sequence[str], labels: LabelTable
) -> SideInformation | None:
    """Return side information by perturbation; ``None`` if none is given.

    Parameters
    ----------
    features
        As in ``tl.fit_dag_blr``.
    genes
        The panel, on which effects in another screen are returned.
    labels
        Labels of this screen, as which perturbations are spelled.

    Raises
    ------
    ValueError
        If names come twice, or a value is infinite, no real number or too large.
    """
    if features is None:
        return None
    parts = _parts(load_features(features), genes, "features")
    names = list(dict.fromkeys(name for part in parts for name in part.names))
    place = {name: i for i, name in enumerate(names)}
    wide, effects, observed, precision = [], None, None, None
    for part in parts:
        index = np.array([place[name] for name in part.names], np.int64)
        shape = (len(names), len(index))
        spread = sp.csr_array((np.ones(len(index)), (index, np.arange(len(index)))), shape)
        wide.append(spread @ part.rows / np.sqrt(len(parts)))
        if part.effects is not None:
            effects = np.tile(part.effects.mean(axis=0), (len(names), 1))
            effects[index] = part.effects
        if part.observed is not None:
            observed, precision = np.zeros((2, len(names), part.observed.shape[1]))
            observed[index], precision[index] = part.observed, part.precision
    rows = wide[0]
    if len(wide) > 1:
        sparse = all(sp.issparse(each) for each in wide)
        rows = (
            sp.hstack(wide, format="csr") if sparse else np.hstack([dense(each) for each in wide])
        )
    if labels.naming is not None:
        found = labels.naming.renamed(dict.fromkeys(names, 0), labels.names, "features")
        names = list(found)
    every = [labels.naming.members(x) if labels.naming else (x,) for x in labels.names]
    asked = set(labels.names).union(*every)
    rows = _components(rows, np.flatnonzero([name in asked for name in names]))
    known = {name for name, row in zip(names, rows, strict=True) if row.any()}
    known |= set(names) if effects is not None else set()
    told = [x for x, some in zip(labels.names, every, strict=True) if known & {x, *some}]
    if not told:
        message = (
            f"features has rows for {list_names(names[:3])}, but for no label of the screen, such "
            f"as {list_names(list(labels.names)[:3])}: nothing is learned from it. Name its "
            f"rows as labels or genes."
        )
        warn(message)
    logger.info("Features are known of %d labels: %s.", len(told), list_names(told))
    # As they are stored, so that a fit predicts the same before and after.
    stored = rows.astype(np.float32).astype(np.float64)
    return SideInformation(names, stored, effects, observed, precision)


def _parts(given: Any, genes: Sequence[str], what: str, *, inner: bool = False) -> list[_Part]:
    """Return the tables of side information that was loaded; ``what`` names it in errors.

    ``inner`` is one of several tables, which holds no other.
    """
    if isinstance(given, ad.AnnData):
        return [_effects(given, genes, what)]
    if isinstance(given, pd.DataFrame):
        return [_edges(given, what) if _is_edges(given) else _table(given, what)]
    tables = (ad.AnnData, pd.DataFrame, Mapping)
    held: list[Any] = list(given.values()) if isinstance(given, Mapping) else [None]
    nested = any(isinstance(each, tables) for each in held)
    lists = all(hasattr(each, "__iter__") and not isinstance(each, str) for each in held)
    if (inner and nested) or not (lists or nested):
        message = (
            f"{what} must be a table (DataFrame), an AnnData, a mapping of names to lists of "
            f"genes, or the path of a file{'' if inner else ', or map names to these'}."
        )
        raise ValueError(message)
    if nested:
        parts = [
            part
            for name, each in given.items()
            for part in _parts(each, genes, f"{what}[{name!r}]", inner=True)
        ]
        if sum(part.effects is not None for part in parts) > 1:
            message = f"{what} holds effects in two other screens: give one, or their mean."
            raise ValueError(message)
        return parts
    values = [list(each) for each in held]
    genes_of_sets = pd.Series([x for each in values for x in each], dtype=object)
    if not all(isinstance(x, str) for x in genes_of_sets.dropna()):
        message = (
            f"{what} maps names to lists of other things than genes: give numbers as a table, "
            f"pandas.DataFrame.from_dict(..., orient='index')."
        )
        raise ValueError(message)
    named = iter(with_names(genes_of_sets, f"Genes in sets of {what}").tolist())
    values = [[x for x in each if next(named)] for each in values]
    return [_sets(dict(zip(map(str, given), values, strict=True)), what)]


def _is_edges(table: pd.DataFrame) -> bool:
    """Whether a table is a list of edges, by the names of its columns, ``Source`` or ``source``."""
    return {"source", "target"} <= {str(name).lower() for name in table.columns}


def _table(table: pd.DataFrame, what: str) -> _Part:
    """Return a table of numbers: columns centred and of one scale, rows of length 1."""
    table = table[with_names(table.index, f"Rows of {what}")]
    names = [str(name) for name in table.index]
    _require_distinct(names, "rows", what)
    values = real_values(table, what, _EDGES)
    _require_finite(values, what)
    known = ~np.isnan(values)
    _require_some(known, what)
    count, values = np.maximum(known.sum(axis=0), 1), np.where(known, values, 0.0)
    away = np.where(known, values - values.sum(axis=0) / count, 0.0)
    sd = np.sqrt((away**2).sum(axis=0) / count)
    varies = sd > 1e-9 * np.abs(values).max(axis=0, initial=0.0)  # else it is rounding alone
    return _Part(names, _unit(away / np.where(varies, sd, np.inf)))


def _sets(sets: Mapping[str, Sequence[str]], what: str) -> _Part:
    """Return the sets of every gene, large ones for less; of a set of one gene nothing follows."""
    members = {name: list(dict.fromkeys(some)) for name, some in sets.items() if len(set(some)) > 1}
    if not members:
        message = f"{what} has no set of two genes or more: give it sets, or leave it out."
        raise ValueError(message)
    pairs = [(gene, k) for k, some in enumerate(members.values()) for gene in some]
    size = np.array([len(some) for some in members.values()])
    names = list(dict.fromkeys(gene for gene, _ in pairs))
    place = {gene: i for i, gene in enumerate(names)}
    i, k = np.array([(place[gene], k) for gene, k in pairs]).T
    return _Part(names, _unit(sp.csr_array((1 / np.sqrt(size[k]), (i, k)))))


def _edges(table: pd.DataFrame, what: str) -> _Part:
    """Return the neighbours of every node, and the node itself; those of many for less."""
    table = table.set_axis([str(name).lower() for name in table.columns], axis=1)
    _require_distinct(list(table.columns), "columns", what)
    for end in ("source", "target"):
        table = table[with_names(table[end], f"Edges of {what} by {end}")]
    weight = np.ones(len(table))
    _require_some(weight > 0, what)
    if "weight" in table:
        weight = real_values(table[["weight"]], what)[:, 0]
        if not np.isfinite(weight).all():
            message = f"{what} has edges whose weight is NaN or infinite: leave them out."
            raise ValueError(message)
        weight = weight / max(float(np.abs(weight).max(initial=0.0)), 1e-300)
    flat = table[["source", "target"]].astype(str).to_numpy()
    names = list(dict.fromkeys(flat.ravel()))
    place = {name: i for i, name in enumerate(names)}
    i, k = np.array([[place[a], place[b]] for a, b in flat]).T
    shape = (len(names), len(names))
    graph = sp.csr_array((weight, (i, k)), shape)
    graph = graph + graph.T + sp.eye_array(len(names))
    scale = 1 / np.sqrt(np.asarray(abs(graph).sum(axis=0)).ravel())
    return _Part(names, _unit(sp.csr_array(graph @ sp.diags_array(scale))))


def _effects(other: ad.AnnData, genes: Sequence[str], what: str) -> _Part:
    """Return effects in another screen on the panel, and as features those on all its genes.

    With standard errors (``layers["se"]``) effects are shrunk towards their mean over that screen,
    and a perturbation's features are as long as its effects are reliable. What
    ``tl.perturbation_effects`` returns is shrunk already; as observed are the differences of means,
    whose sampling variance is the posterior variance over the weight of the cells.
    """
    other = other[
        with_names(other.obs_names, f"Perturbations of {what}"),
        with_names(other.var_names, f"Genes of {what}"),
    ]
    names, held = [str(x) for x in other.obs_names], [str(x) for x in other.var_names]
    _require_distinct(names, "perturbations", what)
    _require_distinct(held, "genes", what)
    place = {gene: i for i, gene in enumerate(held)}
    shared = [i for i, gene in enumerate(genes) if gene in place]
    if not shared or not names:
        message = (
            f"{what} has no gene of the panel, or no perturbation: effects in another screen must "
            f"be perturbations x genes, named as in the screen."
        )
        raise ValueError(message)
    raw = values = _matrix(other.X, what)
    known, length = ~np.isnan(values), np.ones(len(names))
    _require_some(known, what)
    told = None  # effects as observed, their precisions, and which are known
    if "se" in other.layers:
        error = _matrix(other.layers["se"], f"{what}.layers['se']")
        known &= ~np.isnan(error)
        if (error[known] <= 0).any():
            message = (
                f"{what}.layers['se'] holds standard errors of 0 or below: give them, or NaN where "
                f"an effect is not known."
            )
            raise ValueError(message)
        variance = np.where(known, error, 1.0) ** 2
        values, length = _shrunk(values, variance, known)
        told = raw, 1 / variance, known
    values = np.where(known, values, 0.0)
    mean = values.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    values = np.where(known, values, mean)
    rows = _unit(values - mean) * np.sqrt(length)[:, None]
    if {"raw_mean", "sd", "data_weight"} <= set(other.layers):
        raw, sd, weight = (
            _matrix(other.layers[x], what) for x in ("raw_mean", "sd", "data_weight")
        )
        known = np.isfinite(raw) & (weight > 0) & (sd > 0)
        told = raw, weight / np.where(known, sd, 1.0) ** 2, known

    def on_panel(values: Array) -> Array:
        found = np.zeros((len(names), len(genes)))
        found[:, shared] = values[:, [place[genes[i]] for i in shared]]
        return found

    if told is None:
        return _Part(names, rows, on_panel(values))
    observed, precision, known = told
    observed, precision = (on_panel(np.where(known, x, 0.0)) for x in (observed, precision))
    return _Part(names, rows, on_panel(values), observed, precision)


def _shrunk(values: Array, variance: Array, known: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return effects shrunk to their mean, and how reliable those of each perturbation are.

    True effects of perturbation ``j`` on gene ``g`` depart from the gene's mean over perturbations
    by the variance ``t_j^2 s_g^2``, ``s_g`` the gene's median standard error; ``t_j^2`` is what is
    left of its squared departures less sampling. Shapes ``(n_perturbations, n_genes)``.
    """
    gene = np.array(
        [np.median(v[k]) if k.any() else 1.0 for v, k in zip(variance.T, known.T, strict=True)]
    )
    each = np.where(known, np.where(known, values**2 - variance, 0.0) / gene, 0.0)
    common = max(each.sum() / max(int(known.sum()), 1), 0.0) * gene
    weight = np.where(known, 1 / (common + variance), 0.0)
    total = weight.sum(axis=0)
    mean = (weight * np.where(known, values, 0.0)).sum(axis=0) / np.where(total > 0, total, 1.0)
    away = np.where(known, values - mean, 0.0)
    size = np.where(known, (away**2 - variance) / gene, 0.0).sum(axis=1)
    size = np.maximum(size / np.maximum(known.sum(axis=1), 1), 0.0)[:, None] * gene
    share = np.where(known, size / (size + variance), 0.0)
    return mean + share * away, share.sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _components(rows: Any, screen: NDArray[np.int64]) -> Array:
    """Return rows of few columns, whose products with the screen's perturbations are kept.

    ``screen`` holds the places of the screen's perturbations. If these are 1,000 or fewer, their
    products with each other and with all other rows are exact; of more, their first components.
    Components of all rows would describe the whole genome, and lose what a few genes share.
    """
    own = rows[screen] if abs(rows[screen]).sum() else rows
    n = own.shape[0]
    rank = max(_RANK, min(n, int(np.sqrt(_WORK / max(n, 1)))))
    if rows.shape[1] <= rank:
        return dense(rows)
    if min(own.shape) > _SMALL:
        axes = svds(own, k=rank, v0=np.ones(min(own.shape)))[2].T
    elif own.shape[0] <= own.shape[1]:
        size, basis = np.linalg.eigh(dense(own @ own.T))
        kept = np.flatnonzero(size > 1e-10 * max(size[-1], 1e-300))[-rank:]
        axes = np.asarray(own.T @ (basis[:, kept] / np.sqrt(size[kept])))
    else:
        axes = np.linalg.eigh(dense(own.T @ own))[1][:, -rank:]
    return np.asarray(rows @ axes)


def _unit(rows: Any) -> Any:
    """Return rows of length 1; of length 0 where nothing is known."""
    square = np.asarray((rows**2).sum(axis=1)).ravel()
    scale = np.where(square > 0, 1 / np.sqrt(np.where(square > 0, square, 1.0)), 0.0)
    return sp.diags_array(scale) @ rows


def _matrix(matrix: Any, what: str) -> Array:
    """Return a matrix of effects, NaN where one is not known."""
    if matrix is None:
        message = f"{what} has no X: put the effects there."
        raise ValueError(message)
    require_numbers(matrix, what)
    values = dense(matrix)
    _require_finite(values, what)
    return values


def _require_some(known: NDArray[np.bool_], what: str) -> None:
    if not known.any():
        message = f"{what} holds no value: give it rows with numbers, or leave it out."
        raise ValueError(message)


def _require_finite(values: Array, what: str) -> None:
    if np.isinf(values).any():
        message = f"{what} holds infinite values: use NaN where a value is not known."
        raise ValueError(message)
    require_small(np.where(np.isnan(values), 0.0, values), what)


def _require_distinct(names: Sequence[str], kind: str, what: str) -> None:
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        message = f"{what} holds {kind} more than once: give {list_names(twice)} once."
        raise ValueError(message)
