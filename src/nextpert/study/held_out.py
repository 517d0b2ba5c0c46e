"""The model of a fit, learned again from half of its cells or without some perturbations."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.undeclared_guides import FEWEST_CELLS
from nextpert.core.fit.cells import pool_cells
from nextpert.core.fit.learn import Graphs, Model
from nextpert.core.screen.guides import distinct
from nextpert.study.effects import panel_effects, read_requested
from nextpert.study.record import record_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert.core import Dag, ScreenMoments
    from nextpert.core.fit.cells import FitCells
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.fit.learn import Spec
    from nextpert.core.model.effects import Effects
    from nextpert.study.cell_sums import Cells


# Maximum number of perturbations that are judged by fits to parts of the screen. The time of a fit
# grows with them: some twenty fits to 150 of 1,000 perturbations take as long as three to all.
MAX_JUDGED = 150
MIN_CONTROLS = 2  # in each half, to estimate the variance of a control cell
_MIN_GUIDE_SHARE = (
    0.1  # minimum cells of a guide that counts, relative to the perturbation's largest guide
)


@dataclass(frozen=True)
class Halves:
    """Moments of every environment: the cells of one perturbation, guide and batch.

    Cells of one guide are not independent replicates. If two or more guides of a perturbation have
    enough cells, its halves are therefore made of guides; otherwise, and if guides are not known,
    they are made of cells. A table of effects is split by noise with its standard errors
    (:func:`~nextpert._adata.table.in_halves`).
    """

    # Of every environment, shape (n_environments,):
    group: NDArray[np.int64]  # its perturbation, 0 for the controls
    condition: NDArray[np.int64]  # the same, with conditions separate
    guide: NDArray[np.int64]  # 0 for all if there are no guides
    batch: NDArray[np.int64]  # its combination of batches; 0 for all if there are none
    guide_name: NDArray[np.object_]  # "" if there are none
    batch_name: NDArray[np.object_]
    fixed: NDArray[np.float64]  # indicators of batches, shape (n_environments, n_fixed)
    # Of the screen:
    parts: tuple[ScreenMoments, ScreenMoments]  # the two halves of the cells
    all_cells: ScreenMoments
    n_groups: int  # number of perturbations and controls
    scored: NDArray[np.int64]  # the controls, and the perturbations whose effects are judged
    by_guides: NDArray[np.bool_]  # which groups are split by guide
    declared: bool  # whether guides are declared, so that the fit models their variance
    by_condition: bool  # whether condition_key is declared
    of_table: bool  # whether this is a table of effects, whose halves have independent noise
    # Whether standard errors include the variation between replicates. Those of cells do as far as
    # it is declared; those of a table do if a perturbation has rows in several batches, or if it
    # was made from samples.
    has_replicates: bool

    def guide_shares(self, screen: ScreenMoments) -> NDArray[np.float64]:
        """Return the factor of the variance between guides in the mean of every scored group.

        With shares ``w`` of the group's cells in each guide it is ``sum w^2``, which is one over
        the number of guides if guides have equal numbers of cells.
        """
        pairs, pair_of = distinct(self.group, self.guide)
        cells = np.bincount(pair_of, screen.n, len(pairs))
        of_group = np.bincount(pairs[:, 0], cells, self.n_groups)
        squares = np.bincount(pairs[:, 0], cells**2, self.n_groups)
        return np.asarray(squares / np.maximum(of_group, 1.0) ** 2)[self.scored]

    def pool(
        self,
        screen: ScreenMoments,
        chosen: NDArray[np.bool_] | None = None,
        *,
        all_groups: bool = False,
        by_guide: bool = False,
        **guides: Any,
    ) -> FitCells:
        """Return the cells of some environments as a fit takes them, for the groups to score.

        ``all_groups`` returns all groups, not only those that are scored. ``by_guide`` says whether
        guides are separate; ``guides`` are ``spread`` and ``equal_guides`` of
        :func:`~nextpert.core.fit.cells.pool_cells`. The scatter within the other environments is
        included, with the weight of the chosen ones, because it contains no information on means.
        """
        is_chosen = np.ones(len(self.group), bool) if chosen is None else chosen
        clean, sd = screen.some(is_chosen).without_batches(
            self.fixed[is_chosen], self.condition[is_chosen]
        )
        group = self.group[is_chosen]
        guides |= {"guide": self.guide[is_chosen] if by_guide else None}
        guides |= {"are_replicates": not self.by_condition}
        pooled = pool_cells(clean, group, self.n_groups, fixed_sd=sd, **guides)
        return pooled if all_groups else pooled.rows(self.scored)


def _deal(
    group: NDArray[np.int64],
    guide: NDArray[np.int64],
    cells: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return the half to which every environment goes with its guide, -1 if it is divided.

    The guides of a perturbation go, the largest first, to the half that has fewer cells so far.
    """
    half = np.full(len(group), -1, np.int64)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    for members in np.split(order, starts[1:]):
        guides, guide_of = np.unique(guide[members], return_inverse=True)
        size = np.bincount(guide_of, cells[members])
        enough = size >= max(FEWEST_CELLS, _MIN_GUIDE_SHARE * size.max())
        if enough.sum() < 2:
            continue
        of_guide, total = np.empty(len(guides), np.int64), np.zeros(2)
        order = rng.permutation(len(guides))
        first = int(rng.integers(2))
        for k in order[np.argsort(-size[order], kind="stable")]:
            of_guide[k] = first if total[first] <= total[1 - first] else 1 - first
            total[of_guide[k]] += size[k]
        half[members] = of_guide[guide_of]
    return half


@dataclass(frozen=True)
class Refit:
    """The inputs of a fit, and the graphs learned without some of its perturbations."""

    fit: FittedPosterior  # the fit that is judged
    cells: Cells
    guided: bool  # whether guides are declared
    spec: Spec  # of the perturbations that are judged
    folds: list[list[str]]  # labels that are left out together
    # For each fold, the graph learned without it (a single graph, even if the fit has many), and
    # the graphs learned without it and without each fold of the others.
    without: list[list[Dag]]

    def effects(self, cells: FitCells, untargeted: Sequence[str] = ()) -> Effects:
        """Return the effects of the perturbations that are judged, and of others after these.

        They are learned from ``cells``, and as users get them, ``(n_perturbations, n_genes)`` each.
        The others have no targets. Perturbation ``j`` stays in the fold without which its graph was
        learned.
        """
        plan, dag = self.spec.plan, self.fit.posterior.dag
        targets = [*plan.targets, *([] for _ in untargeted)]
        spec = replace(
            self.spec, plan=replace(plan, names=[*plan.names, *untargeted], targets=targets)
        )
        dags = [*(first for first, *_ in self.without), *[dag] * len(untargeted)]
        graphs = Graphs(dag, [], lambda folds: dags[: len(folds)])
        fit = self.as_stored(Model.fit(spec, cells, graphs, has_unseen=False))
        return panel_effects(fit, read_requested(None, fit))

    def without_fold(self, fold: int) -> Model:
        """Return the model fitted without the cells of a fold of perturbations."""
        held_out, names = set(self.folds[fold]), self.spec.plan.names
        spec = self.spec.rows([j for j, name in enumerate(names) if name not in held_out])
        cells = self.cells.fit_cells(spec.plan.names, fold, guided=self.guided)
        first, *inner = self.without[fold]
        return Model.fit(spec, cells, Graphs(first, [], lambda _: inner))

    def as_stored(self, model: Model) -> FittedPosterior:
        """Return a model in the form in which it is read after it is stored."""
        record = record_of(model, self.fit.params, left_out=pd.DataFrame())
        return replace(record, columns=self.fit.columns)
