"""Checks of what a user may say of the prior."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._checks import as_numbers, require_positive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def check_scale(prior_scale: float | str) -> float | str:
    """Return the scale if it is ``"evidence"`` or a number above 0, or raise."""
    if isinstance(prior_scale, str):
        if prior_scale != "evidence":
            message = f"prior_scale must be 'evidence' or a number, but is {prior_scale!r}."
            raise ValueError(message)
        return prior_scale
    return require_positive(prior_scale, "prior_scale")


def check_units(prior_units: str | None, prior_scale: float | str) -> str:
    """Return ``"data"``, ``"noise"`` or ``"evidence"``, by default what suits, or raise."""
    if prior_units is None:
        return "evidence" if prior_scale == "evidence" else "data"
    if prior_units not in ("data", "noise", "evidence"):
        message = (
            f"prior_units must be 'evidence', 'data', 'noise' or None, but is {prior_units!r}."
        )
        raise ValueError(message)
    if prior_units == "evidence" and prior_scale != "evidence":
        message = (
            "prior_units='evidence' needs a scale that is learned: use prior_scale='evidence', or "
            "prior_units='data' or 'noise'."
        )
        raise ValueError(message)
    return prior_units


def check_rate(prior_rate: float | None, learned: bool) -> float | None:
    """Return the rate if it is finite and 0 or above (``learned``: above 0), or raise."""
    if prior_rate is None:
        return None
    if not (np.isfinite(prior_rate) and prior_rate >= 0):
        message = f"prior_rate must be a finite number, 0 or above, but is {prior_rate!r}."
        raise ValueError(message)
    if learned and prior_rate == 0:
        message = (
            "prior_rate=0 has no evidence to learn from: give prior_scale a number, and "
            "prior_units='data'."
        )
        raise ValueError(message)
    return float(prior_rate)


def check_noise_var(noise_var: ArrayLike | None, n_nodes: int) -> NDArray[np.float64] | None:
    """Return known noise variances, one a node, or ``None`` where they are to be inferred."""
    if noise_var is None:
        return None
    given = as_numbers(noise_var, "noise_var")
    if given.shape not in ((), (1,), (n_nodes,)):
        message = f"noise_var has shape {given.shape}: give one number, or one for each of "
        message += f"{n_nodes} nodes."
        raise ValueError(message)
    spread = np.broadcast_to(given, (n_nodes,))
    if not (np.isfinite(spread).all() and (spread > 0).all()):
        message = "noise_var must be finite and above 0 for every node."
        raise ValueError(message)
    return spread.copy()
