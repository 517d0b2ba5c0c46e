"""What a model is told before it sees cells: how much is modelled, and the graphs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from nextpert._adata.environments import Plan
    from nextpert._adata.members import Naming
    from nextpert.core import Dag, DagBlr

    Array = NDArray[np.float64]


# How much is modelled: all of it; random shifts on the graph, without predictors and averaging;
# shifts taken as exact, as in Zhang et al. 2023.
FULL, SHIFTS, EXACT = SPECS = ("full", "shifts", "exact")


@dataclass(frozen=True)
class Spec:
    """How much of a screen is modelled, and what is known of it before its cells.

    Parameters
    ----------
    genes
        The panel.
    plan
        The perturbations, and the genes of the panel that each targets.
    shift
        What shift is expected, as in ``tl.fit_dag_blr``; a table is read from the plan.
    exact
        Whether shifts are taken as they are (the paper's model): then there are no predictors, no
        average and no efficacy.
    posterior
        Returns the posterior on a graph before any cells.
    naming
        Which members a label names.
    other
        Effects in another screen, by perturbation, each of shape ``(n_genes,)``.
    full
        Whether predictors and the average over models are learned too, where shifts are; else
        shifts are what their target genes and cells say, on the graph.
    """

    genes: list[str]
    plan: Plan
    shift: Any
    exact: bool
    posterior: Callable[[Dag], DagBlr]
    naming: Naming
    other: Mapping[str, Array]
    full: bool = True

    @property
    def name(self) -> str:
        """One of :data:`SPECS`."""
        return EXACT if self.exact else FULL if self.full else SHIFTS

    def named(self, name: str) -> Spec:
        """Return the same with as much modelled as a name of :data:`SPECS` says."""
        return replace(self, exact=name == EXACT, full=name == FULL)

    def without(self, names: Collection[str]) -> Spec:
        """Return the same for a screen that lacks some perturbations."""
        return self.rows([j for j, name in enumerate(self.plan.names) if name not in names])

    def rows(self, index: Sequence[int]) -> Spec:
        """Return the same for some of the perturbations, in the order given."""
        names, targets = self.plan.names, self.plan.targets
        plan = replace(
            self.plan, names=[names[j] for j in index], targets=[targets[j] for j in index]
        )
        return replace(self, plan=plan)


@dataclass(frozen=True)
class Graphs:
    """The graphs that a model is fitted on.

    Parameters
    ----------
    dag
        The graph of all cells.
    resampled
        Those of resamples; none where there is one graph.
    without
        Returns a graph for every fold of labels that has not seen the cells of the fold.
    """

    dag: Dag
    resampled: Sequence[Dag]
    without: Callable[[Sequence[Sequence[str]]], Sequence[Dag]]

    @classmethod
    def single(cls, dag: Dag) -> Graphs:
        """Return one graph that is known, whatever cells say."""
        return cls(dag, [], lambda folds: [dag] * len(folds))
