"""The commands: help, options from the functions' signatures, light imports."""

from __future__ import annotations

import importlib
import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import nextpert as npt
from nextpert.cli import main
from nextpert.cli._app import options_of, parse
from nextpert.cli._signature import EXPANDED, arguments_of
from nextpert.cli._steps import DEMO, REPORT, STEPS

CALLING = [*STEPS.values(), REPORT]
ALL = [*CALLING, DEMO]
BY_NAME = {"ids": lambda step: step.name}
# Said by the file, by the command, or of no use in one.
NO_OPTION = {
    "adata", "copy", "key_added", "dag_key", "posterior_key", "show_progress", "as_anndata",
    "path", "command",
}  # fmt: skip


def function(step):
    place, name = step.function.split(".")
    return getattr(importlib.import_module(f"nextpert.{place}"), name)


@pytest.mark.parametrize("step", CALLING, **BY_NAME)
def test_signatures_are_read_as_python_reads_them(step):
    found = arguments_of(step.function)
    wanted = dict(inspect.signature(function(step)).parameters)
    del wanted["adata"]
    assert list(found) == list(wanted)
    for name, parameter in wanted.items():
        assert found[name].annotation == parameter.annotation
        default = None if parameter.default is parameter.empty else parameter.default
        assert found[name].default == default
        assert found[name].text
        assert "``" not in found[name].text
        assert ".." not in found[name].text.replace("...", "")


@pytest.mark.parametrize("step", CALLING, **BY_NAME)
def test_every_parameter_has_an_option_and_its_default(step):
    options = options_of(step)
    for name, parameter in inspect.signature(function(step)).parameters.items():
        if name in NO_OPTION:
            assert name not in options
            continue
        for part in EXPANDED.get(name, (name,)):
            assert part in options
            if part == name and name not in {*step.defaults, "target", "held_out"}:
                wanted = parameter.default
                wanted = list(wanted) if isinstance(wanted, tuple) else wanted
                wanted = ["control"] if (step.name, part) == ("preprocess", "control") else wanted
                assert options[part].default == wanted


@pytest.mark.parametrize("step", ALL, **BY_NAME)
def test_help_teaches(step, capsys):
    assert main([step.name, "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"nextpert {step.name} {step.example}".split()[-1] in text
    assert " ".join(step.about.split()[:3]) in text
    for name in options_of(step):
        assert f"--{'seed' if name == 'rng' else name.replace('_', '-')}" in text


def test_help_shows_the_pipeline(capsys):
    for argv in (["--help"], []):
        assert main(argv) == 0
        text = capsys.readouterr().out
        assert "preprocess -> learn -> fit -> effects" in text
        for step in ALL:
            assert step.does[1:] in text
    assert "--install-completion" in text


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == npt.__version__


def _commands():
    examples = [f"nextpert {step.name} {step.example}" for step in ALL]
    page = Path(__file__).parents[2] / "docs" / "guides" / "command_line.md"
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.S)
    return examples + [line for block in blocks for line in block.splitlines()]


@pytest.mark.parametrize("line", _commands())
def test_examples_are_commands(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "screen.plan.h5ad.toml").write_text('[plan]\nscreen = "screen.fit.h5ad"\n')
    program, *words = shlex.split(line)
    job = parse("1", words)
    assert program == "nextpert"
    assert job.step.name == words[0]
    if words[0] in ("design", "plan") and "--config" not in words:
        given = [job.options[x] for x in EXPANDED["target"] if job.options[x] is not None]
        assert len(given) == 1


def test_values_are_read():
    job = parse("1", ["fit", "x.h5ad", "--prior-scale", "2", "--perturbations", "A", "B"])
    assert (job.options["prior_scale"], job.options["perturbations"]) == (2.0, ["A", "B"])
    job = parse("1", ["fit", "x.h5ad", "--shift-sd", "learned", "--no-intercept"])
    assert (job.options["shift_sd"], job.options["intercept"]) == ("learned", False)


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


def test_completion_is_made_for_every_command():
    from nextpert.cli._app import build_app

    script = build_app("1").generate_completion(shell="bash")
    for step in ALL:
        assert step.name in script
    assert "--target-mean" in script


@pytest.mark.parametrize("step", CALLING, **BY_NAME)
def test_help_names_no_function_of_python(step):
    for option in options_of(step).values():
        assert not re.search(r"\b(tl|pp)\.\w|``", option.text), option
