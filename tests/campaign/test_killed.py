"""A process that is killed at any file operation: the campaign goes on to the same plan."""

from __future__ import annotations

import copy
import os
import sys

import numpy as np
import pytest

import nextpert as npt

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


def lab(path, start, later):
    """What a lab does, a save after every step; it goes on where the file says it is."""
    if path.exists() or path.with_name(f".{path.stem}.before{path.suffix}").exists():
        campaign = npt.Campaign.load(path)
    else:
        campaign = copy.deepcopy(start)
        campaign.save(path)
    steps = [
        lambda: campaign.propose(2, 200),
        lambda: campaign.mark_failed(["CD58"], reason="no cells"),
        lambda: campaign.observe(later, batch="same"),
        lambda: campaign.propose(2, 200),
    ]
    happened = campaign.history[["round", "action"]].drop_duplicates()
    for step in steps[len(happened) - 1 :]:
        step()
        campaign.save(path)
    return campaign


class Killer:
    """Ends the process without a word before the n-th change to files in a folder."""

    def __init__(self, folder, last):
        self.folder, self.last, self.count = os.fspath(folder), last, 0
        sys.addaudithook(self)

    def __call__(self, event, args):
        changes = event in CHANGES or (event == "open" and args[1] not in ("r", "rb", None))
        if self.folder and changes and str(args[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.last:
                os._exit(9)


def in_a_child(work):
    """Run in a process of its own; return its exit code."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_killed_anywhere(ending, campaign, parts, tmp_path):
    whole = lab(tmp_path / f"whole.{ending}", campaign, parts[1])
    counted = tmp_path / "count"
    counted.mkdir()

    def count():
        killer = Killer(counted, -1)
        lab(counted / f"a.{ending}", campaign, parts[1])
        (tmp_path / "n").write_text(str(killer.count))

    assert in_a_child(count) == 0
    n = int((tmp_path / "n").read_text())
    n_killed = 0
    for last in np.unique(np.linspace(1, n, POINTS).astype(int)):
        folder = tmp_path / str(last)
        folder.mkdir()
        path = folder / f"a.{ending}"
        n_killed += in_a_child(lambda: (Killer(folder, last), lab(path, campaign, parts[1]))) == 9  # noqa: B023
        resumed = lab(path, campaign, parts[1])
        assert resumed.adata.uns["plan"]["plate"].equals(whole.adata.uns["plan"]["plate"])
        assert resumed.history.drop(columns="when").equals(whole.history.drop(columns="when"))
        assert [p.name for p in folder.iterdir()] == [path.name]
    assert n_killed >= POINTS - 1


POINTS = 12
