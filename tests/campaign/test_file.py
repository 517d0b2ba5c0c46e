"""The file of a campaign: whole or not at all, one writer at a time, damage of any kind told."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert.campaign import file as campaign_file
from nextpert.campaign import file as lock
from nextpert.campaign.options import from_stored, to_stored

pytestmark = [pytest.mark.formats, pytest.mark.brief_chain]


def same(one, two):
    """Whether two campaigns know the same and propose the same."""
    tables = [c.history.drop(columns="when") for c in (one, two)]
    assert tables[0].equals(tables[1])
    assert one.summarize().equals(two.summarize())
    assert one.pending == two.pending
    assert one.failed == two.failed
    assert copy.deepcopy(one).propose(2, 200).equals(copy.deepcopy(two).propose(2, 200))


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_round_trip(ending, campaign, parts, tmp_path, assert_same_adata, files_in):
    campaign.propose(2, 200)
    campaign.mark_pending(["CTSA"], n_cells=12)
    campaign.mark_failed(["CD58"], reason="die Zellen starben")
    path = tmp_path / f"screen.{ending}"
    campaign.save(path)
    loaded = npt.Campaign.load(path)
    assert_same_adata(loaded.adata, campaign.adata)
    assert files_in(tmp_path) == [path.name]
    same(loaded, campaign)
    for each in (loaded, campaign):
        each.observe(parts[1], batch="same")
    same(loaded, campaign)
    loaded.save(path)
    same(npt.Campaign.load(path), campaign)


def test_options_of_every_kind_come_back(parts, given, tmp_path):
    effects = ad.AnnData(
        np.ones((1, 2)), pd.DataFrame(index=["CDK4"]), pd.DataFrame(index=["B2M", "CD59"])
    )
    table = pd.DataFrame({"B2M": [-1.0, 0.0], "CD59": [0.0, -1.0]}, index=["one", "two"])
    campaign = npt.Campaign(
        parts[0], pd.Series({"B2M": 1.0, "CD59": 0.5}),
        learn=given,
        fit={
            "features": effects,
            "prior_options": {"noise_var": pd.Series(0.1, parts[0].var_names)},
        },
        plan={"candidates": table, "constraints": {"include": {"one"}}},
    )  # fmt: skip
    campaign.save(tmp_path / "screen.h5ad")
    loaded = npt.Campaign.load(tmp_path / "screen.h5ad")
    same(loaded, campaign)
    for each in (loaded, campaign):
        each.observe(parts[1], batch="same")
    same(loaded, campaign)


def test_values_come_back_as_they_were():
    value = {"a": None, "b": (1, 2.5, "x"), "c": [True, ["y"]], "d": {"mapping": {}, "tuple": []}}
    assert from_stored(to_stored(value, "options")) == value
    number = 0.1 + 0.2
    assert from_stored(to_stored(np.float64(number), "x")) == number
    with pytest.raises(TypeError, match="must have strings as names"):
        to_stored({1: 2}, "options")
    with pytest.raises(TypeError, match=r"options\['a'\] is of type bytes"):
        to_stored({"a": b"x"}, "options")


def test_a_stale_campaign_is_not_written_over_another(campaign, tmp_path):
    path = tmp_path / "screen.h5ad"
    campaign.save(path)
    mine, theirs = npt.Campaign.load(path), npt.Campaign.load(path)
    theirs.mark_failed(["CD58"])
    theirs.save(path)
    mine.propose(2, 200)
    with pytest.raises(ValueError, match=r"revision 2\), and this one comes from revision 1.*Load"):
        mine.save(path)
    assert npt.Campaign.load(path).failed == {"CD58": ""}
    mine.save(tmp_path / "mine.h5ad")
    assert len(npt.Campaign.load(tmp_path / "mine.h5ad").pending) == 2
    with pytest.raises(ValueError, match="revision 2"):  # still not there
        mine.save(path)
    theirs.save(tmp_path / "copy.h5ad")  # and back
    theirs.save(path)


def test_files_that_are_something_else(campaign, parts, tmp_path):
    parts[0].write_h5ad(tmp_path / "cells.h5ad")
    for call in (campaign.save, npt.Campaign.load):
        with pytest.raises(ValueError, match="holds no campaign"):
            call(tmp_path / "cells.h5ad")
        with pytest.raises(ValueError, match=r"ends in \.h5ad or \.zarr"):
            call(tmp_path / "cells.csv")
    with pytest.raises(FileNotFoundError, match="There is no campaign"):
        npt.Campaign.load(tmp_path / "nowhere.h5ad")
    campaign.save(tmp_path / "new.h5ad")
    campaign._stamps.clear()
    with pytest.raises(ValueError, match="this one was never there"):
        campaign.save(tmp_path / "new.h5ad")


def test_another_version(campaign, tmp_path):
    path = tmp_path / "screen.h5ad"
    campaign.save(path)
    with h5py.File(path, "a") as file:
        told = json.loads(file.attrs["nextpert_campaign"]) | {"format": 1}
        file.attrs["nextpert_campaign"] = json.dumps(told)
    with pytest.raises(ValueError, match="another version of nextpert"):
        npt.Campaign.load(path)


def test_an_h5ad_cut_anywhere_is_refused(campaign, tmp_path):
    whole, path = tmp_path / "whole.h5ad", tmp_path / "cut.h5ad"
    campaign.save(whole)
    content = whole.read_bytes()
    for end in np.linspace(0, len(content) - 1, 50).astype(int):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"cut\.h5ad' is damaged|holds no campaign"):
            npt.Campaign.load(path)


def test_an_h5ad_garbled_anywhere_is_refused_before_it_is_opened(campaign, tmp_path, monkeypatch):
    """HDF5 loops for ever in some files of which bytes are zero."""
    whole, path = tmp_path / "whole.h5ad", tmp_path / "bad.h5ad"
    campaign.save(whole)
    content = np.frombuffer(whole.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)

    def opens(*_):
        pytest.fail("HDF5 opens a damaged file")

    monkeypatch.setattr(campaign_file, "root_attributes", opens)
    for start in [*rng.choice(np.flatnonzero(content[:-200]), 50), len(content) - 32]:
        for garble in (np.zeros_like, lambda part: part ^ 0x5A):
            bad = content.copy()
            bad[start : start + 64] = garble(bad[start : start + 64])
            path.write_bytes(bad.tobytes())
            with pytest.raises(ValueError, match=r"bad\.h5ad' is damaged"):
                npt.Campaign.load(path)


@pytest.mark.parametrize("change", ["array", "attribute"])
def test_an_h5ad_that_was_changed_is_refused(change, campaign, tmp_path):
    path = tmp_path / "changed.h5ad"
    campaign.save(path)
    with h5py.File(path, "a") as file:
        if change == "array":  # to read it would take 80 GB
            file.create_dataset("uns/none", (10_000_000_000,), "f8", chunks=(1000,))
        file.attrs["other"] = 1
    with pytest.raises(ValueError, match="damaged"):
        npt.Campaign.load(path)


@contextmanager
def second_user():
    """Be a user who has no other rights than those of files; root takes on those of nobody."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def group_folder():
    """Return a folder in which everybody may write, which pytest's own forbids."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.skipif(os.name == "nt", reason="has other rights")
@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_second_user_reads_without_a_lock(ending, campaign, group_folder):
    path = group_folder / f"screen.{ending}"
    campaign.save(path)
    (group_folder / f".screen.{ending}.lock").chmod(0o400)
    # Versions are looked up once in a process: the folder of packages may be root's alone.
    copy.deepcopy(campaign).mark_failed(["CD58"])
    with second_user():
        loaded = npt.Campaign.load(path)
        loaded.mark_failed(["CD58"])
        with pytest.raises(OSError, match=r"Cannot write to .*ermission denied"):
            loaded.save(path)
    same(npt.Campaign.load(path), campaign)


@pytest.mark.skipif(os.name == "nt", reason="has other rights")
def test_a_file_that_may_not_be_read_is_not_called_damaged(campaign, group_folder):
    path = group_folder / "screen.h5ad"
    campaign.save(path)
    path.chmod(0)
    with second_user(), pytest.raises(PermissionError, match=r"screen\.h5ad.*may not be read"):
        npt.Campaign.load(path)


def test_a_zarr_cut_anywhere_is_refused(parts, tmp_path):
    whole = tmp_path / "whole.zarr"
    campaign_file.write_campaign(parts[1], whole, [])
    files = sorted(p for p in whole.rglob("*") if p.is_file())
    # Consolidated metadata stand beside the others, which are read.
    files = [file for file in files if file.name != ".zmetadata"]
    for i in np.linspace(0, len(files) - 1, 9).astype(int):
        content = files[i].read_bytes()
        files[i].write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=r"whole\.zarr' is damaged|holds no campaign"):
            npt.Campaign.load(whole)
        files[i].write_bytes(content)
    campaign_file.read_campaign(whole)


def test_two_at_once_lose_nothing(campaign, tmp_path):
    path = tmp_path / "screen.h5ad"
    campaign.save(path)
    names = ["CD58", "CDK6", "CTSA", "CCR10"]
    refused = []

    def work(name):
        while True:  # load again and repeat, as the error says
            mine = npt.Campaign.load(path)
            mine.mark_failed([name])
            try:
                mine.save(path)
            except ValueError as error:
                refused.append(str(error))
            else:
                return

    threads = [threading.Thread(target=work, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(npt.Campaign.load(path).failed) == set(names)
    assert all("Load it again" in message for message in refused)


def test_who_waits_too_long_is_told(campaign, tmp_path, monkeypatch, files_in):
    monkeypatch.setattr(lock, "WAIT", 0.1)
    path = tmp_path / "screen.h5ad"
    with lock.alone(path), pytest.raises(ValueError, match="by another process"):
        campaign.save(path)
    assert not path.exists()
    campaign.save(path)
    assert files_in(tmp_path) == [path.name]


def test_a_save_that_fails_leaves_the_file(campaign, tmp_path, monkeypatch, files_in):
    path = tmp_path / "screen.h5ad"
    campaign.save(path)
    before = npt.Campaign.load(path)
    campaign.mark_failed(["CD58"])

    def fails(part, path):
        message = "disk full"
        raise OSError(message)

    with monkeypatch.context() as patch:
        patch.setattr(campaign_file, "_put", fails)
        with pytest.raises(OSError, match="disk full"):
            campaign.save(path)
    same(npt.Campaign.load(path), before)
    assert files_in(tmp_path) == [path.name]
    campaign.save(path)
    assert npt.Campaign.load(path).failed == {"CD58": ""}


def test_a_zarr_between_two_names_is_found_again(campaign, tmp_path, files_in):
    path = tmp_path / "screen.zarr"
    campaign.save(path)
    shutil.move(path, tmp_path / ".screen.before.zarr")
    same(npt.Campaign.load(path), campaign)
    assert files_in(tmp_path) == [path.name]


FULL = """
import resource, sys
import anndata as ad, numpy as np
from pathlib import Path
from nextpert.campaign.file import write_campaign

path = Path(sys.argv[1])
rng = np.random.default_rng(0)
known = [write_campaign(ad.AnnData(rng.normal(size=(20, 5))), path, [])]
resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, 2**13))
try:
    write_campaign(ad.AnnData(rng.normal(size=(2000, 50))), path, known)
except OSError as error:
    print("told:", error)
"""


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_a_disk_that_takes_no_more_leaves_the_file(ending, tmp_path, files_in):
    """In a process of its own, as HDF5 ends it where the disk is full."""
    path = tmp_path / f"screen.{ending}"
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout[:5]) == (0, "told:"), done.stderr
    adata, stamp = campaign_file.read_campaign(path)
    assert (adata.shape, stamp.revision) == ((20, 5), 1)
    assert files_in(tmp_path) == [path.name]


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_links_are_followed(ending, campaign, tmp_path, files_in):
    for folder in ("store", "desk"):
        (tmp_path / folder).mkdir()
    path, link = tmp_path / "store" / f"screen.{ending}", tmp_path / "desk" / f"mine.{ending}"
    link.symlink_to(path)  # of nothing, as yet
    campaign.save(link)
    campaign.mark_failed(["CD58"])
    campaign.save(link)
    assert link.is_symlink()
    assert npt.Campaign.load(path).failed == npt.Campaign.load(link).failed == {"CD58": ""}
    assert [files_in(each.parent) for each in (path, link)] == [[path.name], [link.name]]
