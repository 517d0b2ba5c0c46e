"""The search for alpha of the package ``contrastive``, made safe to call."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from contrastive import CPCA
from scipy.linalg import eigh
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


class CovarianceCpca(CPCA):
    """Contrastive PCA from two covariances instead of the cells themselves.

    The package compares subspaces by the projected foreground cells. Their inner products depend
    on the foreground covariance alone, so a square root of it stands in for the cells, and the
    cost no longer depends on their number.

    The package's own solver is for matrices without symmetry (``eig``): it may return complex or
    non-orthogonal directions where eigenvalues tie, and takes signs from the first cell, which
    turns a direction into zeros where that cell's score is zero. Hence ``eigh`` here.
    """

    def __init__(
        self, foreground: NDArray[np.float64], background: NDArray[np.float64], n_components: int
    ) -> None:
        # The package measures subspaces by two singular values, so it needs two components.
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
        """Project; called by the package's search."""
        return dataset @ self.directions(alpha)[0]

    def candidate_alphas(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Return the package's exemplary alphas in ascending order, 0 (plain PCA) left out.

        They are looked for between 0.1 and :meth:`largest_alpha`.
        """
        most = np.log10(np.clip(self.largest_alpha(), 1, 1000))
        # One thread: the problems are tiny, and threads that wait for each other on a busy machine
        # cost a hundred times what they save.
        with threadpool_limits(1), _seeded_global_state(rng), warnings.catch_warnings():
            # Subspaces that share no direction split the affinity graph: expected, and harmless.
            warnings.filterwarnings("ignore", message="Graph is not fully connected")
            alphas, *_ = self.find_spectral_alphas(40, most, 4)
        return np.asarray(alphas, dtype=np.float64)

    def largest_alpha(self) -> float:
        """Return the alpha beyond which no eigenvalue of the contrast is positive.

        There no direction varies more among perturbed cells than alpha times as much as among
        controls: nothing is left to show.
        """
        ridge = 1e-9 * np.trace(self.bg_cov) * np.eye(len(self.bg_cov))
        if not ridge.any():
            return np.inf
        return float(eigh(self.fg_cov, self.bg_cov + ridge, eigvals_only=True)[-1])


@contextmanager
def _seeded_global_state(rng: np.random.Generator) -> Iterator[None]:
    """Seed numpy's global state, which the package draws on, and put it back afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
