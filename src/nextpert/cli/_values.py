"""Values of options as the functions take them: words, lists, and the tables in files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextpert.cli import _read as read
from nextpert.cli._signature import EXPANDED, flag_of, target_options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from nextpert import Target
    from nextpert.cli._steps import Step

# Lists of one that are a word for many, and what is taken as a list or one.
_WORDS = {("genes", "all"), ("panel", "zhang2023")}
_ONE = {"control", "batch_key", "covariates"}


def arguments_from(step: Step, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a step's function; what is left to it is left out.

    Raises
    ------
    FileNotFoundError
        If a file is absent.
    ValueError
        If a file or a value cannot be read.
    """
    out: dict[str, Any] = {}
    for given in step.arguments():
        if given.name == "target":
            if target_options(options) or "None" not in given.annotation:
                out["target"] = read_target(options)
        elif given.name == "prior":
            known = {kind: options[kind] for kind in EXPANDED["prior"] if options[kind] is not None}
            out["prior"] = {kind: value(kind, path) for kind, path in known.items()} or None
        elif options[given.name] is not None:
            out[given.name] = value(given.name, options[given.name])
    return out


def value(name: str, given: Any) -> Any:
    """Return the value of one option."""
    option = flag_of(name)
    if isinstance(given, list):
        given = names_of(given, option)
        if len(given) == 1 and (name in _ONE or (name, given[0]) in _WORDS):
            return given[0]
    return _READERS[name](given, option) if name in _READERS else given


def read_target(options: Mapping[str, Any]) -> str | tuple[str, str] | dict[str, float] | Target:
    """Return the wanted state as :func:`nextpert.tl.design_interventions` takes it."""
    named = target_options(options)
    if len(named) != 1:
        given = f"{' and '.join(named)} are not allowed together" if named else "none is named"
        message = f"Name one wanted state, such as with --target NAME: {given}."
        raise ValueError(message)
    if options["target"] is not None:
        return str(options["target"])
    if options["target_group"] is not None:
        key, group = options["target_group"]
        return str(key), str(group)
    if options["target_file"] is not None:
        if options["target_file"].suffix == ".toml":
            return read.read_target(options["target_file"], "--target-file")
        means = read.read_numbers(options["target_file"], "--target-file")
        if not means:
            message = f"--target-file: {str(options['target_file'])!r} names no gene: give it rows."
            raise ValueError(message)
        return means
    return read.by_name(_split(options["target_mean"], "--target-mean", "MEAN"), "--target-mean")


def names_of(words: list[str], option: str) -> list[str]:
    """Return names, and those in a file, one a line, for ``@FILE``."""
    names: list[str] = []
    for word in words:
        if word.startswith("@"):
            path = Path(word[1:])
            read.require_file(path, option)
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except UnicodeDecodeError as error:
                message = f"{option}: {str(path)!r} is no text with a name a line."
                raise ValueError(message) from error
            found = [line.strip() for line in lines if line.strip()]
            if not found:
                message = f"{option}: {str(path)!r} is empty: give it a name a line."
                raise ValueError(message)
            names += found
        else:
            names.append(word)
    return names


def _split(words: list[str], option: str, what: str) -> list[tuple[str, str]]:
    pairs = []
    for word in words:
        name, sign, text = word.rpartition("=")
        if not sign or not name:
            message = f"{option} takes NAME={what}, but found {word!r}."
            raise ValueError(message)
        pairs.append((name, text))
    return pairs


def _candidates(words: list[str], option: str) -> Any:
    if words == ["fitted"]:
        return None
    if len(words) == 1 and (words[0] == "genes" or words[0].endswith(".csv")):
        return _shift(words[0], option)
    return words


def _shift(word: str, option: str) -> Any:
    return read.read_table(Path(word), option) if word.endswith(".csv") else word


def _targets(words: list[str], option: str) -> list[str | Target]:
    return [read.read_target(Path(x), option) if x.endswith(".toml") else x for x in words]


def _pending(words: list[str], option: str) -> Any:
    if not any("=" in word for word in words):
        return words
    cells = read.by_name(_split(words, option, "CELLS"), option)
    return {name: int(n) if n.is_integer() else n for name, n in cells.items()}


def _costs(words: list[str], option: str) -> dict[str, Any]:
    pairs = _split(words, option, "COST")
    files = {name: Path(text) for name, text in pairs if text.endswith(".csv")}
    costs: dict[str, Any] = dict(
        read.by_name([pair for pair in pairs if pair[0] not in files], option)
    )
    return costs | {name: read.read_numbers(path, option) for name, path in files.items()}


def _held_out(word: str, option: str) -> bool | str:
    return word if word == "both" else word == "true"


_READERS: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("before", "required", "forbidden", "dag"), read.read_pairs),
    "aliases": lambda words, option: dict(_split(words, option, "GENE")),
    "candidates": _candidates,
    "costs": _costs,
    "held_out": _held_out,
    "keys": lambda words, option: dict(_split(words, option, "KEY")),
    "pending": _pending,
    "prior_effects": read.read_screen,
    "prior_network": read.read_network,
    "shift": _shift,
    "targets": _targets,
    "tiers": read.read_numbers,
}
