"""Random targets for simulations: a sparse shift and the mean it reaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_rng, require_count

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.core.simulate.scm import LinearScm

    Vector = NDArray[np.float64]


def random_target(
    scm: LinearScm,
    n_targets: int,
    *,
    where: str = "random",
    rng: int | np.random.Generator | None = None,
) -> tuple[Vector, Vector]:
    """Draw an ideal shift on few nodes, and the mean it reaches.

    Follows Zhang et al. 2023, Methods (simulations, doi:10.1038/s42256-023-00719-0): entries
    uniform on ``[0.25, 1]`` with random signs, scaled to norm one.

    Parameters
    ----------
    scm
        The model.
    n_targets
        Number of nodes the shift acts on.
    where
        ``"random"`` nodes, or ``"downstream"``: the last ones of the topological order.
    rng
        Seed or generator.

    Returns
    -------
    shift, target_mean
        The ideal shift, of norm one, and the mean under it, each ``(n_nodes,)``, units of the data.

    Raises
    ------
    ValueError
        For an unknown place, or more targets than nodes.

    Examples
    --------
    >>> from nextpert.core import random_scm, random_target
    >>> scm = random_scm(5, "path", rng=0)
    >>> shift, target_mean = random_target(scm, 2, where="downstream", rng=0)
    >>> (shift != 0).tolist(), bool(abs(scm.optimal_shift(target_mean) - shift).max() < 1e-12)
    ([False, False, False, True, True], True)
    """
    count, generator = require_count(n_targets, "n_targets"), as_rng(rng)
    if count > scm.n_nodes:
        message = f"n_targets is {count}, but the model has {scm.n_nodes} nodes."
        raise ValueError(message)
    if where not in ("random", "downstream"):
        message = f"where must be 'random' or 'downstream', but is {where!r}."
        raise ValueError(message)
    entries = generator.uniform(0.25, 1, count) * generator.choice([-1, 1], count)
    nodes = (
        scm.dag.order[-count:]
        if where == "downstream"
        else generator.choice(scm.n_nodes, count, replace=False)
    )
    shift = np.zeros(scm.n_nodes)
    shift[nodes] = entries / np.linalg.norm(entries)
    return shift, scm.mean(shift)
