"""Screens given as tables: whether they agree with their own cells, and what large ones cost.

    python -m benchmarks.effect_tables --screens papalexi tapseq
    python -m benchmarks.effect_tables --screens papalexi tapseq --diagnose
    python -m benchmarks.effect_tables --cost --perturbations 10000 --n-genes 1000

Effects and standard errors are computed from the cells of a screen and given to
``pp.effect_table``, with the means and standard errors of the controls. What is compared are the
posterior means of the fit to the table and of that to the cells, in standard errors of the effects.
Cells tell of coexpression, too: they are fitted with it, and without.

With ``--diagnose``, ``tl.diagnose`` of the table beside that of its cells, of the table with
standard errors half as large, and of tables of shuffled labels, which have no effects.
False effects of simulated tables are in ``benchmarks.designs``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._measure import _peak
from benchmarks._screens import add_arguments, screens_of
from nextpert import _adata
from nextpert.core.fit import learn
from nextpert.core.model import _sweep
from nextpert.tl._fit_dag_blr.cells import fit_environments, read_cells

ERRORS = {
    "moderated": "moderated variances, as a fit to cells takes them",
    "raw": "variances of each perturbation's own cells",
}
SEED = ("cells without coexpression", "the same, sampled with another seed")


@contextmanager
def without_coexpression() -> Iterator[None]:
    """Fit cells as if genes were not coexpressed."""
    before = _sweep.factors
    _sweep.factors = lambda matrix, n: (np.zeros((len(matrix), 0)), np.ones(len(matrix)))
    try:
        yield
    finally:
        _sweep.factors = before


@contextmanager
def another_seed() -> Iterator[None]:
    """Sample effects with another seed, to see by how much two samples of one posterior differ."""
    before = learn.fit_hierarchical
    learn.fit_hierarchical = lambda cells, **told: before(cells, **{**told, "rng": 1})
    try:
        yield
    finally:
        learn.fit_hierarchical = before


def as_table(adata: ad.AnnData, errors: str) -> ad.AnnData:
    """Return the table of effects of a screen of cells; ``errors`` is one of :data:`ERRORS`."""
    if errors == "moderated":
        return npt.pp.effect_table(adata)
    roles = _adata.read_roles(adata)
    names = _adata.read_perturbations(adata, roles).perturbations()
    columns = np.arange(adata.n_vars)
    cells = read_cells(adata, columns, fit_environments(adata, roles, names), names)
    found = cells.fit_cells(names, guided=False)
    variance = found.screen.squares / (found.screen.n * (found.screen.n - 1))[:, None]
    effects = found.pooled.mean[1:] - found.pooled.mean[0]
    genes = list(adata.var_names)
    return npt.pp.effect_table(
        pd.DataFrame(effects, names, genes),
        pd.DataFrame(np.sqrt(variance[1:] + variance[0]), names, genes),
        n_cells=dict(zip(names, found.n_cells.tolist(), strict=True)),
        n_controls=found.control.n,
        control_mean=dict(zip(genes, found.control.mean.tolist(), strict=True)),
        control_se=dict(zip(genes, np.sqrt(variance[0]).tolist(), strict=True)),
        control=roles.control,
    )


def results(adata: ad.AnnData, target: str) -> dict[str, Any]:
    """Return effects, ranking and plate of a screen, of cells or a table, on an empty graph."""
    npt.tl.learn_dag(adata, method="given", dag=[])
    npt.tl.fit_dag_blr(adata)
    effects = npt.tl.perturbation_effects(adata, as_anndata=True)
    npt.tl.design_interventions(adata, target, acquisition="probability")
    npt.tl.plan_screen(adata, target, n_perturbations=5)
    ranking = adata.uns["design"]["ranking"]
    return {
        "effects": effects,
        "first five": ranking["perturbation"].tolist()[:5],
        "plate": dict(
            adata.uns["plan"]["plate"][["perturbation", "n_cells"]].itertuples(index=False)
        ),
    }


def compare(cells: dict[str, Any], table: dict[str, Any], se: np.ndarray) -> dict[str, Any]:
    """Return by how many standard errors effects differ, and whether decisions are the same."""
    away = np.abs(cells["effects"].X - table["effects"].X) / se
    return {
        "median": float(np.median(away)),
        "99%": float(np.quantile(away, 0.99)),
        "largest": float(away.max()),
        "same five": cells["first five"] == table["first five"],
        "same plate": sorted(cells["plate"]) == sorted(table["plate"]),
        "same cells": cells["plate"] == table["plate"],
    }


def agreement(adata: ad.AnnData, target: str) -> list[dict[str, Any]]:
    """Return one row for each kind of standard errors and of cells."""
    tables = {errors: as_table(adata, errors) for errors in ERRORS}
    names = tables["raw"].obs["perturbation"].tolist()
    control = names.index(_adata.read_roles(adata).control)
    se = np.delete(np.asarray(tables["raw"].layers["se"]), control, axis=0)
    with without_coexpression():
        alone = results(adata.copy(), target)
        with another_seed():
            again = results(adata.copy(), target)
    full = results(adata.copy(), target)
    found = {errors: results(table, target) for errors, table in tables.items()}
    rows = [{"one": SEED[0], "other": SEED[1], **compare(alone, again, se)}]
    for name, cells in (("cells without coexpression", alone), ("cells", full)):
        for errors, words in ERRORS.items():
            row = compare(cells, found[errors], se)
            rows.append({"one": name, "other": f"table, {words}", **row})
    return rows


JUDGED = [
    ("cells", "n_significant"),
    ("cells", "n_distinct"),
    ("cells", "reliability"),
    ("negative controls", "perturbations_width"),
    ("positive controls", "n_found"),
    ("shrinkage", "error_to_raw_means"),
    ("shrinkage", "error_to_no_effect"),
    ("shrinkage", "coverage_90"),
    ("shrinkage", "coverage_90_large"),
    ("shrinkage", "own_state_first"),
    ("unseen perturbations", "error_to_no_effect"),
    ("unseen perturbations", "coverage_90"),
    ("unseen perturbations", "coverage_90_large"),
    ("ceiling", "n_room"),
    ("ceiling", "n_not_measurable"),
]


def with_errors(table: ad.AnnData, factor: float) -> ad.AnnData:
    """Return a table whose standard errors are multiplied by a factor."""
    out = table.copy()
    out.layers["se"] = factor * np.asarray(table.layers["se"])
    return out


def diagnosed(adata: ad.AnnData, splits: int) -> tuple[pd.Series, pd.Series]:
    """Return the quantities of a diagnosis, averaged over splits, and the levels of the first."""
    npt.tl.learn_dag(adata, method="given", dag=[])
    npt.tl.fit_dag_blr(adata)
    values = []
    for seed in reversed(range(splits)):
        npt.tl.diagnose(adata, rng=seed)
        found = adata.uns["diagnosis"]
        values.append(found["summary"].set_index(["part", "quantity"])["value"])
    levels = found["parts"].set_index("part")["level"].astype(str)
    return pd.concat(values, axis=1).mean(axis=1), pd.concat(
        [pd.Series({"overall": found["level"]}), levels]
    )


def diagnoses(adata: ad.AnnData, splits: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return quantities and levels of the diagnoses of cells and tables, a column each."""
    table = as_table(adata, "moderated")
    with without_coexpression():
        found = {"cells": diagnosed(adata.copy(), splits)}
    found["table"] = diagnosed(table, splits)
    found["table, half of the standard errors"] = diagnosed(with_errors(table, 0.5), splits)
    values = pd.DataFrame({name: each for name, (each, _) in found.items()})
    return values.reindex(JUDGED), pd.DataFrame({name: each for name, (_, each) in found.items()})


def of_noise(adata: ad.AnnData, n_shuffles: int, factor: float = 1.0) -> pd.DataFrame:
    """Return one row per table of shuffled labels: level, and perturbations that differ."""
    key, rows = _adata.read_roles(adata).perturbation_key, []
    for seed in range(n_shuffles):
        noise = adata.copy()
        noise.obs[key] = np.random.default_rng(seed).permutation(noise.obs[key].to_numpy())
        values, levels = diagnosed(with_errors(as_table(noise, "moderated"), factor), 1)
        row = {name: values["cells", name] for name in ("n_significant", "n_distinct")}
        row["width"] = values["negative controls", "perturbations_width"]
        rows.append({"seed": seed, **row, **levels[["overall", "cells", "shrinkage"]]})
    return pd.DataFrame(rows)


def cost(n_perturbations: int, n_genes: int, missing: float) -> dict[str, tuple[float, float]]:
    """Return seconds, of a clock and of the processor, of a simulated table to its plate of 96.

    The last entry is the peak of memory (GB), twice.
    """
    rng = np.random.default_rng(0)
    genes = [f"g{i}" for i in range(n_genes)]
    names = [f"p{j}" for j in range(n_perturbations)]
    effects = 0.1 * rng.standard_normal(size=(n_perturbations, n_genes), dtype=np.float32)
    for j in range(0, n_perturbations, 10):
        effects[j, rng.choice(n_genes, n_genes // 20, replace=False)] += rng.normal(size=1)
    effects[rng.random(effects.shape) < missing] = np.nan
    se = pd.DataFrame(np.full(effects.shape, 0.1, np.float32), names, genes)
    effects = pd.DataFrame(effects, names, genes)
    times, started = {}, np.array([time.perf_counter(), time.process_time()])

    def lap(what: str) -> None:
        nonlocal started
        now = np.array([time.perf_counter(), time.process_time()])
        times[what], started = tuple(now - started), now
        print(what, times[what], _peak() * 2**20 / 1e9)

    table = npt.pp.effect_table(effects, se, n_cells=100, n_controls=10_000)
    lap("table")
    del effects, se
    npt.tl.fit_dag_blr(table)
    lap("fit")
    npt.tl.perturbation_effects(table)
    lap("effects")
    npt.tl.plan_screen(table, "p0", n_perturbations=96, n_cells=20_000)
    lap("plate of 96")
    times["GB"] = (_peak() * 2**20 / 1e9,) * 2
    return times


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screens", nargs="*", default=[])
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--target", help="perturbation whose state is the target")
    parser.add_argument("--diagnose", action="store_true")
    parser.add_argument("--splits", type=int, default=5, help="into halves, of a diagnosis")
    parser.add_argument("--shuffles", type=int, default=10, help="of labels")
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--perturbations", type=int, default=10_000)
    parser.add_argument("--n-genes", type=int, default=1000, help="of the simulated table")
    parser.add_argument("--missing", type=float, default=0.0)
    add_arguments(parser)
    args = parser.parse_args()
    for source, screen in screens_of(args):
        adata = screen.cells
        npt.pp.setup_screen(adata, control=source.roles.control, check_scale=False)
        if args.diagnose:
            adata.obs = adata.obs[[source.roles.perturbation_key]]  # a table knows no guides
            values, levels = diagnoses(adata, args.splits)
            values.index = [": ".join(names) for names in values.index]
            print(f"\n{screen.name}, diagnosis\n")
            print(values.to_markdown(floatfmt=".2f"))
            print("\n" + levels.to_markdown())
            for factor in (1.0, 0.5):
                print(f"\nlabels shuffled, standard errors times {factor:g}\n")
                print(of_noise(adata, args.shuffles, factor).to_markdown(floatfmt=".2f"))
            continue
        names = [n for n in sorted(screen.targets) if n != source.roles.control]
        rows = agreement(adata, args.target or names[0])
        print(f"\n{screen.name}, target {args.target or names[0]}\n")
        print(pd.DataFrame(rows).to_markdown(index=False, floatfmt=".3f"))
    if args.cost:
        found = cost(args.perturbations, args.n_genes, args.missing)
        print(pd.DataFrame(found, index=["clock", "processor"]).to_markdown(floatfmt=".1f"))


if __name__ == "__main__":
    main()
