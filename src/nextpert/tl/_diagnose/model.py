"""The model of a fit, learned anew from some of its cells, and asked as users ask it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.stored import eager
from nextpert.core import Dag, DagBlr
from nextpert.core._checks import as_rng
from nextpert.core.fit.interventions import Interventions, Plan
from nextpert.core.fit.learn import Graphs, Model, Spec, learn_effects
from nextpert.core.model.effects import Effects
from nextpert.tl._fit_dag_blr.record import record_of
from nextpert.tl._learn_dag.graphs import fold_streams, graphs_without
from nextpert.tl._perturbation_effects.candidates import panel_effects, read_wanted

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert.core.fit.cells import FitCells
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._diagnose.halves import Folds
    from nextpert.tl._fit_dag_blr.cells import Cells
    from nextpert.tl._learn_dag.graphs import HeldOut


@dataclass(frozen=True)
class Refit:
    """What a fit was told, and the graphs that have not seen some of its perturbations.

    Parameters
    ----------
    fit, roles
        The fit that is judged.
    cells
        Its cells.
    spec
        How much it models, before any cells. Shifts are learned, also if the fit's are exact.
    names
        Labels of the perturbations.
    sample, is_sampled
        Places of the perturbations that are judged: all, or of many a sample; and whether each is,
        shape ``(n_perturbations,)``.
    folds
        Labels of those that are left out together.
    without
        The graphs without each of these folds, single ones also where the fit has many.
    inner
        Those without a fold and, in turn, without each fold of the others.
    """

    fit: FittedPosterior
    roles: Roles
    cells: Cells
    spec: Spec
    names: list[str]
    sample: NDArray[np.int64]
    is_sampled: NDArray[np.bool_]
    folds: list[list[str]]
    without: list[Dag]
    inner: list[list[Dag]]

    def learned(self, cells: FitCells) -> Model:
        """Return the model of some cells of the perturbations that are judged."""
        graphs = Graphs(self.fit.posterior.dag, [], lambda _: self.without)
        spec, cells = (
            self.spec.rows(self.sample.tolist()),
            cells.rows(np.append(0, 1 + self.sample)),
        )
        return Model.fit(spec, cells, graphs)

    def less_graph(self, model: Model) -> Model:
        """Return a model of cells whose effects ask no graph.

        All else is as it was learned: what predictors weigh, and the efficacy. Where the graph has
        no weight, that is the model itself.
        """
        cells, expected, weighted = model.cells, model.expected, model.weighted
        if weighted is None or not weighted.graph.any():
            return model
        effects = learn_effects(model.spec, cells, expected, weighted, [])
        return model._replace(effects=effects)

    def with_others(self, cells: FitCells, others: list[str]) -> Model:
        """Return the model of those that are judged and of others, which target nothing, after.

        Perturbation ``j`` stays in the fold without which its graph was learned.
        """
        plan = self.spec.plan.rows(self.sample.tolist())
        n, groups = len(self.names), np.append(0, 1 + self.sample)
        cells = cells.rows(np.append(groups, np.arange(1 + n, 1 + n + len(others))))
        more = replace(
            plan, names=[*plan.names, *others], targets=[*plan.targets, *([] for _ in others)]
        )
        dag = self.fit.posterior.dag
        graphs = Graphs(
            dag, [], lambda folds: [*self.without, *[dag] * len(folds)][: len(folds)]
        )  # fmt: skip
        return Model.fit(replace(self.spec, plan=more), cells, graphs)

    def without_fold(self, fold: int) -> tuple[Spec, FitCells, Graphs]:
        """Return what :meth:`Model.fit` takes if no cell of a fold of perturbations is there."""
        spec = self.spec.rows(self.sample.tolist()).without(self.folds[fold])
        guided = self.roles.guide_key is not None
        cells = self.cells.fit_cells(spec.plan.names, fold, guided=guided)
        return spec, cells, Graphs(self.without[fold], [], lambda _: self.inner[fold])

    def as_stored(self, model: Model) -> FittedPosterior:
        """Return a model as it is read once it is stored."""
        params = self.fit.params | {"shift_sd": "learned"}
        record = record_of(model, params, left_out=pd.DataFrame())
        return replace(record, columns=self.fit.columns)

    def effects(self, model: Model) -> Effects:
        """Return the effects of a model as users get them, ``(n_perturbations, n_genes)`` each.

        NaN of perturbations that are not judged; others of the model come after all of these.
        """
        fit = self.as_stored(model)
        effects = panel_effects(fit, read_wanted(None, fit))
        n, n_judged = len(self.names), len(self.sample)
        if n_judged == n:
            return effects
        place = np.append(self.sample, np.arange(n, n + len(effects.mean) - n_judged))
        shape = n + len(effects.mean) - n_judged, len(fit.genes)
        tables = {name: np.full(shape, np.nan) for name in vars(effects)}
        for name, each in vars(effects).items():
            tables[name][place] = each
        return Effects(**tables)


def read_refit(
    adata: ad.AnnData,
    fit: FittedPosterior,
    folds: Folds,
    cells: Cells,
    held_out: HeldOut | None,
    *,
    n_jobs: int,
) -> Refit:
    """Return what is needed to learn a fit anew; graphs are searched here.

    ``cells`` and ``held_out`` are those of the fit and of the searches, with all sets of
    ``folds``.

    Raises
    ------
    ValueError
        If genes are linearly dependent without some perturbations.
    """
    names, params = folds.names, fit.params
    posterior = partial(DagBlr, **fit.posterior.options)
    features = None if fit.expectation is None else fit.expectation.features
    shift: str | Interventions = str(params["shift"])
    if shift == "table":
        shift = Interventions(names, fit.targets, fit.shifts, ["table"] * len(names))
    plan = Plan(names, fit.targets, [], shift)
    spec = Spec(fit.genes, plan, posterior, fit.naming, features)
    # The seed of the search, 0 where it was no number.
    stored: Any = eager(adata.uns.get(str(params["dag_key"])))
    options = stored.get("params", {}) if hasattr(stored, "get") else {}
    text, streams = str(options.get("rng", "")), []
    seed = int(text) if text.isdigit() else 0
    for rest in folds.inner:
        streams += [as_rng(seed), *fold_streams(len(rest))]
    graphs = graphs_without(
        fit.posterior.dag, held_out, cells.searches, fit.genes, folds.sets, streams, n_jobs=n_jobs
    )
    each = iter(graphs)
    pairs = [(next(each), [next(each) for _ in rest]) for rest in folds.inner]
    without, both = (list(some) for some in zip(*pairs, strict=True))
    roles = _adata.fitted_roles(adata, params)
    judged = np.isin(np.arange(len(names)), folds.sample)
    return Refit(
        fit, roles, cells, spec, names, folds.sample, judged, folds.outer, without, both
    )  # fmt: skip
