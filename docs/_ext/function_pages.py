"""The page of a function: its picture, formula, stored results and arrays, and its source."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import array_types
import gallery_page

DOCS = Path(__file__).parents[1]
_PYPROJECT = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
SOURCE = f"{_PYPROJECT['project']['urls']['Source']}/blob/main/"
# The plot that draws the result of a function, where it does not have the name of the function.
DRAWN_BY = {
    "tl.cpca": "cpca_density",
    "tl.design_interventions": "design",
    "tl.learn_dag": "dag",
    "tl.plan_loading": "plan_screen",
    "tl.replay_design": "replay",
    "pp.perturbation_screen": "perturbation_counts",
}
OTHER_PICTURES = {
    "tl.fit_dag_blr": ("/_static/model/prior_and_data.svg", "/model/in_pictures"),
    "report": ("/guides/report.png", "/guides/report"),
}
# Equations of the page on mathematics, and the sections that explain the rest.
EQUATIONS: dict[str, tuple[int, ...]] = {
    "pp.effect_table": (25,),
    "tl.learn_dag": (1,),
    "tl.fit_dag_blr": (2, 9, 13),
    "tl.perturbation_effects": (13, 20),
    "tl.design_interventions": (4, 6, 33),
    "tl.plan_screen": (33, 34),
    "core.DagBlr": (2, 3),
    "core.Civ": (4, 6),
    "core.gap_variance": (4, 5),
}
SECTIONS = {
    "tl.dag_fit": ("Graphs",),
    "tl.diagnose": ("Predicted shifts", "A hierarchical model of effects"),
    "tl.learn_dag": ("Graphs",),
    "tl.perturbation_effects": ("Predicted shifts",),
    "tl.plan_cells": ("Number of cells", "A screen that has not been done", "Acquisitions"),
    "tl.plan_loading": ("Cells to load",),
    "tl.plan_screen": ("Acquisitions",),
    "tl.replay_design": ("Acquisitions",),
    "tl.target_distances": ("Number of cells", "The distance and its variance"),
    "Campaign": ("Acquisitions",),
    "Target": ("The distance and its variance",),
}
BLOCK = re.compile(r"^\$\$((?:(?!\$\$).)*?)\\qquad\s+\((\d+)\)\$\$", re.MULTILINE | re.DOTALL)
ITEM = re.compile(
    r"^- (?P<keys>``[^`]+``(?:(?:, | and | or )``[^`]+``)*)"
    r"(?: \((?P<kind>(?:[^()]|\([^()]*\))*)\))?(?P<rest>.*)$",
    re.DOTALL,
)
STORED = r"^Returns\n-+\n(.*?)(?=^\w[\w ]*\n-+\n|\Z)"


@cache
def mathematics() -> tuple[dict[int, tuple[str, str]], set[str]]:
    """Return the numbered formulas with the sections they are in, and all sections."""
    text = (DOCS / "model" / "mathematics.md").read_text(encoding="utf-8")
    formulas, sections = {}, set()
    for part in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        section = part.split("\n", 1)[0]
        sections.add(section)
        for formula, number in BLOCK.findall(part):
            formulas[int(number)] = (formula.strip().removesuffix(","), section)
    return formulas, sections


def section_link(section: str, text: str) -> str:
    """Return a link from the page of a function to a section of the mathematics."""
    anchor = re.sub(r"[^\w -]", "", section.lower()).replace(" ", "-")
    return f"`{text} <../../model/mathematics.html#{anchor}>`__"


def formulas(name: str) -> list[str]:
    """Return the formulas of a function, and where they are explained."""
    known, sections = mathematics()
    numbers, explained = EQUATIONS.get(name, ()), SECTIONS.get(name, ())
    assert set(explained) <= sections, explained
    if not numbers and not explained:
        return []
    lines = []
    for number in numbers:
        formula, section = known[number]
        body = ["   " + line for line in formula.split("\n") if line.strip()]
        link = section_link(section, f"Equation {number}")
        where = "" if section == "The mathematics" else f", {section[0].lower()}{section[1:]}"
        lines += [f"{link}{where}:", "", ".. math::", "", *body, ""]
    links = ", ".join(section_link(section, section) for section in ("Symbols", *explained))
    return folded("Mathematics", [*lines, f"Explained in: {links}."])


def folded(title: str, lines: list[str]) -> list[str]:
    """Return lines below a title that unfolds them."""
    inner = [f"   {line}" if line else "" for line in lines]
    return ["", f".. dropdown:: {title}", "", *inner, ""] if lines else []


def picture(name: str) -> list[str]:
    """Return the picture of a function: what a plot draws, of its result where it is a tool."""
    sub, _, short = name.rpartition(".")
    captions = gallery_page.captions(DOCS)
    plot = DRAWN_BY.get(name, short)
    if name in OTHER_PICTURES:
        place, page = OTHER_PICTURES[name]
        target, text, said = f"../..{page}.html", f"From :doc:`{page}`.", f"Picture of {name}"
    elif sub in ("pl", "tl", "pp") and plot in captions:
        place, said = f"/_static/gallery/{plot}.png", captions[plot]
        target = f"../..{place}"
        text = said if sub == "pl" else f"{said} Drawn by :func:`nextpert.pl.{plot}`."
    else:
        return []
    options = [f"   :alt: {said}", f"   :target: {target}"]
    return ["", f".. figure:: {place}", *options, "", f"   {text}", ""]


def stored(text: str) -> list[tuple[str, str, str]]:
    """Return what a docstring says is stored: key, type and shape, and meaning.

    Each is an item of a list in its section "Returns"; a paragraph before the list that names an
    entry of ``uns`` says that the items are fields of this entry.
    """
    found = re.search(STORED, text, re.MULTILINE | re.DOTALL)
    if not found:
        return []
    entry, rows = "", []
    for part in re.split(r"\n\n|\n(?=- )", inspect.cleandoc(found[1].split("\n", 1)[1])):
        match = ITEM.match(part.strip())
        if match is None:
            within = re.findall(r"uns\[\"\w+\"\]", part) if part.rstrip().endswith(":") else []
            entry = within[-1] if within else ""
            continue
        meaning = re.sub(r"^[:,]\s*", "", " ".join(match["rest"].split()))
        kind = match["kind"] or ("table" if meaning.startswith("a table") else "")
        keys = re.findall(r"``([^`]+)``", match["keys"])
        shown = [f'``{entry}["{key}"]``' if entry else f"``{key}``" for key in keys]
        rows.append((", ".join(shown), " ".join(kind.split()), meaning))
    return rows


def table_of_stored(rows: list[tuple[str, str, str]]) -> list[str]:
    """Return a table of what a function stores; the title has the entry that all fields are in."""
    entries = {key.split("]")[0] + "]" for keys, _, _ in rows for key in keys.split(", ")}
    whole = entries.pop() if len(entries) == 1 and len(rows) > 1 else ""
    title = f".. rubric:: Fields of {whole.strip('`')}" if whole else ".. rubric:: Stored results"
    lines = ["", title, "", ".. list-table::", "   :header-rows: 1", "   :class: stored", ""]
    lines += ["   * - key", "     - type and shape", "     - meaning"]
    for keys, kind, meaning in rows:
        shown = re.sub(r"``[^`]*\[\"(\w+)\"\]``", r"``\1``", keys) if whole else keys
        lines += [f"   * - {shown}", f"     - {kind}", f"     - {meaning[:1].upper()}{meaning[1:]}"]
    return [*lines, ""]


def all_fields(name: str) -> list[str]:
    """Return a link to the section on a function of the page of stored results."""
    page = (DOCS / "model" / "stored_results.md").read_text(encoding="utf-8")
    if f"\n## `{name}`\n" not in page:
        return []
    anchor = name.replace(".", "")
    link = f"`All fields, and the columns of tables <../../model/stored_results.html#{anchor}>`__"
    return [f"{link}.", ""]


def with_defaults(obj: Any, lines: list[str]) -> list[str]:
    """Return the lines with the default of each parameter whose text does not state it."""
    heads = [i for i, line in enumerate(lines) if re.match(r":\w|\.\. rubric", line)]
    parameters = inspect.signature(obj).parameters if heads else {}
    done = list(lines)
    for start, end in reversed(list(zip(heads, [*heads[1:], len(lines)], strict=False))):
        name = re.match(r":param (\w+):", lines[start])
        default = parameters[name[1]].default if name and name[1] in parameters else None
        text = " ".join(lines[start:end])
        said = repr(default).replace("'", '"')
        if not isinstance(default, bool | float | int | str) or said in text or "default" in text:
            continue
        last = max(i for i in range(start, end) if lines[i].strip())
        done[last] += f" Default: ``{said}``."
    return done


def said_once(lines: list[str]) -> list[str]:
    """Return the lines with a text that parameters share at the first of them alone."""
    heads = [i for i, line in enumerate(lines) if re.match(r":\w|\.\. rubric", line)]
    done, shared = lines[: heads[0]] if heads else lines, ("", "")
    for start, end in zip(heads, [*heads[1:], len(lines)], strict=False):
        part = lines[start:end]
        name = re.match(r":param (\w+): *", part[0])
        text = " ".join(" ".join([part[0][name.end() :], *part[1:]]).split()) if name else ""
        if name and text and text == shared[1]:
            part = [f":param {name[1]}: See ``{shared[0]}``.", *(part[-1:] if not part[-1] else ())]
        elif name:
            shared = (name[1], text)
        done = [*done, *part]
    return done


def add(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Add to a page what follows from elsewhere, and say what a function returns once."""
    # What is returned stands in "Returns", better than the signature says it.
    app.env.current_document.autodoc_annotations.get(name, {}).pop("return", None)
    lines[:] = [
        re.sub(r"(?<![`\w])~[\w.]*\.(\w+)", r"\1", line) if line.startswith(":return") else line
        for line in lines
    ]
    if what not in ("function", "class"):
        return
    short = name.removeprefix("nextpert.")
    lines[:] = with_defaults(obj, said_once(lines))
    rows = stored(inspect.getdoc(obj) or "") if short.startswith(("pp.", "tl.")) else []
    if rows:
        start = next(i for i, line in enumerate(lines) if line.startswith(":return"))
        end = next(
            (i for i in range(start + 1, len(lines)) if re.match(r":\w|\.\. rubric", lines[i])),
            len(lines),
        )
        first = next(i for i in range(start, end) if lines[i].lstrip().startswith("- "))
        text = " ".join(line.strip() for line in lines[start:first]).strip()
        lines[start:end] = [re.sub(r"(,? with)?:$", " (see the table below).", text), ""]
    examples = next((i for i, line in enumerate(lines) if "rubric:: Examples" in line), len(lines))
    more = [*table_of_stored(rows), *all_fields(short)] if rows else []
    if what == "function" and short in array_types.FUNCTIONS:
        more += folded("Array types", array_types.of_function(short))
    lines[examples:examples] = ["", *more, *formulas(short)]
    # Below the summary.
    end = lines.index("") if "" in lines else len(lines)
    lines[end:end] = picture(short)


def source(domain: str, info: dict[str, str]) -> str | None:
    """Return where the source of a name is: the file on GitHub, with its lines."""
    if domain != "py" or not info["module"]:
        return None
    obj = importlib.import_module(info["module"])
    try:
        for part in info["fullname"].split("."):
            obj = getattr(obj, part)
        if isinstance(obj, property):
            obj = obj.fget
        obj = inspect.unwrap(obj)
        lines, first = inspect.getsourcelines(obj)
        path = Path(inspect.getsourcefile(obj)).resolve().relative_to(DOCS.parent)
    except (AttributeError, OSError, TypeError, ValueError):
        return None  # an attribute, or inherited from another package
    return f"{SOURCE}{path.as_posix()}#L{first}-L{first + len(lines) - 1}"
