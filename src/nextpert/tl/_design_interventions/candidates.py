"""The candidates of a design: interventions that a lab could do next, with their shifts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import in_order, list_names, parse_label
from nextpert._adata import shifts as _shifts
from nextpert._adata.environments import unknown_genes
from nextpert._adata.shifts import Interventions
from nextpert._warn import warn
from nextpert.core.effects.averaged import Averaged
from nextpert.core.effects.shift_prior import UNSEEN_WEIGHTS, ShiftPrior
from nextpert.tl._design_interventions.combined import (
    members_by_label,
    members_seen,
    told_in_company,
    with_combinations,
)
from nextpert.tl._design_interventions.excluded import without_own

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior
    from nextpert.tl._design_interventions.target import Wanted

    Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Candidates:
    """Interventions to choose from, and what is expected and known of the shift of each."""

    interventions: Interventions
    prior: ShiftPrior | Averaged

    @property
    def on_graph(self) -> ShiftPrior:
        """The prior of the shifts on the graph."""
        return self.prior if isinstance(self.prior, ShiftPrior) else self.prior.main

    @classmethod
    def exact(cls, interventions: Interventions) -> Candidates:
        """Return candidates whose shifts are taken as they are."""
        return cls(interventions, ShiftPrior.exact(interventions.shifts))

    def rows(self, index: Sequence[int]) -> Candidates:
        """Return some of the candidates, in the order given."""
        return Candidates(self.interventions.rows(index), self.prior.rows(index))


def read_candidates(
    candidates: Any,
    shift: Any,
    fit: FittedPosterior,
    target: Wanted | None = None,
    *,
    target_is_candidate: bool = False,
) -> Candidates:
    """Return the candidates with the shift of each.

    A target that is the state of a perturbation's own cells excludes that perturbation, as it would
    be the answer to every such question; ``target_is_candidate`` keeps it.

    Raises
    ------
    ValueError
        If there are none, or one names a gene outside the panel (close matches are given).
    """
    own = None if target_is_candidate or target is None else target.label
    if isinstance(candidates, (pd.DataFrame, Mapping)):
        table = _require_some(_shifts.read_table(candidates, fit.genes, fit.spelled))
        kept = without_own(own, table.names, fit, note=True)
        return Candidates.exact(table.rows([table.names.index(name) for name in kept]))
    named = candidates is not None and not isinstance(candidates, str)
    names = without_own(own, _names(candidates, fit), fit, note=named)
    seen, company = members_seen(fit), told_in_company(fit)
    targets = [_targets(name, fit, seen, company) for name in names]
    if shift is None:
        return fitted_candidates(as_fitted(names, targets, fit), fit)
    if isinstance(shift, str):
        return Candidates.exact(_modelled(names, targets, shift, fit))
    table = _shifts.read_table(shift, fit.genes, partial(fit.naming.spelled, known=names))
    missing = [name for name in names if name not in table.names]
    if missing:
        message = f"The table of shifts has no row for the candidates {list_names(missing)}."
        raise ValueError(message)
    rows = [table.names.index(name) for name in names]
    chosen = [table.targets[row] for row in rows]
    given = Interventions(names, chosen, table.shifts[rows], ["table"] * len(names))
    return Candidates.exact(given)


def fitted_candidates(found: Interventions, fit: FittedPosterior) -> Candidates:
    """Return candidates, with cells or without, by what the fit knows and expects of them."""
    if fit.params["shift_sd"] != "learned":
        return Candidates.exact(found)
    return Candidates(found, _learned(found, fit))


def can_be_candidate(name: str, fit: FittedPosterior) -> bool:
    """Whether a label can be among the candidates, by its own cells, its genes or its members."""
    (name,) = fit.spelled([name])
    try:
        _targets(name, fit, members_seen(fit), told_in_company(fit))
    except ValueError:
        return False
    return True


def _learned(found: Interventions, fit: FittedPosterior) -> Averaged:
    """Return the prior of candidates; combinations without cells do what members do together."""
    return with_combinations(
        _expected(found, fit), found.names, fit, partial(expected_members, fit=fit)
    )


def expected_members(members: list[str], fit: FittedPosterior) -> Averaged:
    """Return the prior of members without cells of their own."""
    inside = [[name] if name in fit.genes else [] for name in members]
    return _expected(as_fitted(members, inside, fit), fit)


def _expected(found: Interventions, fit: FittedPosterior) -> Averaged:
    """Return the prior of candidates: as fitted where cells were seen, by experts elsewhere."""
    row = {str(name): i for i, name in enumerate(fit.environments["perturbation"])}
    new = [i for i, name in enumerate(found.names) if name not in row]
    names = [found.names[i] for i in new]
    place = {gene: i for i, gene in enumerate(fit.genes)}
    own = found.shifts[new]
    variance = np.full(own.shape, np.nan)
    if fit.efficacy is not None:
        # Shifts without cells are full times the mean efficacy: its spread is in proportion.
        mean, sd = fit.efficacy.mean, fit.efficacy.sd
        spread = sd / max(abs(mean), 1e-12) * np.abs(own)
        variance = np.where(spread > 0, spread**2, np.nan)
    targets = [[place[gene] for gene in found.targets[i]] for i in new]
    if fit.expectation is None:
        weights = fit.prior.weights.mean(axis=0) if row else UNSEEN_WEIGHTS
        nothing = np.zeros_like(own)
        unseen = ShiftPrior(
            np.zeros(len(new)), nothing, nothing + 1, own, nothing, variance,
            np.tile(weights, (len(new), 1)),
        )  # fmt: skip
    else:
        unseen = fit.expectation.prior(names, targets, own, variance)
    both = fit.averaged.joined(unseen)
    after = {name: len(row) + k for k, name in enumerate(names)}
    return both.rows([row[name] if name in row else after[name] for name in found.names])


def _names(candidates: Any, fit: FittedPosterior) -> list[str]:
    used = [str(name) for name in fit.environments["perturbation"]]
    if candidates is None:
        names = used
    elif isinstance(candidates, str):
        names = list(dict.fromkeys(fit.spelled([*used, *fit.genes])))
    else:
        asked = [str(name) for name in in_order(candidates)]
        control = str(fit.params["control"])
        if control in asked:
            message = (
                f"candidates holds {control!r}, the controls: doing nothing is what all are "
                f"compared with, and no candidate. Leave it out."
            )
            raise ValueError(message)
        names = list(dict.fromkeys(fit.spelled(asked)))
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


def _targets(
    name: str, fit: FittedPosterior, seen: set[str], company: set[tuple[str, ...]]
) -> list[str]:
    used = fit.environments["perturbation"].astype(str).to_numpy() == name
    if used.any():
        return fit.targets[int(np.argmax(used))]
    inside, outside = parse_label(
        name,
        set(fit.genes),
        separator=str(fit.params["separator"]),
        control=str(fit.params["control"]),
    )
    members = members_by_label(name, fit)
    known_elsewhere = fit.expectation is not None and name in fit.expectation.other
    told = len(members) > 1 and set(members) - set(fit.genes) <= seen
    if known_elsewhere or told or members in company:
        return inside
    if outside or not inside:
        message = unknown_genes(name, outside or [name], fit.genes)
        raise ValueError(message)
    return inside


def as_fitted(names: list[str], targets: list[list[str]], fit: FittedPosterior) -> Interventions:
    """Return shifts as the fit has them, of candidates without cells in full times its efficacy.

    ``targets`` are the genes of the panel that each targets; none where none is measured.
    """
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
            warn(message)
        new = _modelled(
            [names[i] for i in unseen], [targets[i] for i in unseen],
            "knockout" if kind == "table" else kind, fit,
        )  # fmt: skip
        efficacy = 1.0 if fit.efficacy is None else fit.efficacy.mean
        shifts[unseen] = efficacy * new.shifts
        for i, source in zip(unseen, new.sources, strict=True):
            sources[i] = source
    return Interventions(names, targets, shifts, sources)


def _modelled(
    names: list[str], targets: list[list[str]], kind: str, fit: FittedPosterior
) -> Interventions:
    full = [_shifts.in_full(genes, fit.genes, kind, fit.control_mean) for genes in targets]
    return Interventions(names, targets, np.array(full), [kind] * len(names))
