"""The benchmark of campaigns' files runs: killed, cut, garbled and written by several at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.benchmarks

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_nothing_is_lost():
    # In a process of its own, for it forks: zarr has threads in this one.
    command = [sys.executable, "-m", "benchmarks.campaigns", "--files", "h5ad", "--points", "2"]
    done = subprocess.run(
        [*command, "--cuts", "2", "--writers", "2"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines()[2:]]
    assert len(rows) == 4
    for what, _, tried, good in rows:
        assert int(tried) == int(good) > 1, what
