"""The results of ``tl.plan_cells`` in sentences."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nextpert.core._shown import percent
from nextpert.core.design.detection import LFSR

if TYPE_CHECKING:
    import pandas as pd

    from nextpert.core.design.power import Layout
    from nextpert.core.design.screen_plans import Prices

SCREEN, USUAL, GIVEN = "this screen", "four published screens", "given"
MANY = 1e6  # more cells than anybody measures
_BY_RULE = {
    True: "local false sign rate below 0.05",
    False: "false discovery rate of 5%, Benjamini-Hochberg",
}


class Found(NamedTuple):
    """What is put in words: tables, the rule, the effect, and where effects are from.

    ``given`` are the share of effects that are not zero and their SD, if they are given;
    ``n_control`` is the number of control cells without a fit, otherwise ``None``.
    """

    genes: pd.DataFrame
    screens: pd.DataFrame
    layout: Layout
    rule: str
    effect: float
    power: float
    share: float
    given: tuple[float, float] | None
    source: str
    missing: str
    budget: float | None
    prices: Prices
    n_control: int | None

    @property
    def by_rule(self) -> str:
        """The rule in words."""
        return _BY_RULE[self.rule == LFSR]


def in_words(found: Found) -> list[str]:
    """Return all results in sentences."""
    sentences = [_of_cells(found), _of_effects(found), _of_reads(found)]
    if found.n_control is not None:
        sentences.insert(0, (
            f"There is no fit: the noise is that of {found.n_control:,} control cells (and as many "
            f"controls are assumed), and guides are assumed to vary as in two published screens."
        ))  # fmt: skip
    if found.budget is not None:
        sentences.append(_of_budget(found, found.budget))
    return sentences


def _of_cells(found: Found) -> str:
    """Return how many cells detect a change in one gene."""
    cells = found.genes["cells_needed"].to_numpy(float)
    median, most = (float(np.quantile(cells, q, method="higher")) for q in (0.5, 0.9))
    layout = found.layout
    parts = [
        f"{n} {what}{'s' * (n > 1)}"
        for n, what in ((layout.n_guides, "guide"), (layout.n_replicates, "replicate"))
    ]
    text = (
        f"Detecting a change of {found.effect:g} with {100 * found.power:g}% power "
        f"({found.by_rule}) takes {cells_in_words(median)} per perturbation "
        f"({' and '.join(parts)}) for the median gene and {cells_in_words(most)} for 90% of the "
        f"genes."
    )
    if lacking := int((cells > MANY).sum()):
        text += (
            f" {lacking} of {len(cells)} genes need more guides, controls or replicates: more "
            f"cells do not suffice."
        )
    return text


def _of_effects(found: Found) -> str:
    """Return how many effects are not zero, and by what."""
    if found.given is not None:
        share, sd = found.given
        return (
            f"As given, {percent(share)} of the effects are not zero, with an SD of {sd:g} of that "
            f"of a gene between cells."
        )
    by = "On this screen" if found.source == SCREEN else f"As on {USUAL} (without a fit)"
    return f"{by}, {percent(found.share)} of the effects exceed 0.2 SD of a gene between cells."


def _of_reads(found: Found) -> str:
    """Return what half of the reads costs in power, or why it is not known."""
    if found.missing:
        return f"Fewer reads per cell are not planned: {found.missing}."
    table = found.screens[found.screens["n_guides"] == found.layout.n_guides]
    if table.empty:
        return "Fewer reads per cell are planned in the table of screens."
    of_reads = {
        f: table[table["reads"] == f].set_index("n_cells")["power"] for f in (1.0, 0.5, 0.25)
    }
    nearest = int(np.argmin(np.abs(of_reads[1.0].to_numpy() - found.power)))
    row = int(of_reads[1.0].index[nearest])
    whole, half, quarter = (100 * float(of_reads[f].get(row, np.nan)) for f in (1.0, 0.5, 0.25))
    return (
        f"With {cells_in_words(row)} per perturbation, power averaged over genes is {whole:.0f}% "
        f"with all reads, {half:.0f}% with half and {quarter:.0f}% with a quarter."
    )


def _of_budget(found: Found, budget: float) -> str:
    """Return the screens that a budget pays for: most effects, and enough power."""
    prices, table = found.prices, found.screens
    in_cells = not prices.construct and not prices.million_reads and prices.cell == 1.0
    what = f"A screen of {cells_in_words(budget)}" if in_cells else f"A budget of {budget:,.0f}"
    if table.empty:
        return f"{what} does not pay for one perturbation with {found.layout.n_guides} guides."
    best = table[table["is_best"]].iloc[0]
    reads = "" if found.missing else f", {100 * best['reads']:g}% of the reads"
    text = (
        f"{what} is expected to detect most effects ({best['detected']:,.0f}; {found.by_rule}) "
        f"with {_screen(best)}{reads}."
    )
    enough = table[table["power"] >= found.power]
    change = f"a change of {found.effect:g} with {100 * found.power:g}% power, averaged over genes"
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
    if number > MANY:
        return "more than 1,000,000 cells"
    return f"{number:,.0f} cell{'s' * (round(number) != 1)}"
