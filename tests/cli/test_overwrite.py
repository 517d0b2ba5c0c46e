"""What is there already: replaced with leave alone, and never what the command did not write."""

from __future__ import annotations

import os
import shutil

import anndata as ad
import h5py
import numpy as np
import pytest

import nextpert as npt
from nextpert.campaign.file import write_campaign
from nextpert.cli import main
from nextpert.cli._output import _hidden_folder, require_free

pytestmark = [pytest.mark.processes, pytest.mark.brief_chain]


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def error(capsys):
    (line,) = (x for x in capsys.readouterr().err.splitlines() if "error:" in x)
    return line


def run(*words):
    return main([*map(str, words), "--quiet"])


@pytest.mark.processes
@pytest.mark.parametrize(("kind", "table"), [("zarr", "csv"), ("h5ad", "parquet")])
def test_results_are_replaced_with_leave_alone(kind, table, fitted, capsys):
    if table == "parquet":
        pytest.importorskip("pyarrow")
    folder = fitted.parent
    out, rows = folder / f"x.{kind}", folder / f"x.{table}"
    words = ["effects", fitted, "--out", out, "--table", rows]
    assert run(*words) == 0
    before = contents(folder)
    assert run(*words, "--level", 0.5) == 2
    told = error(capsys)
    assert f"'{out}' exists" in told
    assert "--overwrite" in told
    assert contents(folder) == before
    assert run(*words, "--level", 0.5, "--overwrite") == 0
    stored = (ad.read_zarr if kind == "zarr" else ad.read_h5ad)(out)
    assert stored.uns["perturbation_effects"]["params"]["level"] == 0.5
    assert "overwrite =" not in (folder / f"x.{kind}.toml").read_text()
    assert run("effects", "--config", folder / f"x.{kind}.toml") == 2
    assert run("effects", "--config", folder / f"x.{kind}.toml", "--overwrite") == 0


@pytest.mark.parametrize("left", ["x.h5ad", "x.h5ad.toml", "x.csv"])
def test_each_file_of_a_run_counts(left, fitted, monkeypatch, capsys):
    folder = fitted.parent
    words = ["effects", fitted, "--out", folder / "x.h5ad", "--table", folder / "x.csv"]
    assert run(*words) == 0
    for name in {"x.h5ad", "x.h5ad.toml", "x.csv"} - {left}:
        (fitted.parent / name).unlink()
    before = contents(fitted.parent)
    monkeypatch.setattr("nextpert.tl.perturbation_effects", None, raising=False)  # not called
    assert run(*words) == 2
    assert f"{left}' exists: replace it with --overwrite" in error(capsys)
    assert contents(fitted.parent) == before


def foreign(name, folder, fitted):
    """Put what is not the command's where it is to write."""
    path = folder / name
    if name == "folder.zarr":
        path.mkdir()
        (path / "thesis.txt").write_text("five years")
    elif name.endswith(".zarr"):
        ad.read_h5ad(fitted).write_zarr(path)
    elif name == "mine.h5ad":
        ad.read_h5ad(fitted).write_h5ad(path)
    elif name == "campaign.h5ad":
        write_campaign(ad.AnnData(np.ones((2, 2))), path, [])
    elif name == "text.h5ad":
        path.write_text("no HDF5")
    elif name == "folder.csv":
        path.mkdir()
    return path


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize(
    "name",
    ["folder.zarr", "mine.zarr", "mine.h5ad", "campaign.h5ad", "text.h5ad", "folder.csv"],
)
def test_what_the_command_did_not_write_stays(name, fitted, monkeypatch, capsys):
    path = foreign(name, fitted.parent, fitted)
    option = "--out" if path.suffix in (".zarr", ".h5ad") else "--table"
    before = contents(fitted.parent)
    monkeypatch.setattr("nextpert.tl.perturbation_effects", None, raising=False)  # not called
    for leave in ([], ["--overwrite"]):
        assert run("effects", fitted, option, path, *leave) == 2
        assert str(path) in error(capsys)
        assert contents(fitted.parent) == before
    assert path.exists()


def test_a_result_that_was_changed_since_is_no_longer_replaced(fitted, capsys):
    out = fitted.parent / "x.h5ad"
    assert run("effects", fitted, "--out", out) == 0
    ad.read_h5ad(out).write_h5ad(out)
    assert run("effects", fitted, "--out", out, "--overwrite") == 2
    assert "was not written by this command, so --overwrite does not" in error(capsys)


@pytest.mark.processes
def test_links_are_followed(fitted):
    store, desk = fitted.parent / "store", fitted.parent / "desk"
    store.mkdir()
    desk.mkdir()
    for name in ("x.h5ad", "x.zarr", "x.csv"):
        (desk / name).symlink_to(store / name)
    for leave in ([], ["--overwrite"]):
        assert run("effects", fitted, "--out", desk / "x.h5ad", *leave) == 0
        words = ["--out", desk / "x.zarr", "--table", desk / "x.csv", *leave]
        assert run("effects", fitted, *words) == 0
        assert {p.name for p in store.iterdir()} == {"x.h5ad", "x.zarr", "x.csv"}
        links = {p.name for p in desk.iterdir() if p.is_symlink()}
        assert links == {"x.h5ad", "x.zarr", "x.csv"}
    assert "perturbation_effects" in ad.read_h5ad(store / "x.h5ad").uns


def test_hidden_folders_of_killed_runs_are_removed_and_those_of_others_stay(tmp_path):
    (tmp_path / ".nextpert_killed").mkdir()
    (tmp_path / ".nextpert_killed" / ".lock").touch()
    with _hidden_folder(tmp_path) as alive:
        require_free({tmp_path / "x.csv": print}, None, overwrite=False)
        assert list(tmp_path.iterdir()) == [alive]
    assert not list(tmp_path.iterdir())


def test_what_comes_in_the_meantime_stays(fitted, monkeypatch, capsys):
    out = fitted.parent / "x.h5ad"
    real = npt.tl.perturbation_effects

    def meanwhile(adata, **options):
        out.write_text("somebody else's")
        real(adata, **options)

    monkeypatch.setattr("nextpert.tl.perturbation_effects", meanwhile, raising=False)
    assert run("effects", fitted, "--out", out) == 2
    assert "exists" in error(capsys)
    assert out.read_text() == "somebody else's"
    assert sorted(p.name for p in fitted.parent.iterdir()) == [fitted.name, "x.h5ad"]


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_move_that_fails_brings_back_what_was_there(kind, fitted, monkeypatch):
    words = ["effects", fitted, "--out", fitted.parent / f"x.{kind}"]
    words += ["--table", fitted.parent / "x.csv"]
    assert run(*words) == 0
    before, real = contents(fitted.parent), os.replace

    def fail(source, target):
        if str(target).endswith("x.csv") and "old_" not in str(source):
            raise OSError("no")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("nextpert.cli._output.os.replace", fail)
        assert run(*words, "--level", 0.5, "--overwrite") == 2
    assert contents(fitted.parent) == before
    (fitted.parent / "x.csv").unlink()
    shutil.move(fitted.parent / f"x.{kind}", fitted.parent / f"y.{kind}")
    (fitted.parent / f"x.{kind}.toml").unlink()
    before = contents(fitted.parent)
    with monkeypatch.context() as patch:
        patch.setattr("nextpert.cli._output.os.replace", fail)
        assert run(*words) == 2
    assert contents(fitted.parent) == before


def test_the_mark_is_no_part_of_the_screen(fitted):
    assert run("effects", fitted) == 0
    with h5py.File(fitted.parent / "screen.effects.h5ad") as file:
        assert file.attrs["nextpert"] == npt.__version__
    assert "nextpert" not in ad.read_h5ad(fitted.parent / "screen.effects.h5ad").uns
