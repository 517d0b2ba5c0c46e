"""Whether what is stated towards a target is true, in simulated worlds that differ in the target.

Screens have 10 measured perturbations with 8 to 40 cells, 200 control cells and 40 genes; cells are
coexpressed by three factors, and a perturbation has Laplace effects (scale 0.7, a cell's own SD
is 1) in 15% of the genes. The target state is the control plus

- **A**: a sum of the effects of one to three of the measured candidates, each times 0.3 to 1.2;
- **B**: the same of one to three of four candidates without cells;
- **C**: a sum like that of A, of effects of perturbations that are no candidates: it is unrelated;
- **D**: that of A, as a perturbation of the screen, named by its label, with cells of its own.

The target has a further SD of 0.05 per gene, and a squared distance of 2 or more to the control; in
A to C it is given as numbers. The statements are those of ``tl.plan_screen`` (8 perturbations, 600
cells, a plan that is filled) and ``tl.design_interventions`` after ``tl.learn_dag`` (no graph) and
``tl.fit_dag_blr``; ``tl.target_distances`` gives the unbiased
distances of the cells' means. The truth is that of the simulated states, and is used for nothing
else. "None closer": with the stated probability no candidate is closer than the best known by more
than 10% of the control's distance. The gain of a plan is realised by cells that are simulated for
this plan, and a new fit to all cells; the variance that is resolved is one minus the weighted mean
squared error of the mean distances after the plan, relative to that before. "At the target" counts
screens in which the control is said not to differ from the target; they state nothing else.
Values after ± are standard errors over screens.

    python -m benchmarks.statements                          # 60 screens of each world
    python -m benchmarks.statements --worlds A C --screens 20 --no-plates
    python -m benchmarks.statements --seeds 16               # how often the advice depends on rng
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table, with_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    Array = np.ndarray
    Found = dict[str, Any]

N_GENES, N_MEASURED, N_NEW, N_CONTROL = 40, 10, 4, 200
CELLS = (8, 40)  # least and most of a perturbation
SCALE, SHARE = 0.7, 0.15  # of Laplace effects, and of the genes that have them
FAR = 2.0  # least squared distance of a target; that of a mean of 20 cells has an error of 3.5
TOLERANCE = 0.1  # of "none closer", of the control's distance
BINS = (0.0, 0.5, 0.8, 0.95, 1.0)
PLAN = {"n_perturbations": 8, "n_cells": 600}
WORLDS = {
    "A": "made by measured candidates",
    "B": "made by candidates without cells",
    "C": "unrelated to the candidates",
    "D": "made by measured candidates, named by its label",
}
LABEL = "T"  # of the perturbation that is the target in D


@dataclass
class Screen:
    """A simulated screen with its truth.

    ``effect`` holds the true effects by label, ``state`` the target state, ``(n_genes,)``, and
    ``count`` the cells of each label so far.
    """

    world: str
    rng: np.random.Generator
    loadings: Array
    effect: dict[str, Array]
    state: Array
    count: dict[str, int]
    cells: ad.AnnData

    @property
    def candidates(self) -> list[str]:
        """The labels that can be chosen."""
        return [name for name in self.effect if name not in ("control", LABEL)]

    @property
    def target(self) -> str | dict[str, float]:
        """The target as a user gives it."""
        if self.world == "D":
            return LABEL
        return dict(zip(self.cells.var_names, self.state.tolist(), strict=True))

    def distances(self) -> pd.Series:
        """Return the true squared distances of candidates and control to the target."""
        names = [*self.candidates, "control"]
        return pd.Series(
            {name: ((5 + self.effect[name] - self.state) ** 2).sum() for name in names}
        )

    def measure(self, count: Mapping[str, int]) -> None:
        """Add cells of some labels."""
        names = np.repeat(list(count), list(count.values()))
        x = 5 + np.array([self.effect[name] for name in names])
        x = x + self.rng.normal(size=(len(x), len(self.loadings))) @ self.loadings
        x += self.rng.normal(size=x.shape)
        index = [f"c{self.cells.n_obs + i}" for i in range(len(x))]
        more = ad.AnnData(x, pd.DataFrame({"perturbation": names}, index=index), self.cells.var)
        self.cells = ad.concat([self.cells, more]) if self.cells.n_obs else more
        for name, n in count.items():
            self.count[name] = self.count.get(name, 0) + n

    def fitted(self) -> ad.AnnData:
        """Return all cells, with a posterior without a graph."""
        adata = self.cells.copy()
        npt.pp.setup_screen(
            adata, perturbation_key="perturbation", control="control", check_scale=False
        )
        npt.tl.learn_dag(adata, method="given", dag=[])
        npt.tl.fit_dag_blr(adata)
        return adata


def simulate(world: str, seed: int) -> Screen:
    """Draw a screen of a world."""
    rng = np.random.default_rng([seed, 64])
    measured = [f"P{k:02}" for k in range(N_MEASURED)]
    new = [f"P{N_MEASURED + k:02}" for k in range(N_NEW)]
    makers = {"B": new, "C": [f"Z{k}" for k in range(3)]}.get(world, measured)
    names = [*measured, *(makers if world in "BC" else [])]
    shape = len(names), N_GENES
    drawn = (rng.random(shape) < SHARE) * rng.laplace(scale=SCALE, size=shape)
    effect = {"control": np.zeros(N_GENES), **dict(zip(names, drawn, strict=True))}
    made = np.zeros(N_GENES)
    while (made**2).sum() < FAR:
        chosen = rng.choice(makers, rng.integers(1, 4), replace=False)
        made = np.sum([rng.uniform(0.3, 1.2) * effect[name] for name in chosen], axis=0)
        made = made + 0.05 * rng.normal(size=N_GENES)
    count = {"control": N_CONTROL, **{name: int(rng.integers(*CELLS)) for name in measured}}
    if world == "C":
        effect = {name: x for name, x in effect.items() if name not in makers}
    if world == "D":
        effect[LABEL], count[LABEL] = made, int(rng.integers(*CELLS))
    genes = pd.DataFrame(index=[f"G{i:02}" for i in range(N_GENES)])
    cells = ad.AnnData(np.zeros((0, N_GENES)), var=genes)
    loadings = 0.5 * rng.normal(size=(3, N_GENES))
    screen = Screen(world, rng, loadings, effect, 5 + made, {}, cells)
    screen.measure(count)
    return screen


def ranked(screen: Screen, adata: ad.AnnData, rng: int = 0) -> tuple[pd.DataFrame, Found]:
    """Return the ranking of a fit by label, and the advice."""
    npt.tl.design_interventions(adata, screen.target, candidates=screen.candidates, rng=rng)
    design = adata.uns["design"]
    return design["ranking"].set_index("perturbation"), design["advice"]


def errors_of(ranking: pd.DataFrame, truth: pd.Series) -> pd.Series:
    """Return stated mean distances minus true ones, relative to the control's true distance."""
    return (ranking["mean_distance"][truth.index] - truth) / truth["control"]


def judge(world: str, seed: int, *, plates: bool = True) -> Found:
    """Return what is stated and what is true in one screen, by statement."""
    screen = simulate(world, seed)
    truth, adata = screen.distances(), screen.fitted()
    ranking, _ = ranked(screen, adata)
    # The plan is made whatever is advised, because the gain is stated in every advice.
    npt.tl.plan_screen(
        adata, screen.target, candidates=screen.candidates, strategy="exploit", **PLAN
    )
    plan = adata.uns["plan"]
    advice, candidates = plan["advice"], screen.candidates
    npt.tl.target_distances(adata, screen.target)
    means = adata.uns["target_distances"]["table"].set_index("perturbation")["distance"]
    measured = [name for name in candidates if screen.count.get(name)]
    error = errors_of(ranking, truth)
    inside = (ranking["predicted_low"] <= truth[ranking.index]) & (
        truth[ranking.index] <= ranking["predicted_high"]
    )
    first = ranking.index[0]
    found: Found = {
        "kind": str(advice["kind"]),
        "bias": error[measured].mean(),
        "bias of the first": error[first],
        "bias of cells' means": ((means - truth)[measured] / truth["control"]).mean(),
        "interval covers": inside[measured].mean(),
        "nearest said": ranking["probability_best"][first],
        "nearest true": float(truth[candidates].idxmin() == first),
    }
    best = str(advice["best_known"])
    best = best if best in candidates else "control"
    is_within = truth[best] - truth.min() <= TOLERANCE * truth["control"]
    found |= {"none closer said": advice["good_enough"], "none closer true": float(is_within)}
    if not plates or not np.isfinite(advice["good_enough"]):
        return found
    plate = plan["plate"].set_index("perturbation")["n_cells"]
    screen.measure({name: int(n) for name, n in plate.items()})
    after, then = ranked(screen, screen.fitted())
    known = str(then["best_known"])
    known = known if known in candidates else "control"
    weight = ranking["probability_better"][candidates]
    squares = [
        (errors_of(each, truth)[candidates] ** 2 * weight).sum() for each in (ranking, after)
    ]
    return found | {
        "gain said": advice["relative_gain"],
        "gain true": (truth[best] - truth[known]) / truth["control"],
        "resolved said": plan["summary"]["variance_reduction"],
        "squares before": squares[0],
        "squares after": squares[1],
    }


def compared(found: pd.DataFrame, said: str) -> str:
    """Return stated and true values of a statement, and their difference, over screens."""
    pair = found[[f"{said} said", f"{said} true"]].dropna()
    if not len(pair):
        return "-"
    a, b = pair.to_numpy(float).T
    return f"{a.mean():.3f}, {with_error(b, 3)} ({with_error(a - b, 3)})"


def in_bins(found: pd.DataFrame, said: str) -> list[str]:
    """Return stated and true values of a statement by the stated probability."""
    stated = found[f"{said} said"].astype(float)
    cells = []
    for low, high in pairwise(BINS):
        top = stated <= high if high == 1 else stated < high
        some = found[(stated >= low) & top]
        a, b = some[f"{said} said"].astype(float), some[f"{said} true"].astype(float)
        # The standard error of a share under what is stated.
        error = np.sqrt((a * (1 - a)).sum()) / max(len(a), 1)
        cells.append(f"{a.mean():.2f}, {b.mean():.2f} ± {error:.2f} ({len(a)})" if len(a) else "-")
    return cells


def resolved(found: pd.DataFrame) -> str:
    """Return the share of variance that is said to be resolved, and the one that is."""
    if "squares before" not in found:
        return "-"
    some = found.dropna(subset=["squares before"])
    before, after = some["squares before"].to_numpy(float), some["squares after"].to_numpy(float)
    share = after.sum() / before.sum()
    error = np.sqrt(len(some)) * (after - share * before).std(ddof=1) / before.sum()
    return f"{some['resolved said'].mean():.2f}, {1 - share:.2f} ± {error:.2f}"


def sections(by_world: Mapping[str, pd.DataFrame]) -> list[str]:
    """Return the tables of all worlds."""
    parts = []
    head = ["world", "screens", "none closer", "the first is nearest", "gain of the plan"]
    rows = {
        f"{world}: {WORLDS[world]}": [
            len(x), *(compared(x, s) for s in ("none closer", "nearest")),
            compared(x, "gain") if "gain said" in x else "-",
        ]
        for world, x in by_world.items()
    }  # fmt: skip
    parts.append("Stated, true (stated minus true):\n\n" + table(head, rows))
    head = [
        "world", "resolved: stated, true", "bias of mean distances", "of the first",
        "of cells' means", "90% intervals cover", "at the target",
    ]  # fmt: skip
    rows = {
        world: [
            resolved(x), with_error(x["bias"], 3), with_error(x["bias of the first"], 3),
            with_error(x["bias of cells' means"], 3), with_error(x["interval covers"]),
            int(x["none closer said"].isna().sum()),
        ]
        for world, x in by_world.items()
    }  # fmt: skip
    parts.append("Distances, relative to the control's true distance:\n\n" + table(head, rows))
    head = ["world", *(f"{a:g} to {b:g}" for a, b in pairwise(BINS))]
    for said in ("none closer", "nearest"):
        rows = {world: in_bins(x, said) for world, x in by_world.items()}
        parts.append(f"“{said}” by the stated probability: stated, true (screens):\n\n")
        parts[-1] += table(head, rows)
    return parts


def flips(n_screens: int, n_seeds: int = 4) -> str:
    """Return in how many screens the kind of advice depends on the seed of the ranking."""
    rows = {}
    for world in WORLDS:
        n, kinds = 0, []
        for seed in range(n_screens):
            screen = simulate(world, 10_000 + seed)
            with quiet():
                adata = screen.fitted()
                kinds = [str(ranked(screen, adata, rng)[1]["kind"]) for rng in range(n_seeds)]
            n += len(set(kinds)) > 1
        rows[world] = [f"{n} of {n_screens}"]
    return table(["world", f"advice differs between {n_seeds} seeds"], rows)


def run(world: str, n_screens: int, *, plates: bool = True, first: int = 0) -> pd.DataFrame:
    """Return what is stated and true in the screens of a world, one row each."""
    start, found = time.perf_counter(), []
    for seed in range(first, first + n_screens):
        with quiet():
            found.append(judge(world, seed, plates=plates) | {"seed": seed})
    print(f"{world}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return pd.DataFrame(found)


def main(arguments: list[str] | None = None) -> None:
    """Run the worlds that are named, and print their tables."""
    parser = options("statements", __doc__)
    parser.add_argument("--worlds", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    parser.add_argument("--screens", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="seed of the first screen")
    parser.add_argument("--no-plates", action="store_true", help="without gains of plans")
    parser.add_argument("--seeds", type=int, metavar="N", help="only stability, in N screens")
    parser.add_argument("--raw", metavar="FILE", help="write the numbers of all screens (csv)")
    args = parser.parse_args(arguments)
    if args.seeds:
        parts = [show(flips(args.seeds))]
    else:
        more = {"plates": not args.no_plates, "first": args.first}
        by_world = {world: run(world, args.screens, **more) for world in args.worlds}
        if args.raw:
            pd.concat(by_world, names=["world"]).to_csv(args.raw)
        parts = [show(part) for part in sections(by_world)]
    save("statements", parts, args.save)


if __name__ == "__main__":
    main()
