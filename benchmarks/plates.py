"""Plates: certificates of continuous ones and of whole wells, exhaustive search, and size.

*Certificate*: random pools of 2 to 9 candidates over 2 to 6 genes, measured and not, with effects
told and not, cells from 10 to 10,000, bounds and cells under way in a third each. It holds if
neither the best plate found nor that of a general solver (SLSQP, every tenth pool) is better than
value less gap, for plates from which the steps are taken away early, and for the best ones.
*Exhaustive*: whole plates of 1 to 3 candidates of the same pools against all such plates, each with
its best split of cells: whether any lies below the bound, and what the wells chosen lose, as they
are, and had each been exchanged for every other candidate with the best split of each.
*Size*: 200 genes of 3 parents, 10,000 single and double knockouts, 96 wells.

    python -m benchmarks.plates            # some minutes
    python -m benchmarks.plates --quick
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from benchmarks._plate_pools import random_pool
from nextpert.core import Dag, DagBlr, Moments
from nextpert.core.plan._plate_criterion import PlateCriterion
from nextpert.core.plan.allocation import allocate_cells
from nextpert.core.plan.whole_plate import whole_plate
from nextpert.core.posterior.shift_posterior import ShiftPosterior

if TYPE_CHECKING:
    from collections.abc import Iterable


def main(arguments: list[str] | None = None) -> None:
    """Run all three and print them."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.plates", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--pools", type=int, default=500)
    parser.add_argument("--measured", type=int, nargs="+", default=[0, 200])
    parser.add_argument("--quick", action="store_true", help="a trial")
    args = parser.parse_args(arguments)
    if args.quick:
        args.cases, args.pools, args.measured = 20, 10, []
    for exact in (False, True):
        print(exhaustive(args.pools, exact=exact) + "\n", flush=True)
    print(certificates(args.cases) + "\n", flush=True)
    print(
        "| genes | candidates | shifts | wells | CPU s | peak MB (before) | continuous gap "
        "| removed | by the best continuous plate, at most | no plate better by more than |"
    )
    print("|---" * 10 + "|")
    for measured in args.measured:
        print(size(measured), flush=True)
    if not args.quick:
        print(size(0, exact=True), flush=True)


def certificates(n_cases: int) -> str:
    """Return how often the certificate held, and how tight it was."""
    early, late, worse, solved = 0, 0, [], 0
    gaps = []
    for seed in range(n_cases):
        blr, known, target, rng = random_pool(seed)
        m, n_cells = known.n_perturbations, float(10 ** rng.uniform(1, 4))
        low, high = np.zeros(m), np.full(m, n_cells)
        if seed % 3 == 2:
            low = rng.random(m) * n_cells / m / 2
            high = low + rng.uniform(1, 2, m) * n_cells / m
        pending = rng.integers(0, 50, m) * (rng.random(m) < 0.3) * (seed % 3 == 1)
        options = {"least": low, "most": high, "pending": pending}
        best = allocate_cells(blr, known, target, n_cells, tolerance=1e-8, **options)
        first = allocate_cells(
            blr, known, target, n_cells, tolerance=1e-8, max_steps=seed % 2, **options
        )
        early += first.value - first.gap <= best.value * (1 + 1e-9)
        gaps.append(best.within)
        if seed % 10 == 0:
            criterion = PlateCriterion(blr, known, target, n_cells, pending=pending)
            other = by_slsqp(criterion, n_cells, best.value, low, high)
            late += best.value - best.gap <= other * (1 + 1e-9)
            worse.append(best.value / other - 1)
            solved += 1
    return (
        f"Certificates: early ones held in {early} of {n_cases} pools, those of the best plate "
        f"against SLSQP in {late} of {solved}. Gap at the end, share of the value: at most "
        f"{max(gaps):.1e}. Value over that of SLSQP: at most {max(worse):+.1e}, "
        f"at least {min(worse):+.1e}."
    )


def by_slsqp(
    criterion: PlateCriterion, n_cells: float, scale: float, low: np.ndarray, high: np.ndarray
) -> float:
    """Return the least value of a general solver."""
    working = criterion.work_on(np.arange(criterion.size))

    def cells(z: np.ndarray) -> np.ndarray:
        return np.clip(z, low / n_cells, high / n_cells) * n_cells

    start = low + (n_cells - low.sum()) * (high - low) / (high - low).sum()
    found = minimize(
        lambda z: working.look(cells(z)).value / scale, start / n_cells,
        jac=lambda z: working.look(cells(z)).slopes() * n_cells / scale,
        bounds=list(zip(low / n_cells, high / n_cells, strict=True)),
        constraints={"type": "eq", "fun": lambda z: z.sum() - 1, "jac": np.ones_like},
        method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    return float(working.look(cells(found.x) * n_cells / cells(found.x).sum()).value)


def exhaustive(n_pools: int, *, exact: bool = False) -> str:
    """Return how the bound of whole wells holds, how tight it is, and what the wells lose."""
    held, losses, exchanged, within = 0, [], [], []
    for seed in range(n_pools):
        blr, known, target, rng = random_pool(seed)
        known = ShiftPosterior.exact(known.prior) if exact else known
        m, n_cells = known.n_perturbations, int(10 ** rng.uniform(1.5, 3))
        k = min(int(rng.integers(1, 4)), m)
        plate = whole_plate(blr, known, target, k, n_cells, least=5)
        values, lowest = {}, np.inf
        for chosen in itertools.combinations(range(m), k):
            low, high = np.zeros(m), np.zeros(m)
            low[list(chosen)], high[list(chosen)] = 5, n_cells
            found = allocate_cells(blr, known, target, n_cells, least=low, most=high)
            values[chosen], lowest = found.value, min(lowest, found.value - found.gap)
        held += plate.bound <= min(values.values()) * (1 + 1e-9)
        losses.append(plate.value / lowest - 1)
        exchanged.append(losses[-1] + (exchange(values, plate.chosen) - plate.value) / lowest)
        within.append(plate.within)
    far = [f"{100 * np.mean(np.array(each) > 1e-3):.1f} %" for each in (losses, exchanged)]
    return (
        f"Whole plates of 1 to 3 of 2 to 9 candidates, shifts {'known' if exact else 'uncertain'}, "
        f"{n_pools} pools: the bound held in {held}; no plate better by more than (median, 90 %, "
        f"most) {', '.join(f'{100 * x:.2g} %' for x in np.quantile(within, [0.5, 0.9, 1]))}. Over "
        f"the best plate with its best split: median {np.median(losses):.1e}, at most "
        f"{max(losses):.1e}, above 0.1 % in {far[0]}; after exchanges at most "
        f"{max(exchanged):.1e}, in {far[1]}."
    )


def exchange(values: dict[tuple[int, ...], float], chosen: Iterable[int]) -> float:
    """Return the value that exchanges of one candidate for another end at."""
    now = tuple(sorted(int(j) for j in chosen))
    while True:
        near = [each for each in values if len(set(each) & set(now)) >= len(now) - 1]
        best = min(near, key=values.__getitem__)
        if values[best] >= values[now]:
            return values[now]
        now = best


def size(measured: int, *, exact: bool = False) -> str:
    """Return time and memory of a large plate."""
    blr, known, target = large(200, 10_000, measured)
    known = ShiftPosterior.exact(known.prior) if exact else known
    shifts = "known" if exact else f"uncertain, {measured} measured"
    tiny = large(10, 40, 2)
    whole_plate(*tiny, 4, 400)  # compiled once
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    start = time.process_time()
    plate = whole_plate(blr, known, target, 96, 9600, least=20)
    seconds = time.process_time() - start
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    continuous = allocate_cells(blr, known, target, 9600, tolerance=1e-3)
    bound = continuous.value - continuous.gap
    best = 1 - (1 - plate.removed) * bound / plate.value
    return (
        f"| 200 | 10,000 | {shifts} | 96 | {seconds:.1f} | {after:.0f} ({peak:.0f}) "
        f"| {100 * continuous.within:.2f} % | {100 * plate.removed:.2f} % | {100 * best:.2f} % "
        f"| {100 * plate.within:.2g} % |"
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
