"""Simulated screens whose guides, batches, replicates or variances are not what a fit expects.

20 perturbations of 60 cells, 300 controls and 40 genes. Cells are coexpressed: every gene has
variance 1, of which three factors explain 20 to 80%, the first three times as much as the others,
so that it is the first principal component of cells. True effects are Laplace with standard
deviation 0.7 in 15% of genes, the others are 0. A seed has the same effects in all functions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt

Array = np.ndarray
Screen = tuple[ad.AnnData, pd.DataFrame]  # cells with declared roles, and the true effects

N, N_CELLS, N_CONTROLS, N_GENES = 20, 60, 300, 40
SHARE, SIZE = 0.15, 0.7
FACTORS = (3.0, 1.0, 1.0)  # relative variances
OFF_TARGETS, OFF_TARGET_SIZE = 0.05, 1.0
# Variances of guides over the given one: along each factor, and of own parts of genes. As measured:
# with 15 cells a guide and a variance of 0.1, F ratios are 3.5, 1.9 and 1.3 as on the TAP-seq
# screen. Own parts of "by gene" have the same variance for all genes, the others that of cells.
FORMS = {
    "by gene": ((0.0, 0.0, 0.0), 1.0),
    "along factors": ((2.0, 2.0, 2.0), 0.0),
    "as measured": ((5 / 3, 0.6, 0.6), 0.2),
}


class World(NamedTuple):
    """Random numbers, true effects, loadings of factors, and variances of the genes' own parts."""

    rng: np.random.Generator
    effects: pd.DataFrame
    loadings: Array
    own: Array

    def noise(self, n_cells: int) -> Array:
        """Return the noise of cells."""
        common = self.rng.normal(size=(n_cells, len(self.loadings))) @ self.loadings
        return np.asarray(common + np.sqrt(self.own) * self.rng.normal(size=(n_cells, N_GENES)))

    def departures(self, n_guides: int, form: str, variance: float) -> Array:
        """Return how much the means of guides depart from those of their perturbations."""
        factors, own = FORMS[form]
        along = self.rng.normal(size=(n_guides, len(factors))) * np.sqrt(factors) @ self.loadings
        scale = 1.0 if form == "by gene" else self.own
        apart = np.sqrt(own * scale) * self.rng.normal(size=(n_guides, N_GENES))
        return np.asarray(np.sqrt(variance) * (along + apart))


def named(effects: Array) -> pd.DataFrame:
    """Return true effects with names."""
    n, p = effects.shape
    return pd.DataFrame(effects, [f"P{j:03}" for j in range(n)], [f"G{k:03}" for k in range(p)])


def cells(x: Array, effects: pd.DataFrame, **obs: Array) -> ad.AnnData:
    """Return an AnnData of cells with the genes of the effects."""
    table = pd.DataFrame(obs, index=[f"c{i}" for i in range(len(x))])
    return ad.AnnData(x, table, pd.DataFrame(index=effects.columns))


def draw_loadings(
    rng: np.random.Generator, shares: Array, sizes: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Array:
    """Return loadings of factors of relative sizes that explain a share of each gene's variance."""
    loadings = np.sqrt(sizes)[:, None] * rng.normal(size=(len(sizes), len(shares)))
    return np.asarray(loadings * np.sqrt(shares / (loadings**2).sum(axis=0)))


def draw_world(seed: int, *, share: float = SHARE) -> World:
    """Return the world of a seed, of which a share of effects is not 0."""
    rng = np.random.default_rng([seed, 63])
    effects = rng.laplace(scale=SIZE / np.sqrt(2), size=(N, N_GENES))
    effects *= rng.random((N, N_GENES)) < share
    explained = rng.uniform(0.2, 0.8, N_GENES)
    loadings = draw_loadings(rng, explained, FACTORS)
    return World(rng, named(effects), loadings, 1.0 - explained)


def declared(
    world: World, label: Array, shift: Array, ratio: Array | float = 1.0, **obs: Array
) -> Screen:
    """Return cells of perturbations (0 is the control) with declared roles, and their effects.

    ``shift`` is added to the effects of a cell, ``ratio`` multiplies the variance of its genes.
    """
    means = np.vstack([np.zeros(N_GENES), world.effects])[label]
    x = 4.0 + means + shift + np.sqrt(ratio) * world.noise(len(label))
    names = np.array(["control", *world.effects.index])
    columns = {name: code.astype(str) for name, code in obs.items()}
    adata = cells(x, world.effects, perturbation=names[label], **columns)
    roles: dict[str, Any] = {f"{name}_key": name for name in obs}
    npt.pp.setup_screen(adata, **roles)
    return adata, world.effects


def labels(n_cells: Array | int = N_CELLS) -> tuple[Array, Array]:
    """Return the perturbation of every cell, the controls first, and its number among them."""
    sizes = np.array([N_CONTROLS, *np.broadcast_to(n_cells, N)])
    return np.repeat(np.arange(N + 1), sizes), np.concatenate([np.arange(size) for size in sizes])


def with_guides(
    seed: int, n_guides: int, of_controls: int = 8, form: str = "by gene", variance: float = 0.1,
    share: float = SHARE, off_targets: str = "",
) -> Screen:  # fmt: skip
    """Return a screen whose guides depart, or with off-targets of "targeting" or "all" guides."""
    world = draw_world(seed, share=share)
    label, member = labels()
    of_label = of_controls + (label - 1) * n_guides + member % n_guides
    guide = np.where(label == 0, member % of_controls, of_label)
    shape = of_controls + N * n_guides, N_GENES
    if off_targets:
        sign = world.rng.choice([-OFF_TARGET_SIZE, OFF_TARGET_SIZE], size=shape)
        shift = sign * (world.rng.random(shape) < OFF_TARGETS)
        if off_targets == "targeting":
            shift[:of_controls] = 0.0
    else:
        shift = world.departures(shape[0], form, variance)
    return declared(world, label, shift[guide], guide=guide)


def one_control_batch(seed: int, sd: float, share: float = SHARE) -> Screen:
    """Return a screen in 4 batches with 5 perturbations each, and controls in the first only."""
    world, (label, _) = draw_world(seed, share=share), labels()
    batch = np.where(label == 0, 0, (label - 1) % 4)
    return declared(world, label, sd * world.rng.normal(size=(4, N_GENES))[batch], batch=batch)


def with_replicates(seed: int, n_replicates: int, variance: float) -> Screen:
    """Return a screen in replicates, declared as batches, in each of which effects differ."""
    world, (label, member) = draw_world(seed), labels()
    batch = member % n_replicates
    departure = np.sqrt(variance) * world.rng.normal(size=(n_replicates, N + 1, N_GENES))
    departure[:, 0] = 0.0
    departure += 0.3 * world.rng.normal(size=(n_replicates, 1, N_GENES))  # shifts of batches
    return declared(world, label, departure[batch, label], batch=batch)


def of_few_cells(seed: int, log_sd: float = 0.5) -> Screen:
    """Return a screen of 3 to 12 cells per perturbation, whose variances are not the controls'."""
    world = draw_world(seed)
    label, _ = labels(world.rng.integers(3, 13, N))
    ratio = np.exp(log_sd * world.rng.normal(size=(N + 1, N_GENES)))
    ratio[0] = 1.0
    return declared(world, label, np.zeros(N_GENES), ratio[label])
