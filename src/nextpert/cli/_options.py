"""Parts that commands share: kinds and groups of options, the job, settings, progress.

No slow module is imported here, so that help and usage errors appear at once.
"""

from __future__ import annotations

import inspect
import json
import os
import shlex
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, is_dataclass
from functools import wraps
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import App, Group, Parameter
from cyclopts.config import Toml
from cyclopts.help import DefaultFormatter

from nextpert import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cyclopts import ArgumentCollection, Token

PIPELINE = """\
Recommends which perturbation to test next, given a single-cell perturbation screen.

preprocess -> learn -> fit -> diagnose -> effects, design, cells, plan, replay -> report

`guides` comes first if cells have guides but no label. `distances` needs only the output of
`preprocess`, and `loading` that of `plan`; the report shows their results as well.

Each command reads a screen (h5ad or zarr) and writes a new one, SCREEN.COMMAND.h5ad, and a file of
its settings: `nextpert COMMAND --config SCREEN.COMMAND.h5ad.toml` repeats the run.
"""
ADVICE = "nextpert.study.advice"  # the logger of advice on what to do next
# Errors are those of the Python functions.
HINT = (
    "errors use the names of the Python interface: n_cells is the option --n-cells, "
    "search_options['n_runs'] is --n-runs, and tl.learn_dag is the command nextpert learn"
)
# Settings do not include what a run prints, or whether it may replace files.
_NOT_KEPT = ("config", "overwrite", "json", "quiet", "debug", "show")
FILES = Group("Files", sort_key=0)
_TARGET = Group("Target state (one of these)", sort_key=1)
_OPTIONS = Group("Options", sort_key=2)
RUN = Group("Run", sort_key=3)


class Step(NamedTuple):
    """A command that calls one function on a screen; its results are ``adata.uns[key][part]``."""

    function: str
    key: str
    part: str


STEPS = {
    "guides": Step("pp.assign_guides", "guides", ""),
    "preprocess": Step("pp.perturbation_screen", "preprocessing", "perturbations"),
    "learn": Step("tl.learn_dag", "dag", "edges"),
    "fit": Step("tl.fit_dag_blr", "dag_blr", "environments"),
    "effects": Step("tl.perturbation_effects", "perturbation_effects", ""),
    "design": Step("tl.design_interventions", "design", "ranking"),
    "plan": Step("tl.plan_screen", "plan", "plate"),
    "cells": Step("tl.plan_cells", "plan_cells", "genes"),
    "distances": Step("tl.target_distances", "target_distances", "table"),
    "loading": Step("tl.plan_loading", "loading", "steps"),
    "replay": Step("tl.replay_design", "replay", "overall"),
    "diagnose": Step("tl.diagnose", "diagnosis", "summary"),
}


@dataclass
class Job:
    """A command, and all its options by name.

    ``logged`` contains the log messages of the functions; ``written`` is true once the results are
    stored.
    """

    name: str
    options: dict[str, Any]
    logged: list[str] = field(default_factory=list)
    written: bool = False

    @property
    def given(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        defaults = defaults_of(self.name)
        return {name: value for name, value in self.options.items() if value != defaults[name]}


def defaults_of(command: str) -> dict[str, Any]:
    """Return the options of a command, and the default of each."""
    function: Any = app[command].default_command
    parameters = inspect.signature(function).parameters.values()
    return _flat({parameter.name: parameter.default for parameter in parameters})


def _flat(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by name, with those of dataclasses at the same level."""
    flat: dict[str, Any] = {}
    for name, value in arguments.items():
        flat |= vars(value) if is_dataclass(value) else {name: value}
    return flat


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    """Convert an option to an integer; 2.5 raises an error, which cyclopts would truncate to 2."""
    return int(tokens[0].value)


def _shown(default: Any) -> str | None:
    """Return a default as the help shows it; ``None`` if it is not shown."""
    if default is None or default is False or default == ():
        return None
    return " ".join(default) if isinstance(default, tuple) else str(default)


def flowing(text: str) -> str:
    """Return each paragraph as one line, which the terminal wraps."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


class _Help(DefaultFormatter):
    """Prints the help, with the lines of docstrings joined."""

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        from rich.text import Text

        for entry in panel.entries:
            if isinstance(text := entry.description.primary_renderable, Text):
                entry.description.primary_renderable = Text(flowing(text.plain))
        super().__call__(console, options, panel)


def _from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take options that the command line does not set from the file of ``--config``."""
    config = arguments.get("--config", default=None)
    if config is not None and config.tokens:
        path = Path(config.tokens[-1].value)
        Toml(path, must_exist=True)(app, commands, arguments)


# Kinds of options.
Names = tuple[str, ...]
Flag = Annotated[bool, Parameter(negative=())]
Whole = Annotated[int, Parameter(converter=_whole)]
WholeOrNone = Annotated[int | None, Parameter(converter=_whole)]
Screen = Annotated[Path, Parameter(group=FILES, help="The screen, an h5ad or zarr file.")]
Shift = Annotated[str | None, Parameter(metavar="WORD|FILE.csv")]
Show = Annotated[int, Parameter(group=RUN, converter=_whole)]
_JOBS = "Number of threads or processes, -1 for all processors. Results do not depend on it."
Jobs = Annotated[int, Parameter(group=RUN, converter=_whole, help=_JOBS)]
JobsOrNone = Annotated[int | None, Parameter(group=RUN, converter=_whole, help=_JOBS)]
_SEED = "Seed of the random numbers. The same seed gives the same results."
Rng = Annotated[
    int,
    Parameter(("--rng", "--seed"), group=RUN, metavar="SEED", converter=_whole, help=_SEED),
]


@Parameter(name="*", group=_TARGET)
@dataclass(frozen=True, kw_only=True)
class TargetState:
    """The target state, in one of the forms that a command line can hold."""

    target: str | None = None
    """A perturbation of the screen; the target is the state that it produces."""
    target_group: Annotated[tuple[str, str] | None, Parameter(metavar="KEY VALUE")] = None
    """The target state is the mean of the cells with VALUE in the column KEY of obs."""
    target_mean: Annotated[Names | None, Parameter(metavar="GENE=MEAN...")] = None
    """Target means of some genes, log-normalised. Only these genes count."""
    target_file: Path | None = None
    """A csv file with the columns gene and mean; or a TOML file with the fields of
    nextpert.Target, such as state, others, signature, at_most, away_from, weights and
    distance."""


@Parameter(name="*", group=_OPTIONS)
@dataclass(frozen=True, kw_only=True)
class Labels:
    """The roles of the columns of a screen, and the genes and cells to use."""

    perturbation_key: str = "perturbation"
    """Column of obs with the label of each cell: its target genes, joined by the separator."""
    control: Names = ("control",)
    """Label, or labels, of the control cells."""
    panel: Names | None = None
    """Genes of the analysis: their names; @FILE with a name per line; or 'zhang2023', the 36 genes
    of that paper. By default every gene detected in a tenth of the control cells; with the TOML
    file of a target (as for --target-file of `plan`), these and the genes that it names."""
    gene_symbols: str | None = None
    """Column of var with the gene names that labels and options use, if the names of var are
    others, such as Ensembl IDs."""
    combinations: str = "drop"
    """What to do with cells that have several targets: 'drop' or 'keep'."""
    separator: str | None = None
    """Text between the target genes of a label. By default '+'."""
    depth_key: str | None = None
    """Column of obs with the total counts of each cell, needed if the file has few of the sequenced
    genes. By default the counts are summed over the genes of the file."""
    guide_key: str | None = None
    """Column of obs with the guide (or replicate, donor, clone) of each cell."""
    batch_key: Names | None = None
    """Columns of obs with the batch of each cell."""


@Parameter(name="*", group=_OPTIONS)
@dataclass(frozen=True, kw_only=True)
class Columns:
    """The columns that describe the cells of a screen, and the layer to read."""

    perturbation_key: str | None = None
    """Column of obs with the perturbation of each cell. By default the column that `preprocess` was
    given, or 'perturbation'."""
    control: str | None = None
    """Label of the control cells. By default the label that `preprocess` was given, or
    'control'."""
    layer: str | None = None
    """Layer to read. By default X."""


@Parameter(name="*", group=_OPTIONS)
@dataclass(frozen=True, kw_only=True)
class Pool:
    """The candidates."""

    candidates: Names | None = None
    """Perturbations to consider: their names; @FILE with a name per line; 'fitted', those of the
    fit (the default); 'genes', those and a knockout of every gene of the panel; or a csv file of
    shifts, perturbations x genes."""


@Parameter(name="*", group=_OPTIONS)
@dataclass(frozen=True, kw_only=True)
class Ranking(Pool):
    """How candidates are ranked."""

    acquisition: str = "auto"
    """The quantity that ranks candidates. 'probability' (of being nearest), 'ei', 'thompson' and
    'greedy' aim at the target, 'remaining_variance' reduces uncertainty, and 'random' does
    neither. A fit with exact shifts (--shift-sd 0) also allows 'civ', 'civ_ow', 'cv', 'maxv', 'mi',
    'target_mean_variance' and 'ucb'. 'auto' is 'civ' on such a fit if the target is a single state,
    'remaining_variance' for its other targets, and otherwise 'probability'."""
    n_cells: Whole = 100
    """Number of cells of the next experiment."""
    n_samples: Whole = 400
    """Number of posterior draws."""
    rng: Rng = 0


@Parameter(name="*", group=_OPTIONS)
@dataclass(frozen=True, kw_only=True)
class Stopping:
    """When to stop."""

    tolerance: float = 0.1
    """Smallest difference between candidates that matters, relative to the distance of the control
    to the target."""
    min_gain: float = 0.02
    """Smallest expected gain that is worth a further round, relative to the same distance."""
    stop_probability: float = 0.95
    """Probability that no candidate is closer than the best known by more than the tolerance, from
    which it is only to be confirmed."""


@Parameter(name="*", group=FILES)
@dataclass(frozen=True, kw_only=True)
class Results:
    """The files to which a step writes its results."""

    out: Path | None = None
    """File to which the screen with its results is written, h5ad or zarr. By default
    SCREEN.COMMAND.h5ad."""
    table: Path | None = None
    """A csv or xlsx file to which the table of results is also written."""
    show: Show = 15
    """Number of rows of the table to print."""


@Parameter(name="*", group=RUN)
@dataclass(frozen=True, kw_only=True)
class Run:
    """Options shared by all commands."""

    config: Annotated[Path | None, Parameter(group=FILES)] = None
    """A TOML file with settings, as written by every run. The command line takes precedence."""
    overwrite: Annotated[Flag, Parameter(group=FILES)] = False
    """Replace files that exist."""
    json: Flag = False
    """Print one JSON object: verdict, summary, files written."""
    quiet: Flag = False
    """Show no progress."""
    debug: Flag = False
    """Show the traceback of an error."""


app = App(
    name="nextpert",
    help=flowing(PIPELINE),
    help_format="plaintext",  # Markdown takes a fifth of the time of the help
    help_formatter=_Help(),
    version=__version__,
    config=[_from_file],
    default_parameter=Parameter(
        consume_multiple=(1, None), negative_iterable=(), show_default=_shown
    ),
    group_parameters=_OPTIONS,
    group_arguments=FILES,
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
)
app.register_install_completion_command()
_places = count()  # of commands in the list


def command(function: Callable[..., None]) -> Callable[..., Job]:
    """Register a function as the next command in the list.

    Calling the command does not run the function, but returns a :class:`Job` that runs it.
    """
    about = inspect.cleandoc(function.__doc__ or "").split("\nParameters\n")[0]
    signature = inspect.signature(function)

    @wraps(function)
    def job(*args: Any, **options: Any) -> Job:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()
        return Job(function.__name__, _flat(bound.arguments))

    app.command(job, help=flowing(about).strip(), sort_key=next(_places))
    return job


def say(text: str) -> None:
    """Print progress, a warning or an error, on one line."""
    with suppress(OSError):  # such as a full disk: nobody could be told
        sys.stderr.write(f"nextpert: {' '.join(text.split())}\n")
        sys.stderr.flush()


def make_writable() -> None:
    """Let text be printed anywhere: closed output is discarded, other characters are replaced.

    Python has no object for a stream that was closed before it started (``>&-``), and raises an
    error for characters that the encoding of a stream lacks, such as ASCII.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):  # a stream of a test or a notebook may have none
            stream.reconfigure(errors="replace")


@contextmanager
def stage(options: Mapping[str, Any], action: str) -> Iterator[None]:
    """Print what a run is doing, and how long it took."""
    started = time.perf_counter()
    if not options["quiet"]:
        say(f"{action} ...")
    yield
    if not options["quiet"]:
        say(f"{action}: done in {time.perf_counter() - started:.1f} s")


def flag_of(name: str) -> str:
    """Return the option of a parameter.

    Examples
    --------
    >>> from nextpert.cli._options import flag_of
    >>> flag_of("n_cells")
    '--n-cells'
    """
    return f"--{name.replace('_', '-')}"


def settings(command: str, options: Mapping[str, Any], version: str) -> str:
    """Return all options of a run as TOML; options that were not set are comments.

    Examples
    --------
    >>> from nextpert.cli._options import settings
    >>> print(settings("fit", {"screen": "a.h5ad", "shift_sd": 0.0, "layer": None}, "0.1.0"))
    # nextpert 0.1.0; the same run again: nextpert fit --config THIS.toml --overwrite
    [fit]
    screen = "a.h5ad"
    shift-sd = 0.0
    # layer
    <BLANKLINE>
    """
    rerun = f"nextpert {command} --config THIS.toml --overwrite"
    lines = [f"# nextpert {version}; the same run again: {rerun}", f"[{command}]"]
    for name, value in options.items():
        if name not in _NOT_KEPT:
            key = flag_of(name).removeprefix("--")
            lines += [f"# {key}" if value is None else f"{key} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def command_of(command: str, options: Mapping[str, Any]) -> str:
    """Return the command line of a run, from the options that differ from the defaults.

    Examples
    --------
    >>> from nextpert.cli._options import command_of
    >>> options = {"screen": "my screen.h5ad", "rng": 3, "genes": ("A", "B"), "intercept": False}
    >>> command_of("learn", options)
    "nextpert learn 'my screen.h5ad' --rng 3 --genes A B --no-intercept"
    """
    words = ["nextpert", command]
    for name, value in options.items():
        if name in _NOT_KEPT or value is None:
            continue
        flag = flag_of(name)
        if isinstance(value, bool):
            words += [flag if value else flag.replace("--", "--no-", 1)]
        else:
            words += [] if name == "screen" else [flag]
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return shlex.join(words)


def _toml(value: Any) -> str:
    """Return a value as TOML, which is JSON here, except that U+007F is escaped, too."""
    text = json.dumps(value, ensure_ascii=False, default=Path.as_posix)
    return text.replace("\x7f", "\\u007f")
