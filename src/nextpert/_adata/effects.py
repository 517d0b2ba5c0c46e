"""Tables of shifts, and warnings of shifts that are near 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.panel import panel_index
from nextpert._adata.sources import real_values
from nextpert.core._checks import list_names, require_small
from nextpert.core.fit.interventions import Interventions
from nextpert.core.model.effects import speaks_of_knockouts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from nextpert.core import Moments

CLEAR_SIGN = 0.05  # local false sign rate below which the sign of an effect is said to be clear


KINDS = ("knockout", "activation")


def read_table(
    table: Any,
    genes: Sequence[str],
    spelled: Callable[[Iterable[str]], list[str]] = list,
    control: str | None = None,
) -> Interventions:
    """Return the interventions of a table: perturbations x genes, or a mapping of mappings.

    The targets are the genes with a shift other than zero. ``spelled`` returns names as the data
    has them, and ``control`` is the label of the controls.
    """
    if not isinstance(table, pd.DataFrame):
        if not all(isinstance(row, (Mapping, pd.Series)) for row in table.values()):
            message = "A mapping of shifts must be {perturbation: {gene: shift}}."
            raise ValueError(message)
        # What is not given is no shift; what is given as missing is refused below.
        rows = {
            str(name): {gene: np.inf if pd.isna(x) else x for gene, x in dict(row).items()}
            for name, row in table.items()
        }
        table = pd.DataFrame.from_dict(rows, orient="index").reindex(list(rows))
        table[table.isna()] = 0.0
    names = spelled(str(name) for name in table.index)
    columns = panel_index(map(str, table.columns), genes, "The table of shifts")
    shifts = np.zeros((len(names), len(genes)))
    shifts[:, columns] = real_values(table, "The table of shifts")
    _require_unique([str(gene) for gene in table.columns], "Genes")
    _require_unique(names, "Perturbations")
    if control in names:
        message = f"The table of shifts has a row of the controls, {control!r}: leave it out."
        raise ValueError(message)
    infinite = [name for name, row in zip(names, shifts, strict=True) if not np.isfinite(row).all()]
    if infinite:
        message = (
            f"The table of shifts holds NaN or infinite values for {list_names(infinite)}: write 0 "
            f"where a gene has no shift."
        )
        raise ValueError(message)
    require_small(shifts, "The table of shifts")
    targets = [[genes[int(i)] for i in np.flatnonzero(row)] for row in shifts]
    return Interventions(names, targets, shifts, ["table"] * len(names))


def hardly_expressed(control: Moments, genes: Sequence[str]) -> list[str]:
    """Return the genes whose control mean is about nothing (under 0.1 standard deviations)."""
    speaks = speaks_of_knockouts(np.abs(control.mean), np.sqrt(control.variance))
    return [gene for gene, says in zip(genes, speaks, strict=True) if not says]


def hardly_expressed_message(genes: Sequence[str]) -> str:
    """Return the warning about knockouts of genes that are hardly expressed."""
    return (
        f"Genes with a control mean near 0, so that the shift of a knockout is near 0: "
        f"{list_names(genes)}. Leave these perturbations out, learn their shifts "
        f"(shift_sd='learned'), or give a table of shifts."
    )


def _require_unique(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        message = f"{what} given more than once in the table of shifts: {list_names(twice)}."
        raise ValueError(message)
