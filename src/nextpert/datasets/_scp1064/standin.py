"""A made-up Perturb-CITE-seq study in the portal's file layouts, for tests and tutorials."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._files import writing_to
from nextpert.core._checks import as_rng
from nextpert.datasets._scp1064.portal import SUBSETS
from nextpert.datasets._scp1064.rows import CONDITIONS
from nextpert.datasets._simulated_screen import PANEL, _expression_model

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

ANTIBODIES = (
    "CD117", "CD119", "CD140a", "CD140b", "CD172a", "CD184", "CD202b", "CD274", "CD29", "CD309",
    "CD44", "CD47", "CD49f", "CD58", "CD59", "CD61", "HLA_A", "HLA_E", "CD9", "CD279",
)  # fmt: skip
ISOTYPES = ("Mouse_IgG1", "Mouse_IgG2a", "Mouse_IgG2b", "Rat_IgG2a")
# Shares of cells as in the study: conditions, and 0, 1, 2, ... guides.
_CONDITION_SHARE = (0.264, 0.401, 0.335)
_N_GUIDES_SHARE = (0.105, 0.582, 0.207, 0.073, 0.033)
_CONTROL_GUIDES = ("NO_SITE", "ONE_NON-GENE_SITE")
_CONTROL_SHARE = (0.072, 0.052)  # of all guides called
_MEAN_UMI = 8000.0
_LEFT_BY_KNOCKOUT = 0.1  # of the control mean


@dataclass(frozen=True)
class PortalStandin:
    """What a stand-in holds.

    Parameters
    ----------
    cells, genes
        Names, in the order of the expression file.
    counts
        UMI counts, shape ``(n_cells, n_genes)``; ``umi_count`` are their row sums.
    conditions, guides
        Condition and guides of every cell.
    protein_cells, protein
        Cells of the protein files in their order, and counts, shape
        ``(n_protein_cells, n_antibodies)``.
    weights
        Weights of the causal model of the targets that are measured, row = child; in the order
        of ``measured``.
    measured
        Targets that are also genes of the expression file.
    """

    cells: list[str]
    genes: list[str]
    counts: NDArray[np.int64]
    umi_count: NDArray[np.int64]
    conditions: list[str]
    guides: list[list[str]]
    protein_cells: list[str]
    protein: NDArray[np.int64]
    weights: NDArray[np.float64]
    measured: list[str]


def write_portal_standin(
    folder: str | os.PathLike[str],
    *,
    n_cells: int = 600,
    n_genes: int = 60,
    rng: int | np.random.Generator | None = 0,
    targets: Sequence[str] | None = None,
    conditions: Sequence[str] | None = None,
    subsets: bool = True,
) -> PortalStandin:
    """Write a made-up study in exactly the layouts of the portal's files, and return its content.

    Counts are Poisson draws around a linear causal model of the targets' log expression (as in
    ``simulated_screen``); a guide takes nine tenths of its target's control mean away, which
    moves the genes downstream of it. IFNγ and co-culture raise a third of the targets.

    Parameters
    ----------
    folder
        Folder to write to; made if absent.
    n_cells, n_genes
        Numbers of cells (``CELL_1``, ...) and genes: the targets and ``GENE37``, ``GENE38``, ...
    rng
        Seed or generator.
    targets
        Genes with guides, three each. By default the paper's panel, cut to half of the genes.
        Targets beyond ``n_genes`` have guides without any effect.
    conditions
        Condition of every cell, instead of the proportions of the study.
    subsets
        Whether to write the six files of consecutive cells beside the full one.
    """
    rng = as_rng(rng)
    wanted = list(PANEL[: n_genes // 2]) if targets is None else [str(name) for name in targets]
    # The targets spread among genes that nothing targets.
    others = [f"GENE{i + 1}" for i in range(len(wanted), n_genes)]
    names = [*others[::2], *wanted, *others[1::2]][:n_genes]
    cells = [f"CELL_{i + 1}" for i in range(n_cells)]
    if conditions is None:  # they follow each other in the files, as those of the study do
        ends = np.round(np.cumsum(_CONDITION_SHARE) * n_cells)
        conditions = [CONDITIONS[k] for k in np.searchsorted(ends, np.arange(n_cells), "right")]
    each = list(conditions)
    guides = _draw_guides(n_cells, wanted, rng)
    measured = [name for name in wanted if name in set(names)]
    counts, weights = _draw_counts(names, measured, each, guides, rng)
    # Proteins are missing for three cells; the others come in an order of their own.
    order = rng.permutation(n_cells)[3:]
    n_antibodies = len(ANTIBODIES) + len(ISOTYPES)
    protein = rng.poisson(np.exp(rng.normal(2, 1, n_antibodies) + rng.normal(0, 0.5, (n_cells, 1))))
    standin = PortalStandin(
        cells, names, counts, counts.sum(axis=1), each, guides,
        [cells[i] for i in order], protein[order], weights, measured,
    )  # fmt: skip
    place = rng.normal(size=(n_cells, 2)).round(5)
    _write_files(Path(folder), standin, protein, place, subsets)
    return standin


def _write_files(
    folder: Path,
    standin: PortalStandin,
    protein: NDArray[np.int64],
    place: NDArray[np.float64],
    subsets: bool,
) -> None:
    """Write a study in the portal's layouts.

    ``protein`` are counts of all cells, shape ``(n_cells, n_antibodies)``, and ``place`` their
    embedding, shape ``(n_cells, 2)``.
    """
    cells, guides = standin.cells, standin.guides

    def write(name: str, rows: Iterable[Sequence[object]], **quotes: Any) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n", **quotes).writerows(rows)
        data = text.getvalue().encode()
        with writing_to(folder / name) as path:
            path.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)

    values = np.log1p(standin.counts * 1e6 / standin.umi_count[:, None]).T.tolist()
    table = [["GENE", *cells]]
    for gene, row in zip(standin.genes, values, strict=True):
        table.append([gene, *(f"{v:.8g}" if v else "0" for v in row)])
    write("other/RNA_expression.csv.gz", table)
    if subsets:
        edges = np.linspace(1, 1 + len(cells), len(SUBSETS) + 1).astype(int)
        for name, start, stop in zip(SUBSETS, edges[:-1], edges[1:], strict=True):
            part = [[row[0], *row[start:stop]] for row in table]
            write(f"expression/RNA_expression_subset{name}.csv.gz", part)
    write("metadata/RNA_metadata.csv", [
        ["NAME", "library_preparation_protocol", "condition", "MOI", "sgRNA", "UMI_count"],
        ["TYPE", "group", "group", "numeric", "group", "numeric"],
        *zip(cells, ["10x 3' v3 sequencing"] * len(cells), standin.conditions, map(len, guides),
             [some[0] if len(some) == 1 else "" for some in guides],
             standin.umi_count.tolist(), strict=True),
    ])  # fmt: skip
    listed = zip(cells, [",".join(some) for some in guides], strict=True)
    write("documentation/all_sgRNA_assignments.txt", [["Cell", "sgRNAs"], *listed])
    umap = [[cell, *xy] for cell, xy in zip(cells, place.tolist(), strict=True)]
    types = ["TYPE", "numeric", "numeric"]
    write("cluster/5fb2a1c0/RNA_UMAP_cluster.csv", [["NAME", "X", "Y"], types, *umap])
    antibodies = zip([*ANTIBODIES, *ISOTYPES], standin.protein.T.tolist(), strict=True)
    rows = [[name, *row] for name, row in antibodies]
    write("other/raw_CITE_expression.csv.gz", [["", *standin.protein_cells], *rows])
    # The study's scale: log ratio to an isotype control, zero where that is larger.
    isotype = protein[:, [len(ANTIBODIES)]]
    ratio = np.log((protein[:, : len(ANTIBODIES)] + 1) / (isotype + 1))
    scaled = zip(ANTIBODIES, np.maximum(ratio, 0).round(6).T.tolist(), strict=True)
    rows = [[f'"{name} protein"', *row] for name, row in scaled]
    as_is: dict[str, Any] = {"quoting": csv.QUOTE_NONE, "quotechar": None}
    write("documentation/Protein_expression.csv.gz", [["Protein", *cells], *rows], **as_is)


def _draw_guides(n_cells: int, targets: list[str], rng: np.random.Generator) -> list[list[str]]:
    pool = [f"{name}_{k}" for name in targets for k in (1, 2, 3)]
    share = [(1 - sum(_CONTROL_SHARE)) / len(pool)] * len(pool)
    for name, part in zip(_CONTROL_GUIDES, _CONTROL_SHARE, strict=True):
        control = [f"{name}_{k}" for k in rng.choice(np.arange(1, 800), 12, replace=False)]
        pool += control
        share += [part / len(control)] * len(control)
    n_guides = rng.choice(len(_N_GUIDES_SHARE), n_cells, p=_N_GUIDES_SHARE)
    drawn = np.split(rng.choice(len(pool), n_guides.sum(), p=share), np.cumsum(n_guides)[:-1])
    # A guide is called once in a cell, however often drawn.
    return [sorted({pool[j] for j in some}) for some in drawn]


def _draw_counts(
    names: list[str],
    measured: list[str],
    conditions: list[str],
    guides: list[list[str]],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return UMI counts (n_cells, n_genes) and the weights of the model behind them."""
    n_cells = len(conditions)
    scm, mean = _expression_model(max(len(measured), 2), 4.0, rng)
    position = {name: j for j, name in enumerate(measured)}
    shift = np.zeros((n_cells, len(mean)))
    for i, some in enumerate(guides):
        hit = {position[t] for t in (g.rsplit("_", 1)[0] for g in some) if t in position}
        shift[i, list(hit)] = -(1 - _LEFT_BY_KNOCKOUT) * mean[list(hit)]
    responds = rng.random(len(mean)) < 1 / 3
    for condition, size in (("IFNγ", 0.5), ("Co-culture", 0.25)):
        shift[np.ix_(np.array(conditions) == condition, responds)] += size
    noise = rng.normal(size=shift.shape) * np.sqrt(scm.noise_var)
    solved = np.linalg.solve(np.eye(len(mean)) - scm.weights, (shift + noise + scm.intercept).T).T
    rate = np.tile(np.exp(rng.normal(-2, 1.5, len(names))), (n_cells, 1))
    for name, j in position.items():
        rate[:, names.index(name)] = np.expm1(np.clip(solved[:, j], 0.02, 6))
    depth = _MEAN_UMI * np.exp(rng.normal(0, 0.4, (n_cells, 1)))
    # Few genes would share all of a cell's UMI: keep the counts of a gene where real ones are.
    depth *= min(1.0, len(names) / 2000)
    counts = rng.poisson(depth * rate / rate.sum(axis=1, keepdims=True))
    counts[counts.sum(axis=1) == 0, 0] = 1
    return counts, scm.weights
