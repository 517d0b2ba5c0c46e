"""``pp.perturbation_screen``: select, normalise and label the cells of a screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert import _adata
from nextpert._adata import join, read_roles
from nextpert._adata.arguments import at_least, checked, one_of, options
from nextpert._adata.labels import names_no_perturbation
from nextpert._adata.roles import KEY
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

    The result is ready for :func:`nextpert.tl.learn_dag`, :func:`nextpert.tl.fit_dag_blr` and
    :func:`nextpert.tl.design_interventions`. Counts are transformed to

    .. math:: x_{cg} = \ln(1 + s\, n_{cg} / n_c),

    with the ``target_sum`` ``s`` and the total counts ``n_c`` of the cell. Every step logs and
    records how many cells it kept and dropped, and why. Cells and genes are dropped in place, as
    by :func:`scanpy.pp.filter_cells`. Nothing changes on error.

    Parameters
    ----------
    adata
        Cells x genes, counts or log-normalised expression; dense or sparse; a view becomes
        actual. Backed files with ``copy=True``.
    perturbation_key
        Column of ``adata.obs`` with the label of every cell: its targets, joined by the
        separator.
    control
        Label, or labels, of the control cells.
    panel
        Genes of the analysis: a list; ``"zhang2023"``, the paper's 36 genes; or ``None``
        (default), every gene seen in a tenth of the control cells. Genes that are constant
        among the control cells are left out.
    gene_symbols
        Column of ``adata.var`` with the names of genes that labels and ``panel`` use, where
        ``adata.var_names`` holds others (Ensembl ids); later calls use it as well.
    min_cells
        Minimum number of cells of a perturbation; perturbations with fewer are left out.
    combinations
        Cells with several targets: ``"drop"`` (default); ``"keep"``; or ``"panel_only"``, which
        names them by their targets in the panel alone: ``A+X`` with ``X`` outside the panel
        becomes ``A``, and ``obs["other_targets"]`` says ``X``.
    label_options
        Rarely needed options of reading labels, a mapping with some of:

        - ``"separator"`` (``"+"``): what joins the targets of a label.
        - ``"unassigned"``: further labels of cells whose perturbation is not known. Missing and
          empty labels count among them, as do ``unassigned``, ``unknown``, ``ambiguous``,
          ``negative``, ``multi``, ``multiple``, ``multiplet``, ``doublet``, ``no guide``, ``NA``
          and the like, in upper or lower case, unless ``control`` names them.
        - ``"aliases"``: names of targets or panel genes that go by another name in
          ``adata.var_names``, as ``{name: gene}``. A few are known (``NUP50-AS`` for
          ``NUP50-AS1``); all that were used are stored.
        - ``"outside"``: cells whose label names a target that is outside the panel or not measured:
          ``"keep"`` (default), for their shift is learned from the cells; or ``"drop"``.
    count_options
        Rarely needed options of choosing genes and of normalising, a mapping with some of:

        - ``"min_seen"`` (0.1): share of the control cells in which a gene is seen, for
          ``panel=None``.
        - ``"normalise"``: ``"auto"`` (default) takes whole numbers for counts and keeps other
          values as they are; ``"counts"``; or ``"none"``.
        - ``"target_sum"``: counts that a cell is scaled to: ``"median"`` (default), the median of
          the counts ``n_c`` of the cells kept, so that a typical cell stays as it is; or a number.
          One far above the cells' own counts blows them up: of 25 counts scaled to 10,000, the
          first adds 6.0 and the second 0.7, so that seen or not is all.
        - ``"depth_key"``: column of ``adata.obs`` with all counts ``n_c`` of a cell, over the whole
          transcriptome; needed where ``adata`` holds a few genes of many, whose sum moves with
          every one of them. By default the sum over all genes of the matrix.
        - ``"min_depth"`` (0): fewest counts of a cell; cells without any are dropped in any case.
        - ``"check_scale"`` (``True``): whether to raise an error if values that are no counts
          cannot be log-normalised, here and in later calls.
    layer
        Layer to read; ``None`` stands for ``adata.X``.
    guide_key, batch_key, covariates
        Further columns of ``adata.obs`` and their roles, as of
        :func:`nextpert.pp.setup_screen`, which is called with them.
    key_added
        Name of the books in ``adata.uns``.
    copy
        Whether to return a copy instead of changing ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. It has the cells and genes kept, genes in the order of the panel.
        Fields written:

        - ``X`` (array, ``(n_cells, n_vars)``): log-normalised expression.
        - ``layers["counts"]`` (array, ``(n_cells, n_vars)``): the counts, if X had them.
        - ``obs["perturbation"]`` (labels): ``"control"``, or the genes targeted, sorted and joined.
        - ``obs["n_targets"]`` (number): number of all targets.
        - ``obs["other_targets"]`` (labels): the targets that the label does not name.
        - ``var["control_mean"]``, ``var["control_sd"]``, ``var["seen_in_control"]`` (numbers): mean
          and standard deviation of every gene in control cells, and the fraction of these cells in
          which it was seen.
        - ``var["module"]``, ``var["program"]`` (labels): with ``panel="zhang2023"``, those of the
          study (missing for genes without one).
        - ``uns["screen"]`` (mapping): the roles of columns (``perturbation_key``, ``control`` and
          others) and the scale of the ``values``, as :func:`nextpert.pp.setup_screen` writes them.

        Fields of ``uns["preprocessing"]``:

        - ``steps`` (table): what each filter left: ``step``, ``n_cells_kept``,
          ``n_cells_dropped``, ``why``.
        - ``genes`` (table): the same of genes: ``step``, ``n_genes_kept``, ``n_genes_dropped``,
          ``why``.
        - ``perturbations`` (table): ``perturbation``, ``target_genes``, ``n_cells``,
          ``n_cells_found``, ``n_cells_with_other_targets``, ``kept``, ``reason``,
          ``hardly_expressed``.
        - ``aliases`` (mapping): other names of genes, if any were used.
        - ``n_control_cells`` (number): control cells kept.
        - ``params`` (mapping): the options of the call.

    Warns
    -----
    UserWarning
        If control cells hardly express a target, so that the shift of its knockout is near 0; if
        genes of a panel are left out because they are constant among the controls; if
        ``target_sum`` is far above the counts of the cells; if perturbations are left out because
        their targets are not measured, unless a panel is given; if unmeasured targets look like
        names of guides or gene ids; if the values may not be log-normalised; and if no perturbed
        cell is left.

    Raises
    ------
    ValueError
        If a column, gene, layer or option is unknown or out of range, no control cell is left,
        no gene is detected, or varies, in them, or the matrix has NaN, infinite values, values
        that are not counts although counts are expected, or values that cannot be
        log-normalised.

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
    >>> adata.uns["preprocessing"]["steps"][["step", "n_cells_kept", "why"]].iloc[:2]
            step  n_cells_kept       why
    0  all cells           100
    1   assigned            80  multi 20
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
    found = _read_targets(adata, perturbation_key, control, asked)
    book = Bookkeeping(adata.n_obs)
    names = np.array([name or "empty label" for name in found.names], dtype=object)
    book.keep("assigned", ~found.cells("unassigned"), "", names[found.codes])
    prepared = prepare(adata, found, book, asked)
    prepared.tables["params"]["perturbation_key"] = perturbation_key
    tables = {key_added: prepared.tables, KEY: prepared.record(roles)}
    return finish(adata, prepared, tables, copy=copy)


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
    naming = _adata.Naming(measured, asked.separator)
    targets: list[tuple[str, ...]] = []
    roles = []
    for name in labels.names:
        inside, outside = naming.targets(name)
        parts = [part for part in [*inside, *outside] if part not in controls]
        targets.append(tuple(parts))
        is_control = name in controls
        is_unknown = name in unknown or names_no_perturbation(name) or not parts
        roles.append("control" if is_control else "unassigned" if is_unknown else "perturbed")
    codes = np.where(labels.codes < 0, len(labels.names), labels.codes)
    return CellTargets(codes, [*labels.names, "no label"], [*targets, ()], [*roles, "unassigned"])
