"""The cells of a fit or a diagnosis, read once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nextpert.core.fit.cells import pool_cells, with_conditions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextpert._adata.screen import Environments
    from nextpert.core.fit.cells import FitCells
    from nextpert.core.screen.departures import GuideSpread
    from nextpert.core.screen.screen import Screen


@dataclass(frozen=True)
class Cells:
    """The cells of a fit or a diagnosis, read once: environments and their sums.

    ``fits`` has the environments and sums of each fit. The controls and the perturbations of a fit
    are one fold; perturbations whose cells only inform batch effects are another. In ``searches``
    for graphs, the cells that remain without some perturbations are a fold, and folds overlap.
    ``halves`` are sums of each half of some environments (columns ``"environment"``, ``"half"``).
    """

    fits: list[tuple[Environments, Screen]]
    searches: Screen | None
    halves: Screen | None

    def fit_cells(
        self,
        names: Sequence[str],
        fit: int = 0,
        *,
        guided: bool,
        spread: GuideSpread | None = None,
    ) -> FitCells:
        """Return the cells of the controls and of the perturbations ``names`` of a fit.

        Guides are separate if ``guided``. ``spread`` is the variance between guides, if it is known
        from other genes.
        """
        environments, screen = self.fits[fit]
        cells, keys, sd = environments.without_batches(screen, names)
        pooled = pool_cells(
            cells,
            keys[:, 0],
            1 + len(names),
            guide=keys[:, 1] if guided else None,
            spread=spread,
            fixed_sd=sd,
            are_replicates=environments.roles.condition_key is None,
        )
        if environments.roles.condition_key is None:
            return pooled
        cells, keys, sd = environments.without_batches(screen, names, by_condition=True)
        return with_conditions(
            pooled,
            cells,
            keys[:, 0],
            keys[:, 3],
            condition_names(environments),
            guide=keys[:, 1] if guided else None,
            fixed_sd=sd,
        )


def condition_names(environments: Environments) -> list[str]:
    """Return the conditions of a screen in the order of their codes; empty without conditions."""
    key = environments.roles.condition_key
    return [] if key is None else sorted(set(environments.table[key]))
