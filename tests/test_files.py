"""Files that appear whole or not at all: an error, a full disk, symbolic links."""

from __future__ import annotations

import subprocess
import sys

import pytest

import nextpert as npt
from nextpert._files import whole_file

pytestmark = pytest.mark.processes

FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from nextpert._files import whole_file, write_hdf5

resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, 2**13))
try:
    with whole_file(sys.argv[1]) as part:
        write_hdf5(part, lambda file: file.create_dataset("x", data=np.arange(2**14)))
except OSError as error:
    print("told:", error)
"""


def test_a_disk_that_takes_no_more_is_an_error(tmp_path):
    """In a process of its own, as the HDF5 library would end it."""
    path = tmp_path / "x.h5"
    path.write_text("before")
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout[:5]) == (0, "told:"), done.stderr
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("before")

    def fail(part):
        part.write_text("half")
        raise OSError("no")

    with pytest.raises(OSError, match="no"), whole_file(path) as part:
        fail(part)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_page_goes_where_a_link_leads(small_screen, tmp_path):
    (tmp_path / "store").mkdir()
    link, page = tmp_path / "mine.html", tmp_path / "store" / "page.html"
    link.symlink_to(page)
    npt.tl.target_distances(small_screen, "MYC")
    for _ in range(2):  # of nothing, as yet, and of a page
        npt.report(small_screen, link)
        assert link.is_symlink()
        assert page.read_text().startswith("<!doctype html>")
    assert {path.name for path in tmp_path.iterdir()} == {"mine.html", "store"}
