"""A simulated Perturb-CITE-seq study in the format of the portal's files."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from nextpert._adata.arguments import at_least, checked
from nextpert._adata.panel import ZHANG2023, closest
from nextpert._files import writing_to
from nextpert.core._checks import as_rng, list_names
from nextpert.datasets._perturb_cite_seq_model import (
    DEPTH,
    GUIDE_FREE_DEPTH,
    GUIDE_FREE_SHIFT,
    cells_per_target,
    panel_model,
)
from nextpert.datasets._scp1064 import CONDITIONS

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

# Targets outside the paper's panel, like most targets of the study.
_OUTSIDE = ("JAK1", "JAK2", "CD274")
_OTHER_CONDITIONS = 14  # one cell in 14 is in each of the other conditions


@checked(n_cells=at_least(10 * _OTHER_CONDITIONS), n_genes=at_least(40))
def perturb_cite_seq_standin(
    folder: str | os.PathLike[str],
    *,
    n_cells: int = 23_400,
    n_genes: int = 60,
    undetected: Sequence[str] = (),
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """Write a simulated Perturb-CITE-seq study in the format of the portal's files.

    The files of Frangieh et al. 2021 (Single Cell Portal, SCP1064) need a sign-in.
    :func:`perturb_cite_seq` reads the files written here (expression, metadata and guides) in the
    same way, so that an analysis can be tried before the files of the study are available.

    Counts are Poisson draws around a linear causal model of the log expression of the 36 genes of
    Zhang et al. 2023. From the study are the edges of its graph (144, learned by the authors of
    that paper), the expression of each gene in controls, its change under its own knockout (median
    log2 fold change -1.0), the number of cells of each knockout, and the regulatory modules. All
    else is a choice: weights are random (0.05 to 0.15, positive within a module), the variances of
    genes, and the depth of cells (19,000 UMI with and 6,500 without guides) were chosen so that
    simulated numbers are near those that the paper prints, such as squared distances of 0.4 to 5.1
    to the CDH19 knockout. The data contain no other information about real genes. Three more
    targets (JAK1, JAK2, CD274) are outside the panel.

    Parameters
    ----------
    folder
        Folder to write to, created if absent. Files of the same names are replaced.
    n_cells
        Number of cells, 140 or more; six sevenths of them are in the condition ``Control``. With
        the default, knockouts have as many cells as in the study, 31 to 169.
    n_genes
        Number of genes, 40 or more.
    undetected
        Targets without a single count. By default, CDH19 has a few counts, and NGFR, CXCR4 and
        CCR10 hardly more.
    rng
        Seed or generator.

    Returns
    -------
    ~pandas.DataFrame
        The true weights of the causal model, genes x genes (row = parent): the change of a gene's
        log expression per unit of its parent's.

    Raises
    ------
    ValueError
        If there are too few cells or genes, or ``undetected`` names a gene that is no target. No
        file is written in that case.

    Examples
    --------
    >>> import tempfile, nextpert as npt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     truth = npt.datasets.perturb_cite_seq_standin(folder, n_cells=140, n_genes=40)
    ...     adata = npt.datasets.perturb_cite_seq(folder, condition="Control")
    >>> adata.shape, truth.shape
    ((120, 40), (39, 39))
    """
    targets = [*ZHANG2023, *_OUTSIDE]
    if unknown := sorted(set(undetected) - set(targets)):
        message = f"undetected names genes that are no targets: {list_names(unknown)}."
        raise ValueError(message + closest(unknown, targets))
    n_other = n_cells // _OTHER_CONDITIONS
    conditions = np.repeat(CONDITIONS, [n_cells - 2 * n_other, n_other, n_other]).tolist()
    written = write_portal_standin(
        folder, targets, conditions, n_genes=n_genes, undetected=undetected, rng=rng
    )
    return pd.DataFrame(written.weights.T, written.measured, written.measured)


# Shares of cells with 0, 1, 2, ... guides. Of the study's 248 targets, 39 have cells here, and as
# many as there, so that cells without a guide and with control guides are more frequent.
_N_GUIDES_SHARE = (0.25, 0.435, 0.21, 0.08, 0.025)
_CONTROL_GUIDES = ("NO_SITE", "ONE_NON-GENE_SITE")
_CONTROL_SHARE = (0.251, 0.181)  # of all guides called: 2,189 and 1,581 of 8,719 single guides
_N_ANTIBODIES = 20
_ISOTYPES = ("Mouse_IgG1", "Mouse_IgG2a", "Mouse_IgG2b", "Rat_IgG2a")


class PortalStandin(NamedTuple):
    """Content of a stand-in, with cells and genes in the order of the expression file.

    ``counts`` are UMI of cells x genes, with the row sums ``umi_count``. ``weights`` (row = child)
    belong to the causal model of the targets that are genes of the file (``measured``). ``protein``
    are the counts of the first 20 of these (or all) and of four isotype controls.
    """

    cells: list[str]
    genes: list[str]
    counts: NDArray[np.int64]
    umi_count: NDArray[np.int64]
    conditions: list[str]
    guides: list[list[str]]
    weights: NDArray[np.float64]
    measured: list[str]
    protein: NDArray[np.int64]


def write_portal_standin(
    folder: str | os.PathLike[str],
    targets: Sequence[str],
    conditions: Sequence[str],
    *,
    n_genes: int,
    undetected: Sequence[str] = (),
    rng: int | np.random.Generator | None = 0,
) -> PortalStandin:
    """Write a simulated study in the exact format of the portal's files, and return its content.

    Counts are Poisson draws around the model of :func:`panel_model`. IFNγ and co-culture raise a
    third of the targets. ``targets`` have three guides each; targets beyond ``n_genes`` have no
    effect. Other genes (``GENE37``, ...) are spread among the targets, and share the remaining
    transcripts. ``conditions`` are those of the cells (``CELL_1``, ...). Genes of ``undetected``
    have no counts.
    """
    rng = as_rng(rng)
    other_genes = [f"GENE{i + 1}" for i in range(len(targets), n_genes)]
    genes = [*other_genes[::2], *targets, *other_genes[1::2]][:n_genes]
    cells = [f"CELL_{i + 1}" for i in range(len(conditions))]
    guides = _draw_guides(len(cells), targets, rng)
    measured = [name for name in targets if name in set(genes)]
    counts, weights, expression = _draw_counts(genes, measured, conditions, guides, undetected, rng)
    umi = counts.sum(axis=1)
    antibodies = [*measured[:_N_ANTIBODIES], *_ISOTYPES]
    # An antibody binds in proportion to the square root of its gene's expression.
    bound = 20 * np.exp((expression - expression.mean(axis=0)) / 2)[:, : len(antibodies) - 4]
    protein = rng.poisson(np.hstack([bound, np.full((len(cells), 4), 3.0)]))

    def write(name: str, rows: Iterable[Sequence[object]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        data = text.getvalue().encode()
        with writing_to(Path(folder, name)) as path:
            path.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)

    table = [["GENE", *cells]]
    for gene, row in zip(genes, np.log1p(counts * 1e6 / umi[:, None]).T.tolist(), strict=True):
        table.append([gene, *(f"{v:.8g}" if v else "0" for v in row)])
    write("other/RNA_expression.csv.gz", table)
    write(
        "metadata/RNA_metadata.csv",
        [
            ["NAME", "library_preparation_protocol", "condition", "MOI", "sgRNA", "UMI_count"],
            ["TYPE", "group", "group", "numeric", "group", "numeric"],
            *zip(
                cells,
                ["10x 3' v3 sequencing"] * len(cells),
                conditions,
                map(len, guides),
                [of_cell[0] if len(of_cell) == 1 else "" for of_cell in guides],
                umi.tolist(),
                strict=True,
            ),
        ],
    )
    listed = zip(cells, [",".join(of_cell) for of_cell in guides], strict=True)
    write("documentation/all_sgRNA_assignments.txt", [["Cell", "sgRNAs"], *listed])
    # The study's proteins have another order of cells, and lack some of them.
    order = list(range(len(cells) - 1, 0, -1))
    rows = zip(antibodies, protein[order].T.tolist(), strict=True)
    write(
        "other/raw_CITE_expression.csv.gz",
        [["", *(cells[i] for i in order)], *([a, *r] for a, r in rows)],
    )
    return PortalStandin(
        cells, genes, counts, umi, list(conditions), guides, weights, measured, protein
    )


def _draw_guides(n_cells: int, targets: Sequence[str], rng: np.random.Generator) -> list[list[str]]:
    pool = [f"{name}_{k}" for name in targets for k in (1, 2, 3)]
    cells = np.repeat(cells_per_target(targets), 3)
    share = ((1 - sum(_CONTROL_SHARE)) * cells / cells.sum()).tolist()
    for name, part in zip(_CONTROL_GUIDES, _CONTROL_SHARE, strict=True):
        control = [f"{name}_{k}" for k in rng.choice(np.arange(1, 800), 12, replace=False)]
        pool += control
        share += [part / len(control)] * len(control)
    n_guides = rng.choice(len(_N_GUIDES_SHARE), n_cells, p=_N_GUIDES_SHARE)
    drawn = np.split(rng.choice(len(pool), n_guides.sum(), p=share), np.cumsum(n_guides)[:-1])
    # A guide that is drawn several times for a cell is called once.
    return [sorted({pool[j] for j in index}) for index in drawn]


def _draw_counts(
    names: list[str],
    measured: list[str],
    conditions: Sequence[str],
    guides: list[list[str]],
    undetected: Sequence[str],
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return UMI counts (n_cells, n_genes), the model's weights, and its log expression."""
    model = panel_model(measured, rng)
    n_cells = len(conditions)
    position = {name: j for j, name in enumerate(measured)}
    shift = np.zeros((n_cells, len(measured)))
    for i, of_cell in enumerate(guides):
        hit = [position[t] for t in {g.rsplit("_", 1)[0] for g in of_cell} if t in position]
        shift[i, hit] = model.knockdown[hit]
    has_guide = np.array([bool(of_cell) for of_cell in guides])
    for name, size in GUIDE_FREE_SHIFT.items():
        if name in position:
            shift[~has_guide, position[name]] = size
    responds = rng.random(len(measured)) < 1 / 3
    for condition, size in (("IFNγ", 0.5), ("Co-culture", 0.25)):
        shift[np.ix_(np.array(conditions) == condition, responds)] += size
    noise = rng.normal(size=shift.shape) * np.sqrt(model.scm.noise_var)
    state = np.linalg.solve(np.eye(len(measured)) - model.scm.weights, (shift + noise).T).T
    # The mean of exp(state) in controls is exp(variance / 2).
    rate = model.tpm * np.exp(state - model.scm.covariance().diagonal() / 2)
    rate[:, [position[name] for name in undetected]] = 0
    # Other genes share the remaining transcripts.
    other_rates = np.exp(rng.normal(0, 1.5, len(names)))
    other_rates[[names.index(name) for name in measured]] = 0
    tpm = np.tile(
        other_rates * max(1e6 - model.tpm.sum(), 0) / max(other_rates.sum(), 1), (n_cells, 1)
    )
    tpm[:, [names.index(name) for name in measured]] = rate
    depth = np.where(has_guide, DEPTH, GUIDE_FREE_DEPTH) * np.exp(rng.normal(-0.08, 0.4, n_cells))
    counts = rng.poisson(depth[:, None] * tpm / tpm.sum(axis=1, keepdims=True))
    counts[counts.sum(axis=1) == 0, 0] = 1
    return counts, model.scm.weights, state
