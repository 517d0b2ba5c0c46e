"""The model of a fit, learned anew from some of its cells."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from nextpert import _adata
from nextpert._adata.environments import Plan
from nextpert._adata.shifts import Interventions
from nextpert.core import Dag, DagBlr
from nextpert.core.effects.effects import Effects, perturbation_effects
from nextpert.core.effects.random_shifts import RandomShifts, fit_random_shifts, learn_mixtures
from nextpert.tl._fit_dag_blr.averaging import averaged
from nextpert.tl._fit_dag_blr.expected import Expected, expected_shifts
from nextpert.tl._fit_dag_blr.stack import FEWEST, Problem, expected_by

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior, Roles
    from nextpert.tl._fit_dag_blr.cells import FitCells

    Array = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """What a fit was told: graph, priors, perturbations and the shifts expected of them."""

    problem: Problem
    plan: Plan
    shift: str | None  # None for a table, which is in the plan

    @property
    def names(self) -> list[str]:
        """Labels of the perturbations."""
        return self.plan.names

    def start(self, cells: FitCells, *, empty: bool = False) -> tuple[Expected, RandomShifts]:
        """Return the expected shifts, and the fit to some cells before experts are asked."""
        p = self.problem
        expected = expected_shifts(self.plan, self.shift, p.genes, cells)
        dag = Dag.from_edges(p.dag.n_nodes, []) if empty else p.dag
        try:
            found = fit_random_shifts(
                p.posterior(dag), cells.pooled, expected.used.shifts, own=expected.own
            )
        except ValueError as error:
            raise _adata.named(error, np.array(p.genes), np.arange(len(p.genes))) from error
        return expected, found

    def effects(self, cells: FitCells, weights: Array, *, empty: bool = False) -> Effects:
        """Return effects that some cells show, drawn to what experts expect at given weights.

        With ``empty`` on a graph without arcs.
        """
        expected, found = self.start(cells, empty=empty)
        prior = expected_by(self.problem, cells, expected, found, weights)
        prior = learn_mixtures(found.posterior, prior)
        _, each = averaged(self.problem, cells, expected, found, prior, [found.posterior])
        return perturbation_effects(each.posteriors, each.priors, weights=each.weights)

    def effects_alone(self, cells: FitCells) -> Effects:
        """Return effects without graph and experts, but for own genes drawn to nothing."""
        _, found = self.start(cells, empty=True)
        return perturbation_effects([found.posterior], found.prior)


def read_model(
    adata: ad.AnnData, fit: FittedPosterior, key: str, roles: Roles, *, n_jobs: int
) -> Model:
    """Return the model of a fit in ``adata.uns[key]``.

    Raises
    ------
    ValueError
        If it has fewer than three perturbations.
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
        noise_var=fit.blr.known_noise_var,
        intercept=bool(params["intercept"]),
        prior_scale=params["prior_scale"],
        prior_units=str(params["prior_units"]),
    )
    other = {} if fit.expectation is None else fit.expectation.other
    problem = Problem(
        adata, fit.columns, fit.genes, fit.blr.dag, str(params["dag_key"]), roles,
        str(params["separator"]), posterior, other, n_jobs,
    )  # fmt: skip
    shift = str(params["shift"])
    table = None
    if shift == "table":
        table = Interventions(names, fit.targets, fit.shifts, ["table"] * len(names))
    return Model(problem, Plan(names, fit.targets, [], table), None if table else shift)
