"""``fetch_perturb_cite_seq.py``: from either origin to an h5ad file, and the dry run."""

import gzip
import hashlib
import logging
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pytest

from nextpert._adata.panel import ZHANG2023
from nextpert.datasets._fetch import RemoteFile
from nextpert.datasets._perturb_cite_seq_standin import write_portal_standin

BODY = np.random.default_rng(0).bytes(300_000)  # as the server sends unless told otherwise


@pytest.fixture
def loader(monkeypatch):
    """Stand in for the loader; notes its calls and writes the file it is asked for."""
    import nextpert as npt

    calls = []

    def read_study(source, **options):
        calls.append((source, options))
        write = lambda path: path.write_bytes(b"h5ad")  # noqa: E731
        return SimpleNamespace(n_obs=1, n_vars=1, write_h5ad=write)

    monkeypatch.setattr(npt.datasets, "perturb_cite_seq", read_study)
    return calls


def test_from_the_portal_to_h5ad(
    scripts, server, configuration, study, needed, loader, tmp_path, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    server.files[needed[0]].cuts = [2]
    command = ["portal", str(configuration), "--to", str(tmp_path / "data")]
    assert scripts.main([*command, "--condition", "Control"]) == 0
    for name in needed:
        assert (tmp_path / "data" / name).read_bytes() == study[name]
    found = {str(p.relative_to(tmp_path / "data")) for p in (tmp_path / "data").rglob("[!.]*.*")}
    assert found == {*needed, "perturb_cite_seq.h5ad"}
    options = {"condition": "Control", "counts": False}
    assert loader == [(tmp_path / "data" / "SCP1064", options)]
    asked = len(server.asked)
    assert scripts.main(command) == 0  # all is there
    assert len(server.asked) == asked
    assert len(loader) == 1
    shown = "".join(capfd.readouterr()) + caplog.text
    assert "there already" in shown
    assert "5ecre7" not in shown
    for path in (tmp_path / "data").rglob("*.*"):
        assert b"5ecre7" not in path.read_bytes()


def test_a_dry_run_touches_nothing(
    scripts, server, configuration, study, needed, loader, tmp_path, capsys
):
    part = tmp_path / "data" / (needed[0] + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(b"fu")
    (tmp_path / "data" / needed[1]).parent.mkdir(parents=True)
    (tmp_path / "data" / needed[1]).write_bytes(study[needed[1]])
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    command = ["portal", str(configuration), "--to", str(tmp_path / "data"), "--dry-run"]
    assert scripts.main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert (server.asked, loader) == ([], [])
    shown, _ = capsys.readouterr()
    assert "5ecre7" not in shown
    assert "to go on from byte 2" in shown
    assert shown.count("there already") == 1
    assert shown.count("(to download)") == len(needed) - 2
    assert f"127.0.0.1:{server.server_address[1]}/{needed[0]}" in shown
    assert "perturb_cite_seq.h5ad" in shown


def test_from_zenodo_to_h5ad(scripts, server, monkeypatch, loader, tmp_path, capsys, files_in):
    server.add("content", cuts=[1000], etag=None)  # the checksum is enough to go on
    file = RemoteFile("x.h5ad", server.url("content"), f"md5:{hashlib.md5(BODY).hexdigest()}")
    monkeypatch.setattr(scripts.command, "SCPERTURB", file)
    command = ["scperturb", "--to", str(tmp_path)]
    assert scripts.main([*command, "--dry-run"]) == 0
    assert "(to download)" in capsys.readouterr().out
    assert files_in(tmp_path) == []
    assert scripts.main([*command, "--h5ad", str(tmp_path / "y.h5ad")]) == 0
    target = tmp_path / "scPerturb" / "x.h5ad"
    assert target.read_bytes() == BODY
    assert server.asked[-1] == ("content", "bytes=1000-")
    assert loader == [(target, {"condition": None, "counts": False})]
    assert (tmp_path / "y.h5ad").exists()
    target.write_bytes(BODY[:-1] + b"?")
    assert scripts.main(command) == 1
    assert "another MD5 checksum" in capsys.readouterr().err
    assert target.read_bytes() == BODY[:-1] + b"?"  # not ours to delete


def test_a_whole_study_through_the_loader(scripts, server, tmp_path):
    """A stand-in in the portal's layouts; plain files are stored compressed, as the portal does."""
    conditions = ["Control", "IFNγ"] * 30
    study = write_portal_standin(tmp_path / "made", ZHANG2023[:6], conditions, n_genes=12)
    lines = []
    for path in (tmp_path / "made").rglob("*.*"):
        name = f"SCP1064/{path.relative_to(tmp_path / 'made').as_posix()}"
        plain = path.suffix != ".gz"
        body = gzip.compress(path.read_bytes()) if plain else path.read_bytes()
        server.add(name, body, headers={"Content-Encoding": "gzip"} if plain else {}, cuts=[99])
        lines += [f'url="{server.url(name)}"', f'output="{name}"']
    (tmp_path / "cfg.txt").write_text("\n".join(lines))
    command = ["portal", str(tmp_path / "cfg.txt"), "--to", str(tmp_path / "data"), "--counts"]
    assert scripts.main(command) == 0
    adata = ad.read_h5ad(tmp_path / "data" / "perturb_cite_seq.h5ad")
    assert adata.obs_names.tolist() == study.cells
    np.testing.assert_array_equal(adata.layers["counts"].toarray(), study.counts)
