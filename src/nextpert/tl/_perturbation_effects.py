"""``tl.perturbation_effects``: the effect of every perturbation on every gene."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import between, checked, one_of
from nextpert._adata.progress import progress
from nextpert.core._blas import in_blocks
from nextpert.core._codec import table_type
from nextpert.core.fit.candidates import fitted_candidates
from nextpert.core.fit.interventions import Interventions, own_shift
from nextpert.core.fit.naming import places
from nextpert.core.model.effects import Effects, exact_effects, speaks_of_knockouts
from nextpert.core.model.hierarchical import fit_hierarchical
from nextpert.core.model.programs import find_programs
from nextpert.core.model.sampler import Prior, threads
from nextpert.core.screen.guides import UNKNOWN, PooledGuides
from nextpert.tl._cells import fit_environments, read_cells
from nextpert.tl._design_interventions.candidates import read_candidates

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

    from nextpert.core.fit.candidates import CandidateSet
    from nextpert.core.fit.fitted import FittedPosterior

logger = logging.getLogger(__name__)


@checked(candidates=one_of("genes"), level=between(0, 1))
def perturbation_effects(
    adata: ad.AnnData,
    *,
    posterior_key: str = "dag_blr",
    candidates: str | Sequence[str] | pd.DataFrame | Mapping[str, Any] | None = None,
    genes: str | Sequence[str] | None = None,
    condition: str | None = None,
    level: float = 0.9,
    key_added: str = "perturbation_effects",
    as_anndata: bool = False,
    copy: bool = False,
) -> ad.AnnData | None:
    """Estimate the effect of every perturbation on every gene, with intervals.

    The effect is the mean of perturbed cells minus that of the controls. With few cells it is
    shrunk towards effects that perturbations share, with many cells it approaches the difference of
    means (:doc:`/model/mathematics`, equations 13 to 24), and without cells it is predicted.
    *Programs* are sets of genes that two or more perturbations change together, as in GSFA (Zhou et
    al. 2023, doi:10.1038/s41592-023-02017-4) and FR-Perturb (Yao et al. 2023,
    doi:10.1038/s41587-023-01964-9); plot them with :func:`nextpert.pl.programs`. See
    :doc:`/guides/read_a_ranking`.

    Parameters
    ----------
    adata
        Cells x genes, after :func:`fit_dag_blr`.
    posterior_key
        The ``key_added`` of the fit.
    candidates
        The perturbations: ``None`` (default) for those of the fit, ``"genes"`` for these and every
        other gene of the panel, a list of labels, combinations included, or a table of shifts as
        in :func:`fit_dag_blr`.
    genes
        ``None`` (default) for the panel, ``"all"`` for every gene of ``adata``, or a list. Genes
        outside the panel are shrunk separately, without the graph.
    condition
        Condition of the effects, if ``condition_key`` is declared. ``None`` (default) uses the
        cells of all conditions.
    level
        Probability that an interval covers its effect.
    key_added
        Name of the results.
    as_anndata
        Whether to return an AnnData (perturbations x genes; mean in ``X``, other tables in layers)
        instead of writing to ``adata``. It can be the ``features`` of another fit.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, the copy, or the AnnData. :doc:`/model/stored_results` lists all columns. Writes
        ``uns["perturbation_effects"]``, in units of log-normalised expression, with:

        - ``mean``, ``sd`` (arrays, ``(n_perturbations, n_genes)``): posterior mean and standard
          deviation.
        - ``lower``, ``upper`` (arrays, ``(n_perturbations, n_genes)``): bounds of the interval.
        - ``lfsr`` (array, ``(n_perturbations, n_genes)``): local false sign rate (NaN without
          cells); below 0.05 the direction is significant.
        - ``direct`` (array, ``(n_perturbations, n_genes)``): the mean minus the graph's prediction
          from the parents of the gene.
        - ``data_weight`` (array, ``(n_perturbations, n_genes)``): weight of the cells, 0 to 1.
        - ``raw_mean`` (array, ``(n_perturbations, n_genes)``): the difference of means.
        - ``perturbations``, ``genes`` (names): names of rows and columns.
        - ``n_cells`` (numbers, ``(n_perturbations,)``): cells of each perturbation.
        - ``programs`` (mapping): the tables ``shares``, ``genes`` and ``scores`` of the programs.

    Raises
    ------
    ValueError
        If there is no posterior, a candidate, gene or condition is unknown, or genes outside the
        panel are combined with ``condition``. Nothing is written on error.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> npt.tl.learn_dag(adata, method="boss", environments="all")
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.perturbation_effects(adata)
    >>> effects = npt.get.effects_df(adata).query("perturbation == 'GATA1' and lfsr < 0.05")
    >>> effects[["gene", "mean", "sd", "raw_mean"]].head(3).round(2)  # the strongest
           gene  mean    sd  raw_mean
    6   LAPTM4B  0.35  0.06      0.39
    21    GATA1 -0.29  0.04     -0.27
    39     HBE1 -0.22  0.07     -0.25
    """
    fit = _adata.posterior_from(adata, posterior_key)
    fit = fit if condition is None else fit.in_condition(condition)
    wanted = read_wanted(candidates, fit)
    symbols = str(fit.params.get("gene_symbols", ""))
    listed: Any = fit.genes if genes is None else genes
    if isinstance(listed, str):
        listed = None if listed == "all" else [listed]
    chosen, columns = _adata.resolve_panel(adata, listed, gene_symbols=symbols)
    shared = program_tables(fit)
    tables = vars(panel_effects(fit, wanted, level)) | {"raw_mean": wanted.raw_mean(fit)}
    in_graph = np.isin(chosen, fit.genes)
    outside, every = np.flatnonzero(~in_graph), list(fit.genes)
    if len(outside) and condition is not None:
        message = (
            f"Effects per condition are computed only for genes of the panel: leave out "
            f"{_adata.list_names([chosen[i] for i in outside])}, or condition."
        )
        raise ValueError(message)
    if len(outside):
        names = [chosen[i] for i in outside]
        more = outside_tables(adata, names, columns[outside], fit, wanted, level=level)
        tables = {name: np.hstack([table, more.pop(name)]) for name, table in tables.items()}
        every += names
    place = {gene: i for i, gene in enumerate(every)}
    order = [place[gene] for gene in chosen]
    # Tables of very large screens are stored in single precision, and converted one by one.
    kind = table_type(len(wanted.names) * len(chosen))
    same = order == list(range(len(every)))
    for name in list(tables):
        table = tables.pop(name)
        tables[name] = np.ascontiguousarray(table if same else table[:, order], kind)
    params: dict[str, Any] = {
        "posterior_key": posterior_key,
        "level": float(level),
        "n_graphs": fit.n_graphs,
        "control": str(fit.params["control"]),
        "separator": str(fit.params["separator"]),
    }
    if symbols:
        params["gene_symbols"] = symbols
    if condition is not None:
        params["condition"] = condition
    if as_anndata:
        known = {"panel": _adata.strings(fit.genes), "fit_params": dict(fit.params)}
        obs = pd.DataFrame(
            {"n_cells": wanted.n_cells}, index=pd.Index(wanted.names, name="perturbation")
        )
        return ad.AnnData(
            tables.pop("mean"),
            obs if condition is None else obs.assign(condition=condition),
            pd.DataFrame({"in_graph": in_graph}, index=chosen),
            layers=tables,
            uns={"params": params, **shared, **fit.origin, **known},
        )
    stored = {
        **tables,
        "perturbations": _adata.strings(wanted.names),
        "genes": _adata.strings(chosen),
        "in_graph": in_graph,
        "n_cells": wanted.n_cells,
        **shared,
        **fit.origin,
        "params": params,
    }
    if condition is not None:
        stored["condition"] = _adata.strings([condition] * len(wanted.names))
    return _adata.write_results(adata, uns={key_added: stored}, copy=copy)


@dataclass(frozen=True)
class Wanted:
    """Perturbations whose effects are wanted, and their numbers of cells (0 outside the fit)."""

    pool: CandidateSet
    n_cells: NDArray[np.int64]

    @property
    def names(self) -> list[str]:
        """Labels."""
        return self.pool.interventions.names

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Whether a perturbation has no cells in any condition, ``(n_perturbations,)``."""
        return (self.n_cells == 0) & ~self.pool.measured

    def raw_mean(self, fit: FittedPosterior) -> NDArray[np.float64]:
        """Return plain differences of means, NaN without cells, ``(n_perturbations, n_genes)``."""
        shape = len(self.names), len(fit.genes)
        table = np.full(shape, np.nan, table_type(shape[0] * shape[1]))
        means, place = fit.means, self.pool.place
        if means is None or not self.pool.measured.any():
            return table
        for rows in in_blocks(*shape):
            seen = self.pool.measured[rows] & (self.n_cells[rows] > 0)
            difference = means.mean[place[rows]] - fit.control_mean
            known = seen[:, None] & (means.ratio[place[rows]] < UNKNOWN)
            table[rows] = np.where(known, difference, np.nan)
        return table


def read_wanted(candidates: Any, fit: FittedPosterior) -> Wanted:
    """Return the perturbations whose effects are wanted.

    Perturbations of a table are taken as having no cells, whatever their names.

    Raises
    ------
    ValueError
        If a candidate names a gene outside the panel.
    """
    if candidates is None:
        sources = fit.environments["shift_source"].astype(str).tolist()
        every = Interventions(fit.names, fit.targets, fit.shifts, sources)
        return Wanted(fitted_candidates(every, fit), fit.n_cells)
    pool = read_candidates(candidates, fit)
    is_table = isinstance(candidates, (pd.DataFrame, Mapping))
    place = np.full(len(pool.place), -1) if is_table else fit.rows_of(pool.interventions.names)
    return Wanted(pool, np.append(fit.n_cells, 0)[place])


def panel_effects(fit: FittedPosterior, wanted: Wanted, level: float = 0.9) -> Effects:
    """Return the effects on the genes of the panel, ``(n_perturbations, n_genes)`` each.

    All effects that a user gets are computed here, and a diagnosis scores the same effects. The
    local false sign rate is NaN without cells: predictors are weighted by their accuracy averaged
    over the screen, so the direction of a single gene is wrong more often than the draws suggest.
    """
    pool = wanted.pool
    if pool.is_exact:
        effects = exact_effects(fit.posteriors, pool.interventions.shifts, level=level)
        effects.lfsr[wanted.unseen] = np.nan
        return effects
    draws = fit.effects(pool.place, pool.without_cells)
    mean, sd, lower, upper, lfsr = draws.summary(level, n_jobs=threads(draws.expected.size))
    lfsr[wanted.unseen] = np.nan
    direct = mean.copy()
    if fit.posterior.dag.n_edges:  # (I - B) times the effect
        direct -= (fit.posterior.mean() @ mean.T).T
    weight = fit.data_weight()
    # -1, without cells, is last.
    if not np.array_equal(pool.place, np.arange(len(weight))):
        weight = np.vstack([weight, np.zeros((1, mean.shape[1]), weight.dtype)])[pool.place]
    return Effects(mean, sd, lower, upper, lfsr, direct, weight)


_AT_ONCE = 500  # genes whose correlations within cells are read together


def outside_tables(
    adata: ad.AnnData,
    genes: Sequence[str],
    columns: NDArray[np.int64],
    fit: FittedPosterior,
    wanted: Wanted,
    *,
    level: float,
) -> dict[str, Array]:
    """Return the tables of genes outside the panel, ``(n_perturbations, n_genes)`` each.

    These genes are fitted like the panel, 500 at a time. A perturbation that targets such a gene is
    expected to change it by the efficacy of the screen. ``direct`` is NaN without a graph.
    """
    shape = (len(wanted.names), len(genes))
    kind = table_type(shape[0] * shape[1])
    tables = {name: np.zeros(shape, kind) for name in (*Effects.__dataclass_fields__, "raw_mean")}
    tables["lfsr"][:] = 1.0
    tables["direct"][:] = tables["raw_mean"][:] = np.nan
    roles, names = _adata.fitted_roles(adata, fit.params), fit.names
    environments, guided = fit_environments(adata, roles, names), roles.guide_key is not None
    place = np.where(wanted.n_cells > 0, fit.rows_of(wanted.names), -1)
    raw = place >= 0
    blocks = range(0, len(columns), _AT_ONCE)
    for first in progress(len(blocks), "Genes outside the panel", iterable=blocks):
        here = np.arange(first, min(first + _AT_ONCE, len(columns)))
        cells = read_cells(adata, columns[here], environments, names)
        pooled = cells.fit_cells(names, guided=guided, spread=fit.guide_spread).pooled
        tables["raw_mean"][np.ix_(raw, here)] = (pooled.mean[1:] - pooled.mean[0])[place[raw]]
        varies = np.flatnonzero(pooled.scatter.diagonal() > 0)
        has = pooled.n_cells[1:] > 0
        seen = np.flatnonzero(has)
        if not len(varies) or not len(seen):
            continue
        number = np.append(np.where(has, np.cumsum(has) - 1, -1), -1)[place]
        new = np.flatnonzero(number < 0)
        number[new] = len(seen) + np.arange(len(new))
        some = pooled.subset(varies).rows(np.append(0, 1 + seen))
        labels = [*(names[j] for j in seen), *(wanted.names[j] for j in new)]
        own = _own_genes([genes[int(i)] for i in here[varies]], labels, fit, some)
        (shift, expected), (variance, of_new) = (np.split(each, [len(seen)]) for each in own)
        n_jobs = threads(shift.size)
        prior = Prior(shift, own_variance=variance)
        model = fit_hierarchical(some, prior, rng=0, n_jobs=n_jobs)
        unseen = model.predict(expected, own_variance=of_new, rng=0)
        draws = model.effects.joined(unseen).rows(number)
        for name, table in draws.summary(level, n_jobs=n_jobs)._asdict().items():
            tables[name][:, here[varies]] = table
        counted = np.vstack([some.counted[1:], np.zeros((len(new), len(varies)))])[number]
        weight = np.minimum(counted * (draws.sd() / draws.unit) ** 2, 1.0)
        tables["data_weight"][:, here[varies]] = weight
    tables["lfsr"][wanted.unseen] = np.nan
    return tables


def _own_genes(
    genes: Sequence[str],
    names: Sequence[str],
    fit: FittedPosterior,
    pooled: PooledGuides,
) -> tuple[Array, Array]:
    """Return the expected shifts of target genes (0 elsewhere) and their variances (NaN there)."""
    shift = np.zeros((len(names), len(genes)))
    own = np.full(shift.shape, np.nan)
    if fit.efficacy is None:
        return shift, own
    mean, sd = fit.efficacy.mean, fit.efficacy.sd
    full = own_shift(str(fit.params["shift"]), pooled.mean[0])
    noise = np.sqrt(pooled.scatter.diagonal() / pooled.n_cells.sum())
    speaks = speaks_of_knockouts(np.abs(full), noise)
    place = {gene: i for i, gene in enumerate(genes) if speaks[i]}
    naming = replace(fit.naming, genes=place)
    for j, name in enumerate(names):
        index = [place[gene] for gene in naming.targets(name)[0]]
        shift[j, index] = mean * full[index]
        own[j, index] = (sd * full[index]) ** 2
    return shift, own


def program_tables(fit: FittedPosterior) -> dict[str, Any]:
    """Return ``programs``, the tables ``shares``, ``genes`` and ``scores``.

    The hierarchical model gives them for the perturbations with cells; empty without that model.
    """
    model = fit.hierarchical
    if model is None or not fit.seen.any():
        return {}
    seen = np.flatnonzero(fit.seen)
    names = np.array(fit.names, object)[seen]
    targets = np.zeros((len(seen), len(fit.genes)), bool)
    for row, own in zip(targets, places([fit.targets[j] for j in seen], fit.genes), strict=True):
        row[own] = True
    shared = find_programs(model, targets)
    number, on = np.arange(1, 1 + len(shared.share)), shared.takes_part
    genes = _long(number, "gene", fit.genes, {"effect": shared.genes, "sd": shared.genes_sd})
    columns = {"score": shared.scores.T, "sd": shared.scores_sd.T, "takes_part": on.T}
    scores = _long(number, "perturbation", names, columns)
    shares = pd.DataFrame(
        {"program": number, "share": shared.share, "n_perturbations": on.sum(axis=0)}
    )
    return {"programs": {"shares": shares, "genes": genes, "scores": scores}}


def _long(number: Any, what: str, names: Any, columns: Mapping[str, Any]) -> pd.DataFrame:
    """Return tables (programs x names) in long form, the largest values of each program first."""
    k, n = len(number), len(names)
    table = pd.DataFrame({
        "program": np.repeat(number, n),
        what: np.tile(np.array(names, object), k),
        **{name: values.ravel() for name, values in columns.items()},
    })  # fmt: skip
    size = np.abs(next(iter(columns.values()))).ravel()
    return table.iloc[np.lexsort((-size, table["program"]))].reset_index(drop=True)
