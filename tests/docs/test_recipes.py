"""The recipes for developers work, and quote the sources as they are."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from nextpert.core import CausalVariance, DagBlr, LinearScm, Moments, Pool, random_scm

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "docs" / "developer"
FILE = re.compile(r"^```python\n# (src/\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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


@pytest.mark.parametrize("recipe", CLASSES)
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


@pytest.mark.parametrize("recipe", RECIPE_NAMES)
def test_sources_are_quoted_as_they_are(recipe):
    page = (RECIPES / f"{recipe}.md").read_text(encoding="utf-8")
    quotes = QUOTE.findall(page)
    assert quotes or recipe != "search"
    for path, lines in quotes:
        assert lines in (ROOT / path).read_text(encoding="utf-8")


def test_the_acquisition():
    acquisition = made("acquisition")["ChosenGenesVariance"]
    truth = random_scm(5, "complete", rng=0)
    posterior = DagBlr(truth.dag, noise_var=truth.noise_var)
    posterior.update(Moments.from_array(truth.sample(40, rng=1)), np.zeros(5))
    target, shift = np.linspace(-1, 1, 5), np.linspace(0.5, -0.2, 5)

    def made_of(chosen):
        return acquisition(posterior, target, domain=Pool(np.eye(5)[chosen]), n_cells=10)

    def value(chosen, at=shift):
        return made_of(chosen).value(at)

    one_by_one = [value([i]) for i in range(5)]
    np.testing.assert_allclose(value([0, 2, 4]), sum(one_by_one[::2]), rtol=1e-12)
    # The same terms, of which CV takes the largest; the floor is not in it.
    floors = [made_of([i]).floor for i in range(5)]
    largest = CausalVariance(posterior, target, n_cells=10).value(shift)
    np.testing.assert_allclose(max(np.subtract(one_by_one, floors)), largest, rtol=1e-9)
    _, grad = made_of([1, 3]).value_and_grad(shift)
    step = 1e-4 * np.eye(5)
    wanted = [(value([1, 3], shift + h) - value([1, 3], shift - h)) / 2e-4 for h in step]
    np.testing.assert_allclose(grad, wanted, rtol=1e-4, atol=1e-9)


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
    found = adata.uns["dag"]["edges"]
    edges = sorted(zip(found["parent"], found["child"], strict=True))
    assert edges == [("g0", "g1"), ("g1", "g2"), ("g2", "g3")]
    assert adata.uns["dag"]["params"]["method"] == "by_variance"


def test_the_plot(small_screen, edges):
    import nextpert as npt

    plot = made("plot")["efficacy"]
    with pytest.raises(ValueError, match=r"tl\.fit_dag_blr"):
        plot(small_screen)
    npt.tl.learn_dag(small_screen, method="given", dag=edges)
    npt.tl.fit_dag_blr(small_screen)
    axes = plot(small_screen, show=False)
    stored = small_screen.uns["dag_blr"]["efficacy"]
    assert axes.lines[0].get_xdata()[0] == stored["mean"]
    assert inspect.signature(plot).parameters["ax"].default is None
