"""What is there already: replaced with leave alone, and never what the command did not write."""

from __future__ import annotations

import os
from functools import partial

import anndata as ad
import h5py
import pytest

import nextpert as npt
from nextpert._files import hidden_folder
from nextpert.cli import main
from nextpert.cli._output import require_free, write_all, write_screen

pytestmark = [pytest.mark.processes, pytest.mark.brief_chain]


def contents(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def error(capsys):
    (line,) = (x for x in capsys.readouterr().err.splitlines() if "error:" in x)
    return line


def run(*words):
    return main([*map(str, words), "--quiet"])


@pytest.fixture
def not_called(monkeypatch):
    monkeypatch.setattr("nextpert.tl.perturbation_effects", None, raising=False)


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
    assert f"'{out}' exists: replace it with --overwrite" in error(capsys)
    assert contents(folder) == before
    assert run(*words, "--level", 0.5, "--overwrite") == 0
    stored = (ad.read_zarr if kind == "zarr" else ad.read_h5ad)(out)
    assert stored.uns["perturbation_effects"]["params"]["level"] == 0.5
    config = ["--config", folder / f"x.{kind}.toml"]  # leave is given anew
    assert [run("effects", *config), run("effects", *config, "--overwrite")] == [2, 0]


@pytest.mark.parametrize("left", ["x.h5ad", "x.h5ad.toml", "x.csv"])
def test_each_file_of_a_run_counts(left, fitted, not_called, capsys):
    folder = fitted.parent
    (folder / left).write_text("here")
    before = contents(folder)
    assert run("effects", fitted, "--out", folder / "x.h5ad", "--table", folder / "x.csv") == 2
    assert f"{left}' exists: replace it with --overwrite" in error(capsys)
    assert contents(folder) == before


def put(name, folder, fitted):
    """Put what is not the command's where it is to write."""
    path = folder / name
    if name.startswith("folder"):
        path.mkdir()
        (path / "thesis.txt").write_text("five years")
    elif name == "mine.zarr":
        ad.read_h5ad(fitted).write_zarr(path)
    elif name == "text.h5ad":
        path.write_text("no HDF5")
    else:  # written by the command, and changed since
        assert run("effects", fitted, "--out", path) == 0
        ad.read_h5ad(path).write_h5ad(path)
        path.with_name(f"{name}.toml").unlink()
    return path


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize(
    "name", ["folder.zarr", "mine.zarr", "text.h5ad", "folder.csv", "changed.h5ad"]
)
def test_what_the_command_did_not_write_stays(name, fitted, monkeypatch, capsys):
    path = put(name, fitted.parent, fitted)
    option = "--out" if path.suffix in (".zarr", ".h5ad") else "--table"
    before = contents(fitted.parent)
    monkeypatch.setattr("nextpert.tl.perturbation_effects", None, raising=False)  # not called
    for leave in ([], ["--overwrite"]):
        assert run("effects", fitted, option, path, *leave) == 2
        assert str(path) in error(capsys)
        assert contents(fitted.parent) == before
    assert path.exists()


def test_the_screen_itself_is_never_written_over(fitted, not_called, monkeypatch, capsys):
    before = fitted.read_bytes()
    monkeypatch.chdir(fitted.parent)
    for out in (str(fitted), fitted.name, f"../{fitted.parent.name}/{fitted.name}"):
        assert run("effects", fitted.name, "--out", out, "--overwrite") == 2
        assert "is the screen itself" in error(capsys)
    assert fitted.read_bytes() == before


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
    with hidden_folder(tmp_path) as alive:
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


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("by", ["error", "signal"])
@pytest.mark.parametrize(("is_new", "n_moves"), [(True, 2), (False, 4)])
def test_a_move_stopped_anywhere_is_undone(by, is_new, n_moves, tmp_path, monkeypatch):
    """By an error in place of each change of a name, or a signal after it."""
    real = os.replace

    def write(text, stop_at=-1):
        left = [stop_at]

        def change(*names):
            left[0] -= 1
            if by == "signal" or left[0] != 0:
                real(*names)
            if left[0] == 0:
                raise OSError("no") if by == "error" else KeyboardInterrupt

        writers = {
            tmp_path / "new" / "x.zarr": partial(write_screen, ad.AnnData(uns={"text": text})),
            tmp_path / "tables" / "x.csv": lambda path: path.write_text(text),
        }
        with monkeypatch.context() as patch:
            patch.setattr("nextpert.cli._output.os.replace", change)
            write_all(writers, None, overwrite=True)

    if not is_new:
        write("before")
    before, folders = contents(tmp_path), sorted(tmp_path.rglob("*"))
    for n in range(1, n_moves + 1):
        with pytest.raises((OSError, KeyboardInterrupt)):
            write("after", stop_at=n)
        assert contents(tmp_path) == before
        assert sorted(tmp_path.rglob("*")) == folders
    write("after")
    assert (tmp_path / "tables" / "x.csv").read_text() == "after"


def test_the_mark_is_no_part_of_the_screen(fitted):
    assert run("effects", fitted) == 0
    with h5py.File(fitted.parent / "screen.effects.h5ad") as file:
        assert file.attrs["nextpert"] == npt.__version__
    assert "nextpert" not in ad.read_h5ad(fitted.parent / "screen.effects.h5ad").uns
