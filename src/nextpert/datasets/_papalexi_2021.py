"""The ECCITE-seq screen of Papalexi et al. 2021."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nextpert._adata.arguments import checked

if TYPE_CHECKING:
    import os

    from anndata import AnnData

_FILE = ("PapalexiSatija2021_eccite_RNA.h5ad", "d9e8bfe20b0e7b0919be042e8fcf6d03")
_NUMBER = re.compile(r"g\d+$")  # STAT1g2: the second guide of STAT1
_CONTROLS = ("NT", "control", "non-targeting")


@checked()
def papalexi_2021(
    path: str | os.PathLike[str] | AnnData | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
) -> AnnData:
    """Load the ECCITE-seq screen of Papalexi et al. 2021 (doi:10.1038/s41588-021-00778-2).

    Knockouts of 25 genes of the interferon-gamma pathway and others in THP-1 cells, with several
    guides per gene and three replicates. The file is that of scPerturb (Zenodo record 13350497, CC
    BY 4.0, 147 MB), checked by the MD5 of the record. The results of this documentation use another
    form of the screen: 299 genes of 16,192 cells with one guide (sceptredata).

    Parameters
    ----------
    path
        The screen as an h5ad file or AnnData in the layout of scPerturb, of pertpy
        (``mdata["rna"]``), or of sceptredata; by default it is downloaded.
    cache
        Folder that keeps the download; by default the user's cache folder.

    Returns
    -------
    ~anndata.AnnData
        Counts, cells x genes, with the columns of the file (``perturbation`` is replaced) and

        - ``obs["perturbation"]``: the target gene, or ``control``; ``unassigned`` without a guide,
        - ``obs["guide"]``, ``obs["replicate"]``: guide and replicate, if the file has them,
        - ``uns["published"]``: ``doi`` and ``source``.

    Raises
    ------
    ConnectionError
        If the file cannot be downloaded.
    FileNotFoundError
        If ``path`` does not exist.
    ValueError
        If a file is damaged, or has no column of guides.

    Notes
    -----
    The download was not tried where this was written, as there was no connection to Zenodo; layouts
    are tested on small files.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.papalexi_2021()  # doctest: +SKIP
    >>> npt.pp.perturbation_screen(
    ...     adata, guide_key="guide", batch_key="replicate"
    ... )  # doctest: +SKIP
    """
    from nextpert.datasets._published import Layout, read_published, scperturb_file

    layout = Layout(
        labels=("guide_id", "guide_ID", "grna", "guide"),
        to_label=_label,
        guides=("guide_id", "guide_ID", "grna", "guide"),
        replicates=("replicate", "bio_rep", "hto"),
    )
    return read_published(path, cache, scperturb_file(*_FILE), layout, "10.1038/s41588-021-00778-2")


def _label(guide: str) -> str:
    target = _NUMBER.sub("", guide)
    return "control" if target in _CONTROLS else target
