"""Pages made at a build say all that is there: rooms, benchmarks, tutorials, functions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import api_pages
import benchmark_pages
import function_pages
import nextpert as npt
import package_structure
import tutorial_pages

pytestmark = [pytest.mark.docs, pytest.mark.brief_chain]

ROOT = Path(__file__).parents[2]


def test_every_module_is_drawn_once_with_words():
    drawing = package_structure.drawing(ROOT)
    modules = {name for layer in package_structure.layers(ROOT) for name in layer}
    assert len(modules) > 15
    assert set(package_structure.WORDS) == modules
    for name in modules:
        assert drawing.count(f">{name.removeprefix('nextpert.')}</text>") == 1
        assert package_structure.WORDS[name]


def test_every_table_has_a_title_and_its_command(tmp_path):
    benchmark_pages.copy(ROOT / "benchmarks", tmp_path)
    tables = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    assert tables
    for path in tables:
        page = (tmp_path / "results" / path.name).read_text(encoding="utf-8")
        assert page.startswith("# ")
        assert re.search(r"`python (-m )?benchmarks", page), path.name
        assert f"](results/{path.name})" in (tmp_path / "index.md").read_text(encoding="utf-8")
    (tmp_path / "results" / "gone.md").write_text("# Gone")
    benchmark_pages.copy(ROOT / "benchmarks", tmp_path)
    assert not (tmp_path / "results" / "gone.md").exists()


def test_every_tutorial_has_a_question_and_a_picture(tmp_path):
    tutorial_pages.copy(ROOT / "tutorials", tmp_path / "tutorials", tmp_path / "pictures")
    page = (tmp_path / "tutorials" / "index.md").read_text(encoding="utf-8")
    names = {path.stem for path in (ROOT / "tutorials").glob("*.ipynb")}
    listed = (ROOT / "tutorials" / "README.md").read_text(encoding="utf-8")
    questions = {
        name: line
        for lines in tutorial_pages.listed_in(listed).values()
        for name, line in lines.items()
    }
    assert questions.keys() == names
    for name in names:
        question, facts = questions[name]
        assert f"]({name}.ipynb) | {question} |" in listed
        title = re.search(rf"^\| \[(.+)\]\({name}\.ipynb\)", listed, re.M)[1]
        assert f":::{{grid-item-card}} {title}\n:link: {name}\n" in page
        assert f"\n{question}\n\n*{facts}*\n:::" in page
        assert question.endswith((".", "?"))
        assert re.fullmatch(r"Data: .+\. Runs in [\d.]+ min\.", facts)
        assert page.count(f":link: {name}\n") == 1
        assert (tmp_path / "tutorials" / f"{name}.ipynb").exists()
        assert 1000 < (tmp_path / "pictures" / f"{name}.png").stat().st_size < 50_000


def test_every_public_name_is_listed():
    text = "".join(api_pages.pages().values())
    for package in ("pp", "tl", "pl", "get", "datasets", "core"):
        for name in getattr(npt, package).__all__:
            assert re.search(rf"^   {name}$", text, re.MULTILINE), name
    assert re.search(r"^   Campaign$", text, re.MULTILINE)


def test_every_function_has_its_picture_formula_and_source(monkeypatch):
    captions = dict.fromkeys(npt.pl.__all__, "")  # drawn in tests/pl/test_gallery.py
    monkeypatch.setattr("gallery_page.captions", lambda docs: captions)
    plots = [f"pl.{name}" for name in npt.pl.__all__]
    tools = [f"tl.{name}" for name in npt.tl.__all__]
    for name in [*plots, *tools, "report"]:
        (place,) = re.findall(r"figure:: /(\S+)", "\n".join(function_pages.picture(name)))
        assert (ROOT / "docs" / place).exists() or place.startswith("_static/gallery/")
    for name in tools:
        assert name == "tl.cpca" or function_pages.formulas(name)
    for name in {*function_pages.EQUATIONS, *function_pages.SECTIONS}:
        assert eval(f"npt.{name}", {"npt": npt})
    link = function_pages.source("py", {"module": "nextpert.tl", "fullname": "learn_dag"})
    path, first = re.fullmatch(r".*/blob/main/(\S+)#L(\d+)-L\d+", link).groups()
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()[int(first) - 1 :]
    assert next(line for line in lines if line.startswith("def ")) == "def learn_dag("


def test_every_equation_is_on_one_of_the_two_pages():
    pages = [ROOT / f"docs/model/{name}.md" for name in ("mathematics", "derivations")]
    numbers = [
        int(number)
        for page in pages
        for number in re.findall(r"\\qquad\s+\((\d+)\)\$\$", page.read_text(encoding="utf-8"))
    ]
    assert sorted(numbers) == list(range(1, max(numbers) + 1))
    cited = {
        int(number)
        for path in (ROOT / "src").rglob("*.py")
        for found in re.findall(
            r"equations? ((?:\d+(?:,| and| to|-) ?)*\d+)", path.read_text("utf-8")
        )
        for number in re.findall(r"\d+", found)
    }
    assert len(cited) > 30
    assert cited <= set(numbers)


def test_defaults_are_stated_once():
    def example(adata, *, n_cells=100, strategy="exploit", layer=None, copy=False):
        """Do nothing."""

    lines = [":param adata: Cells.", ":param n_cells: Cells", "    in all.", ""]
    lines += [':param strategy: ``"exploit"`` (default).', ":param layer: Layer."]
    lines += [":param copy: Copy.", "", ".. rubric:: Examples", ""]
    wanted = list(lines)
    wanted[2] += " Default: ``100``."
    wanted[6] += " Default: ``False``."
    assert function_pages.with_defaults(example, lines) == wanted
