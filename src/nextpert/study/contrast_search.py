"""The search for weights of the background, where the package ``contrastive`` is not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


class CPCA:
    """The part of ``contrastive.CPCA`` on which :class:`CovarianceCpca` builds.

    Abid et al. 2018 (doi:10.1038/s41467-018-04608-8), section *Choosing the contrast strength*.
    """

    fg: Array

    def __init__(self, n_components: int, *, standardize: bool) -> None:
        del standardize  # covariances are given
        self.n_components = n_components

    def cpca_alpha(self, dataset: Array, alpha: float) -> Array:
        """Project cells on the components; a subclass says how."""
        raise NotImplementedError

    def find_spectral_alphas(
        self, n_alphas: int, max_log_alpha: float, n_alphas_to_return: int
    ) -> tuple[Array, Array, Array, NDArray[np.int64]]:
        """Return exemplary alphas, the grid, affinities to alpha 0, and the cluster of each alpha.

        The subspaces of all alphas are clustered by affinity, the product of the cosines of their
        two smallest principal angles. Each cluster without alpha 0 gives the alpha with the largest
        sum of affinities to its cluster.
        """
        from sklearn.cluster import SpectralClustering  # scanpy requires it

        alphas = np.append(0.0, np.logspace(-1, max_log_alpha, n_alphas))
        spaces = [np.linalg.qr(self.cpca_alpha(self.fg, alpha))[0] for alpha in alphas]
        affinity = np.eye(len(alphas))
        for i, one in enumerate(spaces):
            for j, other in enumerate(spaces[:i]):
                cosines = np.linalg.svd(other.T @ one, compute_uv=False)
                affinity[i, j] = affinity[j, i] = np.nan_to_num(cosines[0] * cosines[1])
        search = SpectralClustering(n_alphas_to_return, affinity="precomputed").fit(affinity)
        medoids = []
        for label in range(n_alphas_to_return):
            members = np.flatnonzero(search.labels_ == label)
            if len(members) and 0 not in members:
                within = affinity[np.ix_(members, members)].sum(axis=0)
                medoids.append(alphas[members[within.argmax()]])
        return np.sort(medoids), alphas, affinity[0], search.labels_
