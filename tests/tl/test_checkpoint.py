"""Graphs of resamples that survive the process: taken up again, with the same bits."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest

import nextpert as npt
from nextpert._adata.arguments import in_mappings
from nextpert.tl._learn_dag import graphs

pytestmark = [pytest.mark.processes, pytest.mark.brief_chain]

LEARN = {"method": "boss", "environments": "all", "n_runs": 2, "n_graphs": 5, "rng": 3}


def learn(adata, **options):
    return npt.tl.learn_dag(adata, **in_mappings(npt.tl.learn_dag, LEARN | options))


# Killed by the system, as for want of memory, while the third graph is being written.
KILLED = """
import os, signal, sys
import anndata as ad
import numpy as np
import nextpert as npt
from nextpert.tl._learn_dag import graphs

replace, times = os.replace, []

def stopped(*files):
    times.append(files)
    if len(times) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*files)

graphs.os.replace = stopped
npt.tl.learn_dag(ad.read_h5ad(sys.argv[1]), **{options})
"""


@pytest.fixture
def interrupted(small_screen, tmp_path):
    """The screen, and the checkpoint that a killed process has left."""
    small_screen.write_h5ad(tmp_path / "screen.h5ad")
    kept = tmp_path / "graphs.npz"
    options = in_mappings(npt.tl.learn_dag, LEARN | {"checkpoint": str(kept)})
    command = [sys.executable, "-c", KILLED.replace("{options}", repr(options))]
    done = subprocess.run([*command, tmp_path / "screen.h5ad"], check=False)
    assert done.returncode == -signal.SIGKILL
    assert kept.exists()
    return ad.read_h5ad(tmp_path / "screen.h5ad"), kept


def test_a_killed_process_is_taken_up_again(interrupted, monkeypatch, caplog, assert_same):
    adata, kept = interrupted
    whole = learn(adata, copy=True)
    searched, edges = [], graphs._edges

    def counted(*task):
        searched.append(task)
        return edges(*task)

    monkeypatch.setattr(graphs, "_edges", counted)
    caplog.set_level(logging.INFO)
    found = learn(adata, n_jobs=2, checkpoint=kept, copy=True)
    assert len(searched) == 3  # the third was not in its place yet
    assert "2 finished graphs are taken from" in caplog.text
    assert_same(dict(found.uns["dag"]), dict(whole.uns["dag"]))
    assert (found.varp["dag_frequency"] != whole.varp["dag_frequency"]).nnz == 0
    assert [path.name for path in kept.parent.iterdir()] == ["screen.h5ad"]


def changed(adata):
    """Calls that are not the one that was interrupted."""
    yield adata, {"rng": 4}
    yield adata, {"n_graphs": 6}
    yield adata, {"penalty": 1.0}
    yield adata, {"prior": {"forbidden": [("MYC", "GATA1")]}}
    yield adata, {"genes": list(adata.var_names[::-1])}
    other = adata.copy()
    other.X[3, 0] += 1e-6
    yield other, {}
    labels = adata.copy()
    labels.obs.loc[labels.obs_names[0], "perturbation"] = np.nan
    yield labels, {}
    # The same cells in another order: other cells are drawn.
    yield adata[::-1].copy(), {}


def test_another_call_is_refused(interrupted):
    adata, kept = interrupted
    before = kept.read_bytes()
    for other, options in changed(adata):
        with pytest.raises(ValueError, match="is of another call"):
            learn(other, **options, checkpoint=kept)
        assert "dag" not in other.uns
        assert kept.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not of numpy"])
def test_files_that_are_no_checkpoint_are_left_alone(small_screen, tmp_path, content):
    file = tmp_path / "precious"
    file.write_bytes(content)
    with pytest.raises(ValueError, match="name another file, or remove it"):
        learn(small_screen, checkpoint=file)
    np.savez(tmp_path / "other.npz", edges_0=np.zeros((2, 0)), digest="x")
    with pytest.raises(ValueError, match="holds no graphs"):
        learn(small_screen, checkpoint=tmp_path / "other.npz")
    assert file.read_bytes() == content


def test_what_no_checkpoint_can_do(small_screen, tmp_path):
    with pytest.raises(ValueError, match="give n_graphs above 1"):
        learn(small_screen, n_graphs=1, checkpoint=tmp_path / "a")
    with pytest.raises(ValueError, match="a file in a folder that is there"):
        learn(small_screen, checkpoint=tmp_path / "no" / "a")
