"""The results of the main calls in one file, to compare two revisions bit for bit.

Run it in both checkouts, then compare: ``python benchmarks/snapshot.py before.h5ad``,
``python benchmarks/snapshot.py after.h5ad``, ``python benchmarks/snapshot.py --compare before.h5ad
after.h5ad``. With ``--screen FILE`` the calls run on a screen's raw counts instead of a simulated
screen. Learn (GSP and BOSS), fit, design, diagnose, replay and cpca are saved.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

import nextpert as npt


def results(screen: str | None, control: str) -> ad.AnnData:
    """Return an AnnData with everything that the calls wrote."""
    if screen is None:
        adata = npt.datasets.simulated_screen(n_control=1500, n_perturbed=60, rng=7)
        target, targets = "MYC", [str(adata.obs["perturbation"].cat.categories[0])]
    else:
        adata = ad.read_h5ad(screen)
        npt.pp.perturbation_screen(adata, control=control)  # relabels them "control"
        sizes = adata.obs["perturbation"].value_counts()
        measured = [name for name in sizes.index if name in adata.var_names]
        target, targets = measured[0], measured[:2]
    npt.tl.learn_dag(adata, method="boss", rng=0, key_added="dag_boss")
    npt.tl.learn_dag(adata, n_runs=20, rng=0, n_graphs=3)
    npt.tl.fit_dag_blr(adata, dag_key="dag_boss", key_added="boss_blr")
    npt.tl.fit_dag_blr(adata)
    npt.tl.design_interventions(adata, target, acquisition="civ", rng=0)
    npt.tl.design_interventions(
        adata, target, acquisition="civ_ow", posterior_key="boss_blr", key_added="ow", rng=0
    )
    npt.tl.diagnose(adata, rng=0)
    npt.tl.replay_design(adata, targets, n_rounds=2, n_repeats=3, rng=0)
    npt.tl.cpca(adata, rng=0)
    return adata


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Return where two nested results are not the same to the bit."""
    if isinstance(a, pd.DataFrame):
        if not isinstance(b, pd.DataFrame) or list(a.columns) != list(b.columns):
            return [f"{where}: columns"]
        pairs = [(str(name), a[name].to_numpy(), b[name].to_numpy()) for name in a.columns]
        return [text for name, x, y in pairs for text in differences(x, y, f"{where}/{name}")]
    if hasattr(a, "items"):
        if sorted(map(str, a)) != sorted(map(str, b)):
            return [f"{where}: keys {sorted(set(map(str, a)) ^ set(map(str, b)))}"]
        return [text for key in a for text in differences(a[key], b[key], f"{where}/{key}")]
    if sp.issparse(a):
        parts = ("data", "indices", "indptr")
        return [t for k in parts for t in differences(getattr(a, k), getattr(b, k), f"{where}.{k}")]
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or x.dtype != y.dtype:
        return [f"{where}: {x.dtype}{x.shape} against {y.dtype}{y.shape}"]
    same = x.tolist() == y.tolist() if x.dtype == object else x.tobytes() == y.tobytes()
    return [] if same else [f"{where}: values"]


def compare(first: str, second: str) -> int:
    """Print what differs and return the exit code."""
    a, b = ad.read_h5ad(first), ad.read_h5ad(second)
    slots = ("uns", "varp", "obsm", "varm", "layers")
    found = [
        text for slot in slots for text in differences(getattr(a, slot), getattr(b, slot), slot)
    ]
    found += differences(a.obs, b.obs, "obs") + differences(a.X, b.X, "X")
    for text in found:
        print(text)
    print(f"{len(found)} differences between {first} and {second}")
    return int(bool(found))


def main() -> int:
    """Save or compare, as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", nargs="?", help="h5ad to write")
    parser.add_argument("--screen", help="h5ad of raw counts with obs['perturbation']")
    parser.add_argument("--control", default="control")
    parser.add_argument("--compare", nargs=2, metavar=("FIRST", "SECOND"))
    options = parser.parse_args()
    if options.compare:
        return compare(*options.compare)
    if options.out is None:
        parser.error("name the file to write, or --compare two of them")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = results(options.screen, options.control)
    adata.write_h5ad(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
