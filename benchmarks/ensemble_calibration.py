"""Calibration with learned graphs: one graph against the graphs of resamples.

Simulated screens (36 genes, 18 of them knocked out in 100 cells each; 5,000 or 500 controls). The
graph by ``tl.learn_dag(method="boss", environments="all")``, the posterior by ``tl.fit_dag_blr``,
shifts exact, as they are in these simulations.
How often the truth lies inside 90% intervals, equal-tailed quantiles of draws from

- the true graph's posterior;
- the one learned graph's;
- those of the graphs of resamples, alike;
- the same, graphs weighted by their evidence.

Columns: weights of edges, and total effects of one gene on another, each of the pairs that have one
in the truth or in the learned graph; squared distances to a random target of the means that
knockouts reach, seen in the screen or not; the median width of the intervals of total effects. Mean
± standard error over models.

    python -m benchmarks.ensemble_calibration            # some minutes
"""

from __future__ import annotations

from itertools import product

import anndata as ad
import numpy as np
import pandas as pd
from joblib import Parallel, delayed

import nextpert as npt
from benchmarks._simulated import Setting, Simulated, simulate
from benchmarks._table import options, save
from benchmarks.calibration import draw_weights, inside
from nextpert._adata import posterior_from
from nextpert.core import DagBlr, random_target

QUANTITIES = ("weights", "total effects", "distance, seen", "distance, unseen", "median width")
GRAPHS = ("true", "one, learned", "of resamples, alike", "of resamples, by evidence")


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("ensemble_calibration", __doc__)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--degrees", type=float, nargs="+", default=[2, 4, 8])
    parser.add_argument("--graphs", type=int, default=25)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--level", type=float, default=0.9)
    parser.add_argument("--genes", type=int, default=36)
    parser.add_argument("--controls", type=int, nargs="+", default=[5000, 500])
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(arguments)
    lines = [
        f"Coverage of {100 * args.level:g}% intervals in %, {args.models} models, {args.graphs} "
        f"resamples, {args.genes} genes, {args.genes // 2} of them knocked out in 100 cells each.",
        "",
        f"| controls | degree | graphs | {' | '.join(QUANTITIES)} |",
        "|---" * (3 + len(QUANTITIES)) + "|",
    ]
    for n_control, degree in product(args.controls, args.degrees):
        setting = Setting(degree, n_genes=args.genes, n_seen=args.genes // 2, n_control=n_control)
        found = np.array(
            Parallel(n_jobs=args.workers)(
                delayed(coverage)(setting, seed, args.graphs, args.samples, args.level)
                for seed in range(args.models)
            )
        )
        mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(args.models)
        for k, name in enumerate(GRAPHS):
            shown = [
                f"{100 * m:.1f} ± {100 * e:.1f}" for m, e in zip(mean[k], error[k], strict=True)
            ]
            shown[-1] = f"{mean[k, -1]:.3f}"
            lines.append(f"| {n_control:,} | {degree:g} | {name} | {' | '.join(shown)} |")
    print("\n".join(lines), flush=True)
    save(lines, args.save)


def coverage(
    setting: Setting, seed: int, n_graphs: int, n_samples: int, level: float
) -> list[list[float]]:
    """Return ``QUANTITIES`` for each of ``GRAPHS``, of one simulated screen."""
    found = simulate(setting, seed)
    adata = as_anndata(found)
    npt.tl.learn_dag(adata, method="boss", environments="all", n_graphs=n_graphs, rng=seed)
    npt.tl.fit_dag_blr(adata, shift_sd=0)
    fit = posterior_from(adata)
    npt.tl.learn_dag(adata, method="given", dag=found.scm.dag, key_added="true")
    npt.tl.fit_dag_blr(adata, dag_key="true", key_added="true_blr", shift_sd=0)
    known = posterior_from(adata, "true_blr").posterior
    evidence = np.array([blr.log_evidence() for blr in fit.ensemble])
    share = np.exp(evidence - evidence.max())
    share /= share.sum()
    rng = np.random.default_rng([seed, 1])
    drawn = [
        draws([known], np.ones(1), n_samples, rng),
        draws([fit.posterior], np.ones(1), n_samples, rng),
        draws(fit.ensemble, np.full(len(share), 1 / len(share)), n_samples, rng),
        draws(fit.ensemble, share, n_samples, rng),
    ]
    _, target = random_target(found.scm, setting.n_genes // 3, rng=rng)
    at_hand = fit.posterior.mean().toarray()
    return [shares(found, at_hand, target, *each, level) for each in drawn]


def as_anndata(found: Simulated) -> ad.AnnData:
    """Return the cells, genes called by their number as the knockouts are."""
    obs = pd.DataFrame({"perturbation": found.label}, [f"c{k}" for k in range(len(found.label))])
    var = pd.DataFrame(index=[str(k) for k in range(found.cells.shape[1])])
    return ad.AnnData(found.cells, obs, var)


def draws(
    posteriors: list[DagBlr], share: np.ndarray, n_samples: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return draws of B and of the intercepts, from each graph as many as its share says."""
    counts = np.floor(n_samples * np.cumsum(share) + 0.5).astype(int)
    counts = np.diff(counts, prepend=0)
    parts = [draw_weights(blr, int(n), rng) for blr, n in zip(posteriors, counts, strict=True) if n]
    return np.concatenate([b for b, _ in parts]), np.concatenate([c for _, c in parts])


def shares(
    found: Simulated,
    at_hand: np.ndarray,
    target: np.ndarray,
    weights: np.ndarray,
    intercepts: np.ndarray,
    level: float,
) -> list[float]:
    """Return the share of truths inside their intervals, and the median width of effects."""
    eye = np.eye(found.scm.n_nodes)
    truth, drawn = effects(eye, found.scm.weights), effects(eye, weights)
    pairs = (truth != 0) | (effects(eye, at_hand) != 0)
    pairs &= eye == 0
    edges = (found.scm.weights != 0) | (at_hand != 0)
    low, high = np.quantile(drawn[:, pairs], [(1 - level) / 2, (1 + level) / 2], axis=0)
    start = np.einsum("sij,sj->si", drawn, intercepts)
    held = []
    for genes in (found.seen, found.unseen):
        for gene in genes:
            shift = found.change[gene] * eye[gene]
            reached = ((start + drawn @ shift - target) ** 2).sum(axis=1)
            wanted = float(((found.scm.mean(shift) - target) ** 2).sum())
            held.append(bool(inside(reached, wanted, level)))
    n_seen = len(found.seen)
    return [
        float(inside(weights[:, edges], found.scm.weights[edges], level).mean()),
        float(inside(drawn[:, pairs], truth[pairs], level).mean()),
        float(np.mean(held[:n_seen])),
        float(np.mean(held[n_seen:])),
        float(np.median(high - low)),
    ]


def effects(eye: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return ``(I - B)^-1``, with the zeros of pairs without a path as such."""
    total = np.linalg.inv(eye - weights)
    return np.where(np.abs(total) < 1e-12, 0.0, total)


if __name__ == "__main__":
    main()
