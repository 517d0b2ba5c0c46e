"""Options of a command from the signature and docstring of the function that it calls.

The source is read, not imported: help and errors of usage should not wait for scanpy and numba.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names that take several parts on the command line, or none of their own.
EXPANDED = {
    "target": ("target", "target_group", "target_mean", "target_file"),
    "prior": ("before", "tiers", "required", "forbidden"),
}
# Files that register a search each, under their name: read as such, for the same reason.
_SEARCHES = Path(__file__).parents[1] / "core" / "search" / "methods"
# What functions take as tables and mappings comes from files, or as NAME=VALUE.
_KINDS: dict[str, Any] = {
    "aliases": list[str],
    "candidates": list[str],
    "costs": list[str],
    "dag": Path,
    "keys": list[str],
    "held_out": Literal["false", "true", "both"],
    "method": Literal["given", *sorted(file.stem for file in _SEARCHES.glob("[!_]*.py"))],
    "noise_var": float,
    "pending": list[str],
    "prior_effects": Path,
    "prior_network": Path,
    "rng": int,
    "shift": str,
    "target": str,
    "targets": list[str],
    "target_group": tuple[str, str],
    "target_mean": list[str],
    "target_file": Path,
    "before": Path,
    "tiers": Path,
    "required": Path,
    "forbidden": Path,
    "targets_first": bool,
}
# How docstrings say things, and how a command does.
_WORDS = (
    (re.compile(r"[:,;.]? ?``None`` \(default\):? "), ". By default "),
    (re.compile(r"[;,.] (?:or )?``None`` (?:stands )?(?:for )?"), ". By default "),
    (re.compile(r"^\. B"), "B"),
    (re.compile(r" \(default\)|, default"), ""),
    (re.compile(r":(?:func|class|meth):`~?(?:nextpert\.)?([\w.]+)`"), r"\1"),
    (re.compile(r"``adata``"), "the screen"),
    (re.compile(r"``(?:adata)?([^`]*)``"), r"\1"),
)
# A help of this many letters or so; the rest is for the documentation of the function.
_LONG = 400


def flag_of(name: str) -> str:
    """Return the option of an argument.

    Examples
    --------
    >>> from nextpert.cli._signature import flag_of
    >>> flag_of("n_cells"), flag_of("rng")
    ('--n-cells', '--seed')
    """
    return f"--{'seed' if name == 'rng' else name.replace('_', '-')}"


def target_options(options: Mapping[str, Any]) -> list[str]:
    """Return the options by which a wanted state is named."""
    return [flag_of(kind) for kind in EXPANDED["target"] if options.get(kind) is not None]


@dataclass(frozen=True)
class Argument:
    """An argument of a function: how it is annotated, its default, and what is said of it."""

    name: str
    annotation: str
    default: Any
    text: str

    @property
    def kind(self) -> Any:
        """Its type on the command line."""
        if self.name in _KINDS:
            return _KINDS[self.name]
        parts = set(self.annotation.split(" | ")) - {"None"}
        if parts & {"Iterable[str]", "Sequence[str]"}:
            return list[str]
        kinds = {"bool": bool, "int": int, "float": float, "str": str, "os.PathLike[str]": str}
        if not parts <= set(kinds):
            message = f"no option is made of {self.name}: {self.annotation}"
            raise TypeError(message)
        found = [kinds[part] for part in sorted(parts)]
        return float | str if set(found) == {float, str} else found[0]


@cache
def arguments_of(function: str) -> dict[str, Argument]:
    """Return the arguments of a public function, such as ``"tl.learn_dag"``, but the first."""
    node = _find(function)
    said = _parameters(ast.get_docstring(node) or "")
    spec = node.args
    positional = spec.posonlyargs + spec.args
    missing: list[ast.expr | None] = [None] * (len(positional) - len(spec.defaults))
    pairs = [
        *zip(positional, missing + list(spec.defaults), strict=True),
        *zip(spec.kwonlyargs, spec.kw_defaults, strict=True),
    ]
    return {
        arg.arg: Argument(
            arg.arg,
            ast.unparse(arg.annotation) if arg.annotation else "str",
            _literal(default),
            said.get(arg.arg, ""),
        )
        for arg, default in pairs[1:]
    }


def _find(function: str) -> ast.FunctionDef:
    place, name = function.split(".")
    folder = Path(__file__).parents[1] / place
    files = (folder / f"_{name}.py", folder / f"_{name}" / f"{name}.py", folder / f"{name}.py")
    tree = ast.parse(next(f for f in files if f.is_file()).read_text(encoding="utf-8"))
    return next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name)


def _literal(default: ast.expr | None) -> Any:
    """Return a default; ``None`` also for one that has a name, which the function then takes."""
    try:
        return None if default is None else ast.literal_eval(default)
    except ValueError:
        return None


def _parameters(doc: str) -> dict[str, str]:
    """Return what the section Parameters of a numpydoc docstring says, by name."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", doc, re.M | re.S)
    parts = re.split(r"^(\w+(?:, \w+)*)\n", section.group(1) if section else "", flags=re.M)
    return {
        name: _plain(text)
        for names, text in zip(parts[1::2], parts[2::2], strict=True)
        for name in names.split(", ")
    }


def _plain(text: str) -> str:
    """Return the first sentences of a description, without markup."""
    text = " ".join(text.split())
    for pattern, plain in _WORDS:
        text = pattern.sub(plain, text)
    sentences = re.split(r"(?<=\.) (?=[A-Z0-9])", text)
    said = sentences.pop(0)
    while sentences and len(said) + len(sentences[0]) < _LONG:
        said += f" {sentences.pop(0)}"
    return said
