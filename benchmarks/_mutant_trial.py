"""One mutant against the tests of its room, in a process forked from a warm one.

Everything runs in a copy of the sources and tests, with the compiled code that lies beside them.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks._page import ROOT

PACKAGE = Path("src/nextpert")
PARTS = ("src", "tests", "benchmarks")
WARM = ("anndata", "hypothesis", "joblib", "numba", "pandas", "scipy.optimize",
        "scipy.sparse.csgraph", "scipy.stats", "threadpoolctl")  # fmt: skip
TIMES, SPARE, MEMORY = 5.0, 20.0, 8 * 2**30  # seconds of processor; bytes of addresses


class Trial:
    """A copy of the sources, and how long the tests of a room take without a mutant.

    Raises
    ------
    RuntimeError
        If a test of the room fails without a mutant.
    """

    def __init__(self, folder: Path, room: str) -> None:
        self.folder, self.room = folder, room
        self.seconds: dict[str, float] = {}
        for part in PARTS:  # with times: what is compiled stays valid
            shutil.copytree(ROOT / part, folder / part)
        for name in ("pyproject.toml", "conftest.py"):
            shutil.copy(ROOT / name, folder)
        for module in WARM:
            importlib.import_module(module)
        outcome, by = self._tests(place_of(room))
        if outcome != "survived":
            message = f"The tests of {room} fail without a mutant ({by}): repair them first."
            raise RuntimeError(message)
        self.seconds = json.loads((folder / "seconds").read_text())
        print(f"{room}: {len(self.seconds)} tests, {sum(self.seconds.values()):.0f} s", flush=True)

    def run(self, mutant: dict[str, str]) -> tuple[str, str]:
        """Put a mutant in, run the tests, take it out; return what became of it, and by what."""
        path = PACKAGE / mutant["file"]
        source = (self.folder / path).read_text(encoding="utf-8")
        lines = source.split("\n")
        lines[int(mutant["line"]) - 1] = mutant["after"]
        try:
            (self.folder / path).write_text("\n".join(lines), encoding="utf-8")
            return self._tests(path)
        finally:
            (self.folder / path).write_text(source, encoding="utf-8")

    def _tests(self, path: Path) -> tuple[str, str]:
        """Return what became of the tests of the room and the doctests of a path, and where."""
        (self.folder / "at").write_text("import")
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=_child, args=(self.folder, self.room, path, self.seconds))
        process.start()
        process.join(1800)  # of the clock: should it wait for ever
        if process.is_alive():
            process.kill()
            process.join()
        by = (self.folder / "at").read_text()
        if process.exitcode == 0:
            return "survived", ""
        timed_out = process.exitcode in (-signal.SIGPROF, -signal.SIGKILL)
        return "timed out" if timed_out else "killed", by


def place_of(room: str) -> Path:
    """Return the folder of a room: of the core, or beside it."""
    return next(p for p in (PACKAGE / "core" / room, PACKAGE / room) if (ROOT / p).is_dir())


class _Watch:
    """A plugin of pytest: the order of tests, the limit of each, which one runs, its seconds."""

    def __init__(self, stem: str, seconds: dict[str, float]) -> None:
        self.stem, self.known = stem.strip("_"), seconds
        self.seconds: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda i: (self.stem not in i.nodeid, self.known.get(i.nodeid, 0.0)))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        Path("at").write_text(item.nodeid)
        if self.known:  # the signal ends the process, also where a compiled loop has no end
            limit = SPARE + TIMES * self.known.get(item.nodeid, 0.0)
            signal.setitimer(signal.ITIMER_PROF, limit)
        start = time.process_time()
        result = yield
        self.seconds[item.nodeid] = time.process_time() - start
        return result


def _child(folder: Path, room: str, path: Path, seconds: dict[str, float]) -> None:
    """Run the tests in the copy; the code of the process is that of pytest."""
    os.chdir(folder)
    with open("log", "wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.dont_write_bytecode = True  # a mutant as old and long as its source would be taken for it
    here = [str(folder / "src"), str(folder)]
    os.environ |= {"PYTHONPATH": os.pathsep.join(here), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.path[:0] = here
    for name in [n for n in sys.modules if n.split(".")[0] in ("benchmarks", "nextpert")]:
        del sys.modules[name]
    watch = _Watch(path.stem, seconds)
    signal.setitimer(signal.ITIMER_PROF, SPARE if seconds else 0.0)
    options = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    tests = Path("tests") / place_of(room).relative_to(PACKAGE)
    code = pytest.main([*options, str(tests), str(path)], plugins=[watch])
    Path("seconds").write_text(json.dumps(watch.seconds))
    import nextpert

    if not str(nextpert.__file__).startswith(str(folder)):
        Path("at").write_text(f"tests import {nextpert.__file__}, not the copy")
        code = 1
    sys.stdout.flush()
    os._exit(int(code))
