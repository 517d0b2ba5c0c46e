"""``pp.setup_screen``: the roles of columns, declared once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from nextpert import _adata
from nextpert._adata.arguments import ANY_TEXT, checked
from nextpert._adata.labels import left_out_table, say_left_out
from nextpert._adata.roles import KEPT, KEY, Kept, renewed_roles, screen_record
from nextpert._adata.scale import overruled_by, read_scale, report_scale
from nextpert._adata.screen import describe, read_environments
from nextpert._warn import warn

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad

logger = logging.getLogger(__name__)


@checked(separator=ANY_TEXT)
def setup_screen(
    adata: ad.AnnData,
    *,
    perturbation_key: str | Kept | None = KEPT,
    control: str | Kept | None = KEPT,
    guide_key: str | Kept | None = KEPT,
    batch_key: str | Iterable[str] | Kept | None = KEPT,
    condition_key: str | Kept | None = KEPT,
    covariates: str | Iterable[str] | Kept | None = KEPT,
    layer: str | Kept | None = KEPT,
    separator: str | Kept | None = KEPT,
    gene_symbols: str | Kept | None = KEPT,
    check_scale: bool | Kept = KEPT,
    copy: bool = False,
) -> ad.AnnData | None:
    """Declare which column of ``obs`` has which role, for all later calls, and check the values.

    With log-normalised expression, this is the first call. Later calls change only the roles that
    are given; ``None`` clears a role. A sample of 1,000 labelled cells shows the scale of the
    values; counts, scaled counts and logarithms of logarithms raise an error
    (:doc:`/guides/prepare_a_screen`).

    Parameters
    ----------
    adata
        Cells x genes.
    perturbation_key, control
        Column with the perturbation of every cell, and the label of unperturbed cells; by default
        ``"perturbation"`` and ``"control"``. Cells without a label, or with one such as
        ``unassigned``, ``multiplet`` or ``NA``, are not used.
    guide_key
        Column with the guide of every cell. Guides of the same perturbation are replicates: their
        differences are noise, however many cells they have.
    batch_key
        Column, or columns, with batches, replicates or donors. They are fixed effects, estimated
        jointly with the perturbations, and may be crossed with perturbations and one another.
    condition_key
        Column with conditions, such as cell lines or treatments, in which perturbations may act
        differently. Each condition has its own controls. For all results but the effects, it is
        treated as a ``batch_key``.
    covariates
        Columns of other variables that affect expression: numbers (depth) or categories (doses).
    layer
        Layer with the log-normalised expression; ``None`` stands for ``adata.X``.
    separator
        Text between the targets of a label, ``"+"`` if never given. ``""`` does not split labels.
    gene_symbols
        Column of ``adata.var`` with the gene names that labels use, if not ``var_names``.
    check_scale
        Whether to raise an error, here and in later calls, if the values cannot be log-normalised
        expression. ``True`` if never given for the layer.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. Writes ``uns["screen"]`` with:

        - ``perturbation_key``, ``control`` (text): the column of labels, and the label of controls.
        - ``guide_key``, ``batch_key`` (names): the columns given; other roles are stored likewise.
        - ``values`` (mapping): the scale of the layer: ``scale`` in words, ``minimum`` and
          ``maximum`` of the ``n_cells`` sampled, and whether it was ``checked``.
        - ``left_out`` (table): the labels that name no perturbation, if any:
          ``perturbation``, ``n_cells``, ``reason``.

    Raises
    ------
    ValueError
        If a column or layer is absent, a column has two roles, no cell is a control, a batch or
        covariate is missing for a labelled cell, or the values cannot be log-normalised expression.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=5, n_control=50, n_perturbed=20, rng=0)
    >>> npt.pp.setup_screen(adata)
    >>> adata.uns["screen"]["perturbation_key"], adata.uns["screen"]["control"]
    ('perturbation', 'control')
    """
    roles = renewed_roles(
        adata,
        perturbation_key=perturbation_key,
        control=control,
        guide_key=guide_key,
        batch_key=batch_key,
        condition_key=condition_key,
        covariates=covariates,
        layer=layer,
        separator=separator,
        gene_symbols=gene_symbols,
    )
    _adata.measured_genes(adata, roles.gene_symbols or "")
    _adata.require_layer(adata, roles.layer)
    environments = read_environments(adata, roles)
    if roles.condition_key is not None:
        table = environments.table
        perturbed = table[roles.perturbation_key] != roles.control
        if table.loc[perturbed, roles.condition_key].nunique() < 2:
            warn(
                f"Fewer than two conditions of adata.obs[{roles.condition_key!r}] have perturbed "
                f"cells, so effects by condition cannot be estimated: pass condition_key=None."
            )
    cells = np.flatnonzero(environments.codes >= 0)
    scale = read_scale(adata, np.arange(adata.n_vars), cells, roles.layer)
    strict = roles.checks_scale if isinstance(check_scale, Kept) else bool(check_scale)
    if strict and scale.fault:
        raise ValueError(overruled_by(scale, "check_scale=False to pp.setup_screen"))
    logger.info("%s.", describe(environments))
    say_left_out(environments.left_out, roles.perturbation_key)
    report_scale(scale, roles.layer, checked=strict)
    left_out = left_out_table(environments.left_out)
    stored = screen_record(roles, scale.stored(checked=strict), left_out)
    return _adata.write_results(adata, uns={KEY: stored}, copy=copy)
