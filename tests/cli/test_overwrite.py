"""What is there already is replaced with leave alone, and the screen itself never."""

from __future__ import annotations

import anndata as ad
import pytest

from nextpert._files import write_adata
from nextpert.cli import main
from nextpert.cli._run import require_free, write_all

pytestmark = pytest.mark.brief_chain


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


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["zarr", "h5ad"])
def test_results_are_replaced_with_leave_alone(kind, fitted, capsys):
    folder = fitted.parent
    out, rows = folder / f"x.{kind}", folder / "x.csv"
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


def test_the_screen_itself_is_never_written_over(fitted, not_called, monkeypatch, capsys):
    before = fitted.read_bytes()
    monkeypatch.chdir(fitted.parent)
    for out in (str(fitted), fitted.name, f"../{fitted.parent.name}/{fitted.name}"):
        assert run("effects", fitted.name, "--out", out, "--overwrite") == 2
        assert "is the screen itself" in error(capsys)
    assert fitted.read_bytes() == before


def test_a_file_that_exists_is_free_only_with_leave(tmp_path):
    path = tmp_path / "x.csv"
    require_free({path: path.touch}, None, overwrite=False)
    path.touch()
    with pytest.raises(ValueError, match="--overwrite"):
        require_free({path: path.touch}, None, overwrite=False)
    require_free({path: path.touch}, None, overwrite=True)


def test_files_are_written_all_or_none(tmp_path):
    def write(text, *, broken=False):
        def last(path):
            path.write_text(text)
            if broken:
                raise KeyboardInterrupt

        adata = ad.AnnData(uns={"text": text})
        write_all({tmp_path / "x.zarr": lambda path: write_adata(adata, path, {}),
                   tmp_path / "new" / "x.csv": last})  # fmt: skip

    write("before")
    with pytest.raises(KeyboardInterrupt):
        write("after", broken=True)
    found = lambda: (str(ad.read_zarr(tmp_path / "x.zarr").uns["text"]),  # noqa: E731
                     (tmp_path / "new" / "x.csv").read_text())  # fmt: skip
    assert found() == ("before", "before")
    write("after")
    assert found() == ("after", "after")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "x.zarr"]
