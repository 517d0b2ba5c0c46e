"""What is said on standard error; messages of the functions with options for arguments."""

from __future__ import annotations

import re
import sys
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert.cli._signature import EXPANDED, flag_of, target_options
from nextpert.cli._steps import STEPS

if TYPE_CHECKING:
    from collections.abc import Mapping

# What is no option by its own name.
_OTHERS = {"intercept": "--no-intercept", "noise_aware": "--no-noise-aware"}
_SWITCHED_OFF = re.compile(r"(?<![\w.-])(\w+)=False\b")
_FUNCTION = re.compile(r"(?:nextpert\.)?\b(?:tl|pp)\.\w+")


def say(text: str) -> None:
    """Print a line of progress, a warning or an error."""
    sys.stderr.write(f"nextpert: {text}\n")
    sys.stderr.flush()


def as_options(message: str) -> str:
    """Return a message with options and commands in the place of Python's arguments and functions.

    Examples
    --------
    >>> from nextpert.cli._words import as_options
    >>> as_options("No control cells: name the label of the unperturbed cells with control.")
    'No control cells: name the label of the unperturbed cells with --control.'
    >>> as_options('n_runs must be a whole number of at least 1, or use method="boss".')
    '--n-runs must be a whole number of at least 1, or use --method boss.'
    >>> as_options("adata.uns has no posterior 'dag_blr': run tl.fit_dag_blr first.")
    "adata.uns has no posterior 'dag_blr': run nextpert fit first."
    >>> as_options("To use these values as they are, pass check_scale=False.")
    'To use these values as they are, pass --no-check-scale.'
    """
    options, patterns = _patterns()
    message = _SWITCHED_OFF.sub(partial(_off, options=options), message)
    for pattern, template in patterns:
        message = pattern.sub(partial(_fill, options=options, template=template), message)
    return as_commands(message)


def with_its_option(message: str, given: Mapping[str, Any]) -> str:
    """Return an error with the option that it comes from, by the values ``given`` to options.

    Where it names none, that is the option whose value it tells first.

    Examples
    --------
    >>> from nextpert.cli._words import with_its_option
    >>> with_its_option("Genes not found: MYCC. Close matches: MYC.", {"genes": ["MYCC"]})
    '--genes: Genes not found: MYCC. Close matches: MYC.'
    >>> with_its_option("--target names genes outside the panel.", {"target_mean": ["MYC=1"]})
    '--target-mean names genes outside the panel.'
    """
    for option in target_options(given):
        message = re.sub(r"--target(?![\w-])", option, message)
        if re.match(r"(The target ['\"]|Targets? )", message):
            return f"{option}: {message}"
    if "--" in message:
        return message
    told = message.split(" Close matches: ")[0]
    found = [
        (place.start(), flag_of(name))
        for name, value in given.items()
        if name != "screen"
        for word in _words_in(value, flag_of(name))
        if (place := re.search(rf"(?<![\w+-]){re.escape(word)}(?![\w+-])", told))
    ]
    if re.search(r"^Genes not in |\bTarget\b", message):  # those of a target's file
        found += [(len(told), option) for option in target_options(given)]
    return f"{min(found)[1]}: {message}" if found else message


def _words_in(value: Any, option: str) -> list[str]:
    """Return the words of a value: of a list all, those in its files, and names before a =."""
    from nextpert.cli._values import names_of

    parts = value if isinstance(value, list | tuple) else [value]
    words = [str(part) for part in parts if isinstance(part, str | Path)]
    if option in ("--candidates", "--shift") and any(word.endswith(".csv") for word in words):
        words.append("table of shifts")
    return [
        part for word in names_of(words, option) for part in (word, *word.split("=")[:-1]) if part
    ]


def as_commands(message: str) -> str:
    """Return a message with commands in the place of Python's functions.

    Examples
    --------
    >>> from nextpert.cli._words import as_commands
    >>> as_commands("How far to trust this was not judged: run tl.diagnose.")
    'How far to trust this was not judged: run nextpert diagnose.'
    """
    return _FUNCTION.sub(_as_command, message)


@cache
def _patterns() -> tuple[dict[str, str], tuple[tuple[re.Pattern[str], str], ...]]:
    """Return the option of every argument, and how sentences name arguments."""
    names = {
        name
        for step in STEPS.values()
        for argument in step.arguments()
        for name in EXPANDED.get(argument.name, (argument.name,))
    }
    options = {name: flag_of(name) for name in names} | _OTHERS
    every = "|".join(sorted(options, key=len, reverse=True))
    several = "|".join(sorted((name for name in options if "_" in name), key=len, reverse=True))
    # Words such as "control" are arguments only where the sentence uses them as one.
    return options, (
        (re.compile(rf"(?<![\w.-])({every})=\[.*?\]"), r"{} NAME ..."),
        (re.compile(rf"(?<![\w.-])({every})=True\b"), r"{}"),
        (re.compile(rf"(?<![\w.-])({every})=([\"']?)([\w.+-]+)\2"), r"{} \3"),
        (re.compile(rf"(?<![\w.'\"-])({several})(?![\w'\"])"), r"{}"),
        (
            re.compile(
                rf"((?:^|[.:;,(] ?)(?:or )?)({every})"
                r"(?= (?:must|names?|has|holds?|needs|keeps|is|and)\b)"
            ),
            r"\1{}",
        ),
        (re.compile(rf"(\b(?:with|in) )({every})(?=[.,;:)]|$)"), r"\1{}"),
        (re.compile(r"(\b(?:of|with) )(target)(?= (?:names|or)\b)"), r"\1{}"),
    )


def _off(found: re.Match[str], options: dict[str, str]) -> str:
    name = found.group(1)
    return f"--no-{flag_of(name).removeprefix('--')}" if name in options else found.group()


def _fill(found: re.Match[str], options: dict[str, str], template: str) -> str:
    option = next(options[group] for group in found.groups() if group in options)
    return found.expand(template.replace("{}", option))


def _as_command(found: re.Match[str]) -> str:
    name = found.group().removeprefix("nextpert.")
    steps = [step.name for step in STEPS.values() if step.function == name]
    return f"nextpert {steps[0]}" if steps else found.group()
