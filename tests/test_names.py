"""Public parameters, columns, slots and options bear the names of the glossary, and no others."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import nextpert as npt
from nextpert import core
from nextpert.cli._commands import parse  # noqa: F401  # registers the commands
from nextpert.cli._options import STEPS, defaults_of

GLOSSARY = Path(__file__).parents[1] / "docs" / "glossary.md"
TABLE = GLOSSARY.read_text(encoding="utf-8").partition("## Names of parameters and columns")[2]
AVOIDED = {
    name
    for row in re.findall(r"^\| .*\| (.*?) \|$", TABLE, re.MULTILINE)
    for name in re.findall(r"`(\w+)(?:\.\.\.)?`", row)
}


def avoided(name):
    """Return what of a name the glossary avoids: the whole of it, or a word."""
    return AVOIDED & {name, *name.split("_")}


def parameters(function):
    return [p.name for p in inspect.signature(function).parameters.values()]


def public():
    modules = {sub: importlib.import_module(f"nextpert.{sub}") for sub in ("pp", "tl", "pl")}
    for where, module in {
        **modules,
        "datasets": npt.datasets,
        "core": core,
        "nextpert": npt,
    }.items():
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing):
                yield f"{where}.{name}", thing
            for method, its in vars(thing).items() if inspect.isclass(thing) else ():
                if inspect.isfunction(its) and not method.startswith("_"):
                    yield f"{where}.{name}.{method}", its


FUNCTIONS = dict(public())


def test_the_glossary_has_the_table():
    assert {"must", "never", "arc", "expert", "criteria", "clear"} <= AVOIDED
    assert (avoided("n_arcs"), avoided("least_cells")) == ({"arcs"}, {"least_cells"})
    assert not avoided("min_cells") | avoided("at_least")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_parameters(name):
    wrong = {each: avoided(each) for each in parameters(FUNCTIONS[name]) if avoided(each)}
    assert not wrong
    assert not avoided(name.rpartition(".")[2])


def test_options_of_the_command():
    names = {name for command in STEPS for name in defaults_of(command)}
    assert len(names) > 60
    assert not {name: avoided(name) for name in names if avoided(name)}
