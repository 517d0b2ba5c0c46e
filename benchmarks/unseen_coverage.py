"""Intervals of effects of perturbations that were left out of the whole analysis, on real screens.

Each perturbation's cells are left out of graph, fit and expectation; ``tl.perturbation_effects``
predicts it as a candidate without cells. The table has the coverage of 90% intervals of the means
of its cells minus the controls' (the intervals are widened by the sampling variance), over all
genes and over those that change by at least 3 standard errors (these are selected by the truth, so
that their coverage is lower); and the squared error relative to that of "no effect", with the
change of the target gene unknown: over all genes in units of the data, and over the other genes in
units of their standard deviation. Weights are those of the predictors, averaged over the fits.

    python -m benchmarks.unseen_coverage                  # some minutes; data: NEXTPERT_DATA
"""

from __future__ import annotations

import numpy as np
from scipy.stats import norm

import nextpert as npt
from benchmarks._page import options, save, show, table
from benchmarks._screens import Screen, add_arguments, screens_of
from nextpert._adata.posterior import posterior_from

LEVEL = 0.9


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("unseen_coverage", __doc__, data=True)
    add_arguments(parser, "papalexi", "tapseq", "hill")
    rows = {}
    for screen in screens_of(parser.parse_args(arguments)):
        found = [left_out(screen, target) for target in sorted(screen.targets)]
        *tables, others, nothing_else, weights = zip(*found, strict=True)
        inside, changed, error, nothing = map(np.concatenate, tables)
        rows[screen.name] = [
            len(found), f"{100 * inside.mean():.1f}%",
            f"{100 * inside[changed].mean():.1f}% of {changed.sum()}",
            f"{error.sum() / nothing.sum():.2f}", f"{sum(others) / sum(nothing_else):.3f}",
            ", ".join(f"{w:.2f}" for w in np.mean(weights, axis=0)[:3]),
        ]  # fmt: skip
    head = (
        "screen", "perturbations", "coverage, all genes", "coverage, changed genes", "error",
        "error, other genes", "weights: graph, coexpression, mean",
    )  # fmt: skip
    save("unseen_coverage", [show(table(head, rows))], parser.parse_args(arguments).save)


def left_out(screen: Screen, name: str) -> tuple[np.ndarray, ...]:
    """Return, gene by gene: inside its interval, clearly changed, squared error, squared change.

    And of the other genes the sums of the last two, in units of the controls' variance, without the
    error that the prediction shares with what it is scored on; and the predictors' weights.
    """
    roles = screen.environments.roles
    label = screen.labels()
    cells, control = (screen.cells.X[label == which] for which in (name, roles.control))
    change = cells.mean(axis=0) - control.mean(axis=0)
    variance = cells.var(axis=0) / len(cells) + control.var(axis=0) / len(control)
    adata = screen.cells[label != name].copy()
    npt.pp.setup_screen(adata, perturbation_key=roles.perturbation_key, control=roles.control)
    npt.tl.learn_dag(adata, method="boss", environments="all")
    npt.tl.fit_dag_blr(adata)
    npt.tl.perturbation_effects(adata, candidates=[name], level=LEVEL)
    found = adata.uns["perturbation_effects"]
    mean, low, high = (found[part][0] for part in ("mean", "lower", "upper"))
    # Both ends move out as far as the sampling of the means adds to the width.
    z = norm.ppf((1 + LEVEL) / 2)
    low = mean - np.hypot(mean - low, z * np.sqrt(variance))
    high = mean + np.hypot(high - mean, z * np.sqrt(variance))
    inside = (low <= change) & (change <= high)
    changed = np.abs(change) > 3 * np.sqrt(variance)
    error, nothing = (mean - change) ** 2 - variance, change**2 - variance
    learned = posterior_from(adata).expectation
    weights = np.zeros(3) if learned is None else np.array(list(learned.weights.values()))
    # The mean of the others errs with the controls, of which the observed change is less, too.
    own = np.arange(len(mean)) == screen.targets[name]
    spread = np.where(own | (control.var(axis=0) == 0), np.inf, control.var(axis=0))
    shared = 2 * weights[2] * (~own).sum() / len(control) if learned is not None else 0.0
    others = (error / spread).sum() + shared, (nothing / spread).sum()
    return inside, changed, error, nothing, *others, weights


if __name__ == "__main__":
    main()
