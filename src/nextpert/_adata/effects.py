"""Shifts and effects of interventions: modelled, measured, or expected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.panel import list_names, panel_index
from nextpert._adata.sources import real_values
from nextpert.core._checks import require_small
from nextpert.core._codec import array
from nextpert.core.causal.weights import downstream
from nextpert.core.model.effects import speaks_of_knockouts
from nextpert.core.model.interactions import Together
from nextpert.core.model.perturbations import Perturbations
from nextpert.core.model.predictors.base import Prediction, Sources, build_predictors
from nextpert.core.model.predictors.graph import Graph
from nextpert.core.model.predictors.members import Members
from nextpert.core.model.unseen_scale import WithoutCells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from nextpert.core import DagBlr, Moments, ScreenMoments
    from nextpert.core.model.predictors.base import SideInformation

    Array = NDArray[np.float64]
    Vector = NDArray[np.float64]

CLEAR_SIGN = 0.05  # local false sign rate below which the sign of an effect is said to be clear


KINDS = ("knockout", "activation")


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
        shown = []
        for row, targets in zip(self.shifts, self.targets, strict=True):
            values = [float(row[place[gene]]) for gene in targets]
            shown.append(
                ", ".join(f"{x:+.2f}" if abs(x) >= 0.1 or x == 0 else f"{x:+.2g}" for x in values)
            )
        return shown


def read_table(
    table: Any,
    genes: Sequence[str],
    spelled: Callable[[Iterable[str]], list[str]] = list,
    control: str | None = None,
) -> Interventions:
    """Return the interventions of a table: perturbations x genes, or a mapping of mappings.

    The targets are the genes with a shift other than zero. ``spelled`` returns names as the data
    has them, and ``control`` is the label of the controls.

    Raises
    ------
    ValueError
        If a gene is outside the panel, a perturbation comes twice or is that of the controls, or a
        shift is not finite or too large.
    """
    if isinstance(table, pd.DataFrame):
        names = spelled(str(name) for name in table.index)
        columns = panel_index(map(str, table.columns), genes, "The table of shifts")
        shifts = np.zeros((len(names), len(genes)))
        shifts[:, columns] = real_values(table, "The table of shifts")
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


@dataclass(frozen=True)
class InteractionsRecord:
    """What is stored of ``Interactions``: the effects of any combination (equation 12).

    Parameters
    ----------
    strength
        Mean factor of the sum of the members' effects; 1 if effects are additive.
    strength_sd
        Its standard deviation.
    strengths
        Grid of this factor.
    chances
        Posterior probability of each value of the grid.
    scale
        Size of the effects of single perturbations, in units of the data.
    member_sd
        Standard deviation of a member's departure in combinations, in units of ``scale``.
    rest_sd
        Standard deviation of what is specific to a combination, in units of ``scale``.
    n_combinations
        Number of combinations that these were learned from.
    """

    strength: float = array()
    strength_sd: float = array(least=0)
    strengths: Array = array("n_strengths")
    chances: Array = array("n_strengths", least=0)
    scale: Array = array("n_nodes", above=0)
    member_sd: float = array(above=0)
    rest_sd: float = array(above=0)
    n_combinations: int = array(whole=True, least=0)

    def __post_init__(self) -> None:
        if not np.isclose(self.chances.sum(), 1.0):
            message = "its chances do not sum to 1"
            raise ValueError(message)


@dataclass(frozen=True)
class Expectation:
    """Weights of predictors, and the screen that they predict from.

    Parameters
    ----------
    weights
        Weight of every predictor, by name.
    seen
        The perturbations of the fit, with the moments of their cells and the controls'.
    features
        Side information about perturbations; ``None`` where none was given.
    interactions
        What was learned of interactions; ``None`` where there were no combinations.
    scales
        What the variances of departures from what is expected are multiplied by, those of what is
        shared and of own parts, of perturbations without side information and of those with it,
        shape ``(2, 2)``; ``None`` for 1.
    """

    weights: Mapping[str, float]
    seen: Perturbations
    features: SideInformation | None
    interactions: InteractionsRecord | None
    scales: Array | None = None

    @property
    def screen(self) -> ScreenMoments:
        """Moments of the controls and the perturbations of the fit."""
        return self.seen.moments

    def predictions(
        self,
        names: Sequence[str],
        targets: Sequence[Sequence[int]],
        own: Array,
        *,
        weights: Array | None = None,
        together: Together | None = None,
    ) -> list[Prediction]:
        """Return what each predictor expects of perturbations without cells, before weights.

        Parameters
        ----------
        names, targets, own
            As in :meth:`without_cells`.
        weights
            Weights of the graph, ``(n_genes, n_genes)``; by default the graph is not asked.
        together
            What members do together, where there are combinations among the perturbations.
        """
        asked = Perturbations(self.screen, 0, np.full(len(names), -1), targets, own, names=names)
        sources = Sources(weights, features=self.features, together=together)
        out, names_asked = [], {*self.weights, Members.name}
        for each in build_predictors(sources):
            if each.name in names_asked and (weights is not None or each.name != Graph.name):
                out.append(each.predict(self.seen, asked))
        return out

    def without_cells(
        self,
        names: Sequence[str],
        targets: Sequence[Sequence[int]],
        own: Array,
        own_variance: Array,
        posteriors: Sequence[DagBlr],
    ) -> WithoutCells:
        """Return what weighted predictors expect of perturbations without cells.

        Parameters
        ----------
        names, targets
            Their labels, and the genes of the panel that they target.
        own, own_variance
            Expected change of own genes and its variance, 0 and nan elsewhere, shape
            ``(n_perturbations, n_genes)``.
        posteriors
            Those of the graphs, which count alike.
        """
        effect = own.copy()
        asked = Perturbations(self.screen, 0, np.full(len(names), -1), targets, own, names=names)
        for each in build_predictors(Sources(features=self.features)):
            weight = self.weights.get(each.name, 0.0)
            if weight and each.name != Graph.name:
                effect += weight * each.predict(self.seen, asked).effects
        if self.weights.get(Graph.name, 0.0):
            effect += self.weights[Graph.name] * downstream(posteriors, own)
        known = () if self.features is None else self.features.place
        described = np.array([name in known for name in names], np.int64)
        scales = np.ones((2, 2)) if self.scales is None else self.scales
        return WithoutCells(effect, own_variance, scales[described])
