"""The commands: help, options from the functions' signatures, light imports."""

from __future__ import annotations

import inspect
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import nextpert as npt
from nextpert._adata.arguments import options_of
from nextpert.cli import main
from nextpert.cli._commands import parse
from nextpert.cli._options import STEPS, TargetState, app, command_of, defaults_of
from nextpert.cli._read import _PRIOR

CALLING = [*STEPS, "report"]
ALL = [*CALLING, "demo"]
# What Python takes as one argument and the command line in several forms.
FORMS = {"target": list(vars(TargetState())), "prior": _PRIOR, "size": ["effect"]}
FORMS |= {"total": ["budget"]}
# Said by the file, by the command, or of no use in one.
NO_OPTION = {
    "adata", "copy", "key_added", "dag_key", "posterior_key", "as_anndata",
    "path", "command", "keys", "key",
}  # fmt: skip


def function(command):
    if command == "report":
        return npt.report
    place, name = STEPS[command].function.split(".")
    return getattr(getattr(npt, place), name)


@pytest.mark.parametrize("command", CALLING)
def test_every_parameter_has_an_option_and_its_default(command):
    options, expected = defaults_of(command), set()
    called = function(command)
    parameters = {n: p.default for n, p in inspect.signature(called).parameters.items()}
    for mapping, cls in options_of(called).items():  # its parts are options of their own
        parameters |= {field.name: field.default for field in fields(cls)}
        del parameters[mapping]
    for name, default in parameters.items():
        if name in NO_OPTION:
            continue
        forms = FORMS.get(name, [name])
        expected |= set(forms)
        assert expected <= set(options)
        if forms == [name]:
            wanted = default
            if (command, name) == ("preprocess", "control"):
                wanted = (wanted,)  # one label or several
            assert options[name] == wanted, name
    own = {"screen", "out", "config", "overwrite", "json", "quiet", "debug"}
    own |= {"also"} if command == "report" else {"table", "show"}
    own |= {"order", "allow_stale"} if command == "plan" else set()
    assert set(options) - expected == own


def test_the_demo_has_the_defaults_of_the_steps():
    steps = defaults_of("learn") | defaults_of("design") | defaults_of("preprocess")
    steps |= {"out": Path("nextpert_demo"), "data": None, "n_graphs": 25}
    assert {name: steps[name] for name in defaults_of("demo")} == defaults_of("demo")


@pytest.mark.parametrize("command", ALL)
def test_help_teaches_in_sentences(command, capsys):
    assert main([command, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert " ".join(app[command].help.split("\n\n")[1].split()) in text
    assert text.startswith(f"Usage: nextpert {command} ")
    for name in defaults_of(command):
        assert f"--{name.replace('_', '-')}" in text
    arguments = app[command].assemble_argument_collection(parse_docstring=True)
    for argument in (each for each in arguments if each.name != "*"):  # "*" is a group of options
        text = argument.parameter.help
        assert text, argument.name
        assert text.endswith("."), text
        assert not re.search(r"\b(tl|pp)\.\w|``|\.\.", text), text


def test_the_list_of_commands_the_version_and_completion(capsys):
    completion = app.generate_completion(shell="bash")
    assert "--target-mean" in completion
    for argv in (["--help"], []):
        assert main(argv) == 0
        text = capsys.readouterr().out
        assert "preprocess -> learn -> fit -> diagnose -> effects" in text
        assert "--install-completion" in text
        for command in ALL:
            assert f" {command} " in text
            assert command in completion
            assert app[command].help.split("\n")[0][:40] in text
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == npt.__version__


def _commands():
    examples = [re.search(r"Example: `(.*?)`", app[command].help)[1] for command in ALL]
    page = Path(__file__).parents[2] / "docs" / "guides" / "command_line.md"
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return examples + lines


def test_a_command_names_neither_defaults_nor_options_of_one_run():
    options = {"screen": "a.h5ad", "layer": None, "overwrite": True, "quiet": True, "rng": 0}
    assert command_of("learn", options) == "nextpert learn a.h5ad --rng 0"


@pytest.mark.parametrize("line", _commands())
def test_examples_are_commands(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "screen.plan.h5ad.toml").write_text('[plan]\nscreen = "screen.fit.h5ad"\n')
    program, *words = shlex.split(line)
    job = parse(words)
    assert program == "nextpert"
    assert job.name == words[0]
    if words[0] in ("design", "plan") and "--config" not in words:
        assert len({*vars(TargetState())} & {*job.given}) == 1


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["learn", "--help"], ["learn"]])
def test_help_and_errors_of_usage_wait_for_nothing(argv):
    code = (
        "import sys; from nextpert.cli import main; main(sys.argv[1:]); "
        "heavy = {'scanpy', 'numba', 'anndata', 'pandas', 'matplotlib', 'numpy'}; "
        "sys.exit(f'loaded: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
