"""The commands and their options, made from the functions that they call."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Group, Parameter
from cyclopts.config import Toml
from cyclopts.validators import Number

from nextpert.cli._signature import EXPANDED, Argument, flag_of
from nextpert.cli._steps import ALL
from nextpert.cli._words import as_commands

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cyclopts import ArgumentCollection, Token

    from nextpert.cli._steps import Step

_PIPELINE = """\
Which perturbation to try next, from a single-cell perturbation screen.

preprocess -> learn -> fit -> effects, design, cells, plan, diagnose -> report

replay takes a screen after learn, distances after preprocess; report shows both.

Each step reads an h5ad or zarr and writes another, SCREEN.STEP.h5ad, with its settings beside \
it: nextpert STEP --config SCREEN.STEP.h5ad.toml does it again."""
# What is said on the command line of arguments that files or several options stand for.
_SAYS = {
    "target": "The mean under this perturbation.",
    "target_group": "The mean of the cells whose column KEY of obs is VALUE.",
    "target_mean": "GENE=MEAN ...: wanted means, log-normalised; other genes keep theirs.",
    "target_file": "The same from a csv file with the columns gene, mean; or more from FILE.toml, "
    "by the names of nextpert.Target: state, signature, at_most, away_from, weights, distance ...",
    "targets": "Perturbations whose states are to be reached, or FILE.toml as for --target-file. "
    "By default every candidate that lies three standard errors or more off the control cells.",
    "before": "Prior knowledge, a csv file: earlier, later (no path leads back).",
    "tiers": "Prior knowledge, a csv file: gene, tier (a number, the most upstream first).",
    "required": "Prior knowledge, a csv file of arcs the graph must have: parent, child.",
    "forbidden": "Prior knowledge, a csv file of arcs it must not have: parent, child.",
    "dag": "A graph of your own, for --method given: a csv file of arcs: parent, child.",
    "prior_network": "Arcs known elsewhere, a csv file: source, target and, if known, weight.",
    "prior_effects": "Effects of the same perturbations in another screen: an h5ad or zarr of "
    "perturbations x genes.",
    "candidates": "fitted (default), genes (those and a knockout of every gene of the panel), "
    "NAME ..., @FILE with a name a line, or a csv file of shifts, perturbations x genes.",
    "shift": "knockout (minus the mean of the target in control cells), activation (one unit up), "
    "or a csv file of shifts, perturbations x genes.",
    "pending": "NAME or NAME=CELLS ...: under way or in the freezer, counted as if measured.",
    "costs": "budget=NUMBER perturbation=NUMBER cell=NUMBER: wells are then chosen by what they "
    "gain per cost; perturbation=FILE.csv for one each (perturbation, cost).",
    "aliases": "NAME=GENE ...: targets or genes that go by another name in the file.",
    "title": "Title of the page; by default the target.",
    "keys": "RESULT=KEY ...: results that are not stored by their usual name.",
    "noise_var": "Known noise variance of all genes; by default inferred.",
    "rng": "Seed of everything random.",
    "targets_first": "The targets of all labels stand before all other genes.",
    "perturbation_key": "Column of obs with the label of every cell.",
    "control": "Label of the control cells.",
    "layer": "Layer to read; by default X.",
    "guide_key": "Column of obs with the guide (or replicate, donor, clone) of every cell.",
    "batch_key": "Columns of obs with the batch of every cell.",
    "covariates": "Columns of obs with other conditions of every cell.",
    "environments": "control: learn from control cells alone; all: from every labelled cell, with "
    "boss. By default all with boss.",
    "n_graphs": "Graphs of resampled cells, for the frequency of every arc and for intervals that "
    "know of it; 1 for none. By default 25.",
    "n_jobs": "Number of threads or processes, -1 for all; the result does not depend on it.",
    "held_out": "Whether the target itself is kept out of the pool, or both in turn.",
}
_METAVARS = {
    "target_group": "KEY VALUE", "target_mean": "GENE=MEAN...", "pending": "NAME[=CELLS]...",
    "costs": "KIND=COST...", "aliases": "NAME=GENE...", "shift": "WORD|FILE.csv", "rng": "SEED",
}  # fmt: skip
_TARGET = Group("The wanted state (one of these)", sort_key=1)
_OPTIONS = Group("Options", sort_key=2)
_FILES = Group("Files", sort_key=0)
_RUN = Group("Run", sort_key=3)


@dataclass
class Job:
    """A step and its options, by name; ``written`` says once the results are there."""

    step: Step
    options: dict[str, Any]
    written: bool = field(default=False)


@dataclass(frozen=True)
class Option:
    """An option: its name in Python, type, default, help and group."""

    name: str
    kind: Any
    default: Any
    text: str
    group: Group

    def parameter(self) -> inspect.Parameter:
        """Return it as cyclopts takes it."""
        several = self.kind in (list[str], list[Path])
        shown = Parameter(
            name=flag_of(self.name),
            help=self.text,
            group=self.group,
            metavar=_METAVARS.get(self.name),
            converter=_whole if self.kind is int else None,
            validator=Number(gte=0) if self.name == "show" else None,
            consume_multiple=(1, None) if several else None,
            negative_iterable=(),
            show_default=self.default is not None and self.default is not False,
            negative=None if self.kind is bool and self.default else (),
        )
        first = self.name == "screen"
        kind: Any = self.kind if self.default is not None or first else self.kind | None
        return inspect.Parameter(
            self.name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD if first else inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if first else self.default,
            annotation=Annotated[kind, shown],
        )


def _whole(kind: Any, tokens: Sequence[Token]) -> int:
    """Return a whole number; cyclopts would cut 2.5 to 2."""
    return int(tokens[0].value)


def options_of(step: Step) -> dict[str, Option]:
    """Return all options of a command, those of its function first, by name."""
    found = [
        *(Option(*part) for part in _files(step)),
        *(option for given in step.arguments() for option in _from_argument(given, step)),
        *(Option(*part, _RUN) for part in _run(step)),
    ]
    return {option.name: option for option in found}


def given_by(job: Job) -> dict[str, Any]:
    """Return the options of a run that differ from the defaults."""
    defaults = defaults_of(job.step)
    return {name: value for name, value in job.options.items() if value != defaults[name]}


def defaults_of(step: Step) -> dict[str, Any]:
    """Return the default of every option of a command."""
    return {name: option.default for name, option in options_of(step).items()}


def _from_argument(given: Argument, step: Step) -> Iterator[Option]:
    for name in EXPANDED.get(given.name, (given.name,)):
        part = Argument(name, given.annotation, given.default, given.text)
        default = step.defaults.get(name, part.default)
        if name == "held_out":
            default = str(default).lower()
        elif part.kind == list[str] and default is not None:
            default = [default] if isinstance(default, str) else list(default)
        elif isinstance(default, int) and part.kind is float:
            default = float(default)
        groups = {"target": _TARGET, "rng": _RUN, "n_jobs": _RUN}
        group = groups.get(given.name, _OPTIONS)
        text = as_commands(_SAYS.get(name, part.text))
        yield Option(name, part.kind, default, text, group)


def _files(step: Step) -> Iterator[tuple[str, Any, Any, str, Group]]:
    yield from ((*part, _FILES) for part in step.files())
    yield "config", Path, None, "Settings in a TOML file, as every run writes them.", _FILES
    yield "overwrite", bool, False, "Replace files of an earlier run; others never are.", _FILES


def _run(step: Step) -> Iterator[tuple[str, Any, Any, str]]:
    if step.table:
        yield "show", int, 15, "Rows of the table printed."
    yield "json", bool, False, "Print one JSON object: verdict, summary, files written."
    yield "quiet", bool, False, "No progress."
    yield "debug", bool, False, "Show the traceback of an error."


def command(step: Step, place: int) -> App:
    """Return the command of a step, the one so many-th in the list."""
    options = options_of(step)
    signature = inspect.Signature([option.parameter() for option in options.values()])

    def make(*args: Any, **given: Any) -> Job:
        bound = signature.bind(*args, **given)
        bound.apply_defaults()
        return Job(step, dict(bound.arguments))

    make.__signature__ = signature  # type: ignore[attr-defined]
    app = App(
        name=step.name, help=step.help(), help_format="plaintext", version_flags=(), sort_key=place
    )
    app.default(make)
    return app


def build_app(version: str) -> App:
    """Return the command; calling it with arguments gives the :class:`Job` they ask for."""
    app = App(
        name="nextpert",
        help=_PIPELINE,
        help_format="plaintext",
        version=version,
        config=[_from_file],
        result_action="return_value",
        exit_on_error=False,
        print_error=False,
    )
    for i, step in enumerate(ALL.values()):
        app.command(command(step, i))
    app.register_install_completion_command()
    return app


def _from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take what the command line leaves open from the file of ``--config``."""
    config = arguments.get("--config", default=None)
    if config is not None and config.tokens:
        path = Path(config.tokens[-1].value)
        if not path.is_file():
            message = f"--config: there is no file {str(path)!r}."
            raise FileNotFoundError(message)
        Toml(path)(app, commands, arguments)


def parse(version: str, argv: Sequence[str]) -> Job | None:
    """Return what the arguments ask for; ``None`` where help or the version was printed."""
    try:
        found = build_app(version)(list(argv))
    except SystemExit:  # so rich ends where the reader of the help has gone, as with "| head"
        return None
    return found if isinstance(found, Job) else None
