"""The file of a campaign: what comes back, who may write it, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import io
import json

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest

import nextpert as npt
from nextpert import _files
from nextpert._files import write_adata
from nextpert.campaign import file as campaign_file

pytestmark = [pytest.mark.formats, pytest.mark.brief_chain]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "screen.h5ad"


@pytest.fixture
def saved(campaign, path):
    campaign.save(path)
    return path


def same(one, two):
    """Whether two campaigns know the same and propose the same."""
    tables = [c.history.drop(columns="when") for c in (one, two)]
    assert tables[0].equals(tables[1])
    assert one.summarize().equals(two.summarize())
    assert one.pending == two.pending
    assert one.failed == two.failed
    assert copy.deepcopy(one).propose(2, 200).equals(copy.deepcopy(two).propose(2, 200))


def test_round_trip(campaign, parts, path, assert_same_adata, files_in):
    campaign.propose(2, 200)
    campaign.mark_pending(["CTSA"], n_cells=12)
    campaign.mark_failed(["CD58"], reason="die Zellen starben")
    campaign.save(path)
    loaded = npt.Campaign.load(path)
    assert_same_adata(loaded.adata, campaign.adata)
    assert files_in(path.parent) == [path.name]
    same(loaded, campaign)
    for each in (loaded, campaign):
        each.observe(parts[1], batch="same")
    same(loaded, campaign)
    loaded.save(path)
    same(npt.Campaign.load(path), campaign)


def test_options_of_every_kind_come_back(parts, given, path):
    effects = ad.AnnData(
        np.ones((1, 2)), pd.DataFrame(index=["CDK4"]), pd.DataFrame(index=["B2M", "CD59"])
    )
    shift = pd.DataFrame(-np.eye(2), index=["B2M", "CD59"], columns=["B2M", "CD59"])
    noise = {"noise_var": pd.Series(0.1, parts[0].var_names)}
    campaign = npt.Campaign(
        parts[0],
        pd.Series({"B2M": 1.0, "CD59": 0.5}),
        learn=given,
        fit={"features": effects, "prior_options": noise, "shift": shift},
        plan={"candidates": ("CD59", "CD58"), "constraints": {"include": {"CD59"}}},
    )
    campaign.save(path)
    loaded = npt.Campaign.load(path)
    same(loaded, campaign)
    for each in (loaded, campaign):
        each.observe(parts[1], batch="same")
    same(loaded, campaign)


def test_targets_of_every_kind_come_back(parts, target, given, tmp_path):
    cells = parts[0].copy()
    cells.obs["day"] = ["late" if name == "B2M" else "early" for name in cells.obs["perturbation"]]
    of_parts = npt.Target(
        state=[("day", "late"), {"CD58": 1.0}], at_most=pd.Series({"CD59": 2.0}),
        weights=["CD58", "CD59", "B2M"], distance="noise",
    )  # fmt: skip
    vector = np.array(list(target.values()))
    for k, wanted in enumerate((of_parts, vector)):
        campaign = npt.Campaign(cells, wanted, learn=given)
        campaign.save(tmp_path / f"{k}.h5ad")
        again = npt.Campaign.load(tmp_path / f"{k}.h5ad")
        assert repr(again.target) == repr(campaign.target)
        same(again, campaign)
    np.testing.assert_array_equal(again.adata.uns["design"]["target_mean"], vector)


def test_a_stale_campaign_is_not_written_over_another(campaign, saved, tmp_path):
    mine, theirs = npt.Campaign.load(saved), npt.Campaign.load(saved)
    theirs.mark_failed(["CD58"])
    theirs.save(saved)
    mine.propose(2, 200)
    with pytest.raises(ValueError, match=r"revision 2\), but this .* based on revision 1,.*load"):
        mine.save(saved)
    assert npt.Campaign.load(saved).failed == {"CD58": ""}
    mine.save(tmp_path / "mine.h5ad")
    assert len(npt.Campaign.load(tmp_path / "mine.h5ad").pending) == 2
    with pytest.raises(ValueError, match="revision 2"):  # still not there
        mine.save(saved)
    theirs.save(tmp_path / "copy.h5ad")  # and back
    theirs.save(saved)
    campaign._stamps.clear()
    with pytest.raises(ValueError, match="has never been saved or loaded"):
        campaign.save(saved)


def test_files_that_are_something_else(campaign, parts, tmp_path):
    parts[0].write_h5ad(tmp_path / "cells.h5ad")
    for call in (campaign.save, npt.Campaign.load):
        with pytest.raises(ValueError, match="is not a campaign"):
            call(tmp_path / "cells.h5ad")
        with pytest.raises(ValueError, match=r"must end in \.h5ad"):
            call(tmp_path / "cells.zarr")
    (tmp_path / "folder.h5ad").mkdir()
    for name in ("nowhere.h5ad", "folder.h5ad"):
        with pytest.raises(FileNotFoundError, match=f"There is no campaign .*{name}"):
            npt.Campaign.load(tmp_path / name)


def test_another_version(campaign, path):
    stamp = json.dumps({"format": 1})
    write_adata(campaign.adata, path, {campaign_file._STAMP: stamp}, sealed=True)
    for call in (campaign.save, npt.Campaign.load):
        with pytest.raises(ValueError, match="another version of nextpert"):
            call(path)


@pytest.mark.parametrize("part", ["obs", "values", "screen", "dag_blr", "design", "dag", "varp"])
def test_a_file_without_parts_of_the_campaign(saved, part):
    adata, stamp = campaign_file.read_campaign(saved)
    if part == "obs":
        adata.obs = adata.obs[[]]
    elif part == "values":
        adata.X = None
    elif part == "varp":
        del adata.varp["dag"]
    else:
        del adata.uns[part]
    text = json.dumps({"format": campaign_file.FORMAT, **stamp._asdict()})
    write_adata(adata, saved, {campaign_file._STAMP: text}, sealed=True)
    with pytest.raises(ValueError, match=rf"campaign .*screen\.h5ad.*{part}.*Campaign\.save wrote"):
        npt.Campaign.load(saved)


def stamp_is(value):
    return lambda file: file.attrs.__setitem__(campaign_file._STAMP, value)


def text_is(part, text):
    def change(file):
        place = f"uns/campaign/{part}/json"
        attributes = dict(file[place].attrs)
        del file[place]
        file[place] = text
        file[place].attrs.update(attributes)

    return change


CRAFTED = {
    "no stamp": lambda file: file.attrs.__delitem__(campaign_file._STAMP),
    "no JSON": stamp_is("{"),
    "a list": stamp_is("[1]"),
    "a number": stamp_is(3),
    "deep": stamp_is("[" * 200_000),
    "further parts": stamp_is('{"format": 5, "revision": 1, "saved": "", "name": "", "run": "x"}'),
    "revision": stamp_is('{"format": 5, "revision": "x", "saved": "", "name": ""}'),
    "encoding": lambda file: file.attrs.__setitem__("encoding-type", "pickle"),
    "a mapping": lambda file: file.attrs.__setitem__("encoding-type", "dict"),
    "no results": lambda file: file.__delitem__("uns"),
    "options": text_is("options", '{"learn": {"method": "other"}}'),
    "features": text_is("options", '{"fit": {"features": "/etc/passwd"}}'),
    "target": text_is("target", '{"!target": {"run": 1}}'),
    "table": text_is("target", '{"!array": "9"}'),
    "pending": text_is("pending", '{"CD58": "x"}'),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_crafted_file_with_a_valid_digest_is_named(saved, case):
    end = len(_files._SEAL) + 32
    image = io.BytesIO(saved.read_bytes()[:-end])
    with h5py.File(image, "a") as file:
        CRAFTED[case](file)
    content = image.getvalue()
    saved.write_bytes(content + _files._SEAL + hashlib.sha256(content).digest())
    with pytest.raises(ValueError, match=r"digest of a campaign|damaged|lacks uns"):
        npt.Campaign.load(saved)


def test_an_h5ad_cut_or_garbled_anywhere_is_refused_unopened(saved, monkeypatch):
    """HDF5 loops for ever in some files of which bytes are zero."""
    content = np.frombuffer(saved.read_bytes(), np.uint8)

    def opens(*_):
        pytest.fail("HDF5 opens a damaged file")

    monkeypatch.setattr(campaign_file.h5py, "File", opens)
    bad = [content[:end] for end in np.linspace(0, len(content) - 1, 50).astype(int)]
    places = np.random.default_rng(0).choice(np.flatnonzero(content[:-200]), 50)
    for start in [*places, len(content) - 32]:
        for garble in (np.zeros_like, lambda part: part ^ 0x5A):
            bad.append(content.copy())
            bad[-1][start : start + 64] = garble(content[start : start + 64])
    for each in bad:
        saved.write_bytes(each.tobytes())
        with pytest.raises(ValueError, match=r"screen\.h5ad' is not a campaign .*damaged"):
            npt.Campaign.load(saved)
