"""What surrounds the code says the same everywhere: versions, addresses, files that are named."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

jsonschema = pytest.importorskip("jsonschema", reason="the extra ci is not installed")
yaml = pytest.importorskip("yaml", reason="the extra ci is not installed")

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
OTHERS = [ROOT / ".github" / "dependabot.yml", ROOT / ".pre-commit-config.yaml"]


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("path", [*WORKFLOWS, *FORMS, *OTHERS], ids=lambda path: path.name)
def test_is_a_mapping(path):
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_read_only_and_end(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "uses" in job or job["timeout-minutes"] <= 90
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step)
        # What strangers can name (branches, titles) must not end up in a shell.
        assert "${{ github." not in step.get("run", "")


def test_what_is_tested():
    runs = read(".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]
    stated = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    must_pass = {run["python"] for run in runs if not run.get("may-fail")}
    assert must_pass == set(stated) == {"3.11", "3.12", "3.13"}
    assert "3.14" in {run["python"] for run in runs}
    installs = " ".join(run.get("install", "") for run in runs)
    assert "--pre" in installs
    assert "--constraint constraints-oldest.txt" in installs


def test_other_systems_are_tried_and_known_vulnerabilities_looked_up():
    jobs = read(".github/workflows/test.yml")["jobs"]
    assert {"macos-latest", "windows-latest"} == set(jobs["smoke"]["strategy"]["matrix"]["system"])
    smoke, audit = (
        " ".join(str(s.get("run")) for s in jobs[job]["steps"]) for job in ("smoke", "audit")
    )
    assert "nextpert demo" in smoke
    assert "pip-audit" in audit
    assert {"lint", "test", "smoke"} <= set(jobs["all-pass"]["needs"])


def test_groups_are_the_extras():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "dependency-groups"
    ]
    extras = PROJECT["optional-dependencies"]
    assert set(groups) - {"dev"} <= set(extras)
    for name in set(groups) - {"dev"}:
        assert groups[name] == [f"nextpert[{name}]"]


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


def test_only_a_tag_is_published_and_without_a_token():
    release = read(".github/workflows/release.yml")
    # YAML 1.1 takes the key `on` for true.
    assert release[True] == {"push": {"tags": ["v*"]}}
    publish = release["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert set(publish["needs"]) == {"build", "same-version"}
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_files_that_a_workflow_names_are_there(path):
    named = re.findall(r"(?:tests|src|tutorials|\.github)/[\w./-]+", path.read_text())
    assert [name for name in named if not (ROOT / name.rstrip("/")).exists()] == []


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


def test_addresses_agree():
    urls, meta = PROJECT["urls"], read(".github/scverse/meta.yaml")
    assert set(urls) == {"Documentation", "Source", "Issues", "Changelog"}
    assert meta["project_home"] == urls["Source"]
    assert meta["documentation_home"].startswith(urls["Documentation"])
    assert urls["Changelog"].startswith(urls["Documentation"])
    assert urls["Issues"].startswith(urls["Source"])


def test_addresses_that_do_not_exist_yet_stand_in_one_place():
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    planned = [
        PROJECT["urls"][name].removeprefix("https://") for name in ("Source", "Documentation")
    ]
    planned += ["colab.research", "pip install nextpert"]
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = {name: ROOT / name for name in listed.stdout.split("\0") if name}
    naming = {
        name
        for name, path in paths.items()
        if path.is_file()
        and any(one in path.read_text(encoding="utf-8", errors="ignore") for one in planned)
    }
    # What is handed in at a release, and the page and the test that say so.
    release = {
        ".github/conda/recipe.yaml",
        ".github/scverse/meta.yaml",
        "docs/developer/release.md",
    }
    assert naming - release == {"pyproject.toml", "tests/test_repository.py"}


# Rules of the registry's schema (scripts/src/ecosystem_scripts/schema.json at e5abd20). Of its
# vocabulary of tags, those that can describe this package.
ENTRY = {
    "type": "object",
    "required": [
        "name", "description", "project_home", "documentation_home", "license", "tags",
        "primary_category", "language", "category", "install",
    ],
    "properties": {
        **{key: {"type": "string", "minLength": 1} for key in ("name", "description", "license")},
        **{
            key: {"type": "string", "pattern": r"^https://\S+$"}
            for key in ("project_home", "documentation_home", "tutorials_home", "inventory")
        },
        "install": {
            "minProperties": 1,
            "properties": {"pypi": {"type": "string"}, "conda": {"pattern": "(.*)::(.*)"}},
            "additionalProperties": False,
        },
        "primary_category": {"enum": ["scRNA-seq", "Multimodal", "Infrastructure"]},
        "tags": {
            "type": "array", "minItems": 1, "maxItems": 10, "uniqueItems": True,
            "items": {
                "enum": [
                    "scRNA-seq", "bulk RNA-seq", "differential expression", "functional analysis",
                    "gene regulatory networks", "perturbation", "visualization", "benchmarking",
                    "probabilistic modeling",
                ]
            },
        },
        "language": {"enum": ["Python", "R", "Julia", "Rust", "C++"]},
        "publications": {
            "type": "array",
            "items": {"pattern": r"^10.\d{4,9}\/[-._;()\/:A-Za-z0-9]+$"},
        },
        "version": False,  # the registry takes it from PyPI
        "contact": {"items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
        "logo": {"pattern": r"logo\.(svg|png|webp)"},
        "test_command": {"type": "string"},
        "category": {"const": "ecosystem"},
    },
    "additionalProperties": False,
}  # fmt: skip


def test_the_entry_for_scverse():
    meta = read(".github/scverse/meta.yaml")
    jsonschema.validate(meta, ENTRY)
    assert meta["name"] == PROJECT["name"]
    assert meta["license"] == PROJECT["license"]
    assert meta["install"] == {"pypi": PROJECT["name"]}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "0.2.0"),
        ("tags", ["single-cell"]),
        ("tags", []),
        ("primary_category", "perturbation"),
        ("install", {}),
        ("publications", ["https://doi.org/10.1038/s42256-023-00719-0"]),
        ("language", None),
    ],
)
def test_an_entry_that_the_registry_would_refuse(key, value):
    meta = read(".github/scverse/meta.yaml") | {key: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(meta, ENTRY)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms(path):
    form = read(path)
    if path.name == "config.yml":
        assert all({"name", "url", "about"} == set(link) for link in form["contact_links"])
        return
    assert {"name", "description", "labels", "body"} <= set(form)
    ids = [field["id"] for field in form["body"] if "id" in field]
    assert len(set(ids)) == len(ids)


def test_a_file_missing_from_an_archive_is_named(tmp_path):
    spec = importlib.util.spec_from_file_location("check_dist", ROOT / ".github" / "check_dist.py")
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    files = sorted(check.expected())
    assert {"nextpert/py.typed", "nextpert/__init__.py"} <= set(files)
    with zipfile.ZipFile(tmp_path / "n.whl", "w") as wheel:
        for name in files[1:]:
            wheel.writestr(name, "")
    with tarfile.open(tmp_path / "n.tar.gz", "w:gz") as source:
        for name in files[:-1]:
            source.add(ROOT / "src" / name, f"nextpert-1/src/{name}")
    assert check.absent(tmp_path) == {"n.whl": {files[0]}, "n.tar.gz": {files[-1]}}
