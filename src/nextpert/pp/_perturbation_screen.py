"""``pp.perturbation_screen``: select, normalise and label the cells of a screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata import join, read_roles
from nextpert._adata.arguments import at_least, checked, one_of, options
from nextpert._adata.labels import names_no_perturbation
from nextpert.core.fit.naming import Naming
from nextpert.pp._steps.bookkeeping import (
    COMBINATIONS,
    OUTSIDE,
    Bookkeeping,
    CountOptions,
    ScreenOptions,
)
from nextpert.pp._steps.guides import CellTargets
from nextpert.pp._steps.screen import finish, prepare

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import anndata as ad


@options(outside=one_of(*OUTSIDE))
@dataclass(frozen=True)
class _LabelOptions:
    """``label_options``: each is documented there."""

    separator: str = "+"
    unassigned: Sequence[str] = ()
    aliases: Mapping[str, str] | None = None
    outside: str = "keep"


@checked(
    min_cells=at_least(0), combinations=one_of(*COMBINATIONS), label_options=_LabelOptions,
    count_options=CountOptions,
)  # fmt: skip
def perturbation_screen(
    adata: ad.AnnData,
    perturbation_key: str = "perturbation",
    control: str | Sequence[str] = "control",
    *,
    panel: str | Iterable[str] | None = None,
    gene_symbols: str | None = None,
    min_cells: int = 20,
    combinations: str = "drop",
    label_options: Mapping[str, Any] | None = None,
    count_options: Mapping[str, Any] | None = None,
    layer: str | None = None,
    guide_key: str | None = None,
    batch_key: str | Iterable[str] | None = None,
    covariates: str | Iterable[str] | None = None,
    key_added: str = "preprocessing",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Select the cells and genes of a screen, normalise and label them, and record each step.

    For counts with a column of labels. Counts become :math:`x_{cg} = \ln(1 + s\, n_{cg} / n_c)`,
    with the ``target_sum`` ``s`` and the total counts ``n_c`` of the cell. Cells and genes are
    dropped in place, as by :func:`scanpy.pp.filter_cells`; nothing changes on error. Next:
    :func:`nextpert.tl.learn_dag` and :func:`nextpert.tl.fit_dag_blr`. Further options, case by
    case: :doc:`/guides/prepare_a_screen`.

    Parameters
    ----------
    adata
        Cells x genes, counts or log-normalised expression. Backed files with ``copy=True``.
    perturbation_key, control
        Column of ``adata.obs`` with the label of every cell (its targets, joined), and the label,
        or labels, of the control cells.
    panel
        Genes: a list; ``"zhang2023"``, the paper's 36; or ``None`` (default), every gene seen in a
        tenth of the control cells. Genes that are constant among these are left out.
    gene_symbols
        Column of ``adata.var`` with the names of genes that labels and ``panel`` use.
    min_cells
        Fewest cells of a perturbation.
    combinations
        Cells with several targets: ``"drop"`` (default), ``"keep"``, or ``"panel_only"``: named by
        their targets in the panel, others in ``obs["other_targets"]``.
    label_options
        Any of ``"separator"`` (``"+"``) of targets; ``"unassigned"``: labels that are no
        perturbation, beside those such as ``multiplet`` and ``NA``; ``"aliases"``:
        ``{name: gene}``; ``"outside"``: whether to ``"keep"`` (default) or ``"drop"`` cells with
        targets outside the panel.
    count_options
        Any of ``"min_seen"`` (0.1): share of control cells in which a gene is seen;
        ``"normalise"``: ``"auto"`` (default: whole numbers are counts, other values stay as they
        are), ``"counts"`` or ``"none"``; ``"target_sum"``: ``"median"`` (default) of ``n_c``, or a
        number; ``"depth_key"``: column of ``n_c``, needed where ``adata`` holds few genes;
        ``"min_depth"`` (0): fewest counts of a cell; ``"check_scale"`` (``True``): whether values
        that cannot be log-normalised are an error.
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    guide_key, batch_key, covariates
        Further columns of ``adata.obs`` and their roles, as of :func:`nextpert.pp.setup_screen`.
    key_added, copy
        Name of the books in ``adata.uns``, and whether to return a copy.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Fields written:

        - ``X`` (array, ``(n_cells, n_vars)``): log-normalised expression.
        - ``layers["counts"]`` (array, ``(n_cells, n_vars)``): the counts, if X had them.
        - ``obs["perturbation"]`` (labels): ``"control"``, or the targets, sorted and joined.
        - ``obs["n_targets"]`` (number): number of all targets.
        - ``obs["other_targets"]`` (labels): the targets that the label does not name.
        - ``var["control_mean"]``, ``var["control_sd"]``, ``var["seen_in_control"]`` (numbers): of
          every gene in control cells.
        - ``var["module"]``, ``var["program"]`` (labels): with ``panel="zhang2023"``.
        - ``uns["screen"]`` (mapping): roles (``perturbation_key``, ``control``, ...) and the scale
          of the ``values``, as of :func:`nextpert.pp.setup_screen`.
        - ``uns["preprocessing"]`` (mapping): the tables ``steps`` and ``genes`` (what each step
          left, and why), ``perturbations`` (cells of each, and why it is left out) and ``aliases``
          (names used); ``n_control_cells`` (number) and ``params`` (mapping).

    Raises
    ------
    ValueError
        If a column, gene, layer or option is unknown, no control cell or gene is left, or values
        are neither counts nor log-normalised.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd, nextpert as npt
    >>> counts = np.random.default_rng(0).poisson(5, (100, 2)).astype(np.float32)
    >>> obs = pd.DataFrame({"target": ["NT"] * 50 + ["MYC"] * 30 + ["multi"] * 20})
    >>> adata = ad.AnnData(counts, obs.set_index("c" + obs.index.astype(str)))
    >>> adata.var_names = ["MYC", "JUN"]
    >>> npt.pp.perturbation_screen(adata, "target", "NT")
    >>> adata.obs["perturbation"].value_counts().to_dict()
    {'control': 50, 'MYC': 30}
    """
    join.check_in_place(adata, copy=copy)
    roles = read_roles(
        adata, guide_key=guide_key, batch_key=batch_key, covariates=covariates,
        perturbation_key=perturbation_key, gene_symbols=gene_symbols,
        separator=(label_options or {}).get("separator", "+"),
    )  # fmt: skip
    labels = _LabelOptions(**label_options or {})
    asked = ScreenOptions(
        panel, min_cells, combinations, labels, CountOptions(**count_options or {}), layer,
        gene_symbols=roles.gene_symbols, separator=labels.separator,
    )  # fmt: skip
    cells = _read_targets(adata, perturbation_key, control, asked)
    book = Bookkeeping(adata.n_obs)
    names = cells.table["name"].replace("", "empty label").to_numpy(object)[cells.codes]
    book.keep("assigned", ~cells.have("unassigned"), "", names)
    new, tables, warnings = prepare(adata, cells, book, asked, roles)
    tables["params"]["perturbation_key"] = perturbation_key
    new.uns[key_added] = tables
    return finish(adata, new, warnings, copy=copy)


def _read_targets(
    adata: ad.AnnData,
    key: str,
    control: str | Sequence[str],
    asked: ScreenOptions,
) -> CellTargets:
    labels = _adata.read_labels(adata, key)
    listed = hasattr(control, "__iter__") and not isinstance(control, str)
    controls: list[Any] = list(control) if listed else [control]
    if not controls:
        message = "control names no label: give that of the control cells."
        raise ValueError(message)
    for name in controls:
        _adata.require_control(labels, name)
    unassigned = asked.labels.unassigned
    unknown = {unassigned} if isinstance(unassigned, str) else {str(name) for name in unassigned}
    measured = set(_adata.measured_genes(adata, asked.gene_symbols))
    naming = Naming(measured, asked.separator)
    rows = []
    for name in labels.names:
        inside, outside = naming.targets(name)
        targets = tuple(part for part in [*inside, *outside] if part not in controls)
        is_unknown = name in unknown or names_no_perturbation(name) or not targets
        role = "control" if name in controls else "unassigned" if is_unknown else "perturbed"
        rows.append((name, targets, role))
    rows.append(("no label", (), "unassigned"))
    codes = np.where(labels.codes < 0, len(labels.names), labels.codes)
    return CellTargets(codes, pd.DataFrame(rows, columns=["name", "targets", "role"]))
