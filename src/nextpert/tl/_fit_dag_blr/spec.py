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
    """

    genes: list[str]
    plan: Plan
    shift: Any
    exact: bool
    posterior: Callable[[Dag], DagBlr]
    naming: Naming
    other: Mapping[str, Array]

    def without(self, names: Collection[str]) -> Spec:
        """Return the same for a screen that lacks some perturbations."""
        kept = [
            (name, aims)
            for name, aims in zip(self.plan.names, self.plan.targets, strict=True)
            if name not in names
        ]
        plan = replace(self.plan, names=[n for n, _ in kept], targets=[t for _, t in kept])
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
