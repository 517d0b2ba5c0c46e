"""The model of a fit, learned again from some of its cells, which are read in two halves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import cycle
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.nested import FEWEST_CELLS, undeclared_guides
from nextpert._adata.screen import read_environments
from nextpert._adata.table import in_halves, is_table, of_samples
from nextpert.core import Dag
from nextpert.core.fit.cells import FitCells, pool_cells
from nextpert.core.fit.learn import FEWEST, Graphs, Model, Spec, folds_of
from nextpert.core.screen.guides import distinct
from nextpert.study.searches import graphs_without
from nextpert.tl._cells import Cells, fit_environments, read_cells
from nextpert.tl._fit_dag_blr import record_of, spec_of
from nextpert.tl._perturbation_effects import panel_effects, read_wanted
from nextpert.tl._read_graphs import read_held_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert._adata.nested import Nested
    from nextpert.core import ScreenMoments
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.model.effects import Effects
    from nextpert.core.screen.screen import Screen

# Maximum number of perturbations that are judged by fits to parts of the screen. The time of a fit
# grows with them: some twenty fits to 150 of 1,000 perturbations take as long as three to all.
MOST = 150
FEWEST_CONTROLS = 2  # in each half, to estimate the variance of a control cell
_SHARE = 0.1  # minimum cells of a guide that counts, relative to the perturbation's largest guide


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
    whole: ScreenMoments  # all cells
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
        pairs, place = distinct(self.group, self.guide)
        cells = np.bincount(place, screen.n, len(pairs))
        whole = np.bincount(pairs[:, 0], cells, self.n_groups)
        squares = np.bincount(pairs[:, 0], cells**2, self.n_groups)
        return np.asarray(squares / np.maximum(whole, 1.0) ** 2)[self.scored]

    def pool(
        self,
        screen: ScreenMoments,
        which: NDArray[np.bool_] | None = None,
        *,
        every: bool = False,
        by_guide: bool = False,
        **guides: Any,
    ) -> FitCells:
        """Return the cells of some environments as a fit takes them, for the groups to score.

        ``every`` returns all groups, not only those that are scored. ``by_guide`` says whether
        guides are separate; ``guides`` are ``spread`` and ``alike`` of
        :func:`~nextpert.core.fit.cells.pool_cells`. The scatter within the other environments is
        included, with the weight of the chosen ones, because it contains no information on means.
        """
        kept = np.ones(len(self.group), bool) if which is None else which
        clean, sd = screen.some(kept).without_batches(self.fixed[kept], self.condition[kept])
        group = self.group[kept]
        guides |= {"guide": self.guide[kept] if by_guide else None}
        guides |= {"are_replicates": not self.by_condition}
        pooled = pool_cells(clean, group, self.n_groups, fixed_sd=sd, **guides)
        return pooled if every else pooled.rows(self.scored)


def read_halves(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    names: Sequence[str],
    roles: Roles,
    rng: np.random.Generator,
    *,
    undeclared: str | None = None,
    sample: NDArray[np.int64] | None = None,
    **options: Any,
) -> tuple[Halves, Cells]:
    """Read all labelled cells once, those of the controls and perturbations ``names`` in halves.

    ``undeclared`` is a column of guides that is not declared. The cells of fits to the ``sample``
    of perturbations (positions; by default all) are read as well, with ``options`` of
    :func:`~nextpert.tl._cells.read_cells`.
    """
    column = undeclared if roles.guide_key is None else roles.guide_key
    every = read_environments(adata, replace(roles, guide_key=column), named=names)
    mine = every.numbered(names) >= 0
    every = every.only(sorted(set(every.perturbation[mine])))
    group, codes, n = every.numbered(names), every.codes, len(every.table)
    guide, of_table = every.levels(*([] if column is None else [column])), is_table(adata)
    half = np.zeros(len(codes), np.int64)
    # Every second cell of an environment, in random order.
    if not of_table:
        order = rng.permutation(len(half))
        order = order[np.argsort(codes[order], kind="stable")]
        first = np.searchsorted(codes[order], codes[order])
        odd = rng.integers(2, size=int(codes.max(initial=-1)) + 2)
        half[order] = (np.arange(len(half)) - first + odd[codes[order]]) % 2
    dealt = _deal(group, guide, np.bincount(codes[codes >= 0], minlength=n), rng)
    by_guides = np.zeros(1 + len(names), bool)
    by_guides[group[dealt >= 0]] = True
    of_cell = np.append(dealt, -1)[codes]
    half = np.where(of_cell >= 0, of_cell, half)
    n_controls = np.bincount(half[np.append(group, -1)[codes] == 0], minlength=2)
    if not of_table and n_controls.min() < FEWEST_CONTROLS:
        message = (
            f"tl.diagnose needs at least {FEWEST_CONTROLS} control cells in each half of the "
            f"cells, but there are {n_controls.sum()} control cells in all: use more control cells."
        )
        raise ValueError(message)
    sample = np.arange(len(names)) if sample is None else sample
    some = [names[j] for j in sample]
    fits = fit_environments(adata, roles, some)
    cells = read_cells(adata, columns, fits, some, halves=(every, half), **options)
    screen = cast("Screen", cells.halves)
    if of_table:
        whole = screen.pool("environment", n)
        one, two = in_halves(whole, rng)
    else:
        one, two = (part.pool("environment", n) for part in screen.halves("half"))
        whole = one + two
    several = np.bincount(group[group > 0], minlength=1).max() > 1
    guide_name, batch_name = np.full((2, n), "", object)
    for row, levels in enumerate(every.table[list(roles.batch_key)].to_numpy(object)):
        batch_name[row] = " ".join(map(str, levels))
    if column is not None:
        guide_name[:] = every.table[column].astype(str)
    return Halves(
        group=group, condition=every.levels(roles.perturbation_key, *every.condition_names),
        guide=guide, batch=every.levels(*roles.batch_key),
        fixed=every.indicators(roles.batch_key)[1], n_groups=1 + len(names),
        scored=np.append(0, 1 + sample),
        declared=roles.guide_key is not None, by_guides=by_guides, parts=(one, two),
        guide_name=guide_name, batch_name=batch_name, by_condition=roles.condition_key is not None,
        of_table=of_table, whole=whole,
        has_replicates=not of_table or bool(several) or of_samples(adata),
    ), cells  # fmt: skip


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
    for mine in np.split(order, starts[1:]):
        guides, place = np.unique(guide[mine], return_inverse=True)
        size = np.bincount(place, cells[mine])
        enough = size >= max(FEWEST_CELLS, _SHARE * size.max())
        if enough.sum() < 2:
            continue
        of_guide, total = np.empty(len(guides), np.int64), np.zeros(2)
        order = rng.permutation(len(guides))
        first = int(rng.integers(2))
        for k in order[np.argsort(-size[order], kind="stable")]:
            of_guide[k] = first if total[first] <= total[1 - first] else 1 - first
            total[of_guide[k]] += size[k]
        half[mine] = of_guide[place]
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

    def learned(self, cells: FitCells, others: Sequence[str] = ()) -> Model:
        """Return the model of the perturbations that are judged, and of others after these.

        The others have no targets. Perturbation ``j`` stays in the fold without which its graph was
        learned.
        """
        plan, dag = self.spec.plan, self.fit.posterior.dag
        targets = [*plan.targets, *([] for _ in others)]
        spec = replace(self.spec, plan=replace(plan, names=[*plan.names, *others], targets=targets))
        known = [*(first for first, *_ in self.without), *[dag] * len(others)]
        return Model.fit(spec, cells, Graphs(dag, [], lambda folds: known[: len(folds)]))

    def without_fold(self, fold: int) -> Model:
        """Return the model fitted without the cells of a fold of perturbations."""
        gone, names = set(self.folds[fold]), self.spec.plan.names
        spec = self.spec.rows([j for j, name in enumerate(names) if name not in gone])
        cells = self.cells.fit_cells(spec.plan.names, fold, guided=self.guided)
        first, *inner = self.without[fold]
        return Model.fit(spec, cells, Graphs(first, [], lambda _: inner))

    def as_stored(self, model: Model) -> FittedPosterior:
        """Return a model in the form in which it is read after it is stored."""
        record = record_of(model, self.fit.params, left_out=pd.DataFrame())
        return replace(record, columns=self.fit.columns)

    def effects(self, model: Model) -> Effects:
        """Return the effects of a model as users get them, ``(n_perturbations, n_genes)`` each."""
        fit = self.as_stored(model)
        return panel_effects(fit, read_wanted(None, fit))


def read_refit(
    adata: ad.AnnData, fit: FittedPosterior, key: str, rng: np.random.Generator, *, n_jobs: int = 1
) -> tuple[Refit, Halves, Nested | None]:
    """Return what is needed to learn the fit in ``uns[key]`` again, and its cells in halves.

    The third result is a column that looks like guides but is not declared, if any. Cells are read
    and graphs are searched here.

    Raises
    ------
    ValueError
        If shifts are exact, there are fewer than four perturbations, or genes are linearly
        dependent without some perturbations.
    """
    names, params, n = fit.names, fit.params, len(fit.names)
    if fit.is_exact:
        message = (
            f"The fit in adata.uns[{key!r}] takes shifts as known (shift_sd=0), but a diagnosis "
            f"needs learned effects: fit without shift_sd."
        )
        raise ValueError(message)
    if n <= FEWEST:  # the others have to suffice if one is left out
        message = (
            f"The fit in adata.uns[{key!r}] has {n} perturbation{'s' * (n != 1)}, but at least "
            f"{FEWEST + 1} are needed to predict one from the others: fit more perturbations."
        )
        raise ValueError(message)
    sample = np.arange(n) if n <= MOST else np.sort(rng.choice(n, MOST, replace=False))
    some = [names[j] for j in sample]
    folds = folds_of(some)
    # For each fit without a fold, the further folds without which its graphs are learned.
    inner = [folds_of([name for name in some if name not in fold]) for fold in folds]
    sets = [
        each
        for fold, others in zip(folds, inner, strict=True)
        for each in (fold, *(fold + more for more in others))
    ]
    # A large screen has one graph, learned without all judged perturbations, instead of thirty: at
    # least half of the perturbations remain.
    if n >= 2 * MOST:
        sets = [some]
    roles, dag_key = _adata.fitted_roles(adata, params), str(params["dag_key"])
    held_out = read_held_out(adata, dag_key, roles, fit.genes, fit.columns, names, fit.fingerprint)
    # The graphs without one fold are those of the fit; those without a further fold are the graphs
    # that a fit has to which the first fold is not shown.
    unknown = [] if held_out is None else held_out.unknown(sets)
    undeclared = undeclared_guides(adata, fit.columns, names, roles)
    halves, cells = read_halves(
        adata, fit.columns, names, roles, rng, sample=sample, without=folds, sets=unknown,
        searches=held_out.environments if held_out is not None and unknown else None,
        undeclared=None if undeclared is None else undeclared.column,
    )  # fmt: skip
    learned = graphs_without(
        fit.posterior.dag, held_out, cells.searches, fit.genes, sets, n_jobs=n_jobs
    )
    graphs = cycle(learned)
    without = [[next(graphs) for _ in range(1 + len(rest))] for rest in inner]
    spec = spec_of(fit).rows(sample.tolist())
    guided = roles.guide_key is not None
    return Refit(fit, cells, guided, spec, folds, without), halves, undeclared
