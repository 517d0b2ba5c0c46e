"""One step of the pipeline: read, call, write, tell."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nextpert._warn import warn
from nextpert.cli._output import (
    Outputs,
    check_outputs,
    write_all,
    write_screen,
    write_table,
    write_text,
)
from nextpert.cli._read import read_screen, require_screen
from nextpert.cli._report import show_ranking
from nextpert.cli._results import summary_of, table_of, verdict_of
from nextpert.cli._settings import command_of, settings
from nextpert.cli._signature import arguments_of, flag_of
from nextpert.cli._steps import STEPS
from nextpert.cli._values import arguments_from
from nextpert.cli._words import as_commands, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import pandas as pd
    from anndata import AnnData

    from nextpert.cli._app import Job

# The commands that a screen has gone through, in uns.
COMMANDS = "commands"
_MANY_GENES = 300


def run_step(job: Job) -> None:
    """Run a step; ``job.written`` says once the results are there."""
    step, options = job.step, job.options
    screen: Path = options["screen"]
    require_screen(screen)
    out = out_of(step.name, screen, options["out"])
    table_file: Path | None = options["table"]
    overwrite = options["overwrite"]
    outputs = [
        Outputs("--out", (out, settings_file(out)), overwrite),
        Outputs("--table", (table_file,) if table_file else (), overwrite),
    ]
    for each in outputs:
        check_outputs(each, screen)
    _check_table(table_file)
    arguments = arguments_from(step, settled(step.name, options))
    with stage(options, "Reading the screen"):
        from nextpert._adata.arguments import check_arguments

        check_arguments(function_of(step.function), arguments)
        adata = read_screen(screen)
    with stage(options, step.doing()):
        said = call(step.function, adata, arguments, options)
    note_command(adata, job, usual_out=out_of(step.name, screen, None))
    kept = options | {"out": out}
    written = write_results(adata, out, kept, step.name, table_file, outputs)
    job.written = True
    verdict = verdict_of(step.name, adata, said)
    if options["json"]:
        tell_json(step.name, options, verdict, summary_of(step.name, adata), written)
        return
    sys.stdout.write(f"{as_commands(verdict)}\n")
    show_table(step.name, adata, options["show"])
    sys.stdout.write(f"Written: {', '.join(map(str, written))}\n")


def settled(step: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a step with those settled that others decide.

    Raises
    ------
    ValueError
        If options do not belong together.
    """
    out = dict(options)
    if step != "learn":
        return out
    method = options["method"]
    if (method == "given") != (options["dag"] is not None):
        message = "--method given and --dag FILE.csv belong together: give both or neither."
        raise ValueError(message)
    from nextpert.core.search.registry import searches

    known, defaults = searches(), arguments_of(STEPS["learn"].function)
    search = known.get(method)
    for name in sorted({name for each in known.values() for name in each.options}):
        if options[name] != defaults[name].default and not (search and name in search.options):
            owners = " or ".join(owner for owner, each in known.items() if name in each.options)
            message = f"{flag_of(name)} is for --method {owners}, not {method}."
            raise ValueError(message)
    if out["environments"] is None:
        out["environments"] = "all" if search and search.exogenous else "control"
    if out["n_graphs"] is None:
        out["n_graphs"] = 1 if method == "given" else 25
    return out


def call(
    function: str, adata: AnnData, arguments: Mapping[str, Any], options: Mapping[str, Any]
) -> list[str]:
    """Call a function on the screen, and return what it logged."""
    found, name = function_of(function), function.split(".")[1]
    extra: dict[str, Any] = {}
    if "show_progress" in arguments_of(function):
        extra["show_progress"] = not options["quiet"]
    if name == "learn_dag" and arguments.get("genes") is None and arguments["method"] != "given":
        _warn_of_many(adata)
    with _listening() as said:
        found(adata, **arguments, **extra)
    return said


def function_of(name: str) -> Callable[..., Any]:
    """Return the function that a step calls, such as ``"tl.learn_dag"``."""
    import nextpert

    room, function = name.split(".")
    found: Callable[..., Any] = getattr(getattr(nextpert, room), function)
    return found


def note_command(adata: AnnData, job: Job, *, usual_out: Path | None = None) -> None:
    """Add the command to those that the screen has gone through, for the report.

    The number of workers changes no result, and no command.
    """
    from nextpert import _adata
    from nextpert.cli._app import defaults_of

    defaults = defaults_of(job.step) | {"n_jobs": job.options.get("n_jobs")}
    if usual_out is not None:
        defaults["out"] = usual_out
    command = command_of(job.step.name, job.options, defaults)
    before = [str(x) for x in np.ravel(adata.uns.get(COMMANDS, []))]
    adata.uns[COMMANDS] = _adata.strings([*before, command])


def write_results(
    adata: AnnData,
    out: Path,
    options: dict[str, Any],
    step: str,
    table_file: Path | None,
    outputs: Iterable[Outputs],
) -> list[Path]:
    """Write the screen, its settings beside it and the table; return their names."""
    from nextpert import __version__

    text = settings(step, options, __version__)
    writers: dict[Path, Callable[[Path], None]] = {
        out: lambda path: write_screen(adata, path),
        settings_file(out): lambda path: write_text(text, path),
    }
    if table_file is not None:
        writers[table_file] = lambda path: write_table(table_of(step, adata), path)
    with stage(options, "Writing"):
        write_all(writers, outputs)
    return list(writers)


def tell_json(
    step: str, options: Mapping[str, Any], verdict: str, summary: dict[str, Any], files: list[Path]
) -> None:
    """Print one JSON object, and nothing else."""
    from nextpert import __version__

    told = {"step": step, "verdict": verdict, "summary": summary, "files": [str(f) for f in files]}
    told |= {"seed": options["rng"]} if "rng" in options else {}
    sys.stdout.write(json.dumps(told | {"nextpert": __version__}, ensure_ascii=False) + "\n")


def show_table(step: str, adata: AnnData, n: int) -> None:
    """Print the head of the table."""
    if n == 0:
        return
    if step == "design":
        sys.stdout.write(f"\n{show_ranking(adata, n, file='--table FILE.csv')}\n\n")
        return
    table: pd.DataFrame = table_of(step, adata)
    sys.stdout.write(table.head(n).to_string(index=False, max_colwidth=40) + "\n")
    if len(table) > n:
        sys.stdout.write(f"... and {len(table) - n} more: --table FILE.csv\n")


@contextmanager
def stage(options: Mapping[str, Any], what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    started = time.perf_counter()
    if not options["quiet"]:
        say(f"{what} ...")
    yield
    if not options["quiet"]:
        say(f"{what}: done in {time.perf_counter() - started:.1f} s")


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Collect what the functions log of their results."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.INFO and not record.name.startswith("nextpert.core"):
                said.append(" ".join(record.getMessage().split()))

    said: list[str] = []
    logger, ear = logging.getLogger("nextpert"), Ear(logging.INFO)
    before = logger.level
    logger.addHandler(ear)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.removeHandler(ear)
        logger.setLevel(before)


def out_of(
    step: str, screen: Path, out: Path | None, kinds: tuple[str, ...] = (".h5ad", ".zarr")
) -> Path:
    """Return where to write: the name of the screen with that of the step for its last step."""
    if out is None:
        suffix = screen.suffix if screen.suffix in kinds else kinds[0]
        return screen.with_name(f"{stem_of(screen)}.{step}{suffix}")
    if out.suffix not in kinds:
        message = f"--out must end in {' or '.join(kinds)}, but is {str(out)!r}."
        raise ValueError(message)
    return out


def settings_file(out: Path) -> Path:
    """Return the file of settings beside a result."""
    return out.with_name(f"{out.name}.toml")


def stem_of(screen: Path) -> str:
    """Return the name of a screen without those of steps."""
    stem = screen.stem
    for name in STEPS:
        stem = stem.removesuffix(f".{name}")
    return stem


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


def _warn_of_many(adata: AnnData) -> None:
    if adata.n_vars > _MANY_GENES:
        message = (
            f"The panel holds all {adata.n_vars} genes: learning its graph may take long. "
            "Name fewer with --genes."
        )
        warn(message)
