"""Posteriors on graphs, each with the shifts that go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import require_finite
from nextpert.core.posterior.dag_blr import DagBlr
from nextpert.core.posterior.shift_posterior import ShiftPosterior

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def pair_shifts(
    posterior: DagBlr | Sequence[DagBlr], shifts: ShiftPosterior | Sequence[ShiftPosterior]
) -> list[tuple[DagBlr, ShiftPosterior]]:
    """Return the posterior on every graph with its shifts; those of weight 0 are left out.

    Parameters
    ----------
    posterior
        A posterior over weights, or one on each of several graphs.
    shifts
        What is known of the shifts; for several graphs the same for all, or one for each.

    Raises
    ------
    ValueError
        If they differ in number, nodes or perturbations, hold an impossible value, or no weight
        is above 0.

    Examples
    --------
    >>> from nextpert.core import Dag, DagBlr
    >>> from nextpert.core.posterior.pair_shifts import pair_shifts
    >>> from nextpert.core.posterior.shift_posterior import ShiftPosterior
    >>> blr = DagBlr(Dag.from_edges(2, []), noise_var=1.0)
    >>> len(pair_shifts([blr, blr], ShiftPosterior.exact([[1.0, 0.0]])))
    2
    """
    posteriors = [posterior] if isinstance(posterior, DagBlr) else list(posterior)
    shared = isinstance(shifts, ShiftPosterior)
    known = [shifts] if isinstance(shifts, ShiftPosterior) else list(shifts)
    sizes = sorted({each.n_nodes for each in posteriors})
    if len(sizes) != 1:
        message = f"Posteriors on the same nodes are needed, but they have {sizes} nodes."
        raise ValueError(message)
    if not shared and len(known) != len(posteriors):
        message = (
            f"Shifts are needed once, or once for each of {len(posteriors)} graphs, but "
            f"{len(known)} were given."
        )
        raise ValueError(message)
    for each in known:
        _check(each, (known[0].n_perturbations, sizes[0]))
    every = zip(posteriors, known * len(posteriors) if shared else known, strict=True)
    pairs = [(blr, each) for blr, each in every if each.weight > 0]
    if not pairs:
        message = "The shifts' weights are 0 on every graph: give one a weight above 0."
        raise ValueError(message)
    return pairs


def weights_of(pairs: Sequence[tuple[DagBlr, ShiftPosterior]]) -> NDArray[np.float64]:
    """Return what each of these counts for, of sum 1, shape ``(n_pairs,)``."""
    weights = np.array([known.weight for _, known in pairs], np.float64)
    return weights / weights.sum()


def _check(shifts: ShiftPosterior, wanted: tuple[int, int]) -> None:
    for name in ("mean", "prior", "share", "spare", "effect"):
        value = getattr(shifts, name)
        if value is None:
            continue
        if value.shape != wanted:
            message = f"The shifts' {name} has shape {value.shape}, but {wanted} is needed."
            raise ValueError(message)
        require_finite(value, f"The shifts' {name}")
    if ((shifts.share < 0) | (shifts.share > 1)).any():
        message = "The shifts' share of what cells say must lie between 0 and 1."
        raise ValueError(message)
    if not (np.isfinite(shifts.weight) and shifts.weight >= 0):
        message = f"The shifts' weight must be 0 or more, but it is {shifts.weight}."
        raise ValueError(message)
    if (shifts.spare < 0).any():
        message = "The shifts' spare variance must not be negative."
        raise ValueError(message)
