"""Attacks on showing, observing, loading and files, for ``benchmarks.attacks``."""

from __future__ import annotations

import copy
import html
import re
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
from nextpert._adata.stored import with_parts
from nextpert.campaign.file import _STAMP, read_campaign

if TYPE_CHECKING:
    from collections.abc import Callable

    Case = tuple[str, Callable[[], Any], tuple[str, ...], ad.AnnData | None]

_HELD = tempfile.TemporaryDirectory(prefix="attacks")  # removed when Python ends
FOLDER = Path(_HELD.name)
BLANK = (np.nan, None, "", " ", pd.NA)
OTHER = re.compile(r"[^\n]*(?:do(?:es)? not belong|ha(?:s|ve) changed|is damaged)[^\n]*")


def _drawn(plot: Callable[..., Any], adata: ad.AnnData) -> np.ndarray:
    """Return the pixels of a plot."""
    try:
        canvas = plot(adata, show=False, return_fig=True).canvas
        canvas.draw()
        return np.array(canvas.buffer_rgba())
    finally:
        plt.close("all")


def readers() -> dict[str, Callable[[ad.AnnData], Any]]:
    """Return the calls that show results."""
    plots = (
        npt.pl.dag, npt.pl.design, npt.pl.perturbation_effects, npt.pl.programs, npt.pl.plan_screen,
    )  # fmt: skip
    return {
        "get.effects_df": npt.get.effects_df, "get.plan_df": npt.get.plan_df,
        "get.ranking_df": npt.get.ranking_df, "get.order_df": npt.get.order_df,
        "get.fitted_perturbations": npt.get.fitted_perturbations,
        "summary": lambda adata: str(npt.summary(adata)),
        "report": lambda adata: npt.report(adata, FOLDER / "page.html").read_text("utf-8"),
        **{f"pl.{plot.__name__}": partial(_drawn, plot) for plot in plots},
    }  # fmt: skip


def _says(found: Any) -> None:
    """Warn with the banner of a page or summary, which says it in place of a warning."""
    if isinstance(found, str):
        lines = html.unescape(re.sub(r"<[^>]+>", "\n", found))
        if "Results in adata" in found:  # a fact takes several lines
            lines = " ".join(lines.split())
        if banner := OTHER.search(lines):
            npt._warn.warn(banner.group())


_SOUND: dict[str, Any] = {}


def _sound(name: str, base: ad.AnnData) -> Any:
    """Return what a reader shows of the sound results, computed once."""
    if name not in _SOUND:
        _SOUND[name] = readers()[name](base)
    return _SOUND[name]


def _is_same(found: Any, sound: Any) -> bool:
    """Whether two tables, pages or drawings are equal."""
    if isinstance(found, pd.DataFrame):
        return bool(found.equals(sound))
    return np.array_equal(found, sound) if isinstance(found, np.ndarray) else found == sound


def shown(rng: np.random.Generator, base: ad.AnnData) -> Case:
    """Change the cells, and show a result."""
    adata = base.copy()
    name = str(rng.choice(list(readers())))
    what = str(rng.choice(["label", "guide", "value", "cell", "column", "gene", "matrix", "name"]))
    if name == "pl.plan_screen" and rng.random() < 0.5:
        name += ", empty"
        adata.uns["plan"] = with_parts(
            adata.uns["plan"] | {"plate": adata.uns["plan"]["plate"].head(0)}
        )
    word = {"value": "adata.X", "matrix": "adata.X", "cell": "names", "name": "names"}.get(what, "")
    if what in ("label", "guide"):
        key = word = "perturbation" if what == "label" else "guide"
        column = adata.obs[key].to_numpy(object).copy()
        a, b = rng.choice(pd.unique(column), 2, replace=False)
        adata.obs[key] = np.where(column == a, b, np.where(column == b, a, column))
    elif what == "value":
        adata.X[rng.integers(adata.n_obs), rng.integers(8)] += rng.choice([1e-6, 1.0, np.nan])
    elif what == "cell":
        adata = adata[rng.permutation(adata.n_obs)[: -rng.integers(1, 50)]].copy()
    elif what == "column":
        word = str(rng.choice(["perturbation", "guide", "batch"]))
        del adata.obs[word]
    elif what == "gene":
        word = f"G{rng.integers(8)}"
        adata = adata[:, adata.var_names != word].copy()
    elif what == "matrix":
        adata.X = adata.X[rng.permutation(adata.n_obs)]
    else:
        adata.obs_names = [f"{x}-1" for x in adata.obs_names]
    show = readers()[name.removesuffix(", empty")]
    return f"{name}, {what}", lambda: _says(show(adata)), (word,), None


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
        with np.errstate(all="ignore"):
            found = readers()[name](adata)
        _says(found)
        return [np.array(1)] if _is_same(found, _sound(name, base)) else None

    return f"{name}, {'/'.join(path)} {what}", call, (f"uns[{key!r}]",), None


def logged_counts(seed: int = 0) -> ad.AnnData:
    """Return log1p of the counts of a small screen, scaled to 1,000 in total."""
    rng = np.random.default_rng(seed)
    names = ["G0", "G1", "G2", "G0+G1"]
    label = np.repeat(["control", *names], [120, 30, 30, 30, 30])
    rate = np.tile([1.0, 2, 4, 3, 6, 1.5, 3, 2], (len(label), 1))
    for j, name in enumerate(names):
        rate[label == name] *= np.random.default_rng(j).lognormal(0, 0.5, 8)
    counts = rng.poisson(rate * rng.lognormal(0, 0.3, (len(label), 1)))
    counts[:, 4] += 1  # no empty cell
    obs = pd.DataFrame({"perturbation": label}, index=[f"{seed}-{i}" for i in range(len(label))])
    obs["guide"] = [f"{name}_{i % 3}" for i, name in enumerate(label)]
    obs["batch"] = rng.choice(["a", "b"], len(label))
    x = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e3)
    return ad.AnnData(x, obs, pd.DataFrame(index=[f"G{k}" for k in range(8)]))


def _odd(rng: np.random.Generator, new: ad.AnnData, what: str) -> tuple[Any, str]:
    """Return cells that cannot be observed, and the name of what is wrong."""
    x, obs = new.X, new.obs
    gene = f"G{rng.integers(8)}"
    scales = {
        "log2": lambda: x / np.log(2), "z": lambda: (x - x.mean(axis=0)) / x.std(axis=0),
        "root": lambda: np.sqrt(np.abs(x)), "centred": lambda: x - x.mean(axis=0),
        "times 10": lambda: 10 * x, "counts": lambda: np.round(np.expm1(x)),
        "target sum": lambda: np.log1p(10 * np.expm1(x)), "twice logged": lambda: np.log1p(x),
    }  # fmt: skip
    others = {"frame": new.to_df, "none": lambda: None, "path": lambda: "cells.h5ad",
              "list": lambda: [new], "array": lambda: x}  # fmt: skip
    if what in scales:
        new.X = scales[what]()
        return new, "check_scale"
    if what in others:
        return others[what](), "cells"
    if what == "infinite":
        new.X[rng.integers(len(x)), int(gene[1:])] = rng.choice([np.inf, -np.inf, np.nan])
        return new, gene
    if what == "no cells":
        return new[:0].copy(), "obs['perturbation']"
    if what == "no matrix":
        new.X = None
        return new, "adata.X"
    if what == "column":
        # Without a column of batches, the cells are one new batch.
        column = str(rng.choice(["perturbation", "guide"]))
        del new.obs[column]
        return new, column
    if what in ("blank", "numbers"):
        obs["perturbation"] = BLANK[rng.integers(5)] if what == "blank" else rng.normal(size=len(x))
        return new, "obs['perturbation']"
    if what == "gene":
        return new[:, new.var_names != gene].copy(), gene
    if what == "twice":
        new.var_names = ["G0", *new.var_names[:-1]]
        return new, "G0"
    if what == "other genes":
        new.var_names = [f"X{k}" for k in range(8)]
        return new, "G0"
    if what == "text":
        return ad.AnnData(x.astype(str).astype(object), obs, new.var), "adata.X"
    obs["batch"] = "c"  # a new batch without controls
    return new[(obs["perturbation"] != "control").to_numpy()].copy(), "control"


ODD = ("log2", "z", "root", "centred", "times 10", "counts", "infinite", "frame", "none", "path",
       "list", "array", "no cells", "no matrix", "column", "blank", "numbers", "gene", "twice",
       "other genes", "text", "no controls", "again", "batch", "target sum",
       "twice logged")  # fmt: skip


def observed(rng: np.random.Generator, base: npt.Campaign) -> Case:
    """Observe cells that do not belong to a campaign; nothing may change."""
    campaign, what = copy.copy(base), ODD[rng.integers(len(ODD))]
    options: dict[str, Any] = {}
    given: Any
    if what == "again":
        given, word = base.adata.copy(), "observed before"
    elif what == "batch":
        given, word = logged_counts(int(rng.integers(1, 1000))), "batch"
        options["batch"] = [3, np.nan, "", [1], " "][rng.integers(5)]
    else:
        given, word = _odd(rng, logged_counts(int(rng.integers(1, 1000))), what)

    def call() -> Any:
        before = campaign.history
        try:
            campaign.observe(given, **options)
        except Exception:
            if not before.equals(campaign.history):
                return [np.array(0)]  # changed on error: counted as silent
            raise

    return what, call, (word,), None


def campaign_file(rng: np.random.Generator, sound: Path) -> Case:
    """Damage the file of a campaign, load it, and use it."""
    content, path = bytearray(sound.read_bytes()), FOLDER / "damaged.h5ad"
    what = str(rng.choice(["cut", "byte", "block", "part", "part", "column", "kind", "name"]))
    given: Any = path
    words: tuple[str, ...] = (str(path),)
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
        words = (repr(str(given)), "path")
    elif what == "kind":
        path.write_bytes([b"", b"text", bytes(4096), b"\x89HDF\r\n\x1a\n"][rng.integers(4)])
    else:
        adata, stamp = read_campaign(sound)
        if what == "column":
            column = str(rng.choice(["perturbation", "guide", "batch", "all"]))
            adata.obs = adata.obs[[] if column == "all" else adata.obs.columns.drop(column)]
            words = ("perturbation" if column == "all" else column,)
            what = f"column {column}"
        else:
            parts = ["dag", "dag_blr", "screen", "campaign", "design", "X", "varp"]
            key = str(rng.choice(parts))
            words = (f"uns[{key!r}]",)
            if key == "X":
                adata.X, words = None, ("values",)
            elif key == "varp":
                del adata.varp["dag"]
                words = ("varp['dag']",)
            else:
                del adata.uns[key]
            what = f"part {key}"
        text = npt.campaign.file.json.dumps({"format": npt.campaign.file.FORMAT, **stamp._asdict()})
        _files.write_adata(adata, path, {_STAMP: text}, sealed=True)

    def call() -> Any:
        campaign = npt.Campaign.load(given)
        str(campaign)
        campaign.propose(1, 100)

    return what, call, words, None


def loaded(rng: np.random.Generator, base: ad.AnnData) -> Case:
    """Load data from an odd argument or file, or write to an odd place."""
    adata, path = base.copy(), FOLDER / f"features{rng.integers(10**6)}"
    what = str(rng.choice(["features", "source", "standin", "simulated", "report", "tapseq"]))
    call: Callable[[], Any]
    words: tuple[str, ...]
    if what == "features":
        path = path.with_suffix(str(rng.choice([".gmt", ".csv", ".tsv", ".h5ad", ".zarr", ".x"])))
        contents = (b"", b"\x00\xff\xfe", b"a,b\nG0", b"\x89HDF\r\n\x1a\n", b"one\n", rng.bytes(99))
        path.write_bytes(contents[rng.integers(6)])
        call, words = partial(npt.tl.fit_dag_blr, adata, features=path), ("features",)
    elif what in ("source", "tapseq"):
        path.mkdir(exist_ok=True)
        for each in ("RNA_metadata.csv", "gRNA_counts.h5ad", "gene_expression_counts.csv"):
            (path / each).write_bytes((b"", b"\xff\xfe", b"NAME,x\n1")[rng.integers(3)])
        file, absent = FOLDER / "cut.h5ad", FOLDER / "absent"
        file.write_bytes(b"\x89HDF\r\n\x1a\n")
        sources = ((path, path.name), (file, file.name), (absent, str(absent)), (3, "source"),
                   (adata, "adata.obs"), ("", "source"), (["a"], "source"))  # fmt: skip
        source, word = sources[rng.integers(7)]
        call, words = partial(npt.datasets.perturb_cite_seq, source), (word,)
        if what == "tapseq":
            wrong = (-1, 1.5, "many", None, np.nan)
            call = partial(npt.datasets.schraivogel_2020, path, min_umi=wrong[rng.integers(5)])
            words = ("min_umi",)
    elif what == "standin":
        (FOLDER / "file").touch()
        places = (FOLDER / "file", 3, None, "a\0b", FOLDER / "file" / "below")
        place = places[rng.integers(5)]
        call = partial(npt.datasets.perturb_cite_seq_standin, place, n_cells=140, n_genes=40)
        words = ("folder",) if place in (3, None) else (str(FOLDER / "file"), "a\\x00b")
    elif what == "simulated":
        words = (str(rng.choice(["n_genes", "n_control", "n_perturbed", "perturbed", "rng"])),)
        wrong = (-1, 1.5, "many", np.nan, [None], [[1]])
        call = partial(npt.datasets.simulated_screen, **{words[0]: wrong[rng.integers(6)]})
        if rng.random() < 0.2:
            words = ("expected_degree",)
            call = partial(npt.datasets.simulated_screen, expected_degree=-rng.random())
    else:
        (FOLDER / "file").touch()
        (FOLDER / "folder.html").mkdir(exist_ok=True)
        places = (FOLDER / "folder.html", FOLDER / "file" / "x.html", "a\0b.html", 3)
        place = places[rng.integers(4)]
        for key in ("plan", "design", "perturbation_effects"):  # the graph is drawn fast
            del adata.uns[key]
        call = partial(npt.report, adata, place)
        words = (str(place).replace("\0", "\\x00"), "path")
    return what, call, words, None
