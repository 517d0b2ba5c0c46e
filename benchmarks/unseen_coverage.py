"""Intervals of effects of perturbations that were left out of everything, on real screens.

Each perturbation's cells are left out of graph, fit and expectation; ``tl.perturbation_effects``
is asked for it as a candidate without cells. How often 90% intervals cover the means of its cells
less the controls' (the interval's ends are widened by their sampling variance), over all genes and
over those that are clearly changed (3 standard errors; a choice by the truth, so lower by nature);
and the squared error over that of "no effect", own gene included, its change not known.

    python -m benchmarks.unseen_coverage                  # some minutes; data: NEXTPERT_DATA
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from scipy.stats import norm

import nextpert as npt
from benchmarks._screens import Screen, add_arguments, screens_of

LEVEL = 0.9


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.unseen_coverage", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--screens", nargs="+", default=["papalexi", "tapseq", "hill"])
    parser.add_argument("--data", default=os.environ.get("NEXTPERT_DATA", "."))
    parser.add_argument("--save", metavar="FILE", help="also write the table to this file")
    add_arguments(parser)
    args = parser.parse_args(arguments)
    lines = [
        "| screen | perturbations | coverage, all genes | coverage, changed genes | error |",
        "|---|---|---|---|---|",
    ]
    for _, screen in screens_of(args):
        rows = [left_out(screen, target) for target in sorted(screen.targets)]
        inside, changed, error, nothing = (np.concatenate(part) for part in zip(*rows, strict=True))
        lines.append(
            f"| {screen.name} | {len(rows)} | {100 * inside.mean():.1f}% | "
            f"{100 * inside[changed].mean():.1f}% of {changed.sum()} | "
            f"{error.sum() / nothing.sum():.2f} |"
        )
    print("\n".join(lines), flush=True)
    if args.save:
        Path(args.save).write_text("\n".join(lines) + "\n")


def left_out(screen: Screen, name: str) -> tuple[np.ndarray, ...]:
    """Return, gene by gene: inside its interval, clearly changed, squared error, squared change."""
    roles = screen.environments.roles
    label = screen.cells.obs[roles.perturbation_key].astype(str).to_numpy()
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
    return inside, changed, (mean - change) ** 2 - variance, change**2 - variance


if __name__ == "__main__":
    main()
