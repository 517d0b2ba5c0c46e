"""What surrounds the code says the same everywhere: versions, addresses, files that are named."""

import re
import tomllib
from collections import Counter
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


def test_the_ledger_has_every_file_once():
    table = (ROOT / "docs/developer/ledger.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    source, counts = ROOT / "src" / "nextpert", Counter()
    for name in (name for row in rows for name in re.findall(r"`([^`]+)`", row[2])):
        place = source / name
        counts.update(place.rglob("*.py") if place.is_dir() else [place])
    files = {path for path in source.rglob("*.py") if path.name != "__init__.py"}
    assert {path for path in counts if path.name != "__init__.py"} == files
    assert max(counts.values()) == 1
    *each, total = (int(row[3].replace(",", "")) for row in rows)
    assert sum(each) == total


def test_the_source_distribution_takes_files_of_the_root_alone():
    """A pattern without a slash matches files of this name in all folders."""
    patterns = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for pattern in patterns:
        assert pattern[0] == "/"
        assert (ROOT / pattern[1:]).exists()
