"""The recipes for developers work, and quote the sources as they are."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nextpert.core import CausalVariance, DagBlr, LinearScm, Moments, random_scm

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "developer"
FILE = re.compile(r"^```python\n# (src/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTE = re.compile(r"^```\{code-block\} python\n:caption: (\S+)\n(.*?)^```$", re.M | re.DOTALL)
CHANGE = re.compile(r"^```\{code-block\} diff\n:caption: (\S+)\n(.*?)^```$", re.M | re.DOTALL)
# Calls, those too that run once the changes are made; test_pages.py runs the others.
CALLS = re.compile(
    r"^```(?:python|\{code-block\} python)\n(?!# src/|:caption)(.*?)^```$", re.M | re.DOTALL
)
# Modules of a folder take the place of the package's own, which keeps its compiled code.
OVERLAY = """
import importlib.util, sys
from pathlib import Path

class Overlay:
    def find_spec(name, path=None, target=None):
        place = Path({folder!r}, *name.split("."))
        if place.with_suffix(".py").is_file():
            return importlib.util.spec_from_file_location(name, place.with_suffix(".py"))
        if (place / "__init__.py").is_file():
            inside = [str(Path(path[0], place.name))]
            return importlib.util.spec_from_file_location(
                name, place / "__init__.py", submodule_search_locations=inside
            )

sys.meta_path.insert(0, Overlay)
"""


def the_file(recipe):
    """Where the recipe's file goes, and its text."""
    ((path, code),) = FILE.findall((RECIPES / f"{recipe}.md").read_text(encoding="utf-8"))
    return path, code


def made(recipe):
    """The names that the recipe's file defines."""
    path, code = the_file(recipe)
    space = {"__name__": path.removeprefix("src/").removesuffix(".py").replace("/", ".")}
    exec(compile(code, path, "exec"), space)
    return space


def house():
    spec = importlib.util.spec_from_file_location("house", ROOT / "tests" / "test_house.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("recipe", ["criterion", "search", "plot"])
def test_a_recipe_keeps_to_the_house(recipe, tmp_path):
    rules, (path, code) = house(), the_file(recipe)
    assert not (ROOT / path).exists()
    (tmp_path / "new.py").write_text(code, encoding="utf-8")
    name = path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    floor, place = rules.room(name)
    for target in rules.imports(tmp_path / "new.py"):
        if target.startswith("nextpert."):
            its_floor, its_place = rules.room(target)
            assert its_floor < floor or its_place == place, target
    assert ast.get_docstring(ast.parse(code))


@pytest.mark.parametrize("recipe", ["criterion", "search", "plot"])
def test_examples_run(recipe):
    path, code = the_file(recipe)
    texts = [
        ast.get_docstring(node) or ""
        for node in ast.walk(ast.parse(code))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    ]
    found = doctest.DocTestParser().get_doctest("\n\n".join(texts), made(recipe), recipe, path, 0)
    results = doctest.DocTestRunner().run(found)
    assert results.attempted > 1
    assert not results.failed


@pytest.mark.parametrize("recipe", ["criterion", "search", "plot"])
def test_sources_are_quoted_as_they_are(recipe):
    page = (RECIPES / f"{recipe}.md").read_text(encoding="utf-8")
    quotes = QUOTE.findall(page)
    assert quotes or CHANGE.search(page)  # these are made in a test of their own
    for path, lines in quotes:
        assert lines in (ROOT / path).read_text(encoding="utf-8")


def test_the_criterion():
    criterion = made("criterion")["ChosenGenesVariance"]
    truth = random_scm(5, "complete", rng=0)
    posterior = DagBlr(truth.dag, noise_var=truth.noise_var)
    posterior.update(Moments.from_array(truth.sample(40, rng=1)), np.zeros(5))
    target, shift = np.linspace(-1, 1, 5), np.linspace(0.5, -0.2, 5)

    def value(chosen, at=shift):
        return criterion(posterior, target, chosen=chosen, n_cells=10).value(at)

    one_by_one = [value([i]) for i in range(5)]
    np.testing.assert_allclose(value([0, 2, 4]), sum(one_by_one[::2]), rtol=1e-12)
    # The same terms, of which CV takes the largest; the floor is not in it.
    floors = [criterion(posterior, target, chosen=[i], n_cells=10).floor for i in range(5)]
    largest = CausalVariance(posterior, target, n_cells=10).value(shift)
    np.testing.assert_allclose(max(np.subtract(one_by_one, floors)), largest, rtol=1e-9)
    _, grad = criterion(posterior, target, chosen=[1, 3], n_cells=10).value_and_grad(shift)
    step = 1e-4 * np.eye(5)
    wanted = [(value([1, 3], shift + h) - value([1, 3], shift - h)) / 2e-4 for h in step]
    np.testing.assert_allclose(grad, wanted, rtol=1e-4, atol=1e-9)


def changed(source, change):
    """A source after a change, hunk by hunk; what a hunk names has to be there once."""
    for hunk in change.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        before, after = (
            "".join(line[1:] for line in lines if line[0] != sign) for sign in ("+", "-")
        )
        assert source.count(before) == 1, before
        source = source.replace(before, after)
    return source


def test_the_criterion_is_known_by_its_name(tmp_path):
    """The whole page: its file, the changes that make it known, and its calls one after another."""
    page = (RECIPES / "criterion.md").read_text(encoding="utf-8")
    path, code = the_file("criterion")
    changes = CHANGE.findall(page)
    assert len(changes) == 3
    files = {path: code}
    files |= {name: changed((ROOT / name).read_text("utf-8"), change) for name, change in changes}
    for name, text in files.items():
        place = tmp_path / name.removeprefix("src/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    calls = CALLS.findall(page)
    assert 'acquisition="chosen_genes"' in calls[-1]
    module = path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    same = """
from nextpert.core import ChosenGenesVariance, Pool, build_acquisition
pool = Pool(np.eye(6)[[1, 4]])
one = build_acquisition("chosen_genes", posterior, np.ones(6), domain=pool, n_cells=20)
other = ChosenGenesVariance(posterior, np.ones(6), chosen=[1, 4], n_cells=20)
assert one.value(np.ones(6)) == other.value(np.ones(6))
assert adata.uns["design"]["params"]["acquisition"] == "chosen_genes"
assert adata.uns["design"]["ranking"]["uncertainty_removed"].iloc[0] > 0
"""
    run = [OVERLAY.format(folder=str(tmp_path)), f"from {module} import *", "import numpy as np"]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*run, *calls, same])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_search_is_one_file(tmp_path, monkeypatch):
    """Put where searches are, it is found, and asked for by its name; nothing else is changed."""
    import nextpert as npt
    from nextpert.core.search import methods

    path, code = the_file("search")
    (tmp_path / Path(path).name).write_text(code, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path)])
    monkeypatch.setitem(sys.modules, f"{methods.__name__}.by_variance", None)
    del sys.modules[f"{methods.__name__}.by_variance"]
    weights = np.diag([0.9, 0.9, 0.9], -1)
    cells = LinearScm(weights, np.ones(4), np.zeros(4)).sample(5000, rng=0)
    names = ["g2", "g0", "g3", "g1"]
    adata = ad.AnnData(
        cells[:, [2, 0, 3, 1]],
        pd.DataFrame({"perturbation": ["control"] * 5000}, index=np.arange(5000).astype(str)),
        pd.DataFrame(index=names),
    )
    npt.tl.learn_dag(adata, method="by_variance")
    found = adata.uns["dag"]["arcs"]
    arcs = sorted(zip(found["parent"], found["child"], strict=True))
    assert arcs == [("g0", "g1"), ("g1", "g2"), ("g2", "g3")]
    assert adata.uns["dag"]["params"]["method"] == "by_variance"


def test_the_plot(small_screen, arcs):
    import nextpert as npt

    plot = made("plot")["efficacy"]
    with pytest.raises(ValueError, match=r"tl\.fit_dag_blr"):
        plot(small_screen)
    npt.tl.learn_dag(small_screen, method="given", dag=arcs)
    npt.tl.fit_dag_blr(small_screen)
    axes = plot(small_screen, show=False)
    stored = small_screen.uns["dag_blr"]["efficacy"]
    assert axes.lines[0].get_xdata()[0] == stored["mean"]
    assert inspect.signature(plot).parameters["ax"].default is None
