"""The model of a fit, learned anew from some of its cells, and asked as users ask it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.nested import undeclared_guides
from nextpert._adata.stored import eager
from nextpert.core import Dag
from nextpert.core._checks import as_rng
from nextpert.core.fit.learn import FEWEST, Graphs, Model, Spec, folds_of, learn_effects
from nextpert.core.model.effects import Effects
from nextpert.tl._cells import fit_environments
from nextpert.tl._diagnose.halves import read_halves
from nextpert.tl._fit_dag_blr import record_of, spec_of
from nextpert.tl._learn_dag.graphs import fold_streams, graphs_without, read_held_out
from nextpert.tl._perturbation_effects import panel_effects, read_wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata.nested import Nested
    from nextpert.core.fit.cells import FitCells
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.tl._cells import Cells
    from nextpert.tl._diagnose.halves import Halves


# Perturbations that are judged by fits to parts of the screen, at most. A fit's time grows with
# them: some twenty fits to 150 of 1,000 take as long as three to all.
MOST = 150


@dataclass(frozen=True)
class Refit:
    """What a fit was told, and the graphs that have not seen some of its perturbations."""

    fit: FittedPosterior  # the fit that is judged
    cells: Cells
    guided: bool  # whether guides are declared
    spec: Spec  # what it models; shifts are learned, also if the fit's are exact
    names: list[str]  # of the perturbations
    sample: NDArray[np.int64]  # places of those that are judged: all, or of many a sample
    is_sampled: NDArray[np.bool_]  # whether each is judged, shape (n_perturbations,)
    folds: list[list[str]]  # labels that are left out together
    without: list[Dag]  # the graph without each fold, single also where the fit has many
    inner: list[list[Dag]]  # those without a fold and, in turn, without each fold of the others

    def learned(self, cells: FitCells, others: Sequence[str] = ()) -> Model:
        """Return the model of the perturbations that are judged, and of others after these.

        The others target nothing. Perturbation ``j`` stays in the fold without which its graph was
        learned.
        """
        spec = self.spec.rows(self.sample.tolist())
        plan = replace(
            spec.plan, names=[*spec.plan.names, *others],
            targets=[*spec.plan.targets, *([] for _ in others)],
        )  # fmt: skip
        groups = [0, *(1 + self.sample), *(1 + len(self.names) + np.arange(len(others)))]
        dag = self.fit.posterior.dag
        graphs = Graphs(
            dag, [], lambda folds: [*self.without, *[dag] * len(folds)][: len(folds)]
        )  # fmt: skip
        return Model.fit(replace(spec, plan=plan), cells.rows(groups), graphs)

    def without_fold(self, fold: int) -> tuple[Spec, FitCells, Graphs]:
        """Return what :meth:`Model.fit` takes if no cell of a fold of perturbations is there."""
        names, gone = self.names, set(self.folds[fold])
        spec = self.spec.rows([j for j in self.sample.tolist() if names[j] not in gone])
        cells = self.cells.fit_cells(spec.plan.names, fold, guided=self.guided)
        return spec, cells, Graphs(self.without[fold], [], lambda _: self.inner[fold])

    def as_stored(self, model: Model) -> FittedPosterior:
        """Return a model as it is read once it is stored."""
        params = self.fit.params | {"shift_sd": "learned"}
        record = record_of(model, params, left_out=pd.DataFrame())
        return replace(record, columns=self.fit.columns)

    def effects(self, model: Model, *, by_graph: bool = True) -> Effects:
        """Return the effects of a model as users get them, ``(n_perturbations, n_genes)`` each.

        NaN of perturbations that are not judged; others of the model come after all of these.
        Without ``by_graph`` effects ask no graph, and all else, such as the weights of predictors,
        is as it was learned.
        """
        weighted = model.weighted
        if not by_graph and weighted is not None and weighted.graph.any():
            effects_alone = learn_effects(model.spec, model.cells, model.expected, weighted, [])
            model = model._replace(effects=effects_alone)
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
    adata: ad.AnnData, fit: FittedPosterior, key: str, rng: np.random.Generator, *, n_jobs: int = 1
) -> tuple[Refit, Halves, Nested | None]:
    """Return what is needed to learn the fit in ``uns[key]`` anew, and its cells in halves.

    And the column that looks like guides but is not declared. Cells are read and graphs are
    searched here.

    Raises
    ------
    ValueError
        If there are fewer than three perturbations, or genes are linearly dependent without some.
    """
    names, params, n = fit.names, fit.params, len(fit.names)
    if n < FEWEST:
        message = (
            f"The fit in adata.uns[{key!r}] has {n} perturbation{'s' * (n != 1)}, but at least "
            f"{FEWEST} are needed to predict one from the others: fit more of them."
        )
        raise ValueError(message)
    sample = np.arange(n) if n <= MOST else np.sort(rng.choice(n, MOST, replace=False))
    some = [names[j] for j in sample]
    folds = folds_of(some)
    # Of the fit without a fold, the folds that its graphs are learned without.
    inner = [folds_of([name for name in some if name not in fold]) for fold in folds]
    sets = [
        each
        for fold, others in zip(folds, inner, strict=True)
        for each in (fold, *(fold + more for more in others))
    ]
    roles, dag_key = _adata.fitted_roles(adata, params), str(params["dag_key"])
    held_out = read_held_out(adata, dag_key, roles, len(fit.genes), names)
    undeclared = undeclared_guides(adata, fit.columns, names, roles)
    halves, cells = read_halves(
        adata, fit.columns, names, roles, rng, judged=some,
        fits=fit_environments(adata, roles, some), without=folds, sets=sets,
        searches=None if held_out is None else held_out.environments,
        undeclared=None if undeclared is None else undeclared.column,
    )  # fmt: skip
    # The seed of the search, 0 where it was no number.
    stored: Any = eager(adata.uns.get(dag_key))
    options = stored.get("params", {}) if hasattr(stored, "get") else {}
    text = str(options.get("rng", ""))
    seed = int(text) if text.isdigit() else 0
    streams = [each for rest in inner for each in (as_rng(seed), *fold_streams(len(rest)))]
    graphs = iter(graphs_without(
        fit.posterior.dag, held_out, cells.searches, fit.genes, sets, streams, n_jobs=n_jobs
    ))  # fmt: skip
    pairs = [(next(graphs), [next(graphs) for _ in rest]) for rest in inner]
    without, both = (list(each) for each in zip(*pairs, strict=True))
    refit = Refit(
        fit, cells, roles.guide_key is not None, spec_of(fit), names, sample,
        np.isin(np.arange(n), sample), folds, without, both,
    )  # fmt: skip
    return refit, halves, undeclared
