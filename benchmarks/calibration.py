"""Calibration: how often the truth lies inside the posterior's 90% intervals.

Random linear SCMs with intercepts; the posterior as nextpert gives it (prior scale learned by
evidence, unknown noise variances, intercepts), after control cells and some perturbations with a
shift of one on one node. Intervals are equal-tailed quantiles of posterior draws. One number an
instance, mean ± standard error over distinct instances. With the true graph, and with the one
learned from the instance's own control cells by GSP, which no posterior over weights accounts for.

Columns: the weights of all edges; the ideal shift b of a target, all nodes; the squared distance to
that target of the means reached by single-node shifts of ±1, and by the recommended shift; then
the distances by score intervals instead of quantiles. A posterior of a squared distance sits too
high by twice the summed variance of the reached mean, as the squared length of a noisy vector
does: where the cells are few for the number of genes and the distance is small, quantiles lie
above the truth. At the ideal shift itself, true distance 0, they never hold it. The score
interval takes that noise off, and holds in all cases but for the recommended shift, which was
chosen to bring the posterior mean onto the target; there, quantiles are the ones to read.

With ``--prior-units data``, one scale in units of the data for all nodes of a dense standardised
model, weights fall short where a node has many parents for the number of cells.

    python benchmarks/calibration.py            # some minutes
    python benchmarks/calibration.py --quick
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from joblib import Parallel, delayed

from nextpert.core import DagBlr, LinearScm, Moments, gsp, random_scm, random_target

QUANTITIES = (
    "weights", "b", "distance", "distance, recommended", "distance, ideal",
    "score: distance", "score: recommended", "score: ideal",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    n_nodes: int
    family: str
    n_control: int
    n_perturbations: int
    n_cells: int
    learned: bool = False

    def __str__(self) -> str:
        graph = "learned" if self.learned else "known"
        cells = f"{self.n_control} + {self.n_perturbations} x {self.n_cells}"
        return f"{self.n_nodes} nodes, {self.family}, {cells} cells, graph {graph}"


SETTINGS = (
    Setting(10, "complete", 100, 5, 20),
    Setting(30, "complete", 500, 10, 50),
    Setting(30, "complete", 100, 10, 20),
    Setting(30, "erdos_renyi", 5000, 20, 100),
    Setting(30, "erdos_renyi", 500, 10, 50),
    Setting(30, "erdos_renyi", 100, 10, 20),
    Setting(30, "erdos_renyi", 5000, 20, 100, learned=True),
    Setting(30, "erdos_renyi", 500, 10, 50, learned=True),
)


def main() -> None:
    """Run all settings and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--instances", type=int, default=150)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--prior-units", choices=("data", "noise"), default="noise")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="8 instances and 300 draws: a trial")
    args = parser.parse_args()
    n, draws = (8, 300) if args.quick else (args.instances, args.samples)
    print(f"Coverage of {100 * args.level:g}% intervals, {n} instances, {draws} draws, in %.\n")
    print("| setting | " + " | ".join(QUANTITIES) + " |")
    print("|---" * (1 + len(QUANTITIES)) + "|")
    for setting in SETTINGS:
        seeds = range(args.first_seed, args.first_seed + n)
        found = np.array(
            Parallel(n_jobs=args.workers)(
                delayed(coverage)(
                    setting, seed, level=args.level, n_samples=draws, prior_units=args.prior_units
                )
                for seed in seeds
            )
        )
        mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(n)
        shown = [f"{100 * m:.1f} ± {100 * e:.1f}" for m, e in zip(mean, error, strict=True)]
        print(f"| {setting} | " + " | ".join(shown) + " |", flush=True)


def coverage(
    setting: Setting,
    seed: int,
    *,
    level: float = 0.9,
    n_samples: int = 1000,
    prior_units: str = "noise",
) -> list[float]:
    """Return the share of true values inside their intervals, in the order of ``QUANTITIES``."""
    rng = np.random.default_rng(seed)
    p = setting.n_nodes
    scm, posterior = instance(setting, rng, prior_units)
    ideal, target = random_target(scm, max(p // 3, 1), rng=rng)
    weights, intercepts = draw_weights(posterior, n_samples, rng)
    dag = posterior.dag
    child = np.repeat(np.arange(p), dag.in_degree)
    edges = weights[:, child, dag.indices]
    shifts = target - weights @ target - intercepts
    total = np.linalg.inv(np.eye(p) - weights)  # (n_samples, p, p)
    start = np.einsum("sij,sj->si", total, intercepts)

    def distances(shift: np.ndarray) -> tuple[np.ndarray, float]:
        reached = start + total @ shift
        truth = float(((scm.mean(shift) - target) ** 2).sum())
        return reached, truth

    singles = [sign * np.eye(p)[k] for sign in (1, -1) for k in range(p)]
    groups = [singles, [posterior.ideal_shift(target)], [ideal]]
    quantiles, scores = [], []
    for group in groups:
        pairs = [distances(shift) for shift in group]
        quantiles.append(
            np.mean([inside(((r - target) ** 2).sum(axis=1), truth, level) for r, truth in pairs])
        )
        scores.append(np.mean([score_inside(r - target, truth, level) for r, truth in pairs]))
    true_edges = scm.weights[child, dag.indices]
    held = inside(edges, true_edges, level).mean() if len(child) else 1.0
    return [float(v) for v in (held, inside(shifts, ideal, level).mean(), *quantiles, *scores)]


def instance(
    setting: Setting, rng: np.random.Generator, prior_units: str = "noise"
) -> tuple[LinearScm, DagBlr]:
    """Draw a model with intercepts, and the posterior after its cells."""
    p = setting.n_nodes
    unit = random_scm(p, setting.family, rng=rng)
    scm = LinearScm(unit.weights, unit.noise_var, rng.normal(size=p))
    control = Moments.from_array(scm.sample(setting.n_control, rng=rng))
    dag = gsp(control, n_runs=5, rng=rng).dag if setting.learned else scm.dag
    posterior = DagBlr(dag, prior_units=prior_units).update(control)
    for node in rng.choice(p, setting.n_perturbations, replace=False):
        shift = np.zeros(p)
        shift[node] = rng.choice([-1.0, 1.0])
        cells = Moments.from_array(scm.sample(setting.n_cells, shift, rng=rng))
        posterior = posterior.update(cells, shift)
    return scm, posterior


def draw_weights(
    posterior: DagBlr, n_samples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of B, ``(n_samples, p, p)``, and of the intercepts, ``(n_samples, p)``."""
    flat, _ = posterior.sample(n_samples, rng)
    p, dag, first = posterior.n_nodes, posterior.dag, posterior.vptr[:-1]
    is_weight = np.ones(flat.shape[1], dtype=bool)
    is_weight[first] = False
    weights = np.zeros((n_samples, p, p))
    weights[:, np.repeat(np.arange(p), dag.in_degree), dag.indices] = flat[:, is_weight]
    return weights, flat[:, first]


def inside(draws: np.ndarray, truth: np.ndarray | float, level: float) -> np.ndarray:
    """Say whether each true value lies inside the equal-tailed interval of its draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return (low <= truth) & (truth <= high)


def score_inside(gap: np.ndarray, truth: float, level: float) -> bool:
    """Say whether the squared length of the gap lies inside its score interval.

    With mean ``d`` and covariance ``V`` of the draws of the gap, ``|d|^2 - tr V`` estimates the
    squared length without bias, with variance ``4 d'Vd/|d|^2`` times it plus ``2 tr V^2``.
    """
    d, v = gap.mean(axis=0), np.cov(gap.T)
    estimate = d @ d - np.trace(v)
    variance = 4 * (d @ v @ d) / (d @ d) * truth + 2 * (v * v).sum()
    return bool((estimate - truth) ** 2 <= NormalDist().inv_cdf((1 + level) / 2) ** 2 * variance)


if __name__ == "__main__":
    main()
