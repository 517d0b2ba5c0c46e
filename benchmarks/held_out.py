"""Held-out perturbations: what graphs, coexpression and other perturbations say of them.

Each perturbation whose target is measured is left out, its cells taken out of search, fit and
statistics. Its effect on the other genes (difference of means to the controls, in units of the
controls' standard deviation) is then predicted from its measured change of its own gene. The
table has the mean correlation over perturbations (0 where a prediction is constant), and the total
squared error over that of "no effect". A graph predicts the total effects of the left-out gene,
its weights fitted to all other cells beside the perturbations' indicators.

    python -m benchmarks.held_out                                   # Papalexi and TAP-seq
    python -m benchmarks.held_out --screens papalexi --batch-key bio_rep
    python -m benchmarks.held_out --screens hill norman
    python -m benchmarks.held_out --file mine.h5ad --control NT --layer lognorm
"""

from __future__ import annotations

import sys
import time

import numpy as np
from joblib import Parallel, delayed

from benchmarks._predictors import (
    coexpression,
    fit_weights,
    learn_all,
    plain_moments,
    search_all,
    search_controls,
    total_effects,
)
from benchmarks._screens import SOURCES, Screen, Statistics, add_arguments, screens_of
from benchmarks._table import options, save

ROWS = (
    "no effect (an empty graph)",
    "controls only, GSP",
    "controls only, BOSS",
    "indicators",
    "targets first, left-out gene in the tier",
    "targets first, left-out gene not in it",
    "coexpression, controls",
    "coexpression, all other cells",
    "mean of the other perturbations",
    "indicators by tl.learn_dag (more starts)",
)
# The rows of graphs: the tier (None: no tier; True: the left-out gene in it; False: not in it).
_TIERS = dict(zip(ROWS[3:6], (None, True, False), strict=True))


def averaged(row: str, n: int) -> str:
    """Return the name of the row that averages over resamples."""
    return f"{row}, {n} resamples"


def graphs_of_controls(screen: Screen, n_resamples: int) -> dict[str, list]:
    """Return the graphs of the control cells, by row; they are the same whatever is left out."""
    controls = screen.statistics([screen.control])
    found = {
        ROWS[1]: [search_controls(controls, method="gsp")],
        ROWS[2]: [search_controls(controls)],
    }
    if n_resamples:
        found[averaged(ROWS[2], n_resamples)] = [
            search_controls(screen.statistics([screen.control], np.random.default_rng(seed)))
            for seed in range(n_resamples)
        ]
    return found


def predict(
    screen: Screen, name: str, of_controls: dict[str, list], n_resamples: int
) -> dict[str, np.ndarray]:
    """Return the effect of a left-out perturbation by row, own change 1 (mean: as it is)."""
    gene = screen.targets[name]
    others = [screen.control, *(q for q in screen.environments.perturbations() if q != name)]
    rest = screen.statistics(others)
    p = rest.moments.n_nodes
    out = {ROWS[0]: np.zeros(p)}

    def effects(dag, edges) -> np.ndarray:
        return total_effects(fit_weights(rest, dag, edges, screen.targets))[:, gene]

    for row, dags in of_controls.items():
        out[row] = np.mean([effects(dag, None) for dag in dags], axis=0)
    tier = set(screen.targets.values())
    resamples = [
        screen.statistics(others, np.random.default_rng(seed)) for seed in range(n_resamples)
    ]
    for row, inside in _TIERS.items():
        first = None if inside is None else tier if inside else tier - {gene}
        out[row] = effects(*search_all(rest, first))
        if resamples:
            every = [effects(*search_all(part, first)) for part in resamples]
            out[averaged(row, n_resamples)] = np.mean(every, axis=0)
        if inside is None:
            out[ROWS[9]] = effects(*learn_all(screen, others))
    out[ROWS[6]] = coexpression(plain_moments(screen.statistics([screen.control])), gene)
    out[ROWS[7]] = coexpression(plain_moments(rest), gene)
    means, _ = rest.means()
    out[ROWS[8]] = np.mean([means[q] for q in rest.perturbations], axis=0) - means[rest.control]
    return out


def score(
    screen: Screen, found: dict[str, dict[str, np.ndarray]], everything: Statistics
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Return correlation, squared error and squared effect, by row and perturbation."""
    means, _ = everything.means()
    controls = screen.statistics([screen.control])
    sd = np.sqrt(plain_moments(controls).variance)
    out: dict[str, dict[str, tuple[float, float, float]]] = {}
    for name, predictions in found.items():
        gene = screen.targets[name]
        other = (np.arange(len(sd)) != gene) & (sd > 0)
        change = means[name] - means[screen.control]
        truth = (change / np.where(sd > 0, sd, 1))[other]
        for row, prediction in predictions.items():
            own = 1.0 if row == ROWS[8] else change[gene]
            guess = (own * prediction / np.where(sd > 0, sd, 1))[other]
            r = np.corrcoef(guess, truth)[0, 1] if np.ptp(guess) > 0 else 0.0
            scores = (float(r), float(((guess - truth) ** 2).sum()), float((truth**2).sum()))
            out.setdefault(row, {})[name] = scores
    return out


def tables(scores: dict[str, dict[str, tuple[float, float, float]]], detail: bool) -> str:
    """Return the table, and one of correlations by perturbation with ``detail``."""
    names = list(next(iter(scores.values())))
    lines = ["| prediction | mean r | ± | error / no effect |", "|---|---|---|---|"]
    for row, found in scores.items():
        r, error, whole = np.array([found[name] for name in names]).T
        sem = r.std(ddof=1) / np.sqrt(len(r)) if len(r) > 1 else np.nan
        lines.append(f"| {row} | {r.mean():.3f} | {sem:.3f} | {error.sum() / whole.sum():.2f} |")
    if detail:
        size = [f"{next(iter(scores.values()))[name][2]:.2f}" for name in names]
        lines += ["", f"| r of | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
        lines.append(f"| squared effect | {' | '.join(size)} |")
        for row, found in scores.items():
            lines.append(f"| {row} | {' | '.join(f'{found[n][0]:.2f}' for n in names)} |")
    return "\n".join(lines)


def run(screen: Screen, *, n_resamples: int, detail: bool, workers: int) -> str:
    """Return the section of one screen."""
    start = time.perf_counter()
    everything = screen.statistics([screen.control, *screen.environments.perturbations()])
    controls = graphs_of_controls(screen, n_resamples)
    names = sorted(screen.targets)
    found = Parallel(n_jobs=workers)(
        delayed(predict)(screen, name, controls, n_resamples) for name in names
    )
    scores = score(screen, dict(zip(names, found, strict=True)), everything)
    batches = ", ".join(screen.environments.roles.batch_key)
    head = (
        f"## {screen.name}: {len(names)} of {len(everything.perturbations)} perturbations left out "
        f"one by one, {screen.cells.n_vars} genes, {everything.moments.n.sum():,} cells"
        + (f", batches {batches} as fixed effects" if batches else "")
    )
    took = time.perf_counter() - start
    print(f"{screen.name}: {took:.0f} s", file=sys.stderr)
    return f"{head}\n\n{tables(scores, detail)}\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the screens asked for and print their tables."""
    parser = options("held_out", __doc__, data=True)
    parser.add_argument(
        "--screens", nargs="+", default=["papalexi", "tapseq"], choices=list(SOURCES)
    )
    parser.add_argument("--resamples", type=int, default=8, help="0 for none")
    parser.add_argument("--detail", action="store_true", help="also r of every perturbation")
    parser.add_argument("--workers", type=int, default=1)
    add_arguments(parser)
    args = parser.parse_args(arguments)
    sections = []
    for _, screen in screens_of(args):
        if not screen.targets:
            sections.append(f"## {screen.name}: no target is measured, so none can be left out\n")
        else:
            sections.append(
                run(screen, n_resamples=args.resamples, detail=args.detail, workers=args.workers)
            )
        print(sections[-1], flush=True)
    save(sections, args.save)


if __name__ == "__main__":
    main()
