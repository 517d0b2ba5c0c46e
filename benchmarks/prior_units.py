"""The units of the learned prior, beside one another, on models from three generators.

Standardised: the paper's models, equal noise before every node is rescaled to variance one; noise
then falls along the order, and units of the noise undo the rescaling. Internally standardised
(iSCM, Ormaniec et al. 2024, arXiv:2406.11601): every node is rescaled as it is generated, before
its children see it. Equal: noise of variance one, no rescaling.

Campaigns with CIV, one cell a round, no controls; the distance of the reached mean to the target,
over that of the control, mean ± standard error over instances.

    python -m benchmarks.prior_units            # some minutes
    python -m benchmarks.prior_units --instances 4
"""

from __future__ import annotations

import argparse

import numpy as np
from joblib import Parallel, delayed

from nextpert.core import DagBlr, LinearScm, design_loop, random_scm, random_target

GENERATORS = ("standardised", "internally standardised", "equal noise")
GRAPHS = ((30, "complete"), (30, "erdos_renyi"), (10, "complete"))
UNITS = ("data", "noise", "evidence")


def internally_standardised(scm: LinearScm) -> LinearScm:
    """Return the model in which every node is divided by its standard deviation as it is made."""
    p, before = scm.n_nodes, np.asarray(scm.weights)
    weights, cov, noise_var = np.zeros((p, p)), np.zeros((p, p)), np.empty(p)
    for i in scm.dag.order:
        cross = before[i] @ cov
        variance = cross @ before[i] + scm.noise_var[i]
        weights[i], noise_var[i] = before[i] / np.sqrt(variance), scm.noise_var[i] / variance
        cov[i] = cov[:, i] = cross / np.sqrt(variance)
        cov[i, i] = 1.0
    return LinearScm(weights, noise_var)


def draw(generator: str, n_nodes: int, graph: str, rng: np.random.Generator) -> LinearScm:
    """Draw a model from one of ``GENERATORS``."""
    scm = random_scm(n_nodes, graph, standardise=generator == "standardised", rng=rng)
    return internally_standardised(scm) if generator == "internally standardised" else scm


def distance(
    generator: str, n_nodes: int, graph: str, units: str, seed: int, *, known: bool, rounds: int
) -> float:
    """Return the distance after one campaign, over that of the control."""
    rng = np.random.default_rng(seed)
    scm = draw(generator, n_nodes, graph, rng)
    _, target = random_target(scm, max(n_nodes // 3, 1), rng=rng)
    # A shape of 2 would leave the variance of the gap infinite before the first cell.
    noise = {"noise_var": scm.noise_var} if known else {"prior_shape": 2.5}
    prior = DagBlr(scm.dag, intercept=False, prior_units=units, **noise)
    found = design_loop(scm, prior, target, n_rounds=rounds, rng=[seed, 1])
    return float(np.sqrt(found.distance[-1] / (target @ target)))


def main() -> None:
    """Run all campaigns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--instances", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    print(f"After {args.rounds} cells, {args.instances} instances.\n")
    print("| noise variances | graph | generator | " + " | ".join(UNITS) + " |")
    print("|---" * (3 + len(UNITS)) + "|")
    with Parallel(n_jobs=args.workers) as parallel:
        for known in (False, True):
            for n_nodes, graph in GRAPHS:
                for generator in GENERATORS:
                    shown = []
                    for units in UNITS:
                        found = parallel(
                            delayed(distance)(
                                generator, n_nodes, graph, units, seed,
                                known=known, rounds=args.rounds,
                            )
                            for seed in range(args.instances)
                        )  # fmt: skip
                        error = np.std(found, ddof=1) / np.sqrt(len(found))
                        shown.append(f"{np.mean(found):.3f} ± {error:.3f}")
                    noise = "known" if known else "unknown"
                    row = [noise, f"{graph}, {n_nodes}", generator, *shown]
                    print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
