"""The synthetic setting of the paper: how close each acquisition comes to the target, by round.

Zhang et al. 2023 (Fig. 5): complete graph of 30 genes, standardised weights, known noise
variances, the ideal shift of norm one on the 10 most downstream genes, shifts of norm one, one
cell a round, 50 rounds. Distances are ``|mu_t - mu*| / |mu*|``, with ``mu_t`` the mean truly
reached by the shift recommended after round t. Means over instances, standard errors over
instances (runs of one instance are averaged first).

    python benchmarks/synthetic_design.py
"""

from __future__ import annotations

import argparse
import os
import time
from functools import cache

import numpy as np
import pandas as pd

from nextpert.core import DagBlr, LinearScm, random_scm
from nextpert.core.evaluate.design_loop import design_loops

ACQUISITIONS = ("civ", "civ_ow", "target_mean_variance", "cv", "greedy", "maxv", "random")


@cache
def instance(seed: int, n_nodes: int, n_targets: int) -> tuple[LinearScm, np.ndarray]:
    """Draw a model and the target mean of an ideal shift on its most downstream genes."""
    rng = np.random.default_rng(seed)
    scm = random_scm(n_nodes, "complete", rng=rng)
    entries = rng.uniform(0.25, 1, n_targets) * rng.choice([-1, 1], n_targets)
    shift = np.zeros(n_nodes)
    shift[-n_targets:] = entries / np.linalg.norm(entries)
    return scm, scm.mean(shift)


def task(seed: int, run_id: int, acquisition: str, prior: str, args: argparse.Namespace) -> dict:
    """Return the arguments of one campaign."""
    scm, target = instance(seed, args.genes, args.targets)
    scale, units = ("evidence", "noise") if prior == "learned" else (1.0, "data")
    return {
        "source": scm,
        "posterior": DagBlr(
            scm.dag, noise_var=scm.noise_var, intercept=False, prior_scale=scale, prior_units=units
        ),
        "target_mean": target,
        "acquisition": acquisition,
        "n_rounds": args.rounds,
        "rng": [seed, run_id],
    }


def main() -> None:
    """Run all campaigns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--genes", type=int, default=30)
    parser.add_argument("--targets", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--instances", type=int, default=20)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument(
        "--acquisitions", nargs="+", default=list(ACQUISITIONS), choices=ACQUISITIONS
    )
    parser.add_argument("--priors", nargs="+", default=["fixed", "learned"])
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--csv", help="also write every distance to this file")
    args = parser.parse_args()

    seeds = range(args.first_seed, args.first_seed + args.instances)
    tasks = [
        (seed, r, acquisition, prior)
        for prior in args.priors
        for acquisition in args.acquisitions
        for seed in seeds
        for r in range(args.runs)
    ]
    start = time.perf_counter()
    results = design_loops([task(*t, args) for t in tasks], n_jobs=args.workers)
    elapsed = time.perf_counter() - start
    curves = [np.sqrt(result.distance) for result in results]
    table = pd.DataFrame(tasks, columns=["instance", "run", "acquisition", "prior"])
    rounds = sorted({0, 10, 20, 25, args.rounds} & set(range(args.rounds + 1)))
    for t in rounds:
        table[t] = [curve[t] for curve in curves]
    if args.csv:
        table.to_csv(args.csv, index=False)

    by_instance = table.groupby(["prior", "acquisition", "instance"])[rounds].mean()
    grouped = by_instance.groupby(level=["prior", "acquisition"])
    mean, error = grouped.mean(), grouped.sem()
    shown = mean.round(3).astype(str) + " ± " + error.round(3).astype(str)
    shown = shown.assign(_last=mean[rounds[-1]]).sort_values(["prior", "_last"])
    print(f"{args.instances} instances x {args.runs} runs, {args.genes} genes; after round")
    print(shown.drop(columns="_last").to_string())
    last = by_instance.reset_index()
    pairs = last.pivot_table(rounds[-1], ["prior", "instance"], "acquisition")
    if {"cv", "greedy"} <= set(pairs):
        for prior, gap in (pairs["cv"] - pairs["greedy"]).groupby(level="prior"):
            print(f"cv - greedy after the last round, {prior} prior: {gap.mean():+.3f}", end="")
            print(f" ± {gap.sem():.3f} (paired by instance)")
    print(f"{len(tasks) * args.rounds} steps in {elapsed:.1f} s on {args.workers} workers")


if __name__ == "__main__":
    main()
