"""The candidates of a design: interventions that a lab could do next, with their shifts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import in_order, list_names, parse_label
from nextpert._adata import shifts as _shifts
from nextpert._adata.environments import unknown_genes
from nextpert._adata.shifts import Interventions

if TYPE_CHECKING:
    from nextpert._adata import FittedPosterior


def read_candidates(candidates: Any, shift: Any, fit: FittedPosterior) -> Interventions:
    """Return the candidates with the shift of each.

    Raises
    ------
    ValueError
        If there are none, or one names a gene outside the panel (close matches are given).
    """
    if isinstance(candidates, (pd.DataFrame, Mapping)):
        return _require_some(_shifts.read_table(candidates, fit.genes))
    names = _names(candidates, fit)
    targets = [_targets(name, fit) for name in names]
    if shift is None:
        return _as_fitted(names, targets, fit)
    _shifts.check_shift(shift)
    if isinstance(shift, str):
        return _modelled(names, targets, shift, fit)
    table = _shifts.read_table(shift, fit.genes)
    missing = [name for name in names if name not in table.names]
    if missing:
        message = f"The table of shifts has no row for the candidates {list_names(missing)}."
        raise ValueError(message)
    rows = [table.names.index(name) for name in names]
    chosen = [table.targets[row] for row in rows]
    return Interventions(names, chosen, table.shifts[rows], ["table"] * len(names))


def _names(candidates: Any, fit: FittedPosterior) -> list[str]:
    used = [str(name) for name in fit.environments["perturbation"]]
    if candidates is None:
        names = used
    elif isinstance(candidates, str):
        if candidates != "genes":
            message = (
                f"candidates must be None, 'genes', a list of labels or a table of shifts, but "
                f"is {candidates!r}: for this one label use [{candidates!r}]."
            )
            raise ValueError(message)
        names = used + [gene for gene in fit.genes if gene not in used]
    else:
        names = list(dict.fromkeys(str(name) for name in in_order(candidates)))
    if not names:
        message = (
            "There are no candidates: "
            + ("the list is empty" if candidates is not None else "the fit used no perturbation")
            + '. Give labels such as ["MYC", "MYC+STK3"], or "genes" for every gene of the panel.'
        )
        raise ValueError(message)
    return names


def _require_some(table: Interventions) -> Interventions:
    if not table.names:
        message = "There are no candidates: the table of shifts is empty. Give it a row for each."
        raise ValueError(message)
    return table


def _targets(name: str, fit: FittedPosterior) -> list[str]:
    used = fit.environments["perturbation"].astype(str).to_numpy() == name
    if used.any():
        return fit.targets[int(np.argmax(used))]
    inside, outside = parse_label(
        name,
        set(fit.genes),
        separator=str(fit.params["separator"]),
        control=str(fit.params["control"]),
    )
    if outside or not inside:
        message = unknown_genes(name, outside or [name], fit.genes)
        raise ValueError(message)
    return inside


def _as_fitted(names: list[str], targets: list[list[str]], fit: FittedPosterior) -> Interventions:
    row = {str(name): i for i, name in enumerate(fit.environments["perturbation"])}
    kind = str(fit.params["shift"])
    unseen = [i for i, name in enumerate(names) if name not in row]
    shifts, sources = np.zeros((len(names), len(fit.genes))), [""] * len(names)
    for i, name in enumerate(names):
        if name in row:
            shifts[i] = fit.shifts[row[name]]
            sources[i] = str(fit.environments["shift_source"].iloc[row[name]])
    if unseen:
        # A table says nothing of labels it has no row for.
        if kind == "table":
            message = (
                f"No shift is known for the candidates {list_names(names[i] for i in unseen)}: "
                f"they are modelled as knockouts (minus the control mean of every target)."
            )
            warnings.warn(message, UserWarning, stacklevel=4)
        new = _modelled(
            [names[i] for i in unseen], [targets[i] for i in unseen],
            "knockout" if kind == "table" else kind, fit,
        )  # fmt: skip
        shifts[unseen] = new.shifts
        for i, source in zip(unseen, new.sources, strict=True):
            sources[i] = source
    return Interventions(names, targets, shifts, sources)


def _modelled(
    names: list[str], targets: list[list[str]], kind: str, fit: FittedPosterior
) -> Interventions:
    full = [_shifts.in_full(genes, fit.genes, kind, fit.control_mean) for genes in targets]
    return Interventions(names, targets, np.array(full), [kind] * len(names))
