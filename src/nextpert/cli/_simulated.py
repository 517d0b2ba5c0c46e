"""The simulated screen of the demo: a wanted state never seen, and what is true of the ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


def unseen_target(adata: AnnData) -> tuple[dict[str, float], str]:
    """Return the true mean under the strongest knockout that was not performed, and its name."""
    genes, mean, effects = _truth(adata)
    change = -effects * mean  # one column a knockout
    seen = set(adata.obs["perturbation"].astype(str))
    unseen = [i for i, gene in enumerate(genes) if gene not in seen]
    best = max(unseen, key=lambda i: float((change[:, i] ** 2).sum()))
    wanted = mean + change[:, best]
    return dict(zip(genes, wanted.tolist(), strict=True)), genes[best]


def true_distances(adata: AnnData) -> NDArray[np.float64]:
    """Return how far from the target every row of the ranking truly ends, squared.

    The shift of a candidate is taken as the ranking has it, and what it does downstream from the
    model that the screen was simulated with.
    """
    genes, mean, effects = _truth(adata)
    design = adata.uns["design"]
    place = [genes.index(str(gene)) for gene in design["genes"]]
    shifts = sp.csr_array(design["shifts"]).toarray()
    reached = mean[place] + shifts @ effects[np.ix_(place, place)].T
    return np.asarray(((reached - design["target_mean"]) ** 2).sum(axis=1))


def _truth(adata: AnnData) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Return the genes, their control means, and the total effect of column on row."""
    truth = adata.uns["truth"]
    genes = [str(gene) for gene in truth["genes"]]
    effects = np.linalg.inv(np.eye(len(genes)) - truth["weights"].toarray())
    return genes, truth["control_mean"], effects
