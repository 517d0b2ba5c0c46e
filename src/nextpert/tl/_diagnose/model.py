"""The model of a fit, learned anew from some of its cells, and asked as users ask it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from nextpert import _adata
from nextpert._adata.environments import Plan
from nextpert._adata.shifts import Interventions
from nextpert._adata.stored import eager
from nextpert.core import Dag, DagBlr
from nextpert.core._checks import as_rng
from nextpert.tl._fit_dag_blr.cells import read_fit_cells
from nextpert.tl._fit_dag_blr.model import Model
from nextpert.tl._fit_dag_blr.spec import Graphs, Spec
from nextpert.tl._fit_dag_blr.stack import FEWEST, folds
from nextpert.tl._learn_dag.held_out import fold_streams, graphs_without
from nextpert.tl._perturbation_effects.candidates import panel_effects, read_wanted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import anndata as ad

    from nextpert._adata import FittedPosterior, Roles
    from nextpert.core.effects.effects import Effects
    from nextpert.tl._fit_dag_blr.cells import FitCells


@dataclass(frozen=True)
class Refit:
    """What a fit was told, and the graphs that have not seen some of its perturbations.

    Parameters
    ----------
    fit, roles
        The fit that is judged.
    stack
        Weights of its predictors, and the variance that they leave; ``None`` where it has learned
        none.
    spec
        How much it models, before any cells. Shifts are learned, also if the fit's are exact.
    folds
        Labels of the perturbations that are left out together.
    without
        The graphs without each of these folds, single ones also where the fit has many.
    inner
        Those without a fold and, in turn, without each fold of the others.
    """

    fit: FittedPosterior
    roles: Roles
    stack: tuple[Mapping[str, float], float] | None
    spec: Spec
    folds: list[list[str]]
    without: list[Dag]
    inner: list[list[Dag]]

    @property
    def names(self) -> list[str]:
        """Labels of the perturbations."""
        return self.spec.plan.names

    def learned(self, cells: FitCells, *, empty: bool = False) -> Model:
        """Return the model of some cells of all perturbations; with ``empty`` without arcs."""
        if empty:
            return Model.fit(
                self.spec, cells, Graphs.single(Dag.from_edges(len(self.fit.genes), []))
            )
        return Model.fit(
            self.spec, cells, Graphs(self.fit.posterior.dag, [], lambda _: self.without)
        )

    def left_out(self, adata: ad.AnnData, fold: int) -> Model:
        """Return what the fit would be if no cell of a fold of perturbations was there."""
        spec = self.spec.without(self.folds[fold])
        labels = _adata.read_every_label(adata, self.roles)
        cells = read_fit_cells(
            adata, self.fit.columns, labels, spec.plan.names, self.roles, exact=False,
            without=self.folds[fold],
        )  # fmt: skip
        graphs = Graphs(self.without[fold], [], lambda _: self.inner[fold])
        return Model.fit(spec, cells, graphs)

    def as_stored(self, model: Model) -> FittedPosterior:
        """Return a model as it is read once it is stored."""
        params = self.fit.params | {"shift_sd": "learned"}
        record = model.record(params, left_out=pd.DataFrame())
        return replace(record, columns=self.fit.columns)

    def effects(self, model: Model) -> Effects:
        """Return the effects of the perturbations of a model, as users are told them."""
        fit = self.as_stored(model)
        return panel_effects(fit, read_wanted(None, fit))


def read_refit(
    adata: ad.AnnData, fit: FittedPosterior, key: str, roles: Roles, *, n_jobs: int
) -> Refit:
    """Return what is needed to learn the fit in ``adata.uns[key]`` anew; graphs are searched here.

    Raises
    ------
    ValueError
        If it has fewer than three perturbations, or genes are linearly dependent without some.
    """
    names = [str(name) for name in fit.environments["perturbation"]]
    if len(names) < FEWEST:
        message = (
            f"The fit in adata.uns[{key!r}] has {len(names)} perturbations, but at least {FEWEST} "
            f"are needed to predict one from the others."
        )
        raise ValueError(message)
    params = fit.params
    posterior = partial(
        DagBlr,
        noise_var=fit.posterior.known_noise_var,
        intercept=bool(params["intercept"]),
        prior_scale=params["prior_scale"],
        prior_units=str(params["prior_units"]),
    )
    other = {} if fit.expectation is None else fit.expectation.other
    shift = str(params["shift"])
    table = None
    if shift == "table":
        table = Interventions(names, fit.targets, fit.shifts, ["table"] * len(names))
    plan = Plan(names, fit.targets, [], table)
    spec = Spec(fit.genes, plan, None if table else shift, False, posterior, fit.naming, other)
    outer = [[names[j] for j in fold] for fold in folds(len(names))]
    inner = [_folds_of([name for name in names if name not in fold]) for fold in outer]
    dag_key = str(params["dag_key"])
    sets, streams = [], []
    for fold, rest in zip(outer, inner, strict=True):
        sets += [fold, *(fold + some for some in rest)]
        streams += [as_rng(_seed(adata.uns.get(dag_key))), *fold_streams(len(rest))]
    found = graphs_without(
        adata,
        fit.columns,
        fit.genes,
        fit.posterior.dag,
        dag_key,
        roles,
        sets,
        streams,
        n_jobs=n_jobs,
    )
    each = iter(found)
    graphs = [(next(each), [next(each) for _ in rest]) for rest in inner]
    stack = None
    if fit.expectation is not None:
        stack = fit.expectation.weights, float(adata.uns[key]["stack"]["residual_variance"])
    without, both = (list(some) for some in zip(*graphs, strict=True))
    return Refit(fit, roles, stack, spec, outer, without, both)


def _folds_of(names: Sequence[str]) -> list[list[str]]:
    """Return the folds that a fit to some perturbations leaves out of its graphs."""
    if len(names) < FEWEST:
        return []
    return [[names[j] for j in fold] for fold in folds(len(names))]


def _seed(stored: Any) -> int:
    """Return the seed of a search as ``tl.learn_dag`` stored it; 0 where it was no number."""
    found: Any = eager(stored)
    params = found.get("params", {}) if hasattr(found, "get") else {}
    seed = str(params.get("rng", ""))
    return int(seed) if seed.isdigit() else 0
