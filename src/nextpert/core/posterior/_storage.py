"""A posterior as a flat dict of arrays, numbers and strings, and back, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core.graph.dag import Dag
from nextpert.core.posterior._parts import Statistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nextpert.core.posterior._parts import Prior

    Vector = NDArray[np.float64]


FORMAT = 2  # of what is stored; others are refused


def pack(
    dag: Dag,
    intercept: bool,
    n_fixed: int,
    prior: Prior,
    statistics: Statistics,
    blocks: Mapping[str, Vector],
) -> dict[str, Any]:
    """Return everything a posterior is made of; keys and types are safe to save."""
    stored: dict[str, Any] = {"format": FORMAT}
    stored |= {"indptr": dag.indptr.copy(), "indices": dag.indices.copy()}
    stored |= {name: value.copy() for name, value in statistics._asdict().items()}
    stored |= {name: block.copy() for name, block in blocks.items()}
    stored["noise_known"] = int(prior.noise_var is not None)
    if prior.noise_var is not None:
        stored["known_noise_var"] = prior.noise_var.copy()
    stored |= {"intercept": int(intercept), "n_fixed": int(n_fixed), "pooled": int(prior.pooled)}
    return stored | {
        "prior_scale": prior.scale,
        "prior_units": prior.units,
        "prior_shape": prior.shape,
        "prior_rate": "cells" if prior.rate is None else prior.rate,
    }


def unpack(
    stored: Mapping[str, Any],
) -> tuple[Dag, dict[str, Any], Statistics, dict[str, Vector]]:
    """Return graph, options, statistics and blocks of what :func:`pack` stored, all checked.

    Raises
    ------
    ValueError
        If it has another format, or something is absent, cut, of another type or impossible.
    """
    if not hasattr(stored, "keys"):
        raise damaged(f"it is no mapping, but {type(stored).__name__}")
    if _number(stored, "format") != FORMAT:
        raise damaged(f"its format is {stored['format']!r}, and {FORMAT} is read")
    pointers, parents = _whole(stored, "indptr"), _whole(stored, "indices")
    try:
        dag = Dag(pointers, parents)
    except ValueError as error:
        raise damaged(str(error)) from None
    scale, known = stored.get("prior_scale"), None
    if _flag(stored, "noise_known"):
        known = _vector(stored, "known_noise_var", dag.n_nodes, above=0)
    default = isinstance(stored.get("prior_rate"), str) and stored["prior_rate"] == "cells"
    options: dict[str, Any] = {
        "noise_var": known,
        "intercept": _flag(stored, "intercept"),
        "n_fixed": _count(stored, "n_fixed"),
        "prior_scale": str(scale) if isinstance(scale, str) else _number(stored, "prior_scale"),
        "prior_units": str(stored.get("prior_units")),
        "pooled": _flag(stored, "pooled"),
        "prior_shape": _number(stored, "prior_shape"),
        "prior_rate": None if default else _number(stored, "prior_rate"),
    }
    width = dag.in_degree + options["intercept"] + options["n_fixed"]
    squares, nodes = int((width**2).sum()), dag.n_nodes
    statistics = Statistics(
        _vector(stored, "xtx", squares),
        _vector(stored, "xty", int(width.sum())),
        _vector(stored, "yty", nodes, least=0),
        _vector(stored, "cells", nodes, least=0),
    )
    blocks = {
        "cov": _vector(stored, "cov", squares),
        "weights": _vector(stored, "weights", int(width.sum())),
        "residual": _vector(stored, "residual", nodes, least=0),
        "logdet": _vector(stored, "logdet", nodes),
        "precision": _vector(stored, "precision", int(width.sum()), above=0),
    }
    _require_covariances(blocks["cov"], width)
    return dag, options, statistics, blocks


def damaged(what: str) -> ValueError:
    """Return the error about a stored posterior."""
    return ValueError(
        f"The stored posterior is damaged or of another version ({what.rstrip('.')}): fit it "
        "again (tl.fit_dag_blr)."
    )


def _field(stored: Mapping[str, Any], name: str) -> NDArray[Any]:
    if name not in stored:
        raise damaged(f"it lacks {name!r}")
    try:
        value = np.asarray(stored[name])
    except ValueError:  # lists of different lengths
        raise damaged(f"{name} is ragged") from None
    if value.dtype.kind not in "iuf":
        raise damaged(f"{name} is no number, but {value.dtype}")
    if not np.isfinite(value).all():
        raise damaged(f"{name} holds NaN or infinite values")
    return value


def _number(stored: Mapping[str, Any], name: str) -> float:
    value = _field(stored, name)
    if value.ndim:
        raise damaged(f"{name} has the shape {value.shape}, and is one number")
    return float(value)


def _count(stored: Mapping[str, Any], name: str) -> int:
    value = _number(stored, name)
    if value < 0 or value != int(value):
        raise damaged(f"{name} is {value}, and counts columns")
    return int(value)


def _flag(stored: Mapping[str, Any], name: str) -> bool:
    value = _number(stored, name)
    if value not in (0, 1):
        raise damaged(f"{name} is {value:g}, and can be 0 or 1")
    return bool(value)


def _whole(stored: Mapping[str, Any], name: str) -> NDArray[np.int64]:
    value = _field(stored, name)
    if value.ndim != 1 or value.dtype.kind not in "iu":
        raise damaged(f"{name} is no vector of whole numbers")
    return np.array(value, dtype=np.int64)


def _vector(
    stored: Mapping[str, Any],
    name: str,
    size: int,
    *,
    least: float = -np.inf,
    above: float = -np.inf,
) -> Vector:
    value = _field(stored, name)
    if value.shape != (size,):
        raise damaged(f"{name} has the shape {value.shape} in place of {(size,)}")
    if (value < least).any() or (value <= above).any():
        raise damaged(f"{name} holds values that are too small")
    return np.array(value, dtype=np.float64)


def _require_covariances(cov: Vector, width: NDArray[np.int64]) -> None:
    """Raise unless the block of every node is a covariance: nodes of one width at a time."""
    starts = np.concatenate([[0], np.cumsum(width**2)])[:-1]
    for d in np.unique(width[width > 0]).tolist():
        blocks = cov[starts[width == d][:, None] + np.arange(d * d)].reshape(-1, d, d)
        spread = np.sqrt(np.abs(np.einsum("naa->na", blocks)))
        size = spread[:, :, None] * spread[:, None, :]
        if (np.abs(blocks - blocks.transpose(0, 2, 1)) > 1e-6 * size).any():
            raise damaged("cov is not symmetric")
        try:
            np.linalg.cholesky(blocks)
        except np.linalg.LinAlgError:
            raise damaged("cov holds no covariances") from None
