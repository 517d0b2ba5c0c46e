"""A step of the pipeline and the report: read, call, write, print."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nextpert
from nextpert import _adata
from nextpert._adata.progress import without_bars
from nextpert.cli._options import STEPS, app
from nextpert.cli._output import (
    SCREENS,
    require_ending,
    require_free,
    write_all,
    write_screen,
    write_table,
)
from nextpert.cli._read import arguments_of, read_screen, read_table
from nextpert.cli._results import rows_in_text, summary_of, table_of, verdict_of
from nextpert.cli._words import ADVICE, command_of, flag_of, heard, settings, stage

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anndata import AnnData

    from nextpert.cli._options import Job

Writers = dict[Path, Callable[[Path], Any]]
# The commands that a screen has gone through, in uns.
HISTORY = "commands"
_OF_TABLES = ("source", "n_cells", "n_controls", "control_se")


def run_step(job: Job) -> None:
    """Run a step; ``job.written`` says once the results are there."""
    options, screen, table = job.options, job.options["screen"], job.options["table"]
    out = require_ending(options["out"] or _usual_out(screen, job.name), "--out", *SCREENS)
    writers: Writers = {out: lambda path: write_screen(adata, path)}
    writers |= settings_file(job, out)
    if table is not None:
        if require_ending(table, "--table", ".csv", ".parquet").suffix == ".parquet":
            import_module("pyarrow")
        writers[table] = lambda path: write_table(table_of(job.name, adata), path)
    require_free(writers, screen, overwrite=options["overwrite"])
    function = _function(STEPS[job.name].function)
    arguments = arguments_of(function, job.given)
    is_table = job.name == "effects" and screen.suffix == ".csv"
    of_tables = [flag_of(name) for name in _OF_TABLES if name in job.given]
    if job.name == "effects" and of_tables and not is_table:
        message = f"{', '.join(of_tables)} are for a csv file of effects, but {screen} is none."
        raise ValueError(message)
    with stage(options, "Reading the screen"):
        adata = read_table(screen, options) if is_table else read_screen(screen)
    with stage(options, app[job.name].help.split("\n")[0].rstrip(".")):
        if is_table:
            nextpert.tl.fit_dag_blr(adata)
        said = call(function, adata, arguments, options)
    note_command(adata, job, _usual_out(screen, job.name))
    finish(job, writers, screen)
    verdict = verdict_of(job.name, adata, said)
    if options["json"]:
        print_json(job, verdict, summary_of(job.name, adata), writers)
        return
    rows = rows_in_text(job.name, adata, options["show"]) if options["show"] else ""
    sys.stdout.write(f"{verdict}\n{rows}Written: {', '.join(map(str, writers))}\n")


def run_report(job: Job) -> None:
    """Write the page; ``job.written`` says once it is there."""
    from nextpert._report.results import keys_of, read_all
    from nextpert._report.verdict import verdict_of as verdict_in

    options, screen = job.options, job.options["screen"]
    out = require_ending(
        options["out"] or _usual_out(screen, "report").with_suffix(".html"), "--out", ".html"
    )
    arguments = arguments_of(nextpert.report, job.given)
    writers: Writers = {
        out: lambda path: nextpert.report(adata, path, command=commands or None, **arguments)
    }
    writers |= settings_file(job, out)
    require_free(writers, screen, overwrite=options["overwrite"])
    with stage(options, "Reading the results"):
        adata = read_screen(screen)
        for path in options["also"] or ():
            _join(adata, read_screen(Path(path)), path)
    commands = "\n".join(history(adata))
    finish(job, writers, screen)
    keys = arguments.get("keys", {})
    verdict = verdict_in(read_all(adata, keys_of(keys), keys))
    text = "\n".join([verdict.next, verdict.trust, *verdict.notes])
    if options["json"]:
        print_json(job, text, {"n_cells": adata.n_obs}, writers)
    else:
        sys.stdout.write(f"{text}\nWritten: {', '.join(map(str, writers))}\n")


def call(
    function: Callable[..., Any],
    adata: AnnData,
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
) -> list[str]:
    """Call a function on the screen, and return what it logged."""
    said: list[str] = []

    def keep(record: logging.LogRecord) -> None:
        told = record.levelno == logging.INFO or record.name == ADVICE
        if told and not record.name.startswith("nextpert.core"):
            said.extend(" ".join(line.split()) for line in record.getMessage().splitlines())

    with heard(logging.INFO, keep), without_bars(options["quiet"] or not sys.stderr.isatty()):
        function(adata, **arguments)
    return said


def history(adata: AnnData) -> list[str]:
    """Return the commands that a screen has gone through."""
    return [str(command) for command in np.ravel(adata.uns.get(HISTORY, []))]


def note_command(adata: AnnData, job: Job, usual_out: Path | None = None) -> None:
    """Add the command to those of the screen; the number of workers changes no result."""
    given = {name: value for name, value in job.given.items() if name != "n_jobs"}
    if usual_out is not None and given.get("out") == usual_out:
        del given["out"]
    adata.uns[HISTORY] = _adata.strings([*history(adata), command_of(job.name, given)])


def finish(job: Job, writers: Writers, source: Path | None) -> None:
    """Write the results."""
    with stage(job.options, "Writing"):
        write_all(writers, source, overwrite=job.options["overwrite"])
        job.written = True


def print_json(job: Job, verdict: str, summary: dict[str, Any], files: Iterable[Path]) -> None:
    """Print one JSON object, and nothing else."""
    told = {"step": job.name, "verdict": verdict, "summary": summary, "files": [*map(str, files)]}
    told |= {"seed": job.options["rng"]} if "rng" in job.options else {}
    told["nextpert"] = nextpert.__version__
    sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")


def settings_file(job: Job, out: Path) -> Writers:
    """Return the file of settings beside a result, and what writes it."""
    text = settings(job.name, job.options | {"out": out}, nextpert.__version__)
    path = out / "demo.toml" if job.name == "demo" else out.with_name(f"{out.name}.toml")
    return {path: lambda path: path.write_text(text, encoding="utf-8")}


def _function(name: str) -> Callable[..., Any]:
    room, function = name.split(".")
    found: Callable[..., Any] = getattr(getattr(nextpert, room), function)
    return found


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
    commands = dict.fromkeys([*history(adata), *history(other)])
    for slot in ("uns", "obsm", "varm"):
        ours, theirs = getattr(adata, slot), getattr(other, slot)
        for key in theirs.keys() - ours.keys():
            ours[key] = theirs[key]
    if commands:
        adata.uns[HISTORY] = _adata.strings(commands)


def _fit(adata: AnnData) -> dict[str, str]:
    """Return what distinguishes one graph and fit from another, of those there are."""
    parts = {}
    if "dag" in adata.varp:
        parts["dag"] = repr([part.tolist() for part in adata.varp["dag"].nonzero()])
    if fit := adata.uns.get("dag_blr"):
        parts["fit"] = str(fit.get("digest"))
    return parts
