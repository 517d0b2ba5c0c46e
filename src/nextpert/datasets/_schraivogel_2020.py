"""The TAP-seq screen of Schraivogel et al. 2020."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._adata.arguments import checked
from nextpert.datasets._fetch import RemoteFile, fetch

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from anndata import AnnData
    from scipy.sparse import csr_matrix

_ORIGIN = "https://raw.githubusercontent.com/velten-group/crispat"
COUNTS = RemoteFile(
    "gene_expression_counts.csv",
    f"{_ORIGIN}/b6b4ed5594ae11f52131d5c5a855d376e785d86d"
    "/example_data/Schraivogel/gene_expression_counts.csv",
    "sha256:41468aa891cb97140660edf0d4d2cb6dd435fa42b5f92d954f31082c142ec807",
)
GUIDES = RemoteFile(
    "gRNA_counts.h5ad",
    f"{_ORIGIN}/0c2acf67d37dc2e8c5fe3a50927fc1fea340eee8/example_data/Schraivogel/gRNA_counts.h5ad",
    "sha256:6452607435b54236dc974530fcb90f468782682cdeba4da677f560affb723003",
)
# CROPseq_dCas9_DS_CCNE2_+_95907328.23-P1P2, ..._GATA1-A, ..._non-targeting_00012
_GUIDE = re.compile(
    r"CROPseq_dCas9_DS_(?P<target>non-targeting(?=_)|[A-Za-z0-9]+(?=_[+-]_|-[A-Z]$))"
)


@checked()
def schraivogel_2020(
    cache: str | os.PathLike[str] | None = None,
    *,
    min_umi: int = 5,
) -> AnnData:
    """Load the TAP-seq screen of Schraivogel et al. 2020 (doi:10.1038/s41592-020-0837-5).

    The CRISPRi screen has 14 targets (13 genes and the enhancer HS2), 72 genes read by targeted
    sequencing, and 21,977 cells, 7,760 of which carry one non-targeting guide. The files are those
    of velten-group/crispat on GitHub (MIT licence). They are downloaded once to a cache, and
    checked by their SHA-256. A guide with at least ``min_umi`` UMI in a cell is called there.

    Parameters
    ----------
    cache
        Folder with ``gene_expression_counts.csv`` and ``gRNA_counts.h5ad``, or to which they are
        downloaded; by default the user's cache folder.
    min_umi
        Minimum UMI count for a guide to be called in a cell.

    Returns
    -------
    ~anndata.AnnData
        Raw UMI counts, float32 CSR of shape ``(21977, 72)``, cells x genes, with

        - ``obs["perturbation"]``: the target of the only guide called, ``non-targeting`` (the
          controls), ``multi`` (more than one guide) or ``unassigned`` (none),
        - ``obs["n_guides"]``, ``obs["guides"]`` (joined by ``;``), ``obs["targets"]`` (sorted and
          unique, joined by ``_``), ``obs["batch"]``,
        - ``uns["schraivogel_2020"]``: ``doi`` and ``min_umi``.

    Raises
    ------
    ConnectionError
        If a file cannot be downloaded.
    ValueError
        If a download is corrupted, or ``min_umi`` is below 1.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.schraivogel_2020()  # doctest: +SKIP
    >>> adata.obs["perturbation"].value_counts()["non-targeting"]  # doctest: +SKIP
    7760
    """
    import anndata as ad
    import pandas as pd
    import scipy.sparse as sp

    counts = pd.read_csv(fetch(COUNTS, cache), index_col=0).rename_axis(index=None)
    guides = ad.read_h5ad(fetch(GUIDES, cache))[counts.index]
    umi = sp.csr_matrix(guides.X, copy=True)
    umi.sum_duplicates()
    called = sp.csr_matrix(umi >= min_umi)
    called.sort_indices()
    obs = pd.DataFrame(index=counts.index)
    if "batch" in guides.obs:
        obs["batch"] = guides.obs["batch"].astype(str).astype("category")
    for name, column in _call_guides(called, list(guides.var_names)).items():
        obs[name] = column
    return ad.AnnData(
        sp.csr_matrix(counts.to_numpy(dtype=np.float32)),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(counts.columns.astype(str))),
        uns={"schraivogel_2020": {"doi": "10.1038/s41592-020-0837-5", "min_umi": int(min_umi)}},
    )


def _call_guides(called: csr_matrix, names: Sequence[str]) -> dict[str, Any]:
    """Return the obs columns that follow from the guides called, cells x guides (CSR)."""
    import pandas as pd

    targets = [_GUIDE.findall(name)[0] for name in names]
    guide_lists, target_lists, labels = [], [], []
    for start, stop in zip(called.indptr[:-1], called.indptr[1:], strict=True):
        guides = called.indices[start:stop]
        guide_lists.append(";".join(names[j] for j in guides))
        target_lists.append("_".join(sorted({targets[j] for j in guides})))
        labels.append({0: "unassigned", 1: target_lists[-1]}.get(len(guides), "multi"))
    return {
        "n_guides": np.diff(called.indptr).astype(np.int64),
        "guides": pd.Categorical(guide_lists),
        "targets": pd.Categorical(target_lists),
        "perturbation": pd.Categorical(labels),
    }
