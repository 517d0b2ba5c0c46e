"""What surrounds the code says the same everywhere: versions, addresses, files that are named."""

from __future__ import annotations

import importlib.util
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
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
    assert {run["python"] for run in runs} == {"3.11", "3.13"}
    installs = " ".join(run.get("install", "") for run in runs)
    assert "--pre" in installs
    assert "--constraint constraints-oldest.txt" in installs


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
    assert read(".github/scverse/meta.yaml")["version"] == version
    released = re.findall(r"^## \[(\d[^]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0] == version


def test_addresses_agree():
    urls, meta, cff = PROJECT["urls"], read(".github/scverse/meta.yaml"), read("CITATION.cff")
    assert set(urls) == {"Documentation", "Source", "Issues", "Changelog"}
    assert meta["project_home"] == urls["Source"] == cff["repository-code"]
    assert meta["documentation_home"].startswith(urls["Documentation"])
    assert urls["Changelog"].startswith(urls["Documentation"])
    assert urls["Issues"].startswith(urls["Source"])


def test_the_entry_for_scverse():
    # The fields, kinds and patterns that the registry's own schema asks for.
    meta = read(".github/scverse/meta.yaml")
    text = {"name", "description", "project_home", "documentation_home", "license", "version"}
    assert text | {"install", "tags", "category", "contact"} <= set(meta)
    assert all(isinstance(meta[key], str) and meta[key].strip() for key in text)
    assert meta["license"] == PROJECT["license"]
    assert meta["install"] == {"pypi": PROJECT["name"]}
    assert meta["category"] == "ecosystem"
    for key in ("tags", "contact", "publications"):
        assert meta[key]
        assert all(isinstance(value, str) for value in meta[key])
        assert len(set(meta[key])) == len(meta[key])
    assert all(
        re.fullmatch(r"10\.\d{4,9}/[-._;()/:A-Za-z0-9]+", doi) for doi in meta["publications"]
    )
    assert all(re.fullmatch(r"https://\S+", value) for key, value in meta.items() if "home" in key)


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
