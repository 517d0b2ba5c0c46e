"""What a run says: progress, messages that name options, and its settings as TOML and command."""

from __future__ import annotations

import json
import logging
import re
import shlex
import sys
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert.cli._commands import COMMANDS
from nextpert.cli._options import STEPS, Wanted, defaults_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# A parameter or function in a message, with the sign that gives a parameter a value. A word in
# quotes, or a part of a longer name, is none.
_NAME = re.compile(r"(?<![\w.'\"-])(?:nextpert\.)?((?:(?:tl|pp)\.)?\w+)(=(?:True\b)?|(?!['\"\w]))")
# A part of a mapping of options, which is an option of its own here: named, and given a value.
_PART = re.compile(r"\b(?:\w+_options|constraints)\[(['\"])(\w+)\1\]")
_GIVEN = re.compile(r"\b(?:\w+_options|constraints)=\{(['\"])(\w+)\1: ([^}]*)\}")
# Names in a file of names, numbers or settings; all but words such as the columns' own.
_IN_FILES = re.compile(r"[^\s,=\[\]{}\"']*[A-Z_\d][^\s,=\[\]{}\"']*")
# How a run speaks is no part of what it does; nor is what it may replace, said anew every time.
_NOT_KEPT = ("config", "overwrite", "json", "quiet", "debug", "show")


def say(text: str) -> None:
    """Print progress, a warning or an error, on one line."""
    sys.stderr.write(f"nextpert: {' '.join(text.split())}\n")
    sys.stderr.flush()


@contextmanager
def stage(options: Mapping[str, Any], what: str) -> Iterator[None]:
    """Print what is being done, and how long it took."""
    started = time.perf_counter()
    if not options["quiet"]:
        say(f"{what} ...")
    yield
    if not options["quiet"]:
        say(f"{what}: done in {time.perf_counter() - started:.1f} s")


@contextmanager
def heard(level: int, take: Callable[[logging.LogRecord], None]) -> Iterator[None]:
    """Give what the functions log, of a level and above, to ``take``."""
    handler, logger = logging.Handler(level), logging.getLogger("nextpert")
    handler.emit = take  # type: ignore[method-assign, assignment]
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level, logger.getEffectiveLevel()))
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def flag_of(name: str) -> str:
    """Return the option of a parameter.

    Examples
    --------
    >>> from nextpert.cli._words import flag_of
    >>> flag_of("n_cells")
    '--n-cells'
    """
    return f"--{name.replace('_', '-')}"


@cache
def names() -> dict[str, str]:
    """Return what the command calls the parameters and the functions of Python."""
    parameters = {name for command in COMMANDS for name in defaults_of(command)}
    functions = {step.function: f"nextpert {name}" for name, step in STEPS.items()}
    return {name: flag_of(name) for name in parameters} | functions


def in_options(message: str, given: Mapping[str, Any] | None = None) -> str:
    """Return a message with the names of the command in the place of Python's.

    A parameter that is an English word, too, is taken for the parameter only if it begins the
    sentence, has a value, or follows "with".

    Examples
    --------
    >>> from nextpert.cli._words import in_options
    >>> in_options("No control cells: name the label of the unperturbed cells with control.")
    'No control cells: name the label of the unperturbed cells with --control.'
    >>> in_options('n_runs must be a whole number of at least 1, or use method="boss".')
    '--n-runs must be a whole number of at least 1, or use --method="boss".'
    >>> in_options("search_options['alpha'] must be a finite number above 0.")
    '--alpha must be a finite number above 0.'
    >>> in_options("Pass count_options={'normalise': 'none'} to keep the values.")
    "Pass --normalise='none' to keep the values."
    >>> in_options("adata.uns has no posterior 'dag_blr': run tl.fit_dag_blr first.")
    "adata.uns has no posterior 'dag_blr': run nextpert fit first."
    """
    known = dict(names())
    for name in vars(Wanted()).keys() & (given or {}).keys():
        known["target"] = flag_of(name)

    def put(found: re.Match[str]) -> str:
        name, sign = found.groups()
        before = message[: found.start()]
        is_parameter = sign or not name.isalpha() or not before or before.endswith(" with ")
        if name not in known or not is_parameter:
            return found.group()
        return known[name] + sign.removesuffix("=True")

    message = _GIVEN.sub(r"\2=\3", message)
    message = _PART.sub(lambda found: known.get(found[2], found[0]), message)
    return _NAME.sub(put, message)


def as_error(error: Exception, given: Mapping[str, Any]) -> str:
    """Return an error in words, with the option that it comes from.

    If the error names none, it is the option whose value, or whose file, holds the first of the
    names in the error.

    Examples
    --------
    >>> from nextpert.cli._words import as_error
    >>> as_error(ValueError("Genes not found: MYCC. Close matches: MYC."), {"genes": ["MYCC"]})
    '--genes: Genes not found: MYCC. Close matches: MYC.'
    >>> as_error(ValueError("target names genes outside the panel."), {"target_mean": ["MYC=1"]})
    '--target-mean names genes outside the panel.'
    """
    message = in_options(str(error), given) or type(error).__name__
    if "--" in message:
        return message
    told = message.split(" Close matches: ")[0]
    found = [
        (place.start(), flag_of(name))
        for name, value in given.items()
        if name != "screen"
        for word in _words_in(value)
        if (place := re.search(rf"(?<![\w+-]){re.escape(word)}(?![\w+-])", told))
    ]
    if "Target" in told:
        found += [(len(told), flag_of(name)) for name in vars(Wanted()) if name in given]
    return f"{min(found)[1]}: {message}" if found else message


def _words_in(value: Any) -> list[str]:
    """Return the words of a value, names before a =, and those in its files."""
    words: list[str] = []
    for part in value if isinstance(value, list | tuple) else [value]:
        if isinstance(part, str | Path) and str(part):
            words += [str(part), *str(part).split("=")[:-1]]
            path = Path(str(part).removeprefix("@"))
            if path.suffix in (".csv", ".toml", ".txt") and path.is_file():
                words += _IN_FILES.findall(path.read_text(encoding="utf-8", errors="ignore"))
    return [word for word in words if word]


def settings(command: str, options: Mapping[str, Any], version: str) -> str:
    """Return all options of a run as TOML, a comment for those that were left open.

    Examples
    --------
    >>> from nextpert.cli._words import settings
    >>> print(settings("fit", {"screen": "a.h5ad", "shift_sd": 0.0, "layer": None}, "0.2"))
    # nextpert 0.2; the same run again: nextpert fit --config THIS.toml --overwrite
    [fit]
    screen = "a.h5ad"
    shift-sd = 0.0
    # layer
    <BLANKLINE>
    """
    again = f"nextpert {command} --config THIS.toml --overwrite"
    lines = [f"# nextpert {version}; the same run again: {again}", f"[{command}]"]
    for name, value in options.items():
        if name not in _NOT_KEPT:
            key = flag_of(name).removeprefix("--")
            lines += [f"# {key}" if value is None else f"{key} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def command_of(command: str, given: Mapping[str, Any]) -> str:
    """Return the command line of a run, from the options that differ from the defaults.

    Examples
    --------
    >>> from nextpert.cli._words import command_of
    >>> given = {"screen": "my screen.h5ad", "rng": 3, "genes": ("A", "B"), "intercept": False}
    >>> command_of("learn", given)
    "nextpert learn 'my screen.h5ad' --rng 3 --genes A B --no-intercept"
    """
    words = ["nextpert", command]
    for name, value in given.items():
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
    """Return a value as TOML, which differs from JSON in one character that is to be escaped."""
    text = json.dumps(value, ensure_ascii=False, default=Path.as_posix)
    return text.replace("\x7f", "\\u007f")
