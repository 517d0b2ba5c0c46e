"""Resamples of a screen: cells within environments, or guides whole, in one pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from nextpert._adata.read import read_blocks, with_columns
from nextpert.core.cells._screen_part import empty_part, merge, screen_part
from nextpert.core.cells.screen_moments import ScreenMoments
from nextpert.core.search._bits import poisson_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

    import anndata as ad
    from numpy.typing import ArrayLike, NDArray

    from nextpert._adata.screen import Environments

# A perturbation of fewer guides is resampled by its cells: two blocks say little of their spread.
_LEAST_GUIDES = 3
_MOST_ENTRIES = 2**27  # of all resamples that are summed in one pass: 1 GB


def resample_weights(environments: Environments, seed: np.uint64) -> NDArray[np.int64]:
    """Return how often a resample takes every cell, shape ``(n_cells,)``.

    Poisson of mean 1, cell by cell (the Poisson bootstrap). Where a perturbation has three guides
    or more, their cells are taken as whole blocks instead, as many guides as there are, drawn with
    replacement: guides differ by more than their cells' noise.
    """
    n_cells = len(environments.codes)
    weights = poisson_weights(np.array([seed], np.uint64), np.arange(n_cells))[0].astype(np.int64)
    weights[environments.codes < 0] = 0
    guide_key = environments.roles.guide_key
    if guide_key is None:
        return weights
    rng = np.random.default_rng(int(seed))
    guides = environments.table[guide_key].to_numpy(dtype=object)
    of_environment = np.full(len(guides), -1, np.int64)
    for name in sorted(set(environments.perturbation)):
        here = np.flatnonzero(environments.perturbation == name)
        found, block = np.unique(guides[here].astype(str), return_inverse=True)
        if len(found) >= _LEAST_GUIDES:
            times = rng.multinomial(len(found), np.full(len(found), 1 / len(found)))
            of_environment[here] = times[block]
    whole = np.append(of_environment, -1)[environments.codes]
    return np.where(whole >= 0, whole, weights)


def resampled_screens(
    adata: ad.AnnData,
    columns: ArrayLike,
    environments: Environments,
    seeds: NDArray[np.uint64],
    *,
    show_progress: bool = False,
) -> Iterator[ScreenMoments]:
    """Yield the moments of a resample for every seed; genes, then numeric covariates.

    The cells are read once for as many resamples as 1 GB holds the sums of. The bits of a
    resample depend on its seed alone.
    """
    width = len(np.asarray(columns)) + environments.covariates.shape[1]
    n_environments = len(environments.table)
    a_resample = width * (2 * n_environments + width)
    at_once = max(1, _MOST_ENTRIES // a_resample)
    cells = np.flatnonzero(environments.codes >= 0)
    hidden = not show_progress or len(cells) * width * len(seeds) < _MOST_ENTRIES
    with tqdm(total=len(seeds), desc="Resamples", disable=hidden) as bar:
        for first in range(0, len(seeds), at_once):
            some = [resample_weights(environments, seed) for seed in seeds[first:][:at_once]]
            totals = [empty_part(width) for _ in some]
            for here, values in read_blocks(adata, columns, cells, layer=environments.roles.layer):
                block = with_columns(values, environments.covariates[here])
                for k, weights in enumerate(some):
                    part = screen_part(block, environments.codes[here], weights[here])
                    totals[k] = merge(totals[k], part)
            bar.update(len(some))
            for total in totals:
                yield ScreenMoments.from_part(total, n_environments)
