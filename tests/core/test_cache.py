"""Compiled code on disk: no directory to write, a full disk, changed callees."""

import os
import subprocess
import sys

import numba
import pytest

pytestmark = pytest.mark.processes

KERNEL = """
from nextpert.core._compile import entry, inner

@inner
def half(x):
    return x / {by}

@entry
def twice(x):
    return 4 * half(x)
"""
USE = "import kernel; print(kernel.twice(3.0), sum(kernel.twice.stats.cache_hits.values()))"


def run(code, folder, **variables):
    """Run code in a fresh interpreter; numba keeps its files in ``folder / "cache"``."""
    env = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "cache"), **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a module of one kernel, compiled and kept."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.py").write_text(KERNEL.format(by="2"))
    assert run(USE, folder)[0] == ["6.0", "0"]
    return folder


def test_what_a_kernel_calls_is_part_of_it(folder):
    # In numba's own cache a kernel outlives a change of a callee in another file.
    (folder / "parts.py").write_text(KERNEL.format(by="2"))
    text = "from nextpert.core._compile import entry\nfrom parts import half\n"
    (folder / "kernel.py").write_text(text + "@entry\ndef twice(x):\n    return 4 * half(x)\n")
    assert run(USE, folder)[0] == ["6.0", "0"]
    (folder / "parts.py").write_text(KERNEL.format(by="4"))
    assert run(USE, folder)[0] == ["3.0", "0"]
    assert run(USE, folder)[0] == ["3.0", "1"]


def test_a_function_that_is_defined_below_its_caller_is_part_of_it(tmp_path):
    # When the caller is compiled, the function that it calls does not exist yet.
    parts = KERNEL.split("\n\n")
    text = "\n\n".join([parts[0], parts[2], parts[1]])
    for by, shown in (("2", ["6.0", "0"]), ("4", ["3.0", "0"]), ("4", ["3.0", "1"])):
        (tmp_path / "kernel.py").write_text(text.format(by=by))
        assert run(USE, tmp_path, PYTHONDONTWRITEBYTECODE="1")[0] == shown


def test_files_that_name_a_module_that_is_gone_are_rebuilt(tmp_path):
    # As after an update: pip leaves them where they are, and types of arguments are stored by name.
    pair = "from typing import NamedTuple\nclass Pair(NamedTuple):\n    a: float\n    b: float\n"
    kernel = (
        "from nextpert.core._compile import entry\nfrom {module} import Pair\n"
        "@entry\ndef total(pair):\n    return pair.a + pair.b\n"
    )
    use = (
        "import kernel; print(kernel.total(kernel.Pair(1.0, 2.0)), "
        "sum(kernel.total.stats.cache_hits.values()))"
    )
    for module, hits in (("before", "0"), ("after", "0"), ("after", "1")):
        (tmp_path / "before.py").unlink(missing_ok=True)
        (tmp_path / f"{module}.py").write_text(pair)
        (tmp_path / "kernel.py").write_text(kernel.format(module=module))
        assert run(use, tmp_path, PYTHONDONTWRITEBYTECODE="1") == (["3.0", hits], "")


# Root may write everywhere, so that folders without rights would test nothing there: a locator
# that fits no file is what numba makes of them.
@pytest.mark.skipif(
    not hasattr(numba.config, "CACHE_LOCATOR_CLASSES"), reason="numba takes no locators by name"
)
@pytest.mark.parametrize(
    "code",
    [
        "from nextpert.core._compile import entry; f = entry(lambda x: x + 2.0); "
        "g = entry(lambda x: x); print(f(g(3.0)))",
        "import nextpert as npt; npt.tl.fit_dag_blr, npt.pp.assign_guides, print(5.0)",
    ],
)
def test_without_a_place_to_write_all_runs_with_one_warning(tmp_path, code):
    out, err = run(code, tmp_path, NUMBA_CACHE_LOCATOR_CLASSES="ZipCacheLocator")
    assert out == ["5.0"]
    assert err.count("UserWarning") == 1
    assert "NUMBA_CACHE_DIR" in err


def test_a_cache_that_fills_up_is_named_once(folder):
    code = (
        "import numba.core.caching as c\n"
        "def full(*args): raise OSError(28, 'No space left on device')\n"
        "c.IndexDataCacheFile.save = full\n" + USE + "; print(kernel.twice(3))"
    )
    (folder / "kernel.py").write_text(KERNEL.format(by="1"))
    out, err = run(code, folder)
    assert out == ["12.0", "0", "12.0"]
    assert err.count("UserWarning") == 1
    assert "No space left" in err
    assert "NUMBA_CACHE_DIR" in err
