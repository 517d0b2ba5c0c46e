"""Rounds that reduce uncertainty: the error of distances after a round of 4 and a refit.

A run starts from 10 cells of every perturbation and 100 control cells. A round has 4 perturbations
and 80 cells, without controls; ``tl.plan_screen(strategy="explore")`` chooses perturbations and
splits cells. ``even`` gives each of these perturbations the same number of cells, ``random``
chooses perturbations at random. The error after the round is the squared error of the mean
distances of all candidates, weighted by their initial probability of being nearer than the control.
Errors of two arms on the same run (the same cells, in the same order) are compared.

Simulated worlds: 20 genes of 3 neighbours on average, 16 knockouts of an efficacy from U(0.2, 1)
(strong) or U(0.03, 0.25) (weak), towards the state of two of them combined, which is given as
numbers; with the true graph, or without a graph. Real screens: half of the cells can be drawn; the
means of the other half give the target and the true distances; there is no graph.

The chain has 250 sweeps.

    python -m benchmarks.explore                        # 40 runs of each world
    python -m benchmarks.explore --runs 6 --arms explore even random
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._page import options, quiet, ratio, save, show, table
from benchmarks._screens import SOURCES, read_screen
from nextpert.core import LinearScm, random_scm
from nextpert.core.model.sampler import Chain

if TYPE_CHECKING:
    from benchmarks._screens import Screen

SIMULATED = {
    "strong, true graph": ((0.2, 1.0), True),
    "strong, no graph": ((0.2, 1.0), False),
    "weak, true graph": ((0.03, 0.25), True),
    "weak, no graph": ((0.03, 0.25), False),
}
REAL = ("tapseq", "papalexi", "norman")
START, CONTROLS, WELLS, CELLS, LEAST, GENES = 10, 100, 4, 80, 5, 50


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
    cells = {genes[which[j]]: scm.sample(START + CELLS, shifts[j], rng=rng) for j in range(16)}
    truth = np.array([((scm.mean(shift) - target) ** 2).sum() for shift in shifts])
    edges = [(genes[a], genes[b]) for a, b in scm.dag.edges()] if graph else []
    control = scm.sample(CONTROLS, rng=rng)
    return World(
        genes, control, cells, dict(zip(genes, target.tolist(), strict=True)), truth, edges
    )


def real(screen: Screen, seed: int) -> World:
    """Return a world of a real screen, split in halves."""
    control, label = screen.control, screen.labels()
    x, rng = np.asarray(screen.cells.X, float), np.random.default_rng([seed, 8])
    names = sorted(set(label) - {control})
    halves = {}
    genes = np.array([str(gene) for gene in screen.cells.var_names])
    for each in [control, *names]:
        rows = rng.permutation(np.flatnonzero(label == each))
        if each == control:  # genes that none of the controls of a run has are left out
            varies = x[rows[:CONTROLS]].std(axis=0) > 0
            x, genes = x[:, varies], genes[varies]
        halves[each] = x[rows[: len(rows) // 2]], x[rows[len(rows) // 2 :]]
    error = {j: out.var(axis=0, ddof=1).sum() / len(out) for j, (_, out) in halves.items()}
    mean = {j: out.mean(axis=0) for j, (_, out) in halves.items()}
    strong = [j for j in names if ((mean[j] - mean[control]) ** 2).sum() > 3 * error[j]]
    wanted = strong[seed % len(strong)]
    truth = [
        error[j] if j == wanted else ((mean[j] - mean[wanted]) ** 2).sum() - error[j] for j in names
    ]
    target = dict(zip(genes.tolist(), mean[wanted].tolist(), strict=True))
    cells = {j: halves[j][0] for j in names}
    return World(genes.tolist(), halves[control][0][:CONTROLS], cells, target, np.array(truth), [])


def plate(world: World, adata: ad.AnnData, arm: str, rng: np.random.Generator) -> dict[str, int]:
    """Return the cells of each perturbation of a round."""
    if arm == "random":
        chosen = rng.choice(list(world.cells), WELLS, replace=False)
        return dict.fromkeys(chosen.tolist(), CELLS // WELLS)
    npt.tl.plan_screen(
        adata, world.target, n_perturbations=WELLS, n_cells=CELLS * 3 // 2, strategy="explore",
        constraints={"min_cells": LEAST},
    )  # fmt: skip
    table = adata.uns["plan"]["plate"].head(WELLS)  # without the controls, a third of the cells
    told = dict(zip(table["perturbation"].astype(str), table["n_cells"].astype(int), strict=True))
    return dict.fromkeys(told, CELLS // WELLS) if arm == "even" else told


@quiet()
def run(world: World, arms: list[str], seed: int) -> dict[str, float]:
    """Return the weighted error of distances at the start, and after the round of each arm."""
    seen = {j: min(START, len(x)) for j, x in world.cells.items()}
    first = world.fit(seen)
    mean, nearer = world.distances(first)
    weights = (nearer if nearer.any() else np.ones(len(nearer))) / max(nearer.sum(), 1e-9)
    found = {"start": float(weights @ (mean - world.truth) ** 2)}
    for arm in arms:
        now = dict(seen)
        for j, n in plate(world, first, arm, np.random.default_rng([seed, 9])).items():
            now[j] = min(now[j] + n, len(world.cells[j]))
        found[arm] = float(weights @ (world.distances(world.fit(now))[0] - world.truth) ** 2)
    return found


def report(runs: pd.DataFrame, arms: list[str]) -> str:
    """Return the table of all worlds: errors over those of random rounds.

    Errors of a run are divided by their sum, so that no run outweighs the others.
    """
    rows = []
    for world, mine in runs.groupby("world", sort=False):
        errors = mine.pivot_table(index="seed", columns="arm", values="error")
        for arm in arms:
            one, other = errors[arm].to_numpy(), errors["random"].to_numpy()
            alike = ratio(one / (one + other), other / (one + other))
            rows.append([world, f"{arm} / random", alike, ratio(one, other), len(one)])
    return table(("world", "compared", "ratio, equal weights", "ratio of sums", "runs"), rows)


def main(arguments: list[str] | None = None) -> None:
    """Run the worlds and print the table."""
    parser = options("explore", __doc__, data=True)
    parser.add_argument("--worlds", nargs="+", default=[*SIMULATED, *REAL])
    parser.add_argument("--arms", nargs="+", default=["explore", "random"])
    parser.add_argument("--runs", type=int, default=40)
    args = parser.parse_args(arguments)
    Chain.of_size = classmethod(lambda cls, size: cls(50, 200, 1))  # 250 sweeps
    rows = []
    for name in args.worlds:
        screen = None
        if name in REAL:
            screen = read_screen(args.data, SOURCES[name], name=name, n_variable=GENES)
        for seed in range(args.runs):
            world = simulated(name, seed) if screen is None else real(screen, seed)
            rows += [(name, seed, *each) for each in run(world, args.arms, seed).items()]
    runs = pd.DataFrame(rows, columns=["world", "seed", "arm", "error"])
    others = [arm for arm in args.arms if arm != "random"]
    save("explore", [show(report(runs, others))], args.save)


if __name__ == "__main__":
    main()
