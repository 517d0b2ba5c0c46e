"""How many cells a screen needs: its tables, and their summary in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata.arguments import above, at_least, between, options
from nextpert.core._codec import strings
from nextpert.core._text import percent
from nextpert.core.design.detection import FDR, LFSR, ByDiscoveryRate, ByFalseSigns
from nextpert.core.design.effect_sizes import USUAL_SD, EffectSizes
from nextpert.core.design.power import Layout, screen_noise
from nextpert.core.design.screen_plans import Prices, ScreenPlans
from nextpert.core.model.within_cells import coexpression
from nextpert.core.screen.guides import distinct

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from nextpert.core.design.power import Layout, ScreenNoise
    from nextpert.core.design.screen_plans import Prices
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.study.cell_sums import Cells


SCREEN, USUAL, GIVEN = "this screen", "four published screens", "given"
MAX_MEASURED_CELLS = 1e6  # more cells than anybody measures
RULES_IN_WORDS = {
    LFSR: "local false sign rate below 0.05",
    FDR: "false discovery rate of 5%, Benjamini-Hochberg",
}


class SampleSizes(NamedTuple):
    """What is put in words: tables, the rule in words, the effect, and where effects are from.

    ``stated_effects`` are the share of effects that are not zero and their SD, if they are given;
    ``n_control`` is the number of control cells without a fit, otherwise ``None``.
    """

    genes: pd.DataFrame
    screens: pd.DataFrame
    layout: Layout
    rule: str
    effect: float
    power: float
    share: float
    stated_effects: tuple[float, float] | None
    source: str
    missing: str
    budget: float | None
    prices: Prices
    n_control: int | None


def in_words(plan: SampleSizes) -> list[str]:
    """Return all results in sentences."""
    sentences = [_of_cells(plan), _of_effects(plan), _of_reads(plan)]
    if plan.n_control is not None:
        sentences.insert(
            0,
            (
                f"There is no fit: the noise is that of {plan.n_control:,} control cells (and as "
                f"many controls are assumed), and guides are assumed to vary as in two published "
                f"screens."
            ),
        )
    if plan.budget is not None:
        sentences.append(_of_budget(plan, plan.budget))
    return sentences


def _of_cells(plan: SampleSizes) -> str:
    """Return how many cells detect a change in one gene."""
    cells = plan.genes["cells_needed"].to_numpy(float)
    median, nine_tenths = (float(np.quantile(cells, q, method="higher")) for q in (0.5, 0.9))
    layout = plan.layout
    parts = [
        f"{n} {unit}{'s' * (n > 1)}"
        for n, unit in ((layout.n_guides, "guide"), (layout.n_replicates, "replicate"))
    ]
    text = (
        f"Detecting a change of {plan.effect:g} with {100 * plan.power:g}% power "
        f"({plan.rule}) takes {cells_in_words(median)} per perturbation "
        f"({' and '.join(parts)}) for the median gene and {cells_in_words(nine_tenths)} for 90% of "
        f"the genes."
    )
    if lacking := int((cells > MAX_MEASURED_CELLS).sum()):
        text += (
            f" {lacking} of {len(cells)} genes need more guides, controls or replicates: more "
            f"cells do not suffice."
        )
    return text


def _of_effects(plan: SampleSizes) -> str:
    """Return how many effects are not zero, and by what."""
    if plan.stated_effects is not None:
        share, sd = plan.stated_effects
        return (
            f"As given, {percent(share)} of the effects are not zero, with an SD of {sd:g} of that "
            f"of a gene between cells."
        )
    by = "On this screen" if plan.source == SCREEN else f"As on {USUAL} (without a fit)"
    return f"{by}, {percent(plan.share)} of the effects exceed 0.2 SD of a gene between cells."


def _of_reads(plan: SampleSizes) -> str:
    """Return what half of the reads costs in power, or why it is not known."""
    if plan.missing:
        return f"Fewer reads per cell are not planned: {plan.missing}."
    table = plan.screens[plan.screens["n_guides"] == plan.layout.n_guides]
    if table.empty:
        return "Fewer reads per cell are planned in the table of screens."
    of_reads = {
        f: table[table["reads"] == f].set_index("n_cells")["power"] for f in (1.0, 0.5, 0.25)
    }
    nearest = int(np.argmin(np.abs(of_reads[1.0].to_numpy() - plan.power)))
    row = int(of_reads[1.0].index[nearest])
    full, half, quarter = (100 * float(of_reads[f].get(row, np.nan)) for f in (1.0, 0.5, 0.25))
    return (
        f"With {cells_in_words(row)} per perturbation, power averaged over genes is {full:.0f}% "
        f"with all reads, {half:.0f}% with half and {quarter:.0f}% with a quarter."
    )


def _of_budget(plan: SampleSizes, budget: float) -> str:
    """Return the screens that a budget pays for: most effects, and enough power."""
    prices, table = plan.prices, plan.screens
    in_cells = not prices.construct and not prices.million_reads and prices.cell == 1.0
    spending = f"A screen of {cells_in_words(budget)}" if in_cells else f"A budget of {budget:,.0f}"
    if table.empty:
        return f"{spending} does not pay for one perturbation with {plan.layout.n_guides} guides."
    best = table[table["is_best"]].iloc[0]
    reads = "" if plan.missing else f", {100 * best['reads']:g}% of the reads"
    text = (
        f"{spending} is expected to detect most effects ({best['detected']:,.0f}; {plan.rule}) "
        f"with {_screen(best)}{reads}."
    )
    enough = table[table["power"] >= plan.power]
    change = f"a change of {plan.effect:g} with {100 * plan.power:g}% power, averaged over genes"
    if enough.empty:
        return f"{text} None of the screens detects {change}."
    largest = enough.sort_values(["n_perturbations", "detected"]).iloc[-1]
    return f"{text} It detects {change}, in up to {_screen(largest)}."


def _screen(row: pd.Series) -> str:
    """Return the perturbations, cells, guides and controls of a screen."""
    k, g = int(row["n_perturbations"]), int(row["n_guides"])
    return (
        f"{k:,} perturbation{'s' * (k > 1)}, {cells_in_words(row['n_cells'])} each in {g} "
        f"guide{'s' * (g > 1)}, {int(row['n_controls']):,} controls"
    )


def cells_in_words(number: float) -> str:
    """Return a number of cells in words."""
    if number > MAX_MEASURED_CELLS:
        return "more than 1,000,000 cells"
    return f"{number:,.0f} cell{'s' * (round(number) != 1)}"


INTERVAL = 1.6449  # quantile for intervals of 90%, the same level in the whole package
# Cells and guides of each perturbation for which power is tabulated.
CELLS = (5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000, 2000, 5000)
GUIDES = (1, 2, 4, 8)
READS = (1.0, 0.5, 0.25, 0.1)  # shares of the reads
SIZE = 0.2  # SD of a gene between cells, from which effects are counted in words


@options(size=above(0), power=between(0.5, 1), share=between(0, 1), sd=above(0))
@dataclass(frozen=True)
class _Effect:
    """Fields of ``effect``, documented in :func:`plan_cells`."""

    size: float = 0.2
    power: float = 0.8
    share: float | None = None
    sd: float | None = None


@options(
    total=above(0),
    construct=at_least(0),
    cell=at_least(0),
    million_reads=at_least(0),
    reads=at_least(1),
    n_perturbations=at_least(1),
)
@dataclass(frozen=True)
class _Budget:
    """Fields of ``budget``, documented in :func:`plan_cells`."""

    total: float | None = None
    construct: float | None = None
    cell: float | None = None
    million_reads: float | None = None
    reads: float = 25_000  # the maker's minimum, as in tl.plan_loading
    n_perturbations: int | None = None

    def prices(self) -> Prices:
        """Return all prices; without any, a cell costs 1."""
        unit_prices = (self.construct, self.cell, self.million_reads)
        if all(price is None for price in unit_prices):
            return Prices(reads=self.reads)
        construct, cell, million_reads = (price or 0.0 for price in unit_prices)
        prices = Prices(construct, cell, million_reads, self.reads)
        if self.total is not None and not prices.of_cell(1.0):
            message = (
                "budget has a total, but no price that depends on the number of cells: add the "
                "price of a cell ('cell') or of a million reads ('million_reads')."
            )
            raise ValueError(message)
        return prices


def _check(effect: _Effect, n_guides: int | None) -> None:
    """Raise if an SD of effects has no share, or there are more guides than planned cells."""
    if effect.sd is not None and effect.share is None:
        message = (
            f"effect has the SD of effects that are not zero ({effect.sd:g}), but not their share: "
            f"add 'share', such as 0.05, or leave 'sd' out."
        )
        raise ValueError(message)
    if n_guides is not None and n_guides > CELLS[-1]:
        message = (
            f"n_guides is {n_guides}, but the plan has at most {CELLS[-1]} cells per perturbation, "
            f"and each guide needs a cell: give a smaller n_guides."
        )
        raise ValueError(message)


def _sizes_of(fit: FittedPosterior | None, effect: _Effect) -> tuple[EffectSizes, str]:
    """Return the distribution of effects, and where it is from."""
    if effect.share is not None:
        return EffectSizes.of_share(effect.share, effect.sd or USUAL_SD), GIVEN
    if fit is None or fit.hierarchical is None:
        return EffectSizes.usual(), USUAL
    return EffectSizes.of_draws(fit.hierarchical.effects.place, fit.hierarchical.along), SCREEN


def _plans_of(
    noise: ScreenNoise,
    sizes: EffectSizes,
    rule: str,
    size: float,
    n_perturbations: int,
    reads: Mapping[float, NDArray[np.float64]],
) -> ScreenPlans:
    """Return what determines the power of screens."""
    n_control, cells = int(noise.pooled.n_cells[0]), coexpression(noise.pooled)
    pattern = noise.planned(
        100,
        Layout(),
        n_control=n_control,
        n_perturbations=n_perturbations,
        cells=cells,
        sizes=sizes,
    )
    by_rule = ByFalseSigns(sizes, pattern.of_model) if rule == LFSR else ByDiscoveryRate(sizes)
    sd = np.sqrt(np.maximum(noise.perturbed_variance, np.finfo(float).tiny))
    return ScreenPlans(noise, cells, sizes, by_rule, size / sd, n_control, n_perturbations, reads)


def _genes_table(
    panel: Sequence[str], plans: ScreenPlans, layout: Layout, n_cells: float, power: float
) -> pd.DataFrame:
    """Return the power with the present cells of every gene, and the cells that it needs."""
    sd = np.sqrt(plans.noise.perturbed_variance)
    width, power_now = np.full((2, len(sd)), np.nan)
    if np.isfinite(n_cells):
        noise = plans.noise_of(n_cells, layout)
        width = INTERVAL * sd * np.sqrt(noise.of_means)
        power_now = plans.rule.power(noise, plans.effect)
    return pd.DataFrame(
        {
            "gene": strings(panel),
            "cell_sd": sd,
            "half_width": width,
            "power": power_now,
            "cells_needed": plans.cells_needed(layout, power),
        }
    )


def _screens_table(
    plans: ScreenPlans, layout: Layout, prices: Prices, limits: _Budget
) -> pd.DataFrame:
    """Return power, cost and expected detected effects by guides, cells and reads."""
    guides = sorted({layout.n_guides, *(GUIDES if layout.guide_variance > 0 else ())})
    columns = plans.table(layout, guides, CELLS, prices, limits.total, limits.n_perturbations)
    table = pd.DataFrame({name: np.array(values, float) for name, values in columns.items()})
    counts = ["n_guides", "n_cells", "n_perturbations", "n_controls"]
    table = table.astype(dict.fromkeys(counts, np.int64))
    best = np.zeros(len(table), bool)
    if limits.total is not None and len(table):
        # Of the equally good, the cheapest.
        best[np.lexsort((table["cost"], -table["detected"]))[0]] = True
    return table.assign(is_best=best)


def _noise_of(cells: Cells, names: Sequence[str]) -> ScreenNoise:
    """Return the noise of controls and perturbations, by guide and batch."""
    environments, sums = cells.fits[0]
    screen, keys, sd = environments.without_batches(sums, names)
    # Conditions are ignored, because they would split guides.
    rows, row_of = distinct(*keys.T)
    group, guide, batch, _ = rows.T
    screen = screen.pool(row_of, len(rows))
    return screen_noise(screen, group, guide, batch, 1 + len(names), fixed_sd=sd)
