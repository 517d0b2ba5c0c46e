"""The genome-scale Perturb-seq screens of Replogle et al. 2022."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nextpert._adata.arguments import checked

if TYPE_CHECKING:
    import os

    from anndata import AnnData

_CONTROLS = ("control", "non-targeting")


@checked()
def replogle_2022(path: str | os.PathLike[str] | AnnData) -> AnnData:
    """Open a screen of Replogle et al. 2022 (doi:10.1016/j.cell.2022.05.013) from a file.

    CRISPRi of essential genes, or of all expressed genes, in K562 and RPE1 cells. Files have up to
    2 million cells and stay on disk. Download one from figshare (CC BY 4.0,
    doi:10.25452/figshare.plus.20029387) or scPerturb (doi:10.5281/zenodo.13350497). No result of
    this documentation uses them.

    Parameters
    ----------
    path
        Single cells as an h5ad file (it is opened, not read) or AnnData, in the layout of the
        authors or of scPerturb.

    Returns
    -------
    ~anndata.AnnData
        Counts, cells x genes, on disk if ``path`` is a file, with the columns of the file and

        - ``obs["perturbation"]``: the target gene, or ``control``,
        - ``obs["guide"]``, ``obs["replicate"]``: pair of guides and gem group, if present,
        - ``uns["published"]``: ``doi`` and ``source``.

    Raises
    ------
    FileNotFoundError
        If ``path`` does not exist.
    ValueError
        If the file is damaged, or has no column of labels.

    Examples
    --------
    >>> import nextpert as npt
    >>> cells = npt.datasets.replogle_2022("K562_essential.h5ad")  # doctest: +SKIP
    >>> screen = npt.pp.perturbation_screen(  # doctest: +SKIP
    ...     cells, gene_symbols="gene_name", batch_key="replicate", guide_key="guide", copy=True
    ... )
    """
    from nextpert.datasets._published import Layout, read_published

    layout = Layout(
        labels=("gene", "perturbation"),
        to_label=lambda text: "control" if text in _CONTROLS else text,
        guides=("sgID_AB", "guide_id"),
        replicates=("gem_group", "gemgroup", "batch"),
    )
    return read_published(path, None, None, layout, "10.1016/j.cell.2022.05.013", backed=True)
