"""Conventions of the package, checked for every public function at once."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import nextpert as npt

SOURCE = Path(npt.__file__).parent
SUB_PACKAGES = ("datasets", "get", "pl", "pp", "tl")
FUNCTIONS = [
    (sub, name)
    for sub in SUB_PACKAGES
    for name in getattr(importlib.import_module(f"nextpert.{sub}"), "__all__", [])
]
ON_ADATA = [(sub, name) for sub, name in FUNCTIONS if sub != "datasets"]
# pp.effect_table makes an AnnData, with rows that what it was given does not have.
WRITING = [(sub, name) for sub, name in FUNCTIONS if sub in ("pp", "tl") and name != "effect_table"]
IDS = {"ids": lambda value: value if isinstance(value, str) else None}


def function(sub, name):
    return getattr(importlib.import_module(f"nextpert.{sub}"), name)


def parameters(sub, name):
    return inspect.signature(function(sub, name)).parameters


def sections(doc):
    """Return the numpydoc sections of a docstring by title."""
    parts = re.split(r"^(\w[\w ]*)\n-+\n", inspect.cleandoc(doc), flags=re.MULTILINE)
    return dict(zip(["Summary", *parts[1::2]], [parts[0], *parts[2::2]], strict=True))


@pytest.mark.parametrize(("sub", "name"), FUNCTIONS, **IDS)
def test_a_function_is_defined_in_a_private_module_of_its_package(sub, name):
    public = function(sub, name)
    assert inspect.isfunction(public)
    assert public.__module__.startswith(f"nextpert.{sub}._")


@pytest.mark.parametrize(("sub", "name"), ON_ADATA, **IDS)
def test_adata_comes_first(sub, name):
    assert next(iter(parameters(sub, name))) == "adata"


@pytest.mark.parametrize(("sub", "name"), FUNCTIONS, **IDS)
def test_signature(sub, name):
    params = parameters(sub, name)
    positional = [p for p in params.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert len(positional) <= 3
    # One mapping more would hide what a lab sets: when to stop, and which cells are targets. A
    # preset stands for other arguments.
    has_more = (sub, name) in {("tl", "plan_screen"), ("pp", "perturbation_screen")}
    has_more |= "preset" in params
    assert len(params) <= (13 if has_more else 12)
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in params.values())
    assert all(p.annotation is not p.empty for p in params.values())
    assert inspect.signature(function(sub, name)).return_annotation is not inspect.Signature.empty
    assert not any(isinstance(p.default, (list, dict, set)) for p in params.values())
    assert not {"seed", "random_state", "inplace", "gene_list"} & set(params)
    if "rng" in params:
        assert params["rng"].annotation == "int | np.random.Generator | None"
        assert params["rng"].default == 0  # draws are the same by default


def test_random_numbers_come_from_generators_alone():
    legacy = re.compile(r"\bnp\.random\.(?!Generator|default_rng|SeedSequence|PCG64|Philox)\w+")
    found = {path.name for path in SOURCE.rglob("*.py") if legacy.search(path.read_text())}
    # Packages that draw from numpy's own state, which is put back.
    assert found <= {"contrastive.py", "causaldag.py"}


# Words that do not say what a value holds. Their number as names of arguments and variables may
# only fall: lower MAX_EMPTY_NAMES when it does.
EMPTY_WORDS = re.findall(
    r"\w+",
    """again alike apart asked away both each every few found given gone held here its kept known
    least left made many mine more most now others own place rest said same seen several some
    spare such taken told wanted what which whole""",
)
MAX_EMPTY_NAMES = 113


# Tables that the formatter would set one item a line.
MAX_FORMATTER_SKIPS = 5


def test_the_formatter_sets_the_lines():
    texts = [path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")]
    assert sum(text.count("# fmt: ") for text in texts) <= MAX_FORMATTER_SKIPS


def empty_names(text):
    """Return the arguments and variables of a file that are called by a word without meaning."""
    nodes = list(ast.walk(ast.parse(text)))
    arguments = [node.arg for node in nodes if isinstance(node, ast.arg)]
    variables = [
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    return [name for name in arguments + variables if name in EMPTY_WORDS]


def test_empty_names_are_counted():
    text = "def f(some, genes, *, own=1):\n    for each in some:\n        weight = own + each\n"
    assert sorted(empty_names(text)) == ["each", "own", "some"]


def test_names_say_what_a_value_holds():
    paths = SOURCE.rglob("*.py")
    names = [name for path in paths for name in empty_names(path.read_text(encoding="utf-8"))]
    assert len(names) <= MAX_EMPTY_NAMES


TOP = [name for name in npt.__all__ if inspect.isfunction(getattr(npt, name))]


@pytest.mark.parametrize("name", TOP)
def test_functions_of_the_package_itself(name):
    public = getattr(npt, name)
    params = inspect.signature(public).parameters
    assert next(iter(params)) == "adata"
    assert sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in params.values()) <= 3
    found = sections(public.__doc__)
    assert {"Parameters", "Returns", "Raises", "Examples"} <= set(found)
    assert all(re.search(rf"^{param}\b", found["Parameters"], re.M) for param in params)


@pytest.mark.parametrize(("sub", "name"), WRITING, **IDS)
def test_functions_that_write(sub, name):
    params = parameters(sub, name)
    assert params["copy"].default is False
    returned = str(inspect.signature(function(sub, name)).return_annotation)
    assert returned.replace("ad.", "") == "AnnData | None"
    if sub != "pp" or name == "assign_guides":  # a screen has one record of roles and of its steps
        assert isinstance(params["key_added"].default, str)


@pytest.mark.parametrize(("sub", "name"), FUNCTIONS, **IDS)
def test_docstring(sub, name):
    doc = function(sub, name).__doc__
    found = sections(doc)
    assert inspect.cleandoc(doc).splitlines()[0].endswith(".")
    if sub != "pp":
        assert len(inspect.cleandoc(doc).splitlines()) <= 80
    assert {"Parameters", "Returns", "Raises", "Examples"} <= set(found)
    assert ">>> " in found["Examples"]
    described = {
        word.strip()
        for line in re.findall(r"^([a-z_]\w*(?:, *\w+)*)(?: : .*)?$", found["Parameters"], re.M)
        for word in line.split(",")
    }
    assert described == set(parameters(sub, name))
    if sub in ("pp", "tl"):
        assert re.search(r"``[^`]*\b(?:uns|obs|obsm|varp)\[", found["Returns"])


CLASSES = [name for name in npt.__all__ if inspect.isclass(getattr(npt, name))]


@pytest.mark.parametrize("name", CLASSES)
def test_classes(name):
    public = getattr(npt, name)
    assert {"Summary", "Parameters", "Raises", "Examples"} <= set(sections(public.__doc__))
    assert ">>> " in sections(public.__doc__)["Examples"]
    for each, method in inspect.getmembers(public, inspect.isroutine):
        if each[0] == "_" or each not in vars(public):
            continue
        found = sections(method.__doc__)
        params = [p for p in inspect.signature(method).parameters if p != "self"]
        assert inspect.cleandoc(method.__doc__).splitlines()[0].endswith("."), each
        for param in params:
            assert re.search(rf"^(?:\w+, *)*{param}\b", found["Parameters"], re.M), (each, param)
        hints = inspect.signature(method)
        assert hints.return_annotation is not inspect.Signature.empty, each


def test_slots_are_touched_in_one_place_only():
    # Private parts of AnnData are the business of _adata alone.
    for path in SOURCE.rglob("*.py"):
        if path.parent.name != "_adata":
            assert not re.search(r"\._(?:adata_ref|oidx|vidx|init_as)", path.read_text()), path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        (
            "import nextpert",
            ["numpy", "pandas", "anndata", "scanpy", "matplotlib", "numba", "causaldag"],
        ),
        ("import nextpert; nextpert.Campaign", ["scanpy", "matplotlib", "seaborn"]),
        (
            "import nextpert; nextpert.core",
            ["anndata", "scanpy", "pandas", "matplotlib", "causaldag"],
        ),
        ("import nextpert; nextpert.tl.fit_dag_blr", ["scanpy", "matplotlib", "seaborn"]),
        ("import nextpert; nextpert.tl.learn_dag", ["scanpy", "matplotlib", "causaldag"]),
    ],
)
def test_imports_stay_light(statement, banned):
    code = f"{statement}; import sys; print(*(m for m in {banned} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
