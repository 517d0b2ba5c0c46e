"""A step of the pipeline and the report: read, call, write, tell."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nextpert
from nextpert import _adata
from nextpert._adata.arguments import check_arguments, in_mappings
from nextpert._adata.progress import without_bars
from nextpert._warn import warn
from nextpert.cli._options import STEPS, FromTable, app
from nextpert.cli._output import (
    check_outputs,
    write_all,
    write_screen,
    write_table,
    write_text,
)
from nextpert.cli._read import arguments_of, read_screen, read_table
from nextpert.cli._results import in_lines, show_table, summary_of, table_of, verdict_of
from nextpert.cli._words import command_of, flag_of, heard, in_options, say, settings, stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from nextpert.cli._options import Job

Writers = dict[Path, Callable[[Path], Any]]
# The commands that a screen has gone through, in uns.
HISTORY = "commands"
_SCREENS = (".h5ad", ".zarr")
_BEFORE_RESULTS = ("preprocess", "learn", "fit")
_MANY_GENES = 300  # a search takes minutes then


def run_step(job: Job) -> None:
    """Run a step; ``job.written`` says once the results are there."""
    options, screen, table_file = job.options, job.options["screen"], job.options["table"]
    out = _out_of(job)
    _check_table(table_file)
    writers: Writers = {
        out: lambda path: write_screen(adata, path),
        settings_file(out): lambda path: write_text(settings_of(job, out), path),
    }
    if table_file is not None:
        writers[table_file] = lambda path: write_table(table_of(job.name, adata), path)
    outputs = {path: "--table" if path == table_file else "--out" for path in writers}
    check_outputs(outputs, screen, overwrite=options["overwrite"])
    step, arguments = STEPS[job.name], arguments_of(job)
    if job.name == "learn":
        _check_search(job)
    function = _function(step.function)
    check_arguments(function, in_mappings(function, arguments))
    of_table = job.arguments.get("from_table", FromTable())
    is_table = job.name == "effects" and screen.suffix == ".csv"
    if of_table.given and not is_table:
        flags = ", ".join(map(flag_of, of_table.given))
        message = f"{flags}: these are said of a csv file of effects, but {screen} is none."
        raise ValueError(message)
    with stage(options, "Reading the screen"):
        adata = read_table(screen, of_table) if is_table else read_screen(screen)
    if is_table:
        with stage(options, doing("fit")):
            call("tl.fit_dag_blr", adata, {}, options)
    searched = job.name == "learn" and options["genes"] is None and options["method"] != "given"
    if searched and adata.n_vars > _MANY_GENES:
        message = f"The panel holds all {adata.n_vars} genes: learning its graph may take long."
        warn(f"{message} Name fewer with --genes.")
    with stage(options, doing(job.name)):
        said = call(step.function, adata, arguments, options)
    note_command(adata, job, usual_out=_usual_out(screen, job.name))
    with stage(options, "Writing"):
        write_all(writers, outputs, overwrite=options["overwrite"])
        job.written = True
    verdict = verdict_of(job.name, adata, said)
    if options["json"]:
        tell_json(job, verdict, summary_of(job.name, adata), [*writers])
        return
    if job.name == "diagnose":
        verdict = in_lines(adata, verdict)
    table = show_table(job.name, adata, options["show"], table_file) if options["show"] else ""
    sys.stdout.write(f"{in_options(verdict)}\n{table}Written: {', '.join(map(str, writers))}\n")


def run_report(job: Job) -> None:
    """Write the page; ``job.written`` says once it is there."""
    from nextpert._report.results import keys_of, read_all
    from nextpert._report.verdict import verdict_of as verdict_in

    options, screens = job.options, job.screens
    out, keys = _out_of(job, (".html",)), arguments_of(job).get("keys", {})
    writers: Writers = {
        out: lambda path: nextpert.report(
            adata, path, title=options["title"], command=commands or None, keys=keys
        ),
        settings_file(out): lambda path: write_text(settings_of(job, out), path),
    }
    outputs = dict.fromkeys(writers, "--out")
    check_outputs(outputs, screens[0], overwrite=options["overwrite"])
    with stage(options, "Reading the results"):
        adata = read_screen(screens[0])
        for path in screens[1:]:
            _join(adata, read_screen(path), path)
    usual = [_usual_out(screens[0], name) for name in STEPS if name not in _BEFORE_RESULTS]
    if left := [path.name for path in usual if path.exists() and path not in screens]:
        say(f"note: {', '.join(left)} of the same screen: add them to the page with --also")
    commands = "\n".join(map(str, np.ravel(adata.uns.get(HISTORY, []))))
    with stage(options, "Writing the page"):
        write_all(writers, outputs, overwrite=options["overwrite"])
        job.written = True
    verdict = verdict_in(read_all(adata, keys_of(keys), keys))
    told = in_options(" ".join([verdict.next, verdict.trust, *verdict.notes]))
    if options["json"]:
        tell_json(job, told, {"n_cells": adata.n_obs}, [*writers])
    else:
        sys.stdout.write(f"{told}\nWritten: {', '.join(map(str, writers))}\n")


def call(
    function: str, adata: AnnData, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> list[str]:
    """Call a function such as ``"tl.learn_dag"`` on the screen, and return what it logged."""
    found = _function(function)
    said: list[str] = []

    def keep(record: logging.LogRecord) -> None:
        if record.levelno == logging.INFO and not record.name.startswith("nextpert.core"):
            said.append(" ".join(record.getMessage().split()))

    with heard(logging.INFO, keep), without_bars(options["quiet"] or not sys.stderr.isatty()):
        found(adata, **in_mappings(found, arguments))
    return said


def doing(command: str) -> str:
    """Return what a command says while it works: the first sentence of its help."""
    return app[command].help.split("\n")[0].rstrip(".")


def note_command(adata: AnnData, job: Job, *, usual_out: Path | None = None) -> None:
    """Add the command to those that the screen has gone through, for the report.

    The number of workers changes no result, and no command.
    """
    given = {name: value for name, value in job.given.items() if name != "n_jobs"}
    if usual_out is not None and given.get("out") == usual_out:
        del given["out"]
    before = [str(x) for x in np.ravel(adata.uns.get(HISTORY, []))]
    adata.uns[HISTORY] = _adata.strings([*before, command_of(job.name, given)])


def tell_json(job: Job, verdict: str, summary: dict[str, Any], files: list[Path]) -> None:
    """Print one JSON object, and nothing else."""
    told = {"step": job.name, "verdict": verdict, "summary": summary, "files": [*map(str, files)]}
    told |= {"seed": job.options["rng"]} if "rng" in job.options else {}
    told["nextpert"] = nextpert.__version__
    sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")


def settings_file(out: Path) -> Path:
    """Return the file of settings beside a result."""
    return out.with_name(f"{out.name}.toml")


def settings_of(job: Job, out: Path) -> str:
    """Return the settings of a run, with the place of its result, as TOML."""
    return settings(job.name, job.options | {"out": out}, nextpert.__version__)


def _function(name: str) -> Callable[..., Any]:
    room, function = name.split(".")
    found: Callable[..., Any] = getattr(getattr(nextpert, room), function)
    return found


def _out_of(job: Job, kinds: tuple[str, ...] = _SCREENS) -> Path:
    """Return where a command writes, a file of one of some kinds."""
    out: Path | None = job.options["out"]
    if out is None:
        return _usual_out(job.options["screen"], job.name, kinds)
    if out.suffix not in kinds:
        message = f"--out must end in {' or '.join(kinds)}, but is {str(out)!r}."
        raise ValueError(message)
    return out


def _usual_out(screen: Path, command: str, kinds: tuple[str, ...] = _SCREENS) -> Path:
    """Return the name of a screen, with that of a command in the place of its last step."""
    suffix, stem = screen.suffix if screen.suffix in kinds else kinds[0], screen.stem
    for name in STEPS:
        stem = stem.removesuffix(f".{name}")
    return screen.with_name(f"{stem}.{command}{suffix}")


def _check_table(path: Path | None) -> None:
    """Raise unless a table can be written in the format of its name."""
    if path is None:
        return
    if path.suffix not in (".csv", ".parquet"):
        message = f"--table must end in .csv or .parquet, but is {str(path)!r}."
        raise ValueError(message)
    if path.suffix == ".parquet":
        from importlib.util import find_spec

        if find_spec("pyarrow") is None:
            message = "--table FILE.parquet needs pyarrow: pip install pyarrow, or name a FILE.csv."
            raise ImportError(message)


def _check_search(job: Job) -> None:
    """Raise where options are given that the search does not use."""
    from nextpert.core.search.registry import searches

    method, known = job.options["method"], searches()
    if (method == "given") != (job.options["dag"] is not None):
        message = "--method given and --dag FILE.csv belong together: give both or neither."
        raise ValueError(message)
    for name in sorted({name for each in known.values() for name in each.options}):
        owners = [owner for owner, each in known.items() if name in each.options]
        if name in job.given and method not in owners:
            message = f"{flag_of(name)} is for --method {' or '.join(owners)}, not {method}."
            raise ValueError(message)


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
    commands = [str(x) for a in (adata, other) for x in np.ravel(a.uns.get(HISTORY, []))]
    for slot in ("uns", "obsm", "varm"):
        ours, theirs = getattr(adata, slot), getattr(other, slot)
        for key in theirs.keys() - ours.keys():
            ours[key] = theirs[key]
    if commands:
        adata.uns[HISTORY] = _adata.strings(list(dict.fromkeys(commands)))


def _fit(adata: AnnData) -> dict[str, str]:
    """Return what tells one graph and fit from another, of those there are."""
    told = {}
    if "dag" in adata.varp:
        told["edges"] = repr([part.tolist() for part in adata.varp["dag"].nonzero()])
    if fit := adata.uns.get("dag_blr"):
        told["fit"] = str(fit.get("digest"))
    return told
