"""Effects in three cell lines: pooled, each line alone, and by condition with sharing learned.

Simulated screens of 30 perturbations and 50 genes in three lines, with 25 or 100 cells of each
perturbation and ten times as many controls in every line. Half of the perturbations change a fifth
of the genes (by a normal with standard deviation 0.7, noise has 1), six share a program. ``one
line``: one perturbation changes 16 genes by 0.5 to 1 in the first line, and none in the others; all
others act alike in the three lines. ``alike``: all do. ``half``: effects in two lines have a
correlation of 0.5. ``apart``: they have nothing in common. Noise has four factors of coexpression,
and lines differ by a normal with standard deviation 1 on every gene.

All effects are those of the public calls. *Pooled*: lines are a ``batch_key``. *Each line alone*:
fitted by itself. *By condition*: lines are a ``condition_key``. "Significant" has a local false
sign rate below 0.05; it is wrong where the effect is 0 or has the other sign. The error is the
squared error summed over lines, perturbations and genes. "Found" are those of the 16 genes that are
significant with the right sign in the line of ``one line``, and "false there" the genes of this
perturbation that are significant in the other two lines. Standard errors are over screens; methods
see the same screens. The prior of departures was chosen on other screens of these settings.

    python -m benchmarks.conditions                       # 8 screens of each setting, 10 minutes
    python -m benchmarks.conditions --screens 1 --cells 25
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._quiet import quiet

N_LINES, N_PERTURBATIONS, N_GENES, N_CHANGED = 3, 30, 50, 16
KINDS = ("one line", "alike", "half", "apart")
POOLED, ALONE, OURS = METHODS = ("pooled", "each line alone", "by condition")
LINES = ["A", "B", "C"]


def truth(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return the effects, shape ``(N_LINES, N_PERTURBATIONS, N_GENES)``."""
    shape = (N_LINES, N_PERTURBATIONS, N_GENES)
    active = np.arange(N_PERTURBATIONS) < N_PERTURBATIONS // 2
    changed = (rng.random((1 if kind != "apart" else N_LINES, *shape[1:])) < 0.2) & active[:, None]
    effect = np.where(changed, 0.7 * rng.normal(size=changed.shape), 0.0)
    program = 0.5 * rng.normal(size=N_GENES) * (rng.random(N_GENES) < 0.3)
    if kind != "apart":
        effect[:, :6] += rng.normal(size=(6, 1)) * program
    effect = np.broadcast_to(effect, shape).copy()
    if kind == "one line":
        effect[:, 0] = 0.0
        genes = rng.choice(N_GENES, N_CHANGED, replace=False)
        effect[0, 0, genes] = rng.choice([-1, 1], N_CHANGED) * rng.uniform(0.5, 1.0, N_CHANGED)
    if kind == "half":
        own = np.where(changed, 0.7 * rng.normal(size=shape), 0.0)
        effect = np.sqrt(0.5) * (effect + own)
    return effect


def screen(effect: np.ndarray, n_cells: int, rng: np.random.Generator) -> ad.AnnData:
    """Return the cells of a screen."""
    label = np.repeat(np.arange(1 + N_PERTURBATIONS), [10 * n_cells] + [n_cells] * N_PERTURBATIONS)
    factors, line = 0.3 * rng.normal(size=(4, N_GENES)), np.repeat(range(N_LINES), len(label))
    x = 4.0 + rng.normal(size=(len(line), N_GENES)) + rng.normal(size=(len(line), 4)) @ factors
    label = np.tile(label, N_LINES)
    x += np.concatenate([np.zeros((N_LINES, 1, N_GENES)), effect], axis=1)[line, label]
    x += rng.normal(size=(N_LINES, N_GENES))[line]
    names = np.array(["control", *(f"P{j:02}" for j in range(N_PERTURBATIONS))])
    obs = pd.DataFrame(
        {"perturbation": names[label], "line": np.array(LINES)[line]},
        index=[f"c{i}" for i in range(len(line))],
    )
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(N_GENES)]))


def fitted(
    adata: ad.AnnData, conditions: list[str] | None = None, **roles: str
) -> list[ad.AnnData]:
    """Return effects after a fit, in each of some conditions if any are given."""
    npt.pp.setup_screen(adata, **roles)
    npt.tl.learn_dag(adata, method="given", dag=np.zeros((N_GENES, N_GENES)))
    npt.tl.fit_dag_blr(adata)
    return [
        npt.tl.perturbation_effects(adata, condition=name, as_anndata=True)
        for name in conditions or [None]
    ]


def by_method(adata: ad.AnnData) -> dict[str, list[ad.AnnData]]:
    """Return the effects in every line, by method."""
    alone = [fitted(adata[adata.obs["line"] == name].copy())[0] for name in LINES]
    pooled = fitted(adata.copy(), batch_key="line") * N_LINES
    ours = fitted(adata.copy(), LINES, condition_key="line")
    return {POOLED: pooled, ALONE: alone, OURS: ours}


def score(found: list[ad.AnnData], effect: np.ndarray) -> dict[str, float]:
    """Return what the effects in every line are judged by."""
    mean = np.array([each.X for each in found])
    lower, upper, lfsr = (
        np.array([each.layers[name] for each in found]) for name in ("lower", "upper", "lfsr")
    )
    significant, inside = lfsr < 0.05, (lower <= effect) & (effect <= upper)
    right = significant & (mean * effect > 0)
    large = np.abs(mean) > 0.3
    return {
        "significant": significant.sum(),
        "wrong": (significant & ~right).sum(),
        "error": ((mean - effect) ** 2).sum(),
        "coverage": inside.mean(),
        "coverage of estimates above 0.3": inside[large].mean(),
        "found": right[0, 0].sum(),
        "false there": significant[1:, 0].sum(),
    }


def table(kinds: list[str], cells: list[int], n_screens: int) -> list[str]:
    """Return the table, a row for each setting and method."""
    lines: list[str] = []
    for kind in kinds:
        for n in cells:
            scores: dict[str, list[dict[str, float]]] = {name: [] for name in METHODS}
            for seed in range(n_screens):
                rng = np.random.default_rng([100 + seed, n, KINDS.index(kind)])
                effect = truth(kind, rng)
                for name, found in by_method(screen(effect, n, rng)).items():
                    scores[name].append(score(found, effect))
            lines += rows(kind, n, scores, head=not lines)
            print("\n".join(lines[-len(METHODS) :]), flush=True)
    return lines


def rows(kind: str, n: int, scores: dict[str, list[dict[str, float]]], *, head: bool) -> list[str]:
    """Return the rows of a setting; errors are over that of pooling, paired by screen."""
    lines = []
    pooled = np.array([each["error"] for each in scores[POOLED]])
    for name, every in scores.items():
        found = pd.DataFrame(every)
        if kind != "one line":
            found = found.assign(**{"found": np.nan, "false there": np.nan})
        found["error"] = found["error"] / pooled
        if head and not lines:
            columns = ["lines", "cells", "effects", *found.columns]
            columns[columns.index("error")] = "error over pooled"
            lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
        error = found.std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else found.iloc[0] * 0.0
        digits = [0 if found[column].mean() > 50 else 2 for column in found]
        values = [
            "" if np.isnan(m) else f"{m:.{d}f} ± {s:.{d}f}"
            for m, s, d in zip(found.mean(), error, digits, strict=True)
        ]
        lines.append(f"| {kind} | {n} | {name} | " + " | ".join(values) + " |")
    return lines


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.conditions", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--cells", nargs="+", type=int, default=[25, 100])
    parser.add_argument("--screens", type=int, default=8)
    parser.add_argument("--save", metavar="FILE", help="also write the table to this file")
    args = parser.parse_args(arguments)
    lines = table(args.kinds, args.cells, args.screens)
    if args.save:
        Path(args.save).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
