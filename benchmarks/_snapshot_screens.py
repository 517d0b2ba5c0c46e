"""Screens of the snapshot, and what is asked of each."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks._screens import SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable

N_GENES = 60  # the most variable of Norman, so that all of it takes minutes


@dataclass(frozen=True)
class Case:
    """One screen and what is asked of it."""

    read: Callable[[], ad.AnnData]
    target: str  # perturbation whose state is wanted
    unseen: list[str]  # candidates without cells
    later: str  # perturbation whose cells come back in the campaign
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)


def _file(name: str) -> ad.AnnData:
    return ad.read_h5ad(Path(os.environ.get("NEXTPERT_DATA", ".")) / SOURCES[name].path)


def _tapseq() -> ad.AnnData:
    adata = _file("tapseq")
    npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    return adata


def _norman() -> ad.AnnData:
    """Return the cells with the most variable genes and all perturbed ones."""
    adata = _file("norman")
    variance = adata.to_df("lognorm").var(ddof=0).to_numpy()
    kept = adata.var_names.isin(adata.obs["perturbation"].unique())
    kept[np.argsort(-variance, kind="stable")[:N_GENES]] = True
    adata = adata[:, kept].copy()
    npt.pp.setup_screen(adata, layer="lognorm")
    return adata


def _batches() -> ad.AnnData:
    """Return 20 genes, 8 knockouts, three batches with their controls, guides and covariates.

    Half of the cells of CTSA are called HS2: a target off the panel that does the same.
    """
    rng = np.random.default_rng(3)
    adata = npt.datasets.simulated_screen(
        n_genes=20, n_control=900, n_perturbed=90, perturbed=8, expected_degree=4, rng=2
    )
    label = adata.obs["perturbation"].astype(str).to_numpy()
    label[np.flatnonzero(label == "CTSA")[::2]] = "HS2"
    batch, guide = rng.integers(3, size=adata.n_obs), rng.integers(4, size=adata.n_obs)
    names = np.array([f"{one}-{k}" for one, k in zip(label, guide, strict=True)])
    codes, depth = np.unique(names, return_inverse=True)[1], rng.normal(size=adata.n_obs)
    x = adata.X + 0.3 * rng.normal(size=(3, 20))[batch] + np.outer(depth, np.linspace(0, 0.2, 20))
    adata.X = x + 0.1 * rng.normal(size=(codes.max() + 1, 20))[codes]
    day = np.where(rng.random(adata.n_obs) < 0.3, "d7", "d3")
    columns = {"perturbation": label, "batch": batch.astype(str), "guide": names, "day": day}
    adata.obs = adata.obs.assign(depth=depth, **columns)
    npt.pp.setup_screen(adata, batch_key="batch", guide_key="guide", covariates=["depth", "day"])
    return adata


def _combinations() -> ad.AnnData:
    """Return singles and pairs, one combination of three, and a target off the panel."""
    rng, genes = np.random.default_rng(5), [f"G{k}" for k in range(24)]
    alone = pd.DataFrame(
        0.8 * rng.normal(size=(10, 24)) * (rng.random((10, 24)) < 0.3), genes[:10], genes
    )
    pairs = [f"{genes[i]}+{genes[(i + 3) % 10]}" for i in range(6)]
    does = {name: alone.loc[name] for name in alone.index}
    for name in [*pairs, "G0+G1+G2"]:  # effects in company are 0.8 of those alone
        does[name] = 0.8 * alone.loc[name.split("+")].sum()
    does["HS2"] = alone.loc["G4"] + alone.loc["G7"]
    label = np.repeat(["control", *does], [600, *[50] * len(does)])
    shift = pd.DataFrame(does, genes).T.reindex(label).fillna(0.0).to_numpy()
    obs = pd.DataFrame({"perturbation": label}, index=[f"c{i}" for i in range(len(label))])
    noise = rng.normal(size=shift.shape)
    x = 3.0 + shift + noise + 0.5 * np.roll(noise, 1, axis=1)  # genes depend on each other
    return ad.AnnData(x.astype(np.float32), obs, pd.DataFrame(index=genes))


PAIRS = {"pairs": {"constraints": {"max_combination": 2}}}
CASES = {
    "tapseq": Case(_tapseq, "UBR5", ["MYC+OXR1", "MYC+STK3"], "MYC", PAIRS),
    "norman": Case(_norman, "KLF1+MAP2K6", ["KLF1+SGK1", "HK2+MAPK1"], "KLF1", PAIRS),
    "batches": Case(
        _batches, "CTSA", ["FOS", "CTSB+FOS"], "CXCR4",
        {"genes": {
            "candidates": "genes", "constraints": {"n_controls": 100, "min_cells": 30},
        }},
    ),
    "combinations": Case(
        _combinations, "G0+G3", ["G0+G5", "G0+G1+G4"], "G8",
        PAIRS,
    ),
}  # fmt: skip
