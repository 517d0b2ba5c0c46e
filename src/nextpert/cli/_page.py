"""The page for the bench, from the results in one file or several."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert.cli._output import Outputs, check_outputs, write_all, write_text
from nextpert.cli._read import read_screen, require_screen
from nextpert.cli._run import COMMANDS, out_of, settings_file, stage, stem_of, tell_json
from nextpert.cli._settings import settings
from nextpert.cli._steps import STEPS
from nextpert.cli._values import arguments_from
from nextpert.cli._words import as_commands, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from nextpert.cli._app import Job


def run_report(job: Job) -> None:
    """Write the page; ``job.written`` says once it is there."""
    from nextpert import __version__

    options = job.options
    screens: list[Path] = [options["screen"], *(options["also"] or [])]
    for path in screens:
        require_screen(path)
    out = out_of("report", screens[0], options["out"], (".html",))
    files = [out, settings_file(out)]
    outputs = Outputs("--out", tuple(files), options["overwrite"])
    check_outputs(outputs, screens[0])
    arguments = arguments_from(job.step, options)
    with stage(options, "Reading the results"):
        adata = read_screen(screens[0])
        for path in screens[1:]:
            _join(adata, read_screen(path), path)
    if left := _beside(screens):
        say(f"note: {', '.join(left)} of the same screen: --also takes them up in the page")
    commands = "\n".join(map(str, np.ravel(adata.uns.get(COMMANDS, []))))
    text = settings("report", options | {"out": out}, __version__)
    with stage(options, "Writing the page"):
        from nextpert import report

        writers: dict[Path, Callable[[Path], Any]] = {
            out: lambda path: report(adata, path, command=commands or None, **arguments),
            settings_file(out): lambda path: write_text(text, path),
        }
        write_all(writers, [outputs])
        job.written = True
    verdict = _verdict(adata, arguments.get("keys", {}))
    if options["json"]:
        tell_json("report", options, verdict, {"n_cells": adata.n_obs}, files)
    else:
        sys.stdout.write(f"{as_commands(verdict)}\nWritten: {', '.join(map(str, files))}\n")


def _beside(screens: list[Path]) -> list[str]:
    """Return the files of results that lie beside the screens and are not named."""
    first, named = screens[0], {path.name for path in screens}
    steps = (step for step in STEPS if step not in ("preprocess", "learn", "fit"))
    names = [f"{stem_of(first)}.{step}{first.suffix}" for step in steps]
    return [name for name in names if name not in named and first.with_name(name).exists()]


def _join(adata: AnnData, other: AnnData, path: Path) -> None:
    """Take up the results of another file of the same cells, graph and fit.

    Raises
    ------
    ValueError
        If cells, genes or fit are others.
    """
    for what, names in (("cells", "obs_names"), ("genes", "var_names")):
        if not getattr(adata, names).equals(getattr(other, names)):
            message = f"--also: {str(path)!r} holds other {what} than the screen: it joins no page."
            raise ValueError(message)
    if not _fit(other).items() <= _fit(adata).items():  # distances need neither, replays no fit
        message = (
            f"--also: {str(path)!r} holds another graph or fit than the screen: make the results "
            "of one page from one fit."
        )
        raise ValueError(message)
    commands = [str(x) for a in (adata, other) for x in np.ravel(a.uns.get(COMMANDS, []))]
    for slot in ("uns", "obsm", "varm"):
        ours, theirs = getattr(adata, slot), getattr(other, slot)
        for key in theirs.keys() - ours.keys():
            ours[key] = theirs[key]
    if commands:
        adata.uns[COMMANDS] = np.array(list(dict.fromkeys(commands)), dtype=object)


def _fit(adata: AnnData) -> dict[str, str]:
    """Return what tells one graph and fit from another, of those there are."""
    told = {}
    if "dag" in adata.varp:
        told["arcs"] = repr([part.tolist() for part in adata.varp["dag"].nonzero()])
    if fit := adata.uns.get("dag_blr"):
        told["fit"] = repr([fit.get("cells"), fit.get("log_evidence")])
    return told


def _verdict(adata: AnnData, keys: dict[str, str]) -> str:
    from nextpert._report.results import keys_of, read_all
    from nextpert._report.verdict import verdict_of

    verdict = verdict_of(read_all(adata, keys_of(keys), keys))
    return " ".join([verdict.next, verdict.trust, *verdict.notes])
