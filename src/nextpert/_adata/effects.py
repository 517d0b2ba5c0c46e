"""Effects of perturbations in another screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import scipy.sparse as sp

from nextpert.core._checks import require_small
from nextpert.core.cells._sound import require_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from nextpert._adata.labels import LabelTable

    Array = NDArray[np.float64]

CLEAR_SIGN = 0.05  # local false sign rate below which the sign of an effect is said to be clear


def read_effects(
    effects: ad.AnnData | None, genes: Sequence[str], labels: LabelTable
) -> dict[str, Array]:
    """Return the effects of another screen on the genes of the panel, by perturbation.

    Genes that it does not hold are taken for unchanged. Perturbations are named as ``labels``,
    those of this screen, spell them.

    Raises
    ------
    ValueError
        If names come twice, no gene of the panel is there, or a value is no real number, not
        finite or too large.
    """
    if effects is None:
        return {}
    names, held = [str(x) for x in effects.obs_names], [str(x) for x in effects.var_names]
    for what, some in (("perturbations", names), ("genes", held)):
        if len(set(some)) < len(some):
            message = f"prior_effects holds {what} more than once: give each one row."
            raise ValueError(message)
    place = {gene: i for i, gene in enumerate(held)}
    shared = [i for i, gene in enumerate(genes) if gene in place]
    if not shared or not names:
        message = (
            "prior_effects has no gene of the panel, or no perturbation: it must be perturbations "
            "x genes, named as in the screen."
        )
        raise ValueError(message)
    part: Any = effects.X[:, [place[genes[i]] for i in shared]]
    require_numbers(part, "prior_effects")
    values = np.asarray(part.toarray() if sp.issparse(part) else part, np.float64)
    if not np.isfinite(values).all():
        message = "prior_effects holds NaN or infinite values: leave these perturbations out."
        raise ValueError(message)
    require_small(values, "prior_effects")
    table = np.zeros((len(names), len(genes)))
    table[:, shared] = values
    found = dict(zip(names, table, strict=True))
    if labels.naming is None:
        return found
    return labels.naming.renamed(found, labels.names, "prior_effects")
