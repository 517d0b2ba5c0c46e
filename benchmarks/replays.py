"""Real screens replayed in rounds: whether a model finds a state sooner than the cells' means do.

The screen is fitted without a graph, and replayed by what ``tl.replay_design`` runs: each
perturbation more than three standard errors from the controls is the target once, and is then not a
candidate, nor are combinations that contain it. Half of its cells, drawn again in each repeat, give
the target state; rounds of 4 perturbations x 10 cells are drawn from the rest of the screen, after
100 controls. After each round the recommended perturbation is scored by the squared distance
between the mean of all its cells and that of all cells of the target, minus that expected from
sampling, relative to the controls' distance. ``good`` means that it cannot be distinguished from
the best candidate.

All strategies draw the same cells. Differences from the first strategy are averaged over rounds 1
to 10 and over repeats, and paired by target: intervals (95%) and p-values are over targets, by the
function that ``tl.replay_design`` calls (exact sign flips of up to 16 targets), and p-values are
adjusted by Holm's method over strategies.

``thompson_ash`` and ``thompson_mash`` sample from posteriors of adaptive shrinkage, of each
perturbation alone or of all together, as ``thompson_means`` from those of means;
``round_robin_singular_values`` measures in turn, and shrinks singular values, then by James-Stein
(``_shrinkage.py``). They recommend the candidate with the smallest expected distance.

    python -m benchmarks.replays
    python -m benchmarks.replays --screens papalexi --repeats 3 --strategies exploit ei
"""

from __future__ import annotations

import numpy as np

from benchmarks._cells import Cells, fitted, read_cells
from benchmarks._page import options, quiet, save, show, table
from benchmarks._screens import SOURCES, read_screen
from benchmarks._shrinkage import BY_SHRINKAGE
from nextpert import _adata
from nextpert.study.paired import differences_from
from nextpert.study.replay import judged, known_strategies, plates_until_good, run_all
from nextpert.tl._replay_design import read_goals, read_pool

SCREENS = ("papalexi", "tapseq", "norman")
STRATEGIES = ("exploit", "random", "round_robin_means", "thompson_means", *BY_SHRINKAGE)
PLATES = {"n_rounds": 10, "n_perturbations": 4, "n_cells": 10}


def replayed(
    cells: Cells, names: list[str], n_repeats: int, n_jobs: int, every: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and whether they are good, ``(targets, repeats, strategies, plates)``."""
    with quiet():
        adata = fitted(cells, np.arange(len(cells.code)))
    fit = _adata.posterior_from(adata)
    pool, setting = read_pool(adata, fit)
    goals = read_goals(adata, None, fit, pool, setting.spec.plan.names, held_out=True)[::every]
    available = known_strategies(setting) | BY_SHRINKAGE
    strategies = [available[name] for name in names]
    rng = np.random.default_rng(0)
    found = run_all(pool, strategies, goals, n_repeats, rng, n_jobs=n_jobs, **PLATES)
    distance, good = judged(found, goals)
    return distance.swapaxes(1, 2), good.swapaxes(1, 2)


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
    measures = {"distance": distance[..., 1:].mean(axis=-1), "rounds until good": plates}
    differences: dict[str, list[str]] = {f"{names[0]} minus {s}": [] for s in names[1:]}
    for values in measures.values():
        by_target = values.mean(axis=1)  # of targets x strategies, over repeats
        found = differences_from(-by_target, 0)
        for cells_of, gap in zip(differences.values(), found[1:], strict=True):
            cells_of.append(f"{gap.in_words(2)}, p = {gap.p_value:.2g}")
    return "\n\n".join([
        f"## {title}: {len(distance)} targets, {len(cells.names) - 1} perturbations, "
        f"{cells.x.shape[1]} genes, {n_repeats} repeats",
        "Distance relative to the control's (share good), by number of rounds:",
        table(["", *map(str, seen), "mean 1 to 10", "good", "rounds until good"], rows),
        "Differences over targets (below 0: nearer, sooner), p-values adjusted by Holm's method:",
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
