"""False directions among significant effects, compared with the stated local false sign rate.

Simulated screens in which a share of all effects is not zero. Every perturbation is fitted through
the public calls (``pp.perturbation_screen`` for counts, ``tl.learn_dag``, ``tl.fit_dag_blr``,
``tl.perturbation_effects``). Of the effects with a local false sign rate below 0.05, the table
gives the share that is zero or has the opposite sign in truth ("false") and the mean stated rate
("stated"); it also gives the share of the non-zero effects that are found. Standard errors are over
screens.

``normal``: expression is normal with two hidden factors common to the genes. ``counts``: negative
binomial counts with depths that differ between cells, normalised by ``pp`` by the depth over many
more genes; effects are on the logarithm of a gene's mean.

    python -m benchmarks.false_signs                      # 10 screens of each setting, 6 minutes
    python -m benchmarks.false_signs --screens 3 --kinds normal --shares 0.05
"""

from __future__ import annotations

from itertools import product

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table, with_error

SHARES = (0.01, 0.05, 0.2, 0.8)
N_GENES, N_PERTURBATIONS, N_CELLS, N_CONTROL = 150, 20, 60, 600
SIZE = 0.8  # standard deviation of the effects that are not zero, in units of a cell's noise


def screen(kind: str, share: float, seed: int) -> tuple[ad.AnnData, np.ndarray]:
    """Return the cells of a screen and the true effects, ``(N_PERTURBATIONS, N_GENES)``."""
    rng = np.random.default_rng([seed, int(1000 * share), len(kind)])
    label = np.repeat(np.arange(N_PERTURBATIONS + 1), [N_CONTROL, *[N_CELLS] * N_PERTURBATIONS])
    effects = SIZE * rng.normal(size=(N_PERTURBATIONS, N_GENES))
    effects *= rng.random(effects.shape) < share
    away = np.vstack([np.zeros(N_GENES), effects])[label]
    loadings = 0.4 * rng.normal(size=(2, N_GENES))
    common = rng.normal(size=(len(label), 2)) @ loadings
    if kind == "normal":
        x = 3.0 + common + rng.normal(size=away.shape) + away
    else:
        depth = np.exp(0.3 * rng.normal(size=(len(label), 1)))
        base = rng.normal(0.7, 1.0, size=N_GENES)
        mean = np.exp(base + 0.5 * common + away)
        x = rng.poisson(depth * mean * rng.gamma(4.0, 0.25, size=away.shape)).astype(np.float32)
        # Of all other genes only the total is read, so that no gene's share is pushed by effects.
        total = x.sum(axis=1) + rng.poisson(20.0 * depth[:, 0] * np.exp(base).sum())
    names = np.array(["control", *(f"P{k}" for k in range(N_PERTURBATIONS))])
    obs = pd.DataFrame({"perturbation": names[label]}, index=[f"c{i}" for i in range(len(label))])
    if kind == "counts":
        obs["depth"] = total
    genes = pd.DataFrame(index=[f"G{k}" for k in range(N_GENES)])
    return ad.AnnData(x, obs, genes), effects


def judge(kind: str, share: float, seed: int) -> tuple[float, float, float, int]:
    """Return false and stated share, the share of effects found, and how many are significant."""
    adata, effects = screen(kind, share, seed)
    if kind == "counts":
        npt.pp.perturbation_screen(adata, depth_key="depth")
    npt.tl.learn_dag(adata, method="boss", environments="all")
    npt.tl.fit_dag_blr(adata)
    found = npt.tl.perturbation_effects(adata, as_anndata=True)
    rows = [int(name[1:]) for name in found.obs_names]
    truth = effects[rows][:, [int(name[1:]) for name in found.var_names]]
    lfsr = found.layers["lfsr"]
    significant = lfsr < 0.05
    wrong = significant & (np.sign(truth) != np.sign(found.X))
    n = int(significant.sum())
    there = significant & (truth != 0)
    return (
        wrong.sum() / max(n, 1), float(lfsr[significant].mean()) if n else 0.0,
        there.sum() / max(int((truth != 0).sum()), 1), n,
    )  # fmt: skip


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = options("false_signs", __doc__)
    parser.add_argument("--kinds", nargs="+", default=["normal", "counts"])
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--screens", type=int, default=10)
    args = parser.parse_args(arguments)
    rows = []
    for kind, share in product(args.kinds, args.shares):
        false, stated, found, n = np.array(
            [judge(kind, share, seed) for seed in range(args.screens)]
        ).T
        rows.append([
            kind, f"{share:.0%}", f"{n.mean():.0f}", with_error(false, 3), f"{stated.mean():.4f}",
            f"{found.mean():.2f}",
        ])  # fmt: skip
    head = "data", "effects not zero", "significant per screen", "false", "stated", "effects found"
    save("false_signs", [show(table(head, rows))], args.save)


if __name__ == "__main__":
    main()
