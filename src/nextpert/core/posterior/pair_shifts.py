"""Posteriors on graphs, each with the shifts that go with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert.core._checks import require_finite
from nextpert.core.posterior.dag_blr import DagBlr
from nextpert.core.posterior.shift_posterior import ShiftPosterior

if TYPE_CHECKING:
    from collections.abc import Sequence


def pair_shifts(
    posterior: DagBlr | Sequence[DagBlr], shifts: ShiftPosterior | Sequence[ShiftPosterior]
) -> list[tuple[DagBlr, ShiftPosterior]]:
    """Return the posterior on every graph with its shifts.

    Parameters
    ----------
    posterior
        A posterior over weights, or one on each of several graphs.
    shifts
        What is known of the shifts; for several graphs the same for all, or one for each.

    Raises
    ------
    ValueError
        If they differ in number, nodes or perturbations, or hold an impossible value.

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
    return list(zip(posteriors, known * len(posteriors) if shared else known, strict=True))


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
    if (shifts.spare < 0).any():
        message = "The shifts' spare variance must not be negative."
        raise ValueError(message)
