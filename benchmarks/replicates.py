"""Candidates chosen from one allele of every knock-out, judged by the other alleles.

Tables of bulk RNA-seq of 31 knock-outs in six batches (MorPhiC), of which ten have three or four
alleles; effects are relative to the wild type of the batch. A table has one allele of each
knock-out, and ``--tables`` of them differ in the alleles; the panel are the genes with the largest
variance in the table. The target is the mean effect of the other alleles of a knock-out (a vector),
and the candidates are the ten knock-outs, with and without the target's own. The distance of the
first is judged by the other alleles of both: squared, minus the variance between these alleles over
their number, and minus the wild types' error (a quarter of a squared standard error: 3 samples and
9) for the control, and for pairs without a common batch; relative to the control's. It is 0 for the
target's own knock-out. The unit of standard errors is the target. *Conservative* and *numbers* (3
cells, 9 controls) are given to ``pp.effect_table``, with ``batch``. Coverage: 90% intervals of an
allele's effects, with the standard error of another allele of its batch added in quadrature.

Simulated: tables of 24 perturbations in 6 batches of 3 samples and 9 controls, 100 genes, all with
effects of their own size (a third of them strong). The target is the true state of a perturbation,
exact or with the error of the controls of its batch; the distance is the true one, over the
control's.

    python -m benchmarks.replicates
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table, with_error
from benchmarks._shrinkage import ash

Array = np.ndarray
Estimate = tuple[Array, Callable[[pd.Series, list[str]], str]]  # of effects, and a choice
TOLD: dict[str, dict[str, Any]] = {
    "conservative": {"control_se": "conservative"},
    "numbers": {"n_cells": 3, "n_controls": 9},
}
WILD_TYPE = 0.25  # share of the wild type in a squared error: 1/9 of 1/3 + 1/9
Z90 = 1.645


def nearest(effects: Array, names: list[str]) -> Callable[[pd.Series, list[str]], str]:
    """Return a choice of the candidate with the nearest estimate."""
    place = {name: j for j, name in enumerate(names)}

    def choose(target: pd.Series, pool: list[str]) -> str:
        return min(pool, key=lambda name: ((effects[place[name]] - target.to_numpy()) ** 2).sum())

    return choose


def peers(effects: pd.DataFrame, se: pd.DataFrame) -> dict[str, Any]:
    """Return the choices by differences of means, and shrunk by one factor per row or by ash."""
    y, error, names = effects.to_numpy(), se.to_numpy(), effects.index.tolist()
    kept = np.maximum(1.0 - (error**2).sum(axis=1) / (y**2).sum(axis=1), 0.0)
    shrunk = np.array([ash(*row) for row in zip(y, error, strict=True)])
    return {
        "differences of means": nearest(y, names),
        "James-Stein": nearest(y * kept[:, None], names),
        "ash": nearest(shrunk, names),
        "mean perturbation": nearest(np.tile(y.mean(axis=0), (len(y), 1)), names),
    }


def ours(effects: pd.DataFrame, se: pd.DataFrame, batch: dict[str, str], **told: Any) -> Any:
    """Return a fitted table, and its choice."""
    out = npt.pp.effect_table(effects, se, batch=batch, **told)
    npt.tl.learn_dag(out, method="given", dag=[])
    npt.tl.fit_dag_blr(out)

    def choose(target: pd.Series, pool: list[str]) -> str:
        npt.tl.design_interventions(out, target.to_dict(), candidates=pool)
        ranking = out.uns["design"]["ranking"]["perturbation"].astype(str)
        return str(next(name for name in ranking if name in pool))

    return out, choose


class Alleles:
    """Alleles of all knock-outs: effects and standard errors (natural logarithms), and batches."""

    def __init__(self, folder: Path) -> None:
        tables = [
            pd.read_csv(folder / "morphic_bulk" / f"{name}.tsv.gz", sep="\t", index_col=0)
            for name in ("log2_fold_changes", "standard_errors")
        ]
        self.genes = tables[0].columns.to_numpy()
        self.effects, self.se = (each.to_numpy() * np.log(2) for each in tables)
        self.batch, allele = zip(*(row.split("|") for row in tables[0].index), strict=True)
        self.rows: dict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(allele):
            self.rows[name.rsplit("_", 1)[0]].append(row)
        self.several = [name for name, rows in self.rows.items() if len(rows) > 1]

    def pick(self, number: int) -> dict[str, int]:
        """Return one row of every knock-out."""
        every = enumerate(self.rows.items())
        return {name: rows[(number + i) % len(rows)] for i, (name, rows) in every}

    def others(self, name: str, picked: dict[str, int]) -> list[int]:
        """Return the rows of a knock-out that are not in the table."""
        return [row for row in self.rows[name] if row != picked[name]]

    def distance(self, one: list[int], other: list[int] | None, genes: Array) -> float:
        """Return the squared distance of two knock-outs, ``None`` for the control, unbiased."""
        wild = WILD_TYPE * (self.se[np.ix_(one, genes)] ** 2).mean(axis=0).sum()
        a = self.effects[np.ix_(one, genes)]
        found = -a.var(axis=0, ddof=1).sum() / len(one)
        if other is None:
            return float((a.mean(axis=0) ** 2).sum() + found - wild)
        b = self.effects[np.ix_(other, genes)]
        found += ((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum()
        found -= b.var(axis=0, ddof=1).sum() / len(other)
        apart = not {self.batch[i] for i in one} & {self.batch[i] for i in other}
        return float(found - 2.0 * wild * apart)

    def covered(self, out: Any, picked: dict[str, int], genes: Array) -> dict[str, float]:
        """Return how often intervals cover another allele of the same batch, by knock-out."""
        npt.tl.perturbation_effects(out)
        found = out.uns["perturbation_effects"]
        names, found_genes = ([*map(str, found[x])] for x in ("perturbations", "genes"))
        order = pd.Index(found_genes).get_indexer(self.genes[genes])
        half = (np.asarray(found["upper"]) - np.asarray(found["lower"]))[:, order] / 2.0
        shares = {}
        for name in self.several:
            j, row = names.index(name), picked[name]
            mean = np.asarray(found["mean"])[j, order]
            same = [i for i in self.others(name, picked) if self.batch[i] == self.batch[row]]
            for i in same[:1]:
                error = Z90**2 * (1.0 - WILD_TYPE) * self.se[i, genes] ** 2
                inside = np.abs(self.effects[i, genes] - mean) <= np.sqrt(half[j] ** 2 + error)
                shares[name] = float(inside.mean())
        return shares


def on_alleles(data: Alleles, n_tables: int, n_genes: int) -> str:
    """Return the table of choices from one allele, judged by the others."""
    with_own, without, hits, inside = (defaultdict(lambda: defaultdict(list)) for _ in range(4))
    for number in range(n_tables):
        picked = data.pick(number)
        rows, names = [*picked.values()], [*picked]
        genes = np.sort(np.argsort(-data.effects[rows].var(axis=0))[:n_genes])
        effects, se = (
            pd.DataFrame(x[np.ix_(rows, genes)], names, data.genes[genes])
            for x in (data.effects, data.se)
        )
        ways = peers(effects, se)
        batch = {name: data.batch[row] for name, row in picked.items()}
        for way, told in TOLD.items():
            out, ways[f"nextpert, {way}"] = ours(effects, se, batch, **told)
            for name, share in data.covered(out, picked, genes).items():
                inside[f"nextpert, {way}"][name].append(share)
        for name in data.several:
            rest = {each: data.others(each, picked) for each in data.several}
            whole = data.distance(rest[name], None, genes)
            far = {x: data.distance(rest[name], rest[x], genes) / whole for x in data.several}
            far[name] = 0.0
            pool = [each for each in data.several if each != name]
            target = pd.Series(
                data.effects[np.ix_(rest[name], genes)].mean(axis=0), effects.columns
            )
            with_own["random"][name].append(np.mean([*far.values()]))
            without["random"][name].append(np.mean([far[x] for x in pool]))
            without["nearest in truth"][name].append(min(far[x] for x in pool))
            for way, choose in ways.items():
                first = choose(target, data.several)
                with_own[way][name].append(far[first])
                hits[way][name].append(float(first == name))
                without[way][name].append(far[choose(target, pool)])

    def shown(found: Any, way: str) -> str:
        return with_error([np.mean(x) for x in found[way].values()]) if way in found else ""

    body = {
        way: [shown(x, way) for x in (hits, with_own, without, inside)]
        for way in ("nearest in truth", *with_own)
    }
    body["control"] = ["", "1", "1", ""]
    head = ("chosen by", "own knock-out first", "distance", "own excluded", "coverage")
    return table(head, body)


def simulated(n_tables: int) -> str:
    """Return the table of choices from simulated tables with nested batches."""
    found: Any = defaultdict(lambda: defaultdict(list))
    n, n_genes, n_batches = 24, 100, 6
    for seed in range(n_tables):
        rng = np.random.default_rng([seed, 8])
        size = np.where(np.arange(n) % 3 == 0, 1.0, 0.3)[:, None]
        true = size * rng.normal(size=(n, n_genes)) * rng.choice([0.3, 1.0], size=(n, n_genes))
        of, wild = np.arange(n) // (n // n_batches), rng.normal(size=(n_batches, n_genes)) / 3
        seen = true + rng.normal(size=true.shape) / np.sqrt(3) - wild[of]
        names, genes = [f"P{j:02}" for j in range(n)], [f"G{k:03}" for k in range(n_genes)]
        effects = pd.DataFrame(seen, names, genes)
        se = effects * 0 + np.sqrt(1 / 3 + 1 / 9)
        ways = peers(effects, se)
        batch = {name: f"b{b}" for name, b in zip(names, of, strict=True)}
        for way, told in TOLD.items():
            ways[f"nextpert, {way}"] = ours(effects, se, batch, **told)[1]
        for j in range(seed % 2, n, 2):
            whole = (true[j] ** 2).sum()
            far = dict(zip(names, ((true - true[j]) ** 2).sum(axis=1) / whole, strict=True))
            for kind, error in (("exact", 0.0), ("error of its batch", wild[of[j]])):
                target = pd.Series(true[j] - error, genes)
                for excluded in (False, True):
                    pool = [x for x in names if not excluded or x != names[j]]
                    for way, choose in ways.items():
                        key = f"{kind}{', own excluded' * excluded}"
                        found[way][key].append((seed, far[choose(target, pool)]))
                        found["random"][key].append((seed, np.mean([far[x] for x in pool])))
    kinds = [*next(iter(found.values()))]

    def by_table(pairs: list[tuple[int, float]]) -> str:
        return with_error(pd.DataFrame(pairs).groupby(0)[1].mean())

    rows = {way: [by_table(x[kind]) for kind in kinds] for way, x in found.items()}
    return table(["chosen by", *kinds], rows)


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = options("replicates", __doc__, data=True)
    parser.add_argument("--tables", type=int, default=4, help="of one allele of every knock-out")
    parser.add_argument("--genes", type=int, default=300)
    parser.add_argument("--screens", type=int, default=4, help="simulated tables")
    args = parser.parse_args(arguments)
    sections = []
    if args.tables:
        text = on_alleles(Alleles(Path(args.data)), args.tables, args.genes)
        sections.append(show(f"## Alleles, {args.genes} genes, {args.tables} tables\n\n{text}"))
    if args.screens:
        text = simulated(args.screens)
        sections.append(show(f"## Simulated, {args.screens} tables\n\n{text}"))
    save("replicates", sections, args.save)


if __name__ == "__main__":
    main()
