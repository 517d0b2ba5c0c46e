"""A step of the pipeline and the report: read, call, write, print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nextpert
from nextpert import _adata
from nextpert._adata.progress import without_bars
from nextpert._report.results import keys_of, read_all
from nextpert._report.verdict import verdict_of as verdict_on_all
from nextpert.cli._options import STEPS, app
from nextpert.cli._output import (
    SCREENS,
    require_ending,
    require_free,
    write_all,
    write_screen,
    write_table,
)
from nextpert.cli._read import OF_TABLES, arguments_of, read_screen, read_table
from nextpert.cli._results import rows_in_text, summary_of, table_of, verdict_of
from nextpert.cli._words import command_of, flag_of, settings, stage

if TYPE_CHECKING:
    from anndata import AnnData

    from nextpert.cli._options import Job

Writers = dict[Path, Callable[[Path], Any]]
HISTORY = "commands"  # that a screen has gone through, in uns


def run(job: Job) -> None:
    """Run a step or the report; ``job.written`` says once the results are there."""
    (_run_report if job.name == "report" else _run_step)(job)


def _run_step(job: Job) -> None:
    options, screen, table = job.options, job.options["screen"], job.options["table"]
    usual_out = _usual_out(screen, job.name)
    out = require_ending(options["out"] or usual_out, "--out", *SCREENS)
    writers: Writers = {out: lambda path: write_screen(adata, path), **settings_file(job, out)}
    if table is not None:
        if require_ending(table, "--table", ".csv", ".parquet").suffix == ".parquet":
            import_module("pyarrow")
        writers[table] = lambda path: write_table(table_of(job.name, adata), path)
    require_free(writers, screen, overwrite=options["overwrite"])
    function = attrgetter(STEPS[job.name].function)(nextpert)
    arguments = arguments_of(function, job.given)
    is_table = job.name == "effects" and screen.suffix == ".csv"
    of_tables = [flag_of(name) for name in OF_TABLES if name in job.given]
    if job.name == "effects" and of_tables and not is_table:
        message = f"{', '.join(of_tables)} are for a csv file of effects, but {screen} is none."
        raise ValueError(message)
    with stage(options, "Reading the screen"):
        adata = read_table(screen, options) if is_table else read_screen(screen)
    with stage(options, app[job.name].help.split("\n")[0].rstrip(".")):
        if is_table:
            nextpert.tl.fit_dag_blr(adata)
        logged = call(job, function, adata, **arguments)
    note_command(adata, job, usual_out)
    words = verdict_of(job.name, adata, logged)
    rows = rows_in_text(job.name, adata, options["show"])
    deliver(job, writers, screen, words, summary_of(job.name, adata), rows)


def _run_report(job: Job) -> None:
    options, screen = job.options, job.options["screen"]
    usual_out = _usual_out(screen, "report").with_suffix(".html")
    out = require_ending(options["out"] or usual_out, "--out", ".html")
    arguments = arguments_of(nextpert.report, job.given)
    writers: Writers = {
        out: lambda path: write_page(adata, path, **arguments),
        **settings_file(job, out),
    }
    require_free(writers, screen, overwrite=options["overwrite"])
    with stage(options, "Reading the results"):
        adata = read_screen(screen)
        for path in options["also"] or ():
            _join(adata, read_screen(Path(path)), path)
    keys = arguments.get("keys", {})
    verdict = verdict_on_all(read_all(adata, keys_of(keys), keys))
    words = "\n".join([verdict.next, verdict.trust, *verdict.notes])
    deliver(job, writers, screen, words, {"n_cells": adata.n_obs})


def call(job: Job, function: Callable[..., Any], adata: AnnData, **arguments: Any) -> list[str]:
    """Call a function on the screen, and return what it logged."""
    n = len(job.logged)
    with without_bars(job.options["quiet"] or not sys.stderr.isatty()):
        function(adata, **arguments)
    return job.logged[n:]


def note_command(adata: AnnData, job: Job, usual_out: Path | None = None) -> None:
    """Add the command to those of the screen; the number of workers changes no result."""
    given = {name: value for name, value in job.given.items() if name != "n_jobs"}
    if given.get("out") == usual_out:
        given["out"] = None
    adata.uns[HISTORY] = _adata.strings([*_history(adata), command_of(job.name, given)])


def _history(adata: AnnData) -> list[str]:
    return [str(command) for command in np.ravel(adata.uns.get(HISTORY, []))]


def write_page(adata: AnnData, path: Path, **arguments: Any) -> None:
    """Write the report, with the commands that the screen has gone through."""
    nextpert.report(adata, path, command="\n".join(_history(adata)) or None, **arguments)


def settings_file(job: Job, out: Path) -> Writers:
    """Return the file of settings beside a result, and what writes it."""
    text = settings(job.name, job.options | {"out": out}, nextpert.__version__)
    path = out / "demo.toml" if job.name == "demo" else out.with_name(f"{out.name}.toml")
    return {path: lambda path: path.write_text(text, encoding="utf-8")}


def deliver(
    job: Job,
    writers: Writers,
    source: Path | None,
    words: str,
    summary: dict[str, Any],
    rows: str = "",
) -> None:
    """Write the files; print words, rows and files, or one JSON object and nothing else."""
    with stage(job.options, "Writing"):
        write_all(writers, source, overwrite=job.options["overwrite"])
        job.written = True
    files = [str(path) for path in writers]
    if not job.options["json"]:
        sys.stdout.write(f"{words}\n{rows}Written: {', '.join(files)}\n")
        return
    printed = {"step": job.name, "verdict": words, "summary": summary, "files": files}
    printed |= {"seed": job.options["rng"]} if "rng" in job.options else {}
    printed["nextpert"] = nextpert.__version__
    sys.stdout.write(json.dumps(printed, ensure_ascii=False) + "\n")


def _usual_out(screen: Path, command: str) -> Path:
    """Return the name of a screen, with that of a command in the place of its last step."""
    suffix, stem = screen.suffix if screen.suffix in SCREENS else SCREENS[0], screen.stem
    for name in STEPS:
        stem = stem.removesuffix(f".{name}")
    return screen.with_name(f"{stem}.{command}{suffix}")


def _join(adata: AnnData, other: AnnData, path: str) -> None:
    """Add the results of another file of the same cells, graph and fit."""
    same = adata.obs_names.equals(other.obs_names) and adata.var_names.equals(other.var_names)
    if not same or not _fit(other).items() <= _fit(adata).items():  # replays need no fit
        message = (
            f"--also {path} holds other cells or genes, or another graph or fit, than the screen: "
            "make the results of one page from one fit."
        )
        raise ValueError(message)
    commands = dict.fromkeys([*_history(adata), *_history(other)])
    for slot in ("uns", "obsm", "varm"):
        ours, theirs = getattr(adata, slot), getattr(other, slot)
        ours.update({key: theirs[key] for key in theirs.keys() - ours.keys()})
    adata.uns[HISTORY] = _adata.strings(commands)


def _fit(adata: AnnData) -> dict[str, str]:
    """Return what distinguishes one graph and fit from another, of those there are."""
    parts = {}
    if "dag" in adata.varp:
        parts["dag"] = repr([part.tolist() for part in adata.varp["dag"].nonzero()])
    if fit := adata.uns.get("dag_blr"):
        parts["fit"] = str(fit.get("digest"))
    return parts
