"""What a fit learned to expect of perturbations without cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.effects import read_stored_effects, read_stored_screen
from nextpert.core.effects.experts import (
    MEAN,
    Expert,
    Perturbations,
    coexpression_expert,
    mean_expert,
)
from nextpert.core.effects.shift_prior import TAU2, ShiftPrior
from nextpert.core.effects.stacked import GRAPH, OTHER_SCREEN, TOGETHER, by_name, with_expectation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from nextpert.core import ScreenMoments

    Array = NDArray[np.float64]

_TABLES = ("strengths", "chances", "scale", "member_sd", "rest_sd")


@dataclass(frozen=True)
class Expectation:
    """Weights of experts, and the screen they speak from.

    Parameters
    ----------
    weights
        Weight of every expert, by name.
    seen
        The perturbations of the fit, with the moments of their cells and the controls'.
    other
        Effects in another screen, by perturbation.
    unseen
        Weights of the prior variances of a perturbation without cells, shape
        ``(n_components,)``.
    interactions
        What was learned of interactions, as stored; empty where there were no combinations.
    """

    weights: Mapping[str, float]
    seen: Perturbations
    other: Mapping[str, Array]
    unseen: Array
    interactions: Mapping[str, Any]

    @property
    def screen(self) -> ScreenMoments:
        """Moments of the controls and the perturbations of the fit."""
        return self.seen.moments

    def experts(
        self, names: Sequence[str], targets: Sequence[Sequence[int]], own: Array
    ) -> list[Expert]:
        """Return what each expert expects of perturbations without cells, before weights.

        The parameters are those of :meth:`prior`.
        """
        asked = Perturbations(self.screen, 0, np.full(len(names), -1), targets, own)
        nothing = np.zeros_like(own)
        makers = {
            GRAPH: lambda: Expert(GRAPH, nothing),  # a shift on the graph, not an effect
            "coexpression": lambda: coexpression_expert(asked, self.seen),
            MEAN: lambda: mean_expert(asked, self.seen),
            TOGETHER: lambda: Expert(TOGETHER, nothing),  # of combinations, apart from these
            OTHER_SCREEN: lambda: by_name(asked, names, self.other, OTHER_SCREEN),
        }
        return [makers[name]() for name in self.weights]

    def prior(
        self,
        names: Sequence[str],
        targets: Sequence[Sequence[int]],
        own: Array,
        own_variance: Array,
    ) -> ShiftPrior:
        """Return the prior of perturbations without cells.

        Parameters
        ----------
        names, targets
            Their labels, and the genes of the panel that they target.
        own, own_variance
            Expected change of own genes and its variance, 0 and nan elsewhere, shape
            ``(n_perturbations, n_genes)``.
        """
        nothing = np.zeros_like(own)
        experts = self.experts(names, targets, own)
        rows = np.tile(list(self.weights.values()), (len(names), 1))
        empty = ShiftPrior(
            np.zeros(len(names)), nothing, nothing + 1, nothing, nothing, own_variance,
            np.tile(self.unseen, (len(names), 1)),
        )  # fmt: skip
        return with_expectation(empty, own, experts, rows)


def read_expectation(
    stored: Mapping[str, Any], targets: Sequence[Sequence[str]], genes: Sequence[str], where: str
) -> Expectation | None:
    """Return what a fit with these targets stored of it; ``None`` where it learned nothing.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    if "stack" not in stored:
        return None
    n_genes, place = len(genes), {gene: i for i, gene in enumerate(genes)}
    names = [str(name) for name in np.atleast_1d(stored["stack"].get("experts"))]
    weights = np.asarray(stored["stack"].get("weights"), np.float64)
    screen = read_stored_screen(
        stored.get("screen"), 1 + len(stored["environments"]), n_genes, f"{where}['screen']"
    )
    other = read_stored_effects(stored.get("prior_effects"), n_genes, f"{where}['prior_effects']")
    known = {GRAPH, "coexpression", MEAN, TOGETHER, OTHER_SCREEN}
    unseen = np.asarray(stored["stack"].get("unseen"), np.float64)
    sound = weights.shape == (len(names),) and unseen.shape == TAU2.shape and set(names) <= known
    if (
        not sound
        or screen is None
        or not all(((w >= 0) & np.isfinite(w)).all() for w in (weights, unseen))
    ):
        message = f"{where}['stack'] is damaged: run tl.fit_dag_blr again."
        raise ValueError(message)
    by = dict(zip(names, weights.tolist(), strict=True))
    own = [[place[gene] for gene in some] for some in targets]
    seen = Perturbations(screen, 0, np.arange(1, 1 + len(own)), own)
    return Expectation(by, seen, other, unseen, _interactions(stored["stack"], n_genes, where))


def _interactions(stack: Mapping[str, Any], n_genes: int, where: str) -> dict[str, Any]:
    """Return strengths, their weights, standard deviations and scale; nothing if not stored."""
    if "interactions" not in stack:
        return {}
    stored = stack["interactions"]
    tables = {name: np.asarray(stored.get(name), np.float64) for name in _TABLES}
    positive = [tables[name] for name in ("scale", "member_sd", "rest_sd")]
    if (
        tables["scale"].shape != (n_genes,)
        or tables["strengths"].shape != tables["chances"].shape
        or not all(np.isfinite(table).all() for table in tables.values())
        or not all((table > 0).all() for table in positive)
        or not np.isclose(tables["chances"].sum(), 1.0)
    ):
        message = f"{where}['stack']['interactions'] is damaged: run tl.fit_dag_blr again."
        raise ValueError(message)
    return {name: float(t) if t.ndim == 0 else t for name, t in tables.items()}
