"""The CROP-seq screen of Hill et al. 2018."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert._adata.arguments import checked

if TYPE_CHECKING:
    import os

    from anndata import AnnData

_CONTROLS = ("control", "NonTargeting", "non-targeting", "NTC")


@checked()
def hill_2018(path: str | os.PathLike[str] | AnnData) -> AnnData:
    """Load the CROP-seq screen of Hill et al. 2018 (doi:10.1038/nmeth.4604) from a file.

    Knockouts of tumour suppressors in MCF10A cells, in which little but TP53 acts. No published
    record with a checksum is known to us, so that nothing is downloaded; scMAGeCK on GitHub
    (weililab/scMAGeCK, BSD-2) has its tables. The results of this documentation use 28 genes of
    6,229 cells of these.

    Parameters
    ----------
    path
        The screen as an h5ad file or AnnData, with the target of every cell in
        ``obs["perturbation"]`` or ``obs["gene"]``.

    Returns
    -------
    ~anndata.AnnData
        Cells x genes, with the columns of the file (``perturbation`` is replaced) and

        - ``obs["perturbation"]``: the target gene, ``control``, or ``unassigned``,
        - ``obs["guide"]``: guide, if the file has it (``barcode`` or ``sgrna``),
        - ``uns["published"]``: ``doi`` and ``source``.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ValueError
        If the file is damaged, or has no column of labels.

    Examples
    --------
    >>> import anndata as ad
    >>> import numpy as np
    >>> import pandas as pd
    >>> import nextpert as npt
    >>> obs = pd.DataFrame({"gene": ["TP53", "NonTargeting"]}, index=["a", "b"])
    >>> screen = npt.datasets.hill_2018(ad.AnnData(np.ones((2, 3)), obs))
    >>> screen.obs["perturbation"].tolist()
    ['TP53', 'control']
    """
    from nextpert.datasets._published import Layout, read_published

    layout = Layout(
        labels=("perturbation", "gene"),
        to_label=lambda text: "control" if text in _CONTROLS else text,
        guides=("barcode", "sgrna"),
    )
    return read_published(path, None, None, layout, "10.1038/nmeth.4604")
