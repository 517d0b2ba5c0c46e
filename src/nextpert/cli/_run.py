"""A step of the pipeline and the report: read, call, write, print.

A run writes all its files or none. An existing path is replaced only with ``--overwrite``.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import nextpert
from nextpert import _adata, get
from nextpert._adata.progress import without_bars
from nextpert._files import (
    as_csv,
    errors_about,
    followed,
    hidden_folder,
    whole_file,
    write_adata,
    write_xlsx,
)
from nextpert._report.results import changes_of, keys_of, read_all, verdict_of
from nextpert._report.tables import above_0
from nextpert.cli._options import STEPS, app, command_of, settings, stage
from nextpert.cli._read import arguments_of, read_screen
from nextpert.core._text import percent
from nextpert.study.ranking import candidates_of

if TYPE_CHECKING:
    from anndata import AnnData

    from nextpert.cli._options import Job

Writers = dict[Path, Callable[[Path], Any]]
SCREENS, TABLES = (".h5ad", ".zarr"), (".csv", ".xlsx")
HISTORY = "commands"  # key in uns of the commands that produced a screen
# Columns of a table that are shown; distances are squared, in units of log-normalised expression.
_SHOWN = {
    "design": (
        "rank",
        "perturbation",
        "predicted_distance",
        "predicted_low",
        "predicted_high",
        "shift",
        "acquisition",
        "relative_distance",
        "probability_best",
        "n_cells_seen",
    ),
    "distances": (
        "perturbation",
        "n_cells",
        "distance",
        "low",
        "high",
        "difference",
        "difference_low",
        "difference_high",
    ),
}
_WIDTH = 100  # of a table in text


def run(job: Job) -> None:
    """Run a step or the report; ``job.written`` is set once the results are written."""
    (_run_report if job.name == "report" else _run_step)(job)


def _run_step(job: Job) -> None:
    options, screen = job.options, job.options["screen"]
    usual_out = _usual_out(screen, job.name)
    out = require_ending(options["out"] or usual_out, "--out", *SCREENS)
    writers: Writers = {out: lambda path: write_adata(adata, path, {}), **settings_file(job, out)}
    if options["table"] is not None:
        table = require_ending(options["table"], "--table", *TABLES)
        writers[table] = lambda path: write_table(table_of(job.name, adata), path)
    if options.get("order") is not None:
        order = require_ending(options["order"], "--order", *TABLES)
        stale = bool(options["allow_stale"])
        writers[order] = lambda path: write_table(get.order_df(adata, allow_stale=stale), path)
    require_free(writers, screen, overwrite=options["overwrite"])
    function = attrgetter(STEPS[job.name].function)(nextpert)
    arguments = arguments_of(function, job.given)
    with stage(options, "Reading the screen"):
        adata = read_screen(screen)
    with stage(options, app[job.name].help.split("\n")[0].rstrip(".")):
        words = "\n".join(call(job, function, adata, **arguments))
    note_command(adata, job, usual_out)
    rows = rows_in_text(job.name, adata, options["show"])
    deliver(job, writers, words, summary_of(job.name, adata), rows)


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
    results = read_all(adata, keys_of({}), {})
    verdict = verdict_of(results, changes_of(adata, results))
    words = "\n".join(filter(None, [verdict.changes, verdict.next, verdict.trust, *verdict.notes]))
    deliver(job, writers, words, {"n_cells": adata.n_obs})


def call(job: Job, function: Callable[..., Any], adata: AnnData, **arguments: Any) -> list[str]:
    """Call a function on the screen, and return what it logged."""
    n = len(job.logged)
    with without_bars(job.options["quiet"] or not sys.stderr.isatty()):
        function(adata, **arguments)
    return job.logged[n:]


def note_command(adata: AnnData, job: Job, usual_out: Path | None = None) -> None:
    """Add the command to those of the screen; the number of workers changes no result."""
    options = {name: value for name, value in job.given.items() if name != "n_jobs"}
    if options.get("out") == usual_out:
        options["out"] = None
    adata.uns[HISTORY] = _adata.strings([*_history(adata), command_of(job.name, options)])


def _history(adata: AnnData) -> list[str]:
    return [str(command) for command in np.ravel(adata.uns.get(HISTORY, []))]


def write_page(adata: AnnData, path: Path, **arguments: Any) -> None:
    """Write the report, with the commands that produced the screen."""
    nextpert.report(adata, path, command="\n".join(_history(adata)) or None, **arguments)


def settings_file(job: Job, out: Path) -> Writers:
    """Return the path of the settings of a run, and the function that writes them."""
    text = settings(job.name, job.options | {"out": out}, nextpert.__version__)
    path = out / "demo.toml" if job.name == "demo" else out.with_name(f"{out.name}.toml")
    return {path: lambda path: path.write_text(text, encoding="utf-8")}


def deliver(
    job: Job, writers: Writers, words: str, summary: dict[str, Any], rows: str = ""
) -> None:
    """Write the files; print words, rows and files, or one JSON object and nothing else."""
    with stage(job.options, "Writing"):
        write_all(writers)
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
    """Return the path of a screen, with the command in place of its last step."""
    suffix = screen.suffix if screen.suffix in SCREENS else SCREENS[0]
    stem = screen.stem
    for name in STEPS:
        stem = stem.removesuffix(f".{name}")
    return screen.with_name(f"{stem}.{command}{suffix}")


def _join(adata: AnnData, other: AnnData, path: str) -> None:
    """Add the results of another file of the same cells, graph and fit."""
    has_same_names = adata.obs_names.equals(other.obs_names) and adata.var_names.equals(
        other.var_names
    )
    fits = [x.uns["dag_blr"]["digest"] for x in (adata, other) if "dag_blr" in x.uns]
    if not has_same_names or len(set(fits)) > 1:  # distances need no fit
        message = (
            f"--also {path} differs from the screen in its cells, genes or fit: pass files of the "
            f"same fit."
        )
        raise ValueError(message)
    commands = dict.fromkeys([*_history(adata), *_history(other)])
    for slot in ("uns", "obsm", "varm"):
        ours, theirs = getattr(adata, slot), getattr(other, slot)
        ours.update({key: theirs[key] for key in theirs.keys() - ours.keys()})
    adata.uns[HISTORY] = _adata.strings(commands)


def table_of(command: str, adata: AnnData) -> pd.DataFrame:
    """Return the table of a step's results."""
    _, key, part = STEPS[command]
    if command == "effects":
        return get.effects_df(adata)
    if not part:
        return pd.DataFrame(adata.uns[key]).rename_axis("guide").reset_index()
    if part in adata.uns[key]:
        return pd.DataFrame(adata.uns[key][part])
    parents, children = adata.varp[key].nonzero()  # of a graph that was given
    return pd.DataFrame({"parent": adata.var_names[parents], "child": adata.var_names[children]})


def summary_of(command: str, adata: AnnData) -> dict[str, Any]:
    """Return the numbers of the summary, as values for JSON."""
    out: dict[str, Any] = {"n_cells": adata.n_obs, "n_genes": adata.n_vars}
    stored = adata.uns[STEPS["design" if command == "demo" else command].key]
    if command == "plan":
        out |= stored["summary"]
    if command in ("design", "demo"):
        first = candidates_of(stored["ranking"]).iloc[0]
        out |= {str(name): value for name, value in first.items()}
    if command in ("diagnose", "learn"):
        name = "level" if command == "diagnose" else "n_edges"
        out[name] = stored[name]
    if "advice" in stored:
        out["advice"] = stored["advice"]["kind"]
    # numpy's numbers become plain numbers, and NaN becomes null.
    plain: dict[str, Any] = json.loads(pd.Series(out, dtype=object).to_json(double_precision=15))
    return plain


def rows_in_text(
    command: str, adata: AnnData, n: int, where: str = "--table FILE.csv writes all"
) -> str:
    """Return the first rows of the table of results as text, and for a ranking the control's row.

    Columns without a value are left out, and middle columns if the table is too wide; ``where``
    says where the whole table is.
    """
    table = table_of(command, adata)
    if not n or not len(table):
        return ""
    shown = table.head(n)
    n_rest = len(table) - n
    if command == "design":
        candidates = candidates_of(table)
        n_rest = len(candidates) - n
        shown = pd.concat([candidates.head(n), table.tail(1)])
    is_empty = shown.isin([np.nan, None, ""]).all()
    columns = _SHOWN.get(command, map(str, shown))
    names = [name for name in columns if name in shown and not is_empty[name]]
    shown = above_0(shown[names])
    formats = {x: percent for x in names if x.startswith("probability")}
    while True:
        text = shown.to_string(
            index=False,
            max_colwidth=40,
            float_format="{:.3g}".format,
            na_rep="",
            formatters={x: formats[x] for x in formats if x in shown},
        )
        if shown.shape[1] < 3 or max(map(len, text.splitlines())) <= _WIDTH:
            break
        shown = shown.drop(columns=shown.columns[shown.shape[1] // 2])
    n_hidden = {"row": n_rest, "column": len(names) - shown.shape[1]}
    hidden = " and ".join(
        f"{n} more {noun}{'s' * (n > 1)}" for noun, n in n_hidden.items() if n > 0
    )
    return f"{text}\n{hidden}: {where}\n" if hidden else f"{text}\n"


def require_ending(path: Path, option: str, *kinds: str) -> Path:
    """Return the path, or raise unless it has one of some endings."""
    if path.suffix not in kinds:
        message = f"{option} must end in {' or '.join(kinds)}, but is {str(path)!r}."
        raise ValueError(message)
    return path


def require_free(writers: Writers, source: Path | None, *, overwrite: bool) -> None:
    """Raise unless all files can be written: none is the screen, or exists without overwrite."""
    for path in writers:
        with errors_about(path):
            target = followed(path)
            folder = next(x for x in target.parents if x.exists())
            if source is not None and source.exists() and target == source.resolve():
                message = f"{str(path)!r} is the screen itself: name another file with --out."
                raise ValueError(message)
            if path.exists() and not overwrite:
                message = (
                    f"{str(path)!r} exists: replace it with --overwrite, or name another file."
                )
                raise ValueError(message)
            with hidden_folder(folder):
                pass


def write_all(writers: Writers) -> None:
    """Write files beside their places, and move them there once all are complete."""
    with ExitStack() as stack:
        for path, write in writers.items():
            write(stack.enter_context(whole_file(path)))
        # A zarr is a folder, and a folder cannot replace another.
        for path in filter(Path.is_dir, writers):
            shutil.rmtree(followed(path))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as csv, or as xlsx if the name of the file ends so."""
    if path.suffix == ".xlsx":
        write_xlsx(table, path)
    else:
        path.write_text(as_csv(table), encoding="utf-8", newline="")
