"""The page of stored results: tables made from docstrings and from dataclasses that declare fields.

``docs/model/stored_results.md`` has a section for each function, with the columns of its tables.
Two kinds of comments in it are replaced when Sphinx reads the page: ``<!-- written by tl.cpca -->``
by what the docstring says is written, and ``<!-- fields of module.Record -->`` by the fields of a
dataclass and of those within it, with the kinds and shapes that :mod:`nextpert.core._codec` checks.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nextpert
from function_pages import stored
from nextpert.core import DagBlr
from nextpert.core.causal.stored import StoredPosterior

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PAGE = "model/stored_results"
SOURCE = Path(__file__).parents[1] / f"{PAGE}.md"
COMMENT = re.compile(r"^<!-- (written by|fields of) (\S+) -->$", re.MULTILINE)
HEAD = "| field | kind and shape | meaning |\n|---|---|---|\n"
# The column of shapes says these.
SHAPES = re.compile(r",? (?:shape )?``\([a-z_, ]+\)``|, same shape")
KINDS = {
    "flag": "yes or no, 1 or 0",
    "lists": "mapping of `names`, one list after the other, and `offsets`",
    "sparse": "sparse",
    "table": "table",
    "text": "text",
    "texts": "names",
}


def kind_of(field: dataclasses.Field[Any]) -> tuple[str, type | None]:
    """Return in words how a field is stored, and the dataclass that it holds."""
    part = field.metadata["part"]
    if part.kind == "series":  # "0", "1" and so on
        record = StoredPosterior if part.inner.store is DagBlr.to_dict else part.inner.record
        return 'mapping of `"0"`, `"1"` and so on', record
    if part.record is not None:
        return "mapping", part.record
    if part.kind == "coded":
        if part.store is DagBlr.to_dict:
            return "mapping", StoredPosterior
        made_from = getattr(part.store, "__qualname__", "")
        is_table = "DataFrame" in str(field.type) or "_by_name" in made_from
        return ("table" if is_table else "text" if part.store is str else "mapping"), None
    shape = () if part.kind == "lists" else part.shape
    axes = [str(axis).replace("n_nodes", "n_genes") for axis in shape]  # as users call them
    kind = KINDS.get(part.kind, "array" if axes else "number")
    if part.unless:
        kind += f' or `"{part.unless}"`'
    if part.dtype and part.kind == "array":
        kind += f" of {part.dtype.__name__}"
    comma = "," if len(axes) == 1 else ""
    return kind + (f", `({', '.join(axes)}{comma})`" if axes else ""), None


def meanings(record: type) -> dict[str, str]:
    """Return what the docstring of a dataclass says of each of its fields, as Markdown."""
    text = inspect.cleandoc(record.__doc__ or "")
    found = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)", text, re.M | re.S)
    said: dict[str, str] = {}
    names: list[str] = []
    for line in (found[1] if found else "").splitlines():
        if re.match(r"\w", line):
            names = re.findall(r"\w+", line)
        for name in names if line.startswith(" ") else ():
            said[name] = f"{said.get(name, '')} {line.strip()}".strip()
    return {name: as_markdown(SHAPES.sub("", each)) for name, each in said.items()}


def as_markdown(text: str) -> str:
    """Return a text of a docstring as a cell of a table in Markdown."""
    text = re.sub(r":(?:func|meth|class|data):`~?(?:nextpert\.)?([^`]+)`", _as_code, text)
    text = re.sub(r":doc:`/([^`]+)`", r"{doc}`/\1`", text)
    return text.replace("``", "`").replace("|", "\\|")


def _as_code(link: re.Match[str]) -> str:
    name = link[1]
    of_tools = name in nextpert.tl.__all__
    return f"`{'tl.' if of_tools else ''}{name}`"


def fields_of(record: type, place: str = "", known: dict[type, str] | None = None) -> str:
    """Return a table of the fields of a dataclass, and of each other dataclass in it, once."""
    said, rows, inside = meanings(record), "", ""
    known = {} if known is None else known
    for name, value in getattr(record, "stored_beside", ()):
        rows += f"| `{name}` | number | Always {value}, else the result is refused. |\n"
    for field in dataclasses.fields(record):
        if "part" not in field.metadata:
            continue
        if field.name not in said:
            message = f"The docstring of {record.__name__} does not say what {field.name} is."
            raise ValueError(message)
        kind, within = kind_of(field)
        if within in known:
            kind += f", each with the fields of `{known[within]}`"
        kind += ", optional" if field.default is None else ""
        rows += f"| `{field.name}` | {kind} | {said[field.name]} |\n"
        if within is not None and within not in known:
            path = f"{place}{field.name}" + ('["0"]' if "and so on" in kind else "")
            known[within] = path
            inside += f"**Fields of `{path}`**\n\n"
            inside += fields_of(within, f"{path}.", known).rstrip() + "\n\n"
    return f"{HEAD}{rows}\n{inside}"


def written_by(name: str) -> str:
    """Return a table of what a function writes, from its docstring."""
    sub, _, short = name.partition(".")
    doc = inspect.getdoc(getattr(getattr(nextpert, sub), short)) or ""
    rows = "".join(
        f"| {as_markdown(keys)} | {as_markdown(kind)} | {as_markdown(meaning)} |\n"
        for keys, kind, meaning in stored(doc)
    )
    return HEAD + rows


def _made(comment: re.Match[str]) -> str:
    if comment[1] == "written by":
        return written_by(comment[2])
    module, _, name = comment[2].rpartition(".")
    return fields_of(getattr(importlib.import_module(module), name)).rstrip()


@cache
def sections() -> dict[str, str]:
    """Return the text of each section of the page, by its title without marks of code."""
    text = COMMENT.sub(_made, SOURCE.read_text(encoding="utf-8"))
    parts = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {
        title.replace("`", ""): body for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the comments of the page as Sphinx reads it."""
    if docname == PAGE:
        source[0] = COMMENT.sub(_made, source[0])
