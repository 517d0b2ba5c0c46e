"""A made-up Perturb-CITE-seq study in the files of the portal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert._adata.arguments import at_least, checked
from nextpert._adata.panel import ZHANG2023

if TYPE_CHECKING:
    import os

    import numpy as np
    import pandas as pd

# Targets that are not on the paper's panel, as most of the study's are not.
_OUTSIDE = ("JAK1", "JAK2", "CD274")
_OTHER_CONDITIONS = 14  # one cell in so many is of each


@checked(n_cells=at_least(10 * _OTHER_CONDITIONS), n_genes=at_least(len(ZHANG2023) + len(_OUTSIDE)))
def perturb_cite_seq_standin(
    folder: str | os.PathLike[str],
    *,
    n_cells: int = 7000,
    n_genes: int = 300,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """Write a small made-up Perturb-CITE-seq study in the layouts of the portal's files.

    The study of Frangieh et al. 2021 (Single Cell Portal, SCP1064) needs a sign-in. What is
    written here, expression, metadata and guides, is read by :func:`perturb_cite_seq` in the same
    way, so that an analysis can be tried before the files are there. Counts are Poisson draws
    around a linear causal model; a guide takes nine tenths of its target's control mean away.
    Targets are the 36 genes of Zhang et al. 2023, and three more. Nothing in it is a finding about
    any gene.

    Parameters
    ----------
    folder
        Folder to write to; made if absent. Files of the same names are written over.
    n_cells
        Number of cells, 140 or more; six sevenths of them in the condition ``Control``.
    n_genes
        Number of genes, 39 or more.
    rng
        Seed or generator.

    Returns
    -------
    ~pandas.DataFrame
        The truth: weights of the causal model, genes x genes, row = parent: the change of a gene's
        log expression a unit of its parent's.

    Raises
    ------
    ValueError
        If there are too few cells or genes. Nothing is written then.

    Examples
    --------
    >>> import tempfile, nextpert as npt
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     truth = npt.datasets.perturb_cite_seq_standin(folder, n_cells=140, n_genes=39)
    ...     adata = npt.datasets.perturb_cite_seq(folder, condition="Control")
    >>> adata.shape, truth.shape
    ((120, 39), (39, 39))
    """
    import numpy as np
    import pandas as pd

    from nextpert.datasets._scp1064.rows import CONDITIONS
    from nextpert.datasets._scp1064.standin import write_portal_standin

    others = n_cells // _OTHER_CONDITIONS
    conditions = np.repeat(CONDITIONS, [n_cells - 2 * others, others, others]).tolist()
    targets = [*ZHANG2023, *_OUTSIDE]
    written = write_portal_standin(folder, targets, conditions, n_genes=n_genes, rng=rng)
    return pd.DataFrame(written.weights.T, written.measured, written.measured)
