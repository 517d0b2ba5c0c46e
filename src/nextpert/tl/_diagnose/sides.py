"""The two halves of the cells as sides: one to learn from, the other to score on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.effects.perturbations import Perturbations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from nextpert.tl._diagnose.halves import Halves
    from nextpert.tl._diagnose.model import Refit
    from nextpert.tl._fit_dag_blr.cells import FitCells

    Array = NDArray[np.float64]

LARGE = 3.0  # standard errors of an effect that is called large


@dataclass(frozen=True)
class Side:
    """One half of the cells, to learn from or to score on.

    Parameters
    ----------
    cells
        Its cells, as the fit takes them.
    seen
        Its means and their sampling error.
    variance
        Variance of the observed effects about those of the perturbations, shape
        ``(n_perturbations, n_genes)``: sampling error, and the variance that the fit expects
        between the guides that the other half does not hold.
    variance_unseen
        The same about effects that are expected without any cells, so of all guides.
    """

    cells: FitCells
    seen: Perturbations
    variance: Array
    variance_unseen: Array

    @property
    def large(self) -> NDArray[np.bool_]:
        """Which effects are 3 standard errors or more."""
        return np.abs(self.seen.observed) >= LARGE * np.sqrt(self.variance)


def read_sides(refit: Refit, halves: Halves, spread: float) -> list[Side]:
    """Return both halves of the cells; ``spread`` is the variance between guides of the fit.

    What is judged is what the fit says of effects of perturbations, whatever the guide. Half of the
    guides differ from the effect by their own deviations, which no interval for the effect holds.
    So the variance between the guides that are scored is added to the sampling error, where a
    perturbation or the controls are split by guide: with shares ``w`` of their cells in each guide,
    ``spread * sum w^2`` of the noise variance each. It is the variance that the fit itself takes
    guides to have. Where none are declared that is 0: the fit says then that other guides show the
    same means but for sampling, and guides that scatter are its errors. To add the variance that
    they do have would hide this: between halves that are alike the fit misses by that variance
    twice, and would be excused for one.

    Where a perturbation has one guide its halves share the deviation of that guide, so it is taken
    to have none, in the half that is learned from as well: sampling alone is judged there.
    """
    if not halves.declared:
        spread = 0.0
    sides = []
    for part in halves.parts:
        cells = halves.pool(part, by_guide=halves.declared, spread=spread, alike=~halves.by_guides)
        seen = measured(refit, cells)
        share = spread * halves.guide_shares(part)
        others = np.where(halves.by_guides, share, 0.0)
        between, unseen = (between_guides(each, seen) for each in (others, share))
        sides.append(Side(cells, seen, seen.variance + between, seen.variance + unseen))
    return sides


def between_guides(share: Array, seen: Perturbations) -> Array:
    """Return the variance between guides in observed effects, from that in the groups' means."""
    return (share[1:] + share[0])[:, None] * np.diag(seen.covariance())


def measured(refit: Refit, cells: FitCells) -> Perturbations:
    """Return the means of some cells and their sampling error, by perturbation."""
    place = {gene: i for i, gene in enumerate(refit.spec.genes)}
    targets = [[place[gene] for gene in some] for some in refit.spec.plan.targets]
    return Perturbations(cells.screen, 0, np.arange(1, len(targets) + 1), targets)
