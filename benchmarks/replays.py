"""Real screens replayed in plates: whether a model finds a state sooner than the cells' means do.

Each perturbation above noise (squared distance to the controls above three standard errors) is the
target once, and is then not a candidate. Half of its cells, drawn again in each repeat, give the
target state; plates of 4 perturbations x 10 cells are drawn from the rest of the screen, after 100
controls. After each plate the recommended perturbation is scored by the squared distance between
the mean of all its cells and that of all cells of the target, minus that expected from sampling,
relative to the controls' distance. ``good`` means that it cannot be distinguished from the best
candidate.

All strategies draw the same cells. Differences from the first strategy are averaged over targets,
and over plates 1 to 10; p-values are those of paired t tests over repeats, adjusted by Holm's
method for all comparisons of a screen. Models are those of ``tl.fit_dag_blr`` without a graph.

    python -m benchmarks.replays
    python -m benchmarks.replays --screens papalexi --repeats 3 --strategies exploit ei
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.stats import ttest_1samp

from benchmarks._cells import Cells, read_cells
from benchmarks._page import options, save, show, table, with_error
from benchmarks._screens import SOURCES, read_screen
from benchmarks.own_state import above_noise
from nextpert.core import Dag, DagBlr
from nextpert.core.causal.design_loop import run_tasks
from nextpert.core.evaluate import CellPool, replay_plates
from nextpert.core.fit.interventions import Plan
from nextpert.core.fit.learn import Graphs, Spec
from nextpert.core.fit.naming import Naming
from nextpert.tl._replay_design import Setting, holm, known_strategies, plates_until_good

SCREENS = ("papalexi", "tapseq", "norman")
STRATEGIES = ("exploit", "random", "round_robin_means", "thompson_means")
ROUNDS, WARMUP = 10, 100


def as_pool(cells: Cells) -> CellPool:
    """Return the cells of a screen as a pool."""
    groups = [cells.x[cells.code == j] for j in range(len(cells.names))]
    return CellPool(groups[0], groups[1:])


def known(cells: Cells) -> Setting:
    """Return what is known before the first cell: the targets of perturbations, and no graph."""
    genes = [f"gene {i}" for i in range(cells.x.shape[1])]
    targets = [[genes[own]] if own >= 0 else [] for own in cells.own[1:]]
    shift = "activation" if cells.activation else "knockout"
    plan = Plan(cells.names[1:], targets, [], shift)
    spec = Spec(genes, plan, DagBlr, Naming(frozenset(genes), ""))
    empty = Graphs.single(Dag.from_edges(len(genes), []))
    return Setting(spec, empty, guided=False)


def campaigns(
    pool: CellPool, setting: Setting, target: int, repeat: int, names: list[str]
) -> np.ndarray:
    """Return what is recommended after each plate, ``(n_strategies, n_rounds + 1)``."""
    deal = pool.deal(target, min(WARMUP, len(pool.control)), rng=[target, repeat])
    every, others = known_strategies(setting), np.delete(np.arange(pool.n_perturbations), target)
    options = {"candidates": others, "n_rounds": ROUNDS}

    def recommended(name: str) -> np.ndarray:
        rng = np.random.default_rng([target, repeat, 1])
        return replay_plates(pool, deal, every[name], rng, **options).recommended

    return np.array([recommended(name) for name in names])


def replayed(
    cells: Cells, names: list[str], n_repeats: int, n_jobs: int, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and whether they are good, ``(targets, repeats, strategies, plates)``."""
    pool, targets = as_pool(cells), [j - 1 for j in above_noise(cells)][::every]
    setting = known(cells)
    tasks = [(pool, setting, t, r, names) for t, r in product(targets, range(n_repeats))]
    done = dict(run_tasks(campaigns, tasks, n_jobs=n_jobs))
    found = np.array([done[i] for i in range(len(tasks))])
    found = found.reshape(len(targets), n_repeats, len(names), ROUNDS + 1)
    distance, good = np.empty(found.shape), np.empty(found.shape, bool)
    for i, t in enumerate(targets):
        truth, others = pool.truth(t), np.delete(np.arange(pool.n_perturbations), t)
        distance[i] = truth.distance[found[i]] / truth.control
        good[i] = np.isin(found[i], others[truth.as_good(others)])
    return distance, good


def run(
    title: str, cells: Cells, names: list[str], n_repeats: int, n_jobs: int, every: int = 1
) -> str:
    """Return the section of one screen."""
    distance, good = replayed(cells, names, n_repeats, n_jobs, every)
    plates = plates_until_good(good)
    seen, rows = (0, 1, 2, 3, 5, 7, 10), {}
    for k, s in enumerate(names):
        mean, is_good = distance[:, :, k].mean(axis=(0, 1)), good[:, :, k].mean(axis=(0, 1))
        rows[s] = [
            *(f"{mean[t]:.2f} ({is_good[t]:.0%})" for t in seen), f"{mean[1:].mean():.3f}",
            f"{is_good[1:].mean():.1%}", f"{plates[:, :, k].mean():.1f}",
        ]  # fmt: skip
    measures = {"distance": distance[..., 1:].mean(axis=-1), "plates until good": plates}
    gaps = {
        (s, what): (values[..., 0] - values[..., k]).mean(axis=0)
        for k, s in enumerate(names) if k for what, values in measures.items()
    }  # fmt: skip
    p = holm(np.array([ttest_1samp(gap, 0).pvalue for gap in gaps.values()]))
    differences: dict[str, list[str]] = {}
    for ((s, _), gap), adjusted in zip(gaps.items(), p, strict=True):
        cell = f"{with_error(gap, 3)} (p {adjusted:.2g})"
        differences.setdefault(f"{names[0]} minus {s}", []).append(cell)
    return "\n\n".join([
        f"## {title}: {len(distance)} targets, {len(cells.names) - 1} perturbations, "
        f"{cells.x.shape[1]} genes, {n_repeats} repeats",
        "Distance relative to the control's (share good), by number of plates:",
        table(["", *map(str, seen), "mean 1 to 10", "good", "plates until good"], rows),
        "Differences (below 0: nearer, sooner), p-values adjusted by Holm's method:",
        table(["", *measures], differences),
    ])  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Replay the screens asked for and print their tables."""
    parser = options("replays", __doc__, data=True)
    parser.add_argument("--screens", nargs="+", default=list(SCREENS), choices=SOURCES)
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--every", type=int, default=1, help="take every so many targets")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(arguments)
    sections = []
    for name in args.screens:
        least = 0.0 if name == "norman" else 0.1
        cells = read_cells(read_screen(args.data, SOURCES[name], name=name, min_seen=least))
        text = run(name, cells, args.strategies, args.repeats, args.workers, args.every)
        sections.append(show(text))
    save("replays", sections, args.save)


if __name__ == "__main__":
    main()
