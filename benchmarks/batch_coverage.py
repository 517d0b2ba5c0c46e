"""Coverage of effects where cells were measured in batches, whose effects are estimated.

Simulated screens of 24 perturbations and 40 genes in 6 batches, each with a shift of standard
deviation 1 on every gene. ``nested``: each batch holds its own four perturbations. ``crossed``:
each perturbation is in two batches. ``balanced``: each is in all of them. Controls are in every
batch; with guides, three per perturbation that scatter with a tenth of the noise variance. Effects
are fitted by the public calls, and 90% intervals have to cover the true effects. Standard errors
are over screens.

    python -m benchmarks.batch_coverage                   # 8 screens of each setting, 5 minutes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._quiet import quiet

DESIGNS = {"nested": 1, "crossed": 2, "balanced": 6}  # batches that hold a perturbation
N_GENES, N_PERTURBATIONS, N_BATCHES, N_CELLS = 40, 24, 6, 60
GUIDE_VARIANCE = 0.1


def screen(
    design: str, n_control: int, seed: int, *, guides: bool = False
) -> tuple[ad.AnnData, np.ndarray]:
    """Return the cells of a screen and the true effects, ``(N_PERTURBATIONS, N_GENES)``."""
    rng = np.random.default_rng([seed, n_control, len(design), guides])
    some = DESIGNS[design]
    label, batch = [np.zeros(n_control * N_BATCHES, int)], [np.repeat(range(N_BATCHES), n_control)]
    for j in range(N_PERTURBATIONS):
        label.append(np.full(N_CELLS, j + 1))
        batch.append((j + np.arange(N_CELLS) * some // N_CELLS) % N_BATCHES)
    labels, batches = np.concatenate(label), np.concatenate(batch)
    effects = rng.normal(size=(N_PERTURBATIONS, N_GENES)) * rng.choice(
        [0.1, 1.0], p=[0.8, 0.2], size=(N_PERTURBATIONS, N_GENES)
    )
    x = 4.0 + rng.normal(size=(len(labels), N_GENES))
    x += np.vstack([np.zeros(N_GENES), effects])[labels]
    x += rng.normal(size=(N_BATCHES, N_GENES))[batches]
    guide = rng.integers(3, size=len(labels)) + 3 * labels
    guide[labels == 0] = rng.integers(12, size=int((labels == 0).sum())) + 1000
    if guides:
        codes = np.unique(guide, return_inverse=True)[1]
        x += np.sqrt(GUIDE_VARIANCE) * rng.normal(size=(codes.max() + 1, N_GENES))[codes]
    names = np.array(["control", *(f"P{j}" for j in range(N_PERTURBATIONS))])
    obs = pd.DataFrame(
        {"perturbation": names[labels], "batch": batches.astype(str), "guide": guide.astype(str)},
        index=[f"c{i}" for i in range(len(labels))],
    )
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(N_GENES)])), effects


def coverage(design: str, n_control: int, seed: int, *, guides: bool = False) -> float:
    """Return the share of true effects inside their 90% intervals."""
    adata, effects = screen(design, n_control, seed, guides=guides)
    npt.pp.setup_screen(adata, batch_key="batch", guide_key="guide" if guides else None)
    npt.tl.learn_dag(adata, method="given", dag=np.zeros((N_GENES, N_GENES)))
    npt.tl.fit_dag_blr(adata)
    found = npt.tl.perturbation_effects(adata, as_anndata=True)
    truth = effects[[int(name[1:]) for name in found.obs_names]]
    inside = (found.layers["lower"] <= truth) & (truth <= found.layers["upper"])
    return float(inside.mean())


def table(controls: list[int], n_screens: int) -> list[str]:
    """Return the table, one row a design."""
    lines = [
        "| design | guides | " + " | ".join(f"{n} controls per batch" for n in controls) + " |",
        "|---" * (2 + len(controls)) + "|",
    ]
    for design in DESIGNS:
        for guides in (False, True):
            cells = []
            for n in controls:
                every = [coverage(design, n, seed, guides=guides) for seed in range(n_screens)]
                error = np.std(every, ddof=1) / np.sqrt(n_screens)
                cells.append(f"{np.mean(every):.3f} ± {error:.3f}")
            lines.append(f"| {design} | {'yes' if guides else 'no'} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return lines


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.batch_coverage", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--controls", nargs="+", type=int, default=[25, 100, 400])
    parser.add_argument("--screens", type=int, default=8)
    parser.add_argument("--save", metavar="FILE", help="also write the table to this file")
    args = parser.parse_args(arguments)
    lines = table(args.controls, args.screens)
    if args.save:
        Path(args.save).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
