"""``pp.setup_screen``: the roles of columns, said once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nextpert import _adata
from nextpert._adata.roles import KEY, read_roles
from nextpert._adata.screen import describe, read_environments

if TYPE_CHECKING:
    from collections.abc import Iterable

    import anndata as ad

logger = logging.getLogger(__name__)


def setup_screen(
    adata: ad.AnnData,
    *,
    perturbation_key: str = "perturbation",
    control: str = "control",
    guide_key: str | None = None,
    batch_key: str | Iterable[str] | None = None,
    covariates: str | Iterable[str] | None = None,
    layer: str | None = None,
    copy: bool = False,
) -> ad.AnnData | None:
    """Say once which column of ``obs`` plays which part; every later call takes it from here.

    Keywords of a later call override what is stored. Calling it again says everything anew.

    Parameters
    ----------
    adata
        Cells x genes.
    perturbation_key
        Column of ``adata.obs`` with the perturbation of every cell; cells without take no part.
    control
        Label of the unperturbed cells.
    guide_key
        Column with the guide of every cell. Guides of one perturbation are its repeats: what they
        differ by is noise, however many cells they have.
    batch_key
        Column, or columns, with batches, replicates or donors: fixed effects, taken off
        everything. They may be crossed with perturbations and one another.
    covariates
        Columns of what else is known of the cells and may act on genes: numbers (depth, cell
        cycle scores) or categories (conditions, doses), the first of which is the reference.
    layer
        Layer with the log-normalised expression; ``None`` stands for ``adata.X``.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. ``uns["screen"]`` holds the roles given, by the names of these
        arguments (``perturbation_key``, ``control``, ``guide_key``, ``batch_key``, ...).

    Raises
    ------
    ValueError
        If a column or layer is absent, a column has two roles, no cell is a control, or a batch or
        covariate is missing for a labelled cell. Nothing is written then.
    TypeError
        If a name is not a string.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_genes=5, n_control=50, n_perturbed=20, rng=0)
    >>> npt.pp.setup_screen(adata)
    >>> adata.uns["screen"]["perturbation_key"], adata.uns["screen"]["control"]
    ('perturbation', 'control')
    """
    _adata.check_arguments(locals())
    _adata.check_writable(adata, copy=copy)
    roles = read_roles(
        adata, stored=False, perturbation_key=perturbation_key, control=control,
        guide_key=guide_key, batch_key=batch_key, covariates=covariates, layer=layer,
    )  # fmt: skip
    _adata.require_layer(adata, layer)
    environments = read_environments(adata, roles)
    logger.info("%s.", describe(environments))
    return _adata.write_results(adata, uns={KEY: roles.stored()}, copy=copy)
