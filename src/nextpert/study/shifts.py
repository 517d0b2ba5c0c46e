"""Tables of shifts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.panel import panel_index
from nextpert._adata.sources import real_values
from nextpert.core._checks import list_names, require_small
from nextpert.core.fit.interventions import Interventions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


KINDS = ("knockout", "activation")


def read_table(
    table: Any,
    genes: Sequence[str],
    spelled: Callable[[Iterable[str]], list[str]] = list,
    control: str | None = None,
) -> Interventions:
    """Return the interventions of a table: perturbations x genes, or a mapping of mappings.

    The targets are the genes with a non-zero shift. ``spelled`` returns names in the spelling of
    the data, and ``control`` is the label of the controls.
    """
    if not isinstance(table, pd.DataFrame):
        if not all(isinstance(row, (Mapping, pd.Series)) for row in table.values()):
            message = "A mapping of shifts must have the form {perturbation: {gene: shift}}."
            raise ValueError(message)
        # Genes that are not listed have shift 0; listed missing values raise an error below.
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
        message = f"The table of shifts has NaN or infinite values for {list_names(infinite)}: use "
        message += "0 for no shift."
        raise ValueError(message)
    require_small(shifts, "The table of shifts")
    targets = [[genes[int(i)] for i in np.flatnonzero(row)] for row in shifts]
    return Interventions(names, targets, shifts, ["table"] * len(names))


def _require_unique(names: Sequence[str], kind: str) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        message = f"{kind} given more than once in the table of shifts: {list_names(twice)}. Give "
        message += "each of these once."
        raise ValueError(message)
