"""Attacks on showing, observing, loading and files, for ``benchmarks.attacks``."""

from __future__ import annotations

import copy
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import nextpert as npt
from nextpert import _files
from nextpert.campaign.file import _STAMP, read_campaign

if TYPE_CHECKING:
    from collections.abc import Callable

    Case = tuple[str, Callable[[], Any], tuple[str, ...], ad.AnnData | None]

_HELD = tempfile.TemporaryDirectory(prefix="attacks")  # removed when Python ends
FOLDER = Path(_HELD.name)
BLANK = (np.nan, None, "", " ", pd.NA)
OTHER = ("does not belong", "have changed", "changed since", "other cells", "is damaged")


def _drawn(plot: Callable[..., Any], adata: ad.AnnData) -> None:
    try:
        plot(adata, show=False)
    finally:
        plt.close("all")


def readers() -> dict[str, Callable[[ad.AnnData], Any]]:
    """Return the calls that show results."""
    plots = (npt.pl.dag, npt.pl.design, npt.pl.perturbation_effects, npt.pl.programs)
    return {
        "get.effects_df": npt.get.effects_df, "get.plan_df": npt.get.plan_df,
        "get.ranking_df": npt.get.ranking_df, "get.order_df": npt.get.order_df,
        "get.fitted_perturbations": npt.get.fitted_perturbations,
        "summary": lambda adata: str(npt.summary(adata)),
        "report": lambda adata: npt.report(adata, FOLDER / "page.html").read_text("utf-8"),
        **{f"pl.{plot.__name__}": partial(_drawn, plot) for plot in plots},
    }  # fmt: skip


def _says(found: Any) -> Any:
    """Warn with the banner of a page or summary, which says it in place of a warning."""
    if isinstance(found, str) and any(words in found for words in OTHER):
        npt._warn.warn(next(words for words in OTHER if words in found))


def shown(rng: np.random.Generator, base: ad.AnnData) -> Case:
    """Change the cells, and show a result."""
    adata = base.copy()
    name = str(rng.choice(list(readers())))
    what = str(rng.choice(["label", "guide", "value", "cell", "column", "gene", "matrix", "name"]))
    if what in ("label", "guide"):
        key = "perturbation" if what == "label" else "guide"
        column = adata.obs[key].to_numpy(object).copy()
        a, b = rng.choice(pd.unique(column), 2, replace=False)
        adata.obs[key] = np.where(column == a, b, np.where(column == b, a, column))
    elif what == "value":
        adata.X[rng.integers(adata.n_obs), rng.integers(8)] += rng.choice([1e-6, 1.0, np.nan])
    elif what == "cell":
        adata = adata[rng.permutation(adata.n_obs)[: -rng.integers(1, 50)]].copy()
    elif what == "column":
        del adata.obs[str(rng.choice(["perturbation", "guide", "batch"]))]
    elif what == "gene":
        adata = adata[:, adata.var_names != f"G{rng.integers(8)}"].copy()
    elif what == "matrix":
        adata.X = adata.X[rng.permutation(adata.n_obs)]
    else:
        adata.obs_names = [f"{x}-1" for x in adata.obs_names]
    words = (*OTHER, "genes", "missing", "perturbation", "guide", "batch")
    return f"{name}, {what}", lambda: _says(readers()[name](adata)), words, None


def damaged(rng: np.random.Generator, base: ad.AnnData) -> Case:
    """Damage a stored result, and show it."""
    adata, name = base.copy(), str(rng.choice(list(readers())))
    key = str(rng.choice(["dag_blr", "plan", "design", "perturbation_effects"]))
    parent: Any = adata.uns
    path = [key]
    while isinstance(parent[path[-1]], dict) and (len(path) < 2 or rng.random() < 0.5):
        parent = parent[path[-1]]
        path.append(str(rng.choice(sorted(parent))))
    what = str(rng.choice(["gone", "other", "text"]))
    if what == "gone":
        del parent[path[-1]]
    else:
        parent[path[-1]] = (
            "damaged" if what == "text" else [np.arange(3), {"a": 1}][rng.integers(2)]
        )

    def call() -> Any:
        show = readers()[name]
        with np.errstate(all="ignore"):
            found, sound = show(adata), show(base)
        _says(found)
        if isinstance(found, pd.DataFrame):
            return [np.array(1)] if found.equals(sound) else None
        # A result that is absent is listed on the page; a plot has no values to compare.
        absent = isinstance(found, str) and key in found and found != sound
        return [np.array(1)] if found is None or found == sound or absent else None

    words = (*path, *OTHER, "plan", "posterior", "ranking", "effects", "fit")
    return f"{name}, {'/'.join(path)} {what}", call, words, None


def _odd(rng: np.random.Generator, new: ad.AnnData, what: str) -> Any:
    """Return cells that cannot be observed."""
    x, obs = new.X, new.obs
    scales = {
        "log2": lambda: x / np.log(2), "z": lambda: (x - x.mean(axis=0)) / x.std(axis=0),
        "root": lambda: np.sqrt(np.abs(x)), "centred": lambda: x - x.mean(axis=0),
        "times 10": lambda: 10 * x, "counts": lambda: np.round(np.expm1(x)),
        "infinite": lambda: np.where(rng.random(x.shape) < 0.01, rng.choice([np.inf, np.nan]), x),
    }  # fmt: skip
    others = {"frame": new.to_df, "none": lambda: None, "path": lambda: "cells.h5ad",
              "list": lambda: [new], "array": lambda: x}  # fmt: skip
    if what in scales:
        new.X = scales[what]()
    elif what in others:
        return others[what]()
    elif what == "no cells":
        return new[:0].copy()
    elif what == "no matrix":
        new.X = None
    elif what == "column":
        del new.obs["perturbation"]
    elif what == "blank":
        obs["perturbation"] = BLANK[rng.integers(5)]
    elif what == "numbers":
        obs["perturbation"] = rng.normal(size=len(obs))
    elif what == "gene":
        return new[:, new.var_names != f"G{rng.integers(8)}"].copy()
    elif what == "twice":
        new.var_names = ["G0", *new.var_names[:-1]]
    elif what == "other genes":
        new.var_names = [f"X{k}" for k in range(8)]
    elif what == "text":
        return ad.AnnData(x.astype(str).astype(object), obs, new.var)
    else:  # no controls
        return new[(obs["perturbation"] != "control").to_numpy()].copy()
    return new


ODD = ("log2", "z", "root", "centred", "times 10", "counts", "infinite", "frame", "none", "path",
       "list", "array", "no cells", "no matrix", "column", "blank", "numbers", "gene", "twice",
       "other genes", "text", "no controls", "again", "batch")  # fmt: skip


def observed(rng: np.random.Generator, base: npt.Campaign, cells: Callable[..., Any]) -> Case:
    """Observe cells that do not belong to a campaign; nothing may change."""
    campaign, what = copy.copy(base), ODD[rng.integers(len(ODD))]
    options: dict[str, Any] = {}
    if what == "again":
        given: Any = base.adata.copy()
    elif what == "batch":
        given = cells(int(rng.integers(1000)))
        options["batch"] = [3, np.nan, "", [1], " "][rng.integers(5)]
    else:
        given = _odd(rng, cells(int(rng.integers(1000))), what)

    def call() -> Any:
        before = campaign.history
        try:
            campaign.observe(given, **options)
        except Exception:
            if not before.equals(campaign.history):
                return [np.array(0)]  # changed on error: counted as silent
            raise

    words = ("cells", "scale", "perturbation", "control", "G", "batch", "gene", "values")
    return what, call, words, None


def campaign_file(rng: np.random.Generator, sound: Path) -> Case:
    """Damage the file of a campaign, load it, and use it."""
    content, path = bytearray(sound.read_bytes()), FOLDER / "damaged.h5ad"
    what = str(rng.choice(["cut", "byte", "block", "part", "part", "column", "kind", "name"]))
    given: Any = path
    if what == "cut":
        path.write_bytes(content[: rng.integers(len(content))])
    elif what in ("byte", "block"):
        at = int(rng.integers(len(content)))
        for i in range(at, min(at + (1 if what == "byte" else 512), len(content))):
            content[i] ^= 0x55
        path.write_bytes(content)
    elif what == "name":
        folder = FOLDER / "folder.h5ad"
        folder.mkdir(exist_ok=True)
        choices = [folder, FOLDER / "absent.h5ad", 3, None, "", "a\0b.h5ad", FOLDER / "x.txt"]
        given = choices[rng.integers(len(choices))]
    elif what == "kind":
        path.write_bytes([b"", b"text", bytes(4096), b"\x89HDF\r\n\x1a\n"][rng.integers(4)])
    else:
        adata, stamp = read_campaign(sound)
        if what == "column":
            column = str(rng.choice(["perturbation", "guide", "batch", "all"]))
            adata.obs = adata.obs[[] if column == "all" else adata.obs.columns.drop(column)]
            what = f"column {column}"
        else:
            key = str(rng.choice(["dag_blr", "screen", "campaign", "design", "X"]))
            if key == "X":
                adata.X = None
            else:
                del adata.uns[key]
            what = f"part {key}"
        text = npt.campaign.file.json.dumps({"format": npt.campaign.file.FORMAT, **stamp._asdict()})
        _files.write_adata(adata, path, {_STAMP: text}, sealed=True)

    def call() -> Any:
        campaign = npt.Campaign.load(given)
        str(campaign)
        campaign.propose(1, 100)

    words = ("campaign", "path", "damaged.h5ad", "cells", "uns[")
    return what, call, words, None


def loaded(rng: np.random.Generator, base: ad.AnnData) -> Case:
    """Load data from an odd argument or file, or write to an odd place."""
    adata, path = base.copy(), FOLDER / f"features{rng.integers(10**6)}"
    what = str(rng.choice(["features", "source", "standin", "simulated", "report", "tapseq"]))
    call: Callable[[], Any]
    words: tuple[str, ...] = (what, str(path), path.name)
    if what == "features":
        path = path.with_suffix(str(rng.choice([".gmt", ".csv", ".tsv", ".h5ad", ".zarr", ".x"])))
        contents = (
            b"",
            b"\x00\xff\xfe",
            b"a,b\nG0",
            b"\x89HDF\r\n\x1a\n",
            b"one\n",
            os.urandom(99),
        )
        path.write_bytes(contents[rng.integers(6)])
        call, words = partial(npt.tl.fit_dag_blr, adata, features=path), ("features",)
    elif what in ("source", "tapseq"):
        path.mkdir()
        name = ("RNA_metadata.csv", "gRNA_counts.h5ad", "gene_expression_counts.csv")
        for each in name:
            (path / each).write_bytes((b"", b"\xff\xfe", b"NAME,x\n1")[rng.integers(3)])
        file = FOLDER / "cut.h5ad"
        file.write_bytes(b"\x89HDF\r\n\x1a\n")
        sources = (path, file, FOLDER / "absent", 3, adata, "", ["a"])
        call = partial(npt.datasets.perturb_cite_seq, sources[rng.integers(7)])
        words = (*words, "folder", "source", "h5ad", *name, "adata", "obs")
        if what == "tapseq":
            wrong = (-1, 1.5, "many", None, np.nan)
            call = partial(npt.datasets.schraivogel_2020, path, min_umi=wrong[rng.integers(5)])
            words = (*words, "min_umi")
    elif what == "standin":
        (FOLDER / "file").touch()
        places = (FOLDER / "file", 3, None, "a\0b", FOLDER / "file" / "below")
        call = partial(npt.datasets.perturb_cite_seq_standin, places[rng.integers(5)])
        words = ("folder", "file", "below")
    elif what == "simulated":
        names = ("n_genes", "n_control", "n_perturbed", "perturbed", "expected_degree")
        name_ = str(rng.choice(names))
        wrong_ = (-1, 1.5, "many", np.nan, 10**30, [None])
        call = partial(npt.datasets.simulated_screen, **{name_: wrong_[rng.integers(6)]})
        words = names
        if name_ == "expected_degree":
            call = partial(npt.datasets.simulated_screen, expected_degree=-rng.random())
    else:
        (FOLDER / "file").touch()
        (FOLDER / "folder.html").mkdir(exist_ok=True)
        places = (FOLDER / "folder.html", FOLDER / "file" / "x.html", "a\0b.html", 3)
        call = partial(npt.report, adata, places[rng.integers(4)])
        words = ("path", "folder", "file", "html")
    return what, call, words, None
