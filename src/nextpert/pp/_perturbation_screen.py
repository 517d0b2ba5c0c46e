"""``pp.perturbation_screen``: select, normalise and label the cells of a screen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata import join, read_roles
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert._adata.guide_names import MIN_EXPLAINED, Genes, read_names
from nextpert._adata.guides import KEY as GUIDES
from nextpert._adata.guides import TARGETING
from nextpert._adata.labels import names_no_perturbation, usual_separator
from nextpert._adata.roles import KEY as SCREEN
from nextpert._adata.stored import with_parts
from nextpert.core.fit.naming import Naming
from nextpert.pp._assign_guides import label_columns, read_guides
from nextpert.pp._guide_targets import GuideInput, gene_names, is_parted, log_guides
from nextpert.pp._screen import (
    BOOKS,
    COMBINATIONS,
    CONTROL,
    LABELS,
    TARGET,
    Bookkeeping,
    CellTargets,
    Choices,
    finish,
    prepare,
    tally,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import anndata as ad

    from nextpert._adata.labels import LabelTable
    from nextpert._adata.roles import Roles
    from nextpert.pp._assign_guides import CellGuides
    from nextpert.study.target import Target

logger = logging.getLogger(__name__)

_GENES = "Gene Expression"  # the features of Cell Ranger that are genes


@checked(min_cells=at_least(0), combinations=one_of(*COMBINATIONS))
def perturbation_screen(
    adata: ad.AnnData,
    perturbation_key: str = "perturbation",
    control: str | Sequence[str] = "control",
    *,
    panel: str | Iterable[str] | Target | None = None,
    min_cells: int = 20,
    combinations: str = "drop",
    separator: str | None = None,
    depth_key: str | None = None,
    guide_key: str | None = None,
    batch_key: str | Iterable[str] | None = None,
    gene_symbols: str | None = None,
    target_groups: str | tuple[str, str] | None = None,
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Select the cells and genes of a screen, normalise, label, and record each step.

    Counts (whole numbers) become :math:`x_{cg} = \ln(1 + s\, n_{cg} / n_c)`, with the total counts
    ``n_c`` of the cell and their median ``s``; log-normalised values do not change. Cells and genes
    are dropped in place; nothing changes on error. The next step is :func:`nextpert.tl.learn_dag`;
    :doc:`/guides/prepare_a_screen` has examples.

    Parameters
    ----------
    adata
        Cells x genes, counts or log-normalised expression, in ``X`` or the layer declared by
        :func:`setup_screen`. A backed file needs ``copy=True``.
    perturbation_key, control
        Column of ``adata.obs`` with the label of every cell (its targets, joined), and the label
        or labels of control cells. Cells without a label, or with ``multi``, ``NA`` or the like,
        are dropped. Without this column, targets follow from the names of the guides in
        ``guide_key``, as in :func:`assign_guides`.
    panel
        Genes: a list; ``"zhang2023"``, the paper's 36; ``None`` (default), every gene seen in a
        tenth of the control cells; or a :class:`nextpert.Target`, these and the genes that it
        names, such as a signature. Genes that are constant among control cells are left out.
    min_cells
        Minimum number of cells per perturbation.
    combinations
        Whether to ``"drop"`` (default) or ``"keep"`` cells with several targets.
    separator
        Text between the targets of a label, ``"+"`` if never declared.
    depth_key
        Column of total counts ``n_c``, needed if ``adata`` has few of the sequenced genes.
    guide_key, batch_key, gene_symbols
        As for :func:`setup_screen`, which declares further roles.
    target_groups
        Unlabelled cells to keep, as target states such as a cell type: ``(obs key, value)``, or a
        column of ``obs`` for all its groups. They are neither candidates nor controls, and the
        panel also has genes seen in a tenth of these cells.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. Fields written:

        - ``X``, ``layers["counts"]`` (array, ``(n_cells, n_vars)``): log-normalised expression, and
          the counts, if given. Sparse ones share ``indices``: copy before you remove entries.
        - ``obs["perturbation"]`` (labels): ``"control"``, or the targets, sorted and joined.
        - ``obs["n_targets"]`` (number): number of targets.
        - ``var["control_mean"]``, ``var["control_sd"]``, ``var["seen_in_control"]`` (numbers):
          mean, standard deviation and share of non-zero values in control cells.
        - ``var["module"]`` (labels): with ``panel="zhang2023"``.
        - ``uns["screen"]`` (mapping): as of :func:`setup_screen`.
        - ``obs["guides"]``, ``uns["guides"]``: if guides told the targets, as of
          :func:`assign_guides`.
        - ``uns["preprocessing"]`` (mapping): the tables ``steps`` and ``perturbations``
          (:doc:`/model/stored_results`), ``n_control_cells`` (number) and ``params`` (mapping).

    Raises
    ------
    ValueError
        If a column, gene, layer or option is unknown, no control cell or gene is left, the names of
        guides are not clear, or values are neither counts nor log-normalised.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # 21,977 cells, 14 CRISPRi targets
    >>> npt.pp.perturbation_screen(adata, control="non-targeting", guide_key="guides")
    >>> adata.uns["preprocessing"]["steps"].head(3)
            step  n_cells_kept  n_cells_dropped                         why
    0  all cells         21977                0
    1   assigned         19060             2917  multi 2255, unassigned 662
    2      depth         19060                0
    """
    join.check_in_place(adata, copy=copy)
    roles = read_roles(
        adata,
        guide_key=guide_key,
        batch_key=batch_key,
        perturbation_key=perturbation_key,
        separator=separator,
        gene_symbols=gene_symbols,
    )
    if "feature_types" in adata.var:
        kinds = adata.var["feature_types"].astype(str).value_counts()
        other_kinds = [f"{kind} ({n})" for kind, n in kinds.items() if kind != _GENES]
        if _GENES in kinds and other_kinds:
            message = (
                f"adata.var['feature_types'] has features that are not genes: "
                f"{_adata.list_names(other_kinds)}. Pass only the genes: "
                f"adata[:, adata.var['feature_types'] == {_GENES!r}].copy()."
            )
            raise ValueError(message)
    choices = Choices(panel, min_cells, combinations, roles.layer, depth_key=depth_key)
    guides = None
    if roles.guide_key and roles.perturbation_key == LABELS and LABELS not in adata.obs:
        named = _controls(control)
        named_guides = None if named == [CONTROL] else named
        inputs = GuideInput(roles.guide_key, control_guides=named_guides)
        guides = read_guides(adata, inputs, 1, None)
    cells = _read_targets(adata, control, roles) if guides is None else _targets_of(guides)
    if target_groups is not None:
        cells = _with_groups(adata, cells, target_groups)
    book = Bookkeeping(adata.n_obs)
    names = cells.table["name"].replace("", "empty label").to_numpy(object)[cells.codes]
    book.keep("assigned", ~cells.have("unassigned"), "", names)
    new, warnings = prepare(adata, cells, book, choices, roles)
    steps = new.uns[BOOKS]["steps"].set_index("step")["n_cells_dropped"]
    if n := int(steps.get("combinations", 0)):
        logger.warning(
            "%d cells with several targets are dropped: pass combinations='keep' to use them. They "
            "show how effects combine, which predictions of pairs need.",
            n,
        )
    new.uns[BOOKS]["params"]["perturbation_key"] = perturbation_key
    if guides is not None:
        columns = label_columns(guides, CONTROL, "combine", roles.separator, ",")
        new.obs[GUIDES] = columns[GUIDES][book.kept]
        new.uns[GUIDES] = guides.table
        new.uns[SCREEN] = with_parts(new.uns[SCREEN], guide_key=GUIDES)
        log_guides(guides.table, gene_names(adata), tally(columns[LABELS]))
    return finish(adata, new, warnings, copy=copy)


def _read_targets(adata: ad.AnnData, control: str | Sequence[str], roles: Roles) -> CellTargets:
    labels = _adata.read_labels(adata, roles.perturbation_key)
    controls = _controls(control)
    if not controls:
        message = "control is empty: pass the label of the control cells."
        raise ValueError(message)
    try:
        for name in controls:
            _adata.require_control(labels, name)
    except ValueError as error:
        raise ValueError(f"{error}{_guide_advice(adata, labels)}") from None
    if parted := [name for name in labels.names if is_parted(name, roles.separator)]:
        message = (
            f"Labels with {roles.separator!r} that joins no two targets, such as the strand of a "
            f"guide: {_adata.list_names(parted, limit=3)}. Call pp.assign_guides(adata, "
            f"guides={labels.key!r}) first, or pass another separator."
        )
        raise ValueError(message)
    naming = Naming(set(_adata.measured_genes(adata, roles.gene_symbols)), roles.separator)
    rows = []
    for name in labels.names:
        inside, outside = naming.targets(name)
        targets = tuple(part for part in [*inside, *outside] if part not in controls)
        is_unknown = names_no_perturbation(name) or not targets
        role = "control" if name in controls else "unassigned" if is_unknown else "perturbed"
        rows.append((name, targets, role))
    rows.append(("no label", (), "unassigned"))
    codes = np.where(labels.codes < 0, len(labels.names), labels.codes)
    return CellTargets(codes, pd.DataFrame(rows, columns=["name", "targets", "role"]))


def _with_groups(
    adata: ad.AnnData, cells: CellTargets, groups: str | tuple[str, str]
) -> CellTargets:
    """Return the role of every cell, with unlabelled cells of some groups as target states."""
    key, *value = (groups,) if isinstance(groups, str) else map(str, groups)
    labels = _adata.read_labels(adata, key, argument="target_groups")
    labels.require(value, "target_groups")
    is_free = cells.have("unassigned") & ~cells.have_several()
    is_member = is_free & (labels.groups(value) >= 0 if value else labels.codes >= 0)
    if not is_member.any():
        message = (
            f"target_groups is {groups!r}, but all cells of it have a label. Groups of labelled "
            f"cells need no target_groups: name them in the target."
        )
        raise ValueError(message)
    codes = np.where(is_member, len(cells.table), cells.codes)
    row = pd.DataFrame([("target group", (), TARGET)], columns=["name", "targets", "role"])
    return CellTargets(codes, pd.concat([cells.table[[*row]], row], ignore_index=True))


def _controls(control: str | Sequence[str]) -> list[Any]:
    listed = hasattr(control, "__iter__") and not isinstance(control, str)
    return list(control) if listed else [control]


def _guide_advice(adata: ad.AnnData, labels: LabelTable) -> str:
    """Return what to call if the labels are names of guides, or nothing."""
    mark = usual_separator(labels.names)
    lists = [name.split(mark) if mark else [name] for name in labels.names]
    names = sorted({part.strip() for label_parts in lists for part in label_parts} - {""})
    reading = read_names(names, Genes.of(gene_names(adata)))
    targets = {reading.target_of(name) for name in reading.found}
    if reading.explained < MIN_EXPLAINED or len(targets) == len(reading.found):
        return ""
    return (
        f" The labels look like guides named {reading.scheme}: call pp.assign_guides(adata, "
        f"guides={labels.key!r}), and then pp.perturbation_screen(adata, guide_key='guides')."
    )


def _targets_of(guides: CellGuides) -> CellTargets:
    """Return the targets and the role of every cell, from its guides."""
    is_control = np.where(guides.sets["n_guides"] > 0, "control", "unassigned")
    role = np.where(guides.sets["kind"] == TARGETING, "perturbed", is_control)
    name = guides.sets["name"].replace("", "no guide")
    return CellTargets(guides.codes, guides.sets.assign(name=name, role=role))
