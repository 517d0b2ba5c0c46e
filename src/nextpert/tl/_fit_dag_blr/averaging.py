"""Graph and experts, each with and without: how much of measured effects they earn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.posterior import (
    EXPERTS,
    GRAPH,
    GRAPH_AND_EXPERTS,
    NEITHER,
    AveragingRecord,
)
from nextpert.core import Dag
from nextpert.core.effects.averaged import Averaged, Model, learn_average
from nextpert.core.effects.random_shifts import fit_random_shifts, learn_mixtures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nextpert.core import DagBlr
    from nextpert.core.effects.random_shifts import RandomShifts
    from nextpert.core.effects.shift_prior import ShiftPrior
    from nextpert.tl._fit_dag_blr.cells import FitCells
    from nextpert.tl._fit_dag_blr.expected import Expected
    from nextpert.tl._fit_dag_blr.spec import Spec


def averaged(
    spec: Spec,
    cells: FitCells,
    expected: Expected,
    found: RandomShifts,
    prior: ShiftPrior,
    posteriors: Sequence[DagBlr],
) -> tuple[list[str], Averaged]:
    """Return the models of measured effects by name, weighted by how well they do.

    Without a graph nothing follows from the change of own genes; without experts that is all that
    is expected.
    """
    by_name = _models(spec, cells, expected, found, prior, posteriors)
    pooled = cells.pooled
    freedom = max(int(pooled.n_cells.sum()) - len(pooled.n), 1)
    models = list(by_name.values())
    weights = learn_average(models, pooled.scatter / freedom).tolist()
    weighted = (replace(m, weight=w) for m, w in zip(models, weights, strict=True))
    return list(by_name), Averaged(tuple(weighted))


def _models(
    spec: Spec,
    cells: FitCells,
    expected: Expected,
    found: RandomShifts,
    prior: ShiftPrior,
    posteriors: Sequence[DagBlr],
) -> dict[str, Model]:
    """Return the models by name; ``posteriors`` are those on the graph, or on its resamples."""
    asked = prior is not found.prior
    on_graph = Model(posteriors, prior)
    if not on_graph.has_arcs:
        both = {EXPERTS: on_graph, NEITHER: Model(posteriors, found.prior)}
        return both if asked else {NEITHER: on_graph}
    alone = fit_random_shifts(
        spec.posterior(Dag.from_edges(len(spec.genes), [])), cells.pooled,
        expected.used.shifts, own=expected.own,
    )  # fmt: skip
    without = Model([alone.posterior], alone.prior)
    if not asked:
        return {GRAPH: on_graph, NEITHER: without}
    told = learn_mixtures(alone.posterior, prior)
    return {
        GRAPH_AND_EXPERTS: on_graph,
        GRAPH: Model(posteriors, found.prior),
        EXPERTS: Model([alone.posterior], told),
        NEITHER: without,
    }


def averaging_record(names: list[str], found: Averaged) -> AveragingRecord:
    """Return the models as they are stored."""
    last = found.models[-1]
    return AveragingRecord(
        names,
        np.array([model.weight for model in found.models]),
        np.array([model.prior.weights for model in found.models]),
        last.prior.own,
        last.posteriors[0],
    )


def averaging_in_words(names: Sequence[str], found: Averaged) -> str:
    """Return what graph and experts count for in measured effects, for the log line."""
    by = {name: model.weight for name, model in zip(names, found.models, strict=True)}
    graph = sum(by.get(name, 0.0) for name in (GRAPH, GRAPH_AND_EXPERTS))
    experts = sum(by.get(name, 0.0) for name in (EXPERTS, GRAPH_AND_EXPERTS))
    return f"In measured effects the graph counts for {graph:.2f}, experts for {experts:.2f}."
