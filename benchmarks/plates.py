"""Plates: greedy choice and split of cells against exhaustive search, and a large plate.

*Exhaustive*: plates of 1 to 3 of 2 to 9 candidates over 2 to 6 genes, measured and not, with
effects given and not, 30 to 1,000 cells. Wells are chosen one by one, at equal cells, and the cells
split among them; CIV after that is compared with the best of all plates of as many wells, each with
its best split. Splits are left out where CIV, convex in the cells, cannot fall below the best.
*Size*: 200 genes of 3 parents, 10,000 single and double knockouts, 96 wells, 9,600 cells.

    python -m benchmarks.plates            # some minutes
    python -m benchmarks.plates --quick
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from functools import partial

import numpy as np
from nextpert.core.model.shift_posterior import ShiftPosterior

from benchmarks._plate_pools import random_pool
from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.design.plate import PlateCiv, allocate_cells, best_split, greedy_plate

LEAST = 5  # cells of a candidate in the small pools


def main(arguments: list[str] | None = None) -> None:
    """Run both and print them."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.plates", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--pools", type=int, default=500)
    parser.add_argument("--measured", type=int, nargs="+", default=[0, 200])
    parser.add_argument("--quick", action="store_true", help="a trial")
    args = parser.parse_args(arguments)
    if args.quick:
        args.pools, args.measured = 10, []
    print("| shifts | pools | median loss | 95% of pools below | above 1% in | worst |")
    print("|---" * 6 + "|")
    for exact in (False, True):
        print(exhaustive(args.pools, exact=exact), flush=True)
    print()
    print("| genes | candidates | shifts | wells | CPU s | peak MB (before) | removed |")
    print("|---" * 7 + "|")
    for measured in args.measured:
        print(size(measured), flush=True)
    if not args.quick:
        print(size(0, exact=True), flush=True)


def planned(civ: PlateCiv, size: int, n_cells: int, least: int) -> tuple[list[int], np.ndarray]:
    """Return the candidates of a plate and the cells of each, as ``tl.plan_screen`` learns."""
    gain = partial(civ.gain, each=n_cells / size)
    chosen = greedy_plate(gain, size, allowed=np.ones(civ.size, dtype=bool))
    return chosen, allocate_cells(civ, chosen, n_cells, least=least)


def after(civ: PlateCiv, chosen: list[int], cells: np.ndarray) -> float:
    """Return CIV after the cells of a plate."""
    every = np.zeros(civ.size)
    every[chosen] = cells
    return civ.after(every).value


def loss(seed: int, *, exact: bool = False) -> float:
    """Return by what share of the best plate's CIV the chosen plate's exceeds it, in one pool."""
    blr, known, target, rng = random_pool(seed)
    known = ShiftPosterior.exact(known.prior) if exact else known
    m, n_cells = known.n_perturbations, int(10 ** rng.uniform(1.5, 3))
    k = min(int(rng.integers(1, 4)), m)
    civ = PlateCiv(blr, known, target, gap_cells=n_cells / k)
    value = after(civ, *planned(civ, k, n_cells, LEAST))
    return value / best_of_all(civ, k, n_cells) - 1


def best_of_all(civ: PlateCiv, k: int, n_cells: int) -> float:
    """Return the least CIV of all plates of ``k`` wells, each with its best split."""
    equal, bounds = np.full(k, n_cells / k), []
    for chosen in itertools.combinations(range(civ.size), k):
        every = np.zeros(civ.size)
        every[list(chosen)] = equal
        found = civ.after(every)
        slopes = found.slopes(chosen)
        # The least that a convex function can be, by its slopes: all spare cells to the steepest.
        linear = LEAST * slopes.sum() + (n_cells - LEAST * k) * slopes.min() - slopes @ equal
        bounds.append((found.value + linear, list(chosen)))
    best = np.inf
    for bound, chosen in sorted(bounds):
        if bound >= best:
            break
        best = min(best, after(civ, chosen, best_split(civ, chosen, n_cells, LEAST)))
    return best


def exhaustive(n_pools: int, *, exact: bool = False) -> str:
    """Return what the plates chosen lose to the best of all."""
    losses = np.array([loss(seed, exact=exact) for seed in range(n_pools)])
    shown = [f"{100 * x:.2g}%" for x in (*np.quantile(losses, [0.5, 0.95]), losses.max())]
    return (
        f"| {'known' if exact else 'uncertain'} | {n_pools} | {shown[0]} | {shown[1]} "
        f"| {100 * np.mean(losses > 0.01):.1f}% | {shown[2]} |"
    )


def size(measured: int, *, exact: bool = False) -> str:
    """Return time and memory of a large plate."""
    blr, known, target = large(200, 10_000, measured)
    known = ShiftPosterior.exact(known.prior) if exact else known
    shifts = "known" if exact else f"uncertain, {measured} measured"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    start = time.process_time()
    civ = PlateCiv(blr, known, target, gap_cells=100)
    chosen, cells = planned(civ, 96, 9600, 20)
    seconds = time.process_time() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    removed = civ.removed_by_wells(chosen, cells)[-1]
    return (
        f"| 200 | 10,000 | {shifts} | 96 | {seconds:.1f} | {after:.0f} ({peak:.0f}) "
        f"| {100 * removed:.2f}% |"
    )


def large(p: int, m: int, measured: int) -> tuple[DagBlr, ShiftPosterior, np.ndarray]:
    """Return single and double knockouts, of which the first are measured with 50 cells each."""
    rng = np.random.default_rng(0)
    edges = [(int(a), b) for b in range(1, p) for a in rng.choice(b, min(b, 3), replace=False)]
    weights = np.zeros((p, p))
    for a, b in edges:
        weights[b, a] = rng.uniform(0.2, 0.6) * rng.choice([-1, 1])
    reached = np.linalg.inv(np.eye(p) - weights)
    cells = rng.normal(size=(1000, p)) @ reached.T
    blr = DagBlr(Dag.from_edges(p, edges)).update(Moments.from_array(cells))
    doubles = rng.permutation(np.array(list(itertools.combinations(range(p), 2))))
    pairs = np.vstack([np.column_stack([np.arange(p)] * 2), doubles])[:m]
    level, rows = rng.uniform(0.5, 3, p), np.arange(len(pairs))
    prior, tau2 = np.zeros((len(pairs), p)), np.full((len(pairs), p), 0.02)
    for k in (0, 1):
        prior[rows, pairs[:, k]] = -level[pairs[:, k]]
        tau2[rows, pairs[:, k]] = 0.3
    n = np.where(rows < measured, 50.0, 0.0)
    spare = tau2 / (1 + n[:, None] * tau2)
    mean = prior @ reached.T + 0.2 * rng.normal(size=prior.shape)
    known = ShiftPosterior(n, mean, prior, n[:, None] * spare, spare)
    blr.blocks  # noqa: B018  # the posterior is not what is timed
    return blr, known, reached @ prior[-1]


if __name__ == "__main__":
    main()
