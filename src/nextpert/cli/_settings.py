"""The settings of a run: in a TOML file, from which it is done again, and as a command."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert.cli._signature import flag_of

if TYPE_CHECKING:
    from collections.abc import Mapping

# How a run speaks is no part of what it does; nor is what it may replace, said anew every time.
_NOT_KEPT = ("config", "overwrite", "json", "quiet", "debug", "show")


def settings(step: str, options: Mapping[str, Any], version: str) -> str:
    """Return all options of a run as TOML, a comment for those that were left open.

    Examples
    --------
    >>> from nextpert.cli._settings import settings
    >>> print(settings("fit", {"screen": "a.h5ad", "shift_sd": 0.0, "layer": None}, "0.2"))
    # nextpert 0.2; the same run again: nextpert fit --config THIS.toml --overwrite
    [fit]
    screen = "a.h5ad"
    shift-sd = 0.0
    # layer
    <BLANKLINE>
    """
    again = f"nextpert {step} --config THIS.toml --overwrite"
    lines = [f"# nextpert {version}; the same run again: {again}", f"[{step}]"]
    for name, value in options.items():
        if name not in _NOT_KEPT:
            key = flag_of(name).removeprefix("--")
            lines += [f"# {key}" if value is None else f"{key} = {_toml(value)}"]
    return "\n".join(lines) + "\n"


def command_of(step: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return the command of a run, with the options that differ from the defaults.

    Examples
    --------
    >>> from nextpert.cli._settings import command_of
    >>> options = {"screen": "my screen.h5ad", "rng": 3, "genes": ["A", "B"], "intercept": False}
    >>> command_of("learn", options, {"rng": 0, "intercept": True})
    "nextpert learn 'my screen.h5ad' --seed 3 --genes A B --no-intercept"
    """
    words = ["nextpert", step]
    for name, value in options.items():
        if name in _NOT_KEPT or value is None or value == defaults.get(name):
            continue
        flag = flag_of(name)
        if isinstance(value, bool):
            words += [flag if value else flag.replace("--", "--no-", 1)]
        else:
            words += [] if name == "screen" else [flag]
            words += map(str, value) if isinstance(value, list | tuple) else [str(value)]
    return shlex.join(words)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    text = str(value)
    if isinstance(value, Path):
        text = value.as_posix()
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
