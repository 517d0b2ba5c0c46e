"""Simulated control cells, for a screen that has not been done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nextpert._adata.arguments import above, at_least, checked
from nextpert.core._checks import as_rng

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from anndata import AnnData

# The values are from control cells of two real screens, Papalexi et al. 2021
# (doi:10.1038/s41588-021-00778-2) and Schraivogel et al. 2020 (doi:10.1038/s41592-020-0837-5), and
# genes seen in a tenth of them. Median and standard deviation of the logarithm of mean counts are
# those of Papalexi (whole transcriptome). The median dispersion is 0.47 and 0.39, and the
# coefficient of variation of counts per cell is 0.55 and 0.78.
_MEDIAN, _LOG_SD, _DISPERSION, _DEPTH_CV = 0.4, 1.2, 0.4, 0.6


@checked(n_cells=at_least(2), n_genes=at_least(2), dispersion=above(0))
def simulated_controls(
    *,
    n_cells: int = 1000,
    n_genes: int = 500,
    mean: Mapping[str, float] | pd.Series | None = None,
    dispersion: float = _DISPERSION,
    rng: int | np.random.Generator | None = 0,
) -> AnnData:
    r"""Simulate counts of control cells, for planning if no cells of the same kind are available.

    Counts are negative binomial, with variance :math:`\mu s + \alpha (\mu s)^2` for a gene with
    mean :math:`\mu` and dispersion :math:`\alpha` in a cell of depth :math:`s`; genes are
    independent. Default values are those of control cells of two real screens. Your own cells are
    better: use any AnnData with unperturbed cells of the same type and chemistry.

    Parameters
    ----------
    n_cells
        Number of cells.
    n_genes
        Number of genes, if ``mean`` is not given.
    mean
        Mean UMI count per cell of each gene; ``None`` draws log-normal means with median 0.4.
    dispersion
        Dispersion of all genes: the squared coefficient of variation beyond Poisson noise.
    rng
        Seed or generator.

    Returns
    -------
    ~anndata.AnnData
        ``X``: counts, float32 CSR, cells x genes. ``obs["perturbation"]``: ``control``. Normalise
        with :func:`nextpert.pp.perturbation_screen`, then call :func:`nextpert.tl.plan_cells`.

    Raises
    ------
    ValueError
        If a number is too small, or a mean is not above 0.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_controls(mean={"MYC": 2.0, "FOS": 0.5, "B2M": 30.0})
    >>> adata.shape, adata.obs["perturbation"].unique().tolist()
    ((1000, 3), ['control'])
    """
    import anndata as ad
    import pandas as pd
    import scipy.sparse as sp

    generator = as_rng(rng)
    if mean is None:
        drawn = _MEDIAN * np.exp(_LOG_SD * generator.normal(size=n_genes))
        mean = {f"GENE{i + 1}": float(value) for i, value in enumerate(drawn)}
    means = pd.Series(mean, dtype=float)
    if bad := [str(gene) for gene in means.index[~(means > 0)]]:
        message = f"mean must be above 0, but is not for {', '.join(bad)}: leave these genes out."
        raise ValueError(message)
    log_sd = np.sqrt(np.log1p(_DEPTH_CV**2))
    depth = np.exp(generator.normal(-(log_sd**2) / 2, log_sd, (n_cells, 1)))
    gamma = generator.gamma(1 / dispersion, dispersion, (n_cells, len(means)))
    counts = generator.poisson(means.to_numpy() * depth * gamma).astype(np.float32)
    obs = pd.DataFrame({"perturbation": pd.Categorical(["control"] * n_cells)})
    obs.index = [f"cell_{i}" for i in range(n_cells)]
    return ad.AnnData(sp.csr_matrix(counts), obs, pd.DataFrame(index=means.index.astype(str)))
