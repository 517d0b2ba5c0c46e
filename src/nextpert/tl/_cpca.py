"""Contrastive PCA: the variation of perturbed cells beyond that of controls."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from nextpert import _adata
from nextpert._adata.arguments import at_least, checked, one_of
from nextpert._adata.labels import say_left_out
from nextpert._adata.table import require_cells
from nextpert.core._blas import one_thread
from nextpert.core._checks import as_rng

try:
    from contrastive import CPCA
except ImportError:  # its index page states no licence: some may not install it
    from nextpert.tl._contrast_search import CPCA

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert.core import Moments

    Array = NDArray[np.float64]
    from collections.abc import Iterator


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
    for kind, each in (("control", moments[:1]), ("perturbed", moments[1:])):
        if sum(group.n for group in each) < 2:
            message = f"There is only one {kind} cell: add cells, a covariance needs at least two."
            raise ValueError(message)
    with one_thread():
        result, loadings = _contrast(moments, n_components, alpha, as_rng(rng))
    scores = np.zeros((adata.n_obs, n_components))
    every = np.arange(adata.n_obs)
    for cells, block in _adata.read_blocks(adata, columns, every, layer=roles.layer):
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


def _contrast(
    moments: list[Moments], n_components: int, alpha: float | str, rng: np.random.Generator
) -> tuple[dict[str, Any], Array]:
    """Return the alpha used, the candidates for it, eigenvalues, and loadings."""
    total = sum(moments[2:], start=moments[1])
    background = moments[0].scatter / (moments[0].n - 1)
    engine = CovarianceCpca(total.scatter / (total.n - 1), background, n_components)
    is_auto = isinstance(alpha, str)
    candidates = engine.candidate_alphas(rng) if is_auto else np.array([float(alpha)])
    # Hotelling-Lawley trace of groups and controls: the variance between over the variance within.
    n_cells = sum(group.n for group in moments)
    grand = sum(group.n * group.mean for group in moments) / n_cells
    means = np.array([np.sqrt(group.n) * (group.mean - grand) for group in moments])
    pooled = sum(group.scatter for group in moments)
    separation = []
    for each in candidates:
        mapping = engine.directions(each)[0]
        between, within = means @ mapping, mapping.T @ pooled @ mapping
        ratio = np.linalg.pinv(within, hermitian=True) @ (between.T @ between)
        separation.append(float(np.trace(ratio)))
    best = float(candidates[int(np.argmax(separation))])
    loadings, eigenvalues = engine.directions(best)
    result = {
        "alpha": best,
        "alphas": candidates,
        "separation": np.array(separation),
        "eigenvalues": eigenvalues[:n_components],
    }
    return result, np.ascontiguousarray(loadings[:, :n_components])


class CovarianceCpca(CPCA):
    """Contrastive PCA from two covariances instead of the cells themselves.

    The package compares subspaces by the projected foreground cells. Their inner products depend
    on the foreground covariance only, so a square root of the covariance replaces the cells, and
    the cost does not depend on their number.

    The package's own solver (``eig``) does not assume symmetry: it may return complex or
    non-orthogonal directions if eigenvalues are equal, and takes signs from the first cell, which
    turns a direction into zeros if that cell's score is zero. ``eigh`` is used instead.
    """

    def __init__(
        self, foreground: NDArray[np.float64], background: NDArray[np.float64], n_components: int
    ) -> None:
        # The package compares subspaces by two singular values, so it needs two components.
        super().__init__(n_components=max(n_components, 2), standardize=False)
        self.fg_cov, self.bg_cov = foreground, background
        values, vectors = np.linalg.eigh(foreground)
        self.fg = (vectors * np.sqrt(np.maximum(values, 0))).T
        self.fitted = True

    def directions(self, alpha: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return loadings (n_genes, n_components) and eigenvalues, largest first."""
        values, vectors = np.linalg.eigh(self.fg_cov - alpha * self.bg_cov)
        top = vectors[:, ::-1][:, : self.n_components]
        largest = np.take_along_axis(top, np.abs(top).argmax(axis=0)[None], axis=0)
        return top * np.sign(largest), values[::-1][: self.n_components]

    def cpca_alpha(self, dataset: NDArray[np.float64], alpha: float = 1) -> NDArray[np.float64]:
        """Project cells on the components; the package's search calls this method."""
        return dataset @ self.directions(alpha)[0]

    def candidate_alphas(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return the package's exemplary alphas in ascending order, without 0 (plain PCA).

        The search is between 0.1 and :meth:`largest_alpha`.
        """
        most = np.log10(np.clip(self.largest_alpha(), 1, 1000))
        # With one thread, because the problems are tiny, and threads that wait for each other on a
        # busy machine cost a hundred times what they save.
        with threadpool_limits(1), _seeded_global_state(rng), warnings.catch_warnings():
            # Subspaces that share no direction split the affinity graph, which does no harm.
            warnings.filterwarnings("ignore", message="Graph is not fully connected")
            alphas, *_ = self.find_spectral_alphas(40, most, 4)
        return np.asarray(alphas, dtype=np.float64)

    def largest_alpha(self) -> float:
        """Return the alpha beyond which no eigenvalue of the contrast is positive.

        Beyond it, no direction has a variance among perturbed cells above alpha times that among
        controls.
        """
        ridge = 1e-9 * np.trace(self.bg_cov) * np.eye(len(self.bg_cov))
        if not ridge.any():
            return np.inf
        return float(eigh(self.fg_cov, self.bg_cov + ridge, eigvals_only=True)[-1])


@contextmanager
def _seeded_global_state(rng: np.random.Generator) -> Iterator[None]:
    """Seed numpy's global state, which the package uses, and restore the state afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
