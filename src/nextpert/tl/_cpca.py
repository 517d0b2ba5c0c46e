"""Contrastive PCA: the variation of perturbed cells beyond that of controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert import _adata
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert._adata.labels import say_left_out
from nextpert._adata.table import require_cells
from nextpert.core._blas import one_thread
from nextpert.core._checks import as_rng
from nextpert.study.contrastive import contrast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData


@checked(alpha=(one_of("auto"), at_least(0)))
def cpca(
    adata: AnnData,
    *,
    genes: Iterable[str] | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    groups: Sequence[str] | None = None,
    n_components: int = 2,
    alpha: float | str = "auto",
    layer: str | None = None,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "cpca",
    copy: bool = False,
) -> AnnData | None:
    r"""Run contrastive PCA with controls as background and perturbed cells as foreground.

    The components are the leading eigenvectors of the difference of two covariances,

    .. math:: C_{\text{perturbed}} - \alpha\, C_{\text{control}}

    (Abid et al. 2018, doi:10.1038/s41467-018-04608-8). They show the variation that perturbations
    add to that of control cells. :func:`nextpert.pl.cpca_density` draws the first two, as in
    Fig. 6a of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0).

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression, dense or sparse.
    genes
        The genes to use; by default all.
    perturbation_key, control, layer
        Column of labels, label of the controls, and layer; by default as declared with
        :func:`nextpert.pp.setup_screen`.
    groups
        Labels of the foreground; by default all perturbations, without cells that have no label or
        one such as ``"unassigned"``.
    n_components
        Number of components.
    alpha
        Weight of the background, 0 (plain PCA of the perturbed cells) or more. ``"auto"`` chooses
        among candidates from the search of Abid et al. by how well the components separate groups
        and controls (Hotelling-Lawley trace: variance between over variance within).
    rng
        Seed or generator of the search for ``alpha``.
    key_added
        Name of the results; if changed, loadings are in ``varm[f"{key_added}_cPCs"]``.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. Fields written:

        - ``obsm["X_cpca"]`` (array, ``(n_cells, n_components)``): scores of all cells; the mean of
          control cells is at the origin.
        - ``varm["cPCs"]`` (array, ``(n_vars, n_components)``): loadings, zero outside ``genes``.
          The largest entry of each component is positive.

        Fields of ``uns["cpca"]``:

        - ``alpha`` (number): weight of the background.
        - ``alphas``, ``separation`` (arrays, ``(n_alphas,)``): the candidates, and their scores.
        - ``eigenvalues`` (array, ``(n_components,)``): eigenvalues of the components.
        - ``genes``, ``groups`` (names): the genes used, and the labels of the foreground.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If there are no control or no perturbed cells, fewer genes than components, an unknown
        label, an absent or duplicated gene, a NaN or infinite value, or a negative ``alpha``.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=500, n_perturbed=50)
    >>> npt.tl.cpca(adata, alpha=1.0)
    >>> adata.obsm["X_cpca"].shape, adata.varm["cPCs"].shape
    ((1700, 2), (36, 2))
    """
    require_cells(adata, "cpca")
    roles = _adata.read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer
    )
    _adata.require_layer(adata, roles.layer)
    names, columns = _adata.resolve_panel(adata, genes, least=max(2, n_components))
    if groups is not None:
        groups = [groups] if isinstance(groups, str) else _adata.in_order(groups)
    labels = _adata.read_perturbations(adata, roles, named=groups)
    _adata.require_control(labels, roles.control)
    if groups is None:
        say_left_out(labels.left_out, roles.perturbation_key)
    foreground = labels.perturbations(groups, "groups")
    if not foreground:
        message = (
            f"No perturbed cells: the only label in adata.obs[{labels.key!r}] is "
            f"{roles.control!r}. Add cells with at least one other label."
        )
        raise ValueError(message)
    codes = labels.groups([roles.control, *foreground])
    _adata.check_scale(adata, columns, np.flatnonzero(codes >= 0), roles, only_warn=True)
    grouping = codes, len(foreground) + 1
    (moments,), batches = _adata.read_groupings(adata, columns, [grouping], roles)
    for kind, sets in (("control", moments[:1]), ("perturbed", moments[1:])):
        if sum(group.n for group in sets) < 2:
            message = f"There is only one {kind} cell: add cells, a covariance needs at least two."
            raise ValueError(message)
    with one_thread():
        result, loadings = contrast(moments, n_components, alpha, as_rng(rng))
    scores = np.zeros((adata.n_obs, n_components))
    rows = np.arange(adata.n_obs)
    for cells, block in _adata.read_blocks(adata, columns, rows, layer=roles.layer):
        with one_thread():
            scores[cells] = block @ loadings
            if batches is not None:
                scores[cells] -= batches.of_cells(cells) @ loadings
    scores -= moments[0].mean @ loadings
    result |= {
        "genes": _adata.strings(names),
        **_adata.origin_of_cells(adata, roles, columns),
        "groups": _adata.strings(foreground),
        "params": {
            **roles.stored(),
            "alpha": alpha if isinstance(alpha, str) else float(alpha),
            "n_components": int(n_components),
            "rng": _adata.seed_of(rng),
        },
    }
    all_loadings = np.zeros((adata.n_vars, n_components))
    all_loadings[columns] = loadings
    in_varm = "cPCs" if key_added == "cpca" else f"{key_added}_cPCs"
    return _adata.write_results(
        adata,
        uns={key_added: result},
        obsm={f"X_{key_added}": scores},
        varm={in_varm: all_loadings},
        copy=copy,
    )
