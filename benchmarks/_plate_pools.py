"""Small pools of candidates, measured and not, with effects told and not."""

from __future__ import annotations

import numpy as np
from nextpert.core.model.shift_posterior import ShiftPosterior

from nextpert.core import Dag, DagBlr, Moments


def random_pool(seed: int) -> tuple[DagBlr, ShiftPosterior, np.ndarray, np.random.Generator]:
    """Return a posterior, 2 to 9 candidates of all kinds, a target, and the generator."""
    rng = np.random.default_rng(seed)
    p, m = int(rng.integers(2, 7)), int(rng.integers(2, 10))
    edges = [(a, b) for a in range(p) for b in range(a + 1, p) if rng.random() < 0.5]
    weights = np.zeros((p, p))
    for a, b in edges:
        weights[b, a] = rng.normal()
    cells = np.linalg.solve(np.eye(p) - weights, rng.normal(size=(p, 50)) + 1).T
    blr = DagBlr(Dag.from_edges(p, edges)).update(Moments.from_array(cells))
    n = np.where(rng.random(m) < 0.4, rng.integers(5, 100, m), 0).astype(float)
    tau2 = 10 ** rng.uniform(-3, 1, size=(m, p))
    spare = tau2 / (1 + n[:, None] * tau2)
    prior = rng.normal(size=(m, p)) * (rng.random((m, p)) < 0.4)
    effect = np.where(rng.random((m, 1)) < 0.4, rng.normal(size=(m, p)), 0.0)
    prior += effect - (blr.mean() @ effect.T).T
    mean = 2 * rng.normal(size=(m, p))
    known = ShiftPosterior(n, mean, prior, n[:, None] * spare, spare, effect)
    return blr, known, rng.normal(size=p), rng
