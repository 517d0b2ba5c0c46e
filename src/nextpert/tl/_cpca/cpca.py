"""Contrastive PCA: variation of perturbed cells that controls do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata import (
    check_scale,
    in_order,
    list_names,
    read_blocks,
    read_groups,
    read_perturbations,
    read_roles,
    require_control,
    require_layer,
    resolve_panel,
    seed_of,
    strings,
    write_results,
)
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert._adata.labels import say_left_out
from nextpert._adata.table import require_cells
from nextpert._warn import warn
from nextpert.core._blas import one_thread
from nextpert.core._checks import as_rng

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert.core import Moments
    from nextpert.tl._cpca.contrastive import CovarianceCpca

    Array = NDArray[np.float64]

_MANY_GENES = 1000


@checked(alpha=(one_of("auto"), at_least(0)))
def cpca(
    adata: AnnData,
    *,
    genes: Iterable[str] | None = None,
    gene_symbols: str | None = None,
    perturbation_key: str | None = None,
    control: str | None = None,
    groups: Sequence[str] | None = None,
    n_components: int = 2,
    alpha: float | str = "auto",
    layer: str | None = None,
    standardize: bool = False,
    rng: int | np.random.Generator | None = 0,
    key_added: str = "cpca",
    copy: bool = False,
) -> AnnData | None:
    r"""Contrastive PCA with control cells as background and perturbed cells as foreground.

    The components are the leading eigenvectors of

    .. math:: C_{\text{perturbed}} - \alpha\, C_{\text{control}},

    the difference of two covariances (Abid et al. 2018, doi:10.1038/s41467-018-04608-8). They
    show the variation that perturbations add to that of control cells. Plot them with
    :func:`nextpert.pl.cpca_density`, as in Fig. 6a of Zhang et al. 2023
    (doi:10.1038/s42256-023-00719-0).

    Parameters
    ----------
    adata
        Cells x genes, log-normalised expression, dense or sparse.
    genes
        The genes to use; by default all.
    gene_symbols
        Column of ``adata.var`` with the names of genes, if not ``adata.var_names``.
    perturbation_key, control, layer
        Column of labels, label of the controls (the background), and layer. ``None`` takes the
        declared ones (:func:`nextpert.pp.setup_screen`), or ``"perturbation"``, ``"control"`` and
        ``adata.X``.
    groups
        Labels of the foreground; by default all perturbations. Cells without a label belong to
        neither, nor do those whose label names no perturbation, such as ``"unassigned"``.
    n_components
        Number of components; :func:`nextpert.pl.cpca_density` draws two.
    alpha
        Weight of the background, 0 (plain PCA of the perturbed cells) or more. ``"auto"`` chooses,
        of the candidates that the package ``contrastive`` finds, the one whose components
        separate groups and controls best (variance between over variance within, the
        Hotelling-Lawley trace).
    standardize
        Whether to divide every gene by its standard deviation in control cells.
    rng
        Seed or generator of the search for ``alpha``.
    key_added
        Name of the results. With another name than ``"cpca"`` the loadings are stored in
        ``varm[f"{key_added}_cPCs"]``.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy. Fields written:

        - ``obsm["X_cpca"]`` (array, ``(n_cells, n_components)``): scores of all cells,
          log-normalised expression; the mean of control cells lies at the origin.
        - ``varm["cPCs"]`` (array, ``(n_vars, n_components)``): loadings, zero outside ``genes``.
          The largest entry of each is positive.

        Fields of ``uns["cpca"]``:

        - ``alpha`` (number): the contrast used.
        - ``alphas``, ``separation`` (arrays, ``(n_alphas,)``): the candidates, and how well each
          separates the groups.
        - ``eigenvalues`` (array, ``(n_components,)``): of the components.
        - ``genes``, ``groups`` (names): the genes used, and the groups of cells compared.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If there are no control cells, no perturbed cells, unknown labels, absent or duplicated
        genes, NaN or infinite values, fewer genes than components, a gene constant among the
        controls (with ``standardize``), or a negative ``alpha``.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=500, n_perturbed=50)
    >>> npt.tl.cpca(adata, alpha=1.0)
    >>> adata.obsm["X_cpca"].shape, adata.varm["cPCs"].shape
    ((1700, 2), (36, 2))
    """
    require_cells(adata, "cpca")
    roles = read_roles(
        adata, perturbation_key=perturbation_key, control=control, layer=layer,
        gene_symbols=gene_symbols,
    )  # fmt: skip
    perturbation_key, control, layer = roles.perturbation_key, roles.control, roles.layer
    require_layer(adata, layer)
    chosen = None if isinstance(alpha, str) else float(alpha)
    names, columns = resolve_panel(
        adata, genes, least=max(2, n_components), gene_symbols=gene_symbols
    )
    if len(names) > _MANY_GENES:
        message = (
            f"Contrastive PCA of {len(names)} genes solves eigenproblems of that size and may take "
            "long: pass fewer with `genes`, such as the highly variable ones."
        )
        warn(message)
    groups = [groups] if isinstance(groups, str) else None if groups is None else in_order(groups)
    labels = read_perturbations(adata, roles, named=groups)
    require_control(labels, control)
    if groups is None:
        say_left_out(labels.left_out, perturbation_key)
    foreground = labels.perturbations(groups, "groups")
    if not foreground:
        message = (
            f"No perturbed cells: adata.obs[{labels.key!r}] has only {control!r}. "
            "Contrastive PCA needs cells of at least one other label."
        )
        raise ValueError(message)
    codes = labels.groups([control, *foreground])
    check_scale(adata, columns, np.flatnonzero(codes >= 0), roles, only_warn=True)
    moments, batches = read_groups(adata, columns, codes, len(foreground) + 1, roles)
    scale = _scale(moments[0], names, standardize=standardize)
    with one_thread():
        engine = _engine(moments, scale, n_components)
        result = _result(engine, moments, scale, chosen, as_rng(rng))
        loadings, eigenvalues = engine.directions(result["alpha"])
    loadings, eigenvalues = loadings[:, :n_components], eigenvalues[:n_components]
    mapping = loadings / scale[:, None]
    scores = np.zeros((adata.n_obs, n_components))
    for cells, block in read_blocks(adata, columns, np.arange(adata.n_obs), layer=layer):
        with one_thread():
            scores[cells] = block @ mapping
            if batches is not None:
                scores[cells] -= batches.of_cells(cells) @ mapping
    scores -= moments[0].mean @ mapping
    params: dict[str, Any] = {
        **roles.stored(),
        "alpha": alpha if isinstance(alpha, str) else float(alpha),
        "n_components": int(n_components),
        "standardize": bool(standardize),
        "rng": seed_of(rng),
    }
    result |= {
        "eigenvalues": eigenvalues,
        "genes": strings(names),
        "groups": strings(foreground),
        "params": params,
    }
    all_loadings = np.zeros((adata.n_vars, n_components))
    all_loadings[columns] = loadings
    in_varm = "cPCs" if key_added == "cpca" else f"{key_added}_cPCs"
    return write_results(
        adata,
        uns={key_added: result},
        obsm={f"X_{key_added}": scores},
        varm={in_varm: all_loadings},
        copy=copy,
    )


def _scale(controls: Moments, names: list[str], *, standardize: bool) -> Array:
    if controls.n < 2:
        message = "There is only one control cell: a background covariance needs at least two."
        raise ValueError(message)
    if not standardize:
        return np.ones(len(names))
    constant = controls.constant_nodes()
    if len(constant):
        message = (
            f"Genes constant among the control cells: {list_names(names[i] for i in constant)}. "
            "Leave them out of `genes`, or pass standardize=False."
        )
        raise ValueError(message)
    return np.sqrt(np.diag(controls.scatter) / (controls.n - 1))


def _engine(moments: list[Moments], scale: Array, n_components: int) -> CovarianceCpca:
    from nextpert.tl._cpca.contrastive import CovarianceCpca

    total = sum(moments[2:], start=moments[1])
    if total.n < 2:
        message = "There is only one perturbed cell: a foreground covariance needs at least two."
        raise ValueError(message)
    units = np.outer(scale, scale)
    background = moments[0].scatter / (moments[0].n - 1) / units
    return CovarianceCpca(total.scatter / (total.n - 1) / units, background, n_components)


def _result(
    engine: CovarianceCpca,
    moments: list[Moments],
    scale: Array,
    alpha: float | None,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the alpha in use and the candidates it was chosen from."""
    candidates = engine.candidate_alphas(rng) if alpha is None else np.array([alpha])
    separation = [_separation(engine.directions(a)[0], moments, scale) for a in candidates]
    best = float(candidates[int(np.argmax(separation))])
    return {"alpha": best, "alphas": candidates, "separation": np.array(separation)}


def _separation(loadings: Array, moments: list[Moments], scale: Array) -> float:
    """Return the Hotelling-Lawley trace of groups and controls in the projection."""
    mapping = loadings / scale[:, None]
    n_cells = sum(group.n for group in moments)
    grand = sum(group.n * group.mean for group in moments) / n_cells
    means = np.array([np.sqrt(group.n) * (group.mean - grand) for group in moments]) @ mapping
    within = mapping.T @ sum(group.scatter for group in moments) @ mapping
    return float(np.trace(np.linalg.pinv(within, hermitian=True) @ (means.T @ means)))
