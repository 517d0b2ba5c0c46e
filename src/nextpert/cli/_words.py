"""What a run says on standard error, and its settings as TOML and as a command."""

from __future__ import annotations

import json
import shlex
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ADVICE = "nextpert.tl._advice"  # the logger of what to do next
# Errors are those of the Python functions.
HINT = (
    "options are written --n-cells for n_cells, and --alpha for search_options['alpha']; "
    "nextpert learn is tl.learn_dag"
)
# How a run speaks is no part of what it does; nor is what it may replace, decided every time.
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


def flag_of(name: str) -> str:
    """Return the option of a parameter.

    Examples
    --------
    >>> from nextpert.cli._words import flag_of
    >>> flag_of("n_cells")
    '--n-cells'
    """
    return f"--{name.replace('_', '-')}"


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
