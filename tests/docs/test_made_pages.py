"""Pages made at a build say all that is there: rooms, benchmarks, tutorials, functions."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

import nextpert as npt

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _pages_can_be_imported():
    sys.path.insert(0, str(ROOT / "docs" / "_ext"))
    yield
    sys.path.remove(str(ROOT / "docs" / "_ext"))


def load(name):
    return importlib.import_module(name)


def test_every_room_is_drawn_once_with_words():
    house = load("house")
    drawing = house.drawing(ROOT)
    rooms = {name for floor in house.floors(ROOT) for name in floor}
    assert len(rooms) > 15
    for name in rooms:
        assert drawing.count(f">{name.removeprefix('nextpert.')}</text>") == 1
    assert set(house.WORDS) <= rooms
    wordless = rooms - set(house.WORDS)
    assert all(name.split(".")[-1].startswith("_") for name in wordless)


def test_every_table_has_a_title_and_its_command(tmp_path):
    load("benchmark_pages").copy(ROOT / "benchmarks", tmp_path)
    tables = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    assert tables
    for path in tables:
        page = (tmp_path / "results" / path.name).read_text(encoding="utf-8")
        assert page.startswith("# ")
        assert re.search(r"`python (-m )?benchmarks", page), path.name
        assert f"](results/{path.name})" in (tmp_path / "index.md").read_text(encoding="utf-8")
    (tmp_path / "results" / "gone.md").write_text("# Gone")
    load("benchmark_pages").copy(ROOT / "benchmarks", tmp_path)
    assert not (tmp_path / "results" / "gone.md").exists()


def test_every_tutorial_is_listed_in_the_order_of_reading(tmp_path):
    pages = load("tutorial_pages")
    pages.copy(ROOT / "tutorials", tmp_path)
    names = (tmp_path / "index.md").read_text(encoding="utf-8").split(":maxdepth: 1\n")[1]
    listed = names.split("```")[0].split()
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "tutorials").glob("*.ipynb"))
    assert listed[0] == "quickstart"
    assert all((tmp_path / f"{name}.ipynb").exists() for name in listed)


def test_every_public_name_is_listed():
    text = "".join(load("api_pages").pages().values())
    for package in ("pp", "tl", "pl", "get", "datasets", "core"):
        for name in getattr(npt, package).__all__:
            assert re.search(rf"^   {name}$", text, re.MULTILINE), name
    assert re.search(r"^   Campaign$", text, re.MULTILINE)
