"""``pp.assign_guides``: perturbation labels from guide counts or lists of guides."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp

from nextpert import _adata
from nextpert._adata.arguments import above, checked, one_of
from nextpert._adata.guides import KEY, TARGETING, count_cells, guide_sets, split_lists
from nextpert._adata.labels import column_of, joins_guides, usual_separator
from nextpert.core.screen.moments import require_numbers, require_sound
from nextpert.pp._guide_targets import GuideInput, gene_names, log_guides, targets_of_guides
from nextpert.pp._screen import tally

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray


logger = logging.getLogger(__name__)

_SEPARATOR = ","


class CellGuides(NamedTuple):
    """The guides of every cell.

    ``codes`` is the position of each cell's list of guides in ``lists``, shape ``(n_cells,)``, and
    ``sets`` has a row for each list (:func:`guide_sets`). ``table`` is the table of guides.
    """

    codes: NDArray[np.int64]
    lists: list[list[str]]
    sets: pd.DataFrame
    table: pd.DataFrame


@checked(threshold=above(0), multiple=one_of("combine", "multi"))
def assign_guides(
    adata: ad.AnnData,
    *,
    guides: str | ad.AnnData | pd.DataFrame,
    threshold: float = 5,
    targets: Mapping[str, str] | pd.DataFrame | str | os.PathLike[str] | None = None,
    control_guides: Iterable[str] | None = None,
    control: str = "control",
    multiple: str = "combine",
    separator: str = "+",
    guide_separator: str | None = None,
    key_added: str = "perturbation",
    copy: bool = False,
) -> ad.AnnData | None:
    """Label each cell with the targets of its guides.

    A guide with at least ``threshold`` UMI in a cell is called there. Control guides change neither
    the label nor the guides of a cell with targeting guides, unless ``multiple="multi"``: a cell
    with the guide ``A_1`` and a control guide has the label ``A`` and the guide ``A_1``.

    Parameters
    ----------
    adata
        The cells.
    guides
        UMI counts, cells x guides: a DataFrame, an AnnData, or the key of one in ``adata.obsm``;
        cells are matched by name. Alternatively, the name of a column of ``adata.obs`` with the
        guides of every cell, joined by ``guide_separator``; a missing value means no guide.
    threshold
        Minimum UMI count for a guide to be called in a cell.
    targets
        Target of every guide: a mapping; a DataFrame or a csv or tsv file, such as Cell Ranger's
        feature reference or MAGeCK's library; or a column of ``adata.obs``, or of ``var``. Other
        columns of a table are kept. Guides that a mapping lacks, and by default all, are read from
        their names (:ref:`how <targets-of-guides>`).
    control_guides
        Names of control guides, or of their targets; by default every guide or target with a common
        name for controls, such as ``non-targeting``, ``NTC``, ``scrambled`` or ``NO_SITE``.
    control
        Label of cells whose guides are all control guides.
    multiple
        How to label cells with several guides: ``"combine"`` (default) joins their targets, each
        once; ``"multi"`` labels them ``multi``.
    separator
        Text between the targets of a label.
    guide_separator
        Text between guides in ``obs["guides"]``, and in the column named by ``guides``. By default
        ``","``, or ``";"`` or ``"|"`` where these join guides that other cells have alone.
    key_added
        Name of the column of labels.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. Fields written:

        - ``obs["perturbation"]`` (labels): the targets, sorted and joined; ``control``,
          ``"unassigned"`` (no guide) or ``"multi"``.
        - ``obs["guides"]`` (labels): the guides of each cell, joined by ``guide_separator``;
          control guides are left out if there are others.
        - ``obs["n_guides"]``, ``obs["n_targets"]`` (numbers): guides and targets of each cell.
        - ``uns["guides"]`` (table): one row per guide, with ``target`` (empty for control guides),
          ``kind`` (``targeting``, ``control``, ``no_site``, ``one_non-gene_site``), ``n_cells``,
          ``decided_by`` (``mapping``, ``table``, ``column``, ``name`` or ``doubtful``), and further
          columns of ``targets``.

    Raises
    ------
    ValueError
        If the guides are not found, their table lacks cells, a count is negative or NaN, a guide
        is named twice, or a guide has no target and is not named in ``control_guides``. Names that
        no pattern explains raise an error that shows what was understood.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd, nextpert as npt
    >>> adata = ad.AnnData(obs=pd.DataFrame(index=["a", "b", "c", "d"]))
    >>> names = ["MYC_1", "MYC_2", "JUN_1", "non-targeting_1"]
    >>> umi = [[9, 0, 0, 0], [7, 8, 0, 1], [4, 0, 6, 5], [1, 0, 0, 0]]
    >>> adata.obsm["guide_umi"] = pd.DataFrame(umi, adata.obs_names, names)
    >>> npt.pp.assign_guides(adata, guides="guide_umi")
    >>> adata.obs["perturbation"].tolist()
    ['MYC', 'MYC', 'JUN', 'unassigned']
    """
    if key_added in ("guides", "n_guides", "n_targets"):
        message = f"key_added={key_added!r} is the name of another column: choose another name."
        raise ValueError(message)
    cells = read_guides(
        adata, GuideInput(guides, targets, None, control_guides), threshold, guide_separator
    )
    columns = label_columns(cells, control, multiple, separator, guide_separator or _SEPARATOR)
    columns = {key_added: columns.pop("perturbation"), **columns}
    written = _adata.write_results(adata, obs=columns, uns={KEY: cells.table}, copy=copy)
    log_guides(cells.table, gene_names(adata), tally(columns[key_added]))
    return written


def read_guides(
    adata: ad.AnnData, inputs: GuideInput, threshold: float, guide_separator: str | None
) -> CellGuides:
    """Return the guides of every cell and their targets; ``adata`` does not change.

    Without ``guide_separator``, the usual one of the column is used, and logged.
    """
    guides = inputs.guides
    if isinstance(guides, str) and guides not in adata.obsm:
        remedy = "pass a key of adata.obsm, or the column with the guides of every cell, as guides"
        column = column_of(adata, guides, remedy)
        levels = {str(value) for value in column.dropna().unique()}
        if guide_separator is None and (usual := usual_separator(levels)):
            guide_separator = usual
            logger.info("The guides of a cell are joined by %r in obs[%r].", usual, guides)
        codes, lists = split_lists(column, guide_separator or _SEPARATOR)
        names = sorted({guide for guide_list in lists for guide in guide_list})
        guide_names = set(names)
        if joined := [guide for guide in names if joins_guides(guide, guide_names)]:
            message = (
                f"{_adata.list_names(joined, limit=3)} in adata.obs[{guides!r}] look like several "
                f"guides: call pp.assign_guides(adata, guides={guides!r}, guide_separator='...')."
            )
            raise ValueError(message)
    else:
        counts = adata.obsm[guides] if isinstance(guides, str) else guides
        matrix, names = _umi(adata, counts)
        codes, lists = _call(matrix, names, threshold)
        if isinstance(counts, ad.AnnData):
            inputs = inputs._replace(described=counts.var)
    alone = np.array(
        [*(guide_list[0] if len(guide_list) == 1 else "" for guide_list in lists), ""], dtype=object
    )
    table = targets_of_guides(adata, names, pd.Series(alone[codes]), inputs)
    sets = guide_sets(lists, table, guide_separator or _SEPARATOR)
    return CellGuides(codes, lists, sets, count_cells(table, lists, codes))


def label_columns(
    cells: CellGuides, control: str, multiple: str, separator: str, guide_separator: str
) -> dict[str, Any]:
    """Return the columns of ``obs`` that follow from the guides of the cells."""
    codes = cells.codes
    sets = cells.sets
    names = sets["name"]
    if multiple == "combine":
        works = cells.table["kind"].astype(str).eq(TARGETING).to_dict()
        named = (
            [guide for guide in guide_list if works[guide]] or guide_list
            for guide_list in cells.lists
        )
        names = pd.Series([guide_separator.join(guide_list) for guide_list in named], dtype=object)
    return {
        "perturbation": pd.Categorical(_labels(sets, control, multiple, separator)[codes]),
        "guides": pd.Categorical(names.to_numpy(object)[codes]),
        "n_guides": sets["n_guides"].to_numpy()[codes],
        "n_targets": sets["targets"].map(len).to_numpy()[codes],
    }


def _umi(adata: ad.AnnData, table: Any) -> tuple[sp.csr_matrix, list[str]]:
    """Return the counts, cells in the order of ``adata``, and the names of the guides."""
    if isinstance(table, ad.AnnData):
        cells, names, values = table.obs_names, table.var_names, _adata.eager(table.X)
        require_sound(values, "The matrix of guides")
    elif isinstance(table, pd.DataFrame):
        cells, names, values = table.index, table.columns, table.to_numpy()
    else:
        message = (
            "guides must be a DataFrame or an AnnData of counts (cells x guides), the key of one "
            f"in adata.obsm, or a column of adata.obs, but is of type {type(table).__name__}."
        )
        raise TypeError(message)
    for noun, index in {"cells": cells, "guides": names}.items():
        if not index.is_unique:
            twice = index[index.duplicated()].unique()
            shown = _adata.list_names(twice)
            message = f"The table of guides contains {noun} twice: {shown}. Make names unique."
            raise ValueError(message)
    rows = cells.get_indexer(adata.obs_names)
    if (rows < 0).any():
        absent = adata.obs_names[rows < 0]
        shown = _adata.list_names(absent, limit=3)
        message = (
            f"The table of guides lacks {len(absent)} of {adata.n_obs} cells: {shown}. Add them, "
            f"or remove them from adata."
        )
        raise ValueError(message)
    require_numbers(values, "The table of guides")
    matrix = sp.csr_matrix(values)[rows]
    matrix.sum_duplicates()  # before counts are compared with the threshold
    if matrix.data.dtype.kind not in "buif" or not bool((matrix.data >= 0).all()):
        message = (
            "The table of guides has values that are negative, NaN or not numbers: pass UMI counts."
        )
        raise ValueError(message)
    return matrix, [str(name) for name in names]


def _call(
    matrix: sp.csr_matrix, names: list[str], threshold: float
) -> tuple[NDArray[np.int64], list[list[str]]]:
    """Return for every cell the position of its list of called guides, and the lists."""
    called = sp.csr_matrix(matrix >= threshold)
    called.sort_indices()
    number: dict[tuple[int, ...], int] = {}
    codes = np.empty(called.shape[0], dtype=np.int64)
    for i, (start, stop) in enumerate(zip(called.indptr[:-1], called.indptr[1:], strict=True)):
        codes[i] = number.setdefault(tuple(called.indices[start:stop].tolist()), len(number))
    return codes, [[names[j] for j in guides] for guides in number]


def _labels(sets: pd.DataFrame, control: str, multiple: str, separator: str) -> NDArray[Any]:
    labels = sets["targets"].map(separator.join).to_numpy(object)
    without = np.where(sets["n_guides"] > 0, control, "unassigned").astype(object)
    labels = np.where(labels == "", without, labels)
    return np.where((sets["n_guides"] > 1) & (multiple == "multi"), "multi", labels)
