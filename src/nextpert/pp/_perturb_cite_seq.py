"""``pp.perturb_cite_seq``: select, normalise and label the Perturb-CITE-seq screen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata import join, read_roles
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert._adata.guides import (
    COLUMNS,
    KEY,
    TARGETING,
    count_cells,
    guide_sets,
    guide_table,
    split_lists,
    targets_before_number,
)
from nextpert._adata.labels import column_of
from nextpert._adata.presets import PRESETS
from nextpert.pp._screen import (
    BOOKS,
    COMBINATIONS,
    Bookkeeping,
    CellTargets,
    Choices,
    finish,
    prepare,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import anndata as ad
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

CONTROLS = ("no_guide", "control_guide", "both")
# Of the settings of a preset, those without one.
CHOICES: Mapping[str, Any] = {
    "controls": "control_guide",
    "panel": None,
    "min_cells": 20,
    "combinations": "drop",
    "max_guides": None,
    "target_sum": 1e4,
}


@checked(
    controls=one_of(*CONTROLS),
    min_cells=at_least(0),
    combinations=one_of(*COMBINATIONS),
    preset=one_of(*PRESETS),
)
def perturb_cite_seq(
    adata: ad.AnnData,
    *,
    condition: str | None = "Control",
    controls: str | None = None,
    panel: str | Iterable[str] | None = None,
    min_cells: int | None = None,
    combinations: str | None = None,
    max_guides: int | None = None,
    preset: str | None = None,
    layer: str | None = None,
    copy: bool = False,
) -> ad.AnnData | None:
    """Select the cells and genes of the Perturb-CITE-seq screen, as recommended or as in the paper.

    The screen is that of Frangieh et al. 2021 (doi:10.1038/s41588-021-00779-1), as loaded by
    ``datasets.perturb_cite_seq``. ``preset="zhang2023"`` makes the choices of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0); other arguments take precedence. Cells are scaled to 10,000
    counts or, with the preset, to a million, which does not change ln(1 + TPM). Cells with targets
    outside the panel are dropped. :doc:`/guides/the_paper` compares the defaults with the paper.
    Cells and genes are dropped in place; nothing changes on error.

    Parameters
    ----------
    adata
        Cells x genes, ln(1 + TPM) or counts, with ``obs["guides"]`` (joined by commas),
        ``obs["condition"]`` and, if known, ``obs["UMI_count"]``. ``uns["guides"]`` has ``target``
        and ``kind`` of every guide; by default they follow from names such as ``HLA-A_2`` and
        ``NO_SITE_694``. A backed file needs ``copy=True``.
    condition
        ``"Control"`` (default), ``"IFNγ"``, ``"Co-culture"``, or ``None`` for all together.
    controls
        Which cells are controls: ``"no_guide"``, cells without a guide; ``"control_guide"``
        (default), cells with control guides only; or ``"both"``.
    panel, min_cells, combinations
        As for :func:`perturbation_screen`.
    max_guides
        Maximum number of guides per cell, control guides included; ``None`` for any number.
    preset
        ``"zhang2023"`` for the choices of the paper.
    layer
        Layer to read; ``None`` stands for ``layers["log_tpm"]`` if an earlier call wrote it, and
        otherwise for ``adata.X``.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. Fields written, as by :func:`perturbation_screen`:

        - ``obs["perturbation"]`` (labels): the perturbation.
        - ``obs["n_targets"]`` (number): number of targets.
        - ``var["control_mean"]``, ``var["control_sd"]``, ``var["seen_in_control"]`` (numbers):
          mean, standard deviation and share of non-zero values of each gene in control cells.
        - ``layers["log_tpm"]`` or ``layers["counts"]`` (array, ``(n_cells, n_vars)``): the earlier
          values of X, if it was rescaled.
        - ``uns["screen"]`` (mapping): as of :func:`setup_screen`.
        - ``uns["preprocessing"]`` (mapping): the tables ``steps`` and ``perturbations``,
          ``n_control_cells`` and ``params``; also ``guides``, a table of the cells of the condition
          by their guides: ``guides`` (``none``, ``one``, ``several``), ``kind``, ``n_cells`` and
          ``n_cells_kept``.
        - ``uns["guides"]`` (table): the guides, in the layout of :func:`assign_guides`.

    Raises
    ------
    ValueError
        If a column, gene, guide, layer or option is unknown or out of range, no control cell is
        left, or the values are neither counts nor ln(1 + TPM).

    Examples
    --------
    >>> import tempfile, nextpert as npt
    >>> with tempfile.TemporaryDirectory() as folder:  # a stand-in for the files of the study
    ...     truth = npt.datasets.perturb_cite_seq_standin(folder)
    ...     adata = npt.datasets.perturb_cite_seq(folder, genes="zhang2023")
    >>> npt.pp.perturb_cite_seq(adata, preset="zhang2023")
    >>> adata.n_vars, adata.obs["perturbation"].value_counts().index[0]
    (36, 'control')
    """
    join.check_in_place(adata, copy=copy)
    options: dict[str, Any] = {
        "controls": controls,
        "panel": panel,
        "min_cells": min_cells,
        "combinations": combinations,
        "max_guides": max_guides,
    }
    usual = CHOICES if preset is None else PRESETS[preset]["pp.perturb_cite_seq"]
    chosen = {name: usual[name] if options.get(name) is None else options[name] for name in CHOICES}
    max_guides = chosen.pop("max_guides")
    kind_of_control = chosen.pop("controls")
    if layer is None and "log_tpm" in adata.layers:
        layer = "log_tpm"
    choices = Choices(
        **chosen,
        layer=layer,
        keeps_outside=False,
        values="log_tpm",
        depth_key="UMI_count" if "UMI_count" in adata.obs else None,
    )
    codes, sets, guides = _cell_guides(adata)
    book = Bookkeeping(adata.n_obs)
    if condition is not None:
        labels = _adata.read_labels(adata, "condition")
        labels.require([condition], "Conditions")
        names = np.array([*labels.names, "no condition"], dtype=object)[labels.codes]
        book.keep("condition", labels.groups([condition]) == 0, "other conditions: ", names)
    read = book.kept
    if max_guides is not None:
        book.keep(
            "guides",
            (sets["n_guides"] <= max_guides).to_numpy()[codes],
            f"more than {max_guides} guide(s)",
        )
    control_kind = np.where(sets["n_guides"] == 0, "no_guide", "control_guide")
    is_control = (control_kind == kind_of_control) | (kind_of_control == "both")
    not_targeting = np.where(is_control, "control", "unassigned")
    sets["role"] = np.where(sets["kind"] == TARGETING, "perturbed", not_targeting)
    cells = CellTargets(codes, sets)
    kinds = sets["kind"].replace("none", "no guide").to_numpy(object)[codes]
    why = f"not controls if controls={kind_of_control!r}: "
    book.keep("controls", ~cells.have("unassigned"), why, kinds)
    new, warnings = prepare(adata, cells, book, choices, read_roles(adata, separator="+"))
    params = {"condition": condition, "preset": preset, "max_guides": max_guides}
    params = {name: value for name, value in params.items() if value is not None}
    new.uns[BOOKS]["params"] |= params | {"controls": kind_of_control}
    new.uns[BOOKS]["guides"] = _count_guides(cells, read, book.kept)
    new.uns[KEY] = guides
    return finish(adata, new, warnings, copy=copy)


def _cell_guides(adata: ad.AnnData) -> tuple[NDArray[np.int64], pd.DataFrame, pd.DataFrame]:
    """Return every cell's row in the table of :func:`guide_sets`, this table, and the guides."""
    codes, lists = split_lists(column_of(adata, "guides", "call pp.assign_guides first"), ",")
    table = adata.uns.get(KEY)
    if not isinstance(table, pd.DataFrame):
        names = sorted({guide for guide_list in lists for guide in guide_list})
        table = guide_table(targets_before_number(names), "name: GENE_1")
    elif not {"target", "kind"} <= set(table.columns):
        message = (
            "adata.uns['guides'] must have the columns 'target' and 'kind': run pp.assign_guides."
        )
        raise ValueError(message)
    sets = guide_sets(lists, table, ",")
    if "decided_by" not in table:
        table = table.assign(decided_by="table")
    table = count_cells(table, lists, codes).rename_axis("guide")
    first = table[list(COLUMNS)]
    return codes, sets, first.join(table.drop(columns=list(COLUMNS)))


def _count_guides(
    cells: CellTargets, read: NDArray[np.bool_], is_kept: NDArray[np.bool_]
) -> pd.DataFrame:
    """Count the cells by number and kind of guides: those read, and those kept.

    ``read`` and ``is_kept`` say which cells these are, shape ``(n_cells,)``.
    """
    kinds = []
    for n, kind, targets in cells.table[["n_guides", "kind", "targets"]].itertuples(index=False):
        target_text = "several targets" if len(targets) > 1 else "one target"
        of_many = target_text if kind == TARGETING else "control guides"
        kinds.append(of_many if n > 1 else kind if n else "")
    numbers = np.array(["none", "one", "several"])
    in_order = sorted(set(kinds), key=lambda kind: ("target" not in kind, kind))
    counts = pd.DataFrame(
        {
            "guides": pd.Categorical(numbers[np.minimum(cells.table["n_guides"], 2)], numbers),
            "kind": pd.Categorical(kinds, in_order),
            "n_cells": np.bincount(cells.codes[read], minlength=len(kinds)),
            "n_cells_kept": np.bincount(cells.codes[is_kept], minlength=len(kinds)),
        }
    )
    table = counts[counts["n_cells"] > 0].groupby(["guides", "kind"], observed=True).sum()
    table = table.reset_index().astype({"guides": object, "kind": object})
    for name in ("guides", "kind"):
        table[name] = _adata.strings(table[name])
    for row in table.itertuples():
        logger.info("Guides: %s %s, %d cells", row.guides, row.kind, row.n_cells)
    return table.set_axis(np.arange(len(table)))
