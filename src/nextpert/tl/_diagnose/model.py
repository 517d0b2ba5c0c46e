"""The model of a fit, learned anew from some of its cells, and asked as users ask it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.effects import Interventions
from nextpert._adata.environments import Plan
from nextpert._adata.progress import without_bars
from nextpert._adata.stored import eager
from nextpert.core import Dag, DagBlr
from nextpert.core._checks import as_rng
from nextpert.core.model.effects import Effects
from nextpert.tl._fit_dag_blr.model import Graphs, Model, Spec, learn_effects
from nextpert.tl._learn_dag.graphs import fold_streams, graphs_without
from nextpert.tl._perturbation_effects.candidates import panel_effects, read_wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior, Roles
    from nextpert.tl._diagnose.halves import Folds
    from nextpert.tl._fit_dag_blr.cells import Cells, FitCells
    from nextpert.tl._learn_dag.graphs import HeldOut


def _quietly(spec: Spec, cells: FitCells, graphs: Graphs) -> Model:
    """Return a fit, one of many, whose progress the step that asks for it shows."""
    with without_bars():
        return Model.fit(spec, cells, graphs)


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
    sample
        Places of the perturbations that are judged: all, or of many a sample.
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
    sample: NDArray[np.int64]
    folds: list[list[str]]
    without: list[Dag]
    inner: list[list[Dag]]

    @property
    def names(self) -> list[str]:
        """Labels of the perturbations."""
        return self.spec.plan.names

    @property
    def is_sampled(self) -> NDArray[np.bool_]:
        """Whether each perturbation is judged, shape ``(n_perturbations,)``."""
        return np.isin(np.arange(len(self.names)), self.sample)

    def learned(self, cells: FitCells) -> Model:
        """Return the model of some cells of the perturbations that are judged."""
        return _quietly(
            self.spec.rows(self.sample.tolist()), cells.rows(np.append(0, 1 + self.sample)),
            Graphs(self.fit.posterior.dag, [], lambda _: self.without),
        )  # fmt: skip

    def less_graph(self, model: Model) -> Model:
        """Return a model of cells whose effects ask no graph.

        All else is as it was learned: what predictors weigh, and the efficacy. Where the graph has
        no weight, that is the model itself.
        """
        cells, expected, weighted = model.cells, model.expected, model.weighted
        if weighted is None or not weighted.graph.any():
            return model
        with without_bars():
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

        def without(folds: Sequence[Sequence[str]]) -> list[Dag]:
            return [*self.without, *[dag] * len(folds)][: len(folds)]

        return _quietly(replace(self.spec, plan=more), cells, Graphs(dag, [], without))

    def left_out(self, fold: int) -> Model:
        """Return what the fit would be if no cell of a fold of perturbations was there."""
        spec = self.spec.rows(self.sample.tolist()).without(self.folds[fold])
        guided = self.roles.guide_key is not None
        cells = self.cells.fit_cells(spec.plan.names, fold, guided=guided)
        graphs = Graphs(self.without[fold], [], lambda _: self.inner[fold])
        return _quietly(spec, cells, graphs)

    def as_stored(self, model: Model) -> FittedPosterior:
        """Return a model as it is read once it is stored."""
        params = self.fit.params | {"shift_sd": "learned"}
        record = model.record(params, left_out=pd.DataFrame())
        return replace(record, columns=self.fit.columns)

    def effects(self, model: Model) -> Effects:
        """Return the effects of the perturbations of a model, as users get them."""
        fit = self.as_stored(model)
        return panel_effects(fit, read_wanted(None, fit))

    def effects_of_sample(self, model: Model) -> Effects:
        """Return those of a model of the perturbations that are judged; NaN of all others."""
        found = vars(self.effects(model))
        if len(self.sample) == len(self.names):
            return Effects(**found)
        tables = {x: np.full((len(self.names), each.shape[1]), np.nan) for x, each in found.items()}
        for name, each in found.items():
            tables[name][self.sample] = each
        return Effects(**tables)

    def effects_of_all(self, cells: FitCells) -> Effects:
        """Return the effects of the fit, or with its shifts learned where they are exact."""
        if self.fit.is_exact:
            return self.effects_of_sample(self.learned(cells))
        return panel_effects(self.fit, read_wanted(None, self.fit))


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
    seed, streams = _seed(adata.uns.get(str(params["dag_key"]))), []
    for rest in folds.inner:
        streams += [as_rng(seed), *fold_streams(len(rest))]
    found = graphs_without(
        fit.posterior.dag, held_out, cells.searches, fit.genes, folds.sets, streams, n_jobs=n_jobs
    )
    each = iter(found)
    graphs = [(next(each), [next(each) for _ in rest]) for rest in folds.inner]
    without, both = (list(some) for some in zip(*graphs, strict=True))
    roles = _adata.fitted_roles(adata, params)
    return Refit(fit, roles, cells, spec, folds.sample, folds.outer, without, both)


def _seed(stored: Any) -> int:
    """Return the seed of a search as ``tl.learn_dag`` stored it; 0 where it was no number."""
    found: Any = eager(stored)
    params = found.get("params", {}) if hasattr(found, "get") else {}
    seed = str(params.get("rng", ""))
    return int(seed) if seed.isdigit() else 0
