"""The combinatorial CRISPRa screen of Norman et al. 2019."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from nextpert._adata.arguments import checked

if TYPE_CHECKING:
    import os

    from anndata import AnnData

_FILE = ("NormanWeissman2019_filtered.h5ad", "c870e6967d91c017d9da827bab183cd6")
_CONTROL = re.compile(r"control|ctrl|NegCtrl\d*", re.IGNORECASE)


@checked()
def norman_2019(
    path: str | os.PathLike[str] | AnnData | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
) -> AnnData:
    """Load the combinatorial screen of Norman et al. 2019 (doi:10.1126/science.aax4438).

    Activation (CRISPRa) of 105 genes and 131 pairs of them in 111,445 K562 cells. The file is that
    of scPerturb (Zenodo record 13350497, CC BY 4.0, 699 MB), checked by the MD5 of the record. The
    results of this documentation use 33 of the 236 perturbations and 3,375 cells (perturbench).

    Parameters
    ----------
    path
        The screen as an h5ad file or AnnData in the layout of scPerturb or pertpy; by default it is
        downloaded.
    cache
        Folder that keeps the download; by default the user's cache folder.

    Returns
    -------
    ~anndata.AnnData
        Counts, cells x genes, with the columns of the file (``perturbation`` is replaced) and

        - ``obs["perturbation"]``: target genes joined by ``+``, or ``control``,
        - ``obs["guide"]``: guides, if the file has them,
        - ``uns["published"]``: ``doi`` and ``source``.

    Raises
    ------
    ConnectionError
        If the file cannot be downloaded.
    FileNotFoundError
        If ``path`` does not exist.
    ValueError
        If a file is damaged, or has no column of labels.

    Notes
    -----
    The download was not tried where this was written, as there was no connection to Zenodo; layouts
    are tested on small files.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.norman_2019()  # doctest: +SKIP
    >>> npt.pp.perturbation_screen(adata)  # doctest: +SKIP
    >>> npt.tl.fit_dag_blr(adata, shift="activation")  # doctest: +SKIP
    """
    from nextpert.datasets._published import Layout, read_published, scperturb_file

    layout = Layout(
        labels=("perturbation_name", "perturbation", "condition"),
        to_label=_label,
        guides=("guide_id", "guide_ids", "guide_identity"),
    )
    return read_published(path, cache, scperturb_file(*_FILE), layout, "10.1126/science.aax4438")


def _label(text: str) -> str:
    genes = [name for name in re.split(r"[_+]", text) if name and not _CONTROL.fullmatch(name)]
    return "+".join(sorted(genes)) or "control"
