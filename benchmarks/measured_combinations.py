"""Coverage of measured combinations whose members add up, by the cells of the members.

Simulated screens of 20 perturbations of 60 genes and 500 controls (noise 1). Of effects 30% are
not 0, normal with standard deviation 0.5; 40 of the 190 pairs are measured with 60 cells each, and
20 others are not. Pairs do what their members do together, and a rest of standard deviation
``rest`` in units of the effects. In ``correlated`` screens two factors explain half of the variance
within cells. Effects are fitted by the public calls. A significant effect (lfsr below 0.05) is
false if its sign is not the true one; as many as the sum of their lfsr are expected to be. Standard
errors are over screens.

    python -m benchmarks.measured_combinations                    # 8 screens of each, 15 minutes
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._quiet import quiet

N_MEMBERS, N_GENES, N_MEASURED, N_ASKED, N_CELLS, SIZE = 20, 60, 40, 20, 60, 0.5
SCREENS = {"additive": (False, 0.0), "correlated": (True, 0.0), "rest 0.4": (False, 0.4)}


def scores(correlated: bool, rest: float, n_cells: int, seed: int) -> np.ndarray:
    """Return coverage of measured pairs, of their significant effects and of pairs without cells.

    Then the numbers of significant, false and stated effects of measured pairs.
    """
    rng = np.random.default_rng([seed, n_cells, correlated, round(10 * rest)])
    alone = SIZE * rng.normal(size=(N_MEMBERS, N_GENES)) * (rng.random((N_MEMBERS, N_GENES)) < 0.3)
    pairs = list(itertools.combinations(range(N_MEMBERS), 2))
    chosen = [pairs[k] for k in rng.permutation(len(pairs))[: N_MEASURED + N_ASKED]]
    does = np.array([alone[a] + alone[b] for a, b in chosen])
    does += SIZE * rest * rng.normal(size=does.shape) * (does != 0)
    names = [f"P{i:02d}" for i in range(N_MEMBERS)]
    both = [f"{names[a]}+{names[b]}" for a, b in chosen]
    shift = {"control": np.zeros(N_GENES)} | dict(zip(names, alone, strict=True))
    shift |= dict(zip(both[:N_MEASURED], does, strict=False))
    label = np.repeat(list(shift), [500, *[n_cells] * N_MEMBERS, *[N_CELLS] * N_MEASURED])
    noise = rng.normal(size=(len(label), N_GENES))
    if correlated:
        loading = 0.5 * np.sign(rng.normal(size=(2, N_GENES)))
        noise = np.sqrt(0.5) * noise + rng.normal(size=(len(label), 2)) @ loading
    x = 3 + np.array([shift[name] for name in label]) + noise
    obs = pd.DataFrame({"perturbation": label}, index=[f"c{i}" for i in range(len(label))])
    adata = ad.AnnData(x, obs, pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)]))
    npt.tl.learn_dag(adata, method="given", dag=np.zeros((N_GENES, N_GENES)))
    npt.tl.fit_dag_blr(adata, shift="activation")
    npt.tl.perturbation_effects(adata, candidates=both)
    found = adata.uns["perturbation_effects"]
    inside = (found["lower"] <= does) & (does <= found["upper"])
    mine, lfsr = inside[:N_MEASURED], found["lfsr"][:N_MEASURED]
    called = lfsr < 0.05
    false = called & (np.sign(found["mean"][:N_MEASURED]) != np.sign(does[:N_MEASURED]))
    return np.array([
        mine.mean(), mine[called].mean() if called.any() else np.nan, inside[N_MEASURED:].mean(),
        called.sum(), false.sum(), lfsr[called].sum(),
    ])  # fmt: skip


def table(titles: list[str], cells: list[int], n_screens: int) -> list[str]:
    """Return the table, one row per kind of screen and number of cells."""
    lines = [
        "| screens | cells of each member | coverage of measured pairs | of their significant "
        "effects | significant | false | stated | coverage of pairs without cells |",
        "|---" * 8 + "|",
    ]
    for title in titles:
        for n in cells:
            every = np.array([scores(*SCREENS[title], n, seed) for seed in range(n_screens)])
            mean, error = np.nanmean(every, axis=0), np.nanstd(every, axis=0, ddof=1)
            error /= np.sqrt(n_screens)
            measured, significant, unseen = (
                f"{m:.3f} ± {e:.3f}" for m, e in zip(mean[:3], error[:3], strict=True)
            )
            _, _, _, called, false, stated = every.sum(axis=0)
            lines.append(
                f"| {title} | {n} | {measured} | {significant} | {called:.0f} | "
                f"{false:.0f} ± {n_screens * error[4]:.1f} | {stated:.1f} | {unseen} |"
            )
            print(lines[-1], flush=True)
    return lines


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.measured_combinations", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--kinds", nargs="+", choices=list(SCREENS), default=list(SCREENS))
    parser.add_argument("--cells", nargs="+", type=int, default=[15, 30, 60, 200])
    parser.add_argument("--screens", type=int, default=8)
    parser.add_argument("--save", metavar="FILE", help="also write the table to this file")
    args = parser.parse_args(arguments)
    lines = table(args.kinds, args.cells, args.screens)
    if args.save:
        Path(args.save).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
