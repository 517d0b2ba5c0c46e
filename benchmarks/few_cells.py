"""Effects of perturbations from few cells, by ``nextpert`` and by estimates published elsewhere.

``nextpert`` stands for the public calls ``tl.learn_dag``, ``tl.fit_dag_blr`` and
``tl.perturbation_effects``, on n cells of each perturbation and half of the controls; without a
graph, or with ``--graph learned``. All estimates see the same cells. Effects are scored on all
other cells: the squared error is summed over genes, minus the sampling variance of the means of
these cells, and averaged over perturbations and repeats. Perturbations with fewer than n + 20 cells
are left out at that n. Perturbations are the unit: their errors are averaged over repeats before
estimates are compared; standard errors, 95% intervals and p-values (adjusted by Holm's method over
estimates) are over perturbations, by the function with which ``tl.replay_design`` compares
strategies over targets. "Mean perturbation" is the mean effect of the other perturbations, and "t
test" the effect if it is significant at a false discovery rate of 5%, and 0 otherwise. ``ash``, a
short form of ``mash``, and singular-value shrinkage followed by James-Stein are those of
``_shrinkage.py``.

The coverage of 90% intervals is that of the effects in the other cells, whose sampling variance is
added to the intervals: of all effects; of those of target genes; of estimates above half a standard
deviation of the gene within cells; and of effects above 4 standard errors of the other cells (these
are selected by the truth, so that intervals with correct average coverage cover fewer of them).

    python -m benchmarks.few_cells --save few_cells.md
    python -m benchmarks.few_cells --screens norman --repeats 2 --cells 10 25
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict

import numpy as np

import nextpert as npt
from benchmarks._cells import Cells, fitted, moments, read_cells
from benchmarks._page import options, quiet, ratio, save, show, table
from benchmarks._screens import add_arguments, screens_of
from benchmarks._shrinkage import ash, james_stein, shrunken, significant, singular_values
from nextpert.study.paired import differences_from

SIZES = (10, 25, 50)
LEFT = 20  # cells to score on, at least
RAW, NOTHING, OURS = "means of the cells", "no effect", "nextpert"
Z = 1.6449  # of a 90% interval
KINDS = ("all effects", "target genes", "large estimates", "truly large effects")


def split(cells: Cells, n: int, seed: int) -> tuple[Cells, np.ndarray]:
    """Return the perturbations with enough cells, and which of all cells are known."""
    rng, sizes = np.random.default_rng(seed), np.bincount(cells.code)
    kept = [0, *(j for j in range(1, len(sizes)) if sizes[j] >= n + LEFT)]
    taken = np.isin(cells.code, kept)
    code = np.searchsorted(kept, cells.code[taken])
    names, own = ([each[j] for j in kept] for each in (cells.names, cells.own))
    part = cells._replace(x=cells.x[taken], code=code, names=names, own=own)
    known = np.zeros(len(code), bool)
    for j in range(len(kept)):
        mine = rng.permutation(np.flatnonzero(code == j))
        known[mine[: n if j else len(mine) // 2]] = True
    return part, known


def published(part: Cells, known: np.ndarray) -> dict[str, np.ndarray]:
    """Return effects by estimates that see means and variances of the cells alone."""
    found = moments(part, known)
    effect = found.mean[1:] - found.mean[0]
    variance = found.squares.sum(axis=0) / np.maximum(found.n - 1, 0).sum()
    each = np.maximum(variance, np.finfo(np.float64).tiny) / found.n[1:, None]
    se = np.sqrt(each * (1.0 + found.n[1:, None] / found.n[0]))
    others = effect.sum(axis=0) - effect
    return {
        RAW: effect,
        NOTHING: np.zeros_like(effect),
        "mean perturbation": others / max(len(effect) - 1, 1),
        "t test": np.array([significant(*pair) for pair in zip(effect, se, strict=True)]),
        "ash as published": np.array([ash(*pair) for pair in zip(effect, se, strict=True)]),
        "mash, short form": shrunken("mash", effect, variance, found.n)[0],
        "James-Stein": james_stein(effect, each),
        "singular values and James-Stein": singular_values(effect, se**2),
    }


def few(
    cells: Cells, n: int, seed: int, *, graph: str = "none"
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return errors of perturbations by estimate, and coverage of intervals by kind of effect."""
    part, known = split(cells, n, seed)
    held = moments(part, ~known)
    truth = held.mean[1:] - held.mean[0]
    error = held.squares / (np.maximum(held.n - 1, 1) * held.n)[:, None]  # of means
    noise = error[1:] + error[0]
    estimates = published(part, known)
    with quiet():
        adata = fitted(part, known, graph=graph)
        found = npt.tl.perturbation_effects(adata, as_anndata=True)
    found, columns = found[part.names[1:], list(adata.var_names)], adata.uns["columns"]
    ours, low, high = np.zeros((3, *truth.shape))
    ours[:, columns] = found.X
    low[:, columns], high[:, columns] = found.layers["lower"], found.layers["upper"]
    low = ours - np.sqrt((ours - low) ** 2 + Z**2 * noise)
    high = ours + np.sqrt((high - ours) ** 2 + Z**2 * noise)
    inside = ((low <= truth) & (truth <= high))[:, columns]
    sd = np.sqrt(moments(part, known).squares.sum(axis=0) / (known.sum() - len(part.names)))
    own = np.arange(truth.shape[1]) == np.array(part.own[1:])[:, None]
    chosen = (np.ones_like(own), own, np.abs(ours) > sd / 2, np.abs(truth) > 4 * np.sqrt(noise))
    holds = {
        kind: float(inside[which[:, columns]].mean()) if which[:, columns].any() else np.nan
        for kind, which in zip(KINDS, chosen, strict=True)
    }
    errors = {
        name: ((effect - truth) ** 2 - noise).sum(axis=1)
        for name, effect in (estimates | {OURS: ours}).items()
    }
    return errors, holds


def run(name: str, cells: Cells, sizes: list[int], repeats: int, graph: str = "none") -> str:
    """Return the section of one screen."""
    start = time.process_time()
    errors, over, gaps, coverage = (defaultdict(list) for _ in range(4))
    head = []
    for n in sizes:
        found = [few(cells, n, seed, graph=graph) for seed in range(repeats)]
        head.append(f"n = {n} ({(np.bincount(cells.code)[1:] >= n + LEFT).sum()})")
        ways = list(found[0][0])
        # Of perturbations x estimates, over repeats.
        by_unit = np.mean([[scores[way] for way in ways] for scores, _ in found], axis=0).T
        place = ways.index(OURS)
        size = by_unit[:, ways.index(NOTHING)].mean()
        compared = differences_from(-by_unit / size, place)
        for way, theirs, gap in zip(ways, by_unit.T, compared, strict=True):
            errors[way].append(f"{theirs.mean():.3f}")
            if way != OURS:
                over[way].append(ratio(by_unit[:, place], theirs))
                gaps[way].append(f"{gap.in_words(2)}, p = {gap.p_value:.1g}")
        for kind in KINDS:
            shares = np.array([each[1][kind] for each in found])
            known = shares[np.isfinite(shares)]
            coverage[kind].append(f"{known.mean():.2f}" if len(known) else "-")
        print(f"{name}, n = {n}: {time.process_time() - start:.0f} s", file=sys.stderr)
    parts = [
        f"## {name}: {len(cells.names) - 1} perturbations, {cells.x.shape[1]} genes, "
        f"{int((cells.code == 0).sum()):,} controls, {repeats} repeats, "
        f"{time.process_time() - start:.0f} s of CPU time",
        "Squared error (number of perturbations with enough cells):",
        table(["", *head], errors),
        "Error of nextpert over that of another, ± a standard error over perturbations:",
        table(["", *head], over),
        "Nextpert minus another, over the mean size of an effect, with a 95% interval:",
        table(["", *head], gaps),
        "Coverage of 90% intervals:",
        table(["", *head], coverage),
    ]
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> None:
    """Run the screens asked for and print their tables."""
    parser = options("few_cells", __doc__, data=True)
    parser.add_argument("--cells", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--graph", choices=("none", "learned"), default="none")
    add_arguments(parser, "papalexi", "tapseq", "norman")
    args = parser.parse_args(arguments)
    sections = []
    for screen in screens_of(args):
        cells = read_cells(screen)
        sizes = [n for n in args.cells if n + LEFT <= np.bincount(cells.code)[1:].max()]
        sections.append(show(run(screen.name, cells, sizes, args.repeats, args.graph)))
    save("few_cells", sections, args.save)


if __name__ == "__main__":
    main()
