"""Plates that reduce uncertainty: the error of distances after two plates of 4 and a refit of each.

A run starts from 10 cells of every perturbation and 100 control cells. A plate has 4 perturbations
and 80 cells, no controls; ``tl.plan_screen(strategy="explore")`` chooses and splits. ``even`` gives
its perturbations the same cells each, ``random`` takes perturbations at random. After two plates
the error is that of the mean distances of all candidates, squared and weighted by the probability
at the start of being nearer than the control. Errors of two arms on the same run (the same cells,
in the same order) are compared.

Simulated worlds: 20 genes of 3 neighbours on average, 16 knockouts of an efficacy from U(0.2, 1)
(strong) or U(0.03, 0.25) (weak), towards the state of two of them together, which is given as
numbers; on the true graph, or on none. Real screens: half of the cells can be drawn, the mean of
the others of a perturbation is the target, and theirs is the truth; no graph.

The chain has 250 sweeps. Runs of another version are compared by their file:

    python -m benchmarks.explore --runs 40 --save new.csv
    PYTHONPATH=/of/another/version/src:. python -m benchmarks.explore --arms explore --save old.csv
    python -m benchmarks.explore --read new.csv --against old.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._quiet import quiet
from benchmarks._screens import SOURCES, read_screen
from nextpert.core import LinearScm, random_scm
from nextpert.core.model.chain import Chain

SIMULATED = {
    "strong, true graph": ((0.2, 1.0), True),
    "strong, no graph": ((0.2, 1.0), False),
    "weak, true graph": ((0.03, 0.25), True),
    "weak, no graph": ((0.03, 0.25), False),
}
REAL = ("tapseq", "papalexi", "norman")
START, CONTROLS, WELLS, CELLS, LEAST, PLATES, GENES = 10, 100, 4, 80, 5, 1, 50


@dataclass(frozen=True)
class World:
    """Cells of the controls and of every candidate, in the order they come, and what is true."""

    genes: list[str]
    control: np.ndarray
    cells: dict[str, np.ndarray]
    target: dict[str, float]
    truth: np.ndarray
    edges: list[tuple[str, str]]

    def fit(self, seen: dict[str, int]) -> ad.AnnData:
        """Return the screen of the cells seen so far, fitted."""
        rows = {"control": self.control} | {j: self.cells[j][:n] for j, n in seen.items()}
        label = np.repeat(list(rows), [len(x) for x in rows.values()])
        obs = pd.DataFrame({"perturbation": label}, index=[f"c{i}" for i in range(len(label))])
        adata = ad.AnnData(np.concatenate([*rows.values()]), obs, pd.DataFrame(index=self.genes))
        npt.pp.setup_screen(adata, perturbation_key="perturbation", control="control")
        npt.tl.learn_dag(adata, method="given", dag=self.edges, genes=self.genes)
        npt.tl.fit_dag_blr(adata)
        return adata

    def distances(self, adata: ad.AnnData) -> tuple[np.ndarray, np.ndarray]:
        """Return mean distances of the candidates, and their chances of being nearer."""
        npt.tl.design_interventions(adata, self.target, acquisition="greedy", n_samples=1000)
        table = adata.uns["design"]["ranking"]
        table = table.set_index("perturbation").loc[list(self.cells)]
        return table["mean_distance"].to_numpy(), table["probability_better"].to_numpy()


def simulated(name: str, seed: int) -> World:
    """Return a world on a random graph."""
    efficacy, graph = SIMULATED[name]
    rng = np.random.default_rng([seed, 7])  # the same with a graph and without
    unit = random_scm(20, "erdos_renyi", expected_degree=3, rng=rng)
    mean = rng.uniform(3, 5, 20)
    scm = LinearScm(unit.weights, unit.noise_var, mean - unit.weights @ mean)
    genes = [f"G{i}" for i in range(20)]
    which = rng.permutation(20)[:16]
    shifts = np.zeros((16, 20))
    shifts[np.arange(16), which] = -rng.uniform(*efficacy, 16) * mean[which]
    target = scm.mean(shifts[0] + shifts[1])
    cells = {
        genes[which[j]]: scm.sample(START + PLATES * CELLS, shifts[j], rng=rng) for j in range(16)
    }
    truth = np.array([((scm.mean(shift) - target) ** 2).sum() for shift in shifts])
    edges = [(genes[a], genes[b]) for a, b in scm.dag.edges()] if graph else []
    control = scm.sample(CONTROLS, rng=rng)
    return World(
        genes, control, cells, dict(zip(genes, target.tolist(), strict=True)), truth, edges
    )


def real(name: str, seed: int, folder: Path, kept: dict[str, object]) -> World:
    """Return a world of a real screen, split in halves."""
    if name not in kept:
        kept[name] = read_screen(folder, SOURCES[name], name=name, n_variable=GENES)
    screen = kept[name]
    roles = screen.environments.roles
    label = screen.cells.obs[roles.perturbation_key].astype(str).to_numpy()
    x, rng = np.asarray(screen.cells.X, float), np.random.default_rng([seed, 8])
    names = sorted(set(label) - {roles.control})
    halves = {}
    genes = np.array([str(gene) for gene in screen.cells.var_names])
    for each in [roles.control, *names]:
        rows = rng.permutation(np.flatnonzero(label == each))
        if each == roles.control:  # genes that none of the controls of a run has are left out
            varies = x[rows[:CONTROLS]].std(axis=0) > 0
            x, genes = x[:, varies], genes[varies]
        halves[each] = x[rows[: len(rows) // 2]], x[rows[len(rows) // 2 :]]
    error = {j: out.var(axis=0, ddof=1).sum() / len(out) for j, (_, out) in halves.items()}
    away = [
        ((halves[j][1].mean(axis=0) - halves[roles.control][1].mean(axis=0)) ** 2).sum() / error[j]
        for j in names
    ]
    strong = [j for j, ratio in zip(names, away, strict=True) if ratio > 3]
    wanted = strong[seed % len(strong)]
    mean = halves[wanted][1].mean(axis=0)
    truth = [
        error[j] if j == wanted else ((halves[j][1].mean(axis=0) - mean) ** 2).sum() - error[j]
        for j in names
    ]
    control = halves[roles.control][0][:CONTROLS]
    cells = {j: halves[j][0] for j in names}
    target = dict(zip(genes.tolist(), mean.tolist(), strict=True))
    return World(genes.tolist(), control, cells, target, np.array(truth), [])


def plate(world: World, adata: ad.AnnData, arm: str, rng: np.random.Generator) -> dict[str, int]:
    """Return the cells of each perturbation of a plate."""
    if arm == "random":
        chosen = rng.choice(list(world.cells), WELLS, replace=False)
        return dict.fromkeys(chosen.tolist(), CELLS // WELLS)
    npt.tl.plan_screen(
        adata, world.target, n_perturbations=WELLS, n_cells=CELLS, strategy="explore",
        n_controls=0, constraints={"min_cells": LEAST},
    )  # fmt: skip
    table = adata.uns["plan"]["plate"]
    told = dict(zip(table["perturbation"].astype(str), table["n_cells"].astype(int), strict=True))
    return dict.fromkeys(told, CELLS // WELLS) if arm == "even" else told


@quiet()
def run(world: World, arms: list[str], seed: int) -> dict[str, float]:
    """Return the weighted error of distances at the start, and after the plates of each arm."""
    seen = {j: min(START, len(x)) for j, x in world.cells.items()}
    first = world.fit(seen)
    mean, nearer = world.distances(first)
    weights = (nearer if nearer.any() else np.ones(len(nearer))) / max(nearer.sum(), 1e-9)
    found = {"start": float(weights @ (mean - world.truth) ** 2)}
    for arm in arms:
        now, adata, rng = dict(seen), first, np.random.default_rng([seed, 9])
        for _ in range(PLATES):
            for j, n in plate(world, adata, arm, rng).items():
                now[j] = min(now[j] + n, len(world.cells[j]))
            adata = world.fit(now)
        found[arm] = float(weights @ (world.distances(adata)[0] - world.truth) ** 2)
    return found


def compared(one: np.ndarray, other: np.ndarray) -> str:
    """Return the ratio of mean errors and the mean ratio, each with its standard error."""
    scale = one + other  # of a run, so that none outweighs the others
    a, b = one / scale, other / scale
    ratio = a.sum() / b.sum()
    error = np.std(a - ratio * b, ddof=1) / b.mean() / np.sqrt(len(a))
    whole = one.sum() / other.sum()
    spread = np.std(one - whole * other, ddof=1) / other.mean() / np.sqrt(len(a))
    return f"{ratio:.2f} ± {error:.2f} | {whole:.2f} ± {spread:.2f} | {len(a)}"


def report(new: pd.DataFrame, against: pd.DataFrame | None) -> str:
    """Return the table of all worlds."""
    lines = ["| world | compared | ratio, runs alike | ratio of sums | runs |", "|---" * 5 + "|"]
    for world, mine in new.groupby("world", sort=False):
        table = mine.pivot_table(index="seed", columns="arm", values="error")
        pairs = [("explore over random", "explore", table.get("random"))]
        pairs.append(("even over random", "even", table.get("random")))
        if against is not None:
            theirs = against[against["world"] == world]
            theirs = theirs.pivot_table(index="seed", columns="arm", values="error")
            other = theirs["explore"].reindex(table.index) if len(theirs) else None
            pairs.insert(0, ("explore over explore of the other version", "explore", other))
        for name, arm, other in pairs:
            if other is None or arm not in table:
                continue
            both = pd.DataFrame({"one": table[arm], "other": other}).dropna()
            if len(both) > 2:
                found = compared(both["one"].to_numpy(), both["other"].to_numpy())
                lines.append(f"| {world} | {name} | {found} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the worlds, or compare runs that were saved."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.explore", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--worlds", nargs="+", default=[*SIMULATED, *REAL])
    parser.add_argument("--arms", nargs="+", default=["explore", "random"])
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--first", type=int, default=0, help="seed of the first run")
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "data"))
    parser.add_argument("--save", type=Path)
    parser.add_argument("--read", type=Path, help="compare these runs instead of new ones")
    parser.add_argument("--against", type=Path)
    args = parser.parse_args(arguments)
    if args.read is None:
        Chain.of_size = classmethod(lambda cls, size: cls(50, 200, 1))  # 250 sweeps
        rows, kept, start = [], {}, time.process_time()
        for seed in range(args.first, args.first + args.runs):  # by turns, so that all have some
            for name in args.worlds:
                world = (
                    simulated(name, seed) if name in SIMULATED
                    else real(name, seed, Path(args.data), kept)
                )  # fmt: skip
                rows += [(name, seed, *each) for each in run(world, args.arms, seed).items()]
            if args.save is not None:
                with args.save.open("w", newline="") as file:
                    csv.writer(file).writerows([("world", "seed", "arm", "error"), *rows])
            took = time.process_time() - start
            print(f"run {seed}: {took:.0f} s of the processor so far", file=sys.stderr, flush=True)
        new = pd.DataFrame(rows, columns=["world", "seed", "arm", "error"])
    else:
        new = pd.read_csv(args.read)
    print(report(new, None if args.against is None else pd.read_csv(args.against)))


if __name__ == "__main__":
    main()
