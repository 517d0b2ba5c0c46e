"""A command that is stopped, or finds no room: nothing is left by halves."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys

import anndata as ad
import numpy as np
import pytest

from nextpert.cli import main

pytestmark = [pytest.mark.processes, pytest.mark.brief_chain]

FAST = ["--quiet", "--n-runs", "2", "--n-samples", "20", "--no-figures", "--n-graphs", "2"]
KEEP = ["--combinations", "keep"]


def _demo(path, *options, out=None):
    out = path.parent / "out" if out is None else out
    data = ["--data", str(path), "--target", "MYC", *KEEP]
    return main(["demo", *data, "--out", str(out), *FAST, *options])


def _never(*args, **options):
    raise AssertionError


@pytest.mark.parametrize("error", [KeyboardInterrupt, signal.SIGTERM, signal.SIGHUP])
def test_interruption_leaves_nothing(error, fitted, monkeypatch, capsys):
    def interrupt(*args, **options):
        if isinstance(error, signal.Signals):
            signal.raise_signal(error)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("nextpert.cli._run.write_screen", interrupt)
    code = 130 if error is KeyboardInterrupt else 128 + error
    assert main(["effects", str(fitted), "--quiet"]) == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("interrupted, nothing written" if code == 130 else "nothing written")
    assert list(fitted.parent.iterdir()) == [fitted]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_signal_during_the_report_says_that_results_are_there(fitted, monkeypatch, capsys):
    def stop(*args):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("nextpert.cli._run.verdict_of", stop)
    assert main(["effects", str(fitted), "--quiet"]) == 143
    assert "terminated, results are written" in capsys.readouterr().err
    assert (fitted.parent / "screen.effects.h5ad").is_file()


def test_a_terminated_process_leaves_nothing(screen):
    code = (
        "import sys, time; from nextpert import tl; from nextpert.cli import main; "
        "tl.learn_dag = lambda *args, **options: time.sleep(300); sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "demo", "--data", str(screen), "--target", "MYC"]
    command += ["--out", str(screen.parent / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "Learning" in line:
                process.terminate()
                break
        assert process.wait(120) == 143
        assert process.stderr.read().splitlines()[-1] == "nextpert: terminated, nothing written"
    assert list(screen.parent.iterdir()) == [screen]


@pytest.mark.parametrize("place", ["file", "file/below", "out/ranking.csv"])
def test_a_folder_that_cannot_be_is_found_early(place, screen, monkeypatch, capsys):
    (screen.parent / "file").write_text("")
    if place == "out/ranking.csv":
        (screen.parent / place).mkdir(parents=True)
        place = "out"
    before = sorted(screen.parent.rglob("*"))
    monkeypatch.setattr("nextpert.tl.learn_dag", _never, raising=False)
    assert _demo(screen, out=screen.parent / place) == 2
    assert "folder" in capsys.readouterr().err
    assert sorted(screen.parent.rglob("*")) == before


def test_a_folder_without_permission_is_found_early(screen, monkeypatch, capsys):
    """The tests may run as root, to whom no folder is closed."""

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("nextpert.cli._output.tempfile.TemporaryDirectory", refuse)
    monkeypatch.setattr("nextpert.tl.learn_dag", _never, raising=False)
    assert _demo(screen) == 2
    line = capsys.readouterr().err
    assert "Permission denied" in line
    assert "name another" in line


def test_a_disk_that_takes_no_more(fitted, brief_command):
    """A limit on the size of files stands for the disk."""
    adata = ad.read_h5ad(fitted)
    adata.obsm["large"] = np.random.default_rng(0).normal(size=(adata.n_obs, 700))
    adata.write_h5ad(fitted, compression="gzip")
    done = subprocess.run(
        [*brief_command, "effects", str(fitted), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**21, 2**21)),
    )
    assert done.returncode == 2, done.stderr
    assert "nextpert: error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 3, "HDF5 says nothing of its own"
    assert list(fitted.parent.iterdir()) == [fitted]


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_a_step_writes_all_or_none(kind, fitted, monkeypatch, capsys):
    out, table = fitted.parent / "new" / f"x.{kind}", fitted.parent / "tables" / "x.csv"
    command = ["effects", str(fitted), "--out", str(out), "--table", str(table), "--quiet"]
    before = sorted(fitted.parent.iterdir())
    real = os.replace

    def fail(source, target):
        if str(target).endswith(".toml"):
            raise OSError("no")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("nextpert.cli._output.os.replace", fail)
        assert main(command) == 2
    assert sorted(fitted.parent.iterdir()) == before
    assert main(command) == 0
    files = {path for path in out.parent.rglob("*") if path.is_file()}
    kept = {path: path.read_bytes() for path in files}

    def stop(*args):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("nextpert.cli._run.write_table", stop)
    assert main([*command, "--overwrite"]) == 143
    assert capsys.readouterr().err.splitlines()[-1].endswith("terminated, nothing written")
    assert {path: path.read_bytes() for path in files} == kept
    assert {path.name for path in out.parent.iterdir()} == {out.name, f"{out.name}.toml"}


def test_the_screen_itself_is_never_written_over(fitted, monkeypatch, capsys):
    before = fitted.read_bytes()
    monkeypatch.chdir(fitted.parent)
    for out in (str(fitted), fitted.name, f"../{fitted.parent.name}/{fitted.name}"):
        assert main(["effects", fitted.name, "--out", out, "--quiet"]) == 2
        assert "is the screen itself" in capsys.readouterr().err
    assert main(["effects", fitted.name, "--table", "screen.csv", "--quiet"]) == 0
    assert fitted.read_bytes() == before


def _into(words, place, unbuffered, **options):
    """Run the command with its standard output somewhere."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [sys.executable, "-m", "nextpert.cli", *map(str, words)],
        env=env | ({"PYTHONUNBUFFERED": "1"} if unbuffered else {}),
        stdout=place,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        **options,
    )


@pytest.mark.parametrize(("words", "unbuffered"), [(["--help"], True), (["effects"], False)])
def test_a_reader_that_has_gone_or_none_is_no_error(words, unbuffered, fitted):
    """As with "| head -1", which may end before anything is printed, and with ">&-"."""
    words = [*words, fitted, "--quiet", "--overwrite"] if words == ["effects"] else words
    ours, theirs = os.pipe()
    os.close(ours)
    gone = _into(words, theirs, unbuffered)
    os.close(theirs)
    closed = _into(words, None, unbuffered, preexec_fn=lambda: os.close(1))
    for done in (gone, closed):
        assert (done.returncode, done.stderr) == (0, "")
    assert "effects" not in words or (fitted.parent / "screen.effects.h5ad").is_file()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("unbuffered", [True, False])
def test_output_that_is_lost_is_an_error(unbuffered):
    with open("/dev/full", "w") as full:
        done = _into(["--version"], full, unbuffered)
    assert done.returncode == 2
    assert done.stderr.count("No space left") == done.stderr.count("\n") == 1


def test_an_error_is_an_error_with_nowhere_to_tell_it():
    done = _into(["fit", "absent.h5ad"], None, False, preexec_fn=lambda: os.close(2))
    assert done.returncode == 2
