"""Files that appear whole or not at all: an error, a full disk, symbolic links."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import nextpert as npt
from nextpert._files import whole_file
from nextpert.cli._run import write_all

pytestmark = pytest.mark.processes

FULL = """
import resource, sys
from pathlib import Path
import anndata as ad, numpy as np
from nextpert._files import whole_file, write_adata

resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, 2**13))
try:
    with whole_file(sys.argv[1]) as part:
        write_adata(ad.AnnData(np.random.default_rng(0).normal(size=(99, 99))), part, {})
except OSError as error:
    print("told:", error)
"""


def test_a_disk_that_takes_no_more_is_an_error(tmp_path):
    """In a process of its own, as the HDF5 library would end it."""
    path = tmp_path / "x.h5ad"
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


def to_report(adata, path):
    npt.report(adata, path)


def to_plot(adata, path):
    npt.pl.target_distances(adata, show=False, save=path)


def to_campaign(adata, path):
    npt.Campaign(adata, "MYC", learn={"method": "given", "dag": []}).save(path)


def to_study(adata, path):
    npt.datasets.perturb_cite_seq_standin(path.parents[1], n_cells=200, n_genes=40)


def to_result_of_the_command(adata, path):
    write_all({path: Path.touch})


@pytest.mark.brief_chain
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
@pytest.mark.parametrize(
    ("write", "name"),
    [
        (to_report, "x.html"), (to_plot, "x.png"), (to_campaign, "x.h5ad"),
        (to_study, "other/RNA_expression.csv.gz"), (to_result_of_the_command, "x.csv"),
        (to_result_of_the_command, "x.h5ad"), (to_result_of_the_command, "x.zarr"),
    ],
)  # fmt: skip
def test_a_pipe_is_not_replaced_by_a_file(write, name, small_screen, tmp_path):
    npt.tl.target_distances(small_screen, "MYC")
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(pipe, bytes(5000))  # so that nobody waits who reads it
    with pytest.raises(ValueError, match=r"regular file|not written by this command"):
        write(small_screen, path)
    assert stat.S_ISFIFO(path.stat().st_mode)
    assert len(os.read(pipe, 9000)) == 5000
    os.close(pipe)
