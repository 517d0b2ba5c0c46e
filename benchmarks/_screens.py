"""Screens for the trials of graphs: normalised cells of a panel, labels and targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import scipy.sparse as sp

from nextpert._adata.roles import Roles
from nextpert._adata.screen import Environments, read_environments, screen_moments
from nextpert.core import ScreenMoments

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Iterator
    from pathlib import Path

UNASSIGNED = ("unassigned", "multi", "no_guide", "control_guide", "nan", "")


@dataclass(frozen=True)
class Source:
    """Where a screen lies and how it is read.

    Counts are divided by the total of a cell, times the median total, and taken as ``log(1 + x)``.
    """

    path: str  # below the folder of the data
    roles: Roles  # of columns, and of the layer
    counts: bool = True  # whether the matrix holds counts
    depth_key: str | None = None  # column with the total of a cell; by default the sum over X
    guide_key: str | None = None  # for benchmarks that distinguish guides


SOURCES = {
    "papalexi": Source("papalexi_thp1/papalexi_lowmoi.h5ad", Roles(), guide_key="grna"),
    "tapseq": Source(
        "schraivogel_tapseq/schraivogel_tapseq_umi5.h5ad",
        Roles(control="non-targeting"),
        guide_key="guides",
    ),
    "hill": Source("hill2018_cropseq/hill2018_cropseq.h5ad", Roles(), depth_key="nUMI"),
    "norman": Source("norman2019/norman_subset.h5ad", Roles(layer="lognorm"), counts=False),
}


@dataclass(frozen=True)
class Statistics:
    """Moments of environments, and what the experiment set in each."""

    moments: ScreenMoments
    label: np.ndarray  # perturbation of every environment
    control: str
    fixed: np.ndarray | None = None  # indicators of batches, (n_environments, n_fixed)

    @property
    def perturbations(self) -> list[str]:
        """All labels but the control's, sorted."""
        return sorted(set(self.label) - {self.control})

    def indicators(self) -> np.ndarray:
        """Return the indicators of the perturbations, ``(n_environments, n_perturbations)``."""
        names = np.array(self.perturbations, dtype=object)
        return (self.label[:, None] == names).astype(float)


@dataclass(frozen=True)
class Screen:
    """Cells of a panel, read once; statistics of any part of them."""

    name: str
    cells: ad.AnnData
    environments: Environments
    targets: dict[str, int]  # perturbation -> column of the gene it targets, where measured

    @property
    def control(self) -> str:
        """Label of the controls."""
        return self.environments.roles.control

    @property
    def guide_key(self) -> str | None:
        """Column with the guide of every cell."""
        return SOURCES[self.name].guide_key if self.name in SOURCES else None

    def labels(self) -> np.ndarray:
        """Return the perturbation of every cell."""
        return self.cells.obs[self.environments.roles.perturbation_key].astype(str).to_numpy()

    def statistics(self, perturbations: list[str]) -> Statistics:
        """Return the statistics of the cells of some labels."""
        kept = self.environments.only(perturbations)
        moments = screen_moments(self.cells, np.arange(self.cells.n_vars), kept)
        return Statistics(
            moments, kept.perturbation, self.control, kept.indicators(kept.roles.batch_key)[1]
        )


def read_screen(
    folder: Path,
    source: Source,
    *,
    name: str = "screen",
    n_variable: int = 100,
    min_seen: float = 0.1,
    min_cells: int = 20,
) -> Screen:
    """Read a screen, normalise it and choose the panel.

    The panel is the ``n_variable`` genes that vary most among the controls, of those seen in more
    than a share ``min_seen`` of them, and all measured targets that are seen in controls.
    """
    roles = source.roles
    adata = ad.read_h5ad(folder / source.path)
    label = adata.obs[roles.perturbation_key].astype(str)
    sizes = label.value_counts()
    kept = label.map(sizes).to_numpy() >= min_cells
    kept &= ~label.isin(UNASSIGNED).to_numpy()
    adata = adata[kept].copy()
    label = label[kept]
    adata.obs[roles.perturbation_key] = label
    raw = adata.layers[roles.layer] if roles.layer else adata.X
    x = sp.csr_array(raw, dtype=float)
    if source.counts:
        given = None if source.depth_key is None else adata.obs[source.depth_key]
        total = np.asarray(x.sum(axis=1) if given is None else given, float).ravel()
        scale = np.median(total[total > 0]) / np.maximum(total, 1)
        x = sp.csr_array(sp.diags_array(scale) @ x)
        x.data = np.log1p(x.data)
    control = (label == roles.control).to_numpy()
    seen = np.asarray((x[control] != 0).mean(axis=0)).ravel()
    mean = np.asarray(x[control].mean(axis=0)).ravel()
    variance = np.asarray(x[control].multiply(x[control]).mean(axis=0)).ravel() - mean**2
    varying = np.flatnonzero(seen > min_seen)
    panel = set(varying[np.argsort(-variance[varying], kind="stable")[:n_variable]].tolist())
    place = {str(gene): k for k, gene in enumerate(adata.var_names)}
    measured = {t: place[t] for t in sizes.index if t in place and seen[place[t]] > 0}
    panel |= {k for t, k in measured.items() if t in set(label)}
    columns = sorted(panel)
    cells = ad.AnnData(x[:, columns].toarray(), adata.obs, adata.var.iloc[columns][[]])
    environments = read_environments(cells, replace(roles, layer=None))
    back = {column: k for k, column in enumerate(columns)}
    targets = {t: back[k] for t, k in measured.items() if k in back and t in set(label)}
    return Screen(name, cells, environments, targets)


def add_arguments(parser: ArgumentParser, *names: str) -> None:
    """Add the screens to read, by default ``names``, or a file of one's own in their place."""
    parser.add_argument("--screens", nargs="*", default=list(names or SOURCES), choices=SOURCES)
    group = parser.add_argument_group("a screen of your own")
    group.add_argument("--file", help="h5ad file of counts, in place of a known screen")
    group.add_argument("--perturbation-key", default="perturbation")
    group.add_argument("--control", default="control")
    group.add_argument("--batch-key", nargs="+", default=[], help="columns of batches")
    group.add_argument("--layer", help="layer of log-normalised values, taken as they are")
    group.add_argument("--genes", type=int, default=100, help="variable genes in the panel")


def screens_of(args: Namespace) -> Iterator[Screen]:
    """Yield the screens asked for, read from ``args.data``."""
    asked = {name: SOURCES[name] for name in args.screens}
    if args.file:
        roles = Roles(
            perturbation_key=args.perturbation_key, control=args.control, layer=args.layer,
            batch_key=tuple(args.batch_key),
        )  # fmt: skip
        asked = {args.file: Source(args.file, roles, counts=args.layer is None)}
    for name, source in asked.items():
        yield read_screen(args.data, source, name=name, n_variable=args.genes)
