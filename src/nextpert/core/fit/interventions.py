"""Perturbations of a fit, with the genes that they target and their expected shifts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert.core.fit.naming import places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core.screen.moments import Moments

    Array = NDArray[np.float64]

Reasons = list[tuple[str, str]]


@dataclass(frozen=True)
class Interventions:
    """Interventions on a panel.

    Parameters
    ----------
    names
        Label of each intervention.
    targets
        Target genes of each intervention.
    shifts
        Shift of every gene, shape ``(n_interventions, n_genes)``, log-normalised expression.
    sources
        Source of each shift: ``"knockout"``, ``"activation"``, ``"table"`` or ``"not measured"``.
    """

    names: list[str]
    targets: list[list[str]]
    shifts: Array
    sources: list[str]

    def rows(self, index: Sequence[int]) -> Interventions:
        """Return some of the interventions, in the order given."""
        return Interventions(
            [self.names[i] for i in index],
            [self.targets[i] for i in index],
            self.shifts[list(index)],
            [self.sources[i] for i in index],
        )

    def readable(self, genes: Sequence[str]) -> list[str]:
        """Return the shifts of the target genes as text, such as ``"-1.20, -0.33"``."""
        position = {gene: i for i, gene in enumerate(genes)}
        shown = []
        for row, targets in zip(self.shifts, self.targets, strict=True):
            values = [float(row[position[gene]]) for gene in targets]
            shown.append(
                ", ".join(f"{x:+.2f}" if abs(x) >= 0.1 or x == 0 else f"{x:+.2g}" for x in values)
            )
        return shown


@dataclass(frozen=True)
class Plan:
    """The perturbations to use, and those left out with a reason for each.

    ``shift`` is the expected shift: ``"knockout"``, ``"activation"`` or a table. ``unmeasured``
    lists the used perturbations that have a target outside the panel, with reasons.
    """

    names: list[str]
    targets: list[list[str]]
    left_out: Reasons
    shift: str | Interventions
    hint: str = ""
    unmeasured: Reasons = field(default_factory=list)


def own_shift(kind: str, control_mean: Array) -> Array:
    """Return the shift of every gene when it is fully perturbed itself, shape ``(n_genes,)``.

    A knockout lowers the mean from that of the controls to 0; an activation raises the mean by one
    unit of log-normalised expression.
    """
    return -control_mean if kind == "knockout" else np.ones_like(control_mean)


def in_full(
    names: list[str],
    targets: list[list[str]],
    kind: str,
    genes: Sequence[str],
    control_mean: Array,
) -> Interventions:
    """Return interventions that shift their targets fully, and no other gene."""
    shifts = np.zeros((len(names), len(genes)))
    full = own_shift(kind, control_mean)
    for row, positions in zip(shifts, places(targets, genes), strict=True):
        # Pages of zeros that are never written take no memory.
        if positions:
            row[positions] = full[positions]
    return Interventions(names, targets, shifts, [kind] * len(names))


def shift_environments(plan: Plan, genes: Sequence[str], control: Moments) -> Interventions:
    """Return the full shift of every perturbation of the plan."""
    if isinstance(plan.shift, str):
        # Full knockouts or activations; later multiplied by the efficacy.
        used = in_full(plan.names, plan.targets, plan.shift, genes, control.mean)
        sources = [plan.shift if targets else "not measured" for targets in plan.targets]
        return replace(used, sources=sources)
    # A table: shifts as given, 0 for perturbations without a row.
    table_shifts = dict(zip(plan.shift.names, plan.shift.shifts, strict=True))
    shifts = np.zeros((len(plan.names), len(genes)))
    for row, name in zip(shifts, plan.names, strict=True):
        row[:] = table_shifts.get(name, 0.0)
    return Interventions(plan.names, plan.targets, shifts, ["table"] * len(plan.names))
