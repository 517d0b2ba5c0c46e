"""``pp.perturbation_screen``: select, normalise and label the cells of a screen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata import join, read_roles
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert._adata.labels import names_no_perturbation
from nextpert.core.fit.naming import Naming
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
    from collections.abc import Iterable, Sequence

    import anndata as ad

    from nextpert._adata.roles import Roles

logger = logging.getLogger(__name__)

_GENES = "Gene Expression"  # the features of Cell Ranger that are genes


@checked(min_cells=at_least(0), combinations=one_of(*COMBINATIONS))
def perturbation_screen(
    adata: ad.AnnData,
    perturbation_key: str = "perturbation",
    control: str | Sequence[str] = "control",
    *,
    panel: str | Iterable[str] | None = None,
    min_cells: int = 20,
    combinations: str = "drop",
    separator: str | None = None,
    depth_key: str | None = None,
    guide_key: str | None = None,
    batch_key: str | Iterable[str] | None = None,
    gene_symbols: str | None = None,
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
        are dropped.
    panel
        Genes: a list; ``"zhang2023"``, the paper's 36; or ``None`` (default), every gene seen in a
        tenth of the control cells. Genes that are constant among control cells are left out.
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
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. Fields written:

        - ``X``, ``layers["counts"]`` (array, ``(n_cells, n_vars)``): log-normalised expression, and
          the counts, if given.
        - ``obs["perturbation"]`` (labels): ``"control"``, or the targets, sorted and joined.
        - ``obs["n_targets"]`` (number): number of targets.
        - ``var["control_mean"]``, ``var["control_sd"]``, ``var["seen_in_control"]`` (numbers):
          mean, standard deviation and share of non-zero values in control cells.
        - ``var["module"]`` (labels): with ``panel="zhang2023"``.
        - ``uns["screen"]`` (mapping): as of :func:`setup_screen`.
        - ``uns["preprocessing"]`` (mapping): the tables ``steps`` and ``perturbations``
          (:doc:`/model/stored_results`), ``n_control_cells`` (number) and ``params`` (mapping).

    Raises
    ------
    ValueError
        If a column, gene, layer or option is unknown, no control cell or gene is left, or values
        are neither counts nor log-normalised.

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
        adata, guide_key=guide_key, batch_key=batch_key, perturbation_key=perturbation_key,
        separator=separator, gene_symbols=gene_symbols,
    )  # fmt: skip
    if "feature_types" in adata.var:
        kinds = adata.var["feature_types"].astype(str).value_counts()
        others = [f"{kind} ({n})" for kind, n in kinds.items() if kind != _GENES]
        if _GENES in kinds and others:
            message = (
                f"adata.var['feature_types'] has features that are not genes: "
                f"{_adata.list_names(others)}. Pass only the genes: "
                f"adata[:, adata.var['feature_types'] == {_GENES!r}].copy()."
            )
            raise ValueError(message)
    choices = Choices(panel, min_cells, combinations, roles.layer, depth_key=depth_key)
    cells = _read_targets(adata, control, roles)
    book = Bookkeeping(adata.n_obs)
    names = cells.table["name"].replace("", "empty label").to_numpy(object)[cells.codes]
    book.keep("assigned", ~cells.have("unassigned"), "", names)
    new, warnings = prepare(adata, cells, book, choices, roles)
    steps = new.uns[BOOKS]["steps"].set_index("step")["n_cells_dropped"]
    if n := int(steps.get("combinations", 0)):
        logger.warning(
            "%d cells with several targets are dropped: pass combinations='keep' to use them. They "
            "show how effects combine, which predictions of pairs need.", n,
        )  # fmt: skip
    new.uns[BOOKS]["params"]["perturbation_key"] = perturbation_key
    return finish(adata, new, warnings, copy=copy)


def _read_targets(adata: ad.AnnData, control: str | Sequence[str], roles: Roles) -> CellTargets:
    labels = _adata.read_labels(adata, roles.perturbation_key)
    listed = hasattr(control, "__iter__") and not isinstance(control, str)
    controls: list[Any] = list(control) if listed else [control]
    if not controls:
        message = "control is empty: pass the label of the control cells."
        raise ValueError(message)
    for name in controls:
        _adata.require_control(labels, name)
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
