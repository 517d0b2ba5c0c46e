"""A posterior as a flat dict of arrays, numbers and strings, and back, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.core.graph.dag import Dag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nextpert.core.posterior.dag_blr import DagBlr

STATISTICS = ("xtx", "xty", "yty", "cells")
BLOCKS = ("cov", "weights", "residual", "logdet", "precision")


def pack(blr: DagBlr) -> dict[str, Any]:
    """Return everything a posterior is made of; keys and types are safe to save."""
    stored: dict[str, Any] = {}
    stored |= {"indptr": blr.dag.indptr.copy(), "indices": blr.dag.indices.copy()}
    stored |= {name: getattr(blr, name).copy() for name in STATISTICS}
    stored |= {name: block.copy() for name, block in blr.blocks.items()}
    if blr.known_noise_var is not None:
        stored["known_noise_var"] = blr.known_noise_var.copy()
    stored |= {"intercept": int(blr.intercept), "pooled": int(blr.pooled)}
    return stored | {
        "prior_scale": blr.prior_scale,
        "prior_units": blr.prior_units,
        "prior_shape": blr.prior_shape,
        "prior_rate": blr.prior_rate,
    }


def unpack(stored: Mapping[str, Any]) -> DagBlr:
    """Rebuild a posterior from :func:`pack`."""
    from nextpert.core.posterior.dag_blr import DagBlr

    scale = stored["prior_scale"]
    blr = DagBlr(
        Dag(stored["indptr"], stored["indices"]),
        noise_var=stored.get("known_noise_var"),
        intercept=bool(stored["intercept"]),
        prior_scale=scale if isinstance(scale, str) else float(scale),
        prior_units=str(stored.get("prior_units", "data")),
        pooled=bool(stored["pooled"]),
        prior_shape=float(stored["prior_shape"]),
        prior_rate=float(stored["prior_rate"]),
    )
    for name in STATISTICS:
        setattr(blr, name, np.array(stored[name], dtype=np.float64))
    blr._blocks = {name: np.array(stored[name], dtype=np.float64) for name in BLOCKS}
    return blr
