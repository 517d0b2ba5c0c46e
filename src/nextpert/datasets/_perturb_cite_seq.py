"""The Perturb-CITE-seq screen of Frangieh et al. 2021."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nextpert._adata.arguments import checked
from nextpert.datasets._fetch import RemoteFile, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

SCPERTURB = RemoteFile(  # with the MD5 of Zenodo's record, which has no SHA-256
    "FrangiehIzar2021_RNA.h5ad",
    "https://zenodo.org/records/10044268/files/FrangiehIzar2021_RNA.h5ad",
    "md5:dc438f53c476a3dd562898654d48ed15",
)
_BY_HAND = (
    "download it by hand (1.5 GB, no sign-in) and pass its path as `source`, pass the folder of "
    "the Single Cell Portal's files (SCP1064, with sign-in), or try the analysis on a simulated "
    "study written by npt.datasets.perturb_cite_seq_standin(folder)"
)


@checked()
def perturb_cite_seq(
    source: str | os.PathLike[str] | AnnData | None = None,
    *,
    subset: str | Sequence[str] | None = None,
    condition: str | Sequence[str] | None = None,
    genes: Sequence[str] | str | None = None,
    counts: bool = False,
    protein: str | os.PathLike[str] | AnnData | None = None,
    cache: str | os.PathLike[str] | None = None,
    verify: bool = True,
) -> AnnData:
    r"""Load the Perturb-CITE-seq screen of Frangieh et al. 2021 (doi:10.1038/s41588-021-00779-1).

    The screen has 218,331 melanoma cells with knockouts of 248 genes, alone, with IFNγ and in
    co-culture, and 23,712 genes. Zhang et al. 2023 (doi:10.1038/s42256-023-00719-0) analysed it.
    Without ``source``, scPerturb's h5ad (RNA; Peidli et al. 2024, doi:10.1038/s41592-023-02144-y)
    is downloaded once from Zenodo (1.5 GB, no sign-in). The files of the Single Cell Portal
    (SCP1064) need a sign-in. :func:`perturb_cite_seq_standin` writes a small simulated study. The
    values are :math:`x = \ln(1 + 10^6\, c / u)` for a gene's UMI count :math:`c` in a cell with
    :math:`u` UMI; all cells need about 10 GB. The next step is
    :func:`nextpert.pp.perturb_cite_seq`.

    Parameters
    ----------
    source
        ``None`` (default): scPerturb's file, from the cache or from Zenodo, checked by its MD5. An
        AnnData or the path of an h5ad: scPerturb's ``FrangiehIzar2021_RNA``, pertpy's
        ``frangieh_2021_rna``, or one that this function made. Or the folder of the portal's files,
        gzipped or not: ``RNA_expression.csv.gz`` or the six subset files, ``RNA_metadata.csv``
        and ``all_sgRNA_assignments.txt``; optionally ``raw_CITE_expression.csv.gz``.
    subset
        Subset files to read (``"1a"``, ``"1b_alpha"``, ``"1b_beta"``, ``"2"``, ``"3"``, ``"4"``),
        six consecutive blocks of cells. By default the full file, or all six if that is absent.
    condition
        ``"Control"``, ``"IFNγ"``, ``"Co-culture"``, or several of them; by default all.
    genes
        Genes to keep, in this order; by default all, in the order of the file. ``"zhang2023"``
        stands for the 36 genes of Zhang et al. 2023.
    counts
        Whether to restore the integer counts to ``layers["counts"]``.
    protein
        Raw counts, cells x antibodies, as an AnnData or the path of an h5ad: scPerturb's
        ``FrangiehIzar2021_protein``, or the protein part of a MuData. The portal's folder has them.
    cache
        Folder that keeps the download; by default the user's cache folder.
    verify
        Whether to check that the values of every cell are whole counts that sum to a million.

    Returns
    -------
    ~anndata.AnnData
        ``X``: :math:`\ln(1 + \mathrm{TPM})`, float32 CSR, cells x genes, with

        - ``layers["counts"]``: int32 CSR, with ``counts`` only,
        - ``obs``: ``perturbation`` (the sorted target genes joined by ``+``, ``no_guide``, or
          ``control_guide``), ``condition``, ``MOI``, ``sgRNA``, ``guides`` (joined by ``,``),
          ``UMI_count``, ``library_preparation_protocol``, ``n_guides`` and ``n_targets``,
        - ``obsm["protein"]``: centred log ratios (``ln(1 + count)`` less its mean over antibodies),
          cells x antibodies; NaN for cells without; only if the source has proteins,
        - ``uns["guides"]``: table of guides, in the layout of :func:`nextpert.pp.assign_guides`,
        - ``uns["perturb_cite_seq"]``: the source, its checksums and the options.

    Raises
    ------
    FileNotFoundError
        If a file or folder is absent.
    ConnectionError
        If the file cannot be downloaded; the error says how to get the data.
    ValueError
        If a file is damaged or belongs to another study, or a condition, gene or subset is unknown.

    Examples
    --------
    >>> import nextpert as npt
    >>> npt.datasets.perturb_cite_seq(condition="Control", genes="zhang2023")  # doctest: +SKIP
    AnnData object with n_obs × n_vars = 57627 × 36
    """
    from nextpert._adata import in_order, list_names
    from nextpert._adata.panel import PANELS
    from nextpert.datasets._portal import read_portal
    from nextpert.datasets._scp1064 import Options, opened, proteins_of, read_object

    if isinstance(genes, str):
        if genes not in PANELS:
            message = f"genes must be a list of gene names, but is a string: use [{genes!r}]."
            raise TypeError(message)
        genes = PANELS[genes]
    if genes is not None:
        genes = [str(name) for name in in_order(genes)]
        if not genes or len(set(genes)) < len(genes):
            message = f"genes must name genes, each once, but is {list_names(genes) or '[]'}."
            raise ValueError(message)
    options = Options(condition, genes, counts, verify)
    if isinstance(source, (str, os.PathLike)) and not Path(source).is_file():
        result = read_portal(source, subset, options).to_anndata(options)
    elif subset is not None:
        message = "subset names files of the portal's folder: leave it out for an h5ad."
        raise ValueError(message)
    else:
        readable = fetch(SCPERTURB, cache, _BY_HAND) if source is None else source
        with opened(readable) as (adata, name):
            result = read_object(adata, name, options).to_anndata(options)
    if protein is not None:
        result.obsm["protein"] = proteins_of(protein, result.obs_names)
    return result
