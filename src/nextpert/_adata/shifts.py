"""Shifts of interventions: modelled knockouts, measured changes, tables of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.panel import list_names, panel_index
from nextpert._adata.sound import real_values
from nextpert.core._checks import require_small

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert.core import Moments

    Vector = NDArray[np.float64]

KINDS = ("knockout", "activation")
# A control mean below this share of its standard deviation cannot be told from nothing in the
# hundred or so cells of one perturbation.
_ABOUT_NOTHING = 0.1


@dataclass(frozen=True)
class Interventions:
    """Interventions on a panel.

    Parameters
    ----------
    names
        Label of each.
    targets
        Target genes of each.
    shifts
        Shift of every gene, shape ``(n_interventions, n_genes)``, log-normalised expression.
    sources
        Where each shift comes from: ``"knockout"``, ``"activation"``, ``"table"``.
    """

    names: list[str]
    targets: list[list[str]]
    shifts: NDArray[np.float64]
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
        place = {gene: i for i, gene in enumerate(genes)}
        return [
            ", ".join(_number(row[place[gene]]) for gene in targets)
            for row, targets in zip(self.shifts, self.targets, strict=True)
        ]


def read_table(
    table: Any, genes: Sequence[str], spelled: Callable[[Iterable[str]], list[str]] = list
) -> Interventions:
    """Return the interventions of a table: perturbations x genes, or a mapping of mappings.

    Missing values of a DataFrame stand for no shift; the targets are the genes with a shift
    other than zero. ``spelled`` returns names as the data has them.

    Raises
    ------
    ValueError
        If a gene is outside the panel, a perturbation comes twice, or a shift is not finite or too
        large.
    """
    if isinstance(table, pd.DataFrame):
        names = spelled(str(name) for name in table.index)
        columns = panel_index(map(str, table.columns), genes, "The table of shifts")
        shifts = np.zeros((len(names), len(genes)))
        given = real_values(table, "The table of shifts")
        shifts[:, columns] = np.where(np.isnan(given), 0.0, given)
        _require_unique([str(gene) for gene in table.columns], "Genes")
    else:
        names = spelled(str(name) for name in table)
        shifts = np.zeros((len(names), len(genes)))
        for row, by_gene in zip(shifts, table.values(), strict=True):
            if not isinstance(by_gene, (Mapping, pd.Series)):
                message = "A mapping of shifts must be {perturbation: {gene: shift}}."
                raise ValueError(message)
            column = pd.Series(by_gene, dtype=object)
            place = panel_index(map(str, column.index), genes, "The table of shifts")
            row[place] = real_values(column, "The table of shifts")
    _require_unique(names, "Perturbations")
    infinite = [name for name, row in zip(names, shifts, strict=True) if not np.isfinite(row).all()]
    if infinite:
        message = f"The table of shifts holds NaN or infinite values for {list_names(infinite)}."
        raise ValueError(message)
    require_small(shifts, "The table of shifts")
    targets = [[genes[int(i)] for i in np.flatnonzero(row)] for row in shifts]
    return Interventions(names, targets, shifts, ["table"] * len(names))


def own_shift(kind: str, control_mean: Vector) -> Vector:
    """Return the shift of every gene that is itself perturbed in full, shape ``(n_genes,)``.

    A knockout takes the mean from that of the controls to nothing; an activation raises it by one
    unit of log-normalised expression.
    """
    return -control_mean if kind == "knockout" else np.ones_like(control_mean)


def in_full(
    targets: Sequence[str], genes: Sequence[str], kind: str, control_mean: Vector
) -> Vector:
    """Return the shift that perturbs each target in full and leaves the other genes alone."""
    shift = np.zeros(len(genes))
    place = panel_index(targets, genes, "A perturbation")
    shift[place] = own_shift(kind, control_mean)[place]
    return shift


def hardly_expressed(control: Moments, genes: Sequence[str]) -> list[str]:
    """Return the genes whose control mean is about nothing (under 0.1 standard deviations)."""
    small = np.abs(control.mean) < _ABOUT_NOTHING * np.sqrt(control.variance)
    return [gene for gene, is_small in zip(genes, small, strict=True) if is_small]


def hardly_expressed_message(genes: Sequence[str]) -> str:
    """Return the warning about knockouts of genes that are hardly expressed."""
    return (
        f"Control mean about nothing, so a knockout is a shift of about nothing: "
        f"{list_names(genes)}. Leave these perturbations out, learn how far "
        f"shifts are to be believed (shift_sd='learned'), or give a table of shifts."
    )


def _number(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:+.2g}"


def _require_unique(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        message = f"{what} given more than once in the table of shifts: {list_names(twice)}."
        raise ValueError(message)
