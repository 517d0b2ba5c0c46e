"""Screens by cells, guides and reads: power, cost, and what a budget pays for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core.design.detection import ByDiscoveryRate, ByFalseSigns, Noise
    from nextpert.core.design.effect_sizes import EffectSizes
    from nextpert.core.design.power import Layout, ScreenNoise
    from nextpert.core.screen.departures import Coexpression

    Array = NDArray[np.float64]

# Cells per perturbation at which the cells that are needed are interpolated.
_GRID = np.unique(np.round(np.geomspace(2, 1e6, 40)))
_MAX_GENES = 300  # genes over which power is averaged; more change the mean little


class Prices(NamedTuple):
    """Prices, in any currency, and reads per cell. By default costs are counted in cells."""

    construct: float = 0.0
    cell: float = 1.0
    million_reads: float = 0.0
    reads: float = 25_000.0

    def of_cell(self, share: float) -> float:
        """Return the price of a usable cell with a share of the reads."""
        return self.cell + self.million_reads * self.reads * share / 1e6

    def affordable(self, budget: float, n_cells: int, n_guides: int, share: float) -> int:
        r"""Return how many perturbations a budget pays for, with their controls.

        The controls are as many as :math:`\\sqrt{J}` perturbations have cells (Dunnett 1955), so
        the cost is :math:`a J + b \\sqrt J` (equation 42).
        """
        b = n_cells * self.of_cell(share)
        a = n_guides * self.construct + b
        return int(((np.sqrt(b**2 + 4 * a * budget) - b) / (2 * a)) ** 2 + 1e-9) if a else 0


@dataclass(frozen=True)
class ScreenPlans:
    """Power and cost of screens with the noise and the effects of one screen.

    Parameters
    ----------
    noise, cells
        Noise of the screen, and coexpression of its genes.
    sizes
        Distribution of the effects.
    rule
        The rule by which effects are detected.
    effect
        The effect to detect, in SD of every gene between cells, ``(n_genes,)``.
    n_control, n_perturbations
        Control cells and perturbations of the screen.
    reads
        Noise of a cell for shares of the reads, relative to all reads: ``(n_genes,)`` each.
    """

    noise: ScreenNoise
    cells: Coexpression
    sizes: EffectSizes
    rule: ByFalseSigns | ByDiscoveryRate
    effect: Array
    n_control: int
    n_perturbations: int
    reads: Mapping[float, Array]

    def noise_of(self, n_cells: float, layout: Layout, share: float = 1.0) -> Noise:
        """Return the noise with a number of cells, a layout and a share of the reads."""
        return self.noise.planned(
            n_cells,
            layout,
            n_control=self.n_control,
            n_perturbations=self.n_perturbations,
            cells=self.cells,
            sizes=self.sizes,
            per_cell=self.reads[share],
        )

    def cells_needed(self, layout: Layout, power: float) -> Array:
        """Return the cells per perturbation for a power, ``(n_genes,)``.

        The number is infinite if guides, replicates or controls do not allow the power.
        """
        grid = _GRID[layout.n_guides <= _GRID]
        table = np.array([self.rule.power(self.noise_of(n, layout), self.effect) for n in grid])
        reached = table >= power
        first = np.argmax(reached, axis=0)
        before = np.maximum(first - 1, 0)
        genes = np.arange(table.shape[1])
        low, high = table[before, genes], table[first, genes]
        part = np.where(high > low, (power - low) / np.maximum(high - low, 1e-12), 1.0)
        log = np.log(grid)
        needed = np.ceil(np.exp(log[before] + np.clip(part, 0, 1) * (log[first] - log[before])))
        return np.where(reached.any(axis=0), needed, np.inf)

    def table(
        self,
        layout: Layout,
        guides: Sequence[int],
        cells: Sequence[int],
        prices: Prices,
        budget: float | None,
        max_perturbations: int | None,
    ) -> dict[str, list[float]]:
        """Return one row per number of guides and cells and share of the reads.

        With a budget, a row has as many perturbations as it pays for, at most
        ``max_perturbations``, and their controls; rows without a perturbation are left out.
        """
        p = len(self.effect)
        genes = np.unique(np.linspace(0, p - 1, min(p, _MAX_GENES)).astype(np.int64))
        names = (
            "n_guides",
            "n_cells",
            "reads",
            "n_perturbations",
            "n_controls",
            "cost",
            "power",
            "detected",
        )
        rows: dict[str, list[float]] = {name: [] for name in names}
        for g in guides:
            for n in (n for n in cells if n >= max(g, 2)):
                for share in self.reads:
                    plan = self
                    k = self.n_perturbations
                    if budget is not None:
                        k = prices.affordable(budget, n, g, share)
                        k = k if max_perturbations is None else min(k, max_perturbations)
                        if not k:
                            continue
                        controls = max(round(np.sqrt(k) * n), 2)
                        plan = replace(self, n_control=controls, n_perturbations=k)
                    noise = plan.noise_of(n, replace(layout, n_guides=g), share).of_genes(genes)
                    power = plan.rule.power(noise, self.effect[genes]).mean()
                    detected = k * p * plan.rule.detected(noise)
                    of_cells = (k * n + plan.n_control) * prices.of_cell(share)
                    cost = of_cells + k * g * prices.construct
                    values = g, n, share, k, plan.n_control, cost, power, detected
                    for name, value in zip(names, values, strict=True):
                        rows[name].append(float(value))
        return rows
