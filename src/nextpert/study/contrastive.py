"""Contrastive principal components from two covariances."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from nextpert.core import Moments

    Array = NDArray[np.float64]


try:
    from contrastive import CPCA
except ImportError:  # its index page states no licence: some may not install it
    from nextpert.study.contrast_search import CPCA


def contrast(
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
    for candidate in candidates:
        mapping = engine.directions(candidate)[0]
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
        log_largest = np.log10(np.clip(self.largest_alpha(), 1, 1000))
        # With one thread, because the problems are tiny, and threads that wait for each other on a
        # busy machine cost a hundred times what they save.
        with threadpool_limits(1), _seeded_global_state(rng), warnings.catch_warnings():
            # Subspaces that share no direction split the affinity graph, which does no harm.
            warnings.filterwarnings("ignore", message="Graph is not fully connected")
            alphas, *_ = self.find_spectral_alphas(40, log_largest, 4)
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
