"""What a fit expects of shifts, and the means of cells that correct it, as they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from nextpert._adata.write import as_stored_csr
from nextpert.core.effects.shift_prior import TAU2, ShiftPrior

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_DENSE = ("mean", "ratio", "effect")


def stored_shift_prior(prior: ShiftPrior) -> dict[str, Any]:
    """Return the prior as it is stored; shifts and variances of own genes are sparse."""
    return {
        "n": prior.n,
        **{name: np.ascontiguousarray(getattr(prior, name)) for name in _DENSE},
        "shift": as_stored_csr(sp.csr_array(prior.shift)),
        "own": stored_own(prior),
        "tau2": TAU2,
        "weights": prior.weights,
        **({"fixed": prior.fixed} if prior.fixed.shape[1] else {}),
    }


def stored_own(prior: ShiftPrior) -> sp.csr_matrix:
    """Return the variances of shifts that are not the mixture's, as they are stored."""
    known = ~np.isnan(prior.own)
    rows, columns = np.nonzero(known)
    return as_stored_csr(sp.csr_array((prior.own[known], (rows, columns)), shape=prior.own.shape))


def read_own(stored: Any) -> Array:
    """Return what :func:`stored_own` stored: nan where the variance is the mixture's."""
    own, given = np.full(stored.shape, np.nan), stored.tocoo()
    own[given.row, given.col] = given.data
    return own


def read_shift_prior(stored: Any, shifts: Array, n_fixed: int, where: str) -> ShiftPrior:
    """Return the prior stored by :func:`stored_shift_prior`; exact ``shifts`` where there is none.

    ``n_fixed`` are the fixed columns of the posterior that goes with it.

    Raises
    ------
    ValueError
        If a part is absent, of another shape, or holds what no fit writes.
    """
    if stored is None:
        return ShiftPrior.exact(shifts)
    shape = shifts.shape
    parts = {name: np.asarray(stored.get(name), np.float64) for name in ("n", "tau2", "weights")}
    dense = {name: np.asarray(stored.get(name), np.float64) for name in _DENSE}
    sparse = {name: stored.get(name) for name in ("shift", "own")}
    fixed = np.asarray(stored.get("fixed", np.zeros((shape[0], 0))), np.float64)
    sound = (
        parts["n"].shape == shape[:1]
        and np.array_equal(parts["tau2"], TAU2)
        and parts["weights"].shape == (shape[0], len(TAU2))
        and all(value.shape == shape for value in dense.values())
        and all(sp.issparse(value) and value.shape == shape for value in sparse.values())
        and fixed.shape == (shape[0], n_fixed)
    )
    if not sound:
        raise _damaged(where, "its parts differ in size")
    shift = np.asarray(sparse["shift"].todense(), np.float64)
    finite = (*parts.values(), *dense.values(), fixed, sparse["own"].data, shift)
    if not all(np.isfinite(value).all() for value in finite):
        raise _damaged(where, "it holds values that are not finite")
    positive = (parts["n"], parts["weights"], sparse["own"].data)
    if any((value < 0).any() for value in positive) or (dense["ratio"] <= 0).any():
        raise _damaged(where, "it holds numbers of cells or variances below 0")
    return ShiftPrior(
        parts["n"], dense["mean"], dense["ratio"], shift, dense["effect"],
        read_own(sparse["own"]), parts["weights"], fixed,
    )  # fmt: skip


def _damaged(where: str, what: str) -> ValueError:
    return ValueError(f"{where} is damaged ({what}): run tl.fit_dag_blr again.")
