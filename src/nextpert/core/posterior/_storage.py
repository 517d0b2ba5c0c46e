"""A posterior as a flat dict of arrays, numbers and strings, and back, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core.graph.dag import Dag
from nextpert.core.posterior._parts import BLOCKS, Statistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from nextpert.core.posterior._parts import Prior

    Vector = NDArray[np.float64]


def pack(
    dag: Dag, intercept: bool, prior: Prior, statistics: Statistics, blocks: Mapping[str, Vector]
) -> dict[str, Any]:
    """Return everything a posterior is made of; keys and types are safe to save."""
    stored: dict[str, Any] = {}
    stored |= {"indptr": dag.indptr.copy(), "indices": dag.indices.copy()}
    stored |= {name: value.copy() for name, value in statistics._asdict().items()}
    stored |= {name: block.copy() for name, block in blocks.items()}
    if prior.noise_var is not None:
        stored["known_noise_var"] = prior.noise_var.copy()
    stored |= {"intercept": int(intercept), "pooled": int(prior.pooled)}
    return stored | {
        "prior_scale": prior.scale,
        "prior_units": prior.units,
        "prior_shape": prior.shape,
        "prior_rate": prior.rate,
    }


def unpack(
    stored: Mapping[str, Any],
) -> tuple[Dag, dict[str, Any], Statistics, dict[str, Vector]]:
    """Return graph, options, statistics and blocks of what :func:`pack` stored."""
    scale = stored["prior_scale"]
    options = {
        "noise_var": stored.get("known_noise_var"),
        "intercept": bool(stored["intercept"]),
        "prior_scale": scale if isinstance(scale, str) else float(scale),
        "prior_units": str(stored.get("prior_units", "data")),
        "pooled": bool(stored["pooled"]),
        "prior_shape": float(stored["prior_shape"]),
        "prior_rate": float(stored["prior_rate"]),
    }
    statistics = Statistics(
        *(np.array(stored[name], dtype=np.float64) for name in Statistics._fields)
    )
    blocks = {name: np.array(stored[name], dtype=np.float64) for name in BLOCKS}
    return Dag(stored["indptr"], stored["indices"]), options, statistics, blocks
