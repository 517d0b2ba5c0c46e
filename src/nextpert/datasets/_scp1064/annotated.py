"""The study as one h5ad (scPerturb's, pertpy's, or written by this package): its cells' labels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata import list_names
from nextpert._warn import warn
from nextpert.datasets._scp1064.study import (
    CONTROL_GUIDE,
    NO_GUIDE,
    guide_table,
    perturbation_columns,
)

if TYPE_CHECKING:
    from anndata import AnnData

_NONE = ("", "nan", "None", "NaN", "<NA>")
_CONTROLS = ("control", "ctrl", "non-targeting", NO_GUIDE, CONTROL_GUIDE)


def study_of(adata: AnnData) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the columns of ``obs`` in the shape of the portal's, and the table of guides.

    scPerturb's ``perturbation`` names one target of a cell and calls a cell with targeting and
    control guides a control, so that the labels follow from ``guide_id`` where it is there.
    """
    obs = adata.obs
    names = _text(obs, ["cell_name"]) if "cell_name" in obs else adata.obs_names
    index = pd.Index(names).rename(None)
    if not index.is_unique:
        message = "adata names cells more than once: call adata.obs_names_make_unique() first."
        raise ValueError(message)
    study = pd.DataFrame(index=index)
    study["condition"] = _text(obs, ["condition", "perturbation_2"], needed=True)
    study["sgRNA"] = _text(obs, ["sgRNA"])
    listed = _text(obs, ["guides", "guide_id"])
    has_list = any(name in obs for name in ("guides", "guide_id"))
    called = [_split(text) for text in (listed if has_list else study["sgRNA"])]
    guides = guide_table({name for some in called for name in some}, "adata.obs")
    labels = perturbation_columns(called, guides).set_index(index)
    if not has_list:
        _labels_without_list(labels, obs)
    moi = _numbers(obs, ["MOI"])
    study["MOI"] = np.where(np.isnan(moi), labels["n_guides"], moi).astype(np.int64)
    study["UMI_count"] = _numbers(obs, ["UMI_count", "ncounts"])
    study["library_preparation_protocol"] = _text(obs, ["library_preparation_protocol"])
    return study.join(labels), guides


def _labels_without_list(labels: pd.DataFrame, obs: pd.DataFrame) -> None:
    """Take the labels of cells that are not known to bear one guide from ``perturbation``."""
    column = _text(obs, ["perturbation"], needed=True)
    n_guides = _numbers(obs, ["MOI", "nperts"])
    names = labels["perturbation"].astype(str).to_numpy(dtype=object)
    unclear = (labels["n_guides"] == 0).to_numpy()
    n_targets = labels["n_targets"].to_numpy().copy()
    for i in np.flatnonzero(unclear):
        targets = sorted({t for t in re.split(r"[+_;,]", column[i]) if t} - set(_CONTROLS))
        if column[i] in (*_CONTROLS, "") or not targets:
            names[i] = CONTROL_GUIDE if n_guides[i] >= 1 else NO_GUIDE
        else:
            names[i], n_targets[i] = "+".join(targets), len(targets)
    labels["perturbation"] = pd.Categorical(names)
    labels["n_targets"] = n_targets
    known = np.nan_to_num(n_guides, nan=0).astype(np.int64)
    labels["n_guides"] = np.maximum(np.maximum(known, n_targets), labels["n_guides"])
    message = (
        "adata.obs has no list of guides ('guide_id'): the labels of cells with several guides are "
        "those of adata.obs['perturbation'], which may name one of several targets only."
    )
    warn(message)


def gene_names(adata: AnnData) -> list[str]:
    """Return the genes' symbols."""
    names = [str(name) for name in adata.var_names]
    if all(name.startswith("ENSG") for name in names):
        for column in ("gene_symbol", "gene_symbols", "gene_name"):
            if column in adata.var:
                names = [str(name) for name in adata.var[column]]
                break
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(twice):
        message = (
            f"adata names genes more than once: {list_names(twice)}. Drop the copies, or call "
            "adata.var_names_make_unique() first."
        )
        raise ValueError(message)
    return names


def embeddings_of(
    adata: AnnData, study: pd.Index, rows: pd.Index, *, protein: bool
) -> dict[str, Any]:
    """Return the UMAP and the proteins of some cells, where the object has them."""
    place = study.get_indexer(rows)
    obsm: dict[str, Any] = {}
    if "X_umap" in adata.obsm:
        obsm["X_umap"] = np.asarray(adata.obsm["X_umap"])[place].astype(np.float32)
    elif {"umap_x", "umap_y"} <= set(adata.obs):
        xy = adata.obs[["umap_x", "umap_y"]].to_numpy(dtype=np.float32)
        obsm["X_umap"] = xy[place]
    if protein and "protein" in adata.obsm:
        found = adata.obsm["protein"]
        table = found if isinstance(found, pd.DataFrame) else pd.DataFrame(np.asarray(found))
        table = table.iloc[place].set_axis(rows).astype(np.float32)
        obsm["protein"] = table.set_axis([str(name) for name in table.columns], axis=1)
    return obsm


def _text(obs: pd.DataFrame, names: list[str], *, needed: bool = False) -> np.ndarray:
    """Return the first of some columns that is there as text, ``""`` where it is missing."""
    for name in names:
        if name in obs:
            values = obs[name].astype(object).where(obs[name].notna(), "").astype(str)
            return values.where(~values.isin(_NONE), "").to_numpy(dtype=object)
    if needed:
        message = (
            f"adata.obs lacks {' and '.join(repr(name) for name in names)}; it holds "
            f"{list_names(obs.columns) or 'no column'}. Is this the Perturb-CITE-seq study "
            "(scPerturb's FrangiehIzar2021_RNA, pertpy's frangieh_2021_rna)?"
        )
        raise ValueError(message)
    return np.full(len(obs), "", dtype=object)


def _numbers(obs: pd.DataFrame, names: list[str]) -> np.ndarray:
    for name in names:
        if name in obs:
            values = pd.to_numeric(obs[name].astype(object), errors="coerce")
            return values.to_numpy(dtype=np.float64)
    return np.full(len(obs), np.nan)


def _split(text: str) -> list[str]:
    found = [name.strip() for name in re.split("[;,]", text)]
    return [name for name in dict.fromkeys(found) if name not in _NONE]
