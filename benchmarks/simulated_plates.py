"""Simulated plates: cells until a state is found, by how plates are chosen and by what is known.

Plates of 8 perturbations x 10 cells after 100 controls, at most 8 plates. After each plate the
perturbation expected nearest is recommended. A campaign is done as soon as the recommended one
goes, and stays to go, 90% of the way from the control to the best candidate, by true squared
distances of the states; "cells" are those seen by then (perturbed ones), 80 more than all where it
never does. All strategies of a repeat see the same cells; models have the true graph, unless the
row says otherwise.

Copies of TAP-seq and Papalexi are drawn from a fit to all of their cells (its graph, learned from
the controls; noise, shifts, number of cells) anew in each repeat, where some of the perturbations
above noise, drawn at random, are the target in turn, in the pool of candidates or held out of it
(where the best of the others goes a tenth of the way or more), told by half of its cells. In the
30-gene setting each repeat is another random graph (4 neighbours a gene) with 30 knockouts, their
efficacies uniform on .2 to 1. The target is the state of a pair of knockouts, which as such is no
candidate, or that of a shift on the 10 most downstream genes.

Rows below "ours, best" change one thing in it. ``exact``: shifts taken as full knockouts. ``five
graphs``: learned from resamples of the 100 controls, all counting alike; ``one graph``: from the
controls themselves. ``pairs``: all 435 pairs are candidates beside the 30 knockouts, pairs without
cells expected at the sum of both shifts; the goal is still that of knockouts alone. ``guides``: 4 a
perturbation, of variance .2 between guides over that of cells (TAP-seq: .0018, as learned there),
distinguished by the fit or not.

    python -m benchmarks.simulated_plates
    python -m benchmarks.simulated_plates --sections pair --repeats 10
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import ttest_1samp
from threadpoolctl import threadpool_limits

from benchmarks._cells import Cells, read_cells, table
from benchmarks._plate_worlds import (
    GENES,
    N_CELLS,
    ROUNDS,
    WELLS,
    World,
    campaign,
    copied,
    drawn,
)
from benchmarks._screens import SOURCES, read_screen
from benchmarks.own_state import above_noise
from nextpert._adata import Naming
from nextpert._adata.environments import Plan
from nextpert.core import Dag, DagBlr, Moments, boss
from nextpert.core.design.goal import Goal
from nextpert.core.evaluate.cell_pool import PoolEnvironments
from nextpert.tl._fit_dag_blr.model import Graphs, Spec
from nextpert.tl._replay_design.modelled import Told
from nextpert.tl._replay_design.tables import holm, plates_until_good

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._plate_worlds import Chooser

OURS, RANDOM, MEANS = "ours, best", "ours, random plates", "no model, Thompson"


class Way(NamedTuple):
    """How plates are chosen, and what the model has."""

    rule: str
    exact: bool = False
    graph: str = "true"
    pairs: bool = False
    guides: bool = True


STRATEGIES = {
    OURS: Way("exploit"),
    "ours, greedy by expectation": Way("greedy"),
    "ours, top 8 by CIV": Way("civ"),
    "ours, Thompson": Way("thompson"),
    RANDOM: Way("random"),
    "exact shifts, best": Way("exploit", exact=True),
    "exact shifts, greedy": Way("greedy", exact=True),
    MEANS: Way("thompson_means"),
    "no model, in turn": Way("round_robin_means"),
}
NO_GRAPH = {"best, no graph": Way("exploit", graph="none")}
GRAPHS = NO_GRAPH | {
    "best, one graph": Way("exploit", graph="one"),
    "best, five graphs": Way("exploit", graph="five"),
}
PAIRS = {
    "best, pairs": Way("exploit", pairs=True),
    "random plates, pairs": Way("random", pairs=True),
}
GUIDES = {OURS: Way("exploit"), "best, guides not distinguished": Way("exploit", guides=False)}


def chooser(world: World, may: np.ndarray, way: Way, rng: np.random.Generator) -> Chooser:
    """Return a strategy; candidates bear the names of the genes that they target."""
    genes = [f"gene {i}" for i in range(world.scm.n_nodes)]
    targets = [[genes[i] for i in np.flatnonzero(row)] for row in world.full[may]]
    names = ["+".join(some) or f"candidate {j}" for j, some in enumerate(targets)]
    naming = Naming(frozenset(genes))
    spec = Spec(genes, Plan(names, targets, [], "knockout"), DagBlr, naming)
    group = np.repeat(np.arange(len(may) + 1), world.n_guides)
    none = np.zeros(0, np.int64)
    environments = PoolEnvironments(
        group, group, np.arange(len(group)), np.zeros((len(group), 0)), none, none
    )
    told = Told(spec, graphs(world, way), environments, way.guides and world.n_guides > 1)
    rule = f"exact_{way.rule}" if way.exact else way.rule
    return told.build(rule, Goal.point(world.target), np.arange(len(may)), rng)


def graphs(world: World, way: Way) -> Graphs:
    """Return the true graph, none, that of the controls, or those of five resamples of them."""
    if way.graph == "true":
        return Graphs.single(world.scm.dag)
    if way.graph == "none":
        return Graphs.single(Dag.from_edges(world.scm.n_nodes, []))
    draw, control = np.random.default_rng([*world.seed, 0]), world.cells(-1)
    every = [control]
    if way.graph == "five":
        every += [control[draw.integers(len(control), size=len(control))] for _ in range(5)]
    first, *others = [boss(Moments.from_array(x), rng=0).dag for x in every]
    return Graphs(first, others, lambda folds: [first] * len(folds))


def outcome(world: World, single: np.ndarray, may: np.ndarray, way: Way, seed: list[int]) -> tuple:
    """Return plates, cells, whether it was done, and the share of the distance that is left."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(may)
    best, seen = campaign(world, chooser(world, order, way, rng), order)
    least = world.distance[single].min()
    done = world.distance[best] <= least + 0.1 * (world.nothing - least)
    plates = int(plates_until_good(done))
    cells = seen[plates] if plates <= ROUNDS else seen[-1] + WELLS * N_CELLS
    return plates, cells, done[-1], world.distance[best[-1]] / world.nothing


Found = np.ndarray  # shape (n_ways, n_repeats, 4): the means over targets of outcomes


def repeat_of(worlds: list[tuple[World, np.ndarray]], ways: dict[str, Way], repeat: int) -> Found:
    """Return the outcomes of a repeat, the mean over targets, shape ``(n_ways, 4)``."""
    out = [
        [
            outcome(world, may, np.arange(len(world.full)) if way.pairs else may, way, [repeat, k])
            for way in ways.values()
        ]
        for k, (world, may) in enumerate(worlds)
    ]
    return np.mean(np.array(out, float), axis=0)


def shown(title: str, ways: dict[str, Way], found: Found) -> str:
    """Return the table of a section."""
    names, n = list(ways), found.shape[1]
    against = [name for name in (RANDOM, MEANS, OURS) if name in ways]
    gaps = {
        (name, base): found[names.index(name), :, 1] - found[names.index(base), :, 1]
        for base in against for name in names
        if name != base and not (base == OURS and name in (RANDOM, MEANS))
    }  # fmt: skip
    p = holm(np.array([ttest_1samp(g, 0).pvalue if g.any() else 1.0 for g in gaps.values()]))
    told = {
        key: f"{g.mean():+.0f} ± {g.std(ddof=1) / np.sqrt(n):.0f} (p {each:.2g})"
        for (key, g), each in zip(gaps.items(), p, strict=True)
    }
    rows = {}
    for k, name in enumerate(names):
        plates, cells, done, left = found[k].mean(axis=0)
        error = found[k, :, 1].std(ddof=1) / np.sqrt(n)
        rows[name] = [
            f"{plates:.2f}", f"{cells:.0f} ± {error:.0f}", f"{done:.0%}", f"{left:.2f}",
            *(told.get((name, base), "") for base in against),
        ]  # fmt: skip
    head = ["", "plates", "cells", "done", "distance left", *(f"less {b}" for b in against)]
    return f"## {title}, {n} repeats\n\n{table(head, rows)}\n"


@cache
def screen_of(name: str, data: str) -> tuple[Cells, Dag, list[int]]:
    """Return a screen's cells, graph, and the perturbations that are above noise."""
    cells = read_cells(read_screen(Path(data), SOURCES[name], name=name, min_seen=0.1))
    dag = boss(Moments.from_array(cells.x[cells.code == 0]), rng=0).dag
    return cells, dag, [j - 1 for j in above_noise(cells)]


def copies(
    cells: Cells, dag: Dag, targets: list[int], held_out: bool, repeat: int, most: int,
    **guides: float,
) -> list[tuple[World, np.ndarray]]:  # fmt: skip
    """Return the worlds of a repeat with their candidates, of at most so many targets."""
    out = []
    for t, world in copied(cells, dag, targets, repeat, **guides):
        may = np.arange(len(world.full))
        may = np.delete(may, t) if held_out else may
        if world.distance[may].min() <= 0.9 * world.nothing:
            out.append((world, may))
    order = np.random.default_rng([repeat, 5]).permutation(len(out))
    return [out[k] for k in order[:most]]


def section(name: str, data: str, most: int) -> tuple[str, dict[str, Way], Callable[[int], list]]:
    """Return title, rows and the worlds of a repeat, of at most so many targets."""
    single = np.arange(GENES)
    many = {"n_guides": 4, "guide_variance": 0.0018 if name.startswith("tapseq") else 0.2}
    if name in ("pair", "downstream"):
        title = "30 genes: " + {"pair": "a pair's state", "downstream": "downstream genes"}[name]
        ways = STRATEGIES | GRAPHS | PAIRS
        return title, ways, lambda r: [(drawn(name, r), single)]
    if name == "guides":
        title = "30 genes, guides of variance .2: a pair's state"
        return title, GUIDES, lambda r: [(drawn("pair", r, **many), single)]
    screen, what = name.split("_")
    got = screen_of(screen, data)
    title = f"Copies of {screen}, {got[0].x.shape[1]} genes, {len(got[0].names) - 1} perturbations"
    if what == "guides":
        title += ", guides of variance .0018: targets in the pool"
        return title, GUIDES, lambda r: copies(*got, False, r, most, **many)
    held = what == "held"
    where = "held out" if held else "in the pool"
    title += f": {min(most, len(got[2]))} of {len(got[2])} targets a repeat, {where}"
    return title, STRATEGIES | NO_GRAPH, lambda r: copies(*got, held, r, most)


SECTIONS = {  # repeats of each, and targets in a repeat
    "tapseq_pool": (4, 8), "tapseq_held": (6, 2), "papalexi_pool": (6, 3), "papalexi_held": (5, 2),
    "pair": (20, 1), "downstream": (6, 1), "guides": (15, 1), "tapseq_guides": (5, 2),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Run the sections asked for and print their tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.simulated_plates", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--sections", nargs="+", default=list(SECTIONS), choices=SECTIONS)
    parser.add_argument("--repeats", type=int, help="of each section, in place of its own")
    parser.add_argument("--targets", type=int, help="in a repeat of a copy")
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    parser.add_argument("--save", metavar="FILE", help="also write the tables to this file")
    args = parser.parse_args(arguments)
    parts = []
    for name in args.sections:
        start = time.perf_counter()
        repeats, most = args.repeats or SECTIONS[name][0], args.targets or SECTIONS[name][1]
        title, ways, worlds = section(name, args.data, most)
        with threadpool_limits(1):
            found = [repeat_of(worlds(r), ways, r) for r in range(repeats)]
        parts.append(shown(title, ways, np.stack(found, axis=1)))
        print(parts[-1], flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if args.save:
            Path(args.save).write_text("\n".join(parts))


if __name__ == "__main__":
    main()
