"""The search for undeclared batches: false alarms on random columns, and batches that are found.

*Simulated*: screens of eight knockdowns with coexpressed genes, and two columns of three levels,
random or with a batch effect (a shift of random sign in every gene, in standard deviations of a
cell). *Real*: columns of three levels dealt at random to the cells of real screens; the p-values
are those before the correction for the number of columns. *Papalexi*: the replicates, undeclared.

    python -m benchmarks.undeclared_batches               # one minute; data: NEXTPERT_DATA
    python -m benchmarks.undeclared_batches --screens 20 --real hill
"""

from __future__ import annotations

import time
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._page import options, quiet, save, show, table
from benchmarks._screens import SOURCES
from nextpert._adata import read_roles
from nextpert._adata import undeclared_batches as module
from nextpert._adata.roles import Roles
from nextpert._adata.undeclared_batches import UndeclaredBatches, undeclared_batches

N_GENES, N_PERTURBED, N_CELLS, N_CONTROL = 30, 8, 40, 150
SHARES = [0.6, 0.3, 0.1]  # of the three levels
SHIFTS = (0.0, 0.1, 0.2, 0.3)
LEVELS = (0.05, 0.01, 0.001)  # of p-values


def screen(shift: float, seed: int) -> ad.AnnData:
    """Return coexpressed cells with effects, and two columns, one of which may be a batch."""
    rng = np.random.default_rng([seed, int(1000 * shift)])
    group = np.repeat(np.arange(N_PERTURBED + 1), [N_CONTROL] + [N_CELLS] * N_PERTURBED)
    effects = (
        rng.normal(size=(N_PERTURBED + 1, N_GENES)) * (np.arange(N_PERTURBED + 1) > 0)[:, None]
    )
    common = rng.normal(size=(len(group), 2)) @ rng.normal(size=(2, N_GENES))
    x = 4 + rng.normal(size=common.shape) + common + effects[group]
    obs = {"perturbation": np.array(["control", *(f"P{k}" for k in range(N_PERTURBED))])[group]}
    obs |= {name: rng.choice(list("abc"), len(group), p=SHARES) for name in ("one", "two")}
    x += shift * x.std(axis=0) * rng.choice([-1, 1], N_GENES) * (obs["one"] == "a")[:, None]
    index = [f"c{k}" for k in range(len(group))]
    return ad.AnnData(
        x, pd.DataFrame(obs, index), pd.DataFrame(index=[f"G{k}" for k in range(N_GENES)])
    )


def found_in(adata: ad.AnnData, roles: Roles) -> UndeclaredBatches | None:
    """Return the column that the search reports in a screen."""
    names = sorted({*adata.obs[roles.perturbation_key].dropna().astype(str)} - {roles.control})
    return undeclared_batches(adata, np.arange(adata.n_vars), names, roles)


def simulated(n_screens: int) -> str:
    """Return how often a column is reported, by the size of the batch effect."""
    rows = []
    for shift in SHIFTS:
        found = [found_in(screen(shift, seed), Roles()) for seed in range(n_screens)]
        columns = [None if one is None else one.column for one in found]
        rows.append([f"{shift:g}", columns.count("one"), columns.count("two"), n_screens])
    head = "shift (standard deviations)", "batch reported", "random column reported", "screens"
    return f"## Simulated screens\n\n{table(head, rows)}"


def real(name: str, folder: Path, n_columns: int) -> list[str]:
    """Return p-values of random columns of a real screen, and what the search reports in it."""
    source = SOURCES[name]
    adata = ad.read_h5ad(folder / source.path)
    npt.pp.perturbation_screen(
        adata, control=source.roles.control, guide_key=source.guide_key, depth_key=source.depth_key
    )
    roles, start = read_roles(adata), time.process_time()
    reported = found_in(adata, roles)
    seconds = time.process_time() - start
    adata.obs, rng, p_values = adata.obs[[*roles.columns]], np.random.default_rng(0), list[float]()
    test = module.level_effects

    def noted(*arguments):
        effects = test(*arguments)
        p_values.append(effects.p_value)
        return effects

    module.level_effects = noted
    try:
        for _ in range(n_columns // 10):
            for k in range(10):
                adata.obs[f"column {k}"] = rng.choice(list("abc"), adata.n_obs, p=SHARES)
            found_in(adata, roles)
    finally:
        module.level_effects = test
    below = [f"{np.mean(np.array(p_values) < level):.1%}" for level in LEVELS]
    words = "none" if reported is None else (
        f"{reported.column}: {reported.shifted:.1%} of effects shifted by more than a standard "
        f"error, factor {reported.width:.2f}"
    )  # fmt: skip
    return [name, f"{len(p_values)}", *below, words, f"{seconds:.2f}"]


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print both tables."""
    parser = options("undeclared_batches", __doc__, data=True)
    parser.add_argument("--screens", type=int, default=200, help="of every size of effect")
    parser.add_argument("--columns", type=int, default=200, help="of every real screen")
    parser.add_argument("--real", nargs="*", default=["papalexi", "tapseq", "hill"])
    args = parser.parse_args(arguments)
    head = [
        "screen", "random columns", *(f"p < {level:g}" for level in LEVELS), "reported",
        "search, seconds of CPU time",
    ]  # fmt: skip
    rows = [real(name, args.data, args.columns) for name in args.real]
    parts = [simulated(args.screens), f"## Real screens\n\n{table(head, rows)}"]
    save("undeclared_batches", [show(part) for part in parts], args.save)


if __name__ == "__main__":
    main()
