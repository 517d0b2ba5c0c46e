"""A save killed at any change to its files leaves the campaign before it, or the new one."""

from __future__ import annotations

import builtins
import io
import os
import shutil
from contextlib import suppress

import anndata as ad
import filelock
import h5py
import numpy as np
import pytest

from nextpert.campaign.file import read_campaign, write_campaign

pytestmark = pytest.mark.processes

CHANGES = [
    *((os, name) for name in ("mkdir", "remove", "rename", "replace", "rmdir", "unlink")),
    *((h5py.Group, name) for name in ("create_dataset", "create_group")),
    (h5py.AttributeManager, "create"), (io, "open"), (builtins, "open"),
]  # fmt: skip


class Killed(BaseException):
    """Nothing catches it."""


class Process:
    """Counts changes to files; from the ``last`` on none happens any more, as in a dead process."""

    def __init__(self, patch, last=None):
        self.last, self.count, self.is_dead = last, 0, False
        for owner, name in CHANGES:
            patch.setattr(owner, name, self.watched(getattr(owner, name), name))

    def watched(self, change, name):
        def watch(*args, **options):
            mode = str(options.get("mode", args[1] if len(args) > 1 else "r"))
            if name != "open" or set(mode) & set("wax+"):
                self.count += 1
                if self.last is not None and self.count >= self.last:
                    if name == "open" and not self.is_dead:
                        change(*args, **options).close()  # opened, and nothing written
                    self.is_dead = True
                    raise Killed
            return change(*args, **options)

        return watch


def cells(step):
    return ad.AnnData(uns={"step": step})


def killed_at(last, path, monkeypatch, known):
    """Save step 2 and die before a change; return the number of changes if there are fewer."""
    held = []

    class Held(filelock.FileLock):
        """A lock that a dead process cannot release; the system does, without its file."""

        def acquire(self, *args, **options):
            held.append(self)
            return super().acquire(*args, **options)

        def release(self, *args, **options):
            if not process.is_dead:
                super().release(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(filelock, "FileLock", Held)
        process = Process(patch, last)
        with suppress(Killed):
            write_campaign(cells(2), path, known)
    process.is_dead = False
    for lock in held:  # as the system does for a dead process
        lock.release(force=True)
    return process.count


def test_a_save_killed_anywhere(tmp_path, monkeypatch, files_in):
    before = tmp_path / "before" / "a.h5ad"
    known = [write_campaign(cells(1), before, [])]

    def ready(name):
        return shutil.copytree(before.parent, tmp_path / name) / before.name

    n = killed_at(None, ready("counted"), monkeypatch, known)
    # Among them all of the last, where the new file takes the place of the old one, and none.
    points = {*np.linspace(1, n - 10, 10).astype(int).tolist(), *range(n - 9, n + 2)}
    assert len(points) >= 20
    left = []
    for last in sorted(points):
        path = ready(str(last))
        assert killed_at(last, path, monkeypatch, known) >= min(last, n)
        adata, stamp = read_campaign(path)
        left.append(int(adata.uns["step"]))
        write_campaign(cells(3), path, [stamp])
        # What a process left that died before it locked its hidden folder is empty.
        assert [x for x in files_in(path.parent) if not x.startswith(".nextpert_")] == [path.name]
        assert not [x for x in path.parent.glob(".nextpert_*/*") if x.name != ".lock"]
    assert left == sorted(left)  # the old one up to a point, and the new one from there
    assert set(left) == {1, 2}
