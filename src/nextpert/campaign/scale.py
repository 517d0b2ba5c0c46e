"""Whether new cells are on the scale of those so far: logarithms of counts alike normalised.

What a batch adds to a gene is learned from its controls; what it multiplies values by is not. So
standard deviations within perturbations and batches are compared, which neither batches nor
perturbations change much. In four real screens replicates differ by a factor of 1.1 at most, and
cells thinned to a third of their counts by 1.6. Cells that are not logged, or scaled to 10,000
counts where the others are scaled to their median, differ by factors of 2.1 to 45.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert import _adata
from nextpert._adata.environments import looks_like_counts
from nextpert._adata.screen import coding, read_environments, read_screens
from nextpert.core import Moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert.core import ScreenMoments

    Groups = NDArray[np.bool_]

_FACTOR = 2.0  # of the standard deviation of controls
_FACTOR_PERTURBED = 3.0  # of all cells: a perturbation may change the genes that vary most
_FACTOR_MEAN = 10.0
_ENOUGH = 20  # control cells, to be compared alone
_CENTRED = 0.1  # mean over standard deviation below which values are differences from a mean


class _Level(NamedTuple):
    """Standard deviation of the cells within their groups, and their mean, over all genes."""

    sd: float
    mean: float


def require_same_scale(joined: ad.AnnData, n_old: int, roles: Roles, panel: Sequence[str]) -> None:
    """Raise if the cells after the first ``n_old`` are on another scale than these.

    Raises
    ------
    ValueError
        If they are; it says how, and that ``check_scale=False`` takes them all the same.
    """
    screen, is_new, is_control = _read(joined, n_old, roles, panel)
    counts = [looks_like_counts(_moments(screen, is_new == side)) for side in (False, True)]
    if counts[0] != counts[1]:
        what = (
            "hold whole numbers, such as counts, and the campaign's cells do not: log-normalise "
            "them as these"
            if counts[1]
            else "hold no whole numbers, as the campaign's do: give them on the same scale"
        )
        raise ValueError(_refused(what))
    n_controls = [screen.n[is_control & (is_new == side)].sum() for side in (False, True)]
    alone = min(n_controls) >= _ENOUGH
    used = is_control if alone else np.ones_like(is_control)
    old, new = (_level(screen, used & (is_new == side)) for side in (False, True))
    most = _FACTOR if alone else _FACTOR_PERTURBED
    who = "controls" if alone else "cells"
    if new.sd > 0 and old.sd > 0 and not 1 / most <= new.sd / old.sd <= most:
        what = (
            f"are on another scale: the standard deviation of their {who} is "
            f"{new.sd / old.sd:.3g} times that of the campaign's. Normalise all alike (logarithm, "
            f"target_sum)"
        )
        raise ValueError(_refused(what))
    if old.mean > _CENTRED * old.sd and not 1 / _FACTOR_MEAN <= new.mean / old.mean <= _FACTOR_MEAN:
        what = (
            f"are on another scale: the mean of their {who} is {new.mean / old.mean:.3g} times "
            f"that of the campaign's. Normalise all alike"
        )
        raise ValueError(_refused(what))


def _refused(what: str) -> str:
    return f"The new cells {what}, or say check_scale=False if they are meant to differ."


def _read(
    joined: ad.AnnData, n_old: int, roles: Roles, panel: Sequence[str]
) -> tuple[ScreenMoments, Groups, Groups]:
    """Return the moments of environments, the new cells apart, and which are new and controls."""
    environments = read_environments(joined, roles)
    is_new = np.arange(joined.n_obs) >= n_old
    labelled = environments.codes >= 0
    by = {"environment": environments.codes, "new": np.where(labelled, is_new, -1)}
    _, columns = _adata.resolve_panel(joined, list(panel))
    ((screen,), _) = read_screens(joined, columns, [coding(by)], layer=roles.layer)
    is_control = environments.perturbation[screen.columns["environment"]] == roles.control
    return screen.moments(), screen.columns["new"] > 0, np.asarray(is_control, bool)


def _moments(screen: ScreenMoments, which: Groups) -> Moments:
    """Return the moments of the cells of some groups; of their scatter the diagonal alone."""
    n, total = int(screen.n[which].sum()), screen.n[which] @ screen.mean[which]
    mean = total / max(n, 1)
    squares = (screen.squares + screen.n[:, None] * (screen.mean - mean) ** 2)[which].sum(axis=0)
    return Moments(n, mean, np.diag(squares))


def _level(screen: ScreenMoments, which: Groups) -> _Level:
    freedom = int(screen.n[which].sum()) - int(which.sum())
    variance = screen.squares[which].sum() / freedom if freedom > 0 else 0.0
    return _Level(float(np.sqrt(variance)), float(_moments(screen, which).mean.sum()))
