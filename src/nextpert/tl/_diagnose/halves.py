"""The cells of a fit in two halves, each environment split at random, batches taken off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.screen import read_environments, screen_moments
from nextpert.core import ScreenMoments
from nextpert.tl._fit_dag_blr.cells import FitCells, pool_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles


@dataclass(frozen=True)
class Halves:
    """Moments of every environment: the cells of one perturbation, guide and batch.

    Parameters
    ----------
    group
        Perturbation of every environment, 0 for the controls.
    condition
        The same, conditions told apart.
    guide
        Its guide; 0 for all where guides are not told apart.
    batch
        Its combination of batches; 0 for all where there are none.
    batch_names
        Their names.
    fixed
        Indicators of batches, shape ``(n_environments, n_fixed)``.
    n_groups
        Number of perturbations, and the controls.
    has_guides
        Whether guides are told apart.
    parts
        The two halves of the cells.
    """

    group: NDArray[np.int64]
    condition: NDArray[np.int64]
    guide: NDArray[np.int64]
    batch: NDArray[np.int64]
    batch_names: list[str]
    fixed: NDArray[np.float64]
    n_groups: int
    has_guides: bool
    parts: tuple[ScreenMoments, ScreenMoments]

    @property
    def whole(self) -> ScreenMoments:
        """All cells."""
        return self.parts[0] + self.parts[1]

    def pool(
        self,
        screen: ScreenMoments,
        which: NDArray[np.bool_] | None = None,
        *,
        by_guide: bool = False,
        spread: float | None = None,
    ) -> FitCells:
        """Return the cells of some environments as a fit takes them.

        The scatter within the others stays, at the weight of those taken: it says nothing of means.
        """
        kept = np.ones(len(self.group), bool) if which is None else which
        screen = some_environments(screen, kept)
        screen = screen.without_fixed(self.fixed[kept], self.condition[kept])
        guide = self.guide[kept] if by_guide else np.zeros(int(kept.sum()), np.int64)
        pairs, place = np.unique(
            np.column_stack([self.group[kept], guide]), axis=0, return_inverse=True
        )
        pooled = screen.pool(place.ravel(), len(pairs))
        return pool_cells(
            pooled, pairs[:, 0], self.n_groups, guided=by_guide and self.has_guides, spread=spread
        )


def some_environments(screen: ScreenMoments, which: NDArray[np.bool_]) -> ScreenMoments:
    """Return some environments, with their share of the scatter within all."""
    n = screen.n[which]
    scatter = screen.scatter * (n.sum() / max(int(screen.n.sum()), 1))
    return ScreenMoments(n, screen.mean[which], screen.squares[which], scatter)


def read_halves(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    names: Sequence[str],
    roles: Roles,
    rng: np.random.Generator,
) -> Halves:
    """Read the cells of the controls and of perturbations ``names``, every cell once."""
    every = [roles.control, *names]
    found = read_environments(adata, roles).only(every)
    half = _split(found.codes, rng)
    parts = [
        screen_moments(
            adata, columns, replace(found, codes=np.where(half == h, found.codes, -1))
        ).subset(np.arange(len(columns)))
        for h in (0, 1)
    ]
    table = found.table
    place = {name: k for k, name in enumerate(every)}
    guides = [] if roles.guide_key is None else [roles.guide_key]
    batches = list(roles.batch_key)

    def codes(keys: list[str]) -> NDArray[np.int64]:
        if not keys:
            return np.zeros(len(table), np.int64)
        return np.asarray(table.groupby(keys, sort=True).ngroup(), np.int64)

    batch = codes(batches)
    named = [
        ", ".join(str(table[key].iloc[row]) for key in batches)
        for row in np.unique(batch, return_index=True)[1]
    ]
    return Halves(
        np.array([place[name] for name in found.perturbation], np.int64),
        codes([roles.perturbation_key, *found.condition_names]), codes(guides), batch, named,
        found.batches()[1], len(every), bool(guides), (parts[0], parts[1]),
    )  # fmt: skip


def _split(codes: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the half of every cell: every second one of an environment, in random order."""
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    first = np.searchsorted(codes[order], codes[order])
    odd = rng.integers(2, size=int(codes.max(initial=-1)) + 2)
    half = np.empty(len(codes), np.int64)
    half[order] = (np.arange(len(codes)) - first + odd[codes[order]]) % 2
    return half
