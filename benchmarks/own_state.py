"""How often a perturbation ranks first towards its own state, by few cells of each.

The cells of every perturbation are split in halves: one gives the state to reach, of the other n
cells of each perturbation and all controls are what the design knows. A perturbation above noise
(squared distance to the controls above three standard errors, by all cells) ought to come first
towards its own state. Ranked by the distance of the cells' means (less what sampling adds), and,
after ``tl.learn_dag`` and ``tl.fit_dag_blr`` (without a graph, or on one learned from the same
cells) by two columns of ``tl.design_interventions``: ``centre``, the distance of the expected
state, and ``nearest``, the probability of being the nearest.

    python -m benchmarks.own_state                          # Papalexi and TAP-seq
    python -m benchmarks.own_state --screens papalexi --splits 2
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

import nextpert as npt
from benchmarks._cells import Cells, fitted, moments, read_cells, table
from benchmarks._quiet import quiet
from benchmarks._screens import SOURCES, read_screen
from nextpert.core import Moments
from nextpert.core.screen.mean_distance import mean_distance

SIZES = (20, 50, 10**9)
MEANS, MODEL = "cells' means", "no graph"
GRAPHS = {MODEL: "none", "learned graph": "learned"}
SHOWN = (MEANS, f"centre, {MODEL}", f"nearest, {MODEL}")  # one by one


def above_noise(cells: Cells) -> list[int]:
    """Return the perturbations that are clearly not where the controls are."""
    each = [Moments.from_array(cells.x[cells.code == j]) for j in range(len(cells.names))]
    found = {j: mean_distance(one, each[0]) for j, one in enumerate(each) if j}
    return [j for j, d in found.items() if d.estimate > 3 * d.sd]


def rankings(
    cells: Cells, known: np.ndarray, wanted: dict[int, np.ndarray], seed: int
) -> dict[str, dict[int, np.ndarray]]:
    """Return values of all perturbations, the least first, by way and target.

    ``known`` tells which cells the design has, ``wanted`` the mean of each target's other half.
    """
    found = moments(cells, known)
    variance = found.squares.sum(axis=0) / np.maximum(found.n - 1, 0).sum()
    out: dict[str, dict[int, np.ndarray]] = defaultdict(dict)
    for j, mean in wanted.items():
        apart = ((found.mean[1:] - mean) ** 2).sum(axis=1)
        out[MEANS][j] = apart - variance.sum() / found.n[1:]
    for name, graph in GRAPHS.items():
        with quiet():
            adata = fitted(cells, known, graph=graph)
            for j, mean in wanted.items():
                target = dict(zip(adata.var_names, mean[adata.uns["columns"]], strict=True))
                npt.tl.design_interventions(adata, target, rng=seed)
                ranking = adata.uns["design"]["ranking"].set_index("perturbation")
                ranking = ranking.loc[cells.names[1:]]
                out[f"centre, {name}"][j] = ranking["state_distance"].to_numpy(float)
                out[f"nearest, {name}"][j] = -ranking["probability_best"].to_numpy(float)
    return out


def split(cells: Cells, targets: list[int], n: int, seed: int) -> dict[str, dict[int, np.ndarray]]:
    """Return the rankings of one split, design from ``n`` cells of each perturbation."""
    rng = np.random.default_rng(seed)
    train, wanted = cells.code == 0, {}
    for j in range(1, len(cells.names)):
        order = rng.permutation(np.flatnonzero(cells.code == j))
        half = len(order) // 2
        if j in targets:
            wanted[j] = cells.x[order[:half]].mean(axis=0)
        train[order[half : half + n]] = True
    return rankings(cells, train, wanted, seed)


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
    part.append(f"One by one: cells' means, centre and nearest, the two with {MODEL}:")
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
    parser = argparse.ArgumentParser(
        "python -m benchmarks.own_state", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--screens", nargs="+", default=["papalexi", "tapseq"], choices=SOURCES)
    parser.add_argument("--cells", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    parser.add_argument("--save", metavar="FILE", help="also write the tables to this file")
    args = parser.parse_args(arguments)
    sections = []
    for name in args.screens:
        cells = read_cells(read_screen(Path(args.data), SOURCES[name], name=name))
        sections.append(run(name, cells, tuple(args.cells), args.splits))
        print(sections[-1], flush=True)
        if args.save:
            Path(args.save).write_text("\n".join(sections))


if __name__ == "__main__":
    main()
