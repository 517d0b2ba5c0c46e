"""Real screens replayed in plates: does a model find a state sooner than the cells' means do.

Each perturbation above noise (squared distance to the controls above three standard errors) is the
target once, in the pool of candidates and held out of it. Half of its cells, drawn anew in each
repeat, give the state to reach; the rest of the screen is drawn from, in plates of 4 perturbations
x 10 cells after 100 controls. After each plate the recommended perturbation is scored by the
squared distance of the mean of all its cells to that of all the target's, less what sampling adds,
as a share of the controls' distance. ``good`` says that it is not distinguished from the best.

All strategies see the same deals. Differences are averaged over targets, and over plates 1 to 10;
p-values are those of paired t tests over repeats, by Holm's method for all comparisons of a
screen. Models are those of ``tl.fit_dag_blr`` and have no graph, but for ``exact``: a graph learned
from the controls (Norman, with 100 of them: from all cells) and shifts taken as full knockouts
(activation: one unit), as in Zhang et al. 2023.

    python -m benchmarks.replays
    python -m benchmarks.replays --screens papalexi --repeats 3 --strategies exploit ei
    python -m benchmarks.replays --repeats 20 --held-out --strategies random round_robin_means \
        thompson_means
"""

from __future__ import annotations

import sys
import time
from functools import partial
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import ttest_1samp

from benchmarks._cells import Cells, learn, moments, read_cells
from benchmarks._page import options, save, show, table, with_error
from benchmarks._screens import SOURCES, read_screen
from benchmarks.own_state import above_noise
from nextpert.core import Dag, DagBlr, Moments, boss
from nextpert.core.causal.design_loop import run_tasks
from nextpert.core.evaluate.cell_pool import CellPool
from nextpert.core.evaluate.strategies import replay_plates
from nextpert.core.fit.interventions import Plan
from nextpert.core.fit.learn import Graphs, Spec
from nextpert.core.fit.naming import Naming
from nextpert.tl._replay_design import modelled
from nextpert.tl._replay_design.modelled import Setting, shift_sd_of
from nextpert.tl._replay_design.tables import holm, plates_until_good

if TYPE_CHECKING:
    from collections.abc import Sequence

SCREENS = ("papalexi", "tapseq", "norman")
OURS = "exploit"
CHOSEN = (OURS, "thompson", "ei", "random", "exact_greedy", "round_robin_means", "thompson_means")
ROUNDS, WARMUP = 10, 100


def as_pool(cells: Cells) -> CellPool:
    """Return the cells of a screen as a pool."""
    groups = [cells.x[cells.code == j] for j in range(len(cells.names))]
    return CellPool(groups[0], groups[1:])


def full_shift(cells: Cells) -> np.ndarray:
    """Return shifts of full knockouts, or activations, ``(n_perturbations, n_genes)``."""
    mean = cells.x[cells.code == 0].mean(axis=0)
    full = np.zeros((len(cells.names) - 1, len(mean)))
    for j, gene in enumerate(cells.own[1:]):
        if gene >= 0:
            full[j, gene] = 1.0 if cells.activation else -mean[gene]
    return full


def known(cells: Cells, pool: CellPool, dag: Dag) -> Setting:
    """Return what is known before the first cell: the graph, and the targets of perturbations."""
    genes = [f"gene {i}" for i in range(cells.x.shape[1])]
    targets = [[genes[own]] if own >= 0 else [] for own in cells.own[1:]]
    shift = "activation" if cells.activation else "knockout"
    plan = Plan(cells.names[1:], targets, [], shift)
    spec = Spec(genes, plan, DagBlr, Naming(frozenset(genes), ""))
    return Setting(spec, Graphs.single(dag), pool.environments)


def campaigns(
    pool: CellPool, on: tuple[Setting, Setting], target: int, repeat: int, strategies: list[str],
    held_out: Sequence[bool],
) -> np.ndarray:  # fmt: skip
    """Return what is recommended, ``(n_readings, n_strategies, n_rounds + 1)``.

    The target is in the pool of candidates, or ``held_out`` of it.

    ``on`` is what is known with the graph, for exact shifts, and without one, for others.
    """
    every = np.arange(pool.n_perturbations)
    deal = pool.deal(target, min(WARMUP, len(pool.control)), rng=[target, repeat])

    def recommended(name: str, may: np.ndarray) -> np.ndarray:
        told, rng = on[shift_sd_of(name) != "0"], np.random.default_rng([target, repeat, 1])
        build = partial(told.build, name, deal.target, rng=rng)
        return replay_plates(pool, deal, build, candidates=may, n_rounds=ROUNDS).recommended

    may = [np.delete(every, target) if held else every for held in held_out]
    return np.array([[recommended(name, some) for name in strategies] for some in may])


def replayed(
    cells: Cells,
    strategies: list[str],
    n_repeats: int,
    n_jobs: int,
    held_out: Sequence[bool],
    every: int,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return distance and whether it is good, ``(readings, targets, strategies, repeats, ...)``."""
    pool, targets = as_pool(cells), [j - 1 for j in above_noise(cells)][::every]
    try:
        graph = boss(Moments.from_array(pool.control), rng=0).dag
    except ValueError:  # two genes are copies of each other in the few controls of Norman
        graph = learn(moments(cells, np.ones(len(cells.code), bool)))
    on = known(cells, pool, graph), known(cells, pool, Dag.from_edges(graph.n_nodes, []))
    tasks = [(pool, on, t, r, strategies, held_out) for t, r in product(targets, range(n_repeats))]
    done = dict(run_tasks(campaigns, tasks, n_jobs=n_jobs))
    found = np.array([done[i] for i in range(len(tasks))])
    found = found.reshape(len(targets), n_repeats, len(held_out), len(strategies), ROUNDS + 1)
    distance, good = np.empty(found.shape), np.empty(found.shape, bool)
    for i, t in enumerate(targets):
        truth, every = pool.truth(t), np.arange(pool.n_perturbations)
        distance[i] = truth.distance[found[i]] / truth.control
        for k, held in enumerate(held_out):
            may = np.delete(every, t) if held else every
            is_good = np.isin(every, may[truth.as_good(may)])
            good[i, :, k] = is_good[found[i, :, k]]
    return (*(np.moveaxis(x, (2, 0, 3, 1), (0, 1, 2, 3)) for x in (distance, good)), targets)


def run(
    name: str, cells: Cells, strategies: list[str], n_repeats: int, n_jobs: int,
    held_out: Sequence[bool] = (False, True), every: int = 1,
) -> str:  # fmt: skip
    """Return the section of one screen."""
    start = time.perf_counter()
    distance, good, targets = replayed(cells, strategies, n_repeats, n_jobs, held_out, every)
    plates = plates_until_good(good)
    parts = [
        f"## {name}: {len(targets)} targets, {len(cells.names) - 1} perturbations, "
        f"{cells.x.shape[1]} genes, {n_repeats} repeats"
    ]
    own, others = strategies.index(OURS), [s for s in strategies if s != OURS]
    over = distance[..., 1:].mean(axis=-1)
    gaps = {
        (held, s, what): (values[held, :, own] - values[held, :, strategies.index(s)]).mean(axis=0)
        for held in range(len(held_out)) for s in others
        for what, values in (("distance", over), ("plates", plates))
    }  # fmt: skip
    p = holm(np.array([ttest_1samp(gap, 0).pvalue for gap in gaps.values()]))
    readings = ["held out" if held else "in the pool" for held in held_out]
    for held, where in enumerate(readings):
        rows = {}
        for k, s in enumerate(strategies):
            mean, is_good = distance[held, :, k].mean(axis=(0, 1)), good[held, :, k].mean((0, 1))
            rows[s] = [
                *(f"{mean[t]:.2f} ({is_good[t]:.0%})" for t in (0, 1, 2, 3, 5, 7, 10)),
                f"{mean[1:].mean():.3f}", f"{is_good[1:].mean():.1%}",
                f"{plates[held, :, k].mean():.1f}",
            ]  # fmt: skip
        parts.append(
            f"{where.capitalize()}: distance over that of the control (share good), by plates seen:"
        )
        seen = [str(t) for t in (0, 1, 2, 3, 5, 7, 10)]
        parts.append(table(["", *seen, "mean 1 to 10", "good", "plates until good"], rows))
    rows = {}
    for (held, s, what), adjusted in zip(gaps, p, strict=True):
        gap = gaps[held, s, what]
        head = f"{OURS} less {s}, {readings[held]}"
        rows.setdefault(head, []).append(f"{with_error(gap, 3)} (p {adjusted:.2g})")
    parts.append("Differences (below 0: nearer, sooner), p-values by Holm:")
    parts.append(table(["", "distance", "plates until good"], rows))
    print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return "\n\n".join(parts) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Replay the screens asked for and print their tables."""
    parser = options("replays", __doc__, data=True)
    parser.add_argument("--screens", nargs="+", default=list(SCREENS), choices=SOURCES)
    names = modelled.strategies()
    parser.add_argument("--strategies", nargs="+", default=list(CHOSEN), choices=names)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--held-out", action="store_true", help="leave out targets in the pool")
    parser.add_argument(
        "--every", type=int, default=1, help="take every second, third (and so on) target"
    )
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(arguments)
    strategies = [OURS, *(s for s in args.strategies if s != OURS)]
    sections = []
    for name in args.screens:
        least = 0.0 if name == "norman" else 0.1
        cells = read_cells(read_screen(args.data, SOURCES[name], name=name, min_seen=least))
        held_out = (True,) if args.held_out else (False, True)
        sections.append(
            show(run(name, cells, strategies, args.repeats, args.workers, held_out, args.every))
        )
    save("replays", sections, args.save)


if __name__ == "__main__":
    main()
