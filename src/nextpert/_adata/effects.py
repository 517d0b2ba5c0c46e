"""Effects of perturbations in another screen, and moments of a screen, as they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import scipy.sparse as sp

from nextpert._adata.write import strings
from nextpert.core.cells.screen_moments import ScreenMoments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
        If names come twice, no gene of the panel is there, or a value is not finite.
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
    values = np.asarray(part.toarray() if sp.issparse(part) else part, np.float64)
    if not np.isfinite(values).all():
        message = "prior_effects holds NaN or infinite values: leave these perturbations out."
        raise ValueError(message)
    table = np.zeros((len(names), len(genes)))
    table[:, shared] = values
    found = dict(zip(names, table, strict=True))
    if labels.naming is None:
        return found
    return labels.naming.renamed(found, labels.names, "prior_effects")


def stored_effects(effects: Mapping[str, Array]) -> dict[str, Any]:
    """Return effects by perturbation as they are stored."""
    return {"perturbations": strings(effects), "effects": np.array(list(effects.values()))}


def read_stored_effects(stored: Any, n_genes: int, where: str) -> dict[str, Array]:
    """Return what :func:`stored_effects` stored; nothing where there is none."""
    if stored is None:
        return {}
    names, table = (np.asarray(stored.get(name)) for name in ("perturbations", "effects"))
    if table.shape != (len(np.atleast_1d(names)), n_genes) or not np.isfinite(table).all():
        message = f"{where} is damaged (its parts differ in size): run tl.fit_dag_blr again."
        raise ValueError(message)
    return dict(zip(map(str, names), table, strict=True))


def stored_screen(screen: ScreenMoments) -> dict[str, Any]:
    """Return the moments of a screen as they are stored."""
    return {name: getattr(screen, name) for name in ("n", "mean", "squares", "scatter")}


def read_stored_screen(stored: Any, n: int, n_genes: int, where: str) -> ScreenMoments | None:
    """Return the moments that :func:`stored_screen` stored; ``None`` where there are none.

    Raises
    ------
    ValueError
        If a part is absent, of another shape, or holds what no screen does.
    """
    if stored is None:
        return None
    shapes = {"n": (n,), "mean": (n, n_genes), "squares": (n, n_genes)}
    parts = {k: np.asarray(stored.get(k)) for k in (*shapes, "scatter")}
    sound = all(parts[k].shape == shape for k, shape in shapes.items())
    sound = sound and parts["scatter"].shape == (n_genes, n_genes)
    sound = sound and all(v.dtype.kind in "iuf" and np.isfinite(v).all() for v in parts.values())
    if not sound or parts["n"].min() < 0 or parts["n"][0] < 2 or parts["squares"].min() < 0:
        message = f"{where} is damaged (no moments of a screen): run tl.fit_dag_blr again."
        raise ValueError(message)
    return ScreenMoments(
        parts["n"].astype(np.int64),
        *(parts[k].astype(np.float64) for k in ("mean", "squares", "scatter")),
    )
