"""Commands and files that README and documentation name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nextpert.cli._options import STEPS

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *(p for p in DOCS.rglob("*.md") if p.relative_to(DOCS).parts[0] not in ("_build", "tutorials")),
]
MODULE = re.compile(r"`(?:python -m )?(benchmarks(?:\.[a-z_]+)?)[` ]")
SCRIPT = re.compile(r"`python ((?:benchmarks|docs)/[\w/]+\.py)")
LINK = re.compile(r"\]\(([^):#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_there(path):
    text = path.read_text(encoding="utf-8")
    for name in MODULE.findall(text):
        place = ROOT / Path(*name.split("."))
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), name
    for name in SCRIPT.findall(text):
        assert (ROOT / name).exists(), name


def test_what_the_readme_links_to_is_there():
    links = LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(links) > 15
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_command_is_recommended_as_the_functions_are():
    guide = (DOCS / "guides" / "command_line.md").read_text(encoding="utf-8")
    block = re.search(r"```bash\n(nextpert preprocess.*?)```", guide, re.DOTALL)[1]
    lines = block.replace("\\\n", "").splitlines()
    steps = {line.split()[1]: line for line in lines}
    page = (DOCS / "start.md").read_text(encoding="utf-8")
    calls = dict(re.findall(r"npt\.((?:pp|tl)\.\w+)\(adata(.*)\)", page))
    assert [STEPS[step].function for step in steps if step != "report"] == list(calls)
    # Labels, target and files are given by place, or belong to one of the two alone.
    given = set(re.findall(r"--([\w-]+)", " ".join(lines))) - {"table", "order", "also", "target"}
    told = (
        " ".join(calls.values())
        .replace("constraints=", "")
        .replace('"max_combination":', "max_combination=")
    )
    assert given == {name.replace("_", "-") for name in re.findall(r"(\w+)=", told)}
    recommended = "--method boss --environments all --n-graphs 25"
    assert recommended in steps["learn"]
    assert 'method="boss", environments="all", n_graphs=25' in calls["tl.learn_dag"]
