"""False effects and coverage of intervals over the designs of a screen, in one table.

Simulated screens (noise of a cell 1) are fitted by the public calls. An effect is significant if
its local false sign rate is below 0.05. A significant effect is false if the true one is 0 or has
the opposite sign; *stated* is the sum of the rates of the significant effects. A design is within
the limit if the number of false effects, over all its screens, is at most the 97.5% quantile of a
Poisson variable with a mean of twice the stated sum. Coverage is that of 90% intervals, of all
effects, of the significant ones, and of those truly larger than 0.8; values after ± are standard
errors over screens.

One batch, nested, crossed: 48 perturbations of 60 cells and 60 genes, with a shift of standard
deviation 1 of every batch and gene, and 40 controls per batch; 5% of effects are not 0. Nested:
each of 4 batches has 12 perturbations of its own. Crossed: each perturbation is in 2 of 4 batches.
Guides: three per perturbation, which scatter with a tenth of the variance of a cell. *Dense*: 24
perturbations, 40 genes and 6 batches of 25 controls; no effect is 0, one in five has the standard
deviation 1, the others 0.1. *No effects*: nested, every effect is 0. Counts: ``false_signs``.

Tables: 20 perturbations of 60 cells, 100 genes, 5% of effects; and 30, 150 or 1,500 controls, with
their number, or ``control_se="conservative"``. Correlated: half of the variance within cells is
that of five factors, with 1,500 controls and 100 perturbations, and ``correlation`` of some control
cells, or none.

Combinations: 40 of 190 pairs of 20 perturbations are measured with 60 cells each (60 genes, 500
controls, 30% of effects); effects of pairs are the sums of those of their members, and members have
the given number of cells. Unmeasured pairs are 20 others. Without cells: 4 of 24 perturbations have
none, and are predicted by ``features`` that state which of four groups they belong to; an effect of
the group is kept with probability 0.7. Conditions have a command of their own,
``benchmarks.conditions``.

Correlated guides: guides as above, with cells of which three factors explain half of the variance.
The other designs have 20 perturbations of 60 cells, 300 controls and 40 genes; 15% of effects are
not 0, with a Laplace distribution of standard deviation 0.7, and three factors, the first three
times as large, explain 20 to 80% of a gene's variance within cells. Their simulators are in
``_replicated.py``.

Guides: 2 or 4 per perturbation and 8 of controls, with a variance of 0.1. They depart independently
by gene, along the factors as cells do, or as measured: F ratios between guides of 15 cells are 3.5
along the first factor, 1.9 along the others and 1.3 in own parts of genes, as on the TAP-seq
screen. *1 and 8*: one guide per perturbation and 8 of controls, with a variance of 0.05; or 2, or
1, of controls, with 0.1. Off-targets: guides change 5% of genes by 1 up or down: those of
perturbations only, or all.

One control batch: 4 batches with 5 perturbations each, with a shift of the given standard deviation
of every batch and gene, and controls in the first batch only. Replicates: 2 or 3 batches that all
perturbations and controls are in, with a shift of 0.3. In each, effects depart by the given
variance; the true effect is that without departures. Few cells: 3 to 12 per perturbation, of which
the variance of every gene is that of controls times a log-normal ratio (0.5).

    python -m benchmarks.designs                      # 12 screens of each design
    python -m benchmarks.designs --designs nested "pairs, 15 cells" "guides by gene*" --first 100
"""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy.stats import poisson

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table
from benchmarks._replicated import (
    FORMS,
    Screen,
    cells,
    draw_loadings,
    named,
    of_few_cells,
    one_control_batch,
    with_guides,
    with_replicates,
)

Array = np.ndarray
Judged = tuple[dict[str, Any], pd.DataFrame]  # tables of effects, and the true effects
Design = Callable[[int], Judged]

LARGE, N_CELLS, GUIDE_VARIANCE, N_GENES, SIZE = 0.8, 60, 0.1, 100, 0.8


def fitted(adata: ad.AnnData, truth: pd.DataFrame, **told: Any) -> Judged:
    """Return the estimated effects of a screen, on an empty graph, and the true ones."""
    npt.tl.learn_dag(adata, method="given", dag=[])
    npt.tl.fit_dag_blr(adata, **told)
    npt.tl.perturbation_effects(adata, candidates=list(truth.index))
    return adata.uns["perturbation_effects"], truth


def in_batches(
    seed: int, some: int, n_batches: int, n: int = 48, n_genes: int = 60, share: float = 0.05,
    n_control: int = 40, *, guides: bool = False, correlated: bool = False,
) -> Judged:  # fmt: skip
    """Judge a screen of which each perturbation is in ``some`` of its batches."""
    rng = np.random.default_rng([seed, n_control, some, n_batches, round(100 * share), guides])
    label, batch = [np.zeros(n_control * n_batches, int)], [np.repeat(range(n_batches), n_control)]
    for j in range(n):
        label.append(np.full(N_CELLS, j + 1))
        batch.append((j + np.arange(N_CELLS) * some // N_CELLS) % n_batches)
    labels, batches = np.concatenate(label), np.concatenate(batch)
    shape = n, n_genes
    size = rng.choice([0.1, 1.0], p=[0.8, 0.2], size=shape) if share == 1.0 else 1.0
    effects = named(rng.normal(size=shape) * size * (rng.random(shape) < share))
    x = rng.normal(size=(len(labels), n_genes))
    if correlated:
        loadings = draw_loadings(rng, np.full(n_genes, 0.5))
        x = np.sqrt(0.5) * x + rng.normal(size=(len(labels), len(loadings))) @ loadings
    x = 4.0 + x
    x += np.vstack([np.zeros(n_genes), effects])[labels]
    x += rng.normal(size=(n_batches, n_genes))[batches]
    guide = rng.integers(3, size=len(labels)) + 3 * labels
    guide[labels == 0] = rng.integers(12, size=int((labels == 0).sum())) + 1000
    if guides:
        codes = np.unique(guide, return_inverse=True)[1]
        x += np.sqrt(GUIDE_VARIANCE) * rng.normal(size=(codes.max() + 1, n_genes))[codes]
    names = np.array(["control", *effects.index])
    adata = cells(
        x, effects, perturbation=names[labels], batch=batches.astype(str), guide=guide.astype(str)
    )
    told = {
        "batch_key": "batch" if n_batches > 1 else None,
        "guide_key": "guide" if guides else None,
    }
    npt.pp.setup_screen(adata, **told)
    return fitted(adata, effects)


def of_table(
    seed: int, n: int, n_controls: int, *, correlated: bool = False, rows: int = 0, **told: Any
) -> Judged:
    """Judge a table of effects and standard errors; ``rows`` control cells tell correlations."""
    rng = np.random.default_rng([seed, n, n_controls])
    truth = named(SIZE * rng.normal(size=(n, N_GENES)) * (rng.random((n, N_GENES)) < 0.05))
    loadings = rng.normal(size=(5, N_GENES))
    loadings *= np.sqrt(0.5 / (loadings**2).sum(axis=0)) if correlated else 0.0
    own = np.sqrt(1.0 - (loadings**2).sum(axis=0))

    def noise(rows: int, of: int) -> Array:
        common = rng.normal(size=(rows, 5)) @ loadings
        return np.asarray((common + own * rng.normal(size=(rows, N_GENES))) / np.sqrt(of))

    seen = truth + noise(n, N_CELLS) - noise(1, n_controls)
    se = pd.DataFrame(np.sqrt(1 / N_CELLS + 1 / n_controls), truth.index, truth.columns)
    if rows:
        told["correlation"] = pd.DataFrame(noise(rows, 1), columns=truth.columns)
    if "control_se" not in told:
        told["n_controls"] = n_controls
    return fitted(npt.pp.effect_table(seen, se, n_cells=N_CELLS, **told), truth)


def of_pairs(seed: int, n_cells: int, *, measured: bool = True, correlated: bool = False) -> Judged:
    """Judge the measured, or the other, pairs of perturbations whose effects add up."""
    rng, n, n_genes = np.random.default_rng([seed, n_cells, correlated]), 20, 60
    alone = named(0.5 * rng.normal(size=(n, n_genes)) * (rng.random((n, n_genes)) < 0.3))
    pairs = list(itertools.combinations(alone.index, 2))
    chosen = [pairs[k] for k in rng.permutation(len(pairs))[:60]]
    does = pd.DataFrame({f"{a}+{b}": alone.loc[a] + alone.loc[b] for a, b in chosen}).T
    shift = pd.concat([alone, does[:40]])
    label = np.repeat(["control", *shift.index], [500, *[n_cells] * n, *[N_CELLS] * 40])
    noise = rng.normal(size=(len(label), n_genes))
    if correlated:
        loading = 0.5 * np.sign(rng.normal(size=(2, n_genes)))
        noise = np.sqrt(0.5) * noise + rng.normal(size=(len(label), 2)) @ loading
    x = 3 + shift.reindex(label).fillna(0.0).to_numpy() + noise
    asked = does[:40] if measured else does[40:]
    return fitted(cells(x, does, perturbation=label), asked, shift="activation")


def without_cells(seed: int) -> Judged:
    """Judge perturbations without cells that are predicted by the group that they belong to."""
    rng, n, p = np.random.default_rng([seed, 9]), 24, 60
    of_group, group = rng.normal(size=(4, p)) * (rng.random((4, p)) < 0.3), np.arange(n) % 4
    effects = named(of_group[group] * (rng.random((n, p)) < 0.7))
    label = np.repeat(["control", *effects.index[4:]], [500, *[100] * (n - 4)])
    x = 2.0 + rng.normal(size=(len(label), p))
    x += effects.reindex(label).fillna(0.0).to_numpy()
    features = pd.DataFrame(np.eye(4)[group], effects.index, list("abcd"))
    return fitted(cells(x, effects, perturbation=label), effects[:4], features=features)


def of(simulator: Callable[..., Screen], *settings: Any, **more: Any) -> Design:
    """Return the design of a simulator with settings."""
    return lambda seed: fitted(*simulator(seed, *settings, **more))


DESIGNS: dict[str, Design] = {
    "one batch": partial(in_batches, some=1, n_batches=1, n_control=160),
    "one batch, dense": partial(
        in_batches, some=1, n_batches=1, n=24, n_genes=40, share=1.0, n_control=150
    ),
    "nested": partial(in_batches, some=1, n_batches=4),
    "nested, dense": partial(
        in_batches, some=1, n_batches=6, n=24, n_genes=40, share=1.0, n_control=25
    ),
    "nested, no effects": partial(in_batches, some=1, n_batches=4, share=0.0),
    "crossed": partial(in_batches, some=2, n_batches=4),
    "guides": partial(in_batches, some=1, n_batches=1, n_control=160, guides=True),
    "guides, nested": partial(in_batches, some=1, n_batches=4, guides=True),
    **{
        f"table, {k} controls": partial(of_table, n=20, n_controls=k) for k in (30, 150, 1500)
    },
    **{
        f"table, {k} controls, conservative": partial(
            of_table, n=20, n_controls=k, control_se="conservative"
        )
        for k in (30, 150, 1500)
    },
    "table, correlated, none": partial(of_table, n=100, n_controls=1500, correlated=True),
    **{
        f"table, correlated, {k} cells": partial(
            of_table, n=100, n_controls=1500, correlated=True, rows=k
        )
        for k in (50, 200)
    },
    **{f"pairs, {k} cells": partial(of_pairs, n_cells=k) for k in (15, 30, 60, 200)},
    "pairs, 15 cells, correlated": partial(of_pairs, n_cells=15, correlated=True),
    "pairs without cells": partial(of_pairs, n_cells=60, measured=False),
    "without cells": without_cells,
    "guides, correlated": partial(
        in_batches, some=1, n_batches=1, n_control=160, guides=True, correlated=True
    ),
    "guides, nested, correlated": partial(
        in_batches, some=1, n_batches=4, guides=True, correlated=True
    ),
    **{
        f"guides {form}, {k}": of(with_guides, k, form=form) for form in FORMS for k in (2, 4)
    },
    "guides by gene, 2, no effects": of(with_guides, 2, share=0.0),
    "guides by gene, 1 and 8": of(with_guides, 1, variance=0.05),
    "guides by gene, 1 and 2": of(with_guides, 1, 2),
    "guides by gene, 1 and 1": of(with_guides, 1, 1),
    **{
        f"off-targets, {k}": of(with_guides, k, off_targets="targeting") for k in (2, 4)
    },
    **{
        f"off-targets of all, {k}": of(with_guides, k, off_targets="all") for k in (2, 4)
    },
    "off-targets of all, 1 and 8": of(with_guides, 1, off_targets="all"),
    **{
        f"one control batch, {sd}{also}": of(one_control_batch, sd, share)
        for sd in (0.3, 1.0) for share, also in ((0.15, ""), (0.0, ", no effects"))
    },
    **{
        f"replicates, {k}, {variance}": of(with_replicates, k, variance)
        for k in (2, 3) for variance in (0.03, 0.1)
    },
    "few cells, unequal variances": of(of_few_cells),
}  # fmt: skip


def scores(found: dict[str, Any], truth: pd.DataFrame) -> dict[str, float]:
    """Return numbers of significant, false and stated false effects of a screen, and coverages."""
    tables = (
        pd.DataFrame(found[name], found["perturbations"], found["genes"])
        .loc[truth.index, [g for g in truth.columns if g in set(found["genes"])]]
        for name in ("mean", "lower", "upper", "lfsr")
    )  # fmt: skip
    mean, lower, upper, lfsr = tables
    real = truth[mean.columns].to_numpy()
    inside = (lower.to_numpy() <= real) & (real <= upper.to_numpy())
    called, large = lfsr.to_numpy() < 0.05, np.abs(real) > LARGE
    false = called & (np.sign(mean.to_numpy()) != np.sign(real))
    return {
        "called": float(called.sum()), "false": float(false.sum()),
        "stated": float(lfsr.to_numpy()[called].sum()), "of all": float(inside.mean()),
        "of called": float(inside[called].mean()) if called.any() else np.nan,
        "of large": float(inside[large].mean()) if large.any() else np.nan,
    }  # fmt: skip


def row(every: pd.DataFrame) -> list[str]:
    """Return the row of a design, from one row of scores per screen."""
    total, error = every.sum(), every.std(ddof=1) / np.sqrt(every.notna().sum())
    limit = poisson.ppf(0.975, 2 * total["stated"])
    covered = (
        "" if np.isnan(mean) else f"{mean:.3f} ± {error[which]:.3f}"
        for which, mean in every.mean()[["of all", "of called", "of large"]].items()
    )
    return [
        f"{total['called']:.0f}", f"{total['false']:.0f} ± {len(every) * error['false']:.1f}",
        f"{total['stated']:.1f}", f"{limit:.0f}", "yes" if total["false"] <= limit else "no",
        *covered,
    ]  # fmt: skip


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("designs", __doc__)
    parser.add_argument("--designs", nargs="+", default=["*"], help="names, or patterns of these")
    parser.add_argument("--screens", type=int, default=12)
    parser.add_argument("--first", type=int, default=0, help="seed of the first screen")
    args = parser.parse_args(arguments)
    chosen = {pattern: fnmatch.filter(DESIGNS, pattern) for pattern in args.designs}
    if unknown := [pattern for pattern in chosen if not chosen[pattern]]:
        parser.error(f"no design is named {unknown[0]!r}; there are: {'; '.join(DESIGNS)}")
    rows, seeds = {}, range(args.first, args.first + args.screens)
    for name in dict.fromkeys(itertools.chain(*chosen.values())):
        rows[name] = row(pd.DataFrame([scores(*DESIGNS[name](seed)) for seed in seeds], seeds))
    head = ("design", "significant", "false", "stated", "limit", "within limit")
    text = table((*head, "coverage, all", "coverage, significant", "coverage, large"), rows)
    save("designs", [show(text)], args.save)


if __name__ == "__main__":
    main()
