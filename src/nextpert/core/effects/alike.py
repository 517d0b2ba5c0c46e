"""How effects on genes go together over the perturbations of a screen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core._blas import one_thread

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from nextpert.core.posterior.dag_blr import DagBlr
    from nextpert.core.posterior.shift_posterior import ShiftPosterior

    Array = NDArray[np.float64]

_FACTORS = 20  # at most; what is beyond them is taken as each gene's own
_PRIOR = 3.0  # perturbations for which independent genes speak


@dataclass(frozen=True)
class Alike:
    """Covariance of effects over perturbations, ``loadings loadings' + diag(rest)``.

    The shifts of a perturbation are independent for the posterior of each gene. What they are off
    by is not: a program that moves as a whole is shrunk as a whole. So draws of what is left of
    shifts are correlated as the screen's effects are, and each gene keeps its variance. Where
    genes were drawn by themselves, errors of a distance would average out over genes as they do
    not in cells held out.

    Parameters
    ----------
    loadings
        Of each gene on the factors, shape ``(n_nodes, n_factors)``, units of the data.
    rest
        Variance of each gene beside them, shape ``(n_nodes,)``, squared units of the data.
    """

    loadings: Array
    rest: Array

    def told(self, shifts: ShiftPosterior, posterior: DagBlr, together: float) -> ShiftPosterior:
        """Return shifts whose draws go together as these effects do, ``(I - B)`` times each.

        ``together``, 0 to 1, is how far: all correlations are multiplied by it, and the sizes of
        a perturbation's shifts are drawn together as far.
        """
        weights = posterior.mean()
        loadings = self.loadings - weights @ self.loadings
        rest = self.rest + weights.power(2) @ self.rest
        rest += (1.0 - together) * (loadings**2).sum(axis=1)
        loadings *= np.sqrt(together)
        return replace(shifts, loadings=loadings, rest=rest, together=together)


@one_thread()
def effects_alike(effects: ArrayLike, sd: ArrayLike) -> Alike:
    """Return how effects go together, drawn to independence by the worth of three perturbations.

    Parameters
    ----------
    effects
        Effects of perturbations, shape ``(n_perturbations, n_nodes)``, units of the data.
    sd
        Noise of every gene, in whose units genes are compared; same units, above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nextpert.core.effects.alike import effects_alike
    >>> size = np.array([1.0, -2.0, 0.5, 0.0])
    >>> found = effects_alike(np.outer(size, [1.0, 1.0, -1.0]), np.ones(3))
    >>> covariance = found.loadings @ found.loadings.T + np.diag(found.rest)
    >>> bool(covariance[0, 1] > 0 > covariance[0, 2])
    True
    """
    scale = np.asarray(sd, np.float64)
    units = np.asarray(effects, np.float64) / scale
    _, sizes, directions = np.linalg.svd(units / np.sqrt(len(units)), full_matrices=False)
    loadings = (sizes[:_FACTORS, None] * directions[:_FACTORS]).T
    beyond = np.maximum((units**2).mean(axis=0) - (loadings**2).sum(axis=1), 0.0)
    total = float((sizes**2).sum()) / units.shape[1]
    prior = max(_PRIOR / len(units) * total, np.finfo(np.float64).tiny)
    return Alike(loadings * scale[:, None], (beyond + prior) * scale**2)
