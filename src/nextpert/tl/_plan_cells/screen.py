"""What a plan of cells takes from a screen: its noise, states, and guides and replicates now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from nextpert import _adata
from nextpert._adata.screen import distinct
from nextpert.core.plan.layout import Layout
from nextpert.core.plan.power import EffectPrecision
from nextpert.core.plan.screen_noise import ScreenNoise, screen_noise
from nextpert.tl._fit_dag_blr.cells import fit_environments, read_cells

if TYPE_CHECKING:
    import anndata as ad
    from numpy.typing import NDArray

    from nextpert._adata import FittedPosterior


@dataclass(frozen=True)
class Measured:
    """The noise of a screen and the perturbations of its fit.

    Parameters
    ----------
    names
        Perturbations; row ``j`` is group ``j + 1`` of ``noise``.
    noise
        Of controls (group 0) and perturbations.
    layout
        Guides and replicates planned for.
    """

    names: list[str]
    noise: ScreenNoise
    layout: Layout

    @property
    def n_cells(self) -> NDArray[np.int64]:
        """Cells of every perturbation."""
        return self.noise.pooled.n_cells[1:]

    def effects(self, layout: Layout | None = None) -> EffectPrecision:
        """Return the precision of effects on every gene, with the controls there are."""
        noise = self.noise
        n_control = float(noise.pooled.n_cells[0])
        return EffectPrecision(
            noise.perturbed_variance,
            noise.variance(0),
            n_control,
            layout or self.layout,
            noise.layout(0),
            noise.batch_error,
        )


def read_measured(
    adata: ad.AnnData,
    fit: FittedPosterior,
    key: str,
    n_guides: int | None,
    n_replicates: int | None,
) -> Measured:
    """Read the noise of the cells of the fit in ``uns[key]``: one pass over them.

    They are compared with those of the fit on the way.

    Raises
    ------
    ValueError
        If the fit has no perturbation, or one of its columns is gone.
    """
    names = [str(name) for name in fit.environments["perturbation"]]
    if not names:
        message = "The fit has no perturbed cells: how these scatter cannot be told."
        raise ValueError(message)
    roles = _adata.fitted_roles(adata, fit.params)
    cells = read_cells(
        adata, fit.columns, fit_environments(adata, roles, names), names,
        checksum=_adata.checksum_of_cells(adata, fit),
    )  # fmt: skip
    _adata.warn_of_changed_cells(adata, fit, key, cells.checksum)
    screen, keys, sd = cells.without_batches(names)
    found, place = distinct(*keys.T)  # conditions would split guides into more than there are
    group, guide, batch = found.T
    screen = screen.regroup(place, len(found))
    noise = screen_noise(screen, group, guide, batch, 1 + len(names), fixed_sd=sd)
    planned = Layout(
        _usual(noise.n_guides) if n_guides is None else n_guides,
        _usual(noise.n_replicates) if n_replicates is None else n_replicates,
        noise.guide_variance,
        noise.replicate_variance,
    )
    return Measured(names, noise, planned)


def usual_guides(adata: ad.AnnData, fit: FittedPosterior) -> int:
    """Return the guides that the median perturbation of a fit has, 1 where none are known."""
    roles = _adata.fitted_roles(adata, fit.params)
    names = [str(name) for name in fit.environments["perturbation"]]
    if roles.guide_key is None or not names:
        return 1
    group = _adata.read_every_label(adata, roles).groups(names)
    guide = _adata.read_labels(adata, roles.guide_key, argument="guide_key").codes
    told = (group >= 0) & (guide >= 0)
    pairs = np.unique(np.column_stack([group[told], guide[told]]), axis=0)
    return _usual(np.bincount(1 + pairs[:, 0], minlength=1 + len(names)))


def _usual(counts: NDArray[np.int64]) -> int:
    """Return the median over perturbations."""
    return max(round(float(np.median(counts[1:]))), 1)
