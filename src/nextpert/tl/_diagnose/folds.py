"""The perturbations of a screen in folds, whose scatter can be left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert import _adata
from nextpert.core import ScreenMoments

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Batches, LabelTable, Roles


@dataclass(frozen=True)
class Folds:
    """Moments of perturbations, and a scatter for each fold of them rather than for each of them.

    Parameters
    ----------
    members
        Numbers of the perturbations of every fold.
    whole
        Moments of all perturbations.
    scatters
        Scatter within the perturbations of every fold, shape ``(n_genes, n_genes)``.
    """

    members: list[list[int]]
    whole: ScreenMoments
    scatters: list[NDArray[np.float64]]

    def unseen(self, fold: int) -> ScreenMoments:
        """Return the moments of all perturbations, their scatter judged from the other folds.

        Cells under a perturbation may depend on one another in ways that no other cells do, so
        that the scatter within them tells of its effect.
        """
        others = sum(
            (s for k, s in enumerate(self.scatters) if k != fold),
            start=np.zeros_like(self.whole.scatter),
        )
        n, own = int(self.whole.n.sum()), int(self.whole.n[self.members[fold]].sum())
        scatter = others * (n / max(n - own, 1))
        return ScreenMoments(self.whole.n, self.whole.mean, self.whole.squares, scatter)


def read_folds(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    labels: LabelTable,
    names: list[str],
    roles: Roles,
    batches: Batches | None,
    *,
    n_folds: int,
) -> Folds:
    """Read the cells of all perturbations ``names``, each once, fold by fold."""
    members = [list(range(k, len(names), n_folds)) for k in range(min(n_folds, len(names)))]
    n = np.zeros(len(names), np.int64)
    mean, squares = np.zeros((2, len(names), len(columns)))
    scatters = []
    for fold in members:
        groups = labels.groups([names[k] for k in fold])
        part = _adata.pooled_moments(adata, columns, groups, len(fold), roles, batches=batches)
        n[fold], mean[fold], squares[fold] = part.n, part.mean, part.squares
        scatters.append(part.scatter)
    scatter = sum(scatters, start=np.zeros((len(columns), len(columns))))
    return Folds(members, ScreenMoments(n, mean, squares, scatter), scatters)
