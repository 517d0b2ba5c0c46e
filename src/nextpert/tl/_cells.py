"""The cells of a fit or a diagnosis, read once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.screen import coding, coding_without, read_environments, read_screens
from nextpert.study.cell_sums import Cells

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import Roles
    from nextpert._adata.screen import Environments
    from nextpert.core.screen.screen import Screen


def fit_environments(adata: ad.AnnData, roles: Roles, names: Sequence[str]) -> Environments:
    """Return the environments of a fit.

    Conditions and perturbations other than ``names`` are included if they inform batch effects.
    """
    if roles.batch_key:
        return read_environments(adata, roles, named=names)
    environments = read_environments(adata, replace(roles, covariates=()), named=names)
    is_requested = environments.numbered(names) >= 0
    return environments.only(sorted(set(environments.perturbation[is_requested])))


def read_cells(
    adata: ad.AnnData,
    columns: NDArray[np.int64],
    environments: Environments,
    names: Sequence[str],
    *,
    without: Sequence[Collection[str]] = ((),),
    searches: Environments | None = None,
    sets: Sequence[Collection[str]] = (),
    halves: tuple[Environments, NDArray[np.int64]] | None = None,
) -> Cells:
    """Read all labelled cells in one pass (two passes if the graph is from another layer).

    Parameters
    ----------
    adata, columns
        The cells, and the columns of the panel, shape ``(n_genes,)``.
    environments
        Environments of a fit.
    names
        Perturbations of the fit.
    without
        Perturbations whose cells are left out of each fit; by default there is one fit, to all. The
        sums of each fit are computed separately, so that they are bitwise identical to those of a
        screen without these cells.
    searches
        Environments of searches; ``None`` if there are none.
    sets
        Perturbations that are left out of a search together; one scatter is kept for each set.
    halves
        Environments, and the half of every cell, 0 or 1, shape ``(n_cells,)``.
    """
    layer, labels = environments.roles.layer, set(environments.perturbation)
    fits, codings = [], []
    for members in without:
        left_out = environments.groups(list(members)) >= 0
        remaining = environments.only(sorted(labels - set(environments.perturbation[left_out])))
        fits.append(remaining)
        # Their order determines the order of the sums.
        group = remaining.numbered(names)
        of_cell = {"order": np.append(group, -1)[remaining.codes], "environment": remaining.codes}
        codings.append(coding(of_cell, fold=np.append(group >= 0, -1)[remaining.codes]))
    if halves is not None:
        split_environments, half = halves
        half = np.where(split_environments.codes >= 0, half, -1)
        codings.append(coding({"environment": split_environments.codes, "half": half}, fold=half))
    other: list[Screen] = []
    if searches is not None:
        search_coding = coding_without(searches, sets)
        if searches.roles.layer == layer:
            codings.append(search_coding)
        else:
            other = read_screens(adata, columns, [search_coding], layer=searches.roles.layer)
    screens = read_screens(adata, columns, codings, layer=layer)
    screens += other
    return Cells(
        list(zip(fits, screens[: len(fits)], strict=True)),
        None if searches is None else screens[-1],
        None if halves is None else screens[len(fits)],
    )
