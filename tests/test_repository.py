"""What surrounds the code says the same everywhere: versions, addresses, files that are named."""

import re
import runpy
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="the extra ci is not installed")

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def test_the_conda_recipe_asks_for_the_same():
    recipe = read(".github/conda/recipe.yaml")
    of_conda = {
        "matplotlib": "matplotlib-base",
        "seaborn": "seaborn-base",
    }  # without Qt
    stated = dict(line.split(">=") for line in PROJECT["dependencies"])
    needs = dict(line.split(" >=") for line in recipe["requirements"]["run"])
    assert needs.pop("python") == "${{ python_min }}"
    assert needs == {of_conda.get(name, name): oldest for name, oldest in stated.items()}
    assert recipe["context"]["python_min"] == PROJECT["requires-python"].removeprefix(">=")
    assert recipe["build"]["python"]["entry_points"] == [
        f"{name} = {entry}" for name, entry in PROJECT["scripts"].items()
    ]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    assert {line.replace(">=", " >=") for line in build["requires"]} <= set(
        recipe["requirements"]["host"]
    )
    assert recipe["about"]["license"] == PROJECT["license"]
    assert recipe["about"]["homepage"] == PROJECT["urls"]["Source"]


def test_the_oldest_versions_are_those_stated():
    stated = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dask"]
    floors = dict(re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", line).groups() for line in stated)
    text = (ROOT / "constraints-oldest.txt").read_text()
    pinned = dict(line.split("==") for line in text.splitlines() if line[:1] != "#")
    assert pinned.keys() == floors.keys()
    for name, floor in floors.items():
        parts = len(floor.split("."))
        numbers = [int(part) for part in pinned[name].split(".")]
        assert numbers[:parts] == [int(part) for part in floor.split(".")], name
        assert not any(numbers[parts:]), name


def test_the_version_is_the_same_everywhere():
    version = PROJECT["version"]
    assert read("CITATION.cff")["version"] == version
    assert read(".github/conda/recipe.yaml")["context"]["version"] == version
    released = re.findall(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0] == version


def test_the_ledger_has_every_file_once_and_counts_the_source():
    ledger = runpy.run_path(str(ROOT / "docs/count_ledger.py"))
    page = ledger["PAGE"].read_text(encoding="utf-8")
    named = [file for row, _ in list(ledger["rows"](page))[:-1] for file in ledger["files_of"](row)]
    files = {path for path in ledger["SOURCE"].rglob("*.py") if path.name != "__init__.py"}
    assert {path for path in named if path.name != "__init__.py"} == files
    assert len(named) == len(set(named))
    assert ledger["counted"](page) == page, "run python docs/count_ledger.py"


def test_every_constant_has_a_reason_and_is_on_the_page():
    constants = runpy.run_path(str(ROOT / "docs/list_constants.py"))
    page = (ROOT / "docs/developer/constants.md").read_text(encoding="utf-8")
    assert constants["page"]() == page, "run python docs/list_constants.py"
    assert len(constants["all_constants"]()) > 250
    assert [one.name for one in constants["all_constants"]() if not one.reason] == []


def test_the_reason_of_a_constant_is_beside_or_above_it():
    text = """
# Two limits.
_MIN, MAX = 1, 2.0
_SHARE = 0.5
_CELLS = 10  # of one guide

_BARE = (
    3
)
PATH = "x"
"""
    listed = runpy.run_path(str(ROOT / "docs/list_constants.py"))["constants_of"](text, "a.py")
    assert [(one.name, one.value, one.reason) for one in listed] == [
        ("_MIN, MAX", "1, 2.0", "Two limits."),
        ("_SHARE", "0.5", "Two limits."),
        ("_CELLS", "10", "of one guide"),
        ("_BARE", "3", ""),
    ]


def test_code_lines_are_those_without_words(tmp_path):
    text = '"""Words\n\nmore."""\n\n# A comment.\nx = 1  # one\n\n\n'
    text += 'def f(\n    a,\n):\n    """Say."""\n    return a\n'
    (tmp_path / "a.py").write_text(text, encoding="utf-8")
    code_lines = runpy.run_path(str(ROOT / "docs/count_ledger.py"))["code_lines"]
    assert code_lines(tmp_path / "a.py") == 5


def test_the_source_distribution_takes_files_of_the_root_alone():
    """A pattern without a slash matches files of this name in all folders."""
    patterns = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for pattern in patterns:
        assert pattern[0] == "/"
        assert (ROOT / pattern[1:]).exists()
