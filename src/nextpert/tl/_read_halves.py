"""The model of a fit, learned again from some of its cells, which are read in two halves."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nextpert import _adata
from nextpert._adata.screen import read_environments
from nextpert._adata.table import in_halves, is_table, of_samples
from nextpert._adata.undeclared_guides import undeclared_guides
from nextpert.core.fit.learn import MIN_PERTURBATIONS, folds_of
from nextpert.study.held_out import MAX_JUDGED, MIN_CONTROLS, Halves, Refit, _deal
from nextpert.study.record import spec_of
from nextpert.study.searches import graphs_without
from nextpert.tl._cells import fit_environments, read_cells
from nextpert.tl._read_graphs import read_held_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert._adata.undeclared_guides import Nested
    from nextpert.core.fit.fitted import FittedPosterior
    from nextpert.core.screen.screen import Screen
    from nextpert.study.cell_sums import Cells


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
    environments = read_environments(adata, replace(roles, guide_key=column), named=names)
    is_fitted = environments.numbered(names) >= 0
    environments = environments.only(sorted(set(environments.perturbation[is_fitted])))
    group, codes, n = environments.numbered(names), environments.codes, len(environments.table)
    guide, of_table = environments.levels(*([] if column is None else [column])), is_table(adata)
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
    if not of_table and n_controls.min() < MIN_CONTROLS:
        message = (
            f"tl.diagnose needs at least {MIN_CONTROLS} control cells in each half of the "
            f"cells, but there are {n_controls.sum()} control cells in all: use more control cells."
        )
        raise ValueError(message)
    sample = np.arange(len(names)) if sample is None else sample
    sampled = [names[j] for j in sample]
    fits = fit_environments(adata, roles, sampled)
    cells = read_cells(adata, columns, fits, sampled, halves=(environments, half), **options)
    screen = cast("Screen", cells.halves)
    if of_table:
        all_cells = screen.pool("environment", n)
        one, two = in_halves(all_cells, rng)
    else:
        one, two = (part.pool("environment", n) for part in screen.halves("half"))
        all_cells = one + two
    has_several = np.bincount(group[group > 0], minlength=1).max() > 1
    guide_name, batch_name = np.full((2, n), "", object)
    for row, levels in enumerate(environments.table[list(roles.batch_key)].to_numpy(object)):
        batch_name[row] = " ".join(map(str, levels))
    if column is not None:
        guide_name[:] = environments.table[column].astype(str)
    return Halves(
        group=group,
        condition=environments.levels(roles.perturbation_key, *environments.condition_names),
        guide=guide,
        batch=environments.levels(*roles.batch_key),
        fixed=environments.indicators(roles.batch_key)[1],
        n_groups=1 + len(names),
        scored=np.append(0, 1 + sample),
        declared=roles.guide_key is not None,
        by_guides=by_guides,
        parts=(one, two),
        guide_name=guide_name,
        batch_name=batch_name,
        by_condition=roles.condition_key is not None,
        of_table=of_table,
        all_cells=all_cells,
        has_replicates=not of_table or bool(has_several) or of_samples(adata),
    ), cells


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
    if n <= MIN_PERTURBATIONS:  # the others have to suffice if one is left out
        message = (
            f"The fit in adata.uns[{key!r}] has {n} perturbation{'s' * (n != 1)}, but at least "
            f"{MIN_PERTURBATIONS + 1} are needed to predict one from the others: fit more "
            f"perturbations."
        )
        raise ValueError(message)
    sample = np.arange(n) if n <= MAX_JUDGED else np.sort(rng.choice(n, MAX_JUDGED, replace=False))
    sampled = [names[j] for j in sample]
    folds = folds_of(sampled)
    # For each fit without a fold, the further folds without which its graphs are learned.
    inner = [folds_of([name for name in sampled if name not in fold]) for fold in folds]
    sets = [
        labels
        for fold, inner_folds in zip(folds, inner, strict=True)
        for labels in (fold, *(fold + inner_fold for inner_fold in inner_folds))
    ]
    # A large screen has one graph, learned without all judged perturbations, instead of thirty: at
    # least half of the perturbations remain.
    if n >= 2 * MAX_JUDGED:
        sets = [sampled]
    roles, dag_key = _adata.fitted_roles(adata, params), str(params["dag_key"])
    held_out = read_held_out(adata, dag_key, roles, fit.genes, fit.columns, names, fit.fingerprint)
    # The graphs without one fold are those of the fit; those without a further fold are the graphs
    # that a fit has to which the first fold is not shown.
    unknown = [] if held_out is None else held_out.unknown(sets)
    undeclared = undeclared_guides(adata, fit.columns, names, roles)
    halves, cells = read_halves(
        adata,
        fit.columns,
        names,
        roles,
        rng,
        sample=sample,
        without=folds,
        sets=unknown,
        searches=held_out.environments if held_out is not None and unknown else None,
        undeclared=None if undeclared is None else undeclared.column,
    )
    learned = graphs_without(
        fit.posterior.dag, held_out, cells.searches, fit.genes, sets, n_jobs=n_jobs
    )
    graphs = cycle(learned)
    without = [[next(graphs) for _ in range(1 + len(inner_folds))] for inner_folds in inner]
    spec = spec_of(fit).rows(sample.tolist())
    guided = roles.guide_key is not None
    return Refit(fit, cells, guided, spec, folds, without), halves, undeclared
