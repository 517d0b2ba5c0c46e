"""The first run of the command: code is compiled ahead, once, and the process does not stay."""

import os
import subprocess
import sys

import pytest

from nextpert.cli import _warm

CODE = """
from nextpert.cli._warm import _is_first, fit_and_design
print(_is_first())
fit_and_design()
print(_is_first())
"""


def test_it_is_compiled_once(tmp_path):
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["True", "False"]


@pytest.mark.parametrize("first", [True, False])
def test_the_process_ends_with_the_block(first, monkeypatch):
    made = []
    real = subprocess.Popen

    def record(*args, **options):
        made.append(real(*args, **options))
        return made[-1]

    monkeypatch.setattr(_warm.subprocess, "Popen", record)
    monkeypatch.setattr(_warm, "_is_first", lambda: first)
    monkeypatch.setattr(_warm.os, "cpu_count", lambda: 2)
    with pytest.raises(KeyError), _warm.compiling_ahead():
        raise KeyError
    assert [process.poll() is not None for process in made] == [True] * first
