"""How often a perturbation ranks first towards its own state, by few cells of each.

The cells of every perturbation are split in halves: one gives the state to reach, of the other n
cells of each perturbation and all controls are what the design knows. A perturbation above noise
(squared distance to the controls above three standard errors, by all cells) ought to come first
towards its own state. Ranked by the distance of the cells' means (less what sampling adds), and
by ``centre``, the distance of the expected state, and by ``nearest``, the probability of being the
nearest: by the hierarchical model, as ``tl.fit_dag_blr`` does, and by random shifts on a graph
without edges and on one learned from the same cells.

    python -m benchmarks.own_state                          # Papalexi and TAP-seq
    python -m benchmarks.own_state --screens papalexi --splits 2
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks._screens import SOURCES, read_screen
from benchmarks._table import options, save
from benchmarks.few_cells import (
    Cells,
    fit,
    hierarchical,
    learn,
    moments,
    pool,
    read_cells,
    table,
)
from nextpert.core import Dag, Moments
from nextpert.core.design.distances import ranked_distance, states_of
from nextpert.core.design.joint_draws import states_by_effects
from nextpert.core.screen.mean_distance import mean_distance

if TYPE_CHECKING:
    from nextpert.core import ScreenMoments

SIZES = (20, 50, 10**9)
MEANS, MODEL = "cells' means", "hierarchical model"
SHOWN = (MEANS, f"centre, {MODEL}", f"nearest, {MODEL}")  # one by one


def above_noise(cells: Cells) -> list[int]:
    """Return the perturbations that are clearly not where the controls are."""
    each = [Moments.from_array(cells.x[cells.code == j]) for j in range(len(cells.names))]
    found = {j: mean_distance(one, each[0]) for j, one in enumerate(each) if j}
    return [j for j, d in found.items() if d.estimate > 3 * d.sd]


def rankings(
    known: ScreenMoments, wanted: dict[int, tuple[np.ndarray, np.ndarray]], cells: Cells, seed: int
) -> dict[str, dict[int, np.ndarray]]:
    """Return values of all perturbations, the least first, by way and target."""
    variance = known.squares.sum(axis=0) / np.maximum(known.n - 1, 0).sum()
    out: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for j, (mean, _) in wanted.items():
        apart = ((known.mean[1:] - mean) ** 2).sum(axis=1)
        out[MEANS][j] = apart - variance.sum() / known.n[1:]
    model = hierarchical(cells, known, seed=seed)
    graphs = {"no graph": Dag.from_edges(cells.x.shape[1], []), "learned graph": learn(known)}
    ways = {MODEL: states_by_effects(model.effects, model.control)}
    shown = {name: fit(dag, pool(known), cells) for name, dag in graphs.items()}
    shifts = {name: each.prior.given(each.posterior) for name, each in shown.items()}
    ways |= {name: states_of(each.posterior, shifts[name]) for name, each in shown.items()}
    alone = shown["no graph"].posterior, shifts["no graph"]  # not asked where states are given
    for name, states in ways.items():
        for j, (mean, noise) in wanted.items():
            found = ranked_distance(
                *alone, mean, target_variance=noise, states=states, n_samples=300, rng=seed
            )
            out[f"centre, {name}"][j] = found.centre[:-1]
            out[f"nearest, {name}"][j] = -found.nearest[:-1]
    return out


def split(cells: Cells, targets: list[int], n: int, seed: int) -> dict[str, dict[int, np.ndarray]]:
    """Return the rankings of one split, design from ``n`` cells of each perturbation."""
    rng = np.random.default_rng(seed)
    train, wanted = cells.code == 0, {}
    for j in range(1, len(cells.names)):
        order = rng.permutation(np.flatnonzero(cells.code == j))
        half = len(order) // 2
        if j in targets:
            x = cells.x[order[:half]]
            wanted[j] = x.mean(axis=0), x.var(axis=0, ddof=1) / half
        train[order[half : half + n]] = True
    return rankings(moments(cells, train), wanted, cells, seed)


def run(name: str, cells: Cells, sizes: tuple[int, ...], n_splits: int) -> str:
    """Return the section of one screen."""
    start, targets = time.perf_counter(), above_noise(cells)
    rows: dict[str, dict[str, list[str]]] = {
        k: defaultdict(list) for k in ("all", "measured", "not")
    }
    groups = {
        "all": targets,
        "measured": [j for j in targets if cells.own[j] >= 0],
        "not": [j for j in targets if cells.own[j] < 0],
    }
    lines: dict[str, list[str]] = defaultdict(list)
    chances: dict[int, np.ndarray] = {}
    for n in sizes:
        found = [split(cells, targets, n, seed) for seed in range(n_splits)]
        for way in found[0]:
            hit = {j: np.mean([r[way][j].argmin() == j - 1 for r in found]) for j in targets}
            for group, members in groups.items():
                shown = f"{np.mean([hit[j] for j in members]):.3f}" if members else "-"
                rows[group][way].append(shown)
            if way in SHOWN:
                for j in targets:
                    lines[cells.names[j]].append(f"{hit[j]:.2f}")
        chances = {j: -np.mean([r[SHOWN[-1]][j] for r in found], axis=0) for j in targets}
        print(f"{name}, n = {n}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    heads = ["all" if n >= 10**6 else f"n = {n}" for n in sizes]
    part = [
        f"## {name}: {len(targets)} of {len(cells.names) - 1} perturbations above noise, "
        f"{n_splits} splits",
    ]
    titles = {"all": "All targets", "measured": "Own gene measured", "not": "Own gene not measured"}
    for group, members in groups.items():
        if members:
            part.append(f"{titles[group]} ({len(members)}), share of splits ranked first:")
            part.append(table(["", *heads], rows[group]))
    part.append(f"One by one: cells' means, centre and nearest, the two by the {MODEL}:")
    ways = ("means", "centre", "nearest")
    part.append(table(["", *(f"{way}, {h}" for h in heads for way in ways)], dict(lines)))
    part.append(f"Probability of being the nearest, all cells, {MODEL} (above 0.02):")
    shown = {}
    for j, chance in chances.items():
        order = [k for k in np.argsort(-chance) if chance[k] > 0.02]
        shown[cells.names[j]] = [", ".join(f"{cells.names[k + 1]} {chance[k]:.2f}" for k in order)]
    part.append(table(["towards", ""], shown))
    return "\n\n".join(part) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the screens asked for and print their tables."""
    parser = options("own_state", __doc__)
    parser.add_argument("--screens", nargs="+", default=["papalexi", "tapseq"], choices=SOURCES)
    parser.add_argument("--cells", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    args = parser.parse_args(arguments)
    sections = []
    for name in args.screens:
        cells = read_cells(read_screen(Path(args.data), SOURCES[name], name=name), None)
        sections.append(run(name, cells, tuple(args.cells), args.splits))
        print(sections[-1], flush=True)
        save(sections, args.save)


if __name__ == "__main__":
    main()
