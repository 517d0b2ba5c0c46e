"""How often a perturbation ranks first towards its own state, with few cells per perturbation.

The cells of every perturbation are split into halves: one half gives the target state; of the other
half, the design has n cells per perturbation and all controls. A perturbation above noise (squared
distance to the controls above three standard errors, by all cells) should rank first towards its
own state. Perturbations are ranked by the distance of the cells' means (minus that expected from
sampling), and, after ``tl.learn_dag`` and ``tl.fit_dag_blr`` (without a graph, or on one learned
from the same cells) by two columns of ``tl.design_interventions``: ``centre``, the distance of the
expected state, and ``nearest``, the probability of being the nearest.

With ``--choices``, recommended candidates are compared with the target. The target is a
perturbation of the fit, which has half of the cells of each perturbation and of the controls. The
first of the ranking (own target genes left out, or all genes counted) and the nearest of the cells'
means are compared with the target in the other half, on the genes that neither the target nor any
candidate targets: by the squared distance, minus that expected from sampling, relative to the
control's on the same genes by all cells. Targets are those whose distance to the controls on these
genes is above 1.5 standard errors.

    python -m benchmarks.own_state                          # Papalexi and TAP-seq
    python -m benchmarks.own_state --screens papalexi --splits 2
    python -m benchmarks.own_state --choices --screens tapseq papalexi norman --splits 5
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict

import numpy as np

import nextpert as npt
from benchmarks._cells import Cells, fitted, moments, read_cells
from benchmarks._page import options, quiet, save, show, table, with_error
from benchmarks._screens import add_arguments, screens_of
from nextpert.core import Moments
from nextpert.core.screen.mean_distance import mean_distance

SIZES = (20, 50, 10**9)
MEANS, MODEL = "cells' means", "no graph"
GRAPHS = {MODEL: "none", "learned graph": "learned"}
CHOICES = {"own genes left out": "exclude", "all genes counted": "include"}
NOISE, FAR = 1.5, "above 3 standard errors"  # least distance of a target to the controls
SHOWN = (MEANS, f"centre, {MODEL}", f"nearest, {MODEL}")  # one by one


def above_noise(
    cells: Cells, genes: slice | np.ndarray = slice(None), n_sd: float = 3.0
) -> list[int]:
    """Return the perturbations that are clearly not where the controls are, on some genes."""
    each = [Moments.from_array(cells.x[cells.code == j][:, genes]) for j in range(len(cells.names))]
    found = {j: mean_distance(one, each[0]) for j, one in enumerate(each) if j}
    return [j for j, d in found.items() if d.estimate > n_sd * d.sd]


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
    rows: dict[str, list[str]] = defaultdict(list)
    lines: dict[str, list[str]] = defaultdict(list)
    for n in sizes:
        found = [split(cells, targets, n, seed) for seed in range(n_splits)]
        for way in found[0]:
            hit = {j: np.mean([r[way][j].argmin() == j - 1 for r in found]) for j in targets}
            rows[way].append(f"{np.mean(list(hit.values())):.3f}")
            if way in SHOWN:
                for j in targets:
                    lines[cells.names[j]].append(f"{hit[j]:.2f}")
        print(f"{name}, n = {n}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    heads = ["all" if n >= 10**6 else f"n = {n}" for n in sizes]
    part = [
        f"## {name}: {len(targets)} of {len(cells.names) - 1} perturbations above noise, "
        f"{n_splits} splits",
    ]
    part.append("Share of splits ranked first:")
    part.append(table(["", *heads], rows))
    part.append(f"One by one: cells' means, centre and nearest, the two with {MODEL}:")
    ways = ("means", "centre", "nearest")
    part.append(table(["", *(f"{way}, {h}" for h in heads for way in ways)], dict(lines)))
    return "\n\n".join(part)


def apart(cells: Cells, kept: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Return unbiased squared distances between the means of all labels on some genes."""
    found = moments(cells, kept)
    error = (found.squares.sum(axis=0) / np.maximum(found.n - 1, 0).sum())[genes].sum() / found.n
    mean = found.mean[:, genes]
    return ((mean[:, None] - mean) ** 2).sum(axis=-1) - error[:, None] - error


def choose(cells: Cells, seed: int) -> tuple[dict[str, dict[int, tuple[str, float]]], np.ndarray]:
    """Return what each way chooses towards each target in a split, and how far that is from it.

    Also the columns of the genes that it is judged by.
    """
    rng = np.random.default_rng(seed)
    train = np.zeros(len(cells.code), bool)
    for j in range(len(cells.names)):
        order = rng.permutation(np.flatnonzero(cells.code == j))
        train[order[: len(order) // 2]] = True
    with quiet():
        adata = fitted(cells, train)
    npt.tl.design_interventions(adata, npt.Target(state=cells.names[1], own_genes="include"))
    targeted = ", ".join(adata.uns["design"]["ranking"]["target_genes"]).split(", ")
    targeted = {*targeted, *cells.names[1].split("+")}
    other = adata.uns["columns"][~np.isin(adata.var_names, list(targeted))]
    every, truth = adata.uns["columns"], apart(cells, ~train, other)
    whole = apart(cells, np.ones(len(train), bool), other)[0]
    by_means, out = apart(cells, train, every), defaultdict(dict)
    for j in above_noise(cells, other, NOISE):
        for name, own in CHOICES.items():
            target = npt.Target(state=cells.names[j], own_genes=own)
            with quiet():
                npt.tl.design_interventions(adata, target, rng=seed)
            candidates = adata.uns["design"]["ranking"]["perturbation"].astype(str)
            pool = [cells.names.index(x) for x in candidates if x != cells.names[0]]
            out[name][j] = pool[0]
        # Of the same candidates, without the target itself.
        out[MEANS][j] = pool[int(by_means[j, pool].argmin())]
    return {
        way: {j: (cells.names[k], truth[j, k] / whole[j]) for j, k in found.items()}
        for way, found in out.items()
    }, other


def choices(name: str, cells: Cells, n_splits: int) -> tuple[str, dict[str, np.ndarray]]:
    """Return the section of one screen, and the relative distances of every target by way."""
    split_by = [choose(cells, seed) for seed in range(n_splits)]
    found, ways = [each for each, _ in split_by], [*CHOICES, MEANS]
    targets = sorted(set.intersection(*(set(each[MEANS]) for each in found)))
    mean = {
        way: np.array([np.mean([each[way][j][1] for each in found]) for j in targets])
        for way in ways
    }
    far = above_noise(cells, split_by[0][1])
    mean[FAR] = np.isin(targets, far)
    rows = {}
    for i, j in enumerate(targets):
        rows[cells.names[j]] = []
        for way in ways:
            told = [each[way][j][0] for each in found]
            often = sorted(set(told), key=lambda label: (-told.count(label), label))
            said = ", ".join(f"{label} {told.count(label)}" for label in often)
            rows[cells.names[j]].append(f"{mean[way][i]:.2f} ({said})")
    title = f"## {name}: {len(targets)} targets, {n_splits} splits"
    return f"{title}\n\n{table(['towards', *ways], rows)}\n", mean


def compared(by_screen: dict[str, dict[str, np.ndarray]]) -> str:
    """Return the table of means over targets, and of paired differences with standard errors."""
    ways = [*CHOICES, MEANS]
    if len(by_screen) > 1:
        every = {k: np.concatenate([each[k] for each in by_screen.values()]) for k in [*ways, FAR]}
        far = {way: every[way][every[FAR]] for way in ways}
        by_screen = {**by_screen, "all": every, FAR: far}
    rows = {}
    for name, mean in by_screen.items():
        row = [str(len(mean[MEANS])), *(f"{mean[way].mean():.3f}" for way in ways)]
        row += [f"{with_error(mean[ways[0]] - mean[way], 3)}" for way in ways[1:]]
        rows[name] = row
    return table(["", "targets", *ways, *(f"minus that of {way}" for way in ways[1:])], rows)


def main(arguments: list[str] | None = None) -> None:
    """Run the screens asked for and print their tables."""
    parser = options("own_state", __doc__, data=True)
    parser.add_argument("--cells", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--splits", type=int, default=8)
    parser.add_argument("--choices", action="store_true", help="judge recommended candidates")
    add_arguments(parser, "papalexi", "tapseq", "norman")
    args = parser.parse_args(arguments)
    sections, by_screen = [], {}
    for screen in screens_of(args):
        cells = read_cells(screen)
        if args.choices:
            section, by_screen[screen.name] = choices(screen.name, cells, args.splits)
        else:
            section = run(screen.name, cells, tuple(args.cells), args.splits)
        sections.append(show(section))
    if args.choices:
        sections.insert(0, show(compared(by_screen)))
    save("own_state", sections, args.save)


if __name__ == "__main__":
    main()
