"""The recipes for developers work, and quote the sources as they are."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "developer"
QUOTE = re.compile(r"^```\{code-block\} python\n:caption: (\S+)\n(.*?)^```$", re.M | re.DOTALL)
NAMED = re.compile(r"^```python\n# ((?:src|tests)/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CHANGE = re.compile(r"^```\{code-block\} diff\n:caption: \"`(\S+)`\"\n(.*?)^```$", re.M | re.DOTALL)
COMMANDS = re.compile(r"^```\{code-block\} bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)

CLASSES = ["acquisition", "search", "predictor", "plot"]  # a file of their own
RECIPE_NAMES = [*CLASSES, "distance", "column"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A copy of the repository with its compiled code, without what no recipe needs."""
    place = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("generated", "results", "*.html", "gallery")
    for folder in ("src", "tests", "benchmarks"):
        shutil.copytree(ROOT / folder, place / folder, ignore=ignored)
    (place / "docs").mkdir()
    for name in ("_ext", "model"):
        shutil.copytree(ROOT / "docs" / name, place / "docs" / name, ignore=ignored)
    for name in ("conftest.py", "pyproject.toml", "docs/make_gallery.py"):
        shutil.copy(ROOT / name, place / name)
    return place


@pytest.fixture(scope="module")
def followed(clone):
    """The commands of each recipe with their output, after the steps of all recipes."""
    commands = [(recipe, words) for recipe in RECIPE_NAMES for words in written(recipe, clone)]
    outputs = run([words for _, words in commands], clone)
    return [(*command, output) for command, output in zip(commands, outputs, strict=True)]


@pytest.mark.parametrize("recipe", RECIPE_NAMES)
def test_a_recipe_works_to_its_last_step(recipe, followed, clone):
    """Its files are written, its changes made, and its commands run, in the order of the page."""
    own = [(words, output) for name, words, output in followed if name == recipe]
    assert own
    for words, (code, text) in own:
        # The one step that a run names: the digest of fields that have changed.
        changed = r"set this digest in FIELDS.*?'(\w{8})' == '(\w{8})'"
        if recipe == "column" and (new := re.search(changed, text, re.DOTALL)):
            slots = clone / "tests" / "test_documented_slots.py"
            slots.write_text(slots.read_text(encoding="utf-8").replace(new[2], new[1]))
            ((code, text),) = run([words], clone)
        assert code == 0, text[-3000:]
        assert " passed" in text or any("--mpl-generate-path" in word for word in words)


def written(recipe, clone):
    """Write the files of a recipe and make its changes; return the arguments of its commands."""
    page = (RECIPES / f"{recipe}.md").read_text(encoding="utf-8")
    files, changes, commands = (kind.findall(page) for kind in (NAMED, CHANGE, COMMANDS))
    assert files[-1][0].startswith("tests/")
    for path, code in files:
        assert not (clone / path).exists()
        (clone / path).write_text(code, encoding="utf-8")
    for path, change in changes:
        text = (clone / path).read_text(encoding="utf-8")
        for hunk in change.split("@@\n"):
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] == " ")
            after = "".join(line[1:] for line in lines)
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        (clone / path).write_text(text, encoding="utf-8")
    for command in "".join(commands).splitlines():
        python, *words = shlex.split(command)
        assert [python, *words[:2]] == ["python", "-m", "pytest"]
        # The rules of the house are tested on the file below.
        yield [word for word in words[2:] if word != "tests/test_house.py"]


# In one process, which imports the package once.
RUN = """
import json, sys, pytest
for words in json.loads(sys.argv[1]):
    print(int(pytest.main([*words, "-q", "-p", "no:cacheprovider"])), end=chr(0))
"""


def run(commands, clone):
    """Return exit code and output of each command."""
    environment = {**os.environ, "PYTHONPATH": str(clone / "src"), "MPLBACKEND": "agg"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(commands)], cwd=clone, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = [text.rpartition("\n") for text in done.stdout.split("\0")[:-1]]
    return [(int(code), text) for text, _, code in outputs]


@pytest.mark.parametrize("recipe", RECIPE_NAMES)
def test_sources_are_quoted_as_they_are(recipe):
    page = (RECIPES / f"{recipe}.md").read_text(encoding="utf-8")
    quotes = QUOTE.findall(page)
    assert quotes or recipe != "search"
    for path, lines in quotes:
        assert lines in (ROOT / path).read_text(encoding="utf-8")
