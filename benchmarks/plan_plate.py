"""The next plate on real screens: from half of the cells, scored by the other half.

The cells of every perturbation, and the controls, are split in halves: one is what is known, the
other gives the states to reach, as means of all genes, and the truth. Towards the state of every
perturbation above noise (squared distance to the controls above three standard errors) a plate of
8 perturbations and 2,000 cells is planned by ``tl.plan_screen``, three times:

- measured: half of the target's own cells are known, it is one of the candidates. Held: it is on
  the plate.
- others: none of its cells are known and it is no candidate. Held: the truly nearest of the others
  (by the other half, sampling error taken out) is on the plate.
- never tried: none of its cells are known, and every gene of the panel is a candidate, its own
  among them (targets of measured genes only). Held: its own gene is on the plate.

Beside each strategy of ``tl.plan_screen``: the best candidate known before any plate, as the plan
names it; the 8 of least predicted distance
(greedy); the first 8 by CIV of a single step (both as ``tl.design_interventions`` ranks); the 8
whose means of the known cells are nearest (no model); and random ones. "said" is the plan's own
probability that it holds the nearest of all candidates, on average, and "left" the true distance
of the truly nearest on the plate, as a share of that of the control; genes that nobody
perturbed count as the control. No graph, or with ``--graph`` one learned from the known cells.

    python -m benchmarks.plan_plate                         # data: NEXTPERT_DATA
    python -m benchmarks.plan_plate --screens tapseq --splits 1 --figures /a/folder
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import nextpert as npt
from benchmarks._cells import table
from benchmarks._quiet import quiet
from benchmarks._screens import SOURCES, read_screen
from nextpert.core import Moments
from nextpert.core.screen.mean_distance import mean_distance

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    import pandas as pd

    from benchmarks._screens import Screen

STRATEGIES = ("both", "exploit", "explore")
CASES = ("measured", "others", "never tried")
COLUMNS = (
    "perturbation", "n_cells", "n_cells_seen", "strategy", "why", "state_distance",
    "probability_contains_best", "variance_reduction", "predicted_distance", "predicted_low",
    "predicted_high",
)  # fmt: skip


class Scored(NamedTuple):
    """A plate: whether it holds what it should, the distance left, and what the plan said."""

    held: float
    left: float
    said: float = np.nan


class Halves:
    """A screen's cells in halves: those known, and moments of the other half by label."""

    def __init__(self, screen: Screen, guide_key: str | None, seed: int, *, graph: bool) -> None:
        roles = screen.environments.roles
        self.screen, self.roles, self.guide_key, self.graph = screen, roles, guide_key, graph
        self.label = screen.cells.obs[roles.perturbation_key].astype(str).to_numpy()
        self.names = sorted(set(self.label) - {roles.control})
        self.genes = [str(gene) for gene in screen.cells.var_names]
        rng, x = np.random.default_rng(seed), np.asarray(screen.cells.X)
        self.known = np.zeros(len(self.label), bool)
        self.truth: dict[str, Moments] = {}
        for name in [*self.names, roles.control]:
            rows = rng.permutation(np.flatnonzero(self.label == name))
            self.known[rows[: len(rows) // 2]] = True
            self.truth[name] = Moments.from_array(x[rows[len(rows) // 2 :]])

    def fit(self, without: str | None = None) -> ad.AnnData:
        """Return the known cells, fitted; without those of one perturbation."""
        adata = self.screen.cells[self.known & (self.label != without)].copy()
        npt.pp.setup_screen(
            adata, perturbation_key=self.roles.perturbation_key, control=self.roles.control,
            guide_key=self.guide_key,
        )  # fmt: skip
        if self.graph:
            npt.tl.learn_dag(adata, method="boss", environments="all")
        else:
            npt.tl.learn_dag(adata, method="given", dag=[])
        npt.tl.fit_dag_blr(adata)
        return adata

    def state(self, name: str) -> dict[str, float]:
        """Return the state to reach."""
        return dict(zip(self.genes, self.truth[name].mean.tolist(), strict=True))

    def distances(self, target: str) -> dict[str, float]:
        """Return the true distances over that of the controls; the target's own is 0."""
        found = {
            name: mean_distance(each, self.truth[target]).estimate
            for name, each in self.truth.items()
            if name != target
        }
        nothing = found.pop(self.roles.control)
        return {target: 0.0} | {name: value / nothing for name, value in found.items()}

    def nearest_means(self, adata: ad.AnnData, target: str, size: int) -> list[str]:
        """Return the perturbations whose known cells lie nearest, sampling error taken out."""
        npt.tl.target_distances(adata, self.state(target))
        found = adata.uns["target_distances"]["table"]["perturbation"].astype(str)
        return [name for name in found if name != self.roles.control][:size]


def above_noise(screen: Screen) -> list[str]:
    """Return the perturbations that are clearly not where the controls are."""
    key, control = screen.environments.roles.perturbation_key, screen.control
    label, x = screen.cells.obs[key].astype(str).to_numpy(), np.asarray(screen.cells.X)
    nothing = Moments.from_array(x[label == control])
    away = {
        name: mean_distance(Moments.from_array(x[label == name]), nothing)
        for name in sorted(set(label) - {control})
    }
    return [name for name, found in away.items() if found.estimate > 3 * found.sd]


def plates(
    halves: Halves, adata: ad.AnnData, target: str, case: str, size: int, n_cells: int
) -> dict[str, Scored]:
    """Return the plates of one target by all ways, scored."""
    distance, state = halves.distances(target), halves.state(target)
    asked = "genes" if case == "never tried" else None
    wanted = min(set(distance) - {target}, key=distance.__getitem__)
    wanted = wanted if case == "others" else target
    out = {}

    def score(chosen: list[str], said: float = np.nan) -> Scored:
        left = min(distance.get(name, 1.0) for name in chosen)
        return Scored(float(wanted in chosen), left, said)

    for strategy in STRATEGIES:
        npt.tl.plan_screen(
            adata, state, strategy=strategy, candidates=asked, n_perturbations=size,
            n_cells=n_cells,
        )  # fmt: skip
        plan = adata.uns["plan"]
        wells, summary = plan["plate"].query("strategy != 'control'"), plan["summary"]
        out[f"plan_screen, strategy {strategy}"] = score(
            wells["perturbation"].tolist(), summary["probability_contains_best"]
        )  # fmt: skip
    out["no plate, best known"] = score([summary["best_known"]], summary["probability_best_known"])
    npt.tl.design_interventions(adata, state, acquisition="civ", candidates=asked, n_samples=500)
    ranking = adata.uns["design"]["ranking"]
    ranking = ranking[ranking["perturbation"] != halves.roles.control]
    out["greedy, least predicted"] = score(
        ranking.nsmallest(size, "predicted_distance")["perturbation"].tolist()
    )
    out["first by CIV of one step"] = score(ranking["perturbation"].head(size).tolist())
    out["cells' means"] = score(halves.nearest_means(adata, target, size))
    pool = ranking["perturbation"].tolist()
    rng = np.random.default_rng(0)
    left = np.mean([score(rng.choice(pool, size, replace=False).tolist()).left for _ in range(200)])
    out["random"] = Scored(size / len(pool), float(left))
    return out


def rows_of(found: dict[str, dict[str, list[Scored]]]) -> dict[str, list[str]]:
    """Return the rows of the table, way by way, three columns a case."""
    rows = defaultdict(list)
    for case in CASES:
        for way, scored in found[case].items():
            values = np.array(scored)
            held, left, said = values[:, 0].mean(), values[:, 1].mean(), values[:, 2].mean()
            rows[way] += [f"{held:.2f}", "" if np.isnan(said) else f"{said:.2f}", f"{left:.2f}"]
    return rows


def printed(plan: dict[str, Any]) -> str:
    """Return a plate with all that goes with it."""
    shown: pd.DataFrame = plan["plate"][list(COLUMNS)].round(3)
    rows = {str(row[0]): [str(value) for value in row[1:]] for row in shown.to_numpy()}
    summary = ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in plan["summary"].items()
    )
    return f"{table(list(COLUMNS), rows)}\n\n{summary}."


def run(screen: Screen, guide_key: str | None, args: argparse.Namespace) -> Iterator[str]:
    """Yield the section of one screen, after every split as it stands by then."""
    start, targets = time.perf_counter(), above_noise(screen)
    found: dict[str, dict[str, list[Scored]]] = {case: defaultdict(list) for case in CASES}
    examples: list[str] = []
    for seed in range(args.splits):
        halves = Halves(screen, guide_key, seed, graph=args.graph)
        every = halves.fit()
        for target in targets:
            absent = halves.fit(without=target)
            for case, adata in zip(CASES, (every, absent, absent), strict=True):
                if case == "never tried" and target not in screen.targets:
                    continue
                scored = plates(halves, adata, target, case, args.wells, args.cells)
                for way, one in scored.items():
                    found[case][way].append(one)
            print(f"{seed} {target}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        if seed == 0:
            examples = example(halves, every, args)
        title = f"## {screen.name}: {len(targets)} of {len(halves.names)} perturbations above noise"
        graph = "a learned graph" if args.graph else "no graph"
        title += f", {seed + 1} splits, plates of {args.wells}, {graph}"
        yield "\n\n".join([title, *shown(found), *examples])


def shown(found: dict[str, dict[str, list[Scored]]]) -> list[str]:
    """Return what was found, in words and as a table."""
    head = ["", *(f"{case}: {each}" for case in CASES for each in ("held", "said", "left"))]
    sizes = ", ".join(f"{len(found[case]['random'])} {case}" for case in CASES)
    return [f"Plates: {sizes}.", table(head, rows_of(found))]


def example(halves: Halves, every: ad.AnnData, args: argparse.Namespace) -> list[str]:
    """Return two plates towards the first split's strongest target, its own cells known or not."""
    nothing = halves.truth[halves.roles.control]
    target = max(
        halves.screen.targets, key=lambda name: mean_distance(halves.truth[name], nothing).estimate
    )
    parts = []
    for case, adata in (("measured", every), ("never tried", halves.fit(without=target))):
        npt.tl.plan_screen(
            adata, halves.state(target), strategy="both", n_perturbations=args.wells,
            n_cells=args.cells, candidates="genes" if case == "never tried" else None,
        )  # fmt: skip
        parts.append(f"A plate towards {target}, {case} (strategy both, first split):")
        parts.append(printed(adata.uns["plan"]))
        if args.figures:
            name = f"plan_plate_{halves.screen.name}_{case.replace(' ', '_')}.png"
            npt.pl.plan_screen(adata, show=False, save=Path(args.figures) / name)
    return parts


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Plan plates on the screens asked for, and print their tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.plan_plate", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--screens", nargs="+", default=["papalexi", "tapseq"], choices=SOURCES)
    parser.add_argument("--splits", type=int, default=3)
    parser.add_argument("--wells", type=int, default=8)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--graph", action="store_true", help="learn a graph")
    parser.add_argument("--figures", metavar="FOLDER", help="also draw the plates printed")
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    parser.add_argument(
        "--save", metavar="FILE", help="also write the tables to it, after every split"
    )
    args = parser.parse_args(arguments)
    sections = []
    for name in args.screens:
        source = SOURCES[name]
        screen = read_screen(Path(args.data), source, name=name)
        sections.append("")
        for section in run(screen, source.guide_key, args):
            sections[-1] = section
            if args.save:
                Path(args.save).write_text("\n\n".join(sections) + "\n")
        print(sections[-1], flush=True)


if __name__ == "__main__":
    main()
