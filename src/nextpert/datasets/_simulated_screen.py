"""A simulated perturbation screen with a known causal model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from nextpert._adata.arguments import at_least, checked
from nextpert._adata.panel import ZHANG2023 as PANEL
from nextpert.core._checks import as_rng

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from nextpert.core import LinearScm


@checked(
    n_genes=at_least(2), n_control=at_least(2), perturbed=at_least(0), expected_degree=at_least(0)
)
def simulated_screen(
    *,
    n_genes: int = 36,
    n_control: int = 5000,
    n_perturbed: int = 100,
    perturbed: int | Sequence[str] | None = None,
    expected_degree: float = 8.0,
    rng: int | np.random.Generator | None = 0,
) -> AnnData:
    r"""Simulate a knockout screen from a known linear causal model.

    As in the screen of Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0), there are 36 genes,
    unperturbed cells, and cells in which one gene is knocked out. The model is a random graph with
    weights and noise as in that paper, scaled to means and standard deviations of log-normalised
    expression,

    .. math:: x = B x + c + a + \varepsilon, \qquad \varepsilon_i \sim N(0, \sigma_i^2),

    with control means between 1 and 3, and standard deviations between one fifth and one third of
    a gene's mean. A knockout of gene ``i`` subtracts its control mean, ``a_i = -\mu_i``.

    Parameters
    ----------
    n_genes
        Number of genes. The first 36 have the names of the paper's panel.
    n_control
        Number of control cells.
    n_perturbed
        Number of cells per knockout.
    perturbed
        The genes to knock out: their names, or their number (drawn at random). By default two
        thirds of the genes, so that a third are candidates without cells.
    expected_degree
        Expected number of neighbours of a gene in the graph; 8 in the paper's graph, which has 144
        edges among 36 genes.
    rng
        Seed or generator.

    Returns
    -------
    ~anndata.AnnData
        ``X``: float32, cells x genes, in units of log-normalised expression (Gaussian, so that a
        few values lie below 0). ``obs["perturbation"]``: ``control`` or the gene knocked out.
        ``uns["truth"]``: ``genes``, ``weights`` (CSR, row = child, column = parent), ``noise_var``,
        ``intercept``, ``control_mean`` (one value per gene) and ``order`` (a topological order, as
        indices into ``genes``).

    Raises
    ------
    ValueError
        If a number is too small, or a name in ``perturbed`` is unknown or given twice.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=500, n_perturbed=20, perturbed=["MYC"])
    >>> adata.shape
    (520, 36)
    >>> adata.obs["perturbation"].cat.categories.tolist()
    ['MYC', 'control']
    """
    import anndata as ad
    import pandas as pd

    generator = as_rng(rng)
    genes = np.array([*PANEL, *(f"GENE{i + 1}" for i in range(len(PANEL), n_genes))][:n_genes])
    knocked_out = _choose(perturbed, genes, generator)
    scm, mean = expression_model(n_genes, expected_degree, generator)
    blocks = [scm.sample(n_control, rng=generator)]
    labels = ["control"] * n_control
    for i in knocked_out:
        shift = np.zeros(n_genes)
        shift[i] = -mean[i]
        blocks.append(scm.sample(n_perturbed, shift, rng=generator))
        labels += [str(genes[i])] * n_perturbed
    x = np.concatenate(blocks).astype(np.float32)
    truth = {
        "genes": genes.astype(object),
        "weights": sp.csr_matrix(scm.weights),
        "noise_var": scm.noise_var,
        "intercept": scm.intercept,
        "control_mean": mean,
        "order": scm.dag.order.copy(),
    }
    names = [f"cell_{i}" for i in range(len(x))]
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels)}, index=names)
    var = pd.DataFrame(index=pd.Index(truth["genes"]))
    return ad.AnnData(x, obs, var, uns={"truth": truth})


def _choose(
    perturbed: int | Sequence[str] | None, genes: NDArray[np.str_], rng: np.random.Generator
) -> list[int]:
    """Return the sorted indices of the genes to knock out."""
    if perturbed is None:
        perturbed = (2 * len(genes)) // 3
    if isinstance(perturbed, (int, np.integer)):
        if perturbed > len(genes):
            message = (
                f"perturbed asks for {perturbed} knockouts, but there are only {len(genes)} genes: "
                f"ask for fewer, or raise n_genes."
            )
            raise ValueError(message)
        return sorted(rng.choice(len(genes), perturbed, replace=False).tolist())
    names = [perturbed] if isinstance(perturbed, str) else list(perturbed)
    unknown = sorted(set(names) - set(genes.tolist()))
    if unknown or len(set(names)) < len(names):
        message = (
            f"perturbed names unknown genes: {', '.join(unknown)}. The genes are "
            f"{', '.join(genes)}."
            if unknown
            else "perturbed names a gene twice: give each once."
        )
        raise ValueError(message)
    return sorted(genes.tolist().index(name) for name in names)


def expression_model(
    n_genes: int, expected_degree: float, rng: np.random.Generator
) -> tuple[LinearScm, NDArray[np.float64]]:
    """Return a random model on the scale of log-normalised expression, and its control mean."""
    from nextpert.core import LinearScm, random_scm

    unit = random_scm(n_genes, "erdos_renyi", expected_degree=expected_degree, rng=rng)
    # Random graphs are in topological order; shuffled names do not reveal it.
    order = rng.permutation(n_genes)
    mean = rng.uniform(1.0, 3.0, n_genes)
    spread = mean * rng.uniform(1 / 5, 1 / 3, n_genes)
    weights = unit.weights[np.ix_(order, order)] * spread[:, None] / spread
    noise_var = unit.noise_var[order] * spread**2
    return LinearScm(weights, noise_var, intercept=mean - weights @ mean), mean
