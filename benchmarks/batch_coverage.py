"""Coverage and false signs of effects where cells were measured in batches, which are estimated.

Simulated screens of 24 perturbations and 40 genes in 6 batches, each with a shift of standard
deviation 1 on every gene. ``nested``: each batch holds its own four perturbations. ``crossed``:
each perturbation is in two batches. ``balanced``: each is in all of them. Controls are in every
batch; with guides, three per perturbation that scatter with a tenth of the noise variance. All
effects are other than 0, one in five is large. ``sparse``: 48 perturbations and 60 genes in 4
batches, each with its own 12 perturbations, where 5% of effects are not 0; ``none``: the same
without any effect.

Effects are fitted by the public calls, and 90% intervals have to cover the true effects. A
significant effect (lfsr below 0.05) is false if its sign is not the true one; as many as the sum
of their lfsr are expected to be. Standard errors are over screens.

    python -m benchmarks.batch_coverage                   # 8 screens of each setting, 6 minutes
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._quiet import quiet

# Batches that hold a perturbation, all batches, perturbations, genes, share of effects.
DESIGNS = {
    "nested": (1, 6, 24, 40, 1.0),
    "crossed": (2, 6, 24, 40, 1.0),
    "balanced": (6, 6, 24, 40, 1.0),
    "sparse": (1, 4, 48, 60, 0.05),
    "none": (1, 4, 48, 60, 0.0),
}
N_CELLS, GUIDE_VARIANCE = 60, 0.1


def screen(
    design: str, n_control: int, seed: int, *, guides: bool = False
) -> tuple[ad.AnnData, np.ndarray]:
    """Return the cells of a screen and the true effects, ``(n_perturbations, n_genes)``."""
    rng = np.random.default_rng([seed, n_control, len(design), guides])
    some, n_batches, n, n_genes, share = DESIGNS[design]
    label, batch = [np.zeros(n_control * n_batches, int)], [np.repeat(range(n_batches), n_control)]
    for j in range(n):
        label.append(np.full(N_CELLS, j + 1))
        batch.append((j + np.arange(N_CELLS) * some // N_CELLS) % n_batches)
    labels, batches = np.concatenate(label), np.concatenate(batch)
    small = 0.1 if share == 1.0 else 1.0
    shape = n, n_genes
    effects = rng.normal(size=shape) * rng.choice([small, 1.0], p=[0.8, 0.2], size=shape)
    effects *= rng.random(shape) < share
    x = 4.0 + rng.normal(size=(len(labels), n_genes))
    x += np.vstack([np.zeros(n_genes), effects])[labels]
    x += rng.normal(size=(n_batches, n_genes))[batches]
    guide = rng.integers(3, size=len(labels)) + 3 * labels
    guide[labels == 0] = rng.integers(12, size=int((labels == 0).sum())) + 1000
    if guides:
        codes = np.unique(guide, return_inverse=True)[1]
        x += np.sqrt(GUIDE_VARIANCE) * rng.normal(size=(codes.max() + 1, n_genes))[codes]
    names = np.array(["control", *(f"P{j}" for j in range(n))])
    obs = pd.DataFrame(
        {"perturbation": names[labels], "batch": batches.astype(str), "guide": guide.astype(str)},
        index=[f"c{i}" for i in range(len(labels))],
    )
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(n_genes)])), effects


def scores(design: str, n_control: int, seed: int, *, guides: bool = False) -> np.ndarray:
    """Return the coverage of intervals, and numbers of significant, false and stated ones."""
    adata, effects = screen(design, n_control, seed, guides=guides)
    npt.pp.setup_screen(adata, batch_key="batch", guide_key="guide" if guides else None)
    npt.tl.learn_dag(adata, method="given", dag=np.zeros((adata.n_vars, adata.n_vars)))
    npt.tl.fit_dag_blr(adata)
    found = npt.tl.perturbation_effects(adata, as_anndata=True)
    truth = effects[[int(name[1:]) for name in found.obs_names]]
    inside = (found.layers["lower"] <= truth) & (truth <= found.layers["upper"])
    lfsr = found.layers["lfsr"]
    called = lfsr < 0.05
    false = called & (np.sign(found.X) != np.sign(truth))
    return np.array([inside.mean(), called.sum(), false.sum(), lfsr[called].sum()])


def table(designs: list[str], controls: list[int], n_screens: int) -> list[str]:
    """Return the table, one row a design."""
    lines = [
        "| design | guides | controls per batch | coverage | significant | false | stated |",
        "|---" * 7 + "|",
    ]
    for design in designs:
        for guides in (False, True):
            for n in controls:
                every = np.array([scores(design, n, k, guides=guides) for k in range(n_screens)])
                error = np.std(every, axis=0, ddof=1) / np.sqrt(n_screens)
                _, called, false, stated = every.sum(axis=0)
                lines.append(
                    f"| {design} | {'yes' if guides else 'no'} | {n} | "
                    f"{every[:, 0].mean():.3f} ± {error[0]:.3f} | {called:.0f} | "
                    f"{false:.0f} ± {n_screens * error[2]:.1f} | {stated:.1f} |"
                )
                print(lines[-1], flush=True)
    return lines


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.batch_coverage", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--designs", nargs="+", choices=list(DESIGNS), default=list(DESIGNS))
    parser.add_argument("--controls", nargs="+", type=int, default=[25, 100, 400])
    parser.add_argument("--screens", type=int, default=8)
    parser.add_argument("--save", metavar="FILE", help="also write the table to this file")
    args = parser.parse_args(arguments)
    lines = table(args.designs, args.controls, args.screens)
    if args.save:
        Path(args.save).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
