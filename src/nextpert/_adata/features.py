"""Side information about perturbations: tables, networks, gene sets, or effects of a screen."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
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
from nextpert.core.model.shared_errors import MIN_GENES, shared_errors
from nextpert.core.screen.moments import require_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata.labels import LabelTable
    from nextpert.core.model.perturbations import Perturbations

    Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

# Components that are kept: at least 200; beyond that, perturbations times squared components may
# not exceed 1e9, which allows 1,000 components for 1,000 perturbations, 707 for 2,000 and 316 for
# 10,000. Similarity outside the components counts as specific to a perturbation. For 2,000
# perturbations, the error of perturbations without cells was 0.85 times that without gene sets with
# 200 components, and 0.55 times with 700 or more.
_RANK = 200
_WORK = 1e9
_SMALL = 3000  # rows up to which all components are computed
_COMPARED = 500, 300  # perturbations and genes that are compared with the screen's own effects
_EDGES = " The columns of an edge list are source, target and, optionally, weight."


class _Part(NamedTuple):
    """One table: a row per perturbation, of length 0 to 1, and effects in another screen.

    ``effects`` are shrunk; ``observed`` are unshrunk, with their ``precision``.
    """

    names: list[str]
    rows: Any
    effects: Array | None = None
    observed: Array | None = None
    precision: Array | None = None


def load_features(features: Any) -> Any:
    """Return side information for ``tl.fit_dag_blr``; a path is replaced by the file's content."""
    if not isinstance(features, (str, os.PathLike)):
        return features
    path = Path(features)
    exists = os.path.exists(path)  # Path.exists raises an error if a name is too long
    if not exists or path.suffix not in _READERS:
        wrong = "has an unsupported extension" if exists else "does not exist"
        message = f"features: {str(path)!r} {wrong}: give a path that ends in one of "
        raise ValueError(f"{message}{list_names(_READERS)}.")
    try:
        content = _READERS[path.suffix](path)
    except (OSError, ValueError, KeyError) as error:
        message = f"features: {str(path)!r} cannot be read as {path.suffix} ({error}): "
        raise ValueError(message + "correct the file, or its extension.") from error
    is_rows = isinstance(content, pd.DataFrame) and not _is_edges(content)
    return content.set_index(content.columns[0]) if is_rows else content


def read_gmt(path: Path) -> dict[str, list[str]]:
    """Return the gene sets of a file: one line per set, with name, description and genes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    cells = [line.rstrip().split("\t") for line in lines if line.strip()]
    _require_distinct([name for name, *_ in cells], "sets")
    return {name: genes for name, _, *genes in cells}


_READERS: dict[str, Callable[[Path], Any]] = {
    ".gmt": read_gmt,
    ".csv": pd.read_csv,
    ".tsv": partial(pd.read_csv, sep="\t"),
    ".h5ad": ad.read_h5ad,
    ".zarr": ad.read_zarr,
}


def read_features(
    features: Any, genes: Sequence[str], labels: LabelTable
) -> SideInformation | None:
    """Return side information by perturbation; ``None`` if none is given.

    Effects in another screen are restricted to the panel, ``genes``; perturbations are spelled as
    in ``labels``.
    """
    if features is None:
        return None
    content = load_features(features)
    if isinstance(content, ad.AnnData):
        part = _effects(content, genes)
    elif isinstance(content, pd.DataFrame):
        part = _edges(content) if _is_edges(content) else _table(content)
    else:
        part = _sets(content)
    names = part.names
    if labels.naming is not None:
        names = list(labels.naming.renamed(dict.fromkeys(names, 0), labels.names, "features"))
    members_of = [labels.naming.members(x) if labels.naming else (x,) for x in labels.names]
    names_of_screen = set(labels.names).union(*members_of)
    rows = _components(part.rows, np.flatnonzero([name in names_of_screen for name in names]))
    with_features = {name for name, row in zip(names, rows, strict=True) if row.any()}
    with_features |= set(names) if part.effects is not None else set()
    described = [
        x
        for x, members in zip(labels.names, members_of, strict=True)
        if with_features & {x, *members}
    ]
    if not described:
        shown = list_names(names[:3])
        warn(f"No row of features ({shown}) is named after a label of the screen: rename the rows.")
    logger.info("%d perturbations have features: %s.", len(described), list_names(described))
    # Rounded as in storage, so that a fit makes the same predictions before and after.
    stored = rows.astype(np.float32).astype(np.float64)
    return SideInformation(names, stored, part.effects, part.observed, part.precision)


def warn_own_effects(
    features: Any, known: SideInformation, seen: Perturbations, genes: Sequence[str]
) -> None:
    """Warn if side information contains the sampling errors of the screen's own effects.

    ``features`` are those of :func:`load_features`, and ``known`` as read from them; ``seen`` are
    the perturbations with cells. At most 500 perturbations and 300 genes, drawn at random, are
    compared.
    """
    values, columns = _numbers(features, known)
    rng = np.random.default_rng(0)
    row = np.array([known.place.get(name, -1) for name in seen.names], np.int64)
    row[seen.n == 0] = -1
    rows = _drawn(rng, np.flatnonzero(row >= 0), _COMPARED[0])
    compared = seen.some(rows)
    variance = compared.own_variance()
    usable = np.isfinite(variance).all(axis=0) & (variance > 0).all(axis=0) & (seen.sd > 0)
    compared_genes = _drawn(rng, np.flatnonzero(usable), _COMPARED[1])
    if len(compared_genes) < MIN_GENES or not len(rows):
        return
    effects = compared.observed[:, compared_genes]
    scatter = seen.moments.scatter[np.ix_(compared_genes, compared_genes)]
    sd = np.sqrt(np.diag(scatter))
    correlation = scatter / np.outer(sd, sd)
    if seen.moments.counted is not None:  # a table does not state the correlation of errors
        unit = effects / np.maximum(np.linalg.norm(effects, axis=1), 1e-300)[:, None]
        cosines = (unit @ unit.T)[np.triu_indices(len(unit), 1)]
        common = np.sqrt(np.median(cosines**2)) if len(cosines) else 0.0
        correlation = common + (1 - common) * np.eye(len(compared_genes))
    column_of = {name: i for i, name in enumerate(columns)}
    own_column = np.array([column_of.get(genes[g], -1) for g in compared_genes], np.int64)
    overlap = shared_errors(
        effects, variance[:, compared_genes], correlation, values[row[rows]], own_column
    )
    if overlap.found:
        kind = f"columns {list_names(columns[:3])}" if columns else type(features).__name__
        warn(
            f"features ({kind}) contain the sampling errors of this screen's effects (they leave "
            f"{max(overlap.ratio, 0.0):.0%} of the sampling variance unpredicted, where true "
            f"effects leave 100%): they were probably computed from the same cells, which then "
            f"count twice. Leave features out, or compute them from other cells."
        )


def _drawn(rng: np.random.Generator, index: NDArray[np.int64], max_size: int) -> NDArray[np.int64]:
    """Return at most ``most`` positions, in ascending order."""
    return index if len(index) <= max_size else np.sort(rng.choice(index, max_size, replace=False))


def _numbers(features: Any, information: SideInformation) -> tuple[Array, list[str]]:
    """Return numbers as given, a row per perturbation of ``known``, and names of the columns.

    Gene sets and networks are represented by ``known``, without names; unknown numbers are the mean
    of their column.
    """
    values = np.asarray(information.rows, np.float64)
    names = []
    if isinstance(features, ad.AnnData):
        layer = features.layers.get("raw_mean", features.X)
        values = _matrix(layer)[with_names(features.obs_names)]
        names = list(features.var_names)
    elif isinstance(features, pd.DataFrame) and not _is_edges(features):
        values = real_values(features[with_names(features.index)], "features")
        names = list(features.columns)
    is_known = np.isfinite(values)
    mean = np.where(is_known, values, 0.0).sum(axis=0) / np.maximum(is_known.sum(axis=0), 1)
    return np.where(is_known, values, mean), [str(name) for name in names]


def _is_edges(table: pd.DataFrame) -> bool:
    """Whether a table is a list of edges: its columns include source and target, in any case."""
    return {"source", "target"} <= {str(name).lower() for name in table.columns}


def _table(table: pd.DataFrame) -> _Part:
    """Return a table of numbers with standardised columns, and rows scaled to length 1."""
    table = table[with_names(table.index, "Rows of features")]
    names = [str(name) for name in table.index]
    _require_distinct(names, "rows")
    values = real_values(table, "features", _EDGES)
    _require_finite(values)
    is_known = ~np.isnan(values)
    _require_some(is_known)
    count = np.maximum(is_known.sum(axis=0), 1)
    values = np.where(is_known, values, 0.0)
    deviation = np.where(is_known, values - values.sum(axis=0) / count, 0.0)
    sd = np.sqrt((deviation**2).sum(axis=0) / count)
    varies = sd > 1e-9 * np.abs(values).max(axis=0, initial=0.0)  # more than rounding error
    return _Part(names, _unit(deviation / np.where(varies, sd, np.inf)))


def _sets(sets: Any) -> _Part:
    """Return the sets of every gene; large sets weigh less, and sets of one gene are left out."""
    of_genes = isinstance(sets, Mapping) and all(
        hasattr(gene_set, "__iter__")
        and not isinstance(gene_set, (str, Mapping, pd.DataFrame, ad.AnnData))
        for gene_set in sets.values()
    )
    if not of_genes:
        message = "features must be a DataFrame, an AnnData, lists of genes by set, or a path."
        raise ValueError(message)
    members = [(str(name), gene) for name, gene_set in sets.items() for gene in gene_set]
    pairs = pd.DataFrame(members, columns=["set", "gene"], dtype=object)
    if not pairs["gene"].dropna().map(lambda x: isinstance(x, str)).all():
        message = "features maps names to lists of values that are not genes: give lists of gene "
        message += "names, or give numbers as a DataFrame."
        raise ValueError(message)
    pairs = pairs[with_names(pairs["gene"], "Genes in sets of features")].drop_duplicates()
    pairs = pairs[pairs.groupby("set")["gene"].transform("size") > 1]
    if pairs.empty:
        message = "features has no set of two genes or more: add such sets, or leave features out."
        raise ValueError(message)
    (i, names), (k, _) = pd.factorize(pairs["gene"]), pd.factorize(pairs["set"])
    return _Part(list(names), _unit(sp.csr_array((1 / np.sqrt(np.bincount(k)[k]), (i, k)))))


def _edges(table: pd.DataFrame) -> _Part:
    """Return every node's neighbours and the node itself; nodes with many edges weigh less."""
    table = table.set_axis([str(name).lower() for name in table.columns], axis=1)
    _require_distinct(list(table.columns), "columns")
    for end in ("source", "target"):
        table = table[with_names(table[end], f"Edges of features by {end}")]
    weight = np.ones(len(table))
    _require_some(weight > 0)
    if "weight" in table:
        weight = real_values(table["weight"], "features")
        if not np.isfinite(weight).all():
            message = "features has edges with a NaN or infinite weight: leave these edges out."
            raise ValueError(message)
        weight = weight / max(float(np.abs(weight).max(initial=0.0)), 1e-300)
    codes, names = pd.factorize(table[["source", "target"]].astype(str).to_numpy().ravel())
    i, k = codes.reshape(-1, 2).T
    graph = sp.csr_array((weight, (i, k)), (len(names), len(names)))
    graph = graph + graph.T + sp.eye_array(len(names))
    scale = 1 / np.sqrt(np.asarray(abs(graph).sum(axis=0)).ravel())
    return _Part(list(names), _unit(sp.csr_array(graph @ sp.diags_array(scale))))


def _effects(other: ad.AnnData, genes: Sequence[str]) -> _Part:
    """Return effects in another screen on the panel, and features from the effects on all genes.

    With standard errors (``layers["se"]``), effects are shrunk towards their mean over that screen,
    and the features of a perturbation are scaled by the reliability of its effects. The effects of
    ``tl.perturbation_effects`` are shrunk already; their observed values are the differences of
    means, whose sampling variance is the posterior variance divided by the weight of the cells.
    """
    other = other[
        with_names(other.obs_names, "Perturbations of features"),
        with_names(other.var_names, "Genes of features"),
    ]
    names, gene_names = [str(x) for x in other.obs_names], [str(x) for x in other.var_names]
    _require_distinct(names, "perturbations")
    _require_distinct(gene_names, "genes")
    column_of = {gene: i for i, gene in enumerate(gene_names)}
    shared = [i for i, gene in enumerate(genes) if gene in column_of]
    if not shared or not names:
        message = "features must be an AnnData of perturbations x genes, with at least one gene of "
        message += "the panel."
        raise ValueError(message)
    raw = values = _matrix(other.X)
    is_known = ~np.isnan(values)
    length = np.ones(len(names))
    _require_some(is_known)
    # Effects as observed, their precisions, and which are known.
    observed: tuple[Array, Array, NDArray[np.bool_]] | None = None
    if "se" in other.layers:
        error = _matrix(other.layers["se"])
        is_known &= ~np.isnan(error)
        if (error[is_known] <= 0).any():
            message = (
                "features.layers['se'] holds values of 0 or below: use NaN if an error is unknown."
            )
            raise ValueError(message)
        variance = np.where(is_known, error, 1.0) ** 2
        values, length = _shrunk(values, variance, is_known)
        observed = raw, 1 / variance, is_known
    values = np.where(is_known, values, 0.0)
    mean = values.sum(axis=0) / np.maximum(is_known.sum(axis=0), 1)
    values = np.where(is_known, values, mean)
    rows = _unit(values - mean) * np.sqrt(length)[:, None]
    if {"raw_mean", "sd", "data_weight"} <= set(other.layers):
        raw, sd, weight = (_matrix(other.layers[x]) for x in ("raw_mean", "sd", "data_weight"))
        is_known = np.isfinite(raw) & (weight > 0) & (sd > 0)
        observed = raw, weight / np.where(is_known, sd, 1.0) ** 2, is_known

    def on_panel(values: Array) -> Array:
        out = np.zeros((len(names), len(genes)))
        out[:, shared] = values[:, [column_of[genes[i]] for i in shared]]
        return out

    if observed is None:
        return _Part(names, rows, on_panel(values))
    *values_and_precision, is_known = observed
    return _Part(
        names,
        rows,
        on_panel(values),
        *(on_panel(np.where(is_known, x, 0.0)) for x in values_and_precision),
    )


def _shrunk(values: Array, variance: Array, is_known: NDArray[np.bool_]) -> tuple[Array, Array]:
    """Return effects shrunk to their mean, and the reliability of each perturbation's effects.

    True effects of perturbation ``j`` on gene ``g`` vary about the gene's mean over perturbations
    with variance ``t_j^2 s_g^2``, where ``s_g`` is the gene's median standard error; ``t_j^2`` is
    estimated from squared departures minus sampling variance. Effects have the shape
    ``(n_perturbations, n_genes)``, reliabilities ``(n_perturbations,)``.
    """
    gene = np.array(
        [np.median(v[k]) if k.any() else 1.0 for v, k in zip(variance.T, is_known.T, strict=True)]
    )
    relative_variance = np.where(
        is_known, np.where(is_known, values**2 - variance, 0.0) / gene, 0.0
    )
    common = max(relative_variance.sum() / max(int(is_known.sum()), 1), 0.0) * gene
    weight = np.where(is_known, 1 / (common + variance), 0.0)
    total = weight.sum(axis=0)
    mean = (weight * np.where(is_known, values, 0.0)).sum(axis=0) / np.where(total > 0, total, 1.0)
    deviation = np.where(is_known, values - mean, 0.0)
    size = np.where(is_known, (deviation**2 - variance) / gene, 0.0).sum(axis=1)
    size = np.maximum(size / np.maximum(is_known.sum(axis=1), 1), 0.0)[:, None] * gene
    reliability = np.where(is_known, size / (size + variance), 0.0)
    length = reliability.sum(axis=1) / np.maximum(is_known.sum(axis=1), 1)
    return mean + reliability * deviation, length


def _components(rows: Any, screen: NDArray[np.int64]) -> Array:
    """Return rows with few columns that preserve products with the screen's perturbations.

    ``screen`` holds the positions of the screen's perturbations. For at most 1,000 perturbations,
    their products with each other and with all other rows are exact; for more, only their first
    components are kept. Components of all rows would describe the whole genome, and lose the
    similarity of small groups of genes.
    """
    of_screen = rows[screen] if abs(rows[screen]).sum() else rows
    n = of_screen.shape[0]
    rank = max(_RANK, min(n, int(np.sqrt(_WORK / max(n, 1)))))
    if rows.shape[1] <= rank:
        return dense(rows)
    if n > _SMALL:
        axes = svds(of_screen, k=rank, v0=np.ones(min(of_screen.shape)))[2].T
    else:
        size, basis = np.linalg.eigh(dense(of_screen @ of_screen.T))
        components = np.flatnonzero(size > 1e-10 * max(size[-1], 1e-300))[-rank:]
        axes = np.asarray(of_screen.T @ (basis[:, components] / np.sqrt(size[components])))
    return np.asarray(rows @ axes)


def _unit(rows: Any) -> Any:
    """Return rows scaled to length 1; rows of zeros stay zero."""
    square = np.asarray((rows**2).sum(axis=1)).ravel()
    scale = np.where(square > 0, 1 / np.sqrt(np.where(square > 0, square, 1.0)), 0.0)
    return sp.diags_array(scale) @ rows


def _matrix(matrix: Any) -> Array:
    """Return a matrix of effects, NaN for unknown effects."""
    if matrix is None:
        message = "features has no X: store the effects there."
        raise ValueError(message)
    require_numbers(matrix, "features")
    values = dense(matrix)
    _require_finite(values)
    return values


def _require_some(is_known: NDArray[np.bool_]) -> None:
    if not is_known.any():
        message = "features holds no value: add rows with numbers, or leave features out."
        raise ValueError(message)


def _require_finite(values: Array) -> None:
    if np.isinf(values).any():
        message = "features holds infinite values: use NaN if a value is unknown."
        raise ValueError(message)
    require_small(np.where(np.isnan(values), 0.0, values), "features")


def _require_distinct(names: Sequence[str], kind: str) -> None:
    twice = pd.Index(names)[pd.Index(names).duplicated()].unique()
    if len(twice):
        message = f"features holds {kind} more than once: give {list_names(twice)} once."
        raise ValueError(message)
