"""Published screens in the layouts of scPerturb and pertpy, with labels as nextpert reads them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anndata as ad
import pandas as pd

from nextpert._adata import list_names
from nextpert.datasets._fetch import RemoteFile, fetch
from nextpert.datasets._scp1064 import open_h5ad, opened

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

# scPerturb (Peidli et al. 2024, doi:10.1038/s41592-023-02144-y), CC BY 4.0, with MD5 of the record.
_RECORD = "https://zenodo.org/records/13350497/files"


class Layout(NamedTuple):
    """Columns of ``obs`` by role, the first that is present; how labels follow from one of them."""

    labels: tuple[str, ...]
    to_label: Callable[[str], str]
    guides: tuple[str, ...] = ()
    replicates: tuple[str, ...] = ()


def scperturb_file(name: str, md5: str) -> RemoteFile:
    """Return a file of scPerturb's record."""
    return RemoteFile(name, f"{_RECORD}/{name}", f"md5:{md5}")


def read_published(
    path: str | os.PathLike[str] | ad.AnnData | None,
    cache: str | os.PathLike[str] | None,
    remote: RemoteFile | None,
    layout: Layout,
    doi: str,
    *,
    backed: bool = False,
) -> ad.AnnData:
    """Return a screen with ``obs["perturbation"]``, ``"guide"`` and ``"replicate"``.

    Raises
    ------
    ConnectionError
        If the file cannot be downloaded.
    FileNotFoundError
        If there is no such file.
    ValueError
        If a download is damaged, or no column of labels is present.
    """
    source: str | os.PathLike[str] | ad.AnnData
    if path is None:
        if remote is None:
            raise ValueError("path must name an h5ad file of the screen, which is not downloaded.")
        source = fetch(remote, cache, "download it by hand and pass its path")
    elif not isinstance(path, ad.AnnData) and not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r}: pass the path of an h5ad file.")
    else:
        source = path
    if backed and not isinstance(source, ad.AnnData):
        found, name = open_h5ad(Path(source)), Path(source).name
    else:
        with opened(source) as (adata, name):
            found = adata.to_memory() if adata.isbacked else adata.copy()
    obs = found.obs
    labels = _first(obs, layout.labels)
    if labels is None:
        message = (
            f"{name!r} has none of the columns {list_names(layout.labels)} in obs: pass the screen "
            f"in the layout of scPerturb or pertpy (of a MuData, the modality of the RNA)."
        )
        raise ValueError(message)
    guides, replicates = (_first(obs, names) for names in (layout.guides, layout.replicates))
    obs["perturbation"] = labels.map({x: layout.to_label(x) for x in labels.unique()}).astype(
        "category"
    )
    for role, column in (("guide", guides), ("replicate", replicates)):
        if column is not None:
            obs[role] = column.astype("category")
    found.uns["published"] = {"doi": doi, "source": name}
    return found


def _first(obs: pd.DataFrame, names: tuple[str, ...]) -> pd.Series | None:
    """Return the first column that is present, as text without missing values."""
    for name in names:
        if name in obs:
            column = obs[name].astype(object)
            return column.where(column.notna(), "unassigned").astype(str)
    return None
